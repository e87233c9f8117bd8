"""VMware Workstation and Fusion: a machine's .vmx file, and vmrun.

    start linuxkit.vmx nogui      list      stop linuxkit.vmx soft | hard

A value in a .vmx file stands between quotes; a quote, a bar or a control character in it is written |XX (its code in
hex), and a % in a name has a meaning. The card and the disk bus are VMware's own, vmxnet3 and pvscsi, for which the
kit's kernel has drivers. The console is the first serial port: a socket that VMware serves, on Windows a named pipe.
"""

from __future__ import annotations

import re
import sys
from dataclasses import replace

from linuxkit.errors import InputError
from linuxkit.hypervisors import ready
from linuxkit.hypervisors.drives import Takes
from linuxkit.hypervisors.guest import Command, Definition, Drive, Guest, check_name, parse_networking
from linuxkit.hypervisors.local import LocalRun
from linuxkit.places.place import Setting
from linuxkit.platforms.bootimage import Media

NETWORKS = {"nat": False, "bridged": False, "hostonly": False, "custom": True, "none": False}


def quoted(value: object) -> str:
    """A value in a .vmx file."""
    text = str(value)
    if any(0xD800 <= ord(c) < 0xE000 for c in text):
        raise InputError(f"{text!r} is no text that a .vmx file can hold", hint="rename the file")
    return '"' + "".join(f"|{ord(c):02X}" if c in '"|' or ord(c) < 32 or ord(c) == 127 else c for c in text) + '"'


def _network(guest: Guest, networking: str) -> list[tuple[str, object]]:
    kind, name = parse_networking(networking, NETWORKS, "nat")
    if kind == "none":
        return []
    card: list[tuple[str, object]] = [
        ("ethernet0.present", "TRUE"), ("ethernet0.virtualDev", "vmxnet3"), ("ethernet0.connectionType", kind),
        ("ethernet0.addressType", "generated"), ("ethernet0.wakeOnPcktRcv", "FALSE"),
    ]  # fmt: skip
    return card + ([("ethernet0.networkName", name), ("ethernet0.vnet", name)] if name else [])


def vmx(guest: Guest, *, networking: str = "nat", console: str = "") -> str:
    """The machine's .vmx file.

    Args:
        console: the socket or pipe of its serial port; in the state folder when not given.
    """
    values: list[tuple[str, object]] = [
        (".encoding", "UTF-8"), ("config.version", 8), ("virtualHW.version", 12),
        ("displayName", check_name(guest.name, forbidden="%")), ("guestOS", "other3xlinux-64"),
        ("memsize", guest.memory), ("numvcpus", guest.cpus), ("uuid.action", "create"), ("msg.autoAnswer", "TRUE"),
        ("floppy0.present", "FALSE"),
        ("powerType.powerOff", "soft"), ("pciBridge0.present", "TRUE"),
        ("pciBridge4.present", "TRUE"), ("pciBridge4.virtualDev", "pcieRootPort"), ("pciBridge4.functions", 8),
    ]  # fmt: skip
    values += [("firmware", "efi"), ("uefi.secureBoot.enabled", "FALSE")] if guest.uefi else []
    disks = [d for d in guest.drives if d.media is not Media.CD]
    cds = [d for d in guest.drives if d.media is Media.CD]
    cds += [Drive(guest.data, media=Media.CD, readonly=True)] if guest.data is not None else []
    if disks:
        values += [("scsi0.present", "TRUE"), ("scsi0.virtualDev", "pvscsi")]
    for number, drive in enumerate(disks):
        unit = number if number < 7 else number + 1  # 7 is the controller itself
        if unit > 15:
            raise InputError("VMware takes at most 15 disks on one controller", hint="leave some --disk out")
        values += [(f"scsi0:{unit}.present", "TRUE"), (f"scsi0:{unit}.deviceType", "scsi-hardDisk"),
                   (f"scsi0:{unit}.fileName", drive.path)]  # fmt: skip
    for number, drive in enumerate(cds):
        values += [(f"ide{number}:0.present", "TRUE"), (f"ide{number}:0.deviceType", "cdrom-image"),
                   (f"ide{number}:0.fileName", drive.path)]  # fmt: skip
    if guest.drives:
        first_is_cd = guest.drives[0].media is Media.CD
        values += [("bios.bootOrder", "cdrom,hdd" if first_is_cd else "hdd,cdrom")]
    values += [
        ("serial0.present", "TRUE"), ("serial0.fileType", "pipe"), ("serial0.fileName", console or _socket(guest)),
        ("serial0.pipe.endPoint", "server"), ("serial0.tryNoRxLoss", "TRUE"), ("serial0.startConnected", "TRUE"),
        *_network(guest, networking),
    ]  # fmt: skip
    return "".join(f"{key} = {quoted(value)}\n" for key, value in values)


def _socket(guest: Guest) -> str:
    return str(guest.socket("console"))


def define(guest: Guest, *, vmrun: str, product: str, networking: str = "nat", gui: bool = False,
           console: str = "") -> Definition:  # fmt: skip
    """How vmrun runs it.

    Args:
        product: `ws` (Workstation), `fusion` or `player`.
    """
    if guest.ports:
        raise InputError("--publish is not possible with VMware", hint="the guest has an address of its own")
    at = guest.state / "linuxkit.vmx"

    def command(*words: str) -> Command:
        return Command((vmrun, "-T", product, *words))

    return Definition(
        files=((at, vmx(guest, networking=networking, console=console)),),
        start=command("start", str(at), "gui" if gui else "nogui"),
        socket=console or _socket(guest),
        running=(command("list"), rf"^{re.escape(str(at))}\s*$"),
        stop=(command("stop", str(at), "soft"),),
        kill=(command("stop", str(at), "hard"),),
        leaves=(at, at.with_suffix(".vmxf"), at.with_suffix(".vmsd")),
    )


RUN_SETTINGS = (
    *ready.SETTINGS, ready.ISO,
    Setting("networking", "nat, bridged, hostonly, custom,VMNET or none.", default="nat", metavar="MODE"),
    Setting("uefi", "Start with UEFI firmware.", default=False, kind=bool),
    Setting("gui", "Open a window with the machine's screen.", default=False, kind=bool),
    Setting("vmrun", "vmrun to use.", default="vmrun", metavar="PROGRAM"),
)  # fmt: skip
PLACES = (
    "/Applications/VMware Fusion.app/Contents/Public/vmrun", "/Applications/VMware Fusion.app/Contents/Library/vmrun",
    r"C:\Program Files (x86)\VMware\VMware Workstation\vmrun.exe",
    r"C:\Program Files\VMware\VMware Workstation\vmrun.exe",
)  # fmt: skip


class Run(LocalRun):
    """A machine of VMware Workstation or Fusion."""

    what = "VMware"
    takes = Takes(
        images=(".img", "-bios.img", "-efi.img", ".vmdk", ".iso", "-efi.iso"), formats=("vmdk",), wrap="vmdk",
    )  # fmt: skip

    def check(self, guest: Guest) -> Guest:
        self._vmrun = self.program(self.job["vmrun"], "it comes with VMware Workstation and Fusion", PLACES)
        return replace(guest, uefi=guest.uefi or self.job["uefi"], state=guest.state.resolve())

    def define(self, guest: Guest) -> Definition:
        pipe = rf"\\.\pipe\{guest.name}-com1" if sys.platform == "win32" else ""
        return define(
            guest, vmrun=self._vmrun, product="fusion" if sys.platform == "darwin" else "ws",
            networking=self.job["networking"], gui=self.job["gui"], console=pipe,
        )  # fmt: skip
