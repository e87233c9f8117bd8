"""Firecracker: its configuration file, its command line, the call that stops a machine.

    { "boot-source": kernel_image_path, initrd_path, boot_args   "machine-config": vcpu_count, mem_size_mib
      "drives": [ drive_id, path_on_host, is_root_device, is_read_only ]   "network-interfaces": [ … host_dev_name ] }

It takes an uncompressed ELF kernel on x86, an Image on arm64 (`vmlinux`); disks are virtio, raw. Its network is a tap
device that exists. Ctrl-Alt-Del is how it asks a guest to shut down; there is none on arm64.

firecracker-microvm/firecracker, src/firecracker/swagger/firecracker.yaml.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from linuxkit.errors import HostError, InputError
from linuxkit.hypervisors import ready
from linuxkit.hypervisors.drives import Takes
from linuxkit.hypervisors.guest import (
    Call,
    Command,
    Definition,
    Guest,
    Signal,
    check_path,
    parse_networking,
)
from linuxkit.hypervisors.local import LocalRun
from linuxkit.places.place import Setting
from linuxkit.platforms import accel

NETWORKS = {"none": False, "tap": True}
#: What its machines need: no PCI to look for, an end at a reboot, no probing of a keyboard that isn't there.
ARGUMENTS = ("reboot=k", "panic=1", "i8042.noaux", "i8042.nomux", "i8042.nopnp", "i8042.dumbkbd")


def command_line(guest: Guest) -> str:
    """The kernel's, with what Firecracker's machines need and the user has not said otherwise."""
    words = guest.cmdline.split()
    given = {word.split("=")[0] for word in words}
    wanted = [w for w in ARGUMENTS if w.split("=")[0] not in given and (guest.arch == "x86_64" or "8042" not in w)]
    return " ".join([guest.cmdline.strip(), *wanted]).strip()


def config(guest: Guest, *, networking: str = "none") -> dict[str, Any]:
    """The configuration file's content.

    Raises:
        InputError: the guest cannot be one of Firecracker's.
    """
    if guest.ports:
        raise InputError("--publish is not possible with Firecracker", hint="use --networking tap,IFACE and routes")
    if guest.kernel is None:
        raise InputError("Firecracker starts kernels, no disks", hint="linuxkit build --format kernel+initrd FILE.yml")
    kind, interface = parse_networking(networking, NETWORKS, "none")
    paths = [(drive.path, drive.readonly) for drive in guest.drives]
    paths += [(guest.data, True)] if guest.data is not None else []
    drives = [
        {"drive_id": f"disk{number}", "path_on_host": _text(path), "is_root_device": False, "is_read_only": readonly}
        for number, (path, readonly) in enumerate(paths)
    ]
    source = {"kernel_image_path": _text(guest.kernel), "boot_args": command_line(guest)}
    if guest.initrd is not None:
        source["initrd_path"] = _text(guest.initrd)
    card = {"iface_id": "eth0", "guest_mac": guest.mac, "host_dev_name": interface}
    return {
        "boot-source": source,
        "machine-config": {"vcpu_count": guest.cpus, "mem_size_mib": guest.memory},
        "drives": drives,
        "network-interfaces": [card] if kind == "tap" else [],
        "entropy": {},
    }


def _text(path: Path) -> str:
    return check_path(path, "", "Firecracker")  # JSON quotes the rest


def define(guest: Guest, *, firecracker: str, networking: str = "none") -> Definition:
    """Firecracker's configuration and command line."""
    at, socket = guest.state / "firecracker.json", guest.socket("firecracker.sock")
    text = json.dumps(config(guest, networking=networking), indent=2) + "\n"
    stop = Call(socket, "PUT", "/actions", '{"action_type": "SendCtrlAltDel"}')
    return Definition(
        files=((at, text),),
        machine=Command((firecracker, "--api-sock", str(socket), "--config-file", str(at))),
        stop=(stop,) if guest.arch == "x86_64" else (),
        kill=(Signal("SIGKILL"),),
        leaves=(socket,),
    )


RUN_SETTINGS = (
    *ready.SETTINGS, ready.KERNEL, ready.SQUASHFS, ready.EROFS,
    Setting("networking", "none, or tap,IFACE: a tap device that is there.", default="none", metavar="MODE"),
    Setting("firecracker", "firecracker to use.", default="firecracker", metavar="PROGRAM"),
)  # fmt: skip


def needs_kvm(run: LocalRun, what: str) -> None:
    """Refuse a machine without KVM."""
    this = accel.this_host()
    chosen = accel.choose("kvm:tcg", this, this.arch)
    if chosen.name != "kvm":
        run.refuse(HostError(f"{what} needs KVM: {chosen.why}", hint="linuxkit run qemu runs without"))


class Run(LocalRun):
    """A machine of Firecracker."""

    what = "Firecracker"
    systems = {"linux": "Linux"}
    takes = Takes(kernel="unpacked", cds=False)

    def check(self, guest: Guest) -> Guest:
        self._program = self.program(self.job["firecracker"], "get it from github.com/firecracker-microvm")
        needs_kvm(self, self.what)
        return guest

    def define(self, guest: Guest) -> Definition:
        return define(guest, firecracker=self._program, networking=self.job["networking"])
