"""Bootable CDs, which boot from a USB stick as well: iso, iso-efi-initrd, iso-bios, iso-efi.

    NAME.iso             iso: isolinux for a BIOS, and a FAT image with the EFI program: one CD for both
    NAME-efi-initrd.iso  only the EFI program
    NAME.iso             iso-bios: isolinux; the CD is the root filesystem
    NAME-efi.iso         iso-efi: the EFI program; the CD is the root filesystem

    MBR, GPT │ ISO 9660: boot/efi.img (FAT: EFI/BOOT/BOOTX64.EFI)  isolinux/{isolinux.bin,ldlinux.c32,isolinux.cfg}
             │           kernel  initrd.img                       │ GPT

Firmware finds its part by El Torito when the image is a CD, and by the partition tables when it is a disk.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from linuxkit.encode import eltorito, fat, iso9660, isohybrid
from linuxkit.encode.pieces import Piece, literal, padded
from linuxkit.encode.tree import tree
from linuxkit.entry import FIXED_MTIME, Entry, Kind, digest_of
from linuxkit.errors import InputError
from linuxkit.outputs import efi
from linuxkit.outputs.bios import ARCHITECTURE, check_architecture, checked_kernel, configuration
from linuxkit.outputs.bios import MODULE as LDLINUX
from linuxkit.outputs.bootstage import Root, boot_initrd, cmdline_with
from linuxkit.outputs.build import Build
from linuxkit.outputs.filesystems import LABEL, once
from linuxkit.outputs.initrd import whole
from linuxkit.outputs.pieces import OutputFile
from linuxkit.plan.asked import SYSLINUX

ISOLINUX, BOOT_CODE = "usr/lib/ISOLINUX/isolinux.bin", "usr/lib/ISOLINUX/isohdpfx.bin"
#: Places on the CD.
EFI_IMAGE, LOADER = "boot/efi.img", "isolinux/isolinux.bin"
#: Sectors of isolinux.bin that a BIOS loads; isolinux loads the rest.
LOADED = 4


def make_iso(build: Build, base: str) -> list[OutputFile]:
    """BASE.iso: a CD for BIOS and UEFI, with the root filesystem in an initrd."""
    return [OutputFile(f"{base}.iso", "iso", tuple(initrd_cd(build, bios=build.plan.architecture == ARCHITECTURE)))]


def make_iso_efi_initrd(build: Build, base: str) -> list[OutputFile]:
    """BASE-efi-initrd.iso: a CD for UEFI, with the root filesystem in an initrd."""
    return [OutputFile(f"{base}-efi-initrd.iso", "iso-efi-initrd", tuple(initrd_cd(build, bios=False)))]


def initrd_cd(build: Build, *, bios: bool) -> list[Piece]:
    """A CD whose loaders have the whole system: an EFI program, and with `bios` isolinux with kernel and initrd."""
    files: dict[str, Sequence[Piece]] = {EFI_IMAGE: efi_image(build, efi.uki(build))}
    if bios:
        files |= {"kernel": checked_kernel(build), "initrd.img": whole(build)}
        files |= isolinux(build, configuration(build.boot.cmdline, "/kernel", "/initrd.img"))
    entries = [Entry(path, Kind.FILE, 0o644, mtime=FIXED_MTIME) for path in files]
    volume = iso9660.volume(tree(entries), LABEL, boot=boots(files), contents=files)
    return as_disk(build, volume, files)


def make_iso_bios(build: Build, base: str) -> list[OutputFile]:
    """BASE.iso: a CD for a BIOS, which is the root filesystem."""
    check_architecture(build)
    return [OutputFile(f"{base}.iso", "iso-bios", tuple(root_cd(build, bios=True)))]


def make_iso_efi(build: Build, base: str) -> list[OutputFile]:
    """BASE-efi.iso: a CD for UEFI, which is the root filesystem."""
    return [OutputFile(f"{base}-efi.iso", "iso-efi", tuple(root_cd(build, bios=False)))]


def root_cd(build: Build, *, bios: bool) -> list[Piece]:
    """A CD with the root filesystem on it, and a loader: isolinux or an EFI program. Its label is where the root is.

    Raises:
        InputError: the root is to be verified, but what would verify it is in it.
        ImageError: the kernel can't read such a root.
    """
    if build.verity:
        raise InputError("--verity: the CD holds the command line, which would have to hold the hash of the CD",
                         hint="take kernel+iso, or a disk such as raw with --root squashfs")  # fmt: skip
    root = Root("iso9660", f"LABEL={LABEL}")
    initrd, cmdline = boot_initrd(build, root), cmdline_with(build, root)
    files: dict[str, Sequence[Piece]] = {}
    if bios:
        files["boot/kernel"] = checked_kernel(build)
        if archives := whole(build, initrd):
            files["boot/initrd.img"] = archives
        files |= isolinux(build, configuration(cmdline, "/boot/kernel", "/boot/initrd.img" if archives else ""))
    else:
        files[EFI_IMAGE] = efi_image(build, efi.uki(build, cmdline=cmdline, initrd=initrd))

    def make() -> list[Piece]:
        entries = [Entry(path, Kind.FILE, 0o644, mtime=FIXED_MTIME) for path in files]
        volume = iso9660.volume(build.tree(entries), LABEL, boot=boots(files), contents=files)
        return as_disk(build, volume, files)

    about = (f"{path} {pieces!r}".encode() for path, pieces in files.items())
    key = digest_of([b"iso", b"%d" % iso9660.VERSION, build.root_key.encode(), build.seed.encode(), *about])
    return once(build, key, make)


def efi_image(build: Build, program: Sequence[Piece]) -> list[Piece]:
    """What UEFI firmware starts on a CD: a FAT volume with the program in it."""
    made = fat.volume({efi.program_path(build): program}, seed=build.seed, label="ESP")
    return padded(made.pieces, -(-made.size // iso9660.SECTOR) * iso9660.SECTOR)


def isolinux(build: Build, config: bytes) -> dict[str, Sequence[Piece]]:
    """isolinux' files, by path."""
    return {
        LOADER: [literal(build.loader(SYSLINUX, ISOLINUX))],
        "isolinux/ldlinux.c32": [literal(build.loader(SYSLINUX, LDLINUX))],
        "isolinux/isolinux.cfg": [literal(config)],
    }


def boots(files: Mapping[str, object]) -> list[iso9660.Boot]:
    """What the boot catalogue names, of what there is on a CD."""
    bios = iso9660.Boot(eltorito.Platform.BIOS, LOADER, load=LOADED, info=True)
    uefi = iso9660.Boot(eltorito.Platform.EFI, EFI_IMAGE)
    return [boot for boot in (bios, uefi) if boot.path in files]


def as_disk(build: Build, volume: iso9660.Volume, files: Mapping[str, object]) -> list[Piece]:
    """The CD with partition tables, so that it boots from a disk or a USB stick, too."""
    bios = LOADER in files
    return isohybrid.hybrid(
        volume, seed=build.seed, code=build.loader(SYSLINUX, BOOT_CODE) if bios else b"",
        loader=LOADER if bios else "", esp=EFI_IMAGE if EFI_IMAGE in files else "",
    )  # fmt: skip
