"""One HTTP client for all places: signed requests, answers as JSON, failures in words, and dry runs.

    api = Rest(job, "https://api.example/v1", sign=Bearer(...), words=Words("Example", credentials="EXAMPLE_TOKEN"))
    volume = api.post("/volumes", json={"size": 10})["volume"]["id"]

In a dry run what would change something is printed instead of sent, and the answer is an `Unknown`: whatever is looked
up in it is an Unknown, too, and shows as `<volumes.volume.id>`.
"""

from __future__ import annotations

import json as json_
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urlencode

from linuxkit.errors import NetworkError
from linuxkit.oci.transport import ATTEMPTS, Body, Response, redact
from linuxkit.places.place import Job

MAX_ANSWER = 32 << 20
#: Names, without case, `-` and `_`, whose values a dry run does not print, whatever the place.
SECRETS = frozenset({"userdata", "customdata", "password", "adminpassword", "adminpass", "rootpass", "secret", "token",
                     "clientsecret", "privatekey", "secretaccesskey", "accesstoken", "refreshtoken"})  # fmt: skip
READS = frozenset({"GET", "HEAD"})


@dataclass(frozen=True)
class Call:
    """A request before it is signed. Header names are in lower case."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: Body | None = None


class Signer(Protocol):
    """Adds what proves who asks."""

    def sign(self, call: Call) -> Mapping[str, str]:
        """The headers to send, those of the call among them."""

    def renew(self) -> bool:
        """Get new proof after it was refused; False when there is no other."""


class Nobody:
    """Signs nothing."""

    def sign(self, call: Call) -> Mapping[str, str]:
        return call.headers

    def renew(self) -> bool:
        return False


@dataclass(frozen=True)
class Words:
    """How failures of a place are put.

    place        its name.
    credentials  which settings or files the login comes from: never its content.
    hints        by status or error code: what to change.
    message      takes an error answer apart: (code, text).
    """

    place: str
    credentials: str = ""
    hints: Mapping[str | int, str] = field(default_factory=dict)
    message: Callable[[bytes], tuple[str, str]] = lambda body: ("", _json_message(body))


@dataclass(frozen=True)
class Answer:
    """A response. `json` is None for an empty body."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    json: Any = None


class Unknown(str):
    """An answer that a dry run hasn't got."""

    def __getitem__(self, key: Any) -> Unknown:
        return Unknown(f"<{self.strip('<>')}.{key}>")

    def get(self, key: str, default: object = None) -> Unknown:
        return self[key]

    def __iter__(self) -> Any:
        return iter((Unknown(f"<{self.strip('<>')}>"),))


class RefusedError(NetworkError):
    """A place said no. `code` is its own word for why, `status` HTTP's."""

    def __init__(self, message: str, *, status: int, code: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status, self.code = status, code


class Rest:
    """See the module.

    Args:
        base: what paths are appended to.
        sign: proves who asks; renewed once when it is refused with 401.
    """

    def __init__(self, job: Job, base: str, *, words: Words, sign: Signer | None = None,
                 headers: Mapping[str, str] | None = None) -> None:  # fmt: skip
        self._job, self._base, self._words = job, base.rstrip("/"), words
        self._sign: Signer = sign or Nobody()
        self._headers = {k.lower(): v for k, v in (headers or {}).items()}

    def get(self, path: str, **more: Any) -> Any:
        """The JSON of a GET; see `call`."""
        return self.call("GET", path, **more).json

    def post(self, path: str, **more: Any) -> Any:
        return self.call("POST", path, **more).json

    def delete(self, path: str, **more: Any) -> Any:
        """A DELETE, for which it is as good that nothing is there."""
        return self.call("DELETE", path, **({"allow": (404,)} | more)).json

    def call(
        self, method: str, path: str, *, query: Mapping[str, Any] | None = None, json: Any = None,
        body: Body | None = None, headers: Mapping[str, str] | None = None, allow: tuple[int, ...] = (),
        reads: bool | None = None, attempts: int = 0, shown: str = "", veil: tuple[str, ...] = (),
    ) -> Answer:  # fmt: skip
        """Send a request.

        Args:
            path: below the base, or a whole URL.
            json: sent as the body.
            allow: statuses of 400 and over that are no failure.
            reads: that it changes nothing; None: as the method says.
            attempts: for temporary failures; 0: several for what can be repeated, one for POST and PATCH.
            shown: what a dry run prints of the body; empty: the JSON.
            veil: names in the JSON whose values it doesn't print.

        Raises:
            RefusedError: the place said no.
            NetworkError: it can't be reached.
        """
        url = path if "://" in path else self._base + path
        url += ("&" if "?" in url else "?") + urlencode(query, doseq=True) if query else ""
        sent = self._headers | {k.lower(): v for k, v in (headers or {}).items()}
        if json is not None:
            body = json_.dumps(json).encode()
            sent.setdefault("content-type", "application/json")
        if isinstance(body, bytes):
            sent["content-length"] = str(len(body))
        changes = method not in READS if reads is None else not reads
        if self._job.dry_run and changes:
            hidden = self._job.veil(_veiled(json, veil))
            shown = self._job.veil(shown) or (json_.dumps(hidden) if json is not None else "")
            self._job.log(f"would send: {method} {redact(url)}{' ' + shown if shown else ''}")
            return Answer(200, {}, b"", Unknown(f"<{path.strip('/').rpartition('/')[2] or 'answer'}>"))
        attempts = attempts or (1 if method in ("POST", "PATCH") and changes else ATTEMPTS)
        response, data = self._send(Call(method, url, sent, body), attempts)
        if response.status == 401 and 401 not in allow and self._sign.renew():
            response, data = self._send(Call(method, url, sent, body), attempts)
        if response.status >= 400 and response.status not in allow:
            raise self.refused(method, url, response.status, data)
        return Answer(response.status, response.headers, data, _json(data, response.headers))

    def _send(self, call: Call, attempts: int) -> tuple[Response, bytes]:
        with self._job.transport.request(
            call.method, call.url, self._sign.sign(call), body=call.body, attempts=attempts
        ) as response:
            return response, response.read(MAX_ANSWER) if call.method != "HEAD" else b""

    def refused(self, method: str, url: str, status: int, body: bytes) -> RefusedError:
        """The error for an answer."""
        words = self._words
        try:
            code, text = words.message(body)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            code, text = "", ""
        text = " ".join(text.split())[:300]
        hint = words.hints.get(code) or words.hints.get(status) or ""
        if status == 401:
            head = f"{words.place} does not accept the login"
            hint = hint or (f"it comes from {words.credentials}" if words.credentials else "")
        elif status == 403:
            head = f"{words.place} does not allow {method} {redact(url)}"
            hint = hint or "the login is good, but a permission is missing"
        elif status == 404:
            head = f"{words.place} does not have {redact(url)}"
        elif status == 409 and code not in words.hints:
            head = f"{words.place}: there is one already, or it is in use"
        elif status == 429:
            head = f"{words.place} limits the rate of requests"
            hint = hint or "wait, and run it again"
        elif status >= 500:
            head = f"{words.place} is in trouble: it answers {status} to {method} {redact(url)}"
            hint = hint or "run it again later"
        else:
            head = f"{words.place} refuses {method} {redact(url)} ({status})"
        told = f": {code}: {text}" if code and text else f": {code or text}" if code or text else ""
        return RefusedError(head + told, status=status, code=code, hint=hint)


def _veiled(value: Any, names: tuple[str, ...]) -> Any:
    """The same with some values left out, wherever they are."""
    if isinstance(value, dict):
        hidden = {*names, *(k for k in value if _bare(k) in SECRETS and isinstance(value[k], str))}
        return {k: f"({len(str(v))} characters)" if k in hidden else _veiled(v, names) for k, v in value.items()}
    return [_veiled(one, names) for one in value] if isinstance(value, list) else value


def _bare(key: Any) -> str:
    return str(key).lower().replace("-", "").replace("_", "")


def _json(data: bytes, headers: Mapping[str, str]) -> Any:
    if not data or "json" not in headers.get("content-type", "json"):
        return None
    try:
        return json_.loads(data)
    except ValueError:
        return None


def _json_message(body: bytes) -> str:
    """The usual ways to say what is wrong."""
    found = json_.loads(body)
    inner = found.get("error", found) if isinstance(found, dict) else found
    if isinstance(inner, str):
        return str(found.get("message") or inner)
    return str(inner.get("message") or inner.get("detail") or inner.get("title") or "")


def gone_is_fine(undo: Callable[[], object]) -> Callable[[], object]:
    """The same, content when there is nothing left to undo."""

    def do() -> object:
        try:
            return undo()
        except RefusedError as e:
            if e.status == 404:
                return None
            raise

    return do


