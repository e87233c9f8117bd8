"""Machines as hypervisors define them, for tests: plain ones, and one with hostile names; a disk with holes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from linuxkit.hypervisors import (
    cloudhypervisor,
    firecracker,
    hyperkit,
    hyperv,
    libvirt,
    vbox,
    virtualization,
    vmware,
)
from linuxkit.hypervisors.guest import Definition, Drive, Guest
from linuxkit.platforms.bootimage import Media
from linuxkit.platforms.qemu import Port
from linuxkit.platforms.shares import Share

UUID = "6b9f2a70-1f7b-4c1e-9a53-0d4c2f8e7a11"
KERNEL = Guest(
    "web", Path("/vm/web-state"), cpus=2, memory=1024, kernel=Path("/vm/web-kernel"), initrd=Path("/vm/web-initrd.img"),
    cmdline="console=ttyS0 quiet", drives=(Drive(Path("/vm/web-state/disk.img")),), data=Path("/vm/web-state/data.iso"),
    mac="02:00:00:00:00:01",
)  # fmt: skip
DISK = Guest("web", Path("/vm/web-state"), memory=2048, drives=(Drive(Path("/vm/web.img")),), mac="02:00:00:00:00:01")
#: Everything in a name or path that one of the languages gives a meaning to.
HOSTILE = "a'b\"c\u2019d $(id) `id` $x & <i> |7C ; --x"
EVIL = Guest(
    HOSTILE, Path("/vm") / HOSTILE, kernel=Path("/vm") / f"{HOSTILE}-kernel", initrd=Path("/vm") / f"{HOSTILE}-initrd",
    cmdline=f"console=ttyS0 x={HOSTILE}", drives=(Drive(Path("/vm") / f"{HOSTILE}.img"),), mac="02:00:00:00:00:01",
)  # fmt: skip


def wrapped(guest: Guest, form: str) -> Guest:
    return replace(guest, drives=tuple(replace(d, path=d.path.with_suffix(f".{form}"), format=form)
                                       for d in guest.drives))  # fmt: skip


def define_libvirt(guest: Guest, **more: object) -> Definition:
    return libvirt.define(guest, virsh="virsh", uri="qemu:///session", **more)  # type: ignore[arg-type]


def define_hyperkit(guest: Guest, **more: object) -> Definition:
    return hyperkit.define(guest, hyperkit="hyperkit", home=Path("/home/me/Data"), uuid=UUID, vpnkit_uuid=UUID,
                           **more)  # type: ignore[arg-type]  # fmt: skip


DRIVES = Drive(Path("/vm/web-efi.iso"), media=Media.CD, readonly=True), Drive(Path("/vm/web-state/disk.vhdx"), "vhdx")
CD = replace(DISK, drives=DRIVES, data=Path("/vm/web-state/data.iso"))
DEFINITIONS: dict[str, Callable[[], Definition]] = {
    "libvirt-kernel": lambda: define_libvirt(replace(KERNEL, ports=(Port(8080, 80), Port(53, 53, "udp", "127.0.0.1")))),
    "libvirt-disk": lambda: define_libvirt(replace(DISK, uefi=True), kvm=False, networking="network,net1", keep=True),
    "libvirt-arm64": lambda: define_libvirt(replace(KERNEL, arch="aarch64"), kvm=False, networking="tap,tap0"),
    "libvirt-cd": lambda: define_libvirt(replace(CD, drives=CD.drives[:1]), networking="bridge,br0"),
    "vbox-disk": lambda: vbox.define(
        replace(wrapped(DISK, "vmdk"), drives=(Drive(Path("/vm/boot.vmdk"), "vmdk"), Drive(Path("/vm/d.vmdk"), "vmdk")),
                data=Path("/vm/web-state/data.iso"), ports=(Port(8080, 80),)), vboxmanage="VBoxManage"),
    "vbox-cd": lambda: vbox.define(replace(CD, uefi=True, drives=CD.drives[:1]), vboxmanage="VBoxManage", gui=True,
                                   networking=("bridged,adapter=en0", "type=hostonly,adapter=vboxnet0")),
    "vmware-disk": lambda: vmware.define(wrapped(DISK, "vmdk"), vmrun="vmrun", product="ws"),
    "vmware-cd": lambda: vmware.define(
        replace(CD, uefi=True, drives=(CD.drives[0], Drive(Path("/vm/d.vmdk"), "vmdk"))), vmrun="vmrun",
        product="fusion", networking="custom,vmnet8", gui=True),
    "hyperv-cd": lambda: hyperv.define(CD, powershell="powershell"),
    "hyperv-disk": lambda: hyperv.define(wrapped(DISK, "vhdx"), powershell="powershell", switch="My 'switch'"),
    "hyperkit-kernel": lambda: define_hyperkit(KERNEL, vsock_ports="2376,1525", ip="192.168.65.9"),
    "hyperkit-iso": lambda: define_hyperkit(replace(CD, drives=CD.drives[:1]), networking="vmnet",
                                            firmware=Path("/fw/UEFI.fd")),
    "virtualization-kernel": lambda: virtualization.define(
        replace(KERNEL, arch="aarch64"), vfkit="vfkit", shares=(Share(Path("/vm/site"), "virtiofs0"),)),
    "virtualization-disk": lambda: virtualization.define(DISK, vfkit="vfkit", networking="none", gui=True),
    "firecracker": lambda: firecracker.define(KERNEL, firecracker="firecracker", networking="tap,tap0"),
    "firecracker-arm64": lambda: firecracker.define(
        replace(KERNEL, arch="aarch64", initrd=None, drives=(Drive(Path("/vm/web-squashfs.img"), readonly=True),)),
        firecracker="firecracker"),
    "cloud-hypervisor": lambda: cloudhypervisor.define(KERNEL, program="cloud-hypervisor", networking="tap,tap0"),
    "cloud-hypervisor-disk": lambda: cloudhypervisor.define(
        replace(DISK, drives=(Drive(Path("/vm/a,b[1].img")), Drive(Path("/vm/c.img"), readonly=True))),
        program="cloud-hypervisor", firmware=Path("/fw/hypervisor-fw")),
}  # fmt: skip


def disk(path: Path) -> bytes:
    """A raw disk with data here and there, on disk with its holes."""
    data = bytearray(5 << 20)
    for at, byte in ((0, 1), (70_000, 2), (3 << 20, 3), ((5 << 20) - 512, 4)):
        data[at : at + 512] = bytes([byte]) * 512
    with path.open("wb") as f:
        f.truncate(len(data))
        for at in (0, 69_632, 3 << 20, (5 << 20) - 4096):
            f.seek(at)
            f.write(data[at : at + 4096])
    return bytes(data)
