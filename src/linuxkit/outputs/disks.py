"""Disk files around a raw disk, and archives of it, for hypervisors and clouds.

    qcow2-bios   NAME.qcow2        QEMU, OpenStack        vmdk         NAME.vmdk   VMware: streamOptimized
    qcow2-efi    NAME-efi.qcow2    the same               ova          NAME.ova    VMware: with a machine
    aws          NAME.raw          Amazon                 vhd          NAME.vhd    Azure: fixed
    gcp          NAME.img.tar.gz   Google                 dynamic-vhd  NAME.vhd    Hyper-V, first generation
                                                          vhdx         NAME.vhdx   Hyper-V

The disk in all of them but qcow2-efi is that of the format raw, which BIOS and UEFI boot; where a machine has no BIOS,
that of raw-efi. What is compressed is compressed once and kept; the rest costs a few tables.
"""

from __future__ import annotations

from linuxkit.encode import cpio, gcp, ovf, qcow2, vhd, vhdx, vmdk
from linuxkit.encode.pieces import Piece, literal, size_of
from linuxkit.outputs import bios, efi
from linuxkit.outputs.build import Build
from linuxkit.outputs.kept import kept, sha256
from linuxkit.outputs.pieces import OutputFile

MIB = 1 << 20
#: Of a machine's memory in MiB: the least that is asked for; what the kernel and containers want besides the root.
_LEAST, _WORK = 1024, 256
#: Another version of what compresses may give other bytes.
_ZLIB = qcow2.library("zlib")


def make_qcow2_bios(build: Build, base: str) -> list[OutputFile]:
    """BASE.qcow2"""
    return [OutputFile(f"{base}.qcow2", "qcow2-bios", tuple(_qcow2(build, bios.hybrid_disk(build))))]


def make_qcow2_efi(build: Build, base: str) -> list[OutputFile]:
    """BASE-efi.qcow2"""
    return [OutputFile(f"{base}-efi.qcow2", "qcow2-efi", tuple(_qcow2(build, efi.disk(build))))]


def make_aws(build: Build, base: str) -> list[OutputFile]:
    """BASE.raw: the disk as it is."""
    return [OutputFile(f"{base}.raw", "aws", tuple(bios.hybrid_disk(build)))]


def make_gcp(build: Build, base: str) -> list[OutputFile]:
    """BASE.img.tar.gz: a disk of whole GiB."""
    disk = bios.hybrid_disk(build, unit=gcp.GIB)
    packed = kept(
        build, disk, ["gcp", str(gcp.VERSION), _ZLIB], lambda out: gcp.write(disk, out, threads=build.encoder.threads)
    )
    return [OutputFile(f"{base}.img.tar.gz", "gcp", (packed,))]


def make_vhd(build: Build, base: str) -> list[OutputFile]:
    """BASE.vhd, fixed."""
    return [OutputFile(f"{base}.vhd", "vhd", tuple(vhd.fixed(bios.hybrid_disk(build), seed=build.seed)))]


def make_dynamic_vhd(build: Build, base: str) -> list[OutputFile]:
    """BASE.vhd, dynamic."""
    return [OutputFile(f"{base}.vhd", "dynamic-vhd", tuple(vhd.dynamic(bios.hybrid_disk(build), seed=build.seed)))]


def make_vhdx(build: Build, base: str) -> list[OutputFile]:
    """BASE.vhdx"""
    return [OutputFile(f"{base}.vhdx", "vhdx", tuple(vhdx.image(bios.hybrid_disk(build), seed=build.seed)))]


def make_vmdk(build: Build, base: str) -> list[OutputFile]:
    """BASE.vmdk"""
    return [OutputFile(f"{base}.vmdk", "vmdk", tuple(_vmdk(build, bios.hybrid_disk(build), f"{base}.vmdk")))]


def make_ova(build: Build, base: str) -> list[OutputFile]:
    """BASE.ova: the machine's description, its manifest, its disk."""
    disk = bios.hybrid_disk(build)
    inner = _vmdk(build, disk, f"{base}.vmdk")
    firmware = "bios" if build.plan.architecture == bios.ARCHITECTURE else "efi"
    machine = ovf.Machine(base, f"{base}.vmdk", vmdk.virtual_size(disk), size_of(inner), _memory(build), firmware)
    text = [literal(ovf.descriptor(machine))]
    manifest = ovf.manifest([(f"{base}.ovf", sha256(build, text)), (f"{base}.vmdk", sha256(build, inner))])
    members = ((f"{base}.ovf", text), (f"{base}.mf", [literal(manifest)]), (f"{base}.vmdk", inner))
    return [OutputFile(f"{base}.ova", "ova", tuple(ovf.package(members)))]


def _qcow2(build: Build, disk: list[Piece]) -> list[Piece]:
    kind = build.qcow2
    if not kind:
        return qcow2.image(disk)
    return [kept(
        build, disk, ["qcow2", str(qcow2.VERSION), kind, qcow2.library(kind)],
        lambda out: qcow2.compress(disk, out, kind=kind, threads=build.encoder.threads),
    )]  # fmt: skip


def _vmdk(build: Build, disk: list[Piece], name: str) -> list[Piece]:
    body = kept(
        build, disk, ["vmdk", str(vmdk.VERSION), _ZLIB], lambda out: vmdk.body(disk, out, threads=build.encoder.threads)
    )
    return [literal(vmdk.head(vmdk.virtual_size(disk), name=name, seed=build.seed)), body]


def _memory(build: Build) -> int:
    """What to begin with, in MiB: an initramfs fills at most half of it; packed, it is there twice with UEFI."""
    if build.disk_root:
        return _LEAST
    unpacked = cpio.memory(e for s in build.segments(boot=False) for e in s.entries())
    needed = 2 * (unpacked + size_of(build.initrd)) // MIB + _WORK
    return max(_LEAST, -(-needed // 256) * 256)
