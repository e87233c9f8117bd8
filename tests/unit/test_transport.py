"""HTTP: what goes along to another host, peers that are slow on purpose, bodies with a coding nobody asked for."""

from __future__ import annotations

import gzip
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from linuxkit.errors import NetworkError
from linuxkit.oci import response as response_module
from linuxkit.oci import transport as transport_module
from linuxkit.oci.transport import Transport
from support import registry as faults
from support.client import transport
from support.registry import Handler, Registry

pytestmark = pytest.mark.unit
SECRETS = ["Authorization", "Cookie", "X-Auth-Token", "X-Amz-Security-Token", "x-identity-header", "X-Goog-Api-Key",
           "X-aws-ec2-metadata-token", "Proxy-Authorization", "X-Anything-New"]  # fmt: skip


def redirects(status: int, url: str) -> faults.Fault:
    def fault(handler: Handler, body: bytes) -> bool:
        handler.answer(status, b"", Location=url + handler.path)
        return True

    return fault


def takes_anything(handler: Handler, body: bytes) -> bool:
    handler.answer(200, b"fine")
    return True


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("secret", SECRETS)
def test_nothing_secret_goes_to_another_host(secret: str, status: int) -> None:
    path = "/v2/a/blobs/x"
    with Registry() as other, Registry() as asked:
        other.faults["blobs"] = takes_anything
        asked.faults["blobs"] = redirects(status, other.url)
        headers = {secret: "geheim", "Accept": "text/plain", "Range": "bytes=0-"}
        if secret == "Authorization":
            asked.login = ("", "")
            headers[secret] = "Basic Og=="
        with transport().get(asked.url + path, headers) as found:
            assert found.read(99) == b"fine"
        (told,) = other.requests("blobs")
        assert told.headers["accept"] == "text/plain"
        assert told.headers["range"] == "bytes=0-"
        assert secret.lower() not in told.headers
        assert secret.lower() in asked.seen[0].headers  # so the check above can fail


def test_the_other_host_would_get_it_by_a_list_of_what_is_forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport_module, "HARMLESS", transport_module.HARMLESS | {"x-amz-security-token"})
    with Registry() as other, Registry() as asked:
        other.faults["blobs"] = takes_anything
        asked.faults["blobs"] = redirects(307, other.url)
        transport().get(f"{asked.url}/v2/a/blobs/x", {"X-Amz-Security-Token": "geheim"}).close()
        assert other.seen[0].headers["x-amz-security-token"] == "geheim"


@pytest.mark.parametrize("status", [307, 308])
def test_a_body_stays_with_its_host(status: int) -> None:
    with Registry() as other, Registry() as asked:
        asked.faults["POST token"] = redirects(status, other.url)
        with pytest.raises(NetworkError, match="does not go to another host"):
            transport().request("POST", f"{asked.url}/token", body=b"refresh_token=geheim")
        assert other.seen == []
        assert len(asked.seen) == 1  # and it isn't tried again
        other.faults["POST token"] = takes_anything  # negative control: what is public may go
        transport().request("POST", f"{asked.url}/token", body=b"public", public=True).close()
        assert [s.method for s in other.seen] == ["POST"]


def test_a_body_follows_on_its_own_host() -> None:
    with Registry() as asked:
        asked.faults["POST token"] = faults.once(lambda h, b: (h.answer(308, b"", Location="/token"), True)[1])
        asked.identity = "x"
        with transport().request("POST", f"{asked.url}/token", {"X-Auth-Token": "geheim"}, body=b"a=b") as found:
            assert found.status == 401
        assert [s.headers.get("x-auth-token") for s in asked.seen] == ["geheim", "geheim"]


@pytest.mark.parametrize("target", ["http://[", "http://a:99999999/", "http://[::1", "//[x"])
def test_a_redirect_to_what_is_no_url(target: str) -> None:
    with Registry() as asked:
        asked.faults["blobs"] = lambda h, b: (h.answer(302, b"", Location=target), True)[1]
        with pytest.raises(NetworkError, match="no URL"):
            transport().get(f"{asked.url}/v2/a/blobs/x")


@pytest.mark.parametrize("text", ["Fri, 31 Dec 99999 23:59:59 GMT", "9" * 400, "-5", "nan", "²", ""])
def test_an_odd_wait_is_no_traceback(text: str) -> None:
    with Registry() as asked:
        asked.faults["blobs"] = faults.answers(429, Retry_After=text)
        with transport().get(f"{asked.url}/v2/a/blobs/x".replace("²", "2")) as found:
            assert found.status == 429


# -- slow peers


@contextmanager
def peer(talk: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that says what it likes once a request has come, for as long as it is listened to."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection, suppress(OSError):
                        connection.recv(65536)
                        talk(connection)

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/x"


def drip(data: bytes) -> Callable[[socket.socket], None]:
    def talk(connection: socket.socket) -> None:
        for _ in range(20):
            for n in range(len(data)):
                connection.sendall(data[n : n + 1])
                time.sleep(0.05)

    return talk


def flood(data: bytes) -> Callable[[socket.socket], None]:
    def talk(connection: socket.socket) -> None:
        while True:
            connection.sendall(data)
            time.sleep(0.01)

    return talk


@pytest.mark.parametrize("talk", [
    drip(b"HTTP/1.1 200 OK\r\nX-Long: " + b"y" * 400), flood(b"HTTP/1.1 100 Continue\r\n\r\n"),
    drip(b" "),
], ids=["a byte at a time", "100 Continue without end", "blanks"])  # fmt: skip
def test_a_header_has_a_limit_as_a_whole(talk: Callable[[socket.socket], None]) -> None:
    with peer(talk) as url:
        started = time.monotonic()
        with pytest.raises(NetworkError):
            Transport(sleep=lambda s: None, read_timeout=0.3).request("GET", url, attempts=1).close()
        assert time.monotonic() - started < 3


def test_the_answer_of_a_proxy_has_a_limit_as_a_whole() -> None:
    with peer(drip(b"HTTP/1.1 200 OK\r\nX-Long: " + b"y" * 400)) as url:
        made = Transport(sleep=lambda s: None, read_timeout=0.3, environment={"https_proxy": url})
        started = time.monotonic()
        with pytest.MonkeyPatch.context() as patch, pytest.raises(NetworkError):
            patch.setattr(transport_module, "CONNECT_TIMEOUT", 0.3)
            made.request("GET", "https://registry.example/x", attempts=1).close()
        assert time.monotonic() - started < 3


@pytest.mark.parametrize("rest", [
    b"Transfer-Encoding: chunked\r\n\r\n" + b"5;" + b"x" * 400, b"Content-Length: 9\r\n\r\n",
], ids=["the size of a chunk at a byte a time", "nothing"])  # fmt: skip
def test_the_wait_for_a_body_has_a_limit(rest: bytes) -> None:
    def talk(connection: socket.socket) -> None:
        head, _, tail = rest.partition(b"\r\n\r\n")
        connection.sendall(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n")
        drip(tail or b"")(connection)
        time.sleep(2)

    with peer(talk) as url:
        started = time.monotonic()
        with (Transport(sleep=lambda s: None, read_timeout=0.3).request("GET", url, attempts=1) as found,
              pytest.raises(NetworkError)):  # fmt: skip
            found.read(1 << 20)
        assert time.monotonic() - started < 3


def test_a_small_answer_has_a_limit_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(response_module, "WHOLE", 0.3)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"
    with peer(lambda c: (c.sendall(head), drip(b"x" * 100)(c))[0]) as url:
        started = time.monotonic()
        with Transport(read_timeout=9).get(url) as found, pytest.raises(NetworkError, match="not whole after"):
            found.read(1 << 20)
        assert time.monotonic() - started < 3


def test_who_takes_the_bytes_may_be_slow() -> None:
    with Registry() as registry:
        digest = registry.add_blob(bytes(3 << 20))
        with Transport(read_timeout=0.2).get(f"{registry.url}/v2/a/blobs/{digest}") as found:
            count = 0
            for piece in found.pieces():
                count += len(piece)
                if count < 1 << 20:
                    time.sleep(0.3)
        assert count == 3 << 20


# -- codings


@pytest.mark.parametrize(("coding", "encode"), [
    ("gzip", gzip.compress), ("x-gzip", gzip.compress), ("deflate", zlib.compress), ("GZIP", gzip.compress),
    ("gzip", lambda data: gzip.compress(data[:9], mtime=0) + gzip.compress(data[9:])), ("identity", bytes),
])  # fmt: skip
def test_a_coding_that_nobody_asked_for_is_undone(coding: str, encode: Callable[[bytes], bytes]) -> None:
    plain = b'{"x": "' + b"y" * 600_000 + b'"}'
    with Registry() as asked:
        asked.faults["blobs"] = lambda h, b: (h.answer(200, encode(plain), Content_Encoding=coding), True)[1]
        with transport().get(f"{asked.url}/v2/a/blobs/x") as found:
            assert found.read(1 << 20) == plain
        with transport().get(f"{asked.url}/v2/a/blobs/x") as found, pytest.raises(NetworkError, match="larger than"):
            found.read(1 << 10)


@pytest.mark.parametrize(("coding", "body", "words"), [
    ("br", b"x", "'br', which nobody asked for"), ("gzip", b"no gzip", "is not the 'gzip'"),
    ("gzip", gzip.compress(b"y" * 9999, mtime=0)[:-9], "ends in the middle"), ("gzip, gzip", b"x", "nobody asked for"),
])  # fmt: skip
def test_a_coding_that_cannot_be_undone(coding: str, body: bytes, words: str) -> None:
    with Registry() as asked:
        asked.faults["blobs"] = lambda h, b: (h.answer(200, body, Content_Encoding=coding), True)[1]
        with transport().get(f"{asked.url}/v2/a/blobs/x") as found, pytest.raises(NetworkError, match=words):
            found.read(1 << 20)
