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


def parse(data: bytes) -> str:
    """The licences, one a line, sorted; empty when the file is prose."""
    if not _FORMAT.match(data[:1000]):
        return ""
    names = {clean(found[1].decode("utf-8", "replace")).replace(",", " ") for found in _LICENCE.finditer(data)}
    return "\n".join(sorted(names - {""})[:100])
