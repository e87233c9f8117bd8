"""AWS signatures: the vectors that AWS published for version 4."""

from __future__ import annotations

import calendar

import pytest

from linuxkit.places.rest import Call
from linuxkit.places.sigv4 import Credentials, SigV4

pytestmark = pytest.mark.unit
KEYS = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", source="the test suite")
WHEN = calendar.timegm((2015, 8, 30, 12, 36, 0))
HOST = "https://example.amazonaws.com"


def sign(call: Call, service: str = "service") -> str:
    headers = SigV4(lambda: KEYS, "us-east-1", service, lambda: WHEN).sign(call)
    return headers["authorization"].rpartition("Signature=")[2]


@pytest.mark.parametrize(("method", "path", "headers", "body", "signature"), [
    # aws-sig-v4-test-suite: get-vanilla, get-vanilla-query-order-key-case, get-vanilla-empty-query-key, post-vanilla,
    # post-x-www-form-urlencoded
    ("GET", "/", {}, b"", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
    ("GET", "/?Param2=value2&Param1=value1", {}, b"",
     "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"),
    ("GET", "/?Param1=value1", {}, b"", "a67d582fa61cc504c4bae71f336f98b97f1ea3c7a6bfe1b6e45aec72011b9aeb"),
    ("POST", "/", {}, b"", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
    ("POST", "/", {"content-type": "application/x-www-form-urlencoded"}, b"Param1=value1",
     "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a"),
])  # fmt: skip
def test_published_vectors(method: str, path: str, headers: dict[str, str], body: bytes, signature: str) -> None:
    assert sign(Call(method, HOST + path, headers, body)) == signature


def test_a_published_request_to_iam() -> None:
    url = "https://iam.amazonaws.com/?Action=ListUsers&Version=2010-05-08"
    call = Call("GET", url, {"content-type": "application/x-www-form-urlencoded; charset=utf-8"})
    assert sign(call, "iam") == "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"


def test_keys_are_not_shown() -> None:
    assert "wJalr" not in repr(KEYS)
