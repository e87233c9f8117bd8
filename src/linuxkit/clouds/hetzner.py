"""Hetzner's cloud: it takes no images, so a server in its rescue system writes the disk, of which a snapshot is made.

    push  a key and a server for the occasion → rescue system → the disk over SSH to /dev/sda → off → snapshot;
          the server and the key are removed
    run   a server of the snapshot, until it is off; there is no console but the one in Hetzner's web page
"""

from __future__ import annotations

import re
import secrets
import socket
import tempfile
from functools import cached_property
from pathlib import Path
from typing import Any

from linuxkit import host
from linuxkit.clouds.hetzner_api import DIGEST, NAME, Api
from linuxkit.errors import InputError, MachineError
from linuxkit.places.image import LocalImage
from linuxkit.places.place import Job, Pushed, Setting
from linuxkit.places.rest import RefusedError
from linuxkit.places.ssh import CutError, Ssh, make_key
from linuxkit.platforms.bootimage import Image, Media, look

DEVICE, USER, PORT = "/dev/sda", "root", 22
#: A label's value has at most 63 characters, and a digest 64.
LABEL = 60
MAX_DATA = 32 << 10
MOST_CUTS = 3  # of a connection, in which nothing got through
_COMMON = (
    Setting("machine", "The server type; else the cheapest that fits.", env=("HCLOUD_MACHINE",)),
    Setting("location", "Where, such as fsn1; else where Hetzner likes.", env=("HCLOUD_LOCATION",)),
    Setting("token", "For the API; else that of the hcloud program.", env=("HCLOUD_TOKEN",), secret=True),
)
PUSH_SETTINGS = (
    *_COMMON,
    Setting("img-name", "What the snapshot is called; else as the file.", env=("HCLOUD_IMAGE_NAME",)),
    Setting("timeout", "Seconds to wait for the rescue system, and for the snapshot.", kind=int, default=900),
)
RUN_SETTINGS = (
    *_COMMON,
    Setting("ssh-key", "The name of a key at Hetzner that the metadata tells the machine."),
    Setting("wait-port", "A TCP port that shows that the machine is up; 0: don't wait.", kind=int, default=22),
    Setting("timeout", "Seconds to wait until it is up.", kind=int, default=300),
)


class Push:
    """Makes a snapshot."""

    def __init__(self, job: Job, image: LocalImage) -> None:
        self._job, self._image = job, image
        self._api = Api(job)
        self._name = job["img-name"] or image.path.name.partition(".")[0]
        self._types, self._base = list[str](), 0

    def preflight(self) -> None:
        image, disk = self._image, self._disk
        if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", self._name):
            raise InputError(f"'{self._name}' cannot be the name of a snapshot", hint="--img-name: at most 63 of "
                             "A-Z a-z 0-9 . _ -, a letter or digit first and last")  # fmt: skip
        if disk.format != "raw" or disk.media is not Media.DISK or not disk.bootable or image.size % 512:
            raise InputError(f"{image.path} is not a raw disk that boots", hint="linuxkit build --format raw FILE.yml")
        if disk.arch != "aarch64" and not disk.bios:
            raise InputError(f"{image.path} is for UEFI only, and Hetzner's x86 servers start as a BIOS does",
                             hint="linuxkit build --format raw FILE.yml makes a disk that both start")  # fmt: skip
        for tool in ("ssh", "ssh-keygen"):
            host.find_tool(tool, why="to reach the server that writes the disk")
        there = self._api.image(self._name)
        if there is not None and there["labels"].get(DIGEST) != image.digest[:LABEL]:
            raise InputError(f"there is a snapshot named {self._name} already ({there['id']}), with other content",
                             hint="give another --img-name, or remove it: "
                                  f"hcloud image delete {there['id']}")  # fmt: skip
        self._types = self._api.machines(self._job["machine"], self._arch, image.size, self._job["location"])
        self._base = self._api.base_image(self._arch)

    def push(self) -> Pushed:
        job, api, labels = self._job, self._api, {NAME: self._name, DIGEST: self._image.digest[:LABEL]}
        there = api.image(self._name, self._image.digest[:LABEL])
        if there is not None:
            return Pushed(self._name, str(there["id"]), True, f"linuxkit run hetzner {self._name}")
        with tempfile.TemporaryDirectory(prefix="linuxkit-") as folder:
            server = self._writer(Path(folder), f"linuxkit-push-{self._image.digest[:8]}-{secrets.token_hex(4)}")
        api.post(f"/servers/{server}/actions/poweroff")
        identity, _ = api.make(
            "image", f"/servers/{server}/actions/create_image",
            {"type": "snapshot", "description": self._name, "labels": labels}, key="image", temporary=False,
            find={"label_selector": ",".join(f"{k}={v}" for k, v in labels.items())},
        )  # fmt: skip
        what = f"image {identity}"
        job.wait(what, lambda: job.dry_run or self._ready(identity), every=5, limit=job["timeout"])
        job.journal.result(what)
        return Pushed(self._name, identity, False, f"linuxkit run hetzner {self._name}")

    @cached_property
    def _disk(self) -> Image:
        return look(self._image.path)

    @property
    def _arch(self) -> str:
        return "arm" if self._disk.arch == "aarch64" else "x86"

    def _writer(self, folder: Path, name: str) -> str:
        """A server whose disk is the image; its number."""
        job, api = self._job, self._api
        key, _ = api.make("ssh-key", "/ssh_keys", {
            "name": name, "public_key": make_key(folder), "labels": {NAME: self._name},
        }, key="ssh_key", find={"name": name})  # fmt: skip
        keys: list[Any] = [int(key) if key.isdigit() else key]
        server, answer = api.make_server(self._types, {
            "name": name, "image": self._base, "start_after_create": False, "ssh_keys": keys,
            "labels": {NAME: self._name}, **({"location": job["location"]} if job["location"] else {}),
        })  # fmt: skip
        api.post(f"/servers/{server}/actions/enable_rescue", {"type": "linux64", "ssh_keys": keys})
        api.post(f"/servers/{server}/actions/poweron")
        if job.dry_run:
            job.log(f"would send: {self._image.path} over ssh to {DEVICE}; what is zero is not sent")
            return server
        ssh = Ssh(_address(answer["server"]), folder, USER, PORT)
        job.log(f"server {server} at {ssh.address}: waiting for its rescue system")
        job.wait("the rescue system", ssh.answers, every=5, limit=job["timeout"])
        begin, failures = 0, 0
        while True:
            try:
                ssh.write_disk(self._image, DEVICE, lambda done, size: job.progress(self._name, done, size), begin)
                return server
            except CutError as e:
                failures = 1 if e.reached > begin else failures + 1
                if failures == MOST_CUTS:
                    raise
                begin = e.reached
                job.log(f"{e.message}; it goes on at {begin} of {self._image.size} bytes")
                job.sleep(5)

    def _ready(self, identity: str) -> bool:
        state = str(self._api.get(f"/images/{identity}")["image"]["status"])
        if state == "unavailable":
            raise MachineError(f"Hetzner could not make the snapshot {identity}", hint="run it again")
        return state == "available"


class Run:
    """A server of a snapshot, by its name or number."""

    def __init__(self, job: Job, target: str) -> None:
        self._job, self._target = job, target
        self._api = Api(job)
        self._image: dict[str, Any] = {}
        self._types: list[str] = []

    def preflight(self) -> None:
        job = self._job
        try:
            text = (job.data or b"").decode()
        except UnicodeDecodeError:
            raise InputError("user data is no text, and Hetzner takes only that", hint="encode it, in base64") from None
        if len(text.encode()) > MAX_DATA:
            raise InputError("user data is larger than the 32 KB that Hetzner takes", hint="put an address into it")
        found = self._api.image(self._target)
        if found is None:
            raise InputError(f"there is no snapshot {self._target} at Hetzner",
                             hint=f"linuxkit push hetzner --img-name {self._target} FILE.yml")
        self._image = found
        size = int(float(found.get("disk_size") or 0) * 1000**3)
        arch = str(found.get("architecture", "x86"))
        self._types = self._api.machines(job["machine"], arch, size, job["location"])
        if job["ssh-key"] and not self._api.get("/ssh_keys", name=job["ssh-key"])["ssh_keys"]:
            raise InputError(f"Hetzner has no ssh key {job['ssh-key']}", hint="hcloud ssh-key list shows them")

    def run(self) -> None:
        job, api = self._job, self._api
        server, answer = api.make_server(self._types, self._parameters())
        if job.dry_run:
            return
        address = _address(answer["server"])
        job.log(f"started server {server} ({answer['server']['server_type']['name']}) at {address}")
        job.log(f"Hetzner shows a console only in its web page, or as VNC: hcloud server request-console {server}")
        if job["wait-port"]:
            job.wait(f"an answer of {address}", lambda: self._over(server) or _answers(address, job["wait-port"]),
                     limit=job["timeout"])  # fmt: skip
            job.log(f"{address} answers; it runs until it is off, or Ctrl-C")
        while not self._over(server):
            job.sleep(5)
        job.log(f"server {server} is off")

    def _over(self, server: str) -> bool:
        try:
            return str(self._api.get(f"/servers/{server}")["server"]["status"]) in ("off", "deleting")
        except RefusedError as e:
            if e.status == 404:  # somebody else removed it
                return True
            raise

    def _parameters(self) -> dict[str, Any]:
        job = self._job
        name = re.sub(r"[^a-z0-9]+", "-", str(self._target).lower()).strip("-")[:40] or "linuxkit"
        made: dict[str, Any] = {
            "name": f"{name}-{secrets.token_hex(4)}", "image": self._image["id"],
            "start_after_create": True, "labels": {NAME: str(self._image["labels"].get(NAME, "image"))},
        }  # fmt: skip
        made |= {"location": job["location"]} if job["location"] else {}
        made |= {"ssh_keys": [job["ssh-key"]]} if job["ssh-key"] else {}
        made |= {"user_data": job.data.decode()} if job.data else {}
        return made


def _address(server: Any) -> str:
    return str(((server["public_net"] or {}).get("ipv4") or {}).get("ip") or "")


def _answers(address: str, port: int) -> bool:
    """Whether somebody is there: a connection, or that it is refused by the machine's own network."""
    try:
        socket.create_connection((address, port), timeout=3).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return True
