"""HTTP for the whole project: the only module that opens a socket to the network.

Every request has a time limit, every body a size limit. Redirects are followed here, by rules: never from https to
http, and credentials stay with the host they were meant for. Messages show URLs without user, password and query.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from urllib.parse import unquote, urljoin, urlsplit

from linuxkit.errors import HostError, InputError, NetworkError
from linuxkit.oci.response import CHUNK, READ_TIMEOUT, BrokenBodyError, Response, TooLongError, network_error, redact

__all__ = ["ATTEMPTS", "MAX_WAIT", "TEMPORARY", "Body", "BrokenBodyError", "Response", "TooLongError", "Transport",
           "get_url", "is_loopback", "origin", "redact"]  # fmt: skip
CONNECT_TIMEOUT = 15.0  # seconds
MAX_REDIRECTS = 5
ATTEMPTS = 4
MAX_WAIT = 30.0  # seconds of a Retry-After that we are ready to sit through
#: What a request may say to another host than the one it was meant for. Whatever else it says may tell who asks:
#: each cloud has a header of its own for that.
HARMLESS = frozenset({"accept", "accept-encoding", "accept-language", "content-length", "content-range", "content-type",
                      "if-modified-since", "if-none-match", "range", "user-agent"})  # fmt: skip
T = TypeVar("T")
#: What a request carries: bytes, or something that opens a stream of them each time it is sent.
Body = bytes | Callable[[], BinaryIO]
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
INSTEAD = "--mirror URL goes through another registry, build --offline uses only what the cache has"
TEMPORARY = frozenset({408, 429, 500, 502, 503, 504})


class Transport:
    """Makes requests.

    Args:
        cert_files: PEM files whose certificates are trusted beside the system's.
        environment: where http_proxy, https_proxy, all_proxy and no_proxy are looked up, in either case.
        sleep: waits between attempts; tests put in their own.
        instead: what can be done when a host can't be reached, for messages.
    """

    def __init__(self, *, cert_files: Sequence[Path] = (), environment: Mapping[str, str] | None = None,
                 sleep: Callable[[float], None] = time.sleep, read_timeout: float = READ_TIMEOUT,
                 instead: str = INSTEAD) -> None:  # fmt: skip
        self._certs, self.sleep, self._read_timeout = tuple(cert_files), sleep, read_timeout
        self._instead = instead
        self._environment = {k.lower(): v for k, v in (environment or {}).items() if v}
        self._pools: dict[tuple[str, bool], Any] = {}  # by proxy, and whether for https
        self._lock = threading.Lock()
        self._context: ssl.SSLContext | None = None

    def trusting(self, *cert_files: Path) -> Transport:
        """One that trusts these certificates, too."""
        return Transport(cert_files=(*self._certs, *cert_files), environment=self._environment, sleep=self.sleep,
                         read_timeout=self._read_timeout, instead=self._instead)  # fmt: skip

    def get(self, url: str, headers: Mapping[str, str] | None = None) -> Response:
        """The response to a GET; see request."""
        return self.request("GET", url, headers)

    def request(self, method: str, url: str, headers: Mapping[str, str] | None = None, *, body: Body | None = None,
                attempts: int = ATTEMPTS, follow: bool = True, public: bool = False) -> Response:  # fmt: skip
        """The response to a request, whatever its status, its body unread. Temporary failures are tried again.

        Args:
            body: what is sent; a stream needs a Content-Length among the headers.
            attempts: how often at most; 1 for what must not be sent twice.
            follow: go where a redirect leads. To another scheme, host or port goes nothing but HARMLESS headers, and
                no body.
            public: the body tells nothing secret; it may go there, too.

        Raises:
            NetworkError: nobody answered, or only with failures of the connection; or the body may not go on.
            InputError: `url` is not an http or https URL.
        """
        wait = 0.5
        for attempt in range(1, attempts + 1):
            last = attempt == attempts
            try:
                response = self._follow(method, url, dict(headers or {}), body, follow, public)
                if response.status not in TEMPORARY or last:
                    return response
                pause = max(wait, response.retry_after)
                if pause > MAX_WAIT:
                    return response
                response.close()
            except NetworkError as e:
                if e.temporary and last and attempts > 1:
                    e.message += f" ({method} {redact(url)}, tried {attempts} times)"
                if last or not e.temporary:
                    raise
                pause = wait
            self.sleep(pause)
            wait *= 2
        raise AssertionError("unreachable")

    def retrying(self, work: Callable[[], T]) -> T:
        """Do something whose connection may break in the middle of a body, again and again while that can help."""
        for attempt in range(1, ATTEMPTS):
            try:
                return work()
            except BrokenBodyError:  # other failures have been tried again by `get`
                self.sleep(0.5 * attempt)
        return work()

    def _follow(self, method: str, url: str, headers: dict[str, str], body: Body | None, follow: bool,
                public: bool) -> Response:  # fmt: skip
        for _ in range(MAX_REDIRECTS + 1):
            response = self._once(method, url, headers, body)
            target = response.headers.get("location", "")
            if response.status not in _REDIRECTS or not target or not follow:
                return response
            if method not in ("GET", "HEAD") and response.status < 307:
                return response  # it would become a GET; nobody who takes uploads means that
            response.close()
            try:
                following = urljoin(url, target)
                old, new = urlsplit(url), urlsplit(following)
                _ = new.port
            except ValueError:
                raise NetworkError(f"{redact(url)} redirects to what is no URL") from None
            if new.scheme not in ("http", "https") or (old.scheme == "https" and new.scheme != "https"):
                raise NetworkError(f"{redact(url)} redirects to {redact(following)}, which is not https")
            if origin(url) != origin(following):
                if body and not public:
                    raise NetworkError(f"{redact(url)} redirects to {redact(following)}: what is sent may hold a login "
                                       "and does not go to another host",
                                       hint="if that is the right place, name it instead")  # fmt: skip
                headers = {k: v for k, v in headers.items() if k.lower() in HARMLESS}
            url = following
        raise NetworkError(f"{redact(url)}: more than {MAX_REDIRECTS} redirects")

    def _once(self, method: str, url: str, headers: dict[str, str], body: Body | None) -> Response:
        import urllib3

        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(f"'{redact(url)}' is not an http or https URL")
        stream = body() if callable(body) else None
        try:
            raw = self._pool(parts.scheme, parts.hostname, origin(url)[2]).request(
                method, url, headers={"User-Agent": "linuxkit", "Accept-Encoding": "identity", **headers},
                body=stream or body, redirect=False, retries=False, preload_content=False, decode_content=False,
                timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT, read=self._read_timeout),
            )  # fmt: skip
        except (urllib3.exceptions.HTTPError, OSError) as e:
            raise network_error(url, e, self._instead) from e
        finally:
            if stream is not None:
                stream.close()
        return Response(url, raw.status, {k.lower(): v for k, v in raw.headers.items()}, raw,
                        self._read_timeout)

    def _pool(self, scheme: str, host: str, port: int) -> Any:
        import urllib3

        proxy = self._proxy(scheme, host, port)
        secure = "https" in (scheme, proxy.partition(":")[0])  # else the authorities need not be read
        with self._lock:
            if (proxy, secure) not in self._pools:
                options: dict[str, Any] = {"maxsize": 8, "blocksize": CHUNK}
                options |= {"ssl_context": self._ssl()} if secure else {}
                from linuxkit.oci.connections import watched

                made = _proxy_pool(proxy, options) if proxy else urllib3.PoolManager(**options)
                self._pools[proxy, secure] = watched(made)
            return self._pools[proxy, secure]

    def _proxy(self, scheme: str, host: str, port: int = 0) -> str:
        """The proxy's URL; empty for a direct connection."""
        proxy = self._environment.get(f"{scheme}_proxy") or self._environment.get("all_proxy", "")
        if proxy and "://" not in proxy:
            proxy = f"http://{proxy}"
        excluded = self._environment.get("no_proxy", "").lower().split(",")
        direct = is_loopback(host) or any(_excludes(p.strip(), host.lower(), port) for p in excluded)
        return "" if direct else proxy

    def _ssl(self) -> ssl.SSLContext:
        if self._context is None:
            self._context = ssl.create_default_context()
            for path in self._certs:
                try:
                    self._context.load_verify_locations(cafile=str(path))
                except (OSError, ssl.SSLError) as e:
                    raise HostError(f"cannot read the certificate file {path}: {e.strerror or e}",
                                    hint="--cert-file takes PEM certificates") from e  # fmt: skip
        return self._context


def get_url(url: str, limit: int, transport: Transport | None = None) -> bytes:
    """The body behind a URL, for YAML files given as one.

    Raises:
        NetworkError: it cannot be fetched, or is larger than `limit` bytes.
    """
    with (transport or Transport()).get(url) as response:
        if response.status != 200:
            raise NetworkError(f"{redact(url)}: the server answers {response.status}")
        return response.read(limit)


def origin(url: str) -> tuple[str, str, int]:
    """(scheme, host, port) of a URL: what a login belongs to."""
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname or "", parts.port or {"https": 443, "http": 80}.get(parts.scheme, 0)
    except ValueError:
        return "", "", 0


def _proxy_pool(proxy: str, options: Mapping[str, Any]) -> Any:
    """Connections through a proxy; user and password in its URL are its login."""
    import urllib3

    parts = urlsplit(proxy)
    try:
        user, place = parts.netloc.rpartition("@")[::2]
        if not place:
            raise ValueError
        headers = urllib3.make_headers(proxy_basic_auth=unquote(user)) if user else None
        return urllib3.ProxyManager(f"{parts.scheme}://{place}", proxy_headers=headers, **options)
    except (urllib3.exceptions.HTTPError, ValueError):
        raise InputError(f"the proxy {redact(proxy)} is not an http or https URL", hint="see http_proxy, https_proxy "
                         "and all_proxy in the environment") from None  # fmt: skip


def _excludes(pattern: str, host: str, port: int) -> bool:
    """Whether an entry of no_proxy (a name with its subdomains, an address, a network, any with :PORT) means `host`."""
    if pattern == "*":
        return True
    if "/" in pattern:
        import ipaddress

        with suppress(ValueError):
            return ipaddress.ip_address(host) in ipaddress.ip_network(pattern, strict=False)
        return False
    name, colon, number = pattern.rpartition(":")
    if colon and number.isdigit() and (":" not in name or name.endswith("]")):
        if int(number) != port:
            return False
        pattern = name
    pattern = pattern.strip("[]").lstrip("*.")
    return bool(pattern) and f".{host}".endswith(f".{pattern}")


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine, where http is good enough."""
    bare = host.strip("[]").lower()
    return bare in ("localhost", "::1") or bare.endswith(".localhost") or (
        bare.startswith("127.") and bare.replace(".", "").isdigit()
    )  # fmt: skip
