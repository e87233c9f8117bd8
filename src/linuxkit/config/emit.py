"""Plain values to YAML, in the two layouts that Go's YAML libraries write. Block style throughout, UTF-8, no folding."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from linuxkit.config.document import scalar_value


@dataclass(frozen=True, slots=True)
class Style:
    """indent: spaces a level. indented_lists: `- ` stands one level in. tabs_in_blocks: a tab may stand in a `|` block."""

    indent: int
    indented_lists: bool
    tabs_in_blocks: bool


#: text that a YAML 1.1 reader would not take for text: quoted for its sake
_OLD = re.compile(
    r"y|Y|yes|Yes|YES|on|On|ON|n|N|no|No|NO|off|Off|OFF|[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?|=|<<"
    r"|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt \t].*)?"
)
_SPECIAL = re.compile("[^\t\n\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_NAMED = {"\0": "0", "\a": "a", "\b": "b", "\t": "t", "\n": "n", "\v": "v", "\f": "f", "\r": "r", "\x1b": "e",
          '"': '"', "\\": "\\", "\x85": "N", "\xa0": "_", "\u2028": "L", "\u2029": "P"}  # fmt: skip


def emit_yaml(value: Mapping[str, Any], style: Style) -> str:
    """A document, ended by a newline."""
    return "".join(_mapping(value, 0, style))


def _mapping(value: Mapping[str, Any], at: int, style: Style) -> list[str]:
    lines = []
    for key, item in value.items():
        lines.append(f"{' ' * at}{_inline(key)}:{_value(item, at, style)}")
    return lines


def _value(item: Any, at: int, style: Style) -> str:
    """What follows `key:`, ended by a newline."""
    if isinstance(item, Mapping):
        return "\n" + "".join(_mapping(item, at + style.indent, style)) if item else " {}\n"
    if isinstance(item, str):
        return f" {_text(item, at + style.indent, style)}\n"
    if isinstance(item, Sequence):
        deeper = at + (style.indent if style.indented_lists else 0)
        return "\n" + "".join(_item(i, deeper, style) for i in item) if item else " []\n"
    return f" {_inline(item)}\n"


def _item(item: Any, at: int, style: Style) -> str:
    if isinstance(item, Mapping) and item:
        return f"{' ' * at}- " + "".join(_mapping(item, at + 2, style)).lstrip(" ")
    return f"{' ' * at}-{_value(item, at, style)}"


def _inline(value: Any) -> str:
    """A scalar on one line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        return str(value)
    if _SPECIAL.search(value) or "\n" in value or "\t" in value:
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


def _text(text: str, at: int, style: Style) -> str:
    """A value; several lines become a `|` block whose lines stand at `at`."""
    blank = re.search(" \n| $", text) or (not style.tabs_in_blocks and "\t" in text)
    if "\n" not in text or blank or _SPECIAL.search(text) or "\u2028" in text or "\u2029" in text or "\x85" in text:
        return _inline(text)
    head = str(style.indent) if text[0] in " \n" else ""
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
