"""Requests to registries: the right address, the right login, and what a refusal means.

OCI Distribution Specification v1.1; distribution's token protocol for the logins. One login is kept for each
repository and what is done there. It goes to the registry and to its token server, never where a redirect leads.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

from linuxkit.errors import ImageError, InputError, NetworkError
from linuxkit.foreign import read_json
from linuxkit.oci.auth import (
    Challenge,
    Credentials,
    Keychain,
    parse_challenge,
    token_form,
    token_realm,
    token_url,
)
from linuxkit.oci.reference import DEFAULT_REGISTRY, Reference, canonical_registry
from linuxkit.oci.transport import ATTEMPTS, TEMPORARY, Body, Response, Transport, is_loopback, origin, redact

HUB = "https://registry-1.docker.io"
MAX_TOKEN = 1 << 20
NO_POST = (404, 405, 501)  # what a token server says that exchanges no identity tokens
MAX_ERROR = 64 << 10
_ELSEWHERE = "try again later, or use --mirror URL; build --offline uses only what the cache has"


def parse_mirrors(specs: Sequence[str]) -> dict[str, str]:
    """registry → URL from `[REGISTRY=]URL`; without a registry it is `*`, for all others. Later ones win.

    Raises:
        InputError: a URL does not start with http:// or https://.
    """
    mirrors: dict[str, str] = {}
    for spec in specs:
        registry, mark, url = spec.partition("=")
        if not mark or "://" in registry:
            registry, url = "*", spec
        if not url.startswith(("http://", "https://")) or not urlsplit(url).hostname:
            raise InputError(f"mirror '{spec}' must start with http:// or https://",
                             hint="write --mirror https://HOST or --mirror docker.io=https://HOST")  # fmt: skip
        mirrors[canonical_registry(registry)] = url.rstrip("/")
    return mirrors


class NotThereError(ImageError):
    """404: the registry does not have it."""


@dataclass(frozen=True, slots=True)
class Login:
    """What answered a challenge: the Authorization header, and where it came from for messages."""

    header: str
    origin: str = ""


class Session:
    """Speaks to registries for as long as a command runs; any number of threads may use it.

    Args:
        mirrors: as parse_mirrors gives them; a mirror replaces its registry, it is not tried first.
    """

    def __init__(self, transport: Transport, keychain: Keychain, mirrors: Mapping[str, str]) -> None:
        self.transport, self._keychain, self._mirrors = transport, keychain, dict(mirrors)
        self._logins: dict[tuple[str, ...], Login] = {}
        self._lock = threading.Lock()

    def base(self, registry: str, *, write: bool = False) -> str:
        """scheme://host[:port] of a registry. A mirror stands in for reading; for writing only when it is the same
        host, which is how http is chosen for one that is not loopback."""
        mirror = self._mirrors.get(registry) or self._mirrors.get("*")
        if mirror and not (write and canonical_registry(urlsplit(mirror).netloc) != registry):
            return mirror
        if registry == DEFAULT_REGISTRY:
            return HUB
        host = registry.rpartition(":")[0] if registry.rpartition(":")[2].isdigit() else registry
        return f"{'http' if is_loopback(host) else 'https'}://{registry}"

    def request(self, method: str, ref: Reference, path: str, headers: Mapping[str, str] | None = None, *,
                body: Body | None = None, write: bool = False, mount: str = "", ok: Sequence[int] = (200,),
                attempts: int = ATTEMPTS) -> Response:  # fmt: skip
        """A wanted answer, after logging in when that is asked for.

        Args:
            path: below /v2/REPOSITORY/, or a whole URL or /path that the registry gave.
            write: ask for the right to push.
            mount: another repository of the registry, to be read from.
            ok: the statuses that the caller deals with.

        Raises:
            NotThereError: 404 for something to be read. NetworkError: any other refusal, or nobody answers.
        """
        base = self.base(ref.registry, write=write)
        given = "://" in path or path.startswith("/")
        url = _place(base, path) if given else f"{base}/v2/{ref.repository}/{path}"
        home = origin(url) == origin(base)
        scopes = [f"repository:{ref.repository}:{'pull,push' if write else 'pull'}"]
        scopes += [f"repository:{mount}:pull"] if mount else []
        key = (base, *scopes)
        for attempt in (1, 2):
            login = self._logins.get(key) if home else None
            sent = {**(headers or {}), **({"Authorization": login.header} if login else {})}
            response = self.transport.request(method, url, sent, body=body, attempts=attempts, public=True)
            if response.status in ok:
                return response
            with response:
                here = origin(response.url) == origin(base)  # not after a redirect elsewhere
                if response.status == 401 and attempt == 1 and home and here:
                    with self._lock:
                        if self._logins.get(key) is login:  # else another thread has just done it
                            header = response.headers.get("www-authenticate", "")
                            self._logins[key] = self._log_in(ref, base, header, scopes)
                    continue
                raise self._failure(method, ref, path, response, login, write)
        raise AssertionError("unreachable")

    def _log_in(self, ref: Reference, base: str, header: str, scopes: Sequence[str]) -> Login:
        """What answers a challenge."""
        challenge = parse_challenge(header)
        host = _host(base)
        # the login of who is asked: a mirror of all registries gets none of theirs
        name = DEFAULT_REGISTRY if base == HUB else canonical_registry(host)
        login = self._keychain.find(name)
        if challenge.scheme == "basic":
            if login is None or not login.username:
                raise NetworkError(f"registry {host} wants a login for {ref.name}", hint=f"docker login {name}")
            return Login(login.basic, login.origin)
        if challenge.scheme != "bearer":
            raise NetworkError(f"registry {host} wants an unsupported kind of login: '{challenge.scheme[:40]}'")
        if login is not None and login.registry_token:
            return Login(f"Bearer {login.registry_token}", login.origin)
        with self._ask(challenge, base, scopes, login) as response:
            if response.status != 200:
                rejected = response.status in (400, 401, 403) and login is not None
                raise NetworkError(
                    f"the token server of {host} " + ("does not accept" if rejected else
                                                      f"answers {response.status}{_error_text(response)} to")
                    + (f" the login from {login.origin}" if login else " a request without a login"),
                    hint=f"docker login {name}", temporary=response.status in TEMPORARY)  # fmt: skip
            data = response.read(MAX_TOKEN)
        try:
            answer = read_json(data)
            token = answer.get("token") or answer.get("access_token")
        except (ValueError, AttributeError, RecursionError):
            token = None
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise NetworkError(f"the token server of {host} sent no token")
        return Login(f"Bearer {token}", login.origin if login else "")

    def _ask(self, challenge: Challenge, base: str, scopes: Sequence[str], login: Credentials | None) -> Response:
        """The token server's answer."""
        if login is not None and login.identity_token:
            response = self.transport.request(
                "POST", token_realm(challenge, base), {"Content-Type": "application/x-www-form-urlencoded"},
                body=token_form(challenge, scopes, login.identity_token), follow=False,
            )  # fmt: skip
            if response.status not in NO_POST or not (login.username and login.password):
                return response
            response.close()
        headers = {"Authorization": login.basic} if login is not None and login.username else {}
        return self.transport.request("GET", token_url(challenge, base, scopes), headers)

    def _failure(self, method: str, ref: Reference, path: str, response: Response, login: Login | None,
                 write: bool) -> ImageError | NetworkError:  # fmt: skip
        host, status, detail = _host(response.url), response.status, _error_text(response)
        what, verb = f"image {ref.text}: {host}", "push to" if write else "read"
        by = f" the login from {login.origin}" if login and login.origin else ""
        if status == 404 and method in ("GET", "HEAD"):
            lacks = f"lacks its {path.replace('/', ' ', 1)}"
            lacks = "does not have it" if path.startswith("manifests/") else lacks
            lacks = "lacks a page of a list" if "://" in path else lacks
            return NotThereError(f"{what} {lacks}", hint="check the name and the tag")
        if status == 404:
            return NetworkError(f"{what} knows no such repository (404){detail}",
                                hint=f"some registries want {ref.name} created first")  # fmt: skip
        if status == 401:
            if not by:
                return NetworkError(f"{what} wants a login (401){detail}",
                                    hint=f"check that the image exists, or: docker login {ref.registry}")  # fmt: skip
            return NetworkError(f"{what} does not accept{by} (401){detail}",
                                hint=f"docker login {ref.registry} renews it")  # fmt: skip
        if status == 403:
            whom = by.strip() or "anybody without a login"
            return NetworkError(f"{what} does not let {whom} {verb} it (403){detail}",
                                hint=f"check the name; {ref.name} may need other rights, or another "
                                     f"docker login {ref.registry}")  # fmt: skip
        if status == 429:
            wait = f"; it asks to wait {response.retry_after:.0f} s" if response.retry_after else ""
            return NetworkError(f"{what} limits the rate of requests (429){wait}{detail}",
                                hint="wait, log in with docker login, or use --mirror URL", temporary=True,
                                wait=response.retry_after)  # fmt: skip
        if status >= 500:
            return NetworkError(f"{what} is in trouble, it answers {status}{detail}", hint=_ELSEWHERE, temporary=True,
                                wait=response.retry_after)  # fmt: skip
        return NetworkError(f"{what} answers {status} to {method}{detail}", temporary=status in TEMPORARY)


def _place(base: str, given: str) -> str:
    """A URL that a registry gave. One that forgets that it is behind https is meant with https.

    Raises:
        NetworkError: it leads from https to http elsewhere, or is no http address.
    """
    try:
        url = urljoin(f"{base}/", given)
        _ = urlsplit(url).port
    except ValueError:
        raise NetworkError(f"registry {_host(base)} leads to what is no URL") from None
    if origin(base)[0] == "https" and url.startswith("http://"):
        if origin(base)[1] != origin(url)[1]:
            raise NetworkError(f"registry {_host(base)} sends an upload to {redact(url)}, which is not https")
        url = base + url[len("http://") + len(urlsplit(url).netloc) :]
    if origin(url)[0] not in ("http", "https"):
        raise NetworkError(f"registry {_host(base)} sends an upload to {redact(url)}")
    return url


def _host(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2]


def _error_text(response: Response) -> str:
    """What a registry says in its error document, made fit for one line."""
    with suppress(NetworkError, ValueError, KeyError, IndexError, TypeError, RecursionError):
        message = str(read_json(response.read(MAX_ERROR))["errors"][0]["message"])
        return ": " + "".join(c for c in message if c.isprintable())[:160]
    return ""
