"""OpenStack: a disk becomes an image in Glance, the image a server.

    push  POST /v2/images with what the image is, PUT /v2/images/ID/file with its bytes, and wait until it is active
    run   a server of the image (platforms.openstack_run)
"""

from __future__ import annotations

import hashlib
import io
import re
import shlex
import uuid
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import BinaryIO, cast

from linuxkit.clouds.openstack_api import CLOUD, DIGEST, REGION, OpenStack
from linuxkit.clouds.openstack_run import RUN_SETTINGS, Run
from linuxkit.errors import InputError, MachineError, NetworkError
from linuxkit.places.image import LocalImage
from linuxkit.places.place import Job, Pushed, Setting
from linuxkit.places.rest import RefusedError
from linuxkit.platforms.bootimage import Image, Media, look

__all__ = ["PUSH_SETTINGS", "RUN_SETTINGS", "Push", "Run"]

GIB = 1 << 30
MIB = 1 << 20
#: Glance's names of formats, by QEMU's.
FORMATS = {"raw": "raw", "qcow2": "qcow2", "vmdk": "vmdk", "vhdx": "vhdx", "vpc": "vhd", "vdi": "vdi"}
VISIBILITIES = ("private", "shared", "community", "public")
UPLOADS = 3
#: What Glance answers when it is worth another image; 409: it takes no second file.
TEMPORARY = frozenset({409, 410, 429, 500, 502, 503, 504})
PUSH_SETTINGS = (
    CLOUD,
    REGION,
    Setting("img-name", "What the image is called; else as the file.", env=("OS_IMAGE_NAME",)),
    Setting("uefi", "Start with UEFI; by itself for what only UEFI starts.", kind=bool, default=False),
    Setting("disk-bus", "What the disk is attached to: virtio, scsi, sata, ….", default="virtio"),
    Setting("visibility", f"Who may use it: {', '.join(VISIBILITIES)}.", default="private"),
    Setting("property", "More properties of the image: NAME=VALUE, with commas.", metavar="LIST"),
    Setting("timeout", "Seconds to wait until it can be used.", env=("LINUXKIT_UPLOAD_TIMEOUT",), kind=int,
            default=1800),
)  # fmt: skip


class Push:
    """Makes an image."""

    def __init__(self, job: Job, image: LocalImage) -> None:
        self._job, self._image = job, image
        self._name = str(job["img-name"] or image.path.name.partition(".")[0])
        self._stack = OpenStack(job)

    def preflight(self) -> None:
        job, image = self._job, self._image
        if not 0 < len(self._name) <= 255:
            raise InputError("the name of an image has 1 to 255 characters", hint="--img-name")
        if job["visibility"] not in VISIBILITIES:
            raise InputError(f"--visibility {job['visibility']} is not known", hint=", ".join(VISIBILITIES))
        disk = self._disk
        if disk.program or not disk.bootable:
            raise InputError(f"{image.path} is not a disk or a CD that boots",
                             hint="linuxkit build --format qcow2-bios FILE.yml")  # fmt: skip
        if job["uefi"] and not disk.uefi and (disk.bios or image.format.endswith("-bios")):
            raise InputError(f"UEFI cannot start {image.path}", hint="leave out --uefi, or build --format qcow2-efi")
        _ = self._properties
        self._there()
        self._check_quota()

    def push(self) -> Pushed:
        where = [f"--{name}={value}" for name in ("cloud", "region") if (value := self._job[name])]
        command = shlex.join(["linuxkit", "run", "openstack", *where, self._name])
        if there := self._there():
            return Pushed(self._name, there, True, command)
        attempt = 1
        while not (identity := self._try(attempt)):
            self._job.sleep(2.0 * attempt)
            attempt += 1
        return Pushed(self._name, identity, False, command)

    def _try(self, attempt: int) -> str:
        """The id of an image that is whole; empty: it is worth another attempt, with an image of its own, because one
        that got half a file takes no other.
        """
        identity = str(uuid.uuid4())  # our own: known before the answer comes, or doesn't
        what, journal = f"image {identity}", self._job.journal

        def undo() -> None:
            self._stack.image.delete(f"/images/{identity}")

        journal.made(what, undo, f"openstack image delete {identity}")
        try:
            self._make(identity)
        except NetworkError as e:
            temporary = e.status in TEMPORARY if isinstance(e, RefusedError) else e.temporary
            if attempt == UPLOADS or not temporary:
                raise
            self._job.log(f"{e.message}; trying again")
            undo()
            identity = ""
        journal.forget(what)
        return identity

    def _make(self, identity: str) -> None:
        """Make the image, send its bytes, and see that they arrived."""
        job, image, glance = self._job, self._image, self._stack.image
        glance.call("POST", "/images", json={"id": identity, "name": self._name, **self._properties}, attempts=1)

        def stream() -> BinaryIO:
            told = lambda done: job.progress(image.path.name, done, image.size)  # noqa: E731
            return cast(BinaryIO, _Counted(image.path.open("rb", buffering=0), told))

        headers = {"content-type": "application/octet-stream", "content-length": str(image.size)}
        glance.call("PUT", f"/images/{identity}/file", body=stream, headers=headers, attempts=1,
                    shown=f"{image.path} ({image.size} bytes)")  # fmt: skip
        if job.dry_run:
            return

        def active() -> bool:
            found = glance.get(f"/images/{identity}")
            if found["status"] in ("killed", "deleted", "pending_delete"):
                raise MachineError(f"OpenStack gave up the image: it is {found['status']}",
                                   hint="its operators see why; often the storage is full")  # fmt: skip
            return bool(found["status"] == "active")

        job.wait(f"the image {identity}", active, limit=job["timeout"])
        self._compare(glance.get(f"/images/{identity}"))

    def _compare(self, found: Mapping[str, object]) -> None:
        """Size and checksum as Glance has them; a cloud may keep it in another format, and then says nothing of it."""
        if found.get("disk_format") != self._properties["disk_format"]:
            return
        if found.get("size") not in (None, self._image.size):
            raise NetworkError(f"OpenStack has {found['size']} bytes of {self._image.size}", hint="run it again")
        name, value = str(found.get("os_hash_algo") or ""), found.get("os_hash_value")
        if not value or name not in hashlib.algorithms_guaranteed or name.startswith("shake"):
            name, value = "md5", found.get("checksum")
        if not value:
            return
        with self._image.path.open("rb") as stream:
            ours = hashlib.file_digest(stream, lambda: hashlib.new(name, usedforsecurity=False)).hexdigest()
        if ours != value:
            raise NetworkError(f"OpenStack has other bytes than were sent: {name} {value} instead of {ours}",
                               hint="run it again")  # fmt: skip

    @cached_property
    def _disk(self) -> Image:
        return look(self._image.path)

    @cached_property
    def _properties(self) -> dict[str, str | int]:
        """What Glance and Nova are told of the image."""
        job, image, disk = self._job, self._image, self._disk
        made: dict[str, str | int] = {
            "disk_format": "iso" if disk.media is Media.CD else FORMATS[disk.format], "container_format": "bare",
            "visibility": job["visibility"], "min_disk": -(-self._size // GIB), "os_type": "linux",
            DIGEST: image.digest,
        }  # fmt: skip
        only_uefi = disk.uefi and not disk.bios
        if job["uefi"] or only_uefi or disk.arch == "aarch64" or image.format.endswith("-efi"):
            made["hw_firmware_type"] = "uefi"
        if disk.media is not Media.CD:
            made["hw_disk_bus"] = job["disk-bus"]
            if job["disk-bus"] == "scsi":
                made["hw_scsi_model"] = "virtio-scsi"
        if disk.arch:
            made["architecture"] = disk.arch
        for text in filter(None, (part.strip() for part in str(job["property"]).split(","))):
            name, equals, value = text.partition("=")
            if not equals or not re.fullmatch(r"[A-Za-z0-9_:.-]{1,255}", name) or name in ("id", "name", DIGEST):
                raise InputError(f"--property {text}: NAME=VALUE is needed", hint="such as hw_machine_type=q35")
            made[name] = int(value) if name in ("min_disk", "min_ram") and value.isdigit() else value
        return made

    @property
    def _size(self) -> int:
        """Bytes of the disk: in the header of a qcow2, else as long as the file."""
        if self._disk.format == "qcow2":
            return int.from_bytes(self._image.read(0, 32)[24:32], "big")
        return self._image.size if self._disk.format in ("raw", "vpc") and self._disk.media is not Media.CD else 0

    def _there(self) -> str:
        """The image of this name with the same content; empty: none.

        Raises:
            InputError: it has other content.
        """
        project = self._stack.project
        found = [one for one in self._stack.images(name=self._name, owner=project) if one["name"] == self._name]
        for one in found:
            if one.get(DIGEST) == self._image.digest and one["status"] == "active":
                firmware = one.get("hw_firmware_type", "bios") == self._properties.get("hw_firmware_type", "bios")
                if firmware:
                    return str(one["id"])
        if found:
            ids = " ".join(str(one["id"]) for one in found[:4])
            raise InputError(f"there is an image {self._name} already, with other content or settings",
                             hint=f"give another --img-name, or remove it: openstack image delete {ids}")  # fmt: skip
        return ""

    def _check_quota(self) -> None:
        """What the project may store, where the cloud tells."""
        answer = self._stack.image.call("GET", "/info/usage", allow=(403, 404))
        if answer.status != 200 or not isinstance(answer.json, dict):
            return
        total = answer.json.get("usage", {}).get("image_size_total", {})
        limit, used, more = total.get("limit", -1), total.get("usage", 0), -(-self._image.size // MIB)
        if 0 <= limit < used + more:
            raise InputError(f"the project may store {limit} MiB of images, {used} are in use, and this one has {more}",
                             hint="remove images, or ask for a higher quota")  # fmt: skip


class _Counted(io.RawIOBase):
    """A file that says how far it was read."""

    def __init__(self, file: io.RawIOBase, told: Callable[[int], None]) -> None:
        self._file, self._told, self._done = file, told, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        count = self._file.readinto(buffer) or 0
        self._done += count
        self._told(self._done)
        return count

    def close(self) -> None:
        self._file.close()
        super().close()
