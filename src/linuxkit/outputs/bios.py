"""What a PC's BIOS starts, by syslinux: raw-bios; and raw, which UEFI firmware starts as well.

    NAME-bios.img  MBR (mbr.bin) │ FAT, active: ldlinux.sys ldlinux.c32 syslinux.cfg kernel initrd.img
    NAME.img       MBR (gptmbr.bin) + GPT │ EFI system partition, FAT32: the same, and EFI/BOOT/BOOTX64.EFI
    with --root    the root filesystem in a second partition; the initrd only finds it

syslinux is installed by `encode/syslinux`. It never asks anything: there is one thing to boot, and no way to stop it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from linuxkit.encode import fat, gpt, mbr, syslinux
from linuxkit.encode.pieces import Piece, cut, literal, of_source, read
from linuxkit.errors import ImageError, InputError
from linuxkit.outputs import datapart, efi
from linuxkit.outputs.bootstage import Start
from linuxkit.outputs.build import Build
from linuxkit.outputs.diskroot import for_disk
from linuxkit.outputs.initrd import whole
from linuxkit.outputs.pieces import OutputFile
from linuxkit.plan.asked import SYSLINUX

#: What there is in the kit package with the loaders.
INSTALLER = "usr/bin/syslinux"
MODULE = "usr/lib/syslinux/modules/bios/ldlinux.c32"
MBR, GPT_MBR = "usr/lib/syslinux/mbr/mbr.bin", "usr/lib/syslinux/mbr/gptmbr.bin"
ARCHITECTURE = "amd64"
#: The longest command line of an x86 kernel.
MAX_CMDLINE = 2047
_FAT_TYPES = {12: mbr.FAT12, 16: mbr.FAT16, 32: mbr.FAT32}


def make_raw_bios(build: Build, base: str) -> list[OutputFile]:
    """BASE-bios.img: a disk for a BIOS."""
    return [OutputFile(f"{base}-bios.img", "raw-bios", tuple(disk(build)))]


def make_raw(build: Build, base: str) -> list[OutputFile]:
    """BASE.img: a disk for BIOS and UEFI."""
    return [OutputFile(f"{base}.img", "raw", tuple(hybrid_disk(build)))]


def disk(build: Build) -> list[Piece]:
    """A disk with an MBR: an active FAT partition with syslinux, kernel and initrd; then root and data, where wanted.

    Raises:
        ImageError, InputError: there is nothing that a BIOS could boot.
    """
    check_architecture(build)
    start = for_disk(build, f"PARTUUID={mbr.signature(build.seed):08x}-02")
    volume = system_volume(build, boot_files(build, start), label="LINUXKIT")
    parts = [mbr.Partition(volume.pieces, _FAT_TYPES[volume.bits], active=True)]
    parts += [mbr.Partition(start.root, mbr.LINUX)] if start.root else []
    parts += datapart.in_mbr(build)
    return mbr.disk(parts, seed=build.seed, code=build.loader(SYSLINUX, MBR), size=build.size)


def hybrid_disk(build: Build, *, unit: int = 1) -> list[Piece]:
    """A disk that BIOS and UEFI boot: a GPT and an EFI system partition with the EFI program and with syslinux.

    Where there is no BIOS, it is what UEFI alone needs. A root partition is the second.

    Args:
        unit: its size is a multiple of that many bytes.
    """
    if build.plan.architecture != ARCHITECTURE:
        return efi.disk(build, unit=unit)
    start = for_disk(build, efi.root_spec(build))
    program = efi.uki(build, cmdline=start.cmdline, initrd=start.initrd)
    files = {efi.program_path(build): program, **boot_files(build, start)}
    volume = system_volume(build, files, label="ESP", bits=32)
    part = gpt.Partition(volume.pieces, gpt.ESP, "EFI System", gpt.LEGACY_BOOT)
    parts = [part, *efi.root_partition(build, start), *datapart.in_gpt(build)]
    return gpt.disk(parts, seed=build.seed, code=build.loader(SYSLINUX, GPT_MBR), size=build.size, unit=unit)


def check_architecture(build: Build) -> None:
    """That there is a BIOS for the build's machine.

    Raises:
        InputError: there is none.
    """
    if build.plan.architecture != ARCHITECTURE:
        raise InputError(f"there is no BIOS boot for {build.plan.architecture}",
                         hint="take a format for UEFI, such as raw-efi")  # fmt: skip


def boot_files(build: Build, start: Start) -> dict[str, Sequence[Piece]]:
    """What syslinux boots, by path: kernel, initrd where there is one, and its configuration."""
    initrd = whole(build, start.initrd)
    text = configuration(start.cmdline, "/kernel", "/initrd.img" if initrd else "")
    files = {"kernel": checked_kernel(build), "initrd.img": initrd, "syslinux.cfg": [literal(text)]}
    return {path: pieces for path, pieces in files.items() if pieces}


def configuration(cmdline: bytes, kernel: str, initrd: str = "") -> bytes:
    """A configuration of syslinux or isolinux with one thing to boot, at once, whatever key is held down.

    Args:
        kernel, initrd: their paths on the volume.

    Raises:
        InputError: a command line that can't be handed on as it is.
    """
    added = f"BOOT_IMAGE={kernel} " + (f"initrd={initrd} " if initrd else "")
    if len(added) + len(cmdline) > MAX_CMDLINE:
        raise InputError(
            f"the kernel command line has {len(cmdline)} bytes, and syslinux can hand on {MAX_CMDLINE - len(added)}",
            hint="shorten kernel.cmdline, or use a format for UEFI",
        )
    if bad := sorted({byte for byte in cmdline if byte < 32}):
        raise InputError(f"the kernel command line has the character {bad[0]:#04x}, which syslinux can't hand on",
                         hint="write kernel.cmdline in one line")  # fmt: skip
    if initrd and b"initrd=" in cmdline:
        raise InputError("initrd= in the kernel command line would name another file to syslinux",
                         hint="leave it out of kernel.cmdline")  # fmt: skip
    lines = ["DEFAULT linux", "PROMPT 0", "NOESCAPE 1", "LABEL linux", f"  LINUX {kernel}"]
    lines += [f"  INITRD {initrd}"] if initrd else []
    append = b"  APPEND " + cmdline + b"\n" if cmdline.strip() else b""
    return "\n".join(lines).encode() + b"\n" + append


def checked_kernel(build: Build) -> list[Piece]:
    """The kernel, when it is one that syslinux can load.

    Raises:
        ImageError: it isn't there, or is no bzImage.
    """
    kernel = of_source(build.boot.kernel)
    where = build.plan.kernel.image.reference if build.plan.kernel else ""
    if not kernel:
        raise ImageError("a disk needs a kernel, and this build has none", hint="add kernel: to the YAML")
    head = b"".join(read(cut(kernel, 0, 1024)))
    if head[:2] == b"\x1f\x8b":
        raise ImageError(f"the kernel of {where} is compressed with gzip, and syslinux takes it as it is",
                         hint="build with --decompress-kernel")  # fmt: skip
    if head[0x202:0x206] != b"HdrS":
        raise ImageError(f"the kernel of {where} is not a Linux kernel for a PC (bzImage)",
                         hint="use a kernel image for amd64, such as kit://kernel")  # fmt: skip
    return kernel


def system_volume(
    build: Build, files: Mapping[str, Sequence[Piece]], *, label: str, bits: int = 0, hidden: int = efi.FIRST_SECTOR
) -> fat.Volume:
    """A FAT volume with these files, on which syslinux is installed.

    Args:
        bits: 12, 16 or 32; 0 chooses by the size.
        hidden: the sector of the disk at which it starts.
    """
    loader = syslinux.find(build.loader(SYSLINUX, INSTALLER), f"{INSTALLER} of kit://{SYSLINUX}")
    first = ("ldlinux.sys", "ldlinux.c32", "syslinux.cfg")

    def made(boot_sector: bytes, system: Sequence[Piece]) -> fat.Volume:
        content = {**files, "ldlinux.sys": system, "ldlinux.c32": [literal(build.loader(SYSLINUX, MODULE))]}
        return fat.volume(content, seed=build.seed, label=label, bits=bits, hidden=hidden, first=first,
                          boot_sector=boot_sector)  # fmt: skip

    place = made(b"", [Piece(loader.size)])  # where everything comes to lie
    installed = syslinux.install(loader, place.sectors("ldlinux.sys"))
    return made(installed.boot_sector, [literal(installed.system)])
