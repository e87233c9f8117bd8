"""Nodes to values, as a table of types says. Collects every problem on the way instead of stopping at the first one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any

from linuxkit.config.document import Mapping, Node, Scalar, Sequence, printable
from linuxkit.config.model import Position
from linuxkit.config.types import AnyOf, Bool, Field, Int, ListOf, MapOf, Object, Str, Type
from linuxkit.errors import InputError, Problem

#: What stands for a value that is wrong; its problem has been noted.
BAD: Any = object()
_KINDS: dict[type, str] = {Int: "an integer", ListOf: "a list"}

#: Replaces what follows `@pkg:`; raises InputError.
Substitute = Callable[[str], str]
#: Refuses an image reference by raising InputError.
CheckReference = Callable[[str], object]
#: What yaml.v3 takes for a boolean where the field is one; elsewhere these words are text.
_GO_BOOL = {word: value for words, value in (("y Y yes Yes YES on On ON", True), ("n N no No NO off Off OFF", False))
            for word in words.split()}  # fmt: skip
_ZERO = {Str: "", Int: 0, Bool: False}


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint that names the nearest of `known`, or lists them when there are few; "" when nothing is near."""
    names = list(known)
    folded = {n.lower().replace("_", "").replace("-", ""): n for n in names}
    same = folded.get(word.lower().replace("_", "").replace("-", ""))
    import difflib

    near = [same] if same else difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if near:
        return f"did you mean '{near[0]}'?"
    return f"known: {', '.join(names)}" if 0 < len(names) <= 9 else ""


@cache
def _has(make: Callable[..., Any] | None, attribute: str) -> bool:
    return isinstance(make, type) and is_dataclass(make) and any(f.name == attribute for f in fields(make))


class Converter:
    """One pass over one document.

    problems   what was found wrong, in the order met.
    positions  path → where that value stands.
    go_types   read scalars as Go's yaml.v3 does into typed fields: `yes` is a boolean where one is wanted, an unquoted
               `0666` is text where text is wanted, a key with nothing after it is as if it were not there.
    """

    def __init__(self, file: str, *, substitute: Substitute | None, check_reference: CheckReference | None,
                 go_types: bool = False) -> None:  # fmt: skip
        self.file = file
        self._go_types = go_types
        self.problems: list[Problem] = []
        self.positions: dict[str, Position] = {}
        self._substitute = substitute
        self._check_reference = check_reference

    def problem(self, message: str, at: Position, path: str, hint: str = "") -> Any:
        self.problems.append(Problem(printable(message), at.file, at.line, at.column, printable(path), printable(hint)))
        return BAD

    def value(self, node: Node, of: Type, path: str) -> Any:
        """The value, or BAD."""
        self.positions[path] = node.position
        if self._go_types and isinstance(node, Scalar):
            node = _as_go(node, of)
        match of:
            case Object():
                return self.object(node, of, path)
            case ListOf():
                return self._list(node, of, path)
            case MapOf():
                return self._map(node, of, path)
            case AnyOf():
                return self._any(node, of, path)
            case Str():
                return self._str(node, of, path)
            case Int():
                return self._int(node, of, path)
            case Bool():
                if isinstance(node, Scalar) and isinstance(node.value, bool):
                    return node.value
                text = node.text.lower() if isinstance(node, Scalar) else ""
                meant = {"yes": "true", "on": "true", "true": "true", "no": "false", "off": "false", "false": "false"}
                hint = f"write {meant[text]}, without quotes" if text in meant else "write true or false"
                return self._type("a boolean", node, path, hint)

    def given(self, node: Node, of: Object, path: str) -> dict[str, Any] | None:
        """The values of an object's keys by attribute, bad ones left out; None when it is not a mapping."""
        if not isinstance(node, Mapping):
            self._type("a mapping", node, path, "")
            return None
        values: dict[str, Any] = {}
        known = {f.name: f for f in of.fields}
        for key, value in node.pairs:
            below = f"{path}.{key.text}" if path else key.text
            if key.text not in known:
                self.problem(f"unknown key '{key.text}'", key.position, path, self._key_hint(key.text, of))
                continue
            if self._go_types and is_nothing(value):
                continue
            found = self.value(value, known[key.text].type, below)
            if found is not BAD:
                values[known[key.text].attribute] = found
        present = {key.text for key, value in node.pairs if not (self._go_types and is_nothing(value))}
        for field in of.fields:
            if field.required and field.name not in present:
                self.problem(f"'{field.name}' is missing", node.position, path)
        return values

    def object(self, node: Node, of: Object, path: str) -> Any:
        before = len(self.problems)
        values = self.given(node, of, path)
        if values is None or len(self.problems) > before:
            return BAD
        if of.make is None or of.make is dict:
            zeros = {f.attribute: False if isinstance(f.type, Bool) else 0 for f in of.fields if f.always}
            values = zeros | values
            return {f.attribute: values[f.attribute] for f in of.fields if f.attribute in values}
        if _has(of.make, "position"):
            values["position"] = node.position
        return of.make(**values)

    def _key_hint(self, word: str, of: Object) -> str:
        for field in of.fields:  # a key of runtime: written one level too high
            if isinstance(field.type, Object) and field.type.field(word):
                return f"'{word}' belongs under '{field.name}'"
        return did_you_mean(word, (f.name for f in of.fields))

    def _type(self, wanted: str, node: Node, path: str, hint: str) -> Any:
        got = "nothing" if isinstance(node, Scalar) and node.value is None else node.kind
        if got == "nothing":
            empty = {"a list": "write []", "a mapping": "write {}", "a string": 'write ""'}.get(wanted, "")
            hint = f"remove the key, or {empty}" if empty else "remove the key, or give it a value"
        return self.problem(f"needs {wanted}, not {got}", node.position, path, hint)

    def _list(self, node: Node, of: ListOf, path: str) -> Any:
        if not isinstance(node, Sequence):
            return self._type("a list", node, path, "start each item with '- '")
        values = [self.value(item, of.item, f"{path}[{n}]") for n, item in enumerate(node.items)]
        return BAD if any(v is BAD for v in values) else tuple(values)

    def _map(self, node: Node, of: MapOf, path: str) -> Any:
        if not isinstance(node, Mapping):
            return self._type("a mapping", node, path, "write `name: value` lines")
        values = {key.text: self.value(value, of.value, f"{path}.{key.text}") for key, value in node.pairs}
        return BAD if any(v is BAD for v in values.values()) else values

    def _any(self, node: Node, of: AnyOf, path: str) -> Any:
        lists = [option for option in of.of if isinstance(option, ListOf)]
        if isinstance(node, Sequence) and lists:
            return self.value(node, lists[0], path)
        if isinstance(node, Scalar):
            for option in of.of:
                fits = isinstance(option, Str) if isinstance(node.value, str) else isinstance(option, Int)
                if fits and node.value is not None and not isinstance(node.value, bool | float):
                    return self.value(node, option, path)
        return self._type(
            " or ".join(_KINDS.get(type(o), "a string") for o in of.of), node, path, ""
        )

    def _int(self, node: Node, of: Int, path: str) -> Any:
        if not isinstance(node, Scalar) or not isinstance(node.value, int) or isinstance(node.value, bool):
            quoted = isinstance(node, Scalar) and isinstance(node.value, str) and node.value.lstrip("-").isdigit()
            return self._type("an integer", node, path, "remove the quotes" if quoted else "")
        if not of.minimum <= node.value <= of.maximum:
            return self.problem(f"{node.value} is out of range", node.position, path, f"{of.minimum} to {of.maximum}")
        return node.value

    def _str(self, node: Node, of: Str, path: str) -> Any:
        if not isinstance(node, Scalar) or not isinstance(node.value, str):
            quote = isinstance(node, Scalar) and node.value is not None
            hint = f'put it in quotes: "{node.text}"' if quote and isinstance(node, Scalar) else ""
            return self._type("a string", node, path, hint)
        text = node.value
        if text.startswith("@pkg:") and self._substitute is not None:
            try:
                text = self._substitute(text.removeprefix("@pkg:"))
            except InputError as e:
                return self.problem(e.message, node.position, path, e.hint)
        elif text.startswith("@pkg:") and of.image:
            return self.problem("@pkg: works only in files on this machine", node.position, path)
        if "\0" in text and not of.binary:
            return self.problem("has a NUL character in it", node.position, path)
        if of.nonempty and not text:
            return self.problem("is empty", node.position, path)
        if of.choices and text not in of.choices:
            hint = did_you_mean(text, of.choices)
            listed = ", ".join(of.choices)
            hint = hint if "mean" in hint else ""
            return self.problem(f"'{text}' is not one of {listed}", node.position, path, hint)
        if of.pattern and not re.fullmatch(of.pattern, text):
            return self.problem(f"'{text}' is not {of.form or of.pattern}", node.position, path)
        if of.image and text and self._check_reference is not None:
            try:
                self._check_reference(text)
            except InputError as e:
                return self.problem(e.message, node.position, path, e.hint)
        return of.enum(text) if of.enum else text


def is_nothing(node: Node) -> bool:
    """Whether a key has nothing after it, or a null."""
    return isinstance(node, Scalar) and node.value is None


def _as_go(node: Scalar, of: Type) -> Scalar:
    """The scalar as yaml.v3 decodes it into a field of this type."""
    value: Any = node.value
    if node.value is None:
        value = _ZERO.get(type(of))
    elif isinstance(of, Str):
        value = node.text
    elif isinstance(of, Bool):
        value = _GO_BOOL.get(node.text, node.value) if isinstance(node.value, str) else node.value
    elif isinstance(of, Int) and isinstance(node.value, float) and abs(node.value) < 2**63:
        value = int(node.value)
    return node._replace(value=value)


def field_of(of: Object, name: str) -> Field:
    """A field that the table is known to have."""
    field = of.field(name)
    assert field is not None, name
    return field
