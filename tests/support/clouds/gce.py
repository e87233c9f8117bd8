"""Google, strict: tokens for signed requests, Compute Engine with operations and quotas; storage is fake-gcs-server's.

    with Gce(storage.url) as google:
        google.write_keys(path)                   # the key file of a service account that it knows
        google.spoil("/global/images", 403)       # as the proxy that it is

What stands between the client and fake-gcs-server checks what that doesn't: the login, the order of an upload's chunks
and that nothing but its address is used for it, permissions. It tells how much of an upload is there, which that can't.
"""

from __future__ import annotations

import base64
import http.client
import json
import re
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from support.clouds.proxy import Proxy, _Handler

PROJECT, ZONE, REGION = "acme", "europe-west1-d", "europe-west1"
EMAIL = "builder@acme.iam.gserviceaccount.com"
SCOPE = "https://www.googleapis.com/auth/cloud-platform"
KEY = rsa.generate_private_key(65537, 2048)
PEM = KEY.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
IMAGE_KEYS = {"name", "description", "rawDisk", "labels", "architecture", "family", "licenses", "guestOsFeatures"}
INSTANCE_KEYS = {"name", "machineType", "disks", "networkInterfaces", "metadata", "scheduling", "minCpuPlatform",
                 "advancedMachineFeatures", "shieldedInstanceConfig"}  # fmt: skip


class Gce(Proxy):
    """See the module. What is there: `images` and `instances` by name."""

    def __init__(self, storage: str) -> None:
        super().__init__(storage)
        self.RequestHandlerClass = GceHandler
        self.tokens: set[str] = set()
        self.given = 0
        self.images: dict[str, dict[str, Any]] = {}
        self.instances: dict[str, dict[str, Any]] = {}
        self.operations: dict[str, dict[str, Any]] = {}
        self.requests: dict[str, dict[str, Any]] = {}  # by requestId
        self.uploads: dict[str, int] = {}  # bytes that are there, by upload_id
        self.cancelled: list[str] = []
        self.cut_short = 0  # so many bytes of the next chunk are all that arrives
        self.quotas = {"IMAGES": [0, 10], "INSTANCES": [0, 10], "CPUS": [0, 10]}
        self.denied: set[str] = set()
        self.uniform = False
        self.fail_operation = ""  # the code with which the next operation ends
        self.lives_for = 0  # tokens that are given are good for so many requests; 0: for ever
        self.uses: dict[str, int] = {}
        self.console: list[tuple[str, str]] = []  # (what is written, the status with it), one for each look
        self.shown = ""

    def write_keys(self, path: Path, **more: object) -> Path:
        path.write_text(json.dumps({
            "type": "service_account", "project_id": PROJECT, "private_key_id": "key-1", "private_key": PEM.decode(),
            "client_email": EMAIL, "token_uri": f"{self.url}/token", **more}))  # fmt: skip
        return path

    def environment(self, keys: Path) -> dict[str, str]:
        return {"GOOGLE_APPLICATION_CREDENTIALS": str(keys), "CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE": self.url,
                "CLOUDSDK_API_ENDPOINT_OVERRIDES_STORAGE": self.url,
                "CLOUDSDK_API_ENDPOINT_OVERRIDES_CLOUDRESOURCEMANAGER": self.url}  # fmt: skip

    # -- tokens

    def grant(self, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
        kind = form.get("grant_type", "")
        if kind == "refresh_token":
            good = (form.get("client_id"), form.get("client_secret"), form.get("refresh_token")) == ("id", "se", "re")
        elif kind == "urn:ietf:params:oauth:grant-type:token-exchange":
            good = form.get("subject_token") == "their-token" and form.get("audience") == "//iam/pool" \
                and form.get("scope") == SCOPE \
                and form.get("requested_token_type") == "urn:ietf:params:oauth:token-type:access_token" \
                and form.get("subject_token_type") == "urn:ietf:params:oauth:token-type:jwt"  # fmt: skip
        elif kind == "urn:ietf:params:oauth:grant-type:jwt-bearer":
            good = self._signed(form.get("assertion", ""))
        else:
            return 400, {"error": "unsupported_grant_type"}
        if not good:
            return 400, {"error": "invalid_grant", "error_description": "Invalid JWT Signature."}
        return 200, {"access_token": self.issue(), "expires_in": 3599, "token_type": "Bearer"}

    def issue(self) -> str:
        self.given += 1
        token = f"token-{self.given}"
        self.tokens.add(token)
        return token

    def _signed(self, assertion: str) -> bool:
        head, claims, signature = assertion.split(".")
        try:
            KEY.public_key().verify(_decode(signature), f"{head}.{claims}".encode(), padding.PKCS1v15(),
                                    hashes.SHA256())  # fmt: skip
        except InvalidSignature:
            return False
        said, now = json.loads(_decode(claims)), time.time()
        return json.loads(_decode(head)) == {"alg": "RS256", "typ": "JWT", "kid": "key-1"} and (
            said["iss"], said["scope"], said["aud"]) == (EMAIL, SCOPE, f"{self.url}/token") \
            and abs(said["iat"] - now) < 60 and said["exp"] - said["iat"] == 3600  # fmt: skip

    # -- Compute Engine

    def operate(self, key: str, query: dict[str, str], target: str, done: Any) -> dict[str, Any]:
        """Begin an operation, once for a request's id."""
        wanted = query["requestId"]
        assert re.fullmatch(r"[0-9a-f-]{36}", wanted)
        if wanted in self.requests:
            return self.requests[wanted]
        name = f"operation-{len(self.operations) + 1}"
        made: dict[str, Any] = {"kind": "compute#operation", "name": name, "status": "PENDING", "targetLink": target,
                                "done": done, "polls": 0}  # fmt: skip
        if key.startswith("/zones/"):
            made["zone"] = f"{self.url}/compute/v1/projects/{PROJECT}/zones/{ZONE}"
        if self.fail_operation:
            made["failure"], self.fail_operation = self.fail_operation, ""
        self.operations[name] = self.requests[wanted] = made
        return made

    def poll(self, name: str) -> dict[str, Any]:
        operation = self.operations[name]
        operation["polls"] += 1
        operation["status"] = "RUNNING" if operation["polls"] == 1 else "DONE"
        if operation["status"] == "DONE" and not operation.get("over"):
            operation["over"] = True
            if "failure" in operation:
                operation["error"] = {"errors": [{"code": operation["failure"], "message": "It did not work."}]}
            else:
                operation["done"]()
        return operation


class GceHandler(_Handler):
    server: Gce

    def _pass(self, body: bytes) -> None:
        parts = urlsplit(self.path)
        query = {k: v[-1] for k, v in parse_qs(parts.query, keep_blank_values=True).items()}
        if parts.path == "/token":
            return self._json(*self.server.grant({k: v[0] for k, v in parse_qs(body.decode()).items()}))
        if "upload_id" in query:
            return self._chunk(query["upload_id"], body)
        token = self.headers.get("authorization", "").removeprefix("Bearer ")
        uses = self.server.uses[token] = self.server.uses.get(token, 0) + 1
        if token not in self.server.tokens or 0 < self.server.lives_for < uses:
            return self._error(401, "authError", "Invalid Credentials")
        if parts.path == "/impersonate":
            assert json.loads(body)["scope"] == [SCOPE]
            return self._json(200, {"accessToken": self.server.issue(), "expireTime": "2100-01-01T00:00:00Z"})
        if parts.path.endswith("/iam/testPermissions"):
            asked = parse_qs(parts.query)["permissions"]
            if not self._exists(parts.path.partition("/iam/")[0]):
                return self._error(404, "notFound", "The specified bucket does not exist.")
            return self._json(200, {"permissions": [p for p in asked if p not in self.server.denied]})
        if parts.path == f"/v1/projects/{PROJECT}:testIamPermissions":
            return self._json(200, {"permissions": [p for p in json.loads(body)["permissions"]
                                                    if p not in self.server.denied]})  # fmt: skip
        if re.fullmatch("/storage/v1/b/[^/]+", parts.path) and self.command == "GET" and self.server.uniform:
            return self._json(200, {"iamConfiguration": {"uniformBucketLevelAccess": {"enabled": True}}})
        base = f"/compute/v1/projects/{PROJECT}"
        if parts.path.startswith(base):
            return self._compute(parts.path.removeprefix(base), query, body)
        if parts.path.startswith("/compute/"):
            return self._error(404, "notFound", "The resource was not found")
        if not parts.path.startswith(("/storage/v1/", "/upload/storage/v1/")):
            return self._error(404, "notFound", parts.path)
        if query.get("uploadType") == "resumable":
            assert self.headers["x-upload-content-length"].isdigit()
            assert self.headers["x-upload-content-type"] == json.loads(body)["contentType"]
        return super()._pass(body)

    # -- uploads

    def _chunk(self, upload: str, body: bytes) -> None:
        server = self.server
        assert "authorization" not in self.headers
        if upload not in server.uploads:
            return self._error(404, "notFound", "No such upload")
        if self.command == "DELETE":
            server.cancelled.append(upload)
            del server.uploads[upload]
            return self._reply(499, b"", {})
        there = server.uploads[upload]
        found = re.fullmatch(r"bytes (?:(\d+)-(\d+)|\*)/(\d+)", self.headers["content-range"])
        assert found is not None
        if found[1] is None and int(found[3]) != 0:
            return self._so_far(there)
        start, end, size = int(found[1] or 0), int(found[2] or -1), int(found[3])
        if start != there or end - start + 1 != len(body) or (end + 1 < size and len(body) % (256 << 10)):
            return self._error(400, "invalid", f"Invalid request: {found[0]} with {len(body)} bytes after {there}")
        if server.cut_short and len(body) > server.cut_short:
            body, server.cut_short = body[: server.cut_short], 0
            end = start + len(body) - 1
            self.headers.replace_header("content-length", str(len(body)))
            self.headers.replace_header("content-range", f"bytes {start}-{end}/{size}")
        server.uploads[upload] = end + 1
        return super()._pass(body)

    def _so_far(self, there: int) -> None:
        self._reply(308, b"", {"range": f"bytes=0-{there - 1}"} if there else {})

    def _reply(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        if "upload_id=" in headers.get("location", ""):  # what goes there has to come through here
            headers = dict(headers)
            place = urlsplit(headers.pop("location"))
            headers["location"] = f"{self.server.url}{place.path}?{place.query}"
            self.server.uploads.setdefault(parse_qs(place.query)["upload_id"][0], 0)
        super()._reply(status, body, headers)

    def _exists(self, path: str) -> bool:
        there = http.client.HTTPConnection(urlsplit(self.server.target).netloc, timeout=60)
        there.request("GET", path)
        status = there.getresponse().status
        there.close()
        return status == 200

    # -- Compute Engine

    def _compute(self, path: str, query: dict[str, str], body: bytes) -> None:
        server, zone = self.server, f"/zones/{ZONE}"
        sent = json.loads(body) if body else None
        if self.command == "GET" and path == "":
            quotas = [{"metric": "IMAGES", "usage": server.quotas["IMAGES"][0], "limit": server.quotas["IMAGES"][1]}]
            return self._json(200, {"kind": "compute#project", "name": PROJECT, "quotas": quotas})
        if self.command == "GET" and path == f"/regions/{REGION}":
            return self._json(200, {"kind": "compute#region", "name": REGION, "quotas": [
                {"metric": m, "usage": server.quotas[m][0], "limit": server.quotas[m][1]} for m in ("CPUS", "INSTANCES")
            ]})  # fmt: skip
        if self.command == "GET" and path == zone:
            return self._json(200, {"name": ZONE, "region": f"https://www.googleapis.com/x/regions/{REGION}"})
        if self.command == "GET" and path == f"{zone}/machineTypes/g1-small":
            return self._json(200, {"name": "g1-small", "guestCpus": 1})
        if found := re.fullmatch(rf"(?:/global|{zone})/operations/([\w-]+)", path):
            operation = server.poll(found[1])
            assert path.startswith(zone) == ("zone" in operation)
            return self._operation(operation)
        if found := re.fullmatch(r"/global/images/family/([\w-]+)", path):
            of_it = [i for i in server.images.values() if i.get("family") == found[1]]
            return self._json(200, of_it[-1]) if of_it else self._missing(path)
        if found := re.fullmatch(rf"(/global/images|{zone}/instances)(?:/([\w-]+))?(/serialPort)?", path):
            return self._resource(found[1], found[2] or "", bool(found[3]), query, sent)
        return self._missing(path)

    def _resource(self, kind: str, name: str, serial: bool, query: dict[str, str], sent: Any) -> None:
        server = self.server
        of = server.images if kind.endswith("images") else server.instances
        if self.command == "POST" and not name:
            known = IMAGE_KEYS if of is server.images else INSTANCE_KEYS
            if set(sent) - known or not re.fullmatch("[a-z]([-a-z0-9]{0,61}[a-z0-9])?", sent["name"]):
                return self._error(400, "invalid", f"Invalid value: {sorted(set(sent) - known)}")
            if query["requestId"] not in server.requests and sent["name"] in of:
                return self._error(409, "alreadyExists", f"The resource '{sent['name']}' already exists")
            wrong = self._wrong_image(sent) if of is server.images else self._wrong_instance(sent)
            if wrong:
                return self._error(400, "invalid", wrong)
            link = f"{server.url}/compute/v1/projects/{PROJECT}{kind}/{sent['name']}"
            state = {"status": "READY"} if of is server.images else {"status": "RUNNING"}
            made = {**sent, **state, "selfLink": link}
            return self._operation(server.operate(kind, query, link, lambda: of.__setitem__(made["name"], made)))
        if name not in of:
            return self._missing(f"{kind}/{name}")
        if self.command == "DELETE":
            return self._operation(server.operate(kind, query, name, lambda: of.pop(name, None)))
        if serial:
            assert query["port"] == "1"
            start = int(query["start"])
            if server.console and start >= len(server.shown):
                text, of[name]["status"] = server.console.pop(0)
                server.shown += text
            return self._json(200, {"contents": server.shown[start:], "start": str(start),
                                    "next": str(len(server.shown))})  # fmt: skip
        return self._json(200, of[name])

    def _wrong_image(self, sent: dict[str, Any]) -> str:
        source = urlsplit(sent["rawDisk"]["source"])
        bucket, _, name = source.path.strip("/").partition("/")
        if source.netloc != "storage.googleapis.com" or not self._exists(f"/storage/v1/b/{bucket}/o/{name}"):
            return f"The object {source.path} is not there"
        for key, value in sent.get("labels", {}).items():
            if not re.fullmatch("[a-z][-_a-z0-9]{0,62}", key) or not re.fullmatch("[-_a-z0-9]{0,63}", value):
                return f"Invalid label {key}: {value}"
        return ""

    def _wrong_instance(self, sent: dict[str, Any]) -> str:
        boot = [d for d in sent["disks"] if d.get("boot")]
        image = urlsplit(boot[0]["initializeParams"]["sourceImage"]).path.rpartition("/")[2]
        if len(boot) != 1 or image not in self.server.images:
            return "there has to be one disk that boots, of an image that is there"
        if not all(d["autoDelete"] for d in sent["disks"]):
            return "a disk would stay behind"
        if sent["machineType"] != f"zones/{ZONE}/machineTypes/g1-small":
            return "Invalid machineType"
        return ""

    # -- answers

    def _operation(self, operation: dict[str, Any]) -> None:
        kept = {k: v for k, v in operation.items() if k not in ("done", "polls", "over", "failure")}
        self._json(200, kept)

    def _missing(self, what: str) -> None:
        self._error(404, "notFound", f"The resource 'projects/{PROJECT}{what}' was not found")

    def _error(self, status: int, reason: str, message: str) -> None:
        self._json(status, {"error": {"code": status, "message": message, "errors": [{"reason": reason}]}})

    def _json(self, status: int, found: Any) -> None:
        self._reply(status, json.dumps(found).encode(), {"content-type": "application/json; charset=UTF-8"})


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
