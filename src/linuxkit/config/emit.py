"""Plain values to YAML and JSON as Go's libraries lay them out: block style throughout, UTF-8, no folding."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from linuxkit.config.document import scalar_value


@dataclass(frozen=True, slots=True)
class Style:
    """Spaces a level; whether `- ` stands one level in; whether a tab may stand in a block of several lines."""

    indent: int
    indented_lists: bool
    tabs_in_blocks: bool


#: text that a YAML 1.1 reader would not take for text: quoted for its sake
_OLD = re.compile(
    r"y|Y|yes|Yes|YES|on|On|ON|n|N|no|No|NO|off|Off|OFF|[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?|=|<<"
    r"|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt \t].*)?"
)
_SPECIAL = re.compile("[^\t\n\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
#: with these, text cannot stay on one line outside double quotes
_BREAKS = "\t\n\x85\u2028\u2029"
_NAMED = {"\0": "0", "\a": "a", "\b": "b", "\t": "t", "\n": "n", "\v": "v", "\f": "f", "\r": "r", "\x1b": "e",
          '"': '"', "\\": "\\", "\x85": "N", "\xa0": "_", "\u2028": "L", "\u2029": "P"}  # fmt: skip


#: encoding/json escapes these for the sake of HTML; half of a surrogate pair becomes the replacement character
_ESCAPED = re.compile("[<>&\u2028\u2029\ud800-\udfff]")


def go_json(value: Any) -> bytes:
    """`value` as JSON with an indent of four spaces, UTF-8, keys in the order they stand, no newline at the end."""
    text = json.dumps(value, indent=4, ensure_ascii=False, allow_nan=False)
    return _ESCAPED.sub(lambda m: "\\ufffd" if "\ud800" <= m[0] <= "\udfff" else f"\\u{ord(m[0]):04x}", text).encode()


def emit_yaml(value: Mapping[str, Any], style: Style) -> str:
    """A document, ended by a newline."""
    return "".join(_mapping(value, 0, style))


def _mapping(value: Mapping[str, Any], at: int, style: Style) -> list[str]:
    lines = []
    for key, item in value.items():
        lines.append(f"{' ' * at}{_inline(key)}:{_value(item, at, style)}")
    return lines


def _value(item: Any, at: int, style: Style) -> str:
    """What follows `key:`, ended by a newline. Below a list's item, steps go on to the next multiple of the indent."""
    deeper = style.indent * (at // style.indent + 1)
    if isinstance(item, Mapping):
        return "\n" + "".join(_mapping(item, deeper, style)) if item else " {}\n"
    if isinstance(item, str):
        return f" {_text(item, at, deeper, style)}\n"
    if isinstance(item, Sequence):
        return "\n" + _list(item, deeper if style.indented_lists else at, style) if item else " []\n"
    return f" {_inline(item)}\n"


def _list(items: Sequence[Any], at: int, style: Style) -> str:
    lines = []
    for item in items:
        if isinstance(item, str):
            text = _text(item, at, at + 2, style) + "\n"
        elif isinstance(item, Mapping) and item:
            text = "".join(_mapping(item, at + 2, style))[at + 2 :]
        elif isinstance(item, Sequence) and item:
            text = _list(item, at + 2, style)[at + 2 :]
        else:
            text = ("{}" if isinstance(item, Mapping) else "[]" if isinstance(item, Sequence) else _inline(item)) + "\n"
        lines.append(f"{' ' * at}- {text}")
    return "".join(lines)


def _inline(value: Any) -> str:
    """A scalar on one line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        return str(value)
    if _SPECIAL.search(value) or any(c in value for c in _BREAKS):
        return _quoted(value)
    if not isinstance(scalar_value(value), str) or _OLD.fullmatch(value):
        return f'"{value}"'
    return value if _plain(value) else "'" + value.replace("'", "''") + "'"


def _plain(text: str) -> bool:
    """Whether it may stand without quotes in block context."""
    if text != text.strip(" ") or text.startswith(("---", "...")) or text[0] in "#,[]{}&*!|>'\"%@`":
        return False
    if text[0] in "-?:" and (len(text) == 1 or text[1] == " "):
        return False
    return ": " not in text and " #" not in text and not text.endswith(":")


def _text(text: str, parent: int, at: int, style: Style) -> str:
    """A value; several lines become a `|` block whose lines stand at `at`, below a collection at `parent`."""
    blank = re.search(" \n| $", text) or (not style.tabs_in_blocks and "\t" in text)
    if "\n" not in text or blank or _SPECIAL.search(text) or any(c in text for c in _BREAKS[2:]):
        return _inline(text)
    head = str(at - parent) if text[0] in " \n\t" else ""
    if not text.endswith("\n"):
        head += "-"
    elif text == "\n" or text.endswith("\n\n"):
        head += "+"
    lines = text.removesuffix("\n").split("\n")
    return f"|{head}\n" + "\n".join(" " * at + line if line else "" for line in lines)


def _quoted(text: str) -> str:
    out = []
    for char in text:
        if char in _NAMED:
            out.append("\\" + _NAMED[char])
        elif _SPECIAL.match(char):
            code = ord(char)
            out.append(f"\\x{code:02X}" if code < 256 else f"\\u{code:04X}" if code < 65536 else f"\\U{code:08X}")
        else:
            out.append(char)
    return '"' + "".join(out) + '"'
