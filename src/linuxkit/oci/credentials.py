"""Logins from Docker's configuration: ~/.docker/config.json, and the programs that it names.

    {"auths":       {"ghcr.io": {"auth": base64 of "USER:PASSWORD"}},    also identitytoken, username, password
     "credsStore":  "secretservice",                                    asked for every registry
     "credHelpers": {"registry.example": "ecr-login"}}                  asked for this one

A helper NAME is the program docker-credential-NAME: `get`, the registry on standard input, JSON with Username and
Secret on standard output (the protocol of docker-credential-helpers).
"""

from __future__ import annotations

import base64
import binascii
import re
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from linuxkit.errors import HostError, InputError
from linuxkit.foreign import read_json
from linuxkit.oci.auth import Credentials
from linuxkit.oci.reference import canonical_registry

HUB_KEY = "https://index.docker.io/v1/"  # what Docker calls its hub there
MAX_CONFIG = 1 << 20
HELPER_TIMEOUT = 60.0  # seconds; some ask the user
TOKEN_USER = "<token>"  # the Username that says that Secret is an identity token
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")


class DockerConfig:
    """A keychain: a Docker configuration file and its helpers. A missing file is an empty one.

    Args:
        path: of config.json.
        environment: what helpers get, and whose PATH they are looked up in.
        say: takes a line about a helper that is not there.
    """

    def __init__(self, path: Path, environment: Mapping[str, str] | None = None,
                 say: Callable[[str], None] = lambda line: None) -> None:  # fmt: skip
        self._path, self._environment, self._say = path, dict(environment or {}), say
        self._document: Mapping[str, Any] | None = None
        self._known: dict[str, Credentials | None] = {}
        self._lock = threading.Lock()

    def find(self, registry: str) -> Credentials | None:
        """The login for `host[:port]`, or None.

        Raises:
            InputError: the file is not what Docker writes.
            HostError: a helper failed.
        """
        with self._lock:
            if registry not in self._known:
                if self._document is None:
                    self._document = self._load()
                self._known[registry] = self._from_helper(registry) or self._from_file(registry)
            return self._known[registry]

    def _load(self) -> Mapping[str, Any]:
        try:
            with self._path.open("rb") as stream:
                document = read_json(stream.read(MAX_CONFIG))
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except OSError as e:
            raise InputError(f"cannot read {self._path}: {(e.strerror or str(e)).lower()}") from e
        except (ValueError, RecursionError) as e:
            raise InputError(f"{self._path} is not valid JSON", hint="docker login writes it anew") from e
        return document if isinstance(document, dict) else {}

    def _entries(self, key: str) -> Mapping[str, Any]:
        assert self._document is not None
        found = self._document.get(key)
        return found if isinstance(found, dict) else {}

    # -- auths

    def _from_file(self, registry: str) -> Credentials | None:
        entries = {k: v for k, v in self._entries("auths").items() if isinstance(v, dict)}
        same = [k for k in entries if _host(k) == _host(registry)]
        exact = [k for k in same if k.lower() == registry.lower()]
        for key in (exact + same)[:1]:
            return self._login(key, entries[key])
        return None

    def _login(self, key: str, entry: Mapping[str, Any]) -> Credentials | None:
        origin = str(self._path)
        name, password = str(entry.get("username") or ""), str(entry.get("password") or "")
        packed = entry.get("auth")
        if isinstance(packed, str) and packed:
            try:
                name, colon, password = base64.b64decode(packed, validate=True).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError):
                colon = ""
            if not colon:
                raise InputError(f"{origin}: the login for {key} is not base64 of USER:PASSWORD",
                                 hint="docker login writes it anew")  # fmt: skip
        token, ready = entry.get("identitytoken"), entry.get("registrytoken")
        found = Credentials(
            name, password.rstrip("\0"), origin, identity_token=token if isinstance(token, str) else "",
            registry_token=ready if isinstance(ready, str) else "",
        )  # fmt: skip
        return found if name or found.identity_token or found.registry_token else None

    # -- helpers

    def _from_helper(self, registry: str) -> Credentials | None:
        assert self._document is not None
        special = next((v for k, v in self._entries("credHelpers").items() if _host(k) == _host(registry)), "")
        helper = special or self._document.get("credsStore") or ""
        if not helper:
            return None
        field = "credHelpers" if special else "credsStore"
        if not isinstance(helper, str) or not _HELPER.fullmatch(helper):
            raise InputError(f"{self._path}: {field} names a helper by something that is no name")
        program = f"docker-credential-{helper}"
        from linuxkit import host

        try:
            tool = host.find_tool(program, why=f"for the login to {registry}", path=self._environment.get("PATH"))
        except HostError as e:
            if special:
                raise HostError(e.message, hint=f"{self._path} names it in {field}") from e
            self._say(f"{program}, the {field} of {self._path}, is not installed: going on without it")
            return None
        server = HUB_KEY if _host(registry) == "docker.io" else registry
        done = host.run([tool, "get"], stdin=server.encode(), env=self._environment or None, check=False,
                        timeout=HELPER_TIMEOUT)  # fmt: skip
        if done.returncode != 0:
            if b"not found" in done.stdout[:1000].lower():
                return None
            raise HostError(f"{program} gave no login for {registry}: exit status {done.returncode}",
                            hint=f"{self._path} names it in {field}; try: echo {server} | {program} get")  # fmt: skip
        return _answer(done.stdout, program)


def _answer(output: bytes, program: str) -> Credentials | None:
    try:
        document = read_json(output[:MAX_CONFIG])
        name, secret = document.get("Username"), document.get("Secret")
    except (ValueError, AttributeError, RecursionError):
        name = secret = None
    if not isinstance(name, str) or not isinstance(secret, str):
        raise HostError(f"{program} did not print a login")
    if name == TOKEN_USER:
        return Credentials("", "", program, identity_token=secret)
    return Credentials(name, secret, program) if name or secret else None


def _host(text: str) -> str:
    """host[:port] of a registry's name or URL; Docker Hub has one name here."""
    return canonical_registry(urlsplit(text).netloc if "://" in text else text.split("/", 1)[0])
