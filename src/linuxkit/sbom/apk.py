"""apk's database: lib/apk/db/installed.

    C:Q1…=          a record for each package, one letter and a colon a field, records apart by blank lines;
    P:musl          after the package's own fields stand its folders (F:) and files (R:)
    V:1.2.5-r0
    L:MIT
"""

from __future__ import annotations

import re

from linuxkit.sbom.dpkg import paragraphs
from linuxkit.sbom.model import MAX_PACKAGES, MAX_TEXT, Database, Package, clean, usable

_FIELD = re.compile(rb"^([A-Za-z]):([^\n]*)", re.M)


def parse(data: bytes) -> Database:
    """The packages. Never raises: what is no package is counted in a note."""
    packages: list[Package] = []
    odd = 0
    for paragraph in paragraphs(data):
        if len(packages) >= MAX_PACKAGES:
            return Database(tuple(packages), (f"more than {MAX_PACKAGES} packages: the rest is left out",))
        fields: dict[bytes, str] = {}
        for found in _FIELD.finditer(paragraph):
            if found[1] == b"F":
                break
            fields.setdefault(found[1], found[2][: MAX_TEXT * 4].decode("utf-8", "replace"))
        name, version = fields.get(b"P", "").strip(), fields.get(b"V", "").strip()
        if not usable(name, version):
            odd += bool(fields)
            continue
        packages.append(Package(
            "apk", name, version, clean(fields.get(b"A", "")), source=clean(fields.get(b"o", "")),
            licence=clean(fields.get(b"L", "")), supplier=clean(fields.get(b"m", "")),
            homepage=clean(fields.get(b"U", "")), about=clean(fields.get(b"T", ""), 256),
        ))  # fmt: skip
    return Database(tuple(packages), (f"{odd} records without a usable name and version",) if odd else ())
