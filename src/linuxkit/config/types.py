"""The few types that YAML values have, as data. config/schema.py is written in them; parse and docs read them.

Named tuples, because making a dozen dataclasses costs every command 10 ms.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any, NamedTuple


class Str(NamedTuple):
    """Text.

    choices  the only values allowed; enum: what they become.
    pattern  a regular expression for the whole value; form: what it asks for, in words.
    image    an image reference.
    binary   may have NUL characters.
    """

    choices: tuple[str, ...] = ()
    enum: type[StrEnum] | None = None
    pattern: str = ""
    form: str = ""
    image: bool = False
    nonempty: bool = False
    binary: bool = False


class Int(NamedTuple):
    minimum: int = -(2**63)
    maximum: int = 2**63 - 1


class Bool(NamedTuple):
    """true or false."""


class AnyOf(NamedTuple):
    """A value of one of some scalar types, or a list."""

    of: tuple[Type, ...]


class ListOf(NamedTuple):
    item: Type


class MapOf(NamedTuple):
    """A mapping with free keys."""

    value: Type


class Field(NamedTuple):
    """One key of an Object.

    name       as written in YAML.
    attribute  as `make` calls it.
    doc        one or two sentences for the reference, Markdown.
    default    what holds when the key is absent, in words.
    example    a YAML value, for the reference.
    always     written out (config/render.py, config.json) even when it is the default, as LinuxKit does.
    """

    name: str
    attribute: str
    type: Type
    doc: str
    default: str = ""
    required: bool = False
    example: str = ""
    always: bool = False


class Object(NamedTuple):
    """A mapping with fixed keys. `make` gets a keyword for each key present; None: a dict in the OCI spelling."""

    name: str
    fields: tuple[Field, ...]
    make: Callable[..., Any] | None = None
    doc: str = ""

    def field(self, name: str) -> Field | None:
        return next((f for f in self.fields if f.name == name), None)


Type = Str | Int | Bool | AnyOf | ListOf | MapOf | Object
