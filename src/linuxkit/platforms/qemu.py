"""QEMU's command line: a MachineSpec in, arguments out. Pure; nothing here looks at the host.

What every machine gets: the board (q35, virt), a serial console, a virtio-serial port `org.linuxkit.report`, a random
number source, and nothing that was not asked for (-nodefaults). Devices are virtio.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from linuxkit.errors import InputError
from linuxkit.machine.machine import Channels
from linuxkit.platforms.accel import Accel
from linuxkit.platforms.bootimage import Media
from linuxkit.platforms.firmware import Firmware
from linuxkit.platforms.shares import Share

REPORT_PORT = "org.linuxkit.report"


class Network(StrEnum):
    """How the guest's network card is connected."""

    USER = "user"
    TAP = "tap"
    BRIDGE = "bridge"
    NONE = "none"


#: Most ports of one --publish: QEMU holds a socket open for each.
MAX_PUBLISHED = 512


@dataclass(frozen=True, slots=True)
class Networking:
    """The kind, and for a tap or bridge its interface."""

    kind: Network = Network.USER
    interface: str = ""


@dataclass(frozen=True, slots=True)
class Port:
    """A published port: what connects to `address`:`host` reaches the guest's port `guest`."""

    host: int
    guest: int
    protocol: str = "tcp"
    address: str = ""  # empty: every address of the host


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk image that exists."""

    path: Path
    format: str = "raw"
    media: Media = Media.DISK
    readonly: bool = False
    forgets: bool = False  # what is written is gone with the machine


@dataclass(frozen=True, slots=True)
class MachineSpec:
    """A machine to run. `memory` in MiB; `arch` as QEMU has it (x86_64, aarch64, riscv64).

    Without a kernel it boots from its first disk.
    """

    qemu: Path
    accel: Accel
    kernel: Path | None
    initrd: Path | None = None
    cmdline: str = ""
    arch: str = "x86_64"
    cpus: int = 1
    memory: int = 1024
    disks: tuple[Disk, ...] = ()
    networking: Networking = Networking()
    ports: tuple[Port, ...] = ()
    mac: str = ""
    data: Path | None = None  # an ISO 9660 image that the guest sees as a CD
    devices: tuple[str, ...] = ()
    usb: bool = False
    gui: bool = False
    vnc: str = ""  # [ADDRESS]:DISPLAY where the screen is shown
    virtiofs: tuple[Share, ...] = ()
    ninep: tuple[Share, ...] = ()
    tpm: bool = False
    private_mac: str = ""  # of a second network card, on the network between several machines
    firmware: Firmware | None = None  # UEFI; None: a BIOS
    extra: tuple[str, ...] = ()  # arguments as they are, for tests and benchmarks


def quoted(value: object) -> str:
    """A value inside one of QEMU's comma lists."""
    return str(value).replace(",", ",,")


def _file(path: Path) -> Path:
    """A disk's path; from the root when QEMU would take it for a protocol and something: `fat:rw:/etc`, `json:{…}`."""
    return path.absolute() if ":" in str(path) else path


def parse_networking(text: str) -> Networking:
    """`user`, `none`, `tap,IFACE` or `bridge,BRIDGE`.

    Raises:
        InputError: something else.
    """
    kind, _, interface = text.partition(",")
    kind = {"default": "user", "": "user"}.get(kind, kind)
    if kind not in set(Network) or bool(interface) != (kind in ("tap", "bridge")):
        raise InputError(f"--networking {text!r} is not understood", hint="use user, none, tap,IFACE or bridge,BRIDGE")
    return Networking(Network(kind), interface)


def parse_ports(text: str) -> tuple[Port, ...]:
    """`[ADDRESS:]HOST:GUEST[/tcp|udp]`, or ranges of the same length: `8080-8090:80-90`.

    A host port of 0 asks for a free one.

    Raises:
        InputError: something else.
    """
    rest, _, protocol = text.partition("/")
    parts = rest.rsplit(":", 2)
    hint = "use HOST:GUEST, such as 8080:80, 127.0.0.1:8080:80, 5353:53/udp or 8080-8090:80-90"
    ranges = [_range(part) for part in parts[-2:]]
    if len(parts) < 2 or None in ranges:
        raise InputError(f"--publish {text!r} is not understood", hint=hint)
    hosts, guests = (r for r in ranges if r is not None)
    if hosts[-1] > 65535 or guests[0] < 1 or guests[-1] > 65535 or (hosts[0] == 0 and len(hosts) > 1):
        raise InputError(f"--publish {text!r}: ports go from 1 to 65535", hint=hint)
    if len(hosts) != len(guests):
        raise InputError(f"--publish {text!r}: {len(hosts)} ports here and {len(guests)} in the guest",
                         hint="give two ranges of the same length, such as 8080-8090:80-90")  # fmt: skip
    if len(hosts) > MAX_PUBLISHED:
        raise InputError(f"--publish {text!r}: more than {MAX_PUBLISHED} ports",
                         hint="give the guest a network of its own: --networking bridge,BRIDGE")  # fmt: skip
    if protocol not in ("", "tcp", "udp") or (not protocol and text.endswith("/")):
        raise InputError(f"--publish {text!r}: the protocol is tcp or udp", hint=hint)
    address = parts[0].strip("[]") if len(parts) == 3 else ""
    if ":" in address:
        raise InputError(f"--publish {text!r}: QEMU publishes on IPv4 addresses only", hint=hint)
    return tuple(Port(h, g, protocol or "tcp", address) for h, g in zip(hosts, guests, strict=True))


def _range(text: str) -> range | None:
    """`80` or `80-90`; None: something else."""
    first, mark, last = text.partition("-")
    ends = (first, last if mark else first)
    if not all(p.isascii() and p.isdigit() and len(p) < 6 for p in ends):
        return None
    found = range(int(ends[0]), int(ends[1]) + 1)
    return found if found else None


def _board(spec: MachineSpec) -> list[str]:
    same = spec.accel.name != "tcg"
    if spec.arch == "aarch64":
        # pauth in software is by far the dearest thing an emulated boot does; impdef is QEMU's cheap variant of it
        cpu = "host" if same else "max,pauth-impdef=on"
        board = ["-machine", "virt,gic-version=max"]
    elif spec.arch == "riscv64":
        cpu = "host" if same else "rv64"
        board = ["-machine", "virt"]
    else:
        cpu = "host" if same else "max"
        smm = ",smm=on" if spec.firmware is not None and spec.firmware.smm else ""
        board = ["-machine", "q35,sata=off" + smm]  # an empty AHCI costs half a second of probing its ports
        if not spec.gui and not spec.vnc and spec.firmware is None and spec.kernel is not None:
            board += ["-bios", "qboot.rom"]  # hands over to the kernel without looking for anything to boot
    if spec.virtiofs:  # virtiofsd reads and writes the guest's memory
        board[1] += ",memory-backend=mem"
        board += ["-object", f"memory-backend-memfd,id=mem,size={spec.memory}M,share=on"]
    return [*board, "-accel", spec.accel.value, "-cpu", cpu]


def _firmware(spec: MachineSpec) -> list[str]:
    if spec.firmware is None:
        return []
    code, variables = spec.firmware.code, spec.firmware.variables
    drive = f"if=pflash,unit=%d,format={spec.firmware.format},file=%s"
    if variables is None:
        return ["-drive", drive % (0, quoted(code))]
    arguments = ["-drive", drive % (0, quoted(code)) + ",readonly=on", "-drive", drive % (1, quoted(variables))]
    if spec.firmware.smm:
        arguments += ["-global", "driver=cfi.pflash01,property=secure,value=on", "-global", "ICH9-LPC.disable_s3=1"]
    return arguments


def _network(spec: MachineSpec) -> list[str]:
    kind, interface = spec.networking.kind, quoted(spec.networking.interface)
    if kind is Network.NONE:
        return ["-nic", "none"]
    if kind is Network.TAP:
        netdev = f"tap,id=t0,ifname={interface},script=no,downscript=no"
    elif kind is Network.BRIDGE:
        netdev = f"bridge,id=t0,br={interface}"
    else:
        forwards = [f",hostfwd={p.protocol}:{p.address}:{p.host}-:{p.guest}" for p in spec.ports]
        netdev = "user,id=t0" + "".join(forwards)
    card = "virtio-net-pci,netdev=t0" + (f",mac={spec.mac}" if spec.mac else "")
    return ["-netdev", netdev, "-device", card + _no_rom(spec)]


def _storage(spec: MachineSpec) -> list[str]:
    """Disks are virtio, CDs are on a virtio SCSI bus, sticks on USB. Without a kernel the first is booted."""
    arguments = []
    if spec.usb or any(disk.media is Media.USB for disk in spec.disks):
        arguments += ["-device", "qemu-xhci,id=usb"]
    if spec.data is not None or any(disk.media is Media.CD for disk in spec.disks):
        arguments += ["-device", "virtio-scsi-pci,id=scsi0"]
    for number, disk in enumerate(spec.disks):
        drive = f"file={quoted(_file(disk.path))},format={quoted(disk.format)},if=none,id=disk{number}"
        drive += ",readonly=on" if disk.readonly else ",discard=unmap" + ",snapshot=on" * disk.forgets
        first = ",bootindex=0" if number == 0 and spec.kernel is None else ""
        device = {
            Media.DISK: f"virtio-blk-pci,drive=disk{number},serial=disk{number}",
            Media.CD: f"scsi-cd,drive=disk{number},bus=scsi0.0",
            Media.USB: f"usb-storage,drive=disk{number},bus=usb.0,removable=on",
        }[disk.media]
        arguments += ["-drive", drive + ",media=cdrom" * (disk.media is Media.CD), "-device", device + first]
    if spec.data is not None:
        drive = f"file={quoted(_file(spec.data))},format=raw,if=none,id=data,media=cdrom,readonly=on"
        arguments += ["-drive", drive, "-device", "scsi-cd,drive=data,bus=scsi0.0"]
    return arguments


def _screen(spec: MachineSpec) -> list[str]:
    if not spec.gui and not spec.vnc:
        return ["-display", "none"]
    shown = ["-display", f"vnc={spec.vnc}" if spec.vnc else "gtk"]
    if spec.arch != "x86_64":  # the board has neither a screen nor keys
        return [*shown, "-device", "virtio-gpu-pci", "-device", "virtio-keyboard-pci", "-device", "virtio-tablet-pci"]
    return [*shown, "-device", "virtio-vga", "-device", "virtio-tablet-pci"]


def _shares(spec: MachineSpec) -> list[str]:
    arguments = []
    for number, share in enumerate(spec.ninep):
        # the guest's owners and modes are kept beside the files, which stay this user's
        where = f"local,id=ninep{number},path={quoted(share.folder)},security_model=mapped-xattr"
        arguments += ["-fsdev", where, "-device", f"virtio-9p-pci,fsdev=ninep{number},mount_tag={share.tag}"]
    return arguments


def _helped(spec: MachineSpec, descriptors: Sequence[int]) -> list[str]:
    """Devices that others serve, in the order of their descriptors: folders, the TPM, the private network."""
    arguments, left = [], iter(descriptors)
    for number, share in enumerate(spec.virtiofs):
        arguments += ["-chardev", f"socket,id=virtiofs{number},fd={next(left)}"]
        arguments += ["-device", f"vhost-user-fs-pci,chardev=virtiofs{number},tag={share.tag}"]
    if spec.tpm:
        arguments += ["-chardev", f"socket,id=tpm,fd={next(left)}", "-tpmdev", "emulator,id=tpm0,chardev=tpm"]
        device = "tpm-tis" if spec.arch == "x86_64" else "tpm-tis-device"
        arguments += ["-device", f"{device},tpmdev=tpm0"]
    if spec.private_mac:
        arguments += ["-netdev", f"socket,id=t1,fd={next(left)}"]
        arguments += ["-device", f"virtio-net-pci,netdev=t1,mac={spec.private_mac}" + _no_rom(spec)]
    return arguments


def _no_rom(spec: MachineSpec) -> str:
    return ",romfile=" if spec.arch == "x86_64" else ""


def parse_vnc(text: str) -> str:
    """`[ADDRESS]:DISPLAY`, as QEMU takes it; without an address only this machine can look.

    Raises:
        InputError: something else.
    """
    found = re.fullmatch(r"([0-9.]*|\[[0-9a-fA-F:]+\]|[A-Za-z][A-Za-z0-9.-]*):([0-9]{1,4})", text, re.ASCII)
    if not found or int(found[2]) > 5900:
        raise InputError(f"--vnc {text!r} is not understood", hint="use :DISPLAY or ADDRESS:DISPLAY, such as :1")
    return f"{found[1] or '127.0.0.1'}:{int(found[2])}"


def command(spec: MachineSpec, channels: Channels) -> list[str]:
    """QEMU's command line for a machine.

    Args:
        channels: numbers of the connected sockets that QEMU inherits.
    """
    arguments = [str(spec.qemu), "-nodefaults", "-no-user-config", *_board(spec)]
    arguments += ["-smp", str(spec.cpus), "-m", f"{spec.memory}M"]
    arguments += _screen(spec)
    arguments += ["-chardev", f"socket,id=qmp,fd={channels.qmp}", "-mon", "chardev=qmp,mode=control"]
    arguments += ["-chardev", f"socket,id=console,fd={channels.console}", "-serial", "chardev:console"]
    arguments += ["-chardev", f"socket,id=report,fd={channels.report}", "-device", "virtio-serial-pci,id=ports"]
    arguments += ["-device", f"virtserialport,bus=ports.0,chardev=report,name={REPORT_PORT}"]
    arguments += ["-object", "rng-random,id=rng0,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng0"]
    arguments += _firmware(spec)
    if spec.kernel is not None:
        arguments += ["-kernel", str(spec.kernel)]
    if spec.initrd is not None:
        arguments += ["-initrd", quoted(spec.initrd)]  # a comma would separate modules
    arguments += ["-append", spec.cmdline] if spec.cmdline else []
    arguments += [*_storage(spec), *_network(spec), *_shares(spec), *_helped(spec, channels.helpers)]
    for device in spec.devices:
        arguments += ["-device", device]
    return [*arguments, *spec.extra]
