"""Registry logins: what they are, what a 401 asks for, and whether its token server may be trusted. Pure.

RFC 9110 section 11.6.1 (WWW-Authenticate); distribution's token protocol.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlencode, urlsplit

from linuxkit.errors import NetworkError
from linuxkit.oci.reference import canonical_registry

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9_-]*)(?:\s*,\s*|\s+|$)")
_PARAMETER = re.compile(r'([A-Za-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))\s*,?\s*')


@dataclass(frozen=True, slots=True)
class Credentials:
    """A login. Never printed; `origin` is the file or program it came from, for messages.

    identity_token  exchanged at the token server instead of user and password.
    registry_token  a bearer token as it is.
    """

    username: str
    password: str
    origin: str = ""
    identity_token: str = ""
    registry_token: str = ""

    def __repr__(self) -> str:
        return f"Credentials(origin={self.origin!r})"

    @property
    def basic(self) -> str:
        """The value of an Authorization header."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


class Keychain(Protocol):
    """Something that knows logins."""

    def find(self, registry: str) -> Credentials | None:
        """The login for `host[:port]`, or None for anonymous."""


class Anonymous:
    """A keychain without keys."""

    def find(self, registry: str) -> Credentials | None:
        return None


class Given:
    """A keychain of given logins; it asks another one for the rest."""

    def __init__(self, logins: Mapping[str, Credentials], rest: Keychain) -> None:
        self._logins = {canonical_registry(name): login for name, login in logins.items()}
        self._rest = rest

    def find(self, registry: str) -> Credentials | None:
        """See Keychain."""
        return self._logins.get(canonical_registry(registry)) or self._rest.find(registry)


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a registry wants: `scheme` in lower case, and its parameters."""

    scheme: str
    parameters: Mapping[str, str]


def parse_challenge(header: str) -> Challenge:
    """The challenge of a WWW-Authenticate header that we can answer: bearer, else basic, else the first of them.

    Scheme "" when there is none that can be read.
    """
    rest, position, found = header[:8192].strip(), 0, list[Challenge]()
    while start := _SCHEME.match(rest, position):
        position = start.end()
        parameters: dict[str, str] = {}
        while parameter := _PARAMETER.match(rest, position):
            quoted, plain = parameter.group(2), parameter.group(3)
            value = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else plain
            parameters.setdefault(parameter.group(1).lower(), value)
            position = parameter.end()
        found.append(Challenge(start.group(1).lower(), parameters))
    order = {"bearer": 0, "basic": 1}
    return min(found, key=lambda c: order.get(c.scheme, 2), default=Challenge("", {}))


def token_realm(challenge: Challenge, registry_url: str) -> str:
    """Where to ask for a token.

    The server names the place, so it must not be able to send our login anywhere: only over https, or to the
    registry's own host as the registry itself is reached.

    Raises:
        NetworkError: the realm is missing, or somewhere else.
    """
    realm = challenge.parameters.get("realm", "")
    here = urlsplit(registry_url)
    try:
        there = urlsplit(realm)
        same = (there.scheme, there.hostname, there.port) == (here.scheme, here.hostname, here.port)
    except ValueError:
        there, same = urlsplit(""), False
    host = here.netloc.rpartition("@")[2]
    if not there.hostname or there.username or not (there.scheme == "https" or (there.scheme == "http" and same)):
        raise NetworkError(f"registry {host} sends logins to an unsafe place, '{realm[:100]}'",
                           hint="a token server must be reached over https, or be the registry itself")  # fmt: skip
    return realm


def token_url(challenge: Challenge, registry_url: str, scopes: Sequence[str]) -> str:
    """Where to GET a token, with the question. Raises NetworkError as token_realm does."""
    realm = token_realm(challenge, registry_url)
    query = [("scope", scope) for scope in scopes]
    if "service" in challenge.parameters:
        query.append(("service", challenge.parameters["service"]))
    return f"{realm}{'&' if urlsplit(realm).query else '?'}{urlencode(query)}"


def token_form(challenge: Challenge, scopes: Sequence[str], identity_token: str) -> bytes:
    """What to POST to the token server to exchange an identity token (OAuth 2, RFC 6749 section 6)."""
    return urlencode({
        "grant_type": "refresh_token", "service": challenge.parameters.get("service", ""),
        "scope": " ".join(scopes), "client_id": "linuxkit", "refresh_token": identity_token,
    }).encode()  # fmt: skip
