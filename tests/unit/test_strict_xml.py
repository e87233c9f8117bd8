"""XML from the network: what is read, and what is refused."""

from __future__ import annotations

import pytest

from linuxkit.errors import NetworkError
from linuxkit.places import strict_xml
from linuxkit.places.strict_xml import parse_xml

pytestmark = pytest.mark.unit


def test_elements_and_their_text() -> None:
    spaces = b'xmlns:e="urn:x" xmlns:i="http://www.w3.org/2001/XMLSchema-instance"'
    inside = b'<b type="U" i:type="e:T"> 1 &amp; 2 </b><b/><c><d>x</d></c>'
    root = parse_xml(b"<e:a " + spaces + b">" + inside + b"</e:a>")
    assert root.find("b").attributes["type"] == "U"
    assert (root.name, root.text("b"), root.find("b").type, len(root.all("b"))) == ("a", "1 & 2", "T", 2)
    assert (root.text("c", "d"), root.text("c", "none", "d")) == ("x", "")
    assert [n.name for n in root.walk()] == ["a", "b", "b", "c", "d"]
    assert parse_xml(b"  ").name == ""


LAUGHS = b'<!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;">]><a>&y;</a>'


@pytest.mark.parametrize(("data", "says"), [
    (LAUGHS, "document type"), (LAUGHS.decode().encode("utf-16"), "document type"),
    (b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>', "document type"),
    (b"<a>" * 200 + b"</a>" * 200, "nested too deeply"), (b"<a><b></a>", "damaged"), (b"<a>&x;</a>", "damaged"),
    (b"no XML", "damaged"), (b"<a>\xff</a>", "damaged"),
])  # fmt: skip
def test_what_is_no_message_is_refused(data: bytes, says: str) -> None:
    with pytest.raises(NetworkError, match=says):
        parse_xml(data)


def test_size_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strict_xml, "MAX_SIZE", 10)
    with pytest.raises(NetworkError, match="too large"):
        parse_xml(b"<a>123456</a>")
