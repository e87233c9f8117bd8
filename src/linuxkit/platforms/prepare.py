"""From what the user asked for to a MachineSpec: looks at this machine, makes what the guest needs, starts nothing."""

from __future__ import annotations

import os
import re
import secrets
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from linuxkit import host
from linuxkit.errors import HostError, InputError
from linuxkit.machine.helper import Device
from linuxkit.platforms import accel, bootfiles, bootimage, disks, firmware, memory, ports, qemu, shares


@dataclass(frozen=True, slots=True)
class Request:
    """What the user asked for; everything but the prefix has a default. Texts are as on the command line."""

    prefix: str
    cpus: int = 1
    memory: int | None = None  # MiB; None: computed from the image
    disks: tuple[str, ...] = ()
    publish: tuple[str, ...] = ()
    networking: str = "user"
    devices: tuple[str, ...] = ()
    usb: bool = False
    gui: bool = False
    accel: str = ""
    arch: str = ""
    qemu: Path | None = None
    state: Path | None = None
    uefi: bool | None = None  # None: when what is booted needs it
    firmware: Path | None = None
    secure_boot: bool = False
    vnc: str = ""
    virtiofs: tuple[str, ...] = ()  # [TAG=]FOLDER
    virtiofsd: Path | None = None
    ninep: tuple[str, ...] = ()  # the same, by 9p
    tpm: bool = False
    kind: bootfiles.Kind | None = None  # which of a prefix's files; None: what is there
    media: bootimage.Media | None = None  # what the image is plugged in as; None: as a disk, an ISO image as a CD
    trust_disk: bool = False  # a disk may lead to other files of this machine
    forgets: bool = False  # what the guest writes on the image is gone at its end
    cable: Device | None = None  # to the network between several machines
    extra: tuple[str, ...] = ()

    @property
    def state_dir(self) -> Path:
        return self.state or Path(f"{self.prefix.removesuffix('.iso')}-state")


@dataclass(frozen=True, slots=True)
class Prepared:
    """A machine that can be started, and what the user should know about it: one line each.

    The state folder is held from now on, until `lock` is closed.
    """

    spec: qemu.MachineSpec
    state: Path
    notes: tuple[str, ...]
    lock: StateLock
    helpers: tuple[Device, ...] = ()  # what serves its devices


class StateLock:
    """Holds the state folder: two machines with one disk would ruin it. Released when closed or when we end."""

    def __init__(self, state: Path) -> None:
        self._fd = os.open(state / "lock", os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)
        try:
            if sys.platform == "win32":
                import msvcrt

                msvcrt.locking(self._fd, msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            os.close(self._fd)
            raise HostError(
                f"a machine is running with {state} already", hint="end it, or give this one its own --state folder"
            ) from None

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> StateLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def make_state(state: Path) -> None:
    """Make the state folder.

    Raises:
        HostError: it cannot be made or written.
    """
    try:
        state.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as e:
        raise HostError(f"state folder {state} cannot be made: {e.strerror or e}", hint="choose another --state") from e
    if not os.access(state, os.W_OK | os.X_OK):
        raise HostError(f"state folder {state} cannot be written", hint="choose another with --state")


def mac_address(state: Path, name: str = "mac-addr") -> str:
    """The hardware address of a card: made once at random, kept in the state folder as text."""
    kept = state / name
    try:
        text = kept.read_text().strip()
        if re.fullmatch(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}", text) and not int(text[:2], 16) & 1:
            return text
    except (FileNotFoundError, UnicodeDecodeError):
        pass
    raw = bytearray(secrets.token_bytes(6))
    raw[0] = raw[0] & 0xFC | 0x02  # locally administered, unicast
    text = raw.hex(":")
    descriptor = os.open(kept, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_CLOEXEC", 0), 0o640)
    with open(descriptor, "w") as f:
        f.write(text)
    return text


def prepare(
    request: Request, *, write_data: Callable[[Path], None] | None = None, machine: accel.Host | None = None
) -> Prepared:
    """Everything that can be found out, chosen and refused before QEMU starts.

    Nothing is written before the request has been understood; then the state folder is made and held.

    Args:
        write_data: writes the ISO 9660 image that the guest sees as a CD; None for no CD.
        machine: this host, for tests.

    Raises:
        InputError: the request makes no sense.
        HostError: this machine lacks something.
    """
    wanted_disks = [disks.parse_disk(text) for text in request.disks]
    published = [port for text in request.publish for port in qemu.parse_ports(text)]
    networking = qemu.parse_networking(request.networking)
    if published and networking.kind is not qemu.Network.USER:
        raise InputError(
            "--publish works with --networking user only", hint="on a tap or bridge the guest has its own address"
        )
    folders = shares.parse_shares(request.virtiofs, "virtiofs")
    ninep = shares.parse_shares(request.ninep, "9p")
    vnc = qemu.parse_vnc(request.vnc) if request.vnc else ""
    files = bootfiles.find(request.prefix, request.kind, trust=request.trust_disk)
    machine = machine or accel.this_host()
    arch = accel.machine_arch(request.arch) if request.arch else files.arch or machine.arch
    if files.arch and arch != files.arch:
        raise InputError(f"{files.main} is for {files.arch}, not for {arch}", hint="leave --arch out")
    first = _boot_disk(files, request)
    program = request.qemu or host.find_tool(f"qemu-system-{accel.machine_arch(arch)}", why="to run a machine")
    if request.qemu and not os.access(request.qemu, os.X_OK):
        raise HostError(f"{request.qemu} is not a program", hint="give --qemu the path of qemu-system-" + arch)
    chosen = accel.choose(request.accel, machine, arch)
    if files.disk is not None and files.kernel is None and files.format != "raw":
        given = memory.memory_for_disk(files.disk, request.memory)
    else:
        given = memory.memory_for(files.initrd or files.packed, files.cmdline, request.memory)
    taken = ports.claim(published)
    uefi = files.uefi or (arch == "aarch64" and files.kernel is None) if request.uefi is None else request.uefi
    found = None
    if uefi or request.firmware is not None or request.secure_boot:
        found = firmware.find(arch, secure=request.secure_boot, given=request.firmware, qemu=program)
    helpers: tuple[Device, ...] = shares.virtiofsd(folders, request.virtiofsd)
    state = request.state_dir
    make_state(state)
    lock = StateLock(state)
    try:
        data = state / "data.iso" if write_data is not None else None
        if write_data is not None and data is not None:
            write_data(data)
        helpers += (shares.swtpm(state),) if request.tpm else ()
        helpers += (request.cable,) if request.cable is not None else ()
        spec = qemu.MachineSpec(
            qemu=program, accel=chosen, kernel=files.kernel, initrd=files.initrd, cmdline=files.cmdline, arch=arch,
            cpus=request.cpus, memory=given.mib, networking=networking, ports=taken,
            disks=(*first, *disks.make_disks(wanted_disks, state, trust=request.trust_disk)),
            mac=mac_address(state), data=data, devices=request.devices, usb=request.usb, gui=request.gui,
            vnc=vnc, virtiofs=folders, ninep=ninep, tpm=request.tpm,
            private_mac=mac_address(state, "mac-addr-private") if request.cable is not None else "",
            firmware=firmware.claim(found, state) if found is not None else None, extra=request.extra,
        )  # fmt: skip
    except BaseException:
        lock.close()
        raise
    return Prepared(spec, state, _notes(spec, chosen, given, files), lock, helpers)


def _boot_disk(files: bootfiles.BootFiles, request: Request) -> tuple[qemu.Disk, ...]:
    """The image, plugged in as the user wants it; a kernel's root and a CD are only read."""
    if files.disk is None:
        if request.media is not None:
            what = f"--media {request.media} is for an image, and {files.main} is a kernel"
            raise InputError(what, hint="leave it out")
        return ()
    return (qemu.Disk(files.disk, files.format, request.media or files.media, files.readonly, request.forgets),)


def _notes(
    spec: qemu.MachineSpec, chosen: accel.Accel, given: memory.Memory, files: bootfiles.BootFiles
) -> tuple[str, ...]:
    notes = [f"acceleration: {chosen.value} ({chosen.why})", f"memory: {given.mib} MB ({given.why})"]
    if files.others:
        root = f" with {files.disk}" if files.kernel is not None and files.disk is not None else ""
        notes.insert(0, f"booting: {files.main}{root}; also there: {', '.join(files.others)}")
    if spec.firmware is not None:
        notes.append(f"firmware: {spec.firmware.code} (UEFI{', Secure Boot' if spec.firmware.smm else ''})")
    if files.disk is not None and files.format == "vmdk" and files.readonly:
        notes.append(f"note: {files.disk} is compressed, so the guest cannot write on it")
    for kind, shared in (("virtiofs", spec.virtiofs), ("9p", spec.ninep)):
        options = "" if kind == "virtiofs" else " -o trans=virtio,version=9p2000.L"
        notes += [f"shared: {s.folder}; in the guest: mount -t {kind}{options} {s.tag} DIR" for s in shared]
    if spec.vnc:
        notes.append(f"screen: vnc://{spec.vnc.rpartition(':')[0]}:{5900 + int(spec.vnc.rpartition(':')[2])}")
    for port in spec.ports:
        address = port.address if port.address not in ("", "0.0.0.0") else "127.0.0.1"
        notes.append(f"published: {address}:{port.host} -> port {port.guest}/{port.protocol} of the machine")
    if spec.arch == "x86_64" and spec.initrd is not None and not spec.gui and "console=ttyS" not in files.cmdline:
        notes.append("note: the kernel command line has no console=ttyS0, so the console stays empty")
    return tuple(notes)
