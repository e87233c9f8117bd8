"""Scaleway: a qcow2 goes into a bucket, Scaleway makes a snapshot of it, the snapshot an image, the image an instance.

    push  object storage → import into block storage → image; the object, and a bucket made for it, are removed. No
          server is needed for it, other than in LinuxKit, whose server writes an ISO to a volume
    run   an instance of the image, its serial console here, until it is off
"""

from __future__ import annotations

import base64
import binascii
import re
import secrets
import struct
from functools import cached_property
from typing import Any
from urllib.parse import urlencode

from linuxkit.clouds.scaleway_api import DIGEST, SETTINGS, Api, digest_of
from linuxkit.errors import InputError, MachineError, NetworkError
from linuxkit.places.image import LocalImage
from linuxkit.places.place import Job, Pushed, Setting
from linuxkit.places.rest import RefusedError
from linuxkit.places.websocket import WebSocket
from linuxkit.platforms.bootimage import Image, look

GB = 1000**3
SMALLEST = 5  # GB, of a volume
MAX_DATA = 128 << 10
CONSOLE = "wss://tty.{zone}.scaleway.com/v2/ws"
PING = 25.0  # seconds between signs of life
ARCHES = {"x86_64": "x86_64", "aarch64": "arm64", "arm64": "arm64", "": ""}
PUSH_SETTINGS = (
    *SETTINGS,
    Setting("img-name", "What the image is called; else as the file.", env=("SCW_IMAGE_NAME",)),
    Setting("bucket", "Where it is put on the way; else a bucket that is made for it.", env=("SCW_BUCKET",)),
    Setting("volume-size", "GB of a machine's disk; 0: as the image has, 5 at least.", env=("SCW_VOLUME_SIZE",),
            kind=int, default=0),
    Setting("img-arch", "x86_64 or arm64; else what the image says.", env=("SCW_IMAGE_ARCH",)),
    Setting("timeout", "Seconds to wait for the import.", kind=int, default=1800),
)  # fmt: skip
RUN_SETTINGS = (
    *SETTINGS,
    Setting("instance-type", "The type of the instance.", env=("SCW_RUN_TYPE",), default="DEV1-S"),
    Setting("instance-name", "What it is called; else after the image.", env=("SCW_RUN_NAME",)),
    Setting("disk-size", "GB of its disk; 0: as the image has.", kind=int, default=0),
    Setting("no-attach", "Show no console.", kind=bool, default=False),
    Setting("timeout", "Seconds to wait until it runs.", kind=int, default=600),
)


class Push:
    """Makes an image."""

    def __init__(self, job: Job, image: LocalImage) -> None:
        self._job, self._image = job, image
        self._api = Api(job)
        self._name = job["img-name"] or image.path.name.partition(".")[0]

    def preflight(self) -> None:
        job, image = self._job, self._image
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,100}", self._name):
            raise InputError(f"'{self._name}' cannot be the name of an image", hint="--img-name: A-Z a-z 0-9 . _ -")
        if self._disk.format != "qcow2":
            raise InputError(f"{image.path} is not a qcow2, which is what Scaleway imports",
                             hint="linuxkit build --format qcow2-bios FILE.yml")  # fmt: skip
        if self._arch not in ("x86_64", "arm64"):
            unseen = f"which machines {image.path} is for cannot be seen without qemu-img"
            raise InputError(unseen if not self._arch else f"--img-arch {self._arch} is not known",
                             hint="give --img-arch x86_64 or arm64")  # fmt: skip
        if self._disk.bios and not self._disk.uefi:
            raise InputError(f"{image.path} is for a BIOS only, and Scaleway's instances start by UEFI",
                             hint="linuxkit build --format qcow2-bios makes a disk that both start")  # fmt: skip
        if job["volume-size"] and job["volume-size"] * GB < self._virtual:
            raise InputError(f"--volume-size {job['volume-size']} GB is less than the image's {self._virtual} bytes")
        there = self._api.image(self._name)
        if there is not None and digest_of(there) != image.digest:
            raise InputError(f"there is an image named {self._name} already ({there['id']}), with other content",
                             hint="give another --img-name, or remove it: scw instance image delete "
                                  f"{there['id']} with-snapshots=true zone={self._api.zone}")  # fmt: skip
        self._api.get(f"{self._api.block}/snapshots", project_id=self._api.project, page_size=1)
        if job["bucket"]:
            self._api.bucket(job["bucket"]).check(self._api.login.region)

    def push(self) -> Pushed:
        job, api, image = self._job, self._api, self._image
        run_with = f"linuxkit run scaleway {self._name}"
        there = api.image(self._name)
        if there is not None and digest_of(there) == image.digest:
            return Pushed(self._name, str(there["id"]), True, run_with)
        tags = [f"{DIGEST}{image.digest}"]
        bucket, key = self._upload()
        size = job["volume-size"] * GB or max(SMALLEST * GB, -(-self._virtual // GB) * GB)
        snapshot = api.make("snapshot", f"{api.block}/snapshots/import-from-object-storage", {
            "bucket": bucket, "key": key, "name": f"{self._name}-{image.digest[:8]}-{secrets.token_hex(4)}",
            "project_id": api.project, "tags": tags, "size": size,
        }, folder=f"{api.block}/snapshots", command="scw block snapshot delete")  # fmt: skip
        self._wait("the import", f"{api.block}/snapshots/{snapshot}", "")
        identity = api.make("image", f"{api.instance}/images", {
            "name": self._name, "arch": self._arch, "root_volume": snapshot, "project": api.project, "tags": tags,
            "public": False,
        }, folder=f"{api.instance}/images", command="scw instance image delete")  # fmt: skip
        self._wait("the image", f"{api.instance}/images/{identity}", "image")
        job.journal.result(f"image {identity}")
        job.journal.result(f"snapshot {snapshot}")
        return Pushed(self._name, identity, False, run_with)

    @cached_property
    def _disk(self) -> Image:
        return look(self._image.path)

    @property
    def _arch(self) -> str:
        return str(self._job["img-arch"]) or ARCHES.get(self._disk.arch, self._disk.arch)

    @cached_property
    def _virtual(self) -> int:
        """How large the disk is inside the file: bytes 24 to 31 of a qcow2."""
        head = self._image.read(0, 32)
        return int(struct.unpack(">Q", head[24:32])[0]) if len(head) == 32 else 0

    def _upload(self) -> tuple[str, str]:
        """(bucket, key) of the object, which is there until the end."""
        job, image = self._job, self._image
        key = f"linuxkit-{image.digest[:32]}.qcow2"
        name = job["bucket"] or f"linuxkit-{image.digest[:12]}-{secrets.token_hex(4)}"
        bucket = self._api.bucket(name)
        if not job["bucket"]:
            job.journal.made(f"bucket {name}", lambda: self._api.remove_bucket(name),
                             f"scw object bucket delete {name}", temporary=True)  # fmt: skip
            try:
                self._api.make_bucket(name)
            except RefusedError:
                job.journal.forget(f"bucket {name}")  # it was not made
                raise
        job.journal.made(f"object {name}/{key}", lambda: bucket.delete(key),
                         f"aws s3 rm s3://{name}/{key} --endpoint-url https://s3.{self._api.login.region}.scw.cloud",
                         temporary=True)  # fmt: skip
        bucket.put(key, image)
        return name, key

    def _wait(self, what: str, path: str, kind: str) -> None:
        def ready() -> bool:
            found = self._api.get(path)
            found = found[kind] if kind else found
            state = str(found.get("state") or found.get("status"))
            if state == "error":
                raise MachineError(f"Scaleway failed with {what}", hint="is the file whole? See qemu-img check")
            return state in ("available", "in_use")

        if not self._job.dry_run:
            self._job.wait(what, ready, every=5, limit=self._job["timeout"])


class Run:
    """An instance of an image, by its name or id."""

    def __init__(self, job: Job, target: str) -> None:
        self._job, self._target = job, target
        self._api = Api(job)
        self._image: dict[str, Any] = {}

    def preflight(self) -> None:
        if len(self._job.data or b"") > MAX_DATA:
            raise InputError("user data is larger than the 128 KB that Scaleway takes", hint="put an address into it")
        found = self._api.image(self._target)
        if found is None:
            raise InputError(f"there is no image {self._target} in {self._api.zone}",
                             hint=f"linuxkit push scaleway --img-name {self._target} FILE.yml, or another --zone")
        self._image = found
        self._api.check_type(self._job["instance-type"], str(found.get("arch") or ""))

    def run(self) -> None:
        job, api = self._job, self._api
        body: dict[str, Any] = {
            "name": f"{job['instance-name'] or 'linuxkit-' + self._target[:40]}-{secrets.token_hex(4)}",
            "commercial_type": job["instance-type"], "image": self._image["id"], "project": api.project,
            "dynamic_ip_required": True, "tags": ["linuxkit"],
        }  # fmt: skip
        if job["disk-size"]:
            body["volumes"] = {"0": {"volume_type": "sbs_volume", "size": job["disk-size"] * GB}}
        command = "scw instance server terminate with-ip=true with-block=true"
        server = api.make("server", f"{api.instance}/servers", body, folder=f"{api.instance}/servers",
                          undo=self._remove, command=command, temporary=True)  # fmt: skip
        path = f"{api.instance}/servers/{server}"
        if job.data is not None:
            api.call("PATCH", f"{path}/user_data/cloud-init", body=job.data, headers={"content-type": "text/plain"},
                     attempts=3, shown=f"{len(job.data)} bytes of user data")  # fmt: skip
        api.post(f"{path}/action", {"action": "poweron"})
        if job.dry_run:
            return
        found = job.wait(f"the instance {server}", lambda: self._running(path), limit=job["timeout"])
        addresses = [str(ip["address"]) for ip in found.get("public_ips") or () if ip.get("address")]
        job.log(f"started {server} at {', '.join(addresses) or 'no public address'}")
        if not job["no-attach"]:
            self._console(server, path)
        while not self._over(path):
            job.sleep(5)

    def _running(self, path: str) -> Any:
        found = self._api.get(path)["server"]
        if found["state"] == "locked":
            raise MachineError("Scaleway has locked the instance", hint="look at it in Scaleway's console")
        return found if found["state"] in ("running", "stopped in place", "stopped_in_place") else None

    def _over(self, path: str) -> bool:
        try:
            return str(self._api.get(path)["server"]["state"]) not in ("starting", "running", "stopping")
        except RefusedError as e:
            if e.status == 404:  # somebody else removed it
                return True
            raise

    def _console(self, server: str, path: str) -> None:
        """The serial console, until the instance is off: messages of a GoTTY, whose `1` is output in base64."""
        job, api = self._job, self._api
        try:
            socket = WebSocket(CONSOLE.format(zone=api.zone))
        except NetworkError as e:
            job.log(f"no console: {e.message}")
            return
        try:
            login = "?" + urlencode({"arg": [api.login.secret, server]}, doseq=True)
            socket.send(f'{{"AuthToken": "", "Arguments": "{login}"}}')
            quiet = 0.0
            while True:
                message = socket.receive(5)
                if message is None:
                    quiet += 5
                    if self._over(path):
                        return
                    if quiet >= PING:
                        socket.send("2")
                        quiet = 0.0
                elif message[:1] == b"1":
                    job.output(base64.b64decode(message[1:], validate=True))
        except (NetworkError, binascii.Error) as e:
            if not self._over(path):
                job.log(f"the console is gone: {e}; the instance still runs")
        finally:
            socket.close()

    def _remove(self, server: str) -> None:
        """The instance and its volumes, which it leaves behind when they are block storage."""
        job, api = self._job, self._api
        path = f"{api.instance}/servers/{server}"
        if job.dry_run:
            api.delete(path)
            return
        try:
            found = api.get(path)["server"]
        except RefusedError as e:
            if e.status == 404:
                return
            raise
        volumes = list((found.get("volumes") or {}).values())
        if found["state"] in ("starting", "stopping"):
            found = job.wait(f"the instance {server}", lambda: self._settled(path))
        if found["state"] == "running" or "terminate" in (found.get("allowed_actions") or ()):
            api.post(f"{path}/action", {"action": "terminate"})
            job.wait(f"the end of {server}", lambda: self._gone(path))
        else:
            api.delete(path)
        for volume in volumes:
            where = api.block if volume.get("volume_type", "").startswith("sbs") else api.instance
            api.drop(f"{where}/volumes/{volume['id']}")

    def _settled(self, path: str) -> Any:
        found = self._api.get(path)["server"]
        return found if found["state"] not in ("starting", "stopping") else None

    def _gone(self, path: str) -> bool:
        try:
            self._api.get(path)
        except RefusedError as e:
            if e.status == 404:
                return True
            raise
        return False
