"""OpenStack without a cloud: Keystone v3, Glance v2, Nova v2.1 and Neutron v2.0. Strict.

It knows what has to be in a body and what may, that a token belongs to a project and ends, that an image takes one file
when it is queued, and that a server is made of what is there.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from typing import Any

from support.clouds.strict import Asked, Clock, RefusedError, Reply, Strict, of_json

USER, PASSWORD, PROJECT = "me", "geheim", "0123456789abcdef0123456789abcdef"
UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
IMAGE = {"id", "name", "disk_format", "container_format", "visibility", "min_disk", "min_ram"}
SERVER = {"name", "flavorRef", "networks", "security_groups", "metadata", "imageRef", "key_name", "user_data",
          "config_drive", "availability_zone", "block_device_mapping_v2"}  # fmt: skip


class OpenStackFake(Strict):
    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.now: Callable[[], float] = lambda: 0.0
        self.tokens: set[str] = set()
        self.logins: list[dict[str, Any]] = []
        self.regions = ["one"]
        self.address = ""  # of the services; else our own
        self.images: dict[str, dict[str, Any]] = {}
        self.files: dict[str, bytes] = {}
        self.saving = 1  # how often an image is asked for until it is active
        self.damage = False
        self.limit = -1  # MiB of images
        self.flavors = [{"id": "1", "name": "m1.tiny", "disk": 1, "ram": 512, "vcpus": 1},
                        {"id": "2", "name": "m1.none", "disk": 0, "ram": 512, "vcpus": 1}]  # fmt: skip
        self.networks = [{"id": _uuid(1), "name": "private", "router:external": False},
                         {"id": _uuid(2), "name": "public", "router:external": True}]  # fmt: skip
        self.groups = ["default", "web"]
        self.keys = ["mine"]
        self.limits = {"maxTotalInstances": 10, "totalInstancesUsed": 0, "maxTotalCores": -1, "totalCoresUsed": 5,
                       "maxTotalRAMSize": 51200, "totalRAMUsed": 0}  # fmt: skip
        self.servers: dict[str, dict[str, Any]] = {}
        self.states = ["BUILD", "BUILD", "ACTIVE", "ACTIVE", "SHUTOFF"]
        self.consoles: list[str | int] = ["Linux version\n"]
        self.fault = ""
        self.addresses: dict[str, Any] = {}
        self.gone: list[str] = []

    def error(self, refused: RefusedError) -> Reply:
        status, code, message = refused.status, refused.code, str(refused)
        if code == "glance":
            text = f"<html><head><title>{status} Bad</title></head><body><h1>Bad</h1>{message}<br /></body></html>"
            return status, {"content-type": "text/html"}, text.encode()
        if code == "neutron":
            return of_json(status, {"NeutronError": {"type": "Refused", "message": message, "detail": ""}})
        return of_json(status, {code: {"code": status, "message": message}})

    def expire(self) -> None:
        self.tokens.clear()

    def add_image(self, name: str, **more: Any) -> str:
        identity = _uuid(self.clock())
        self.images[identity] = {"id": identity, "name": name, "status": "active", "owner": PROJECT, "min_disk": 1,
                                 "min_ram": 0, "asked": 0, **more}  # fmt: skip
        return identity

    def reply(self, asked: Asked) -> Reply:
        if asked.path == "/identity/v3/auth/tokens":
            return self._login(asked)
        if asked.headers.get("x-auth-token") not in self.tokens:
            raise RefusedError(401, "error", "The request you have made requires authentication.")
        service, _, path = asked.path.strip("/").partition("/")
        if asked.body and "json" not in asked.headers.get("content-type", "") and not path.endswith("/file"):
            raise self.wrong(f"{asked.method} {asked.path}: content type")
        return {"image": self._glance, "compute": self._nova, "network": self._neutron}[service](asked, f"/{path}")

    # -- Keystone

    def _login(self, asked: Asked) -> Reply:
        self.want(asked.method == "POST" and "x-auth-token" not in asked.headers, "a login is a POST without a token")
        auth = asked.json["auth"]
        self.logins.append(auth)
        (method,) = auth["identity"]["methods"]
        proof = auth["identity"][method]
        project = auth.get("scope", {}).get("project", {})
        if method == "password":
            user = proof["user"]
            known = (user.get("name") == USER and "domain" in user) or user.get("id") == "my-id"
            good = known and user["password"] == PASSWORD
        elif method == "token":
            good = proof["id"] in self.tokens
        else:
            self.want("scope" not in auth, "an application credential has its scope")
            good = proof["secret"] == PASSWORD and (proof.get("id") == "cred" or "user" in proof)
            project = {"id": PROJECT}
        if not good:
            raise RefusedError(401, "error", "The request you have made requires authentication.")
        self.want(project.get("id") == PROJECT or "domain" in project or not project, "a project's name needs a domain")
        token = f"token-{self.clock()}"
        self.tokens.add(token)
        base = self.address or self.url
        catalog = [{"type": kind, "name": kind, "endpoints": [
            {"interface": interface, "region": region, "region_id": region, "url": f"{base}/{kind}{version}"}
            for region in self.regions for interface in ("admin", "internal", "public")
        ]} for kind, version in (("image", ""), ("compute", "/v2.1"), ("network", "/"))]  # fmt: skip
        told = {"token": {"expires_at": "2099-01-01T00:00:00.000000Z", "methods": [method], "user": {"name": USER},
                          **({"project": {"id": PROJECT}, "catalog": catalog} if project else {})}}  # fmt: skip
        status, headers, data = of_json(201, told)
        return status, {**headers, "x-subject-token": token}, data

    # -- Glance

    def _glance(self, asked: Asked, path: str) -> Reply:
        if path == "/v2/info/usage":
            if self.limit < 0:
                raise RefusedError(404, "glance", "no quotas")
            return of_json(200, {"usage": {"image_size_total": {"limit": self.limit, "usage": 1}}})
        if path == "/v2/images" and asked.method == "GET":
            return self._list(asked)
        if path == "/v2/images" and asked.method == "POST":
            body = asked.json
            self.want(IMAGE - {"min_ram"} <= set(body), f"an image without {IMAGE - set(body)}")
            self.want(all(isinstance(v, str) for k, v in body.items() if k not in IMAGE), "properties are texts")
            self.want(re.fullmatch(UUID, body["id"]), "the id of an image")
            if body["id"] in self.images:
                raise RefusedError(409, "glance", "Image ID already exists!")
            self.images[body["id"]] = {"min_ram": 0, **body, "status": "queued", "owner": PROJECT, "asked": 0}
            return of_json(201, self.images[body["id"]])
        found = re.fullmatch(rf"/v2/images/({UUID})(/file)?", path)
        if found is None:
            raise self.wrong(f"{asked.method} {path}")
        image = self.images.get(found[1])
        if image is None:
            raise RefusedError(404, "glance", "No image found with ID")
        if found[2]:
            return self._file(asked, image)
        if asked.method == "DELETE":
            del self.images[found[1]]
            self.files.pop(found[1], None)
            return 204, {}, b""
        image["asked"] += 1
        if image["status"] == "saving" and image["asked"] > self.saving:
            data = self.files[image["id"]]
            image |= {"status": "active", "size": len(data), "checksum": hashlib.md5(data).hexdigest(),
                      "os_hash_algo": "sha512", "os_hash_value": hashlib.sha512(data).hexdigest()}  # fmt: skip
        return of_json(200, image)

    def _list(self, asked: Asked) -> Reply:
        query = dict(asked.query)
        at = int(query.pop("marker", "0"))
        found = [one for one in self.images.values() if all(one.get(k) == v for k, v in query.items())]
        more = "&".join([f"{k}={v}" for k, v in query.items()] + [f"marker={at + 1}"])
        told: dict[str, Any] = {"images": found[at : at + 1], "first": "/v2/images"}  # one a page
        return of_json(200, told | ({"next": f"/v2/images?{more}"} if at + 1 < len(found) else {}))

    def _file(self, asked: Asked, image: dict[str, Any]) -> Reply:
        self.want((asked.method, asked.headers["content-type"]) == ("PUT", "application/octet-stream"), "a file is PUT")
        if image["status"] != "queued":
            raise RefusedError(409, "glance", f"Image status transition from {image['status']} to saving")
        self.files[image["id"]] = asked.body[:-1] + b"?" if self.damage else asked.body
        image["status"] = "saving"
        return 204, {}, b""

    # -- Nova

    def _nova(self, asked: Asked, path: str) -> Reply:
        self.want(path.startswith("/v2.1/"), f"Nova is at /v2.1, not {path}")
        path = path.removeprefix("/v2.1")
        if path == "/flavors/detail":
            at = int(asked.query.get("marker", "0"))
            link = {"rel": "next", "href": f"{self.url}/compute/v2.1/flavors/detail?marker={at + 1}"}
            more = {"flavors_links": [link]} if at + 1 < len(self.flavors) else {}
            return of_json(200, {"flavors": self.flavors[at : at + 1], **more})
        if path == "/limits":
            return of_json(200, {"limits": {"rate": [], "absolute": self.limits}})
        if found := re.fullmatch("/os-keypairs/(.+)", path):
            if found[1] not in self.keys:
                raise RefusedError(404, "itemNotFound", f"Keypair {found[1]} not found")
            return of_json(200, {"keypair": {"name": found[1]}})
        if path == "/servers/detail":
            return of_json(200, {"servers": [one for one in self.servers.values()
                                             if asked.query["name"] in one["name"]]})  # fmt: skip
        if path == "/servers" and asked.method == "POST":
            return self._server(asked.json["server"])
        found = re.fullmatch(rf"/servers/({UUID})(/action)?", path)
        if found is None:
            raise self.wrong(f"{asked.method} {path}")
        if found[1] not in self.servers:
            raise RefusedError(404, "itemNotFound", "Instance could not be found.")
        if found[2]:
            self.want(set(asked.json) == {"os-getConsoleOutput"}, f"the action {asked.json}")
            told = self.consoles[0] if len(self.consoles) == 1 else self.consoles.pop(0)
            if isinstance(told, int):
                raise RefusedError(told, "conflictingRequest", "Instance not ready" if told == 409 else "not here")
            return of_json(200, {"output": told})
        if asked.method == "DELETE":
            self.want(not self.addresses, "its address is removed first")
            self.gone.append("server")
            self.states = ["DELETING"]
            return 204, {}, b""
        state = self.states[0] if len(self.states) == 1 else self.states.pop(0)
        if state == "DELETING":
            return of_json(200, {"server": self.servers.pop(found[1]) | {"status": "ACTIVE"}})
        fault = {"fault": {"code": 500, "message": self.fault}} if state == "ERROR" else {}
        return of_json(200, {"server": self.servers[found[1]] | fault | {"status": state}})

    def _server(self, body: dict[str, Any]) -> Reply:
        self.want(set(body) <= SERVER, f"a server with {set(body) - SERVER}")
        self.want({"name", "flavorRef", "networks"} <= set(body), "a server without what it needs")
        self.want(body["flavorRef"] in [one["id"] for one in self.flavors], "its flavor is there")
        self.want([n["uuid"] for n in body["networks"]] == [self.networks[0]["id"]], "its network is there")
        self.want(all(g["name"] in self.groups for g in body["security_groups"]), "its security groups are there")
        volume = body.get("block_device_mapping_v2")
        image = volume[0]["uuid"] if volume else body["imageRef"]
        self.want(self.images[image]["status"] == "active", "its image is active")
        self.want(("imageRef" in body) != bool(volume), "an image or a volume")
        if volume:
            self.want(volume[0]["delete_on_termination"] is True, "its volume goes, too")
            self.want(volume[0]["boot_index"] == 0, "it starts from its volume")
        if "user_data" in body:
            base64.b64decode(body["user_data"], validate=True)
        identity = _uuid(self.clock())
        addresses = {"private": [{"addr": "10.0.0.5", "version": 4}]}
        self.servers[identity] = {"id": identity, **body, "addresses": addresses}
        return of_json(202, {"server": {"id": identity, "links": []}})

    # -- Neutron

    def _neutron(self, asked: Asked, path: str) -> Reply:
        self.want(path.startswith("/v2.0/"), f"Neutron is at /v2.0, not {path}")
        path = path.removeprefix("/v2.0")
        if path == "/networks":
            query = {k: v == "true" if v in ("true", "false") else v for k, v in asked.query.items()}
            return of_json(200, {"networks": [one for one in self.networks
                                              if all(one[k] == v for k, v in query.items())]})  # fmt: skip
        if path == "/security-groups":
            return of_json(200, {"security_groups": [{"name": g} for g in self.groups if g == asked.query["name"]]})
        if path == "/ports":
            there = asked.query["device_id"] in self.servers
            return of_json(200, {"ports": [{"id": _uuid(7)}] if there else []})
        if path == "/floatingips" and asked.method == "POST":
            body = asked.json["floatingip"]
            wanted = {"floating_network_id": self.networks[1]["id"], "port_id": _uuid(7)}
            self.want(body == wanted, f"the address {body}")
            self.addresses["1"] = body
            return of_json(201, {"floatingip": {"id": _uuid(8), "floating_ip_address": "203.0.113.9", **body}})
        self.want(path == f"/floatingips/{_uuid(8)}" and asked.method == "DELETE", f"{asked.method} {path}")
        self.addresses.clear()
        self.gone.append("address")
        return 204, {}, b""


def _uuid(number: int) -> str:
    return f"{number:08x}-0000-4000-8000-000000000000"
