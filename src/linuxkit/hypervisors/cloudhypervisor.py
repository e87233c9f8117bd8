"""Cloud Hypervisor: its command line.

    --kernel K --initramfs I --cmdline C | --firmware F    --disk path=…,readonly=on …  --net tap=…,mac=…  --serial tty

A value in one of its lists stands in double quotes when it has a comma or a bracket; a double quote in it cannot be
written. A kernel is an ELF file with a PVH entry (`vmlinux`), which every version starts. Its HTTP socket has the power
button.

cloud-hypervisor, docs/ and vmm/src/api/openapi/cloud-hypervisor.yaml.
"""

from __future__ import annotations

from pathlib import Path

from linuxkit.errors import InputError
from linuxkit.hypervisors import ready
from linuxkit.hypervisors.drives import Takes
from linuxkit.hypervisors.firecracker import needs_kvm
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

NETWORKS = {"none": False, "tap": True}


def quoted(path: Path) -> str:
    """A path in a list."""
    text = check_path(path, '"', "Cloud Hypervisor")
    return f'"{text}"' if any(c in text for c in ",[]") else text


def define(guest: Guest, *, program: str, networking: str = "none", firmware: Path | None = None) -> Definition:
    """Its command line.

    Args:
        firmware: what starts a disk (rust-hypervisor-firmware, or CLOUDHV.fd of EDK II).
    """
    if guest.ports:
        raise InputError("--publish is not possible with Cloud Hypervisor", hint="use --networking tap,IFACE")
    kind, interface = parse_networking(networking, NETWORKS, "none")
    socket = guest.socket("cloud-hypervisor.sock")
    words = [program, "--api-socket", f"path={quoted(socket)}", "--cpus", f"boot={guest.cpus}"]
    words += ["--memory", f"size={guest.memory}M"]
    if guest.kernel is not None:
        words += ["--kernel", str(guest.kernel)]
        words += ["--initramfs", str(guest.initrd)] if guest.initrd is not None else []
        words += ["--cmdline", guest.cmdline] if guest.cmdline else []
    elif firmware is not None:
        words += ["--firmware", str(firmware)]
    else:
        raise InputError("Cloud Hypervisor starts a disk by firmware only", hint="give --fw FILE (hypervisor-fw)")
    disks = [f"path={quoted(drive.path)}" + ",readonly=on" * drive.readonly for drive in guest.drives]
    disks += [f"path={quoted(guest.data)},readonly=on"] if guest.data is not None else []
    words += ["--disk", *disks] if disks else []
    if kind == "tap":
        words += ["--net", f"tap={interface}" + (f",mac={guest.mac}" if guest.mac else "")]
    words += ["--rng", "src=/dev/urandom", "--serial", "tty", "--console", "off"]
    return Definition(
        machine=Command(tuple(words)), stop=(Call(socket, "PUT", "/api/v1/vm.power-button"),),
        kill=(Signal("SIGKILL"),), leaves=(socket,),
    )  # fmt: skip


RUN_SETTINGS = (
    *ready.SETTINGS, ready.KERNEL, ready.SQUASHFS, ready.EROFS,
    Setting("networking", "none, or tap,IFACE.", default="none", metavar="MODE"),
    Setting("fw", "Firmware that starts a disk: hypervisor-fw, or CLOUDHV.fd.", metavar="FILE"),
    Setting("cloud-hypervisor", "cloud-hypervisor to use.", default="cloud-hypervisor", metavar="PROGRAM"),
)  # fmt: skip
FIRMWARE = ("/usr/share/cloud-hypervisor/hypervisor-fw", "/usr/share/cloud-hypervisor/CLOUDHV.fd",
            "/usr/share/qemu/hypervisor-fw")  # fmt: skip


class Run(LocalRun):
    """A machine of Cloud Hypervisor."""

    what = "Cloud Hypervisor"
    systems = {"linux": "Linux"}
    takes = Takes(
        kernel="unpacked", images=("-efi.img", ".img", ".raw", "-efi.qcow2", ".qcow2"),
        formats=("raw", "qcow2", "vhdx"), cds=False,
    )  # fmt: skip

    def check(self, guest: Guest) -> Guest:
        self._program = self.program(self.job["cloud-hypervisor"], "get it from github.com/cloud-hypervisor")
        needs_kvm(self, self.what)
        usual = next((path for path in FIRMWARE if Path(path).is_file()), "")
        self._firmware = Path(self.job["fw"] or usual).absolute() if guest.kernel is None else None
        if self._firmware is not None and not self._firmware.is_file():
            raise InputError("Cloud Hypervisor starts a disk by firmware, and none is there",
                             hint="give --fw FILE (hypervisor-fw or CLOUDHV.fd)")  # fmt: skip
        return guest

    def define(self, guest: Guest) -> Definition:
        return define(guest, program=self._program, networking=self.job["networking"], firmware=self._firmware)
