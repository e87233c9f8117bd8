"""dpkg's database: var/lib/dpkg/status, and one file for each package in status.d of images without dpkg.

    Package: bash                 a paragraph for each package, fields as in deb-control(5),
    Status: install ok installed  paragraphs apart by blank lines
    Source: bash (5.2)
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from linuxkit.sbom.model import MAX_PACKAGES, MAX_TEXT, Database, Package, clean, usable

_BLANK = re.compile(rb"\n*")
_FIELD = re.compile(
    rb"^(package|status|version|architecture|source|maintainer|homepage|description)[ \t]*:[ \t]*([^\n]*)", re.M | re.I
)
_SOURCE = re.compile(r"(\S+)\s*\(([^)\s]+)\)")
_ABSENT = ("not-installed", "config-files", "half-installed")
_LONGEST = 1 << 20  # bytes of a paragraph that are looked at
_MOST = 2 * MAX_PACKAGES  # paragraphs


def paragraphs(data: bytes) -> Iterator[bytes]:
    """Runs of lines between blank ones; of a database that has more than any honest one, the first."""
    at = 0
    for _ in range(_MOST):
        blank = _BLANK.match(data, at)
        at = blank.end() if blank else at
        if at == len(data):
            return
        end = data.find(b"\n\n", at)
        end = len(data) if end < 0 else end
        yield data[at : min(end, at + _LONGEST)]
        at = end


def parse(data: bytes) -> Database:
    """The packages that are installed. Never raises: what is no package is counted in a note."""
    packages: list[Package] = []
    odd = 0
    for paragraph in paragraphs(data):
        if len(packages) >= MAX_PACKAGES:
            return Database(tuple(packages), (f"more than {MAX_PACKAGES} packages: the rest is left out",))
        fields = {
            found[1].lower(): found[2][: MAX_TEXT * 4].decode("utf-8", "replace")
            for found in _FIELD.finditer(paragraph)
        }  # fmt: skip
        status = fields.get(b"status", "installed").split()
        if status and status[-1] in _ABSENT:
            continue
        name, version = fields.get(b"package", "").strip(), fields.get(b"version", "").strip()
        if not usable(name, version):
            odd += 1
            continue
        source = clean(fields.get(b"source", ""))
        match = _SOURCE.fullmatch(source)
        packages.append(Package(
            "deb", name, version, clean(fields.get(b"architecture", "")),
            source=match[1] if match else source, source_version=match[2] if match else "",
            supplier=clean(fields.get(b"maintainer", "")), homepage=clean(fields.get(b"homepage", "")),
            about=clean(fields.get(b"description", ""), 256),
        ))  # fmt: skip
    return Database(tuple(packages), (f"{odd} records without a usable name and version",) if odd else ())
