"""Apple's Virtualization framework (macOS), through vfkit: its command line.

A kernel is started by the framework, on Apple silicon an uncompressed one; disks and CDs are started by its EFI
firmware (macOS 13). Devices are virtio, in lists whose commas nothing quotes. The console is the terminal, hvc0 to the
guest.

crc-org/vfkit, doc/usage.md.
"""

from __future__ import annotations

from linuxkit.errors import InputError
from linuxkit.hypervisors import ready
from linuxkit.hypervisors.drives import Takes
from linuxkit.hypervisors.guest import Call, Command, Definition, Guest, Signal, check_path, parse_networking
from linuxkit.hypervisors.local import LocalRun
from linuxkit.places.place import Setting
from linuxkit.platforms.shares import Share, parse_shares

NETWORKS = {"vmnet": False, "none": False}


def define(guest: Guest, *, vfkit: str, networking: str = "vmnet", shares: tuple[Share, ...] = (),
           gui: bool = False) -> Definition:  # fmt: skip
    """vfkit's command line.

    Args:
        shares: folders that the guest mounts by virtiofs.
    """
    if guest.ports:
        raise InputError("--publish is not possible here", hint="the guest has an address that this machine reaches")
    kind, _ = parse_networking(networking, NETWORKS, "vmnet")
    words = [vfkit, "--cpus", str(guest.cpus), "--memory", str(guest.memory)]
    if guest.kernel is not None:
        command_line = guest.cmdline
        if not any(word.startswith("console=hvc0") for word in command_line.split()):
            command_line = f"{command_line} console=hvc0".strip()
        words += ["--kernel", str(guest.kernel), "--initrd", str(guest.initrd), "--kernel-cmdline", command_line]
    else:
        store = check_path(guest.state / "efi-variables", ',"', "vfkit")
        words += ["--bootloader", f"efi,variable-store={store},create"]
    paths = [drive.path for drive in guest.drives] + ([guest.data] if guest.data is not None else [])
    devices = [f"virtio-blk,path={check_path(path, ',', 'vfkit')}" for path in paths]
    devices += [f"virtio-net,nat,mac={guest.mac}" if guest.mac else "virtio-net,nat"] if kind == "vmnet" else []
    devices += ["virtio-serial,stdio", "virtio-rng", "virtio-balloon"]
    for share in shares:
        folder = check_path(share.folder.absolute(), ",", "vfkit")
        devices.append(f"virtio-fs,sharedDir={folder},mountTag={share.tag}")
    if gui:
        devices += ["virtio-gpu", "virtio-input,keyboard", "virtio-input,pointing"]
    for device in devices:
        words += ["--device", device]
    words += ["--gui"] if gui else []
    socket = guest.socket("vfkit.sock")
    words += ["--restful-uri", f"unix://{socket}"]
    stop = Call(socket, "POST", "/vm/state", '{"state": "Stop"}')
    return Definition(machine=Command(tuple(words)), stop=(stop,), kill=(Signal("SIGKILL"),), leaves=(socket,))


RUN_SETTINGS = (
    *ready.SETTINGS, ready.KERNEL,
    Setting("networking", "vmnet or none.", default="vmnet", metavar="MODE"),
    Setting("virtiofs", "Share a folder of this machine: [TAG=]DIR. Repeatable.", many=True, metavar="[TAG=]DIR"),
    Setting("gui", "Open a window with the machine's screen.", default=False, kind=bool),
    Setting("vfkit", "vfkit to use.", default="vfkit", metavar="PROGRAM"),
)  # fmt: skip


class Run(LocalRun):
    """A machine of Apple's Virtualization framework."""

    what = "Apple's Virtualization framework"
    systems = {"darwin": "macOS"}
    takes = Takes(kernel="image", images=("-efi.img", ".img", ".raw", "-efi.iso", ".iso"), cds=False)

    def check(self, guest: Guest) -> Guest:
        self._vfkit = self.program(self.job["vfkit"], "brew install vfkit; or: linuxkit run qemu",
                                   ("/opt/homebrew/bin/vfkit", "/usr/local/bin/vfkit"))  # fmt: skip
        self._shares = parse_shares(self.job["virtiofs"], "virtiofs")
        return guest

    def define(self, guest: Guest) -> Definition:
        return define(guest, vfkit=self._vfkit, networking=self.job["networking"], shares=self._shares,
                      gui=self.job["gui"])  # fmt: skip
