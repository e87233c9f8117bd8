"""Which images a Dockerfile takes: FROM, COPY --from and RUN --mount=from, with build arguments filled in.

Only so much of the language as that needs: comments, continued lines, here-documents, stages, and ARG before the first
FROM with `$NAME`, `${NAME}`, `${NAME:-word}` and `${NAME:+word}`.
https://docs.docker.com/reference/dockerfile
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from linuxkit.errors import InputError
from linuxkit.oci.media import Platform

LIMIT = 1 << 20  # bytes of a Dockerfile
_VARIABLE = re.compile(r"\\\$|\$(?:([A-Za-z_][A-Za-z0-9_]*)|\{([A-Za-z_][A-Za-z0-9_]*)(?::([-+])([^{}]*))?\})")
#: A word of a line as the shell reads it, with its quotes; a here-document is a whole word, as BuildKit has it: neither
#: `$((1<<X))` nor `<<<"text"` is one.
_WORD = re.compile(r"""(?:\\.|'[^']*'|"(?:\\.|[^"\\])*"|[^\s'"\\])+""")
_HEREDOC = re.compile(r"[0-9]*<<(-?)([^<]+)")
_ESCAPE = re.compile(r"#\s*escape\s*=\s*([\\`])\s*$", re.I)
_FLAG = re.compile(r"--([a-z-]+)(?:=(\S*))?$")


@dataclass(frozen=True, slots=True)
class Base:
    """An image that a Dockerfile takes, for which platform, and as the file writes it: `$BASE`."""

    image: str
    platform: Platform
    written: str


def read(path: Path) -> str:
    """The text of a Dockerfile.

    Raises:
        InputError: it isn't there, or not text.
    """
    try:
        with path.open("rb") as stream:
            return stream.read(LIMIT).decode().removeprefix("\ufeff")
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file",
                         hint="a package has a Dockerfile, or is a native recipe (docs/packages.md)") from None
    except (OSError, UnicodeDecodeError) as e:
        raise InputError(f"{path}: cannot be read: {getattr(e, 'strerror', None) or e}") from None


def bases(text: str, platform: Platform, arguments: Mapping[str, str], host: Platform | None = None) -> list[Base]:
    """The images that building for `platform` takes, in the file's order, each once.

    Args:
        arguments: build arguments.
        host: the platform of the machine that builds, for $BUILDPLATFORM; the same when not given.
    """
    given = dict(arguments)
    known = _automatic(platform, host or platform)
    stages: set[str] = set()
    found: dict[Base, None] = {}
    count = 0
    for word, rest in _instructions(text):
        if word == "ARG" and not count:
            for name, mark, default in (item.partition("=") for item in rest.split()):
                if name in given or mark:
                    known[name] = given[name] if name in given else _fill(default.strip("\"'"), known)
        elif word == "FROM":
            count += 1
            flags, words = _flags(rest)
            image = _fill(words[0], known) if words else ""
            wanted = _fill(flags.get("platform", ""), known)
            if image and image != "scratch" and image.lower() not in stages:
                found[Base(image, _platform(wanted) or platform, words[0])] = None
            if len(words) == 3 and words[1].upper() == "AS":
                stages.add(words[2].lower())
        elif word in ("COPY", "ADD", "RUN"):
            for image in _from(word, rest):
                filled = _fill(image, known)
                if filled and not filled.isdigit() and filled.lower() not in stages and "$" not in filled:
                    found[Base(filled, platform, image)] = None
    return list(found)


def _from(word: str, rest: str) -> Iterator[str]:
    for item in rest.split():
        match = _FLAG.match(item)
        if match is None:
            return
        if word != "RUN" and match[1] == "from":
            yield match[2] or ""
        elif word == "RUN" and match[1] == "mount":
            options = dict(part.partition("=")[::2] for part in (match[2] or "").split(","))
            yield options.get("from", "")


def _automatic(platform: Platform, host: Platform) -> dict[str, str]:
    return {
        f"{kind}{name}": value
        for kind, one in (("TARGET", platform), ("BUILD", host))
        for name, value in (("PLATFORM", str(one)), ("OS", one.os), ("ARCH", one.architecture),
                            ("VARIANT", one.variant))
    }  # fmt: skip


def _platform(text: str) -> Platform | None:
    parts = text.split("/")
    return Platform(*parts) if 2 <= len(parts) <= 3 and all(parts) else None


def _fill(text: str, known: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name is None:
            return "$"
        have = known.get(name, "")
        if match[3] == "-":
            return have or match[4]
        if match[3] == "+":
            return match[4] if have else ""
        return have

    return _VARIABLE.sub(value, text)


def _flags(rest: str) -> tuple[dict[str, str], list[str]]:
    words = rest.split()
    flags: dict[str, str] = {}
    while words and (match := _FLAG.match(words[0])):
        flags[match[1]] = match[2] or ""
        words.pop(0)
    return flags, words


def _instructions(text: str) -> Iterator[tuple[str, str]]:
    """(instruction in upper case, what follows), continued lines joined, here-documents left out."""
    lines = iter(text.replace("\r\n", "\n").split("\n"))
    escape, first = "\\", True
    for line in lines:
        if first and (directive := _ESCAPE.match(line.strip())):
            escape = directive[1]
        first = first and line.lstrip().startswith("#")
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        whole = line
        while whole.rstrip().endswith(escape):
            whole = whole.rstrip()[:-1]
            more = next(lines, None)
            while more is not None and (not more.strip() or more.lstrip().startswith("#")):
                more = next(lines, None)
            if more is None:
                break
            whole += more
        word, rest = (*whole.split(None, 1), "")[:2]
        word = word.upper()
        if word in ("RUN", "COPY", "ADD"):
            for tabs, end in _heredocs(rest):
                for inner in lines:
                    if (inner.lstrip("\t") if tabs else inner) == end:
                        break
        yield word, rest.strip()


def _heredocs(rest: str) -> Iterator[tuple[bool, str]]:
    """(leading tabs are dropped, the word that ends it) of each here-document that begins on a line."""
    for word in _WORD.findall(rest):
        if match := _HEREDOC.fullmatch(word):
            yield bool(match[1]), re.sub(r"""\\(.)|['"]""", r"\1", match[2])
