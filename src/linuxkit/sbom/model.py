"""The nouns of a bill of materials. Pure.

A database of a stranger's image is bounded here: sizes, lengths and counts beyond which it is no honest one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from typing import Any

MAX_DATABASE = 32 << 20  # bytes of a text database: that of a large desktop has 10 MB
MAX_PACKAGES = 50_000  # of one image
MAX_NAME = 256  # characters of a name or version
MAX_TEXT = 1024  # characters of any other field

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Package:
    """One installed package.

    kind        of its purl: deb, apk, rpm, generic.
    source      name of the source package, where the database says it, with source_version.
    licence     as the database spells it; not yet an SPDX expression.
    checksums   (SHA256, hex) pairs of the file that it came as.
    purl        when a document already gives it; else it is made of the rest.
    texts       of licences, by the name that `licence` has for them.
    about       what the package database says beyond names: the summary.
    """

    kind: str
    name: str
    version: str
    architecture: str = ""
    epoch: str = ""
    source: str = ""
    source_version: str = ""
    licence: str = ""
    supplier: str = ""
    homepage: str = ""
    about: str = ""
    checksums: tuple[tuple[str, str], ...] = ()
    purl: str = ""
    texts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Distribution:
    """os-release: ID, VERSION_ID, PRETTY_NAME."""

    id: str = ""
    version: str = ""
    title: str = ""


@dataclass(frozen=True, slots=True)
class Database:
    """What one file of an image says: packages; what could not be read, in words."""

    packages: tuple[Package, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Inventory:
    """What is in one image. `documents`: attested SPDX documents, as JSON values that stand in no list yet."""

    distribution: Distribution = Distribution()
    packages: tuple[Package, ...] = ()
    notes: tuple[str, ...] = ()
    documents: tuple[dict[str, Any], ...] = field(default=())


def clean(text: str, limit: int = MAX_TEXT) -> str:
    """A field of a stranger: no control characters, no lone surrogates, not endless."""
    return _CONTROL.sub("\ufffd", text[:limit].strip())


def usable(name: str, version: str) -> bool:
    """Whether a record names a package: both there, of honest length, without blanks or control characters."""
    return all(0 < len(t) <= MAX_NAME and not _CONTROL.search(t) and len(t.split()) == 1 for t in (name, version))


def to_json(package: Package) -> dict[str, Any]:
    """The fields that say something."""
    return {f.name: v for f in fields(package) if (v := getattr(package, f.name))}


def from_json(value: dict[str, Any]) -> Package:
    """What `to_json` gave. Raises TypeError for anything else."""
    pairs = {name: tuple((a, b) for a, b in value.get(name, ())) for name in ("checksums", "texts")}
    return Package(**{**value, **pairs})
