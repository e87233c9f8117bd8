"""What the fakes of clouds have in common: a server on loopback that hands each request to a method.

    class Cloud(Fake):
        def handle(self, asked: Asked) -> Reply: ...

What a fake doesn't like it answers as the real one does; what a client of ours must never do goes into `wrong`.
Failures on the way are put in by a Proxy before it; `public` is then the proxy's address.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True)
class Asked:
    """A request. `headers` by lower-case name; `query` with the last value of each name."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body) if self.body else None


@dataclass
class Reply:
    """An answer; what is no bytes is sent as JSON."""

    status: int
    body: Any = b""
    headers: dict[str, str] = field(default_factory=dict)


class Fake(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.wrong: list[str] = []
        self.seen: list[tuple[str, str]] = []  # method and path
        self.lock = threading.RLock()
        self.public = self.url

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle(self, asked: Asked) -> Reply:
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None = None, error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:  # fmt: skip
        self.shutdown()
        self._thread.join()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body of an answer are sent one after the other
    server: Fake

    def do(self) -> None:
        parts = urlsplit(self.path)
        asked = Asked(
            self.command, parts.path, {k: v[-1] for k, v in parse_qs(parts.query, keep_blank_values=True).items()},
            {k.lower(): v for k, v in self.headers.items()}, self._body(),
        )  # fmt: skip
        with self.server.lock:
            self.server.seen.append((asked.method, asked.path))
            try:
                reply = self.server.handle(asked)
            except (KeyError, ValueError, TypeError, AttributeError, IndexError, StopIteration) as e:
                self.server.wrong.append(f"{asked.method} {asked.path}: {type(e).__name__} {e}")
                reply = Reply(400, {"error": {"code": "BadRequest", "message": f"{type(e).__name__} {e}"}})
        raw = isinstance(reply.body, bytes)
        data = reply.body if raw else json.dumps(reply.body).encode()
        self.send_response(reply.status)
        kind = {} if raw else {"content-type": "application/json; charset=utf-8"}
        for name, value in ({"content-length": str(len(data))} | kind | reply.headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_PATCH = do  # noqa: N815

    def _body(self) -> bytes:
        if self.headers.get("transfer-encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("content-length") or 0))
        data = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def log_message(self, *args: object) -> None:
        pass
