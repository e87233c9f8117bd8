"""Tokens of OpenStack's Keystone, with the catalogue of services.

    POST /v3/auth/tokens   who, and for which project → X-Subject-Token, when it ends, the services' addresses

Reference: Identity API v3, "Authentication and token management".
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from linuxkit.clouds.openstack_config import MAX, Config
from linuxkit.errors import InputError, NetworkError
from linuxkit.foreign import read_json
from linuxkit.oci.transport import Transport, redact
from linuxkit.places.rest import Call

#: A token is fetched anew when it has so many seconds left.
EARLY = 60


@dataclass(frozen=True)
class Token:
    """A token, when it ends (seconds since the epoch), and what it is for."""

    text: str
    expires: float
    project: str
    catalog: tuple[Mapping[str, Any], ...]

    def __repr__(self) -> str:
        return f"Token(until {self.expires:.0f})"


class Keystone:
    """Gets tokens, and signs calls with them. Others' threads may use it, too."""

    def __init__(self, config: Config, transport: Transport, now: Callable[[], float]) -> None:
        self.config, self._transport, self._now = config, transport, now
        self._lock = threading.Lock()
        self._token: Token | None = None
        self._last = threading.local()  # each thread's own: another one may have got a new token meanwhile

    def token(self, refused: str = "") -> Token:
        """A token that is good; another one than `refused`.

        Raises:
            InputError: the login is not accepted.
            NetworkError: Keystone cannot be reached, or doesn't answer as it should.
        """
        with self._lock:
            if self._token is None or self._token.text == refused or self._token.expires - EARLY < self._now():
                self._token = self._fetch()
            return self._token

    def sign(self, call: Call) -> Mapping[str, str]:
        self._last.token = self.token().text
        return {**call.headers, "x-auth-token": self._last.token}

    def renew(self) -> bool:
        last: str = self._last.token
        return self.token(last).text != last

    def endpoint(self, service: str) -> str:
        """Where a service is: image, compute or network.

        Raises:
            InputError: the catalogue doesn't have it, or it would get the token unencrypted.
        """
        config = self.config
        url = config.overrides.get(service) or self._listed(service)
        if config.auth["auth_url"].startswith("https:") and not url.startswith("https:"):
            raise InputError(f"the catalogue of OpenStack says that {service} is at {redact(url)}, which is not https",
                             hint=f"{service}_endpoint_override in clouds.yaml names another address")  # fmt: skip
        return url.rstrip("/")

    def _listed(self, service: str) -> str:
        config = self.config
        every = [point for one in self.token().catalog if one.get("type") == service
                 for point in one.get("endpoints", ()) if point.get("interface") == config.interface]  # fmt: skip
        regions = sorted({str(point.get("region_id") or point.get("region") or "") for point in every})
        if config.region:
            here = [p for p in every if config.region in (p.get("region_id"), p.get("region"))]
            if not here:
                raise InputError(f"there is no service '{service}' in the region {config.region}",
                                 hint=f"give --region one of these: {', '.join(regions) or 'none'}")  # fmt: skip
            return str(here[0]["url"])
        if len(regions) > 1:
            raise InputError("there are several regions", hint=f"give --region one of these: {', '.join(regions)}")
        if not every:
            raise InputError(f"this login has no service '{service}' ({config.interface})", hint="it has to be for a "
                             "project: OS_PROJECT_NAME, or project_name in clouds.yaml")  # fmt: skip
        return str(every[0]["url"])

    def _fetch(self) -> Token:
        config = self.config
        url = re.sub(r"/v\d[\d.]*/*$", "", config.auth["auth_url"].rstrip("/")) + "/v3/auth/tokens"
        body = json.dumps({"auth": _auth(config)}).encode()
        headers = {"content-type": "application/json", "content-length": str(len(body))}
        with self._transport.request("POST", url, headers, body=body, follow=False) as response:
            status, data = response.status, response.read(MAX)
        try:
            found = read_json(data)
        except ValueError:
            found = {}
        if status in (401, 403, 404):
            why = str(found.get("error", {}).get("message", "")) if isinstance(found, dict) else ""
            if status == 404 and not why:
                raise InputError(f"there is no Keystone at {redact(url)}", hint=f"auth_url comes from {config.source}")
            raise InputError(f"OpenStack does not accept the login: {' '.join(why.split())[:300] or status}",
                             hint=f"it comes from {config.source}")  # fmt: skip
        try:
            if status not in (200, 201):
                raise ValueError(status)
            inner = found["token"]
            expires = datetime.fromisoformat(inner["expires_at"]).timestamp()
            return Token(response.headers["x-subject-token"], expires, str(inner.get("project", {}).get("id", "")),
                         tuple(inner.get("catalog", ())))  # fmt: skip
        except (KeyError, ValueError, TypeError, AttributeError):
            raise NetworkError(f"Keystone's answer is not understood: {redact(url)} answers {status}") from None


def _auth(config: Config) -> dict[str, Any]:
    """What is sent to Keystone: who, and what for. An application credential is for one project already."""
    auth = config.auth

    def domain(what: str) -> dict[str, str]:
        if auth.get(f"{what}_domain_id"):
            return {"id": auth[f"{what}_domain_id"]}
        if auth.get(f"{what}_domain_name"):
            return {"name": auth[f"{what}_domain_name"]}
        return {"id": auth.get("default_domain", "default")}

    user: dict[str, Any] = {"id": auth["user_id"]} if auth.get("user_id") else \
        {"name": auth.get("username"), "domain": domain("user")}  # fmt: skip
    if config.kind == "applicationcredential":
        credential: dict[str, Any] = {"secret": auth["application_credential_secret"]}
        if auth.get("application_credential_id"):
            credential["id"] = auth["application_credential_id"]
        else:
            credential |= {"name": auth["application_credential_name"], "user": user}
        return {"identity": {"methods": ["application_credential"], "application_credential": credential}}
    made: dict[str, Any]
    if config.kind == "token":
        made = {"identity": {"methods": ["token"], "token": {"id": auth["token"]}}}
    else:
        made = {"identity": {"methods": ["password"], "password": {"user": {**user, "password": auth["password"]}}}}
    if auth.get("project_id"):
        made["scope"] = {"project": {"id": auth["project_id"]}}
    elif auth.get("project_name"):
        made["scope"] = {"project": {"name": auth["project_name"], "domain": domain("project")}}
    elif auth.get("domain_id") or auth.get("domain_name"):
        name = {"id": auth["domain_id"]} if auth.get("domain_id") else {"name": auth["domain_name"]}
        made["scope"] = {"domain": name}
    elif auth.get("system_scope"):
        made["scope"] = {"system": {"all": True}}
    return made
