"""Equinix Metal, strict, and a server beside it that takes and gives files.

    /metal/v1/…     the API: the token, the bodies and the states a device goes through
    /files/…        PUT with a bearer token, GET and HEAD without
"""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

from support.clouds.proxy import Proxy, _Handler

TOKEN, PROJECT = "metal-token", "project-1"
KEYS = {"hostname", "plan", "metro", "facility", "operating_system", "billing_cycle", "ipxe_script_url", "always_pxe",
        "userdata"}  # fmt: skip


class Equinix(Proxy):
    """See the module."""

    def __init__(self) -> None:
        super().__init__("http://127.0.0.1:9")
        self.RequestHandlerClass = EquinixHandler
        self.files: dict[str, bytes] = {}
        self.devices: dict[str, dict[str, Any]] = {}
        self.states = ["queued", "queued", "provisioning"]  # what a new device is, look after look
        self.fixed = 0  # so often a device can't be removed
        self.rebooted: list[str] = []

    @property
    def api(self) -> str:
        return f"{self.url}/metal/v1"

    @property
    def base(self) -> str:
        return f"{self.url}/files"


class EquinixHandler(_Handler):
    server: Equinix

    def _pass(self, body: bytes) -> None:
        server, parts = self.server, urlsplit(self.path)
        if parts.path.startswith("/files/"):
            return self._files(parts.path.removeprefix("/files/"), body)
        if self.headers.get("x-auth-token") != TOKEN:
            return self._json(401, {"errors": ["Invalid authentication token"]})
        path, sent = parts.path.removeprefix("/metal/v1"), json.loads(body) if body else None
        if path == f"/projects/{PROJECT}/plans" and self.command == "GET":
            return self._json(200, {"plans": [{"slug": "baremetal_0"}, {"slug": "c3.large.arm64"}]})
        if path == f"/projects/{PROJECT}/devices" and self.command == "POST":
            if set(sent) - KEYS or sent["operating_system"] != "custom_ipxe" or sent["billing_cycle"] != "hourly" \
                    or ("metro" in sent) == ("facility" in sent) or not isinstance(sent["always_pxe"], bool) \
                    or not re.fullmatch("[a-z0-9.-]+", sent["hostname"]):  # fmt: skip
                return self._json(422, {"errors": [f"not acceptable: {sorted(sent)}"]})
            name = sent["ipxe_script_url"].removeprefix(f"{server.base}/")
            if name not in server.files:
                return self._json(422, {"errors": [f"no script at {sent['ipxe_script_url']}"]})
            identity = f"device-{len(server.devices) + 1}"
            server.devices[identity] = {**sent, "id": identity, "looks": 0, "facility": {"code": "ams1"}}
            return self._json(201, {"id": identity, "state": "queued"})
        found = re.fullmatch(r"/devices/([\w-]+)(/actions)?", path)
        if found is None or found[1] not in server.devices:
            return self._json(404, {"errors": ["Not found"]})
        device = server.devices[found[1]]
        if found[2] and sent == {"type": "reboot"}:
            server.rebooted.append(found[1])
            return self._reply(202, b"", {})
        if self.command == "DELETE":
            assert parse_qs(parts.query) == {"force_delete": ["true"]}
            if server.fixed:
                server.fixed -= 1
                return self._json(422, {"errors": ["Cannot delete a device while it is provisioning"]})
            del server.devices[found[1]]
            return self._reply(204, b"", {})
        if self.command == "PUT":
            if set(sent) - {"ipxe_script_url", "always_pxe", "userdata"}:
                return self._json(422, {"errors": ["not acceptable"]})
            device.update(sent)
        else:
            device["state"] = server.states[min(device["looks"], len(server.states) - 1)]
            device["looks"] += 1
        return self._json(200, device)

    def _files(self, name: str, body: bytes) -> None:
        files = self.server.files
        if self.command == "PUT":
            if self.headers.get("authorization") != "Bearer geheim":
                return self._reply(401, b"", {})
            files[name] = body
            return self._reply(201, b"", {})
        return self._reply(200, files[name], {}) if name in files else self._reply(404, b"", {})

    def _json(self, status: int, found: Any) -> None:
        self._reply(status, json.dumps(found).encode(), {"content-type": "application/json"})
