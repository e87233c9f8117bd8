"""The values in messages to vSphere, and how they are written: managed objects, data objects, lists, text.

    Ref("VirtualMachine", "vm-42")          <name type="VirtualMachine">vm-42</name>
    data("VirtualDisk", key=-2)             <name xsi:type="VirtualDisk"><key>-2</key></name>
    ["a", "b"]                              <name>a</name><name>b</name>
    Text("a")                               <name xsi:type="xsd:string">a</name>, where anything can be
    None                                    nothing

Reference: vSphere Web Services API, and its SOAP binding (literal, wrapped).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from xml.sax.saxutils import escape, quoteattr

from linuxkit.places.strict_xml import Node


class Ref(NamedTuple):
    """A managed object: its type and its name in the inventory, such as VirtualMachine vm-42."""

    type: str
    value: str


@dataclass(frozen=True)
class Data:
    """A data object. `fields` in the order of the schema; those that are None are left out.

    `type` is told when it is not the one that the schema has at this place.
    """

    fields: Sequence[tuple[str, Any]]
    type: str = ""


@dataclass(frozen=True)
class Text:
    """Text where anything can be."""

    value: str


def data(type_: str = "", **fields: Any) -> Data:
    """A data object from keywords."""
    return Data(tuple(fields.items()), type_)


def encode(name: str, value: Any) -> str:
    """A value as an element; a list as one element each."""
    if value is None:
        return ""
    if isinstance(value, list):
        return "".join(encode(name, each) for each in value)
    if isinstance(value, Ref):
        return f"<{name} type={quoteattr(value.type)}>{escape(value.value)}</{name}>"
    if isinstance(value, Data):
        told = f" xsi:type={quoteattr(value.type)}" if value.type else ""
        return f"<{name}{told}>{''.join(encode(n, v) for n, v in value.fields)}</{name}>"
    if isinstance(value, Text):
        return f'<{name} xsi:type="xsd:string">{escape(value.value)}</{name}>'
    if isinstance(value, bool):
        return f"<{name}>{str(value).lower()}</{name}>"
    return f"<{name}>{escape(str(value))}</{name}>"


def ref(node: Node) -> Ref:
    """The managed object that an element names."""
    return Ref(node.attributes.get("type", ""), node.text())
