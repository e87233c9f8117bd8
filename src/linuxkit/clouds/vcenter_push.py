"""linuxkit push vcenter: an ISO becomes a file of a datastore, a disk a template.

    NAME.iso          PUT /folder/FOLDER/NAME.iso?dcPath=…&dsName=…, and its SHA-256 beside it
    NAME.vmdk, .ova   ImportVApp → a lease, whose address takes the stream-optimized VMDK → MarkAsTemplate
"""

from __future__ import annotations

import io
import re
import struct
import tarfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote, urlsplit

from linuxkit.clouds import vsphere_specs as specs
from linuxkit.clouds.vsphere_inventory import SETTINGS, Inventory
from linuxkit.clouds.vsphere_soap import Vim
from linuxkit.clouds.vsphere_types import Ref, ref
from linuxkit.errors import InputError, LinuxkitError, MachineError, NetworkError
from linuxkit.places.image import LocalImage
from linuxkit.places.place import Job, Pushed, Setting
from linuxkit.places.rest import RefusedError, Rest, Words
from linuxkit.places.strict_xml import Node
from linuxkit.platforms.bootimage import Image, Media, look

PUSH_SETTINGS = (
    *SETTINGS,
    Setting("folder", "Of an ISO, in the datastore; else as the file is called."),
    Setting("img-name", "What the template of a disk is called; else as the file.", env=("VCIMAGE",)),
    Setting("vmfolder", "The template's folder; else the datacenter's own."),
    Setting("firmware", "bios or efi; else what starts the disk."),
    Setting("timeout", "Seconds to wait for the vCenter.", kind=int, default=600),
)
STREAM = "application/x-vnd.vmware-streamVmdk"
SIGN_OF_LIFE = 20.0  # seconds; a lease ends after 300 without one
_FIT = re.compile(r"[^/\\%\[\]?#*\x00-\x1f]{1,80}")


@dataclass(frozen=True)
class Vmdk:
    """A stream-optimized VMDK in a file: `offset` bytes behind its beginning. `capacity` in bytes, of the disk."""

    path: Path
    offset: int
    size: int
    capacity: int


def find_vmdk(path: Path) -> Vmdk:
    """The VMDK that a file is, or that an OVA (a tar) has in it.

    Raises:
        InputError: there is none, or it is of a kind that cannot be uploaded.
    """
    offset, size = 0, path.stat().st_size
    if path.suffix.lower() == ".ova":
        try:
            with tarfile.open(path, "r:") as archive:
                found = next((m for m in archive if m.isfile() and m.name.lower().endswith(".vmdk")), None)
        except (tarfile.TarError, OSError, ValueError) as e:
            raise InputError(f"{path} is not an OVA: {e}", hint="build it again") from None
        if found is None:
            raise InputError(f"{path} has no VMDK in it", hint="linuxkit build --format ova FILE.yml")
        offset, size = found.offset_data, found.size
    with path.open("rb") as stream:
        stream.seek(offset)
        head = stream.read(20)
    # Virtual Disk Format 5.0, SparseExtentHeader: magic, version, flags, capacity in sectors
    magic, _, flags, capacity = struct.unpack("<4sIIQ", head) if len(head) == 20 else (b"", 0, 0, 0)
    if magic != b"KDMV" or not flags & 1 << 16:
        raise InputError(f"the VMDK in {path} is not stream-optimized, and vSphere takes no other",
                         hint="linuxkit build --format vmdk FILE.yml")  # fmt: skip
    return Vmdk(path, offset, size, capacity * 512)


class Push:
    """Makes a file in a datastore, or a template."""

    def __init__(self, job: Job, image: LocalImage) -> None:
        self._job, self._image = job, image
        self._vim = Vim(job, job["url"], job["user"], job["password"])
        self._in = Inventory(self._vim, job["datacenter"], job["datastore"], job["hostname"])
        stem = image.path.name.partition(".")[0]
        self._name = job["img-name"] or stem
        self._folder = job["folder"] or stem
        self._vmdk: Vmdk | None = None

    def preflight(self) -> None:
        with self._vim.session(stays=True):
            if self._is_iso:
                self._preflight_iso()
            else:
                self._preflight_disk()

    def push(self) -> Pushed:
        with self._vim.session():
            return self._push_iso() if self._is_iso else self._push_disk()

    @property
    def _is_iso(self) -> bool:
        return self._image.path.suffix.lower() == ".iso"

    @cached_property
    def _disk(self) -> Image:
        return look(self._image.path)

    # -- an ISO

    @property
    def _file(self) -> str:
        return f"{self._folder}/{self._image.path.name}"

    def _preflight_iso(self) -> None:
        if self._disk.media is not Media.CD:
            raise InputError(f"{self._image.path} is not an ISO image", hint="linuxkit build --format iso FILE.yml")
        if not all(_FIT.fullmatch(part) and part not in (".", "..") for part in self._file.split("/")):
            raise InputError(f"'{self._file}' cannot be a path in a datastore", hint="give another --folder")
        there = self._there()
        if there is None:
            self._vim.check_privileges({self._in.datastore[0]: ("Datastore.FileManagement",)})
            self._in.check_room(self._image.size)
        elif there != self._image.digest:
            raise InputError(f"there is a file {self._path} already, with other content",
                             hint=f"give another --folder, or remove it: {self._removal(self._file)}")  # fmt: skip

    @property
    def _path(self) -> str:
        return f"[{self._in.datastore[1]}] {self._file}"

    def _push_iso(self) -> Pushed:
        vim, where = self._vim, f"linuxkit run vcenter '{self._path}'"
        if self._there() == self._image.digest:
            return Pushed(self._image.path.name, self._path, True, where)
        vim.call("MakeDirectory", vim.content("fileManager"), allow=("FileAlreadyExists",),
                 name=f"[{self._in.datastore[1]}] {self._folder}", datacenter=self._in.datacenter,
                 createParentDirectories=True)  # fmt: skip
        note = f"{self._file}.sha256"
        for file in (self._file, note):
            vim.made(f"file {file}", partial(self._remove, file), self._removal(file))
        size = self._image.size
        vim.rest.call("PUT", self._url(self._file), body=self._stream(0, size, lambda: None),
                      headers={"content-length": str(size), "content-type": "application/octet-stream"},
                      shown=f"{self._image.path} ({size} bytes)")  # fmt: skip
        vim.rest.call("PUT", self._url(note), body=f"{self._image.digest}\n".encode(), shown="its SHA-256")
        for file in (self._file, note):
            self._job.journal.result(f"file {file}")
        return Pushed(self._image.path.name, self._path, False, where)

    def _there(self) -> str | None:
        """The digest of what has the name already; empty when it doesn't say; None when there is nothing."""
        if self._vim.rest.call("HEAD", self._url(self._file), allow=(404,)).status == 404:
            return None
        note = self._vim.rest.call("GET", self._url(f"{self._file}.sha256"), allow=(404,))
        return note.body.decode(errors="replace").strip() if note.status == 200 else ""

    def _url(self, file: str) -> str:
        inside = f"dcPath={quote(self._in.datacenter_path)}&dsName={quote(self._in.datastore[1])}"
        return f"/folder/{quote(file)}?{inside}"

    def _remove(self, file: str) -> None:
        vim = self._vim
        if self._job.dry_run or vim.rest.call("HEAD", self._url(file), allow=(404,)).status != 404:
            vim.task("DeleteDatastoreFile_Task", vim.content("fileManager"),
                     name=f"[{self._in.datastore[1]}] {file}", datacenter=self._in.datacenter)  # fmt: skip

    def _removal(self, file: str) -> str:
        return f"govc datastore.rm -ds '{self._in.datastore[1]}' '{file}'"

    # -- a disk

    def _preflight_disk(self) -> None:
        if self._image.path.suffix.lower() not in (".vmdk", ".ova"):
            raise InputError(f"{self._image.path} is neither an ISO nor a VMDK nor an OVA",
                             hint="linuxkit build --format vmdk FILE.yml")  # fmt: skip
        if not _FIT.fullmatch(self._name):
            raise InputError(f"'{self._name}' cannot be the name of a template", hint="--img-name")
        if self._job["firmware"] not in ("", "bios", "efi"):
            raise InputError(f"--firmware {self._job['firmware']} is not known", hint="bios or efi")
        if not self._vim.is_vcenter:
            raise InputError(f"{self._vim.about} is not a vCenter, and has no templates",
                             hint="push an ISO: linuxkit build --format iso FILE.yml")  # fmt: skip
        self._vmdk = find_vmdk(self._image.path)
        there = self._in.machine(self._name, "config.annotation", "config.template")
        if there is None:
            self._in.check_room(self._vmdk.size)
        elif self._digest(there[1]) != self._image.digest:
            raise InputError(f"there is a machine or template named {self._name} already, with other content",
                             hint=f"give another --img-name, or remove it: govc vm.destroy '{self._name}'")
        self._vim.check_privileges({
            self._in.pool: ("Resource.AssignVMToPool", "VApp.Import"),
            self._in.folder(self._job["vmfolder"]): (
                "VirtualMachine.Inventory.Create", "VirtualMachine.Provisioning.MarkAsTemplate"),
            self._in.datastore[0]: ("Datastore.AllocateSpace",),
        })  # fmt: skip

    def _digest(self, properties: dict[str, Node]) -> str:
        """What a template says that it was made of; empty for a machine."""
        if properties.get("config.template", Node()).text() != "true":
            return ""
        found = re.search(rf"{specs.DIGEST}([0-9a-f]{{64}})", properties.get("config.annotation", Node()).text())
        return found[1] if found else ""

    def _push_disk(self) -> Pushed:
        job, vim, name = self._job, self._vim, self._name
        there = self._in.machine(name, "config.annotation", "config.template")
        if there is not None and self._digest(there[1]) == self._image.digest:
            return Pushed(name, there[0].value, True, f"linuxkit run vcenter {name}")
        vmdk = self._vmdk or find_vmdk(self._image.path)
        datastore, label = self._in.datastore
        firmware = job["firmware"] or ("efi" if self._is_efi else "bios")
        spec = specs.config(
            name=name, note=f"{specs.DIGEST}{self._image.digest}", datastore=label, cpus=1, memory=1024,
            firmware=firmware, devices=specs.disk(datastore, label, -(-vmdk.capacity // 1024)),
        )  # fmt: skip
        what = f"template {name}"
        vim.made(what, self._remove_machine, f"govc vm.destroy '{name}'")
        try:
            lease = ref(vim.call("ImportVApp", self._in.pool, spec=specs.import_spec(spec),
                                 folder=self._in.folder(job["vmfolder"]), host=self._in.host))  # fmt: skip
        except RefusedError:
            job.journal.forget(what)  # it was not made
            raise
        if job.dry_run:
            job.log(f"would send: {vmdk.path} ({vmdk.size} bytes)")
            machine = Ref("VirtualMachine", "<machine>")
        else:
            machine = self._upload(lease, vmdk)
        vim.call("MarkAsTemplate", machine)
        job.journal.result(what)
        return Pushed(name, machine.value, False, f"linuxkit run vcenter {name}")

    @property
    def _is_efi(self) -> bool:
        """That a BIOS would not start it, as far as can be seen: not at all in an OVA."""
        return self._image.path.suffix.lower() == ".vmdk" and self._disk.uefi and not self._disk.bios

    def _upload(self, lease: Ref, vmdk: Vmdk) -> Ref:
        """The disk of a machine that waits for it; the machine."""
        job, vim = self._job, self._vim

        def ready() -> bool:
            found = vim.properties(lease, "state", "error")
            if found.get("state", Node()).text() == "error":
                said = found.get("error", Node()).text("localizedMessage")
                raise MachineError(f"the vCenter does not take the disk: {said}")
            return found.get("state", Node()).text() == "ready"

        job.wait("the vCenter's ImportVApp", ready, every=1, limit=job["timeout"])
        try:
            info = vim.properties(lease, "info").get("info", Node())
            device = next((d for d in info.all("deviceUrl") if d.text("disk") != "false"), Node())
            url = device.text("url").replace("//*", f"//{urlsplit(vim.url).hostname}")
            if not url:
                raise MachineError("the vCenter has no address to send the disk to", hint="give another --hostname")
            self._send(url, lease, vmdk)
            vim.call("HttpNfcLeaseComplete", lease)
        except BaseException:
            with suppress(LinuxkitError):  # what it leaves is in the journal
                vim.call("HttpNfcLeaseAbort", lease)
            raise
        return ref(info.find("entity"))

    def _send(self, url: str, lease: Ref, vmdk: Vmdk) -> None:
        # the address is a host's and holds its own proof: neither the session nor the login go there
        host = Rest(self._job, url, words=Words("the host"))
        told = [time.monotonic(), 0]

        def alive() -> None:
            if time.monotonic() - told[0] > SIGN_OF_LIFE:
                told[0] = time.monotonic()
                self._vim.call("HttpNfcLeaseProgress", lease, percent=min(99, int(told[1])))

        def moved(done: int) -> None:
            told[1] = done * 100 // vmdk.size
            alive()

        try:
            host.call("POST", url, body=self._stream(vmdk.offset, vmdk.size, alive, moved), attempts=3,
                      headers={"content-length": str(vmdk.size), "content-type": STREAM})  # fmt: skip
        except NetworkError as e:
            e.hint = e.hint or "the disk goes to the host itself, which must be reachable from here by its name"
            raise

    def _remove_machine(self) -> None:
        """What was begun, and nothing else that has its name."""
        there = self._in.machine(self._name, "config.annotation")
        if there is not None and self._image.digest in there[1].get("config.annotation", Node()).text():
            try:
                self._vim.task("Destroy_Task", there[0])
            except RefusedError as e:
                if e.code != "ManagedObjectNotFound":
                    raise

    def _stream(self, offset: int, size: int, begin: Callable[[], None],
                moved: Callable[[int], None] = lambda done: None) -> Callable[[], BinaryIO]:  # fmt: skip
        def report(done: int) -> None:
            self._job.progress(self._image.path.name, done, size)
            moved(done)

        def opened() -> BinaryIO:
            begin()
            return io.BufferedReader(_Part(self._image.path, offset, size, report), 256 << 10)

        return opened


class _Part(io.RawIOBase):
    """A part of a file, told how far it has been read."""

    def __init__(self, path: Path, offset: int, size: int, report: Callable[[int], None]) -> None:
        self._file = path.open("rb", buffering=0)
        self._file.seek(offset)
        self._done, self._size, self._report = 0, size, report

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        data = self._file.read(min(len(buffer), self._size - self._done))
        buffer[: len(data)] = data
        self._done += len(data)
        self._report(self._done)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()
