"""The few types that YAML values have, as data. config/schema.py is written in them; parse and docs read them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


@dataclass(frozen=True, slots=True)
class Str:
    """Text. `choices`: the only values allowed; `enum`: what they become. `image`: an image reference."""

    choices: tuple[str, ...] = ()
    enum: type[StrEnum] | None = None
    pattern: str = ""  # a regular expression for the whole value
    image: bool = False
    nonempty: bool = False


@dataclass(frozen=True, slots=True)
class Int:
    minimum: int = -(2**63)
    maximum: int = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Bool:
    pass


@dataclass(frozen=True, slots=True)
class AnyOf:
    """A value of one of some scalar types."""

    of: tuple[Type, ...]


@dataclass(frozen=True, slots=True)
class ListOf:
    item: Type


@dataclass(frozen=True, slots=True)
class MapOf:
    """A mapping with free keys."""

    value: Type


@dataclass(frozen=True, slots=True)
class Field:
    """One key of an Object.

    name       as written in YAML.
    attribute  as `make` calls it.
    doc        one or two sentences for the reference, Markdown.
    default    what holds when the key is absent, in words.
    example    a YAML value, for the reference.
    always     written out (config/render.py) even when it is the default, as LinuxKit does.
    """

    name: str
    attribute: str
    type: Type
    doc: str
    default: str = ""
    required: bool = False
    example: str = ""
    always: bool = False


@dataclass(frozen=True, slots=True)
class Object:
    """A mapping with fixed keys. `make` gets a keyword for each key present; None: a dict in the OCI spelling."""

    name: str
    fields: tuple[Field, ...]
    make: Callable[..., Any] | None = None
    doc: str = ""

    def field(self, name: str) -> Field | None:
        return next((f for f in self.fields if f.name == name), None)


Type = Str | Int | Bool | AnyOf | ListOf | MapOf | Object
