"""Scaleway's API and object storage as far as push and run use them, strict about logins, signatures, bodies, order."""

from __future__ import annotations

import hashlib
import uuid
from typing import Any

from botocore.auth import S3SigV4Auth  # type: ignore[import-untyped, unused-ignore]
from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped, unused-ignore]
from botocore.credentials import Credentials  # type: ignore[import-untyped, unused-ignore]

from support.clouds.strict import Asked, RefusedError, Reply, Strict, of_json

ACCESS, SECRET = "SCWXXXXXXXXXXXXXXXXX", "11111111-2222-3333-4444-555555555555"
PROJECT = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"
TYPES = {"DEV1-S": {"arch": "x86_64"}, "COPARM1-2C-8G": {"arch": "arm64"}}
LOOKS = 2  # until something that is being made is there


class Store(Strict):
    """Object storage of one region. The signatures are computed anew, by botocore."""

    def __init__(self) -> None:
        super().__init__()
        self.buckets: dict[str, dict[str, bytes]] = {}
        self.uploads: dict[str, dict[int, bytes]] = {}

    def error(self, refused: RefusedError) -> Reply:
        body = f"<Error><Code>{refused.code}</Code><Message>{refused.message}</Message></Error>"
        return refused.status, {"content-type": "application/xml"}, body.encode()

    def reply(self, asked: Asked) -> Reply:
        self._check(asked)
        bucket, _, key = asked.path.lstrip("/").partition("/")
        if not key:
            return self._bucket(asked, bucket)
        if bucket not in self.buckets:
            raise RefusedError(404, "NoSuchBucket", "no such bucket")
        if asked.method == "POST" and "uploads" in asked.query:
            self.uploads["u1"] = {}
            return 200, {}, b'<R xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><UploadId>u1</UploadId></R>'
        if "uploadId" in asked.query:
            return self._part(asked, bucket, key)
        if asked.method == "PUT":
            self.buckets[bucket][key] = asked.body
            return 200, {"etag": '"x"'}, b""
        if asked.method == "HEAD":
            return 200 if key in self.buckets[bucket] else 404, {}, b""
        self.want(asked.method == "DELETE", f"{asked.method} of an object")
        self.buckets[bucket].pop(key, None)
        return 204, {}, b""

    def _bucket(self, asked: Asked, bucket: str) -> Reply:
        if asked.method == "PUT":
            self.want(b"<LocationConstraint>fr-par</LocationConstraint>" in asked.body, "a bucket without a region")
            if bucket in self.buckets:
                raise RefusedError(409, "BucketAlreadyExists", "taken")
            self.buckets[bucket] = {}
            return 200, {}, b""
        if bucket not in self.buckets:
            raise RefusedError(404, "NoSuchBucket", "no such bucket")
        if asked.method == "DELETE":
            if self.buckets[bucket] or self.uploads:
                raise RefusedError(409, "BucketNotEmpty", "not empty")
            del self.buckets[bucket]
            return 204, {}, b""
        self.want(asked.method == "GET" and asked.query["list-type"] == "2", f"{asked.method} of a bucket")
        return 200, {}, b""

    def _part(self, asked: Asked, bucket: str, key: str) -> Reply:
        parts = self.uploads[asked.query["uploadId"]]
        if asked.method == "PUT":
            number = int(asked.query["partNumber"])
            parts[number] = asked.body
            return 200, {"etag": f'"{hashlib.md5(asked.body).hexdigest()}"'}, b""
        del self.uploads[asked.query["uploadId"]]
        if asked.method == "DELETE":
            return 204, {}, b""
        for number, data in parts.items():
            tag = f"<PartNumber>{number}</PartNumber><ETag>\"{hashlib.md5(data).hexdigest()}\"</ETag>"
            self.want(tag in asked.body.decode(), f"part {number} is not named")
            self.want(len(data) >= 5 << 20 or number == max(parts), "a part that is too small")
        self.buckets[bucket][key] = b"".join(parts[n] for n in sorted(parts))
        return 200, {}, b"<CompleteMultipartUploadResult/>"

    def _check(self, asked: Asked) -> None:
        said = asked.headers.get("authorization", "")
        fields = dict(f.strip().split("=", 1) for f in said.removeprefix("AWS4-HMAC-SHA256").split(",") if "=" in f)
        if not fields:
            raise RefusedError(403, "AccessDenied", "no signature")
        digest = hashlib.sha256(asked.body).hexdigest()
        self.want(asked.headers.get("x-amz-content-sha256") == digest, "the body's digest is wrong")
        request = AWSRequest(method=asked.method, url=f"{self.url}{asked.raw_path}", data=asked.body)
        for name in fields["SignedHeaders"].split(";"):
            request.headers[name] = asked.headers[name]
        request.context["timestamp"] = asked.headers["x-amz-date"]
        signer = S3SigV4Auth(Credentials(ACCESS, SECRET), "s3", "fr-par")
        expected = signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request)
        key, _, scope = fields["Credential"].partition("/")
        if key != ACCESS or scope.split("/")[1:] != ["fr-par", "s3", "aws4_request"] or fields["Signature"] != expected:
            raise RefusedError(403, "SignatureDoesNotMatch", "the signature is wrong")


class Scaleway(Strict):
    """One project in fr-par-1."""

    def __init__(self, store: Store) -> None:
        super().__init__()
        self.store = store
        self.secret = SECRET
        self.things: dict[str, dict[str, dict[str, Any]]] = {
            "snapshots": {}, "images": {}, "servers": {}, "volumes": {}}  # fmt: skip
        self.data: dict[str, bytes] = {}
        self.quota: set[str] = set()  # what there may be no more of
        self.broken = False  # imports end in an error
        self.off_after = 1000  # looks at a running instance

    def error(self, refused: RefusedError) -> Reply:
        details = [{"resource": "x", "quota": 1}] if refused.code == "quotas_exceeded" else []
        return of_json(refused.status, {"type": refused.code, "message": refused.message, "details": details})

    def reply(self, asked: Asked) -> Reply:
        if asked.headers.get("x-auth-token") != self.secret:
            raise RefusedError(401, "denied_authentication", "authentication is denied")
        parts = asked.path.strip("/").split("/")
        self.want(parts[1:4] == ["v1", "zones", "fr-par-1"], f"no such path: {asked.path}")
        folder, more = f"{parts[0]}_{parts[4]}", parts[5:]
        if parts[0] == "block" and parts[4] in ("snapshots", "volumes"):
            return self._block(asked, parts[4], more)
        if folder == "instance_products":
            return of_json(200, {"servers": TYPES})
        self.want(folder in ("instance_images", "instance_servers"), f"no such path: {asked.path}")
        if asked.method == "GET" and not more:
            part = asked.query["name"]  # of a name
            found = [t for t in self.things[parts[4]].values() if part in t["name"]]
            return of_json(200, {parts[4]: found})
        if not more:
            return self._image(asked.json) if parts[4] == "images" else self._server(asked.json)
        thing = self._known(parts[4], more[0])
        if more[1:2] == ["action"]:
            return self._action(thing, asked)
        if more[1:] == ["user_data", "cloud-init"]:
            self.want(asked.method == "PATCH" and asked.headers["content-type"] == "text/plain", "no user data")
            self.want(thing["state"] == "stopped", "user data for a machine that has started")
            self.data[thing["id"]] = asked.body
            return 204, {}, b""
        if asked.method == "DELETE":
            if thing.get("state") == "creating":
                self._looked(thing)
            if thing.get("state") not in ("stopped", "available"):
                raise RefusedError(400, "invalid_request_error", "instance should be powered off")
            self._forget(thing)
            return 204, {}, b""
        return of_json(200, {parts[4][:-1]: self._looked(thing)})

    def _block(self, asked: Asked, folder: str, more: list[str]) -> Reply:
        if asked.method == "POST":
            self.want(more == ["import-from-object-storage"], f"no such path: {asked.path}")
            return self._import(asked.json)
        if not more:
            found = [t for t in self.things[folder].values() if asked.query.get("name", "") in t["name"]]
            return of_json(200, {folder: found, "total_count": len(found)})
        thing = self._known(folder, more[0])
        if asked.method == "GET":
            return of_json(200, self._looked(thing, "status"))
        if thing.get("status") == "in_use":
            if thing["leaving"] <= 0:
                raise RefusedError(412, "precondition_failed", "resource is in use")
            thing["leaving"] -= 1
            thing["status"] = "in_use" if thing["leaving"] else "available"
            raise RefusedError(412, "precondition_failed", "resource is in use")
        del self.things[folder][thing["id"]]
        return 204, {}, b""

    def _import(self, body: dict[str, Any]) -> Reply:
        self.want(set(body) == {"bucket", "key", "name", "project_id", "tags", "size"}, f"fields: {sorted(body)}")
        self.want(body["project_id"] == PROJECT, "another project")
        self.want(body["size"] % 1000**3 == 0 and body["size"] >= 5 * 1000**3, f"size: {body['size']}")
        data = self.store.buckets.get(body["bucket"], {}).get(body["key"])
        self.want(data is not None and data[:4] == b"QFI\xfb", "the object is no qcow2")
        if "snapshots" in self.quota:
            raise RefusedError(403, "quotas_exceeded", "quota exceeded")
        made = self._made("snapshots", body["name"], status="creating", tags=body["tags"])
        return of_json(200, made)

    def _image(self, body: dict[str, Any]) -> Reply:
        self.want(set(body) == {"name", "arch", "root_volume", "project", "tags", "public"}, f"fields: {sorted(body)}")
        self.want(body["arch"] in ("x86_64", "arm64") and body["public"] is False, f"image: {body}")
        snapshot = self._known("snapshots", body["root_volume"])
        self.want(snapshot["status"] == "available", "an image of half a snapshot")
        made = self._made("images", body["name"], state="creating", tags=body["tags"], arch=body["arch"],
                          root_volume={"id": snapshot["id"], "volume_type": "sbs_snapshot"})  # fmt: skip
        return of_json(201, {"image": made})

    def _server(self, body: dict[str, Any]) -> Reply:
        fields = {"name", "commercial_type", "image", "project", "dynamic_ip_required", "tags", "volumes"}
        self.want(set(body) <= fields, f"fields: {sorted(set(body) - fields)}")
        image = self._known("images", body["image"])
        self.want(image["arch"] == TYPES[body["commercial_type"]]["arch"], "image and type differ")
        if "servers" in self.quota:
            raise RefusedError(403, "quotas_exceeded", "quota exceeded")
        root = body.get("volumes", {}).get("0", {"volume_type": "sbs_volume", "size": 5 * 1000**3})
        volume = self._made("volumes", body["name"], status="in_use", leaving=0, **root)
        made = self._made("servers", body["name"], state="stopped", allowed_actions=["poweron"], public_ips=[],
                          volumes={"0": {"id": volume["id"], "volume_type": "sbs_volume"}})  # fmt: skip
        return of_json(201, {"server": made})

    def _action(self, server: dict[str, Any], asked: Asked) -> Reply:
        action = asked.json["action"]
        if action not in server["allowed_actions"]:
            raise RefusedError(400, "invalid_request_error", f"{action} is not allowed")
        if action == "poweron":
            server.update(state="starting", allowed_actions=[], looks=0, public_ips=[{"address": "127.0.0.1"}])
        else:
            self.want(action == "terminate", f"action {action}")
            server.update(state="stopping", allowed_actions=[], looks=0, ends=True)
        return of_json(202, {"task": {"id": str(uuid.uuid4()), "status": "pending"}})

    def _looked(self, thing: dict[str, Any], key: str = "state") -> dict[str, Any]:
        """What is being made is there after some looks."""
        thing["looks"] += 1
        if thing["looks"] >= LOOKS:
            if thing.get("ends"):
                self._forget(thing)
                raise RefusedError(404, "unknown_resource", "gone")
            if thing[key] == "creating":
                thing[key] = "error" if self.broken else "available"
            elif thing[key] == "starting":
                thing.update(state="running", allowed_actions=["poweroff", "terminate", "reboot"], looks=0)
        if thing[key] == "running" and thing["looks"] > self.off_after:
            thing.update(state="stopped in place", allowed_actions=["poweron", "terminate"])
        return thing

    def _forget(self, thing: dict[str, Any]) -> None:
        for folder in self.things.values():
            folder.pop(thing["id"], None)
        for volume in (thing.get("volumes") or {}).values():
            self.things["volumes"][volume["id"]]["leaving"] = 1  # it takes a moment

    def _known(self, folder: str, identity: str) -> dict[str, Any]:
        if identity not in self.things[folder]:
            raise RefusedError(404, "unknown_resource", f"{identity} not found")
        return self.things[folder][identity]

    def _made(self, folder: str, name: str, **more: Any) -> dict[str, Any]:
        made = {"id": str(uuid.uuid4()), "name": name, "looks": 0, **more}
        self.things[folder][made["id"]] = made
        return made
