"""An answer of a server: its headers, and its body as it comes, bounded in size and in time.

Messages show URLs without user, password and query.
"""

from __future__ import annotations

import ssl
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from linuxkit.errors import NetworkError

CHUNK = 256 << 10
READ_TIMEOUT = 60.0  # seconds without a byte, and for the whole of a header
SLOWEST = 1000.0  # bytes in a second, below which a body counts as broken
WHOLE = 600.0  # seconds for a small body as a whole: a manifest, a token, an answer of an API


class BrokenBodyError(NetworkError):
    """The connection broke in the middle of an answer."""


class TooLongError(NetworkError):
    """An answer is larger than it may be."""


@dataclass
class Response:
    """An answer whose body is read in pieces. A context manager, so that the connection goes back."""

    url: str
    status: int
    headers: Mapping[str, str]  # names in lower case
    raw: Any
    patience: float = READ_TIMEOUT  # seconds over which the speed of a body is measured

    def __enter__(self) -> Response:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None,
                 ) -> None:  # fmt: skip
        self.close()

    @property
    def retry_after(self) -> float:
        """Seconds that the server asks to wait; 0 when it does not say. A date counts from the server's own clock."""
        text = self.headers.get("retry-after", "")
        if text.isascii() and text.isdigit():
            return float(text[:9])
        from email.utils import parsedate_to_datetime

        try:
            wait = parsedate_to_datetime(text) - parsedate_to_datetime(self.headers.get("date", ""))
        except (ValueError, TypeError, OverflowError):
            return 0.0
        return max(0.0, wait.total_seconds())

    @property
    def framed(self) -> bool:
        """Whether the end of the body can be told from a connection that broke."""
        return "content-length" in self.headers or "chunked" in self.headers.get("transfer-encoding", "").lower()

    @property
    def coding(self) -> str:
        """The content coding, in lower case; empty for none. We ask for none, and some servers don't listen."""
        coding = self.headers.get("content-encoding", "").strip().lower()
        return "" if coding == "identity" else coding

    def pieces(self, *, plain: bool = True) -> Iterator[bytes]:
        """The body as it comes. The caller stops when it has enough.

        Args:
            plain: undo the content coding (gzip or deflate).

        Raises:
            NetworkError: the connection broke, the body is shorter than announced, or has another coding.
        """
        if plain and self.coding:
            return _decoded(self._pieces(), self.coding, redact(self.url))
        return self._pieces()

    def _pieces(self) -> Iterator[bytes]:
        import urllib3

        from linuxkit.oci.connections import FOREVER, Watch

        count, marked, since = 0, 0, time.monotonic()
        watch = Watch(getattr(self.raw, "watched", None), self.patience)
        try:
            while piece := self.raw.read1(CHUNK):
                count += len(piece)
                watch.extend(FOREVER)  # the time of who takes the bytes is not the peer's
                yield piece
                now = time.monotonic()
                watch.extend(self.patience)
                if now - since > self.patience:
                    if count - marked < (now - since) * SLOWEST:
                        raise BrokenBodyError(f"{redact(self.url)}: only {count - marked} bytes in the last "
                                              f"{now - since:.0f} s", temporary=True)  # fmt: skip
                    marked, since = count, now
        except (urllib3.exceptions.HTTPError, OSError) as e:
            if not watch.expired:
                raise BrokenBodyError(network_error(self.url, e).message, temporary=True) from e
        finally:
            watch.stop()
        if watch.expired:
            raise BrokenBodyError(f"{redact(self.url)}: nothing of the body came for {self.patience:.0f} s",
                                  temporary=True)  # fmt: skip
        announced = self.headers.get("content-length", "")
        if announced.isascii() and announced.isdigit() and count < int(announced[:20]):
            raise BrokenBodyError(f"{redact(self.url)}: the connection ended after {count} of {announced} bytes",
                                  temporary=True)  # fmt: skip

    def read(self, limit: int) -> bytes:
        """The whole body.

        Raises:
            NetworkError: it is larger than `limit` bytes, takes too long, or the connection broke.
        """
        parts, total, end = [], 0, time.monotonic() + WHOLE
        for piece in self.pieces():
            total += len(piece)
            if total > limit:
                raise TooLongError(f"{redact(self.url)}: the answer is larger than {limit} bytes")
            if time.monotonic() > end:
                raise NetworkError(f"{redact(self.url)}: the answer is not whole after {WHOLE:.0f} s", temporary=True)
            parts.append(piece)
        return b"".join(parts)

    def close(self) -> None:
        """Drop the connection if the body was not read to its end; a half-read one cannot be used again."""
        self.raw.close()
        self.raw.release_conn()


def _decoded(pieces: Iterator[bytes], coding: str, where: str) -> Iterator[bytes]:
    """What a body is without its content coding (RFC 9110 section 8.4), in pieces of at most CHUNK bytes."""
    if coding not in ("gzip", "x-gzip", "deflate"):
        said = "".join(c for c in coding[:40] if c.isprintable())
        raise NetworkError(f"{where}: the answer has the content coding '{said}', which nobody asked for")
    wide = zlib.MAX_WBITS | (0 if coding == "deflate" else 16)
    engine, begun = zlib.decompressobj(wide), False
    try:
        for piece in pieces:
            while piece:
                if engine.eof:  # gzip may go on with another member
                    engine = zlib.decompressobj(wide)
                begun = True
                if out := engine.decompress(piece, CHUNK):
                    yield out
                piece = engine.unconsumed_tail or engine.unused_data
        while out := engine.decompress(b"", CHUNK):
            yield out
    except zlib.error as e:
        raise NetworkError(f"{where}: the answer is not the '{coding}' that its header says") from e
    if begun and not engine.eof:
        raise BrokenBodyError(f"{where}: the '{coding}' of the answer ends in the middle", temporary=True)


def redact(url: str) -> str:
    """A URL fit for messages: no user, no password, no query, not too long."""
    try:
        parts = urlsplit(url)
        host = f"[{parts.hostname}]" if parts.hostname and ":" in parts.hostname else parts.hostname or ""
        text = f"{parts.scheme}://{host}{f':{parts.port}' if parts.port else ''}{parts.path}"
    except ValueError:
        return "(unreadable URL)"
    return text if len(text) <= 200 else text[:199] + "…"


def network_error(url: str, error: BaseException, instead: str = "") -> NetworkError:
    from urllib3 import exceptions as x

    also = f"; {instead}" if instead else ", and https_proxy in the environment"
    host = urlsplit(url).netloc.rpartition("@")[2]
    reason: BaseException = error
    if isinstance(error, x.ProxyError):
        reason = error.original_error
        return NetworkError(f"the proxy for {host} cannot be used: {_text(reason)}", hint="see http_proxy and no_proxy")
    if isinstance(reason, x.NameResolutionError):
        return NetworkError(f"the host {host} is not known", hint=f"check the name{also}", temporary=False)
    if isinstance(reason, x.SSLError | ssl.SSLError):
        return NetworkError(f"no secure connection to {host}: {_text(reason)}",
                            hint="--cert-file FILE trusts another authority")  # fmt: skip
    if isinstance(reason, x.NewConnectionError | ConnectionError):
        return NetworkError(f"{host} cannot be reached: {_text(reason)}", hint=f"check the network{also}",
                            temporary=True)  # fmt: skip
    if isinstance(reason, x.TimeoutError | TimeoutError):
        return NetworkError(f"{host} does not answer in time", hint=instead or "try again later", temporary=True)
    return NetworkError(f"{host} did not answer properly: {_text(reason)}", temporary=True)


def _text(error: BaseException) -> str:
    text = str(error.args[-1] if error.args else error).splitlines()
    line = text[0] if text else type(error).__name__
    return line.rsplit(": ", 1)[-1][:160] or type(error).__name__
