"""VirtualBox: the VBoxManage calls that make a machine, start it, and take it apart.

    createvm  modifyvm  storagectl  storageattach…      startvm      controlvm acpipowerbutton | poweroff
    storageattach --medium none, closemedium…  unregistervm --delete

A disk is taken off before the machine is deleted: with a machine VBoxManage deletes the disks that it has. The console
is the first serial port, which VirtualBox serves at a socket. What is booted is on the IDE controller, which a BIOS and
EFI know; further disks are on a virtio SCSI bus (VirtualBox 6.1 or later).

Oracle VM VirtualBox User Manual, chapter 8 (VBoxManage).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import replace

from linuxkit.errors import InputError
from linuxkit.hypervisors import ready
from linuxkit.hypervisors.drives import Takes
from linuxkit.hypervisors.guest import Command, Definition, Drive, Guest, check_name
from linuxkit.hypervisors.local import LocalRun
from linuxkit.places.place import Setting
from linuxkit.platforms.bootimage import Media

#: Kinds of network, and VBoxManage's option for the name that some have.
NETWORKS = {
    "nat": "", "none": "", "null": "", "bridged": "bridgeadapter", "hostonly": "hostonlyadapter", "intnet": "intnet",
    "natnetwork": "nat-network",
}  # fmt: skip
NAMED = ("bridged", "hostonly", "natnetwork")
MAX_CARDS = 8


def parse_network(text: str) -> tuple[str, str]:
    """`[type=]KIND[,adapter=NAME]`.

    Raises:
        InputError: something else.
    """
    kind = adapter = ""
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if not equals or key == "type":
            kind = value if equals else key
        elif key == "adapter":
            adapter = value
        else:
            kind = "?"
    if kind not in NETWORKS or (adapter and not NETWORKS[kind]) or (not adapter and kind in NAMED):
        raise InputError(f"--networking {text!r} is not understood",
                         hint=f"use [type=]KIND[,adapter=NAME] with {', '.join(NETWORKS)}")  # fmt: skip
    return kind, adapter


def _network(guest: Guest, networking: Sequence[str]) -> list[str]:
    cards = [parse_network(text) for text in networking] or [("nat", "")]
    if len(cards) > MAX_CARDS:
        raise InputError(f"VirtualBox takes at most {MAX_CARDS} network cards", hint="leave some --networking out")
    words = []
    for number, (kind, adapter) in enumerate(cards, 1):
        words += [f"--nic{number}", kind]
        if kind == "none":
            continue
        words += [f"--nictype{number}", "virtio", f"--cableconnected{number}", "on"]
        words += [f"--{NETWORKS[kind]}{number}", adapter] if adapter else []
    if guest.mac and cards[0][0] != "none":
        words += ["--macaddress1", guest.mac.replace(":", "").upper()]
    if guest.ports and cards[0][0] != "nat":
        raise InputError("--publish works when the first --networking is nat", hint="elsewhere it has its own address")
    for port in guest.ports:
        words += ["--natpf1", f"{port.protocol}{port.host},{port.protocol},{port.address},{port.host},,{port.guest}"]
    return words


def define(guest: Guest, *, vboxmanage: str, networking: Sequence[str] = (), gui: bool = False,
           console: str = "") -> Definition:  # fmt: skip
    """How VBoxManage makes it.

    Args:
        console: the socket (on Windows the pipe) of its serial port; in the state folder when not given.
    """
    name = check_name(guest.name)
    socket = console or str(guest.socket("console"))

    def command(*words: str) -> Command:
        return Command((vboxmanage, *words))

    settings = ["modifyvm", name, "--acpi", "on", "--ioapic", "on", "--rtcuseutc", "on", "--memory", str(guest.memory)]
    settings += ["--cpus", str(guest.cpus), "--firmware", "efi" if guest.uefi else "bios"]
    first = guest.drives[0].media if guest.drives else Media.DISK
    settings += ["--boot1", "dvd" if first is Media.CD else "disk", "--boot2", "none", "--boot3", "none"]
    settings += ["--boot4", "none", "--uart1", "0x3F8", "4", "--uartmode1", "server", socket]
    settings += _network(guest, networking)
    make = [
        command("createvm", "--name", name, "--ostype", "Linux26_64", "--basefolder", str(guest.state), "--register"),
        command(*settings), command("storagectl", name, "--name", "IDE", "--add", "ide", "--controller", "PIIX4"),
    ]  # fmt: skip
    more = guest.drives[1:]
    if more:
        make.append(command("storagectl", name, "--name", "SCSI", "--add", "virtio-scsi", "--controller", "VirtIO"))
    places = [("IDE", 0, drive) for drive in guest.drives[:1]]
    places += [("SCSI", number, drive) for number, drive in enumerate(more)]
    places += [("IDE", 1, Drive(guest.data, media=Media.CD, readonly=True))] if guest.data is not None else []
    remove = []
    for controller, port, drive in places:
        kind, of = ("dvddrive", "dvd") if drive.media is Media.CD else ("hdd", "disk")
        at = ("storageattach", name, "--storagectl", controller, "--port", str(port), "--device", "0")
        make.append(command(*at, "--type", kind, "--medium", str(drive.path)))
        remove += [command(*at, "--medium", "none"), command("closemedium", of, str(drive.path))]
    return Definition(
        taken=command("showvminfo", name, "--machinereadable"),
        make=tuple(make),
        start=command("startvm", name, "--type", "gui" if gui else "headless"),
        socket=socket,
        running=(command("showvminfo", name, "--machinereadable"), r'^VMState="(?!poweroff|aborted|saved)'),
        stop=(command("controlvm", name, "acpipowerbutton"),),
        kill=(command("controlvm", name, "poweroff"),),
        remove=(*remove, command("unregistervm", name, "--delete")),
    )


def machine_name(name: str) -> str:
    """A name that VBoxManage takes for one, and not for a UUID.

    Raises:
        InputError: it is none.
    """
    if re.fullmatch(r"\{?[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\}?", name):
        raise InputError(f"{name!r} cannot be a machine's name: VirtualBox takes it for an id",
                         hint="give another with --name")  # fmt: skip
    return check_name(name)


RUN_SETTINGS = (
    *ready.SETTINGS, ready.ISO, ready.PUBLISH,
    Setting("networking", "[type=]nat|bridged|hostonly|intnet|natnetwork|none[,adapter=NAME]; a card each. Repeatable.",
            many=True, metavar="NETWORK"),
    Setting("uefi", "Start with UEFI firmware.", default=False, kind=bool),
    Setting("gui", "Open a window with the machine's screen.", default=False, kind=bool),
    Setting("vboxmanage", "VBoxManage to use.", default="VBoxManage", metavar="PROGRAM"),
)  # fmt: skip
PLACES = ("/Applications/VirtualBox.app/Contents/MacOS/VBoxManage",
          r"C:\Program Files\Oracle\VirtualBox\VBoxManage.exe")  # fmt: skip


class Run(LocalRun):
    """A machine of VirtualBox."""

    what = "VirtualBox"
    takes = Takes(
        images=(".img", "-bios.img", "-efi.img", ".vmdk", ".iso", "-efi.iso", ".vhd"),
        formats=("vmdk", "vpc", "vdi"), wrap="vmdk",
    )  # fmt: skip

    def check(self, guest: Guest) -> Guest:
        self._program = self.program(self.job["vboxmanage"], "get VirtualBox from virtualbox.org", PLACES)
        machine_name(guest.name)
        return replace(guest, uefi=guest.uefi or self.job["uefi"])

    def define(self, guest: Guest) -> Definition:
        pipe = rf"\\.\pipe\{guest.name}-com1" if sys.platform == "win32" else ""
        return define(guest, vboxmanage=self._program, networking=self.job["networking"], gui=self.job["gui"],
                      console=pipe)  # fmt: skip
