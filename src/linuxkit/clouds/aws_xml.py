"""The answers of AWS' services: XML whose namespace says nothing, errors in XML or JSON."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

from linuxkit.foreign import read_json
from linuxkit.places.rest import Unknown


def text(element: Any, name: str) -> str:
    """The text of a child, whatever its namespace; empty when there is none. Of an Unknown, an Unknown."""
    if isinstance(element, Unknown):
        return element[name]
    found = element.find(f".//{{*}}{name.removeprefix('.//')}")
    return (found.text or "") if found is not None else ""


def message(body: bytes) -> tuple[str, str]:
    """Code and message of an error: XML of EC2 and S3, JSON of EBS."""
    if body.lstrip().startswith(b"<"):
        root = ElementTree.fromstring(body)
        found = {e.tag.rpartition("}")[2]: e.text or "" for e in root.iter()}
        return found.get("Code", ""), found.get("Message", "")
    said = read_json(body)
    code = str(said.get("__type") or said.get("code") or "").rpartition("#")[2].partition(":")[0]
    return code, str(said.get("message") or said.get("Message") or "")
