"""An Alpine repository's index: packages by name and by what they provide.

    C:Q1…=                  checksum of the package's metadata
    P:musl  V:1.2.5-r9      name, version
    A:x86_64  S:407278      architecture, size of the file
    D:so:libc.musl-x86_64.so.1 busybox>1.3 !old       what it depends on, and what it conflicts with
    p:so:libz.so.1=1.3.1 cmd:zcat=1.0 pc:zlib=1.3.1   what it provides
    k:10                    of several that provide the same, the highest wins

apk-package(5); the order of versions is apk's (src/version.c): numbers, a letter, suffixes, revision.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from linuxkit.errors import ImageError
from linuxkit.foreign import number_or

MAX_PACKAGES = 200_000
_VERSION = re.compile(r"([0-9]+(?:\.[0-9]+)*)([a-z]?)((?:_[a-z]+[0-9]*)*)(?:~[0-9a-f]+)?(?:-r([0-9]+))?")
_SUFFIX = re.compile(r"_([a-z]+)([0-9]*)")
#: Suffixes before and after a version without any.
_ORDER = {"alpha": -4, "beta": -3, "pre": -2, "rc": -1, "cvs": 1, "svn": 2, "git": 3, "hg": 4, "p": 5}
_RELATION = re.compile(r"(!?)([^\s<>=~@!]+)(?:([<>=~]+)([^\s@]+))?(?:@\S+)?")
_CHECKSUM = re.compile(r"Q1[A-Za-z0-9+/]{27}=")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


def version_key(version: str) -> tuple[object, ...]:
    """A sort key. What is no version sorts before everything."""
    match = _VERSION.fullmatch(version)
    if match is None:
        return (-1,)
    numbers = tuple(_count(part) for part in match[1].split("."))
    suffixes = tuple((_ORDER.get(name, -5), _count(digits)) for name, digits in _SUFFIX.findall(match[3]))
    return (0, numbers, match[2], (*suffixes, (0, 0)), _count(match[4]))


def _count(digits: str | None) -> int:
    return number_or(digits or "", 0)


@dataclass(frozen=True, slots=True)
class Relation:
    """`name`, or `name>=version`; a conflict when `forbids`. Operators: < <= = >= > and ~ (starts with)."""

    name: str
    operator: str = ""
    version: str = ""
    forbids: bool = False

    def accepts(self, version: str) -> bool:
        if not self.operator or self.operator == "><":  # a digest, which only apk's world file has
            return True
        if "~" in self.operator:
            return version == self.version or version.startswith((f"{self.version}.", f"{self.version}-",
                                                                  f"{self.version}_"))  # fmt: skip
        have, want = version_key(version), version_key(self.version)
        return ("<" in self.operator and have < want) or (">" in self.operator and have > want) or (
            "=" in self.operator and have == want)  # fmt: skip


def relations(text: str) -> tuple[Relation, ...]:
    """A list of relations. What does not parse is left out."""
    found = (_RELATION.fullmatch(word) for word in text.split())
    return tuple(Relation(m[2], m[3] or "", m[4] or "", m[1] == "!") for m in found if m)


@dataclass(frozen=True, slots=True)
class Package:
    """One version of one package. `digest` is the index's checksum; `record` its stanza."""

    name: str
    version: str
    digest: str
    size: int
    repository: str  # URL that the file is below
    depends: tuple[Relation, ...]
    provides: tuple[Relation, ...]
    priority: int
    record: str

    @property
    def filename(self) -> str:
        return f"{self.name}-{self.version}.apk"

    @property
    def is_library(self) -> bool:
        """Whether it provides a shared library."""
        return any(one.name.startswith("so:") for one in self.provides)

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


class ApkIndex:
    """Several indexes as one.

    Args:
        texts: (repository's URL, APKINDEX, its signature checked).

    Raises:
        ImageError: a stanza that cannot be one.
    """

    def __init__(self, texts: Iterable[tuple[str, bytes]]) -> None:
        self._names: dict[str, list[Package]] = {}
        self._provided: dict[str, list[tuple[str, Package]]] = {}
        count = 0
        for repository, text in texts:
            for stanza in text.decode("utf-8", "replace").split("\n\n"):
                if not stanza.strip():
                    continue
                count += 1
                if count > MAX_PACKAGES:
                    raise ImageError(f"{repository}: an index of more than {MAX_PACKAGES} packages")
                package = _parse(stanza.strip("\n"), repository)
                self._names.setdefault(package.name, []).append(package)
                for one in package.provides:
                    self._provided.setdefault(one.name, []).append((one.version, package))

    def versions(self, name: str) -> list[Package]:
        """All versions of a package, newest first."""
        return sorted(self._names.get(name, ()), key=lambda p: version_key(p.version), reverse=True)

    def best(self, relation: Relation) -> Package | None:
        """The newest package that satisfies a relation: by its own name, else the preferred one that provides it."""
        for package in self.versions(relation.name):
            if relation.accepts(package.version):
                return package
        offers = [(package.priority, version_key(version), version_key(package.version), package)
                  for version, package in self._provided.get(relation.name, ())
                  if not relation.operator or (version and relation.accepts(version))]  # fmt: skip
        if not offers:
            return None
        most = max(offer[:3] for offer in offers)
        return min((offer[3] for offer in offers if offer[:3] == most), key=lambda p: p.name)

    def names(self) -> list[str]:
        """The packages' names, and what they provide."""
        return [*self._names, *self._provided]


def _parse(stanza: str, repository: str) -> Package:
    field: dict[str, str] = {}
    for line in stanza.split("\n"):
        name, mark, value = line.partition(":")
        if mark:
            field.setdefault(name, value.strip())
    name, version, digest = field.get("P", ""), field.get("V", ""), field.get("C", "")
    size, priority = field.get("S", ""), field.get("k", "0")
    good = _NAME.fullmatch(name) and _VERSION.fullmatch(version) and _CHECKSUM.fullmatch(digest)
    length, rank = number_or(size, -1), number_or(priority, -1, most=1 << 31)
    if not good or length < 0 or rank < 0:
        raise ImageError(f"{repository}: the index has a damaged entry for {(name or '?')[:100]!r}")
    provides = tuple(one for one in relations(field.get("p", "")) if not one.forbids)
    depends = relations(field.get("D", ""))
    return Package(name, version, digest, length, repository, depends, provides, rank, stanza)
