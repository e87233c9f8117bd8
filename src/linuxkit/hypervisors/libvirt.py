"""libvirt: a domain's XML, and virsh, which defines it, is its console, and removes it.

    define web.xml   start --console --autodestroy   shutdown | destroy   undefine --nvram

Domain XML format, libvirt.org/formatdomain.html. The console is virsh's own, so the machine may be another one's
(`--connect qemu+ssh://…`) if the files are there under the same names. libvirt finds UEFI firmware by itself.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import replace
from xml.sax.saxutils import escape, quoteattr

from linuxkit.errors import HostError, InputError
from linuxkit.hypervisors import ready
from linuxkit.hypervisors.drives import Takes
from linuxkit.hypervisors.guest import Command, Definition, Drive, Guest, check_name, parse_networking
from linuxkit.hypervisors.local import LocalRun
from linuxkit.places.place import Setting
from linuxkit.platforms import accel
from linuxkit.platforms.bootimage import Media

NETWORKS = {"user": False, "network": True, "bridge": True, "tap": True, "none": False}


def machine_name(name: str) -> str:
    """A name that virsh takes for one: it would find a number or a UUID first.

    Raises:
        InputError: it is none.
    """
    if re.fullmatch(r"[0-9]+|[0-9a-fA-F]{8}(-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}", name):
        raise InputError(f"{name!r} cannot be a domain's name: libvirt takes it for an id", hint="give another --name")
    return check_name(name)


def _storage(drive: Drive, target: str, bus: str, order: int, serial: str) -> list[str]:
    device = "cdrom" if drive.media is Media.CD else "disk"
    more = "" if device == "cdrom" or drive.readonly else " discard='unmap'"
    return [
        f"    <disk type='file' device='{device}'>",
        f"      <driver name='qemu' type={quoteattr(drive.format)}{more}/>",
        f"      <source file={quoteattr(str(drive.path))}/>",
        f"      <target dev='{target}' bus='{bus}'/>",
        *(["      <readonly/>"] if device == "cdrom" or drive.readonly else []),
        *([f"      <serial>{serial}</serial>"] if device == "disk" else []),
        *([f"      <boot order='{order}'/>"] if order else []),
        "    </disk>",
    ]


def _drives(guest: Guest) -> list[str]:
    lines, disks, cds = [], 0, 0
    wanted = list(guest.drives)
    if guest.data is not None:
        wanted.append(Drive(guest.data, media=Media.CD, readonly=True))
    for number, drive in enumerate(wanted):
        order = 1 if number == 0 and guest.kernel is None else 0
        if drive.media is Media.CD:
            lines += _storage(drive, f"sd{chr(ord('a') + cds)}", "scsi", order, "")
            cds += 1
        else:
            if disks == 26:
                raise InputError("libvirt takes at most 26 disks here", hint="leave some --disk out")
            lines += _storage(drive, f"vd{chr(ord('a') + disks)}", "virtio", order, f"disk{disks}")
            disks += 1
    return lines + (["    <controller type='scsi' model='virtio-scsi'/>"] if cds else [])


def _network(guest: Guest, networking: str) -> list[str]:
    kind, name = parse_networking(networking, NETWORKS, "user")
    if guest.ports and kind != "user":
        raise InputError("--publish works with --networking user only", hint="elsewhere the guest has its own address")
    if kind == "none":
        return []
    source = {
        "network": "<source network=%s/>", "bridge": "<source bridge=%s/>", "tap": "<target dev=%s managed='no'/>",
    }  # fmt: skip
    lines = [f"    <interface type='{'ethernet' if kind == 'tap' else kind}'>"]
    lines += ["      <backend type='passt'/>"] if guest.ports else []
    lines += [f"      <mac address='{guest.mac}'/>"] if guest.mac else []
    lines += ["      " + source[kind] % quoteattr(name)] if name else []
    for port in guest.ports:
        address = f" address={quoteattr(port.address)}" if port.address else ""
        lines += [f"      <portForward proto='{port.protocol}'{address}>",
                  f"        <range start='{port.host}' to='{port.guest}'/>", "      </portForward>"]  # fmt: skip
    return [*lines, "      <model type='virtio'/>", "    </interface>"]


def _start(guest: Guest) -> list[str]:
    machine = "virt" if guest.arch == "aarch64" else "q35"
    lines = [f"  <os{' firmware=' + quoteattr('efi') if guest.uefi else ''}>",
             f"    <type arch='{guest.arch}' machine='{machine}'>hvm</type>"]  # fmt: skip
    if guest.uefi:
        lines += ["    <firmware>", "      <feature enabled='no' name='secure-boot'/>", "    </firmware>"]
    if guest.kernel is not None:
        lines += [f"    <kernel>{escape(str(guest.kernel))}</kernel>"]
        lines += [f"    <initrd>{escape(str(guest.initrd))}</initrd>"] if guest.initrd is not None else []
        lines += [f"    <cmdline>{escape(guest.cmdline)}</cmdline>"] if guest.cmdline else []
    return [*lines, "  </os>"]


def xml(guest: Guest, *, networking: str = "user", kvm: bool = True) -> str:
    """The domain's definition.

    Args:
        kvm: with the processor's help; else emulated.

    Raises:
        InputError: the network makes no sense, or something contains what XML can't.
    """
    features = ["    <acpi/>"] if guest.arch == "x86_64" or guest.uefi else []  # on arm64 ACPI comes with UEFI
    lines = [
        f"<domain type='{'kvm' if kvm else 'qemu'}'>",
        f"  <name>{escape(machine_name(guest.name))}</name>",
        f"  <memory unit='MiB'>{guest.memory}</memory>",
        f"  <vcpu>{guest.cpus}</vcpu>",
        *_start(guest),
        *(["  <features>", *features, "  </features>"] if features else []),
        f"  <cpu mode='{'host-passthrough' if kvm else 'maximum'}'/>",
        "  <clock offset='utc'/>",
        "  <on_poweroff>destroy</on_poweroff>",
        "  <on_reboot>restart</on_reboot>",
        "  <on_crash>destroy</on_crash>",
        "  <devices>",
        *_drives(guest),
        "    <controller type='usb' model='none'/>",
        *_network(guest, networking),
        "    <serial type='pty'/>",
        "    <rng model='virtio'>",
        "      <backend model='random'>/dev/urandom</backend>",
        "    </rng>",
        "    <memballoon model='none'/>",
        "  </devices>",
        "</domain>",
    ]
    text = "\n".join(lines) + "\n"
    bad = re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]", text)
    if bad:
        raise InputError(f"the domain would contain {bad[0]!r}, which XML cannot", hint="rename the file")
    return text


def define(guest: Guest, *, virsh: str, uri: str, networking: str = "user", kvm: bool = True,
           keep: bool = False) -> Definition:  # fmt: skip
    """How virsh brings it into being. Without `keep` the machine ends with its console, even when we are killed."""
    at = guest.state / "domain.xml"
    program = (virsh, "--quiet", f"--connect={uri}")
    domain = f"--domain={guest.name}"

    def command(*words: str) -> Command:
        return Command((*program, *words))

    return Definition(
        files=((at, xml(guest, networking=networking, kvm=kvm)),),
        taken=command("domuuid", domain),
        make=(command("define", f"--file={at}"),),
        machine=command("start", domain, "--console", *([] if keep else ["--autodestroy"])),
        running=(command("domid", domain), r"^[0-9]+\s*$"),
        stop=(command("shutdown", domain),),
        kill=(command("destroy", domain),),
        remove=(command("undefine", domain, *(["--nvram"] if guest.uefi else [])),),
    )


def default_uri(root: bool) -> str:
    """Where virsh connects to: the user's own libvirt, and for root the system's."""
    return "qemu:///system" if root else "qemu:///session"


RUN_SETTINGS = (
    *ready.SETTINGS, ready.KERNEL, ready.SQUASHFS, ready.EROFS, ready.ISO, ready.PUBLISH,
    Setting("connect", "libvirt to connect to; by default qemu:///session, for root qemu:///system.",
            env=("LIBVIRT_DEFAULT_URI", "VIRSH_DEFAULT_CONNECT_URI"), metavar="URI"),
    Setting("networking", "user, network,NAME, bridge,BRIDGE, tap,IFACE or none.", default="user", metavar="MODE"),
    Setting("accel", "kvm or tcg; by default what can work.", metavar="NAME"),
    Setting("uefi", "Start with UEFI firmware.", default=False, kind=bool),
    Setting("virsh", "virsh to use.", default="virsh", metavar="PROGRAM"),
)  # fmt: skip


class Run(LocalRun):
    """A domain of libvirt."""

    what = "libvirt"
    takes = Takes(
        kernel="file", images=(".img", "-bios.img", "-efi.img", ".qcow2", "-efi.qcow2", ".iso", "-efi.iso"),
        formats=("raw", "qcow2", "vmdk", "vhdx", "vpc", "vdi"), foreign=True,
    )  # fmt: skip

    def check(self, guest: Guest) -> Guest:
        self._virsh = self.program(self.job["virsh"], "on Debian: apt-get install libvirt-clients")
        self._uri = self.job["connect"] or default_uri(hasattr(os, "geteuid") and os.geteuid() == 0)
        if guest.ports and "+" not in self._uri.partition(":")[0] and shutil.which("passt") is None:
            self.refuse(HostError("--publish needs passt, which is not installed", hint="apt-get install passt"))
        if self.job["accel"] not in ("", "kvm", "tcg"):
            raise InputError(f"--accel {self.job['accel']!r} is not known", hint="use kvm or tcg")
        try:
            self._kvm = accel.choose(self.job["accel"] or "kvm:tcg", accel.this_host(), guest.arch).name == "kvm"
        except HostError as e:
            self.refuse(e)
            self._kvm = True
        return replace(guest, uefi=guest.uefi or self.job["uefi"])

    def define(self, guest: Guest) -> Definition:
        return define(guest, virsh=self._virsh, uri=self._uri, networking=self.job["networking"], kvm=self._kvm,
                      keep=self.job.keep)  # fmt: skip
