"""A strict registry on loopback that can misbehave on demand.

    with Registry() as registry:
        registry.add("test/app", "1", *blobs_and_manifest)
        registry.faults["blobs"] = short_body
        ... pull f"{registry.host}/test/app:1"

It keeps to the OCI Distribution specification for reading, checks what clients send, and notes every request. A fault
is a function (handler, body) → True when it has answered itself; it is looked up by the kind of request: "manifests",
"blobs", "token".
"""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import parse_qs, urlsplit


@dataclass
class Seen:
    """One request as it came."""

    path: str
    headers: dict[str, str]  # names in lower case


Fault = Callable[["Handler", bytes], bool]


@dataclass
class Registry:
    """The server; `login` makes it ask for that user and password, `token` by way of a token."""

    login: tuple[str, str] | None = None
    token: str = ""
    realm: str = ""  # of the Bearer challenge; empty is our own
    faults: dict[str, Fault] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)  # "repository:tag" or "repository@digest"
    blobs: dict[str, bytes] = field(default_factory=dict)

    def __enter__(self) -> Registry:
        outer = self

        class Bound(Handler):
            registry = outer

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Bound)
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
    def host(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"

    def add_manifest(self, repository: str, data: bytes, media_type: str, tag: str = "") -> str:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        for name in (f"{repository}@{digest}", *([f"{repository}:{tag}"] if tag else [])):
            self.manifests[name] = (media_type, data)
        return digest

    def add_blob(self, data: bytes) -> str:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.blobs[digest] = data
        return digest

    def requests(self, kind: str) -> list[Seen]:
        return [s for s in self.seen if f"/{kind}" in s.path]


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    registry: Registry
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.registry.seen.append(Seen(self.path, {k.lower(): v for k, v in self.headers.items()}))
        parts = urlsplit(self.path)
        if parts.path == "/token":
            return self._token(parse_qs(parts.query))
        if parts.path == "/v2/":
            return self.answer(200, b"{}", "application/json") if self._allowed("") else None
        words = parts.path.split("/")
        if len(words) < 5 or words[1] != "v2" or words[-2] not in ("manifests", "blobs"):
            return self.error(404, "NAME_INVALID", f"no such place: {parts.path}")
        repository, kind, what = "/".join(words[2:-2]), words[-2], words[-1]
        if not self._allowed(repository):
            return None
        if kind == "manifests":
            mark = "@" if what.startswith("sha256:") else ":"
            media_type, body = self.registry.manifests.get(f"{repository}{mark}{what}", ("", b""))
            if media_type and media_type not in ", ".join(self.headers.get_all("Accept", [])):
                return self.error(406, "UNSUPPORTED", "the client does not accept what this is")
        else:
            media_type, body = "application/octet-stream", self.registry.blobs.get(what, b"")
            media_type = media_type if what in self.registry.blobs else ""
        fault = self.registry.faults.get(kind)
        if fault is not None and fault(self, body):
            return None
        if not media_type:
            return self.error(404, f"{kind[:-1].upper()}_UNKNOWN", f"{what} is not here")
        return self.answer(200, body, media_type)

    def answer(self, status: int, body: bytes, media_type: str = "text/plain", **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Docker-Content-Digest", f"sha256:{hashlib.sha256(body).hexdigest()}")
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def error(self, status: int, code: str, message: str, **headers: str) -> None:
        self.answer(status, f'{{"errors":[{{"code":"{code}","message":"{message}"}}]}}'.encode(), **headers)

    def _allowed(self, repository: str) -> bool:
        want, have = self.registry, self.headers.get("Authorization", "")
        if want.token:
            if have == f"Bearer {want.token}":
                return True
            realm = want.realm or f"http://{want.host}/token"
            challenge = f'Bearer realm="{realm}",service="test, service",scope="repository:{repository}:pull"'
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
            return
        have = self.headers.get("Authorization", "")
        if self.registry.login and have != _basic(*self.registry.login):
            self.error(401, "UNAUTHORIZED", "who are you?")
        elif query.get("service") != ["test, service"] or not query.get("scope", [":pull"])[0].endswith(":pull"):
            self.error(400, "UNSUPPORTED", "the wrong question")
        else:
            self.answer(200, f'{{"token":"{self.registry.token}"}}'.encode(), "application/json")


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


# -- faults


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
