"""A Debian archive's package index: stanzas found by name, parsed when they are asked for.

A Packages file of a whole suite is 56 MB with 63,000 stanzas, of which a build looks at fifty. So it is mapped, the
`Package:` and `Provides:` lines are found by substring search, and only the stanzas in question are parsed.
Field syntax: Debian Policy chapter 5 (control files) and 7 (relationships); version order: 5.6.12.
"""

from __future__ import annotations

import mmap
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from linuxkit.errors import ImageError
from linuxkit.foreign import number as number_of
from linuxkit.foreign import number_or

_FIELD = re.compile(r"^([A-Za-z0-9-]+):[ \t]*(.*(?:\n[ \t].*)*)", re.M)
_RELATION = re.compile(
    r"^\s*([a-z0-9][a-z0-9+.-]*)(?::[a-z0-9-]+)?\s*(?:\(\s*(<<|<=|=|>=|>>|<|>)\s*([^)\s]+)\s*\))?\s*(?:\[[^\]]*\])?\s*$"
)
_PROVIDED = re.compile(rb"(?:^|,)\s*([a-z0-9][a-z0-9+.-]*)")
_PARTS = re.compile(r"(\D*)(\d*)")


def version_key(version: str) -> tuple[int, tuple[object, ...], tuple[object, ...]]:
    """A sort key: `1.0~rc1` before `1.0`, letters before everything else, numbers by value."""
    epoch, colon, rest = version.partition(":")
    if not colon or not epoch.isdigit():
        epoch, rest = "0", version
    upstream, dash, revision = rest.rpartition("-")
    if not dash:
        upstream, revision = rest, "0"
    return number_or(epoch, 0), _key(upstream), _key(revision)


def _key(text: str) -> tuple[object, ...]:
    out: list[object] = []
    for letters, figures in _PARTS.findall(text):
        if letters or figures:
            order = (-1 if c == "~" else ord(c) + (0 if c.isalpha() else 256) for c in letters)
            out += [(*order, 0), number_or(figures, 0)]
    return (*out, (0,))


@dataclass(frozen=True, slots=True)
class Relation:
    """`name (operator version)`; operator and version are "" when any will do."""

    name: str
    operator: str = ""
    version: str = ""

    def accepts(self, version: str) -> bool:
        if not self.operator:
            return True
        have, want = version_key(version), version_key(self.version)
        match self.operator:
            case "=":
                return have == want
            case "<<":
                return have < want
            case ">>":
                return have > want
            case "<=" | "<":
                return have <= want
            case _:
                return have >= want


def relations(text: str) -> tuple[tuple[Relation, ...], ...]:
    """A Depends field: groups of alternatives, of which each needs one. What does not parse is left out."""
    groups = []
    for group in text.replace("\n", " ").split(","):
        found = [Relation(m[1], m[2] or "", m[3] or "") for part in group.split("|") if (m := _RELATION.match(part))]
        if found:
            groups.append(tuple(found))
    return tuple(groups)


@dataclass(frozen=True, slots=True)
class Package:
    """One version of one binary package in the archive."""

    name: str
    version: str
    architecture: str
    filename: str  # below the mirror's root
    size: int
    sha256: str  # hex
    section: str
    mirror: str  # which mirror's index it stood in
    source: str
    depends: tuple[tuple[Relation, ...], ...] = ()
    provides: tuple[tuple[Relation, ...], ...] = ()

    @property
    def digest(self) -> str:
        return self.sha256

    def __str__(self) -> str:
        return f"{self.name} {self.version} ({self.architecture})"


def _lines(data: mmap.mmap | bytes, key: bytes) -> Iterator[tuple[int, bytes]]:
    """(offset, value) of each line that starts with `key`. Far quicker than a multi-line regular expression."""
    at = 0 if data[: len(key)] == key else data.find(b"\n" + key) + 1
    while at or data[: len(key)] == key:
        end = data.find(b"\n", at)
        end = len(data) if end < 0 else end
        yield at, data[at + len(key) : end]
        at = data.find(b"\n" + key, end) + 1
        if not at:
            return


class Index:
    """Several Packages files as one.

    Args:
        files: (mirror URL, Packages file, uncompressed, its digest checked).
    """

    def __init__(self, files: Iterable[tuple[str, Path]]) -> None:
        self._files: list[tuple[str, mmap.mmap | bytes]] = []
        self._names: dict[bytes, list[tuple[int, int]]] = {}
        self._provided: dict[bytes, list[tuple[int, int]]] = {}
        for mirror, path in files:
            number = len(self._files)
            data: mmap.mmap | bytes = b""
            if path.stat().st_size:
                with path.open("rb") as stream:
                    data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
            self._files.append((mirror, data))
            starts: list[int] = []
            for at, value in _lines(data, b"Package: "):
                starts.append(at)
                self._names.setdefault(value, []).append((number, at))
            for at, value in _lines(data, b"Provides: "):
                owner = bisect_right(starts, at) - 1
                if owner >= 0:
                    for name in _PROVIDED.findall(value):
                        self._provided.setdefault(name, []).append((number, starts[owner]))

    def versions(self, name: str) -> list[Package]:
        """All versions of a package, newest first."""
        found = [self._parse(*where) for where in self._names.get(name.encode(), ())]
        return sorted(found, key=lambda p: version_key(p.version), reverse=True)

    def best(self, relation: Relation) -> Package | None:
        """The newest package that satisfies a relation: by its own name, else one that provides it."""
        for package in self.versions(relation.name):
            if relation.accepts(package.version):
                return package
        offers: dict[str, Package] = {}
        for where in self._provided.get(relation.name.encode(), ()):
            package = self._parse(*where)
            for group in package.provides:
                given = group[0]
                fits = not relation.operator or (given.version and relation.accepts(given.version))
                newer = package.name not in offers or version_key(package.version) > version_key(
                    offers[package.name].version
                )
                if given.name == relation.name and fits and newer:
                    offers[package.name] = package
        return offers[min(offers)] if offers else None

    def names(self) -> list[str]:
        return [name.decode("utf-8", "replace") for name in self._names]

    def _parse(self, number: int, start: int) -> Package:
        mirror, data = self._files[number]
        end = data.find(b"\n\n", start)
        text = data[start : end if end >= 0 else len(data)].decode("utf-8", "replace")
        field = {name.lower(): value.strip() for name, value in _FIELD.findall(text)}
        try:
            name, size = field["package"], number_of(field["size"])
            digest, filename = field["sha256"].lower(), field["filename"]
            version, architecture = field["version"], field["architecture"]
        except (KeyError, ValueError) as e:
            raise ImageError(f"the package index has a damaged entry for {field.get('package', '?')[:100]}: {e}") from e
        source = (field.get("source", "").split() or [name])[0]
        outside = ".." in filename.split("/") or filename.startswith("/")
        if not name or not re.fullmatch(r"[0-9a-f]{64}", digest) or outside:
            raise ImageError(f"the package index has a damaged entry for {field['package']}")
        needs = ", ".join(field[key] for key in ("pre-depends", "depends") if key in field)
        return Package(
            field["package"], version, architecture, filename, size, digest, field.get("section", ""), mirror,
            source, relations(needs), relations(field.get("provides", "")),
        )  # fmt: skip
