"""Hetzner's cloud API as far as push and run use it, strict about tokens, bodies and the order of things."""

from __future__ import annotations

import re
from typing import Any

from support.clouds.strict import Asked, Clock, RefusedError, Reply, Strict, of_json

TYPES: list[dict[str, Any]] = [
    {"name": "cx1", "architecture": "x86", "disk": 20, "deprecated": True, "price": "0.001", "where": ["fsn1"]},
    {"name": "cx23", "architecture": "x86", "disk": 40, "deprecated": False, "price": "0.006", "where": ["fsn1"]},
    {"name": "cpx11", "architecture": "x86", "disk": 40, "deprecated": False, "price": "0.007", "where": ["ash"]},
    {"name": "cax11", "architecture": "arm", "disk": 40, "deprecated": False, "price": "0.005", "where": ["fsn1"]},
]  # fmt: skip
SYSTEMS = [
    {"id": 11, "type": "system", "os_flavor": "ubuntu", "architecture": "x86", "deprecated": None},
    {"id": 12, "type": "system", "os_flavor": "debian", "architecture": "x86", "deprecated": None},
    {"id": 13, "type": "system", "os_flavor": "debian", "architecture": "x86", "deprecated": "2025-01-01T00:00:00Z"},
    {"id": 14, "type": "system", "os_flavor": "debian", "architecture": "arm", "deprecated": None},
]
LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
SERVER_KEYS = {"name", "server_type", "image", "location", "start_after_create", "ssh_keys", "labels", "user_data"}


class Hetzner(Strict):
    """A project. An action is running when it is first looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.token = "geheim"
        self.next = Clock()
        self.servers: dict[int, dict[str, Any]] = {}
        self.keys: dict[int, dict[str, Any]] = {}
        self.images: dict[int, dict[str, Any]] = {}
        self.actions: dict[int, dict[str, Any]] = {}
        self.limit = 10
        self.sold_out: set[str] = set()
        self.fails: set[str] = set()  # actions that end in an error
        self.off_after = 3  # looks at a running server until it is off

    def error(self, refused: RefusedError) -> Reply:
        return of_json(refused.status, {"error": {"code": refused.code, "message": refused.message}})

    def reply(self, asked: Asked) -> Reply:
        if asked.headers.get("authorization") != f"Bearer {self.token}":
            raise RefusedError(401, "unauthorized", "unable to authenticate")
        if asked.body:
            self.want(asked.headers.get("content-type") == "application/json", "a POST that is no JSON")
        parts = asked.path.strip("/").split("/")
        self.want(parts.pop(0) == "v1", f"no path of the API: {asked.path}")
        endings = ("", "_one", "_one_action", "_one_action")
        method = getattr(self, f"{asked.method.lower()}_{parts[0]}{endings[len(parts) - 1]}", None)
        if method is None:
            raise self.wrong(f"there is no {asked.method} {asked.path}")
        answer: Reply = method(asked, *parts[1:])
        return answer

    # -- what is there

    def get_server_types(self, asked: Asked) -> Reply:
        shown = [{**{k: t[k] for k in ("name", "architecture", "disk", "deprecated")}, "prices": [
            {"location": w, "price_hourly": {"net": t["price"], "gross": t["price"]}} for w in t["where"]]}
            for t in TYPES]  # fmt: skip
        page = int(asked.query["page"])
        self.want(asked.query["per_page"] == "50", "per_page is 50 at most")
        here, following = (shown[:2], 2) if page == 1 else (shown[2:], None)
        return of_json(200, {"server_types": here, "meta": _pages(page, following)})

    def get_images(self, asked: Asked) -> Reply:
        found = [*SYSTEMS, *self.images.values()]
        if asked.query.get("type"):
            found = [i for i in found if i["type"] == asked.query["type"]]
        if asked.query.get("architecture"):
            found = [i for i in found if i["architecture"] == asked.query["architecture"]]
        for wanted in filter(None, asked.query.get("label_selector", "").split(",")):
            key, _, value = wanted.partition("=")
            found = [i for i in found if i.get("labels", {}).get(key) == value]
        return of_json(200, {"images": found, "meta": _pages(1, None)})

    def get_images_one(self, asked: Asked, number: str) -> Reply:
        image = self._known(self.images, number)
        if image["status"] == "creating":
            image["status"] = "available"
            return of_json(200, {"image": image | {"status": "creating"}})
        return of_json(200, {"image": image})

    def get_ssh_keys(self, asked: Asked) -> Reply:
        return of_json(200, {"ssh_keys": [k for k in self.keys.values() if k["name"] == asked.query.get("name")]})

    def get_servers(self, asked: Asked) -> Reply:
        return of_json(200, {"servers": [s for s in self.servers.values() if s["name"] == asked.query.get("name")]})

    def get_servers_one(self, asked: Asked, number: str) -> Reply:
        server = self._known(self.servers, number)
        server["looks"] += 1
        if server["looks"] > self.off_after:
            server["status"] = "off"
        return of_json(200, {"server": server})

    def get_actions_one(self, asked: Asked, number: str) -> Reply:
        action = self._known(self.actions, number)
        failed = action["command"] in self.fails
        action["status"] = "error" if failed else "success"
        action["error"] = {"code": "server_error", "message": "it went wrong"} if failed else None
        return of_json(200, {"action": action})

    # -- what is made

    def post_ssh_keys(self, asked: Asked) -> Reply:
        body = asked.json
        self.want(set(body) <= {"name", "public_key", "labels"}, f"unknown fields of a key: {sorted(body)}")
        self.want(body["public_key"].startswith("ssh-ed25519 AAAA"), "no public key")
        self._labels(body)
        self._free(self.keys, body["name"])
        key = {"id": self.next(), **body}
        self.keys[key["id"]] = key
        return of_json(201, {"ssh_key": key})

    def post_servers(self, asked: Asked) -> Reply:
        body = asked.json
        self.want(set(body) <= SERVER_KEYS, f"unknown fields of a server: {sorted(set(body) - SERVER_KEYS)}")
        self.want(re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", body["name"]), f"no host name: {body['name']}")
        self._labels(body)
        self._free(self.servers, body["name"])
        if len(self.servers) >= self.limit:
            raise RefusedError(403, "resource_limit_exceeded", "server limit reached")
        type_ = next((t for t in TYPES if t["name"] == body["server_type"]), None)
        self.want(type_ is not None, f"no server type {body['server_type']}")
        image = next((i for i in [*SYSTEMS, *self.images.values()] if i["id"] == body["image"]), None)
        self.want(image is not None, f"no image {body['image']!r}")
        assert image is not None and type_ is not None
        self.want(image["architecture"] == type_["architecture"], "image and server type differ in architecture")
        if body.get("location") not in (None, *type_["where"]) or type_["name"] in self.sold_out:
            raise RefusedError(412, "resource_unavailable", "server type is not available there")
        known = {k["id"] for k in self.keys.values()} | {k["name"] for k in self.keys.values()}
        self.want(set(body.get("ssh_keys", ())) <= known, f"unknown keys: {body.get('ssh_keys')}")
        starts = body.get("start_after_create", True)
        address = {"id": self.next(), "ip": "127.0.0.1", "blocked": False, "dns_ptr": "static.example"}
        server = {
            "id": self.next(), "name": body["name"], "status": "running" if starts else "off", "looks": 0,
            "labels": body["labels"], "rescue": False, "image": image,
            "public_net": {"ipv4": address, "ipv6": None, "floating_ips": [], "firewalls": []},
            "user_data": body.get("user_data"), "server_type": {"name": body["server_type"]},
        }  # fmt: skip
        self.servers[server["id"]] = server
        later = [self._action("start_server")] if starts else []
        return of_json(201, {"server": server, "action": self._action("create_server"), "next_actions": later,
                             "root_password": None})  # fmt: skip

    def post_servers_one_action(self, asked: Asked, number: str, word: str, what: str) -> Reply:
        self.want(word == "actions", f"no path: {asked.path}")
        server, body = self._known(self.servers, number), asked.json
        self.want(not self._running(), f"{what} before the action before it was over")
        extra: dict[str, Any] = {}
        if what == "enable_rescue":
            self.want(body["type"] == "linux64" and set(body["ssh_keys"]) <= set(self.keys), f"no rescue: {body}")
            server["rescue"] = True
            extra["root_password"] = "zufall"
        elif what in ("poweron", "poweroff") and body:
            raise self.wrong(f"{what} takes nothing")
        elif what == "poweron":
            self.want(server["status"] == "off", "it is on already")
            server["status"] = "running"
            server["rescued"] = server["rescue"]
        elif what == "poweroff":
            self.want(server["status"] == "running", "it is off already")
            server["status"] = "off"
        elif what == "create_image":
            self.want(server["status"] == "off", "a snapshot of a disk that is in use")
            self.want(set(body) == {"type", "description", "labels"} and body["type"] == "snapshot", f"fields: {body}")
            self._labels(body)
            image = {"id": self.next(), "status": "creating", "architecture": server["image"]["architecture"],
                     "disk_size": 40, "created": "2026-01-01T00:00:00Z", **body}  # fmt: skip
            self.images[image["id"]] = image
            extra["image"] = image
        else:
            raise self.wrong(f"there is no action {what}")
        return of_json(201, {"action": self._action(what), **extra})

    # -- what is removed

    def delete_servers_one(self, asked: Asked, number: str) -> Reply:
        self._known(self.servers, number)
        del self.servers[int(number)]
        return of_json(200, {"action": self._action("delete_server")})

    def delete_ssh_keys_one(self, asked: Asked, number: str) -> Reply:
        self._known(self.keys, number)
        del self.keys[int(number)]
        return 204, {}, b""

    def delete_images_one(self, asked: Asked, number: str) -> Reply:
        self._known(self.images, number)
        del self.images[int(number)]
        return 204, {}, b""

    # -- all of them

    def _known(self, things: dict[int, dict[str, Any]], number: str) -> dict[str, Any]:
        if not number.isdigit():
            raise RefusedError(422, "invalid_input", f"no number: {number}")
        if int(number) not in things:
            raise RefusedError(404, "not_found", "not found")
        return things[int(number)]

    def _free(self, things: dict[int, dict[str, Any]], name: str) -> None:
        if any(t["name"] == name for t in things.values()):
            raise RefusedError(409, "uniqueness_error", "name is already used")

    def _labels(self, body: dict[str, Any]) -> None:
        for key, value in body["labels"].items():
            self.want(LABEL.fullmatch(key) and LABEL.fullmatch(value), f"no label: {key}={value}")

    def _action(self, command: str) -> dict[str, Any]:
        action = {"id": self.next(), "command": command, "status": "running", "error": None, "progress": 0,
                  "started": "2026-01-01T00:00:00Z", "finished": None, "resources": []}  # fmt: skip
        self.actions[action["id"]] = action
        return dict(action)

    def _running(self) -> bool:
        return any(a["status"] == "running" and a["command"] != "delete_server" for a in self.actions.values())


def _pages(page: int, following: int | None) -> dict[str, Any]:
    return {"pagination": {"page": page, "per_page": 50, "previous_page": None, "next_page": following,
                           "last_page": None, "total_entries": None}}  # fmt: skip
