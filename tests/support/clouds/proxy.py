"""Stands before a fake cloud: counts what goes through, answers itself, spoils and cuts on request.

    with Proxy("http://127.0.0.1:5000") as proxy:
        proxy.spoil("/blocks/3", 500)           # the next request whose path or body has that text
        proxy.answer("Action=X", lambda body: (200, b"<X/>"))
"""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

Reply = tuple[int, bytes]


@dataclass
class _Rule:
    text: bytes
    status: int = 0  # 0: the connection is cut
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    after: int = 0
    times: int = 1


class Proxy(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target = target
        self.seen: list[tuple[str, str, bytes]] = []  # method, path, start of the body
        self.rules: list[_Rule] = []
        self.answers: list[tuple[bytes, Callable[[bytes], Reply]]] = []
        self.reply_headers = {"content-type": "text/xml"}  # of those
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def spoil(self, text: str, status: int, body: bytes = b"", *, headers: dict[str, str] | None = None,
              after: int = 0, times: int = 1) -> None:  # fmt: skip
        """Refuse requests that have the text, after so many of them, so many times."""
        self.rules.append(_Rule(text.encode(), status, body, headers or {}, after, times))

    def cut(self, text: str, *, after: int = 0, times: int = 1) -> None:
        """Close the connection instead of an answer."""
        self.rules.append(_Rule(text.encode(), after=after, times=times))

    def answer(self, text: str, reply: Callable[[bytes], Reply]) -> None:
        """Answer such requests instead of the target."""
        self.answers.append((text.encode(), reply))

    def count(self, method: str, text: str = "") -> int:
        return sum(m == method and text in path for m, path, _ in self.seen)

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

    def rule_for(self, text: bytes) -> _Rule | None:
        with self.lock:
            for rule in self.rules:
                if rule.text not in text or rule.times <= 0:
                    continue
                if rule.after > 0:
                    rule.after -= 1
                    continue
                rule.times -= 1
                return rule
        return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body of an answer are sent one after the other
    server: Proxy

    def do(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        text = f"{self.command} {self.path}\n".encode() + body[:65536] + b"&"
        self.server.seen.append((self.command, self.path, body[:4096]))
        rule = self.server.rule_for(text)
        if rule is not None and not rule.status:
            self.close_connection = True
            self.connection.close()
            return
        if rule is not None:
            self._reply(rule.status, rule.body, rule.headers)
            return
        for part, answer in self.server.answers:
            if part in text:
                status, data = answer(body)
                self._reply(status, data, self.server.reply_headers)
                return
        self._pass(body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_PATCH = do  # noqa: N815

    def _pass(self, body: bytes) -> None:
        there = http.client.HTTPConnection(urlsplit(self.server.target).netloc, timeout=60)
        headers = {k: v for k, v in self.headers.items() if k.lower() != "connection"}
        there.request(self.command, self.path, body=body or None, headers=headers)
        answer = there.getresponse()
        data = answer.read()
        ours = ("transfer-encoding", "connection", "content-length" if self.command != "HEAD" else "", "server", "date")
        kept = {k.lower(): v for k, v in answer.getheaders() if k.lower() not in ours}
        self._reply(answer.status, data, kept)
        there.close()

    def _reply(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in ({"content-length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass
