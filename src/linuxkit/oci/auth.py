"""Registry logins: who we are to a host, what a 401 asks for, and whether its token server may be trusted.

RFC 9110 section 11.6.1 (WWW-Authenticate); distribution's token protocol; the `auths` of ~/.docker/config.json.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlencode, urlsplit

from linuxkit.errors import InputError, NetworkError

_PARAMETER = re.compile(r'([A-Za-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))\s*,?\s*')
MAX_CONFIG = 1 << 20


@dataclass(frozen=True, slots=True)
class Credentials:
    """A login; `origin` is the file it came from, for messages. Never printed."""

    username: str
    password: str
    origin: str = ""

    def __repr__(self) -> str:
        return f"Credentials(origin={self.origin!r})"

    @property
    def basic(self) -> str:
        """The value of an Authorization header."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


class Keychain(Protocol):
    """Something that knows logins. Docker's credential helpers can become another one."""

    def find(self, registry: str) -> Credentials | None:
        """The login for `host[:port]`, or None for anonymous."""


class Anonymous:
    """A keychain without keys."""

    def find(self, registry: str) -> Credentials | None:
        return None


class DockerConfig:
    """The `auths` of a Docker configuration file; a missing file is an empty keychain."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._auths: Mapping[str, object] | None = None

    def find(self, registry: str) -> Credentials | None:
        """See Keychain.

        Raises:
            InputError: the file is not what Docker writes.
        """
        if self._auths is None:
            self._auths = self._load()
        for key, value in self._auths.items():
            if _host(key) == _host(registry) and isinstance(value, dict):
                return self._login(value)
        return None

    def _load(self) -> Mapping[str, object]:
        try:
            with self._path.open("rb") as stream:
                document = json.loads(stream.read(MAX_CONFIG))
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except OSError as e:
            raise InputError(f"cannot read {self._path}: {(e.strerror or str(e)).lower()}") from e
        except (ValueError, RecursionError) as e:
            raise InputError(f"{self._path} is not valid JSON", hint="docker login writes it anew") from e
        auths = document.get("auths") if isinstance(document, dict) else None
        return auths if isinstance(auths, dict) else {}

    def _login(self, entry: Mapping[str, object]) -> Credentials | None:
        packed = entry.get("auth")
        if isinstance(packed, str) and packed:
            try:
                name, colon, password = base64.b64decode(packed, validate=True).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError):
                colon = ""
                name = password = ""
            if not colon:
                raise InputError(f"{self._path}: an entry of auths is not base64 of USER:PASSWORD",
                                 hint="docker login writes it anew")  # fmt: skip
            return Credentials(name, password.rstrip("\0"), str(self._path))
        name, password = str(entry.get("username") or ""), str(entry.get("password") or "")
        return Credentials(name, password, str(self._path)) if name else None


def _host(text: str) -> str:
    """host[:port] of a registry's name or URL; Docker Hub has one name here."""
    host = urlsplit(text).netloc if "://" in text else text.split("/", 1)[0]
    return "docker.io" if host in ("index.docker.io", "registry-1.docker.io") else host.lower()


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a registry wants: `scheme` in lower case, and its parameters."""

    scheme: str
    parameters: Mapping[str, str]


def parse_challenge(header: str) -> Challenge:
    """The first challenge of a WWW-Authenticate header; scheme "" when there is none that can be read."""
    scheme, _, rest = header[:8192].strip().partition(" ")
    parameters = {}
    position = 0
    while found := _PARAMETER.match(rest, position):
        quoted, plain = found.group(2), found.group(3)
        parameters[found.group(1).lower()] = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else plain
        position = found.end()
    return Challenge(scheme.lower(), parameters)


def token_url(challenge: Challenge, registry_url: str, scope: str) -> str:
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
    query = {"scope": scope}
    if "service" in challenge.parameters:
        query["service"] = challenge.parameters["service"]
    return f"{realm}{'&' if there.query else '?'}{urlencode(query)}"
