"""HyperKit (macOS on Intel): its command line.

    -A -u  -c N -m M  -s SLOT,DEVICE…  -l com1,stdio  -f kexec,KERNEL,INITRD,CMDLINE | bootrom,FIRMWARE,,

Its lists are separated by commas that nothing quotes: a path with a comma is refused. SIGTERM is its power button.
"""

from __future__ import annotations

import re
from pathlib import Path

from linuxkit.errors import HostError, InputError
from linuxkit.hypervisors import ready
from linuxkit.hypervisors.drives import Takes
from linuxkit.hypervisors.guest import Command, Definition, Drive, Guest, Signal, check_path
from linuxkit.hypervisors.local import LocalRun
from linuxkit.places.place import Setting
from linuxkit.platforms.bootimage import Media

HOME = "~/Library/Containers/com.docker.docker/Data"
FIRMWARE = "/Applications/Docker.app/Contents/Resources/uefi/UEFI.fd"


def _network(networking: str, home: Path, uuid: str) -> str:
    """The device of a network card; empty: none."""
    kind, _, rest = networking.partition(",")
    if kind == "none" and not rest:
        return ""
    if kind == "vmnet" and not rest:
        return "virtio-net"
    if kind in ("docker-for-mac", "default", "") and not rest:
        ethernet = home / "vpnkit.eth.sock"
    elif kind == "vpnkit" and rest and "," not in rest:
        ethernet = Path(rest)
    else:
        raise InputError(f"--networking {networking!r} is not understood",
                         hint="use docker-for-mac, vpnkit,SOCKET, vmnet or none")  # fmt: skip
    return f"virtio-vpnkit,path={check_path(ethernet, ',', 'hyperkit')},uuid={uuid}"


def define(guest: Guest, *, hyperkit: str, home: Path, uuid: str, vpnkit_uuid: str, networking: str = "docker-for-mac",
           firmware: Path | None = None, vsock_ports: str = "", ip: str = "") -> Definition:  # fmt: skip
    """HyperKit's command line.

    Args:
        home: Docker Desktop's folder, with vpnkit's socket.
        uuid: the machine's; vmnet gives an address by it.
        vpnkit_uuid: by which vpnkit gives it an address; `ip` is one that is asked for.
        firmware: UEFI's; without it a kernel is started.
    """
    if guest.ports:
        raise InputError("--publish is not possible with HyperKit here", hint="use --networking vmnet and its address")
    for text, what in ((uuid, "machine"), (vpnkit_uuid, "vpnkit")):
        if not re.fullmatch(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", text):
            raise InputError(f"{text!r} is no UUID for {what}", hint="uuidgen makes one")
    if not re.fullmatch(r"([0-9]{1,5}(,[0-9]{1,5})*)?", vsock_ports) or not re.fullmatch(r"[0-9.]*", ip):
        raise InputError(f"--vsock-ports {vsock_ports!r} or --ip {ip!r} is not understood", hint="use 2376,1525")
    devices = ["0:0,hostbridge", "31,lpc"]
    slots = []
    if card := _network(networking, home, vpnkit_uuid):
        slots.append(card + (f",preferred_ipv4={ip}" if ip and card != "virtio-net" else ""))
    drives = list(guest.drives)
    drives += [Drive(guest.data, media=Media.CD, readonly=True)] if guest.data is not None else []
    for drive in drives:
        kind = "ahci-cd" if drive.media is Media.CD else "virtio-blk"
        slots.append(f"{kind},{check_path(drive.path, ',', 'hyperkit')}")
    if vsock_ports:
        sock = f"virtio-sock,guest_cid=3,path={check_path(guest.state, ',', 'hyperkit')}"
        slots.append(f"{sock},guest_forwards={vsock_ports.replace(',', ';')}")
    slots.append("virtio-rnd")
    if len(slots) > 29:
        raise InputError("HyperKit has room for 29 devices", hint="leave some --disk out")
    devices += [f"{number}:0,{device}" for number, device in enumerate(slots, 1)]
    words = [hyperkit, "-A", "-u", "-F", str(guest.state / "hyperkit.pid"), "-U", uuid, "-c", str(guest.cpus),
             "-m", f"{guest.memory}M"]  # fmt: skip
    for device in devices:
        words += ["-s", device]
    words += ["-l", "com1,stdio"]
    if firmware is not None:
        words += ["-f", f"bootrom,{check_path(firmware, ',', 'hyperkit')},,"]
    elif guest.kernel is not None:
        initrd = check_path(guest.initrd, ",", "hyperkit") if guest.initrd is not None else ""
        words += ["-f", f"kexec,{check_path(guest.kernel, ',', 'hyperkit')},{initrd},{guest.cmdline}"]
    return Definition(
        machine=Command(tuple(words)), stop=(Signal("SIGTERM"),), kill=(Signal("SIGKILL"),),
        leaves=(guest.state / "hyperkit.pid",), ended=frozenset({0, 1, 2}),  # reset, power off, halt
    )  # fmt: skip


RUN_SETTINGS = (
    *ready.SETTINGS, ready.KERNEL, ready.SQUASHFS, ready.EROFS, ready.ISO,
    Setting("networking", "docker-for-mac, vpnkit,SOCKET, vmnet or none.", default="docker-for-mac", metavar="MODE"),
    Setting("ip", "Address to ask vpnkit for."),
    Setting("vpnkit-uuid", "UUID by which vpnkit gives an address; by default one that is kept.", metavar="UUID"),
    Setting("vsock-ports", "Ports of the guest's vsock to have as sockets in the state folder: 2376,1525.",
            metavar="PORTS"),
    Setting("console-file", "Keep the console in console.log only, and off this terminal.", default=False, kind=bool),
    Setting("uefi", "Start with UEFI firmware, as images always are.", default=False, kind=bool),
    Setting("fw", "UEFI firmware.", default=FIRMWARE, metavar="FILE"),
    Setting("hyperkit", "hyperkit to use.", default="hyperkit", metavar="PROGRAM"),
)  # fmt: skip
PLACES = ("com.docker.hyperkit", "/Applications/Docker.app/Contents/Resources/bin/com.docker.hyperkit")


class Run(LocalRun):
    """A machine of HyperKit."""

    what = "HyperKit"
    systems = {"darwin": "macOS"}
    takes = Takes(kernel="file", images=("-efi.img", ".img", "-efi.iso", ".iso"))

    def check(self, guest: Guest) -> Guest:
        self._program = self.program(self.job["hyperkit"], "brew install hyperkit, or get Docker Desktop", PLACES)
        if self.job["uefi"] and guest.kernel is not None:
            raise InputError(f"--uefi is for images, and {guest.kernel} is a kernel", hint="name the image itself")
        self._firmware = Path(self.job["fw"]).absolute() if guest.kernel is None else None
        if self._firmware is not None and not self._firmware.is_file():
            self.refuse(HostError(f"HyperKit starts images by UEFI firmware, and there is no {self._firmware}",
                                  hint="give --fw FILE"))  # fmt: skip
        return guest

    def define(self, guest: Guest) -> Definition:
        self._guest = guest
        return define(
            guest, hyperkit=self._program, home=Path(HOME).expanduser(), uuid=self.kept_uuid("hyperkit.uuid"),
            vpnkit_uuid=self.job["vpnkit-uuid"] or self.kept_uuid("vpnkit.uuid"), networking=self.job["networking"],
            firmware=self._firmware, vsock_ports=self.job["vsock-ports"], ip=self.job["ip"],
        )  # fmt: skip
