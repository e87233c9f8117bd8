"""XML from the network: elements and text, nothing else. What could expand, be fetched or nest without end is refused.

    root = parse_xml(answer)
    root.find("returnval", "obj").text()

Names are without their namespaces, but for the attribute `xsi:type`. Document types (XML 1.0 section 2.8), and with
them entities, are an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from xml.parsers import expat

from linuxkit.errors import NetworkError

MAX_SIZE = 16 << 20
MAX_DEPTH = 100
XSI = "http://www.w3.org/2001/XMLSchema-instance"


@dataclass
class Node:
    """An element."""

    name: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)
    children: list[Node] = field(default_factory=list)
    content: str = ""

    def find(self, *path: str) -> Node:
        """The first element down a path of children; an empty one when it isn't there."""
        node = self
        for name in path:
            node = next((c for c in node.children if c.name == name), None) or Node()
        return node

    def all(self, name: str) -> list[Node]:
        """The children of that name."""
        return [c for c in self.children if c.name == name]

    def text(self, *path: str) -> str:
        """The text of `find`."""
        return self.find(*path).content.strip()

    def walk(self) -> Iterator[Node]:
        """This element, and all inside it."""
        yield self
        for child in self.children:
            yield from child.walk()

    @property
    def type(self) -> str:
        """Its xsi:type, without prefix."""
        return self.attributes.get("xsi:type", "").rpartition(":")[2]


def parse_xml(data: bytes) -> Node:
    """The root of a document; an empty node for no document at all.

    Raises:
        NetworkError: it is damaged, or has more than a message has.
    """
    if not data.strip():
        return Node()
    if len(data) > MAX_SIZE:
        raise NetworkError(f"an XML answer of {len(data)} bytes is too large")
    top = Node()
    stack = [top]

    def start(name: str, attributes: dict[str, str]) -> None:
        if len(stack) > MAX_DEPTH:
            raise NetworkError("an XML answer is nested too deeply")
        node = Node(_local(name), {_attribute(k): v for k, v in attributes.items()})
        stack[-1].children.append(node)
        stack.append(node)

    def end(name: str) -> None:
        stack.pop()

    def text(data: str) -> None:
        stack[-1].content += data

    def doctype(*args: object) -> None:
        raise NetworkError("an XML answer has a document type, which no message has")

    parser = expat.ParserCreate(namespace_separator="}")
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = text, doctype
    try:
        parser.Parse(data, True)
    except expat.ExpatError as e:
        raise NetworkError(f"an XML answer is damaged: {e}", temporary=True) from None
    return top.children[0]


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _attribute(name: str) -> str:
    """As _local, but for those of XML Schema, which can stand beside others of the same name."""
    return f"xsi:{_local(name)}" if name.startswith(f"{XSI}}}") else _local(name)
