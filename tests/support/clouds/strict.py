"""What the strict fakes of clouds are made of: a server on loopback that is refused, cut and asked again.

    class Cloud(Strict):
        def reply(self, asked: Asked) -> Reply: ...

Whatever a client does that the cloud's documentation doesn't allow is put down with `wrong`, and fails the test when
the server is left, even when the client carries on.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

Reply = tuple[int, Mapping[str, str], bytes]


@dataclass(frozen=True)
class Asked:
    """A request. `path` and `query` are decoded, header names in lower case."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    raw_path: str

    @property
    def json(self) -> Any:
        return json.loads(self.body) if self.body else None


@dataclass
class _Rule:
    text: str
    status: int  # 0: the connection is cut
    body: bytes
    headers: Mapping[str, str]
    after: int
    times: int
    done: bool  # cut after it was done


class RefusedError(Exception):
    """The answer is an error."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


class Strict(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[Asked] = []
        self.wrongs: list[str] = []
        self.rules: list[_Rule] = []
        self.lock = threading.RLock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def reply(self, asked: Asked) -> Reply:
        """What is answered; called one at a time.

        Raises:
            RefusedError: an error, which `error` puts into the cloud's form.
        """
        raise NotImplementedError

    def error(self, refused: RefusedError) -> Reply:
        raise NotImplementedError

    def wrong(self, text: str) -> RefusedError:
        """Something that no client may do; raise what it returns."""
        self.wrongs.append(text)
        return RefusedError(400, "wrong", text)

    def want(self, fine: object, text: str) -> None:
        if not fine:
            raise self.wrong(text)

    def spoil(self, text: str, status: int, body: bytes = b"", *, headers: Mapping[str, str] | None = None,
              after: int = 0, times: int = 1) -> None:  # fmt: skip
        """Refuse requests whose method, path or body have the text, after so many of them, so many times."""
        self.rules.append(_Rule(text, status, body, headers or {}, after, times, False))

    def cut(self, text: str, *, after: int = 0, times: int = 1, done: bool = False) -> None:
        """Close the connection instead of an answer; `done`: after doing what was asked."""
        self.rules.append(_Rule(text, 0, b"", {}, after, times, done))

    def count(self, method: str, text: str = "") -> int:
        return sum(a.method == method and text in a.raw_path for a in self.asked)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None = None, error: BaseException | None = None,
                 trace: TracebackType | None = None) -> None:  # fmt: skip
        self.shutdown()
        self._thread.join()
        self.server_close()
        if kind is None:
            assert not self.wrongs, "\n".join(self.wrongs)

    def rule_for(self, text: str) -> _Rule | None:
        for rule in self.rules:
            if rule.text not in text or rule.times <= 0:
                continue
            if rule.after > 0:
                rule.after -= 1
                continue
            rule.times -= 1
            return rule
        return None


def of_json(status: int, value: Any) -> Reply:
    return status, {"content-type": "application/json"}, json.dumps(value).encode()


@dataclass
class Clock:
    """Numbers that go up."""

    at: int = field(default=1000)

    def __call__(self) -> int:
        self.at += 1
        return self.at


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body of an answer are sent one after the other
    server: Strict

    def do(self) -> None:
        server = self.server
        body = self._body()
        if len(body) < int(self.headers.get("content-length") or 0):  # the client went away: nothing was asked
            self.close_connection = True
            return
        parts = urlsplit(self.path)
        query = {k: ",".join(v) for k, v in parse_qs(parts.query, keep_blank_values=True).items()}
        headers = {k.lower(): v for k, v in self.headers.items()}
        asked = Asked(self.command, unquote(parts.path), query, headers, body, self.path)
        with server.lock:
            server.asked.append(asked)
            rule = server.rule_for(f"{self.command} {self.path}\n{body[:65536].decode(errors='replace')}")
            if rule is not None and rule.status:
                answer: Reply = rule.status, rule.headers, rule.body
            elif rule is None or rule.done:
                try:
                    answer = server.reply(asked)
                except RefusedError as e:
                    answer = server.error(e)
                except Exception as e:
                    server.wrongs.append(f"{self.command} {self.path}: {type(e).__name__}: {e}")
                    answer = server.error(RefusedError(400, "wrong", str(e)))
        if rule is not None and not rule.status:
            self.close_connection = True
            self.connection.close()
            return
        self._send(answer)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_PATCH = do  # noqa: N815

    def _body(self) -> bytes:
        if self.headers.get("transfer-encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("content-length") or 0))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _send(self, answer: Reply) -> None:
        status, headers, data = answer
        self.send_response(status)
        for name, value in ({"content-length": str(len(data))} | dict(headers)).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        pass
