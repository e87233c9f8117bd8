"""A strict registry on loopback that can misbehave on demand.

    with Registry() as registry:
        registry.add("test/app", "1", *blobs_and_manifest)
        registry.faults["blobs"] = short_body
        ... pull f"{registry.host}/test/app:1"

It keeps to the OCI Distribution specification, checks what clients send, and notes every request. A fault is a function
(handler, body) → True when it has answered itself; it is looked up by the kind of request: "manifests", "blobs",
"referrers" and "token" for reading, "PUT manifests", "POST blobs", "PUT blobs" and so on for writing.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import itertools
import json
import re
import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import parse_qs, urlsplit


@dataclass
class Seen:
    """One request as it came."""

    path: str
    headers: dict[str, str]  # names in lower case
    method: str = "GET"


Fault = Callable[["Handler", bytes], bool]


@dataclass
class Registry:
    """The server; `login` makes it ask for that user and password, `token` by way of a token."""

    login: tuple[str, str] | None = None
    token: str = ""
    realm: str = ""  # of the Bearer challenge; empty is our own
    identity: str = ""  # the identity token that the token server takes instead of the login
    ranges: bool = True  # whether it gives parts of blobs
    referrers: bool = True  # whether it has the referrers API
    max_put: int = 1 << 40  # bytes of one request
    faults: dict[str, Fault] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)  # "repository:tag" or "repository@digest"
    blobs: dict[str, bytes] = field(default_factory=dict)
    held: set[str] = field(default_factory=set)  # "repository@digest" of blobs; "@digest" is in all of them
    uploads: dict[str, bytes] = field(default_factory=dict)  # place → bytes so far
    context: ssl.SSLContext | None = None  # for https
    address: str = "127.0.0.1"
    tunnel: tuple[str, int] | None = None  # where a CONNECT leads, whatever it asks for
    count: Iterator[int] = field(default_factory=itertools.count)

    def __enter__(self) -> Registry:
        outer = self

        class Bound(Handler):
            registry = outer

        server = type("Server", (ThreadingHTTPServer,), {
            "address_family": socket.AF_INET6 if ":" in self.address else socket.AF_INET})  # fmt: skip
        self._server = server((self.address, 0), Bound)
        if self.context is not None:
            self._server.socket = self.context.wrap_socket(self._server.socket, server_side=True)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients may hang up
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None,
                 ) -> None:  # fmt: skip
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"{'https' if self.context else 'http'}://{self.host}"

    @property
    def host(self) -> str:
        address = f"[{self.address}]" if ":" in self.address else self.address
        return f"{address}:{self._server.server_address[1]}"

    def add_manifest(self, repository: str, data: bytes, media_type: str, tag: str = "") -> str:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        for name in (f"{repository}@{digest}", *([f"{repository}:{tag}"] if tag else [])):
            self.manifests[name] = (media_type, data)
        return digest

    def add_blob(self, data: bytes) -> str:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.blobs[digest] = data
        self.held.add(f"@{digest}")
        return digest

    def has_blob(self, repository: str, digest: str) -> bool:
        return bool({f"{repository}@{digest}", f"@{digest}"} & self.held) and digest in self.blobs

    def requests(self, kind: str, method: str = "") -> list[Seen]:
        return [s for s in self.seen if f"/{kind}" in s.path and method in ("", s.method)]


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    registry: Registry
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self._note()
        parts = urlsplit(self.path)
        if parts.path == "/token":
            return self._token(parse_qs(parts.query))
        if parts.path == "/v2/":
            return self.answer(200, b"{}", "application/json") if self._allowed("") else None
        words = parts.path.split("/")
        if len(words) < 5 or words[1] != "v2" or words[-2] not in ("manifests", "blobs", "referrers"):
            return self.error(404, "NAME_INVALID", f"no such place: {parts.path}")
        repository, kind, what = "/".join(words[2:-2]), words[-2], words[-1]
        if not self._allowed(repository):
            return None
        if kind == "referrers":
            media_type, body = self._referrers(repository, what)
        elif kind == "manifests":
            mark = "@" if what.startswith("sha256:") else ":"
            media_type, body = self.registry.manifests.get(f"{repository}{mark}{what}", ("", b""))
            if media_type and media_type not in ", ".join(self.headers.get_all("Accept", [])):
                return self.error(406, "UNSUPPORTED", "the client does not accept what this is")
        else:
            media_type, body = "application/octet-stream", self.registry.blobs.get(what, b"")
            media_type = media_type if self.registry.has_blob(repository, what) else ""
        fault = self.registry.faults.get(kind)
        if fault is not None and fault(self, body):
            return None
        if not media_type:
            return self.error(404, f"{kind[:-1].upper()}_UNKNOWN", f"{what} is not here")
        part = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if kind == "blobs" and part and self.registry.ranges:
            start = int(part[1])
            if start >= len(body):
                return self.error(416, "RANGE_INVALID", "there is less")
            where = f"bytes {start}-{len(body) - 1}/{len(body)}"
            return self.answer(206, body[start:], media_type, Content_Range=where)
        return self.answer(200, body, media_type)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_CONNECT(self) -> None:
        """Is a proxy for https."""
        self._note()
        if self.registry.tunnel is None:
            return self.error(403, "DENIED", "not through me")
        self.send_response(200)
        self.end_headers()
        self.close_connection = True
        with socket.create_connection(self.registry.tunnel, timeout=10) as other:
            ends = {self.connection: other, other: self.connection}
            while ready := select.select(list(ends), [], [], 10)[0]:
                for end in ready:
                    if not (data := end.recv(1 << 16)):
                        return None
                    ends[end].sendall(data)
        return None

    def do_POST(self) -> None:
        """Begins an upload or mounts a blob; or exchanges an identity token."""
        self._note()
        parts = urlsplit(self.path)
        query = parse_qs(parts.query)
        if parts.path == "/token":
            if self._faulty("POST token", self._body()):
                return None
            form = {k: v[0] for k, v in parse_qs(self.body.decode()).items()}
            good = {"grant_type": "refresh_token", "client_id": "linuxkit", "service": "test, service"}
            if {**form, **good} != form or form.get("refresh_token") != self.registry.identity:
                return self.error(401, "UNAUTHORIZED", "not that token")
            return self._give(form.get("scope", "").split())
        found = re.fullmatch(r"/v2/(.+)/blobs/uploads/", parts.path)
        if not found:
            return self.error(404, "NAME_INVALID", f"no such place: {parts.path}")
        if not self._allowed(found[1], write=True) or self._faulty("POST blobs"):
            return None
        if self.headers.get("Content-Length", "") != "0" and "skopeo" not in self.headers.get("User-Agent", ""):
            return self.error(411, "SIZE_INVALID", "Content-Length: 0 is wanted")
        mount, source = query.get("mount", [""])[0], query.get("from", [""])[0]
        if mount and self.registry.has_blob(source, mount):
            self.registry.held.add(f"{found[1]}@{mount}")
            return self.answer(201, b"", Location=f"/v2/{found[1]}/blobs/{mount}")
        place = f"/v2/{found[1]}/blobs/uploads/{next(self.registry.count)}?state=a%3Db"
        self.registry.uploads[place] = b""
        return self.answer(202, b"", Location=place)

    def do_PATCH(self) -> None:
        """Takes a piece of an upload."""
        body = self._written("PATCH blobs")
        if body is None:
            return None
        have = self.registry.uploads.get(self.path)
        if have is None:
            return self.error(404, "BLOB_UPLOAD_UNKNOWN", "no such upload")
        if self.headers.get("Content-Range") not in (None, f"{len(have)}-{len(have) + len(body) - 1}"):
            return self.error(416, "RANGE_INVALID", "the piece does not follow")
        del self.registry.uploads[self.path]
        place = f"{self.path}+"  # each piece has its own place
        self.registry.uploads[place] = have + body
        return self.answer(202, b"", Location=f"{self.registry.url}{place}")

    def do_PUT(self) -> None:
        """Ends an upload; takes a manifest."""
        manifest = re.fullmatch(r"/v2/(.+)/manifests/([^/]+)", self.path)
        body = self._written("PUT manifests" if manifest else "PUT blobs")
        if body is None:
            return None
        if manifest:
            return self._put_manifest(manifest[1], manifest[2], body)
        path, _, query = self.path.partition("?")
        words = query.split("&")
        digest = next((w[7:] for w in words if w.startswith("digest=")), "").replace("%3A", ":")
        place = f"{path}?{'&'.join(w for w in words if not w.startswith('digest='))}"
        have = self.registry.uploads.pop(place, None)
        found = re.fullmatch(r"/v2/(.+)/blobs/uploads/.*", self.path)
        if have is None or not found:
            return self.error(404, "BLOB_UPLOAD_UNKNOWN", "no such upload")
        if f"sha256:{hashlib.sha256(have + body).hexdigest()}" != digest:
            return self.error(400, "DIGEST_INVALID", "the bytes have another digest")
        self.registry.blobs[digest] = have + body
        self.registry.held.add(f"{found[1]}@{digest}")
        return self.answer(201, b"", Location="/somewhere")

    def _put_manifest(self, repository: str, what: str, body: bytes) -> None:
        digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
        document = json.loads(body)
        kind = self.headers.get("Content-Type", "")
        if document.get("mediaType", kind) != kind or (what.startswith("sha256:") and what != digest):
            return self.error(400, "MANIFEST_INVALID", "type or digest do not fit")
        for item in document.get("manifests", []):
            if f"{repository}@{item['digest']}" not in self.registry.manifests:
                return self.error(400, "MANIFEST_BLOB_UNKNOWN", f"there is no manifest {item['digest']}")
        for item in [document.get("config"), *document.get("layers", [])]:
            if item and not self.registry.has_blob(repository, item["digest"]):
                return self.error(400, "MANIFEST_BLOB_UNKNOWN", f"there is no blob {item['digest']}")
        self.registry.add_manifest(repository, body, kind, "" if what == digest else what)
        subject = document.get("subject")
        extra = {"OCI_Subject": subject["digest"]} if subject and self.registry.referrers else {}
        return self.answer(201, b"", Docker_Content_Digest=digest, **extra)

    def _referrers(self, repository: str, digest: str) -> tuple[str, bytes]:
        if not self.registry.referrers:
            return "", b""
        found = []
        for name, (kind, data) in sorted(self.registry.manifests.items()):
            document = json.loads(data)
            if name.startswith(f"{repository}@") and (document.get("subject") or {}).get("digest") == digest:
                type_ = document.get("artifactType") or document["config"]["mediaType"]
                found.append({"mediaType": kind, "digest": name.partition("@")[2], "size": len(data),
                              "artifactType": type_})  # fmt: skip
        index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": found}
        return index["mediaType"], json.dumps(index).encode()  # type: ignore[return-value]

    def _note(self) -> None:
        headers = {k.lower(): v for k, v in self.headers.items()}
        self.registry.seen.append(Seen(self.path, headers, self.command))

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            self.body = b""
            while size := int(self.rfile.readline(20), 16):
                self.body += self.rfile.read(size)
                self.rfile.readline(3)
            self.rfile.readline(3)
        else:
            self.body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        return self.body

    def _written(self, kind: str) -> bytes | None:
        """The body of a write that is allowed and of a size that is taken; None when that has been answered."""
        self._note()
        body = self._body()
        found = re.match(r"/v2/(.+)/(?:blobs|manifests)/", self.path)
        if not self._allowed(found[1] if found else "", write=True) or self._faulty(kind, body):
            return None
        if len(body) > self.registry.max_put:
            self.error(413, "SIZE_INVALID", "too large for me")
            return None
        return body

    def _faulty(self, kind: str, body: bytes = b"") -> bool:
        fault = self.registry.faults.get(kind)
        return fault is not None and fault(self, body)

    def answer(self, status: int, body: bytes, media_type: str = "text/plain", **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        if status == 200:
            self.send_header("Docker-Content-Digest", f"sha256:{hashlib.sha256(body).hexdigest()}")
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def error(self, status: int, code: str, message: str, **headers: str) -> None:
        self.answer(status, f'{{"errors":[{{"code":"{code}","message":"{message}"}}]}}'.encode(), **headers)

    def _allowed(self, repository: str, write: bool = False) -> bool:
        want, have = self.registry, self.headers.get("Authorization", "")
        actions = "pull,push" if write else "pull"
        if want.token:
            if have in {f"Bearer {want.token}+push", f"Bearer {want.token}" if not write else ""}:
                return True
            realm = want.realm or f"{want.url}/token"
            challenge = f'Bearer realm="{realm}",service="test, service",scope="repository:{repository}:{actions}"'
        elif want.login:
            if have == _basic(*want.login):
                return True
            challenge = 'Basic realm="test"'
        else:
            if have:
                self.error(400, "UNSUPPORTED", "a login was sent that nobody asked for")
                return False
            return True
        self.error(401, "UNAUTHORIZED", "authentication required", WWW_Authenticate=challenge)
        return False

    def _token(self, query: dict[str, list[str]]) -> None:
        fault = self.registry.faults.get("token")
        if fault is not None and fault(self, b""):
            return None
        have = self.headers.get("Authorization", "")
        if self.registry.login and have != _basic(*self.registry.login):
            return self.error(401, "UNAUTHORIZED", "who are you?")
        if query.get("service") != ["test, service"]:
            return self.error(400, "UNSUPPORTED", "the wrong question")
        return self._give(query.get("scope", []))

    def _give(self, scopes: list[str]) -> None:
        if not scopes or not all(re.fullmatch(r"repository:[a-z/]+:pull(,push)?", s) for s in scopes):
            return self.error(400, "UNSUPPORTED", "the wrong question")
        token = self.registry.token + ("+push" if scopes[0].endswith(",push") else "")
        return self.answer(200, f'{{"token":"{token}"}}'.encode(), "application/json")


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


# -- faults


def drops_after(count: int) -> Fault:
    """Hangs up after so many bytes of each body, also of the parts that are asked for."""

    def fault(handler: Handler, body: bytes) -> bool:
        part = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        start = int(part[1]) if part else 0
        if len(body) - start <= count:
            return False
        handler.send_response(206 if part else 200)
        handler.send_header("Content-Length", str(len(body) - start))
        if part:
            handler.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        handler.end_headers()
        handler.wfile.write(body[start : start + count])
        handler.close_connection = True
        return True

    return fault


def once(fault: Fault) -> Fault:
    """The fault the first time, then good behaviour."""
    left = [fault]
    return lambda handler, body: left.pop()(handler, body) if left else False


def answers(status: int, **headers: str) -> Fault:
    def fault(handler: Handler, body: bytes) -> bool:
        handler.error(status, "X", "because I can", **headers)
        return True

    return fault


def changed_byte(handler: Handler, body: bytes) -> bool:
    handler.answer(200, bytes([body[0] ^ 1]) + body[1:], "application/octet-stream")
    return True


def short_body(handler: Handler, body: bytes) -> bool:
    """Announces all and hangs up in the middle."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body[: len(body) // 2])
    handler.close_connection = True
    return True


def honest_but_short(handler: Handler, body: bytes) -> bool:
    handler.answer(200, body[: len(body) // 2])
    return True


def endless_body(handler: Handler, body: bytes) -> bool:
    """Sends until the client has enough of it."""
    handler.send_response(200)
    handler.end_headers()
    handler.close_connection = True
    while True:
        handler.wfile.write(bytes(1 << 16))


def endless_headers(handler: Handler, body: bytes) -> bool:
    handler.send_response(200)
    for n in range(500):
        handler.send_header(f"X-{n}", "y" * 1000)
    handler.end_headers()
    handler.close_connection = True
    return True


def redirects_to(url: str) -> Fault:
    def fault(handler: Handler, body: bytes) -> bool:
        handler.send_response(307)
        handler.send_header("Location", url.replace("{path}", handler.path))
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return True

    return fault


# -- odd registries


def no_parts(status: int) -> Fault:
    """Refuses to give a part of a blob, with this status."""
    refuse = answers(status)
    return lambda handler, body: refuse(handler, body) if handler.headers.get("Range") else False


def unframed(count: int) -> Fault:
    """Bodies with neither length nor chunks; the first one ends after `count` bytes, as if that were all."""
    left = [count]

    def fault(handler: Handler, body: bytes) -> bool:
        part = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        start = int(part[1]) if part else 0
        handler.send_response(206 if part else 200)
        if part:
            handler.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        handler.send_header("Content-Type", "application/vnd.oci.image.index.v1+json")
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.wfile.write(body[start : start + left.pop()] if left else body[start:])
        handler.close_connection = True
        return True

    return fault


def packed(*, length: bool = True, itself: bool = False) -> Fault:
    """Content-Encoding: gzip, though nobody asked for it; `itself`: the blob is gzip, and nothing is put over it."""

    def fault(handler: Handler, body: bytes) -> bool:
        sent = body if itself else gzip.compress(body)
        handler.send_response(200)
        handler.send_header("Content-Encoding", "gzip")
        handler.send_header("Content-Type", "application/vnd.oci.image.index.v1+json")
        if length:
            handler.send_header("Content-Length", str(len(sent)))
        else:
            handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(sent if length else f"{len(sent):x}\r\n".encode() + sent + b"\r\n0\r\n\r\n")
        return True

    return fault


def no_head(status: int = 405) -> Fault:
    """Knows no HEAD."""
    refuse = answers(status)
    return lambda handler, body: refuse(handler, body) if handler.command == "HEAD" else False
