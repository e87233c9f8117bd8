"""Debian's copyright files, where machines can read them (copyright-format 1.0): the short names of the licences.

    Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/

    Files: *
    License: GPL-2+ or Artistic
"""

from __future__ import annotations

import re

from linuxkit.sbom.model import clean

MAX_FILE = 256 << 10  # bytes that are looked at
_FORMAT = re.compile(rb"\A\s*Format:[^\n]*copyright-format/1\.0", re.I)
_LICENCE = re.compile(rb"^License:[ \t]*([^\n]{1,200})", re.M | re.I)


MAX_TEXT = 64 << 10  # characters of one licence
_PARAGRAPH = re.compile(r"\n[ \t]*\n")


def texts(data: bytes) -> dict[str, str]:
    """The licences whose text is in the file: name → text, without the form's indentation and lone dots."""
    if not _FORMAT.match(data[:1000]):
        return {}
    found: dict[str, str] = {}
    for paragraph in _PARAGRAPH.split(data.decode("utf-8", "replace"))[:5000]:
        _, mark, after = ("\n" + paragraph).partition("\nLicense:")
        name, _, body = after.partition("\n")
        lines = []
        for line in body.split("\n"):
            if not line.startswith((" ", "\t")):
                break
            body_line = line[1:].expandtabs().rstrip()
            indent = min(len(body_line) - len(body_line.lstrip()), 40)
            lines.append("" if body_line.strip() == "." else " " * indent + clean(body_line, 1000))
        text = "\n".join(lines)[:MAX_TEXT].strip("\n")
        name = clean(name.strip()).replace(",", " ")
        if mark and name and len(text) > len(found.get(name, "")) and len(found) < 100:
            found[name] = text
    return found


def parse(data: bytes) -> str:
    """The licences, one a line, sorted; empty when the file is prose."""
    if not _FORMAT.match(data[:1000]):
        return ""
    names = {clean(found[1].decode("utf-8", "replace")).replace(",", " ") for found in _LICENCE.finditer(data)}
    return "\n".join(sorted(names - {""})[:100])
