"""What strangers send, as numbers, JSON and text: read strictly, within bounds, shown as text and nothing more.

Python's own functions are too kind for that. `int("-1_0", 16)` is a number, `int()` takes digits of every script and
thousands of them, `json.loads` makes 64 bytes of memory of two, and takes halves of UTF-16 pairs for text.
"""

from __future__ import annotations

import errno
import io
import json
import os
import re
import stat
from typing import Any

#: Most values of one JSON document: what makes memory, at some 100 bytes each.
MAX_JSON_VALUES = 500_000
#: Deepest nesting of one. Every honest document of a registry has fewer than ten.
MAX_JSON_DEPTH = 100
#: The largest number where nothing else is said: what 63 bits hold.
MAX_NUMBER = (1 << 63) - 1
#: Most characters of one foreign text that are shown.
MAX_SHOWN = 10_000

_DIGITS = {8: re.compile(r"[0-7]+", re.ASCII), 10: re.compile(r"[0-9]+", re.ASCII),
           16: re.compile(r"[0-9a-fA-F]+", re.ASCII)}  # fmt: skip
_NESTING = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)


def number(text: str | bytes, base: int = 10, most: int = MAX_NUMBER) -> int:
    """Digits and nothing else: no sign, no blank, no underscore, no prefix.

    Args:
        base: 8, 10 or 16.

    Raises:
        ValueError: it is anything else, empty, or over `most`.
    """
    if isinstance(text, bytes):
        text = text.decode("latin-1")
    if not _DIGITS[base].fullmatch(text) or len(text) > 1000:
        raise ValueError(f"{printable(text[:40])!r} is not a number")
    value = int(text, base)
    if value > most:
        raise ValueError(f"{printable(text[:40])} is more than {most}")
    return value


def number_or(text: str | bytes, default: int, base: int = 10, most: int = MAX_NUMBER) -> int:
    """The same, with another value for what is no number."""
    try:
        return number(text, base, most)
    except ValueError:
        return default


def read_json(data: bytes | str, *, values: int = MAX_JSON_VALUES) -> Any:
    """A JSON document (RFC 8259) in UTF-8.

    Args:
        values: the most that it may hold.

    Raises:
        ValueError: it is none, has more values, is nested deeper than MAX_JSON_DEPTH, or has halves of UTF-16 pairs.
    """
    raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    if raw.count(b",") + raw.count(b"[") + raw.count(b"{") > values:
        raise ValueError(f"it has more than {values} values")
    depth = 0
    if raw.count(b"[") + raw.count(b"{") > MAX_JSON_DEPTH:
        for found in _NESTING.finditer(raw):
            depth += {b"[": 1, b"{": 1, b"]": -1, b"}": -1}.get(found[0], 0)
            if depth > MAX_JSON_DEPTH:
                raise ValueError("it is nested too deeply")
    try:
        document = json.loads(raw.decode("utf-8"), parse_constant=_no_constant)
        if b"\\ud" in raw or b"\\uD" in raw:
            json.dumps(document, ensure_ascii=False).encode()  # halves of pairs can't be
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except UnicodeError:
        raise ValueError("it is not text in UTF-8") from None
    return document


def _no_constant(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def printable(text: str, *, lines: bool = False) -> str:
    """Text of strangers as it may reach a terminal: without what that would obey, and without what turns its order.

    That is all of Unicode's categories C (controls of ASCII and U+0080 to U+009F, formats such as U+202E and U+200B,
    halves of pairs, private and unassigned characters) and the separators other than the blank. Each becomes U+FFFD.

    Args:
        lines: keep ends of lines and tabs.
    """
    if len(text) > MAX_SHOWN:
        text = text[:MAX_SHOWN] + "…"
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c.isprintable() or (lines and c in "\n\t") else "\N{REPLACEMENT CHARACTER}" for c in text)


def printable_bytes(data: bytes, *, lines: bool = False) -> str:
    """The same for bytes, which are UTF-8 or become U+FFFD."""
    return printable(data.decode("utf-8", "replace"), lines=lines)


#: Colours, bold, and back to plain: all that is kept of what a terminal obeys. Nothing that hides, moves, or answers.
_COLOUR = re.compile(r"(\x1b\[(?:(?:[01]|22|3[0-7]|39|9[0-7])(?:;(?:[01]|22|3[0-7]|39|9[0-7]))*)?m)")
#: CSI, strings (OSC, DCS, SOS, PM, APC) to their end or the text's, other escapes; by ESC or by a C1 control.
_SEQUENCE = re.compile(
    "(?:\x1b\\[|\x9b)[0-?]*[ -/]*[@-~]?"
    "|(?:\x1b[\\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\\\|\x9c|$)"
    "|\x1b[ -/]*.?", re.DOTALL,
)  # fmt: skip


def coloured(text: str, *, lines: bool = False) -> str:
    """Text with colours in it, and apart from them as `printable` gives it; whole escape sequences leave nothing."""
    if text.isascii() and text.isprintable():
        return text
    parts = _COLOUR.split(text)
    for n in range(0, len(parts), 2):
        parts[n] = printable(_SEQUENCE.sub("", parts[n]).replace("\x07", ""), lines=lines)
    return "".join(parts)


def open_file(path: str | os.PathLike[str]) -> io.BufferedReader:
    """A file to be read, that is one: no device that never ends, no pipe that never begins.

    Raises:
        OSError: it can't be opened, or is no regular file.
    """
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    try:
        kind = stat.S_IFMT(os.fstat(fd).st_mode)
        if kind == stat.S_IFDIR:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
        if kind != stat.S_IFREG:
            raise OSError(errno.EINVAL, f"it is {_KINDS.get(kind, 'no file')}, and only files can be read",
                          os.fspath(path))  # fmt: skip
        return os.fdopen(fd, "rb")
    except BaseException:
        os.close(fd)
        raise


_KINDS = {stat.S_IFCHR: "a device", stat.S_IFBLK: "a disk", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
