"""The table of config/schema.py as JSON Schema, draft 2020-12, for editors: completion, hover text, early errors."""

from __future__ import annotations

from typing import Any

from linuxkit.config import schema
from linuxkit.config.types import AnyOf, Bool, Field, Int, ListOf, MapOf, Object, Str, Type

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, Any]:
    """The schema of one YAML file. It knows types and names; rules between keys are the parser's."""
    definitions: dict[str, Any] = {}
    top = _object(schema.TOP, definitions)
    head = {"$schema": DIALECT, "title": "linuxkit image configuration"}
    return head | top | {"$defs": dict(sorted(definitions.items()))}


def _type(of: Type, definitions: dict[str, Any]) -> dict[str, Any]:
    match of:
        case Str():
            found: dict[str, Any] = {"type": "string"}
            if of.choices:
                found["enum"] = [str(choice) for choice in of.choices]
            if of.pattern:
                found["pattern"] = f"^(?:{of.pattern})$"
            if of.nonempty:
                found["minLength"] = 1
            return found
        case Int():
            return {"type": "integer", "minimum": of.minimum, "maximum": of.maximum}
        case Bool():
            return {"type": "boolean"}
        case AnyOf():
            return {"anyOf": [_type(option, definitions) for option in of.of]}
        case ListOf():
            return {"type": "array", "items": _type(of.item, definitions)}
        case MapOf():
            return {"type": "object", "additionalProperties": _type(of.value, definitions)}
        case Object():
            if of.name not in definitions:
                definitions[of.name] = {}  # holds the place: no table refers to itself, but nothing should loop
                definitions[of.name] = _object(of, definitions)
            return {"$ref": f"#/$defs/{of.name}"}


def _object(of: Object, definitions: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "description": of.doc, "type": "object", "additionalProperties": False,
        "properties": {f.name: _field(f, definitions) for f in of.fields},
    }  # fmt: skip
    required = [f.name for f in of.fields if f.required]
    return found | ({"required": required} if required else {})


def _field(field: Field, definitions: dict[str, Any]) -> dict[str, Any]:
    doc = field.doc + (f" Default: {field.default}." if field.default else "")
    return {"description": doc} | _type(field.type, definitions)
