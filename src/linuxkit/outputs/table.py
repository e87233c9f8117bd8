"""The table of output formats, and where their files go."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from linuxkit.encode.authenticode import Signer
from linuxkit.errors import InputError
from linuxkit.outputs.build import Build, DataPartition
from linuxkit.outputs.filesystems import FILESYSTEMS
from linuxkit.outputs.pieces import OutputFile
from linuxkit.plan.asked import BOOTSTAGE, EFI_BOOT, RPI_BOOT, SYSLINUX
from linuxkit.rootfs.acls import dropped_by, left_out

DEFAULT, DEFAULT_STREAM = "kernel+initrd", "tar"
#: Values of --root; what --verity alone means.
IN_INITRD = "initrd"
DISK_ROOTS = tuple(name for name in FILESYSTEMS if name != "iso9660")
DEFAULT_VERIFIED = "squashfs"
DISK = "disk"
#: Formats that nothing boots from.
ARCHIVES = frozenset(("tar", "docker", "oci"))


@dataclass(frozen=True, slots=True)
class Format:
    """A value of --format.

    stream  it is one file, which can go to standard output.
    maker   of its files, imported when it is called: module below outputs, function.
    loaders kit packages with the boot loaders that go into it.
    root    where its root filesystem is: one of FILESYSTEMS, that on a device of its own; DISK, in an initrd or,
            with --root, in a partition; empty: neither is the case.
    endings what its files' names end in after NAME, the one to push first.
    """

    name: str
    summary: str
    maker: str
    stream: bool = False
    loaders: tuple[str, ...] = ()
    endings: tuple[str, ...] = ()
    root: str = ""

    def make(self, build: Build, base: str) -> list[OutputFile]:
        """Its files.

        Args:
            base: what their names start with.
        """
        module, _, name = self.maker.partition(":")
        maker: Callable[[Build, str], list[OutputFile]]
        maker = getattr(importlib.import_module(f"linuxkit.outputs.{module}"), name)
        return maker(build, base)

    def in_memory(self, root: str) -> bool:
        """Its root filesystem is in an initrd, when `root` is the filesystem of a disk's root partition."""
        return self.name not in ARCHIVES and not self.on_device and not (self.root == DISK and root)

    def filesystem(self, root: str) -> str:
        """What its root filesystem is, when `root` is that of a disk's root partition; empty: an initrd."""
        return root if self.root == DISK else self.root

    @property
    def on_device(self) -> bool:
        """Its root filesystem is always on a device of its own."""
        return self.root in FILESYSTEMS


#: What a disk that BIOS and UEFI boot is made with.
_BOTH = (EFI_BOOT, SYSLINUX)
FORMATS = {
    f.name: f
    for f in (
        Format("aws", "NAME.raw: a disk for Amazon's cloud", "disks:make_aws",
               loaders=_BOTH, endings=(".raw",), root=DISK),
        Format("docker", "the root filesystem with a Dockerfile, for docker build -", "archive:make_docker",
               stream=True, endings=(".docker",)),
        Format("dynamic-vhd", "NAME.vhd: a disk that grows, for Hyper-V", "disks:make_dynamic_vhd",
               loaders=_BOTH, endings=(".vhd",), root=DISK),
        Format("gcp", "NAME.img.tar.gz: a disk for Google's cloud", "disks:make_gcp",
               loaders=_BOTH, endings=(".img.tar.gz",), root=DISK),
        Format("iso", "NAME.iso: a CD or USB stick for BIOS and UEFI", "iso:make_iso",
               loaders=_BOTH, endings=(".iso",)),
        Format("iso-bios", "NAME.iso: the root filesystem on a CD or USB stick that a BIOS boots", "iso:make_iso_bios",
               loaders=(SYSLINUX,), endings=(".iso",), root="iso9660"),
        Format("iso-efi", "NAME-efi.iso: the same for UEFI firmware", "iso:make_iso_efi",
               loaders=(EFI_BOOT,), endings=("-efi.iso",), root="iso9660"),
        Format("iso-efi-initrd", "NAME-efi-initrd.iso: a CD or USB stick for UEFI", "iso:make_iso_efi_initrd",
               loaders=(EFI_BOOT,), endings=("-efi-initrd.iso",)),
        Format("kernel+erofs", "NAME-kernel, NAME-cmdline and NAME-erofs.img", "filesystems:make_kernel_erofs",
               endings=("-kernel", "-cmdline", "-initrd.img", "-erofs.img"), root="erofs"),
        Format("kernel+initrd", "NAME-kernel, NAME-initrd.img and NAME-cmdline", "initrd:make_kernel_initrd",
               endings=("-kernel", "-initrd.img", "-cmdline")),
        Format("kernel+iso", "NAME-kernel, NAME-cmdline and NAME.iso: the root filesystem on a CD",
               "filesystems:make_kernel_iso", endings=("-kernel", "-cmdline", "-initrd.img", ".iso"), root="iso9660"),
        Format("kernel+squashfs", "NAME-kernel, NAME-cmdline and NAME-squashfs.img", "filesystems:make_kernel_squashfs",
               endings=("-kernel", "-cmdline", "-initrd.img", "-squashfs.img"), root="squashfs"),
        Format("oci", "NAME.oci.tar: a container image of the root filesystem", "container:make_oci",
               endings=(".oci.tar",)),
        Format("ova", "NAME.ova: a machine with its disk, for VMware", "disks:make_ova",
               loaders=_BOTH, endings=(".ova",), root=DISK),
        Format("qcow2-bios", "NAME.qcow2: a disk for QEMU and OpenStack", "disks:make_qcow2_bios",
               loaders=_BOTH, endings=(".qcow2",), root=DISK),
        Format("qcow2-efi", "NAME-efi.qcow2: the same for UEFI firmware only", "disks:make_qcow2_efi",
               loaders=(EFI_BOOT,), endings=("-efi.qcow2",), root=DISK),
        Format("raw", "NAME.img: a disk for BIOS and UEFI", "bios:make_raw",
               loaders=_BOTH, endings=(".img",), root=DISK),
        Format("raw-bios", "NAME-bios.img: a disk for a BIOS", "bios:make_raw_bios",
               loaders=(SYSLINUX,), endings=("-bios.img",), root=DISK),
        Format("raw-efi", "NAME-efi.img: a disk for UEFI firmware", "efi:make_raw_efi",
               loaders=(EFI_BOOT,), endings=("-efi.img",), root=DISK),
        Format("rpi", "NAME-rpi.img: a card for the Raspberry Pi", "rpi:make_rpi",
               loaders=(RPI_BOOT,), endings=("-rpi.img",), root=DISK),
        Format("rpi3", "NAME.tar: the files of that card", "rpi:make_rpi3",
               loaders=(RPI_BOOT,), endings=(".tar",)),
        Format("tar", "the root filesystem, one archive", "archive:make_tar",
               stream=True, endings=(".tar",)),
        Format("tar-kernel-initrd", "kernel, initrd.img and cmdline in one tar", "initrd:make_tar_kernel_initrd",
               endings=("-initrd.tar",)),
        Format("uki", "NAME.efi: kernel, initrd and command line in one EFI program", "efi:make_uki",
               loaders=(EFI_BOOT,), endings=(".efi",)),
        Format("vhd", "NAME.vhd: a disk for Azure", "disks:make_vhd",
               loaders=_BOTH, endings=(".vhd",), root=DISK),
        Format("vhdx", "NAME.vhdx: a disk for Hyper-V", "disks:make_vhdx",
               loaders=_BOTH, endings=(".vhdx",), root=DISK),
        Format("vmdk", "NAME.vmdk: a disk for VMware", "disks:make_vmdk",
               loaders=_BOTH, endings=(".vmdk",), root=DISK),
    )
}

@dataclass(frozen=True, slots=True)
class Target:
    """Where the outputs of a build go: `output` is one file or "-"; else files named `name` in `directory`."""

    formats: tuple[Format, ...]
    output: str = ""
    directory: Path = Path()
    name: str = ""


def choose(names: Sequence[str], output: str, directory: Path | None, name: str, default_name: str) -> Target:
    """LinuxKit's rules for --format, --o, --dir and --name.

    Args:
        names: of formats, as given; each may be a list with commas.
        output: --o; "" when absent.
        directory, name: None and "" when absent.
        default_name: what files are called without --name.

    Raises:
        InputError: the flags contradict each other or a format isn't known.
    """
    chosen = [part.strip() for text in names for part in text.split(",") if part.strip()]
    chosen = list(dict.fromkeys(chosen)) or [DEFAULT_STREAM if output else DEFAULT]
    formats = [_format(text) for text in chosen]
    streamed = [f.name for f in formats if f.stream]
    if streamed and len(formats) > 1:
        raise InputError(f"format {streamed[0]} must be the only one", hint="build the others in another run: "
                         "what they share comes from the cache")  # fmt: skip
    if output:
        if len(formats) > 1:
            raise InputError("--o takes one format only", hint="use --dir and --name")
        if not streamed:
            raise InputError(f"--o is for a format that is one stream ({', '.join(_streams())}), not {formats[0].name}",
                             hint="use --dir and --name")  # fmt: skip
        for flag, given in (("--name", name), ("--dir", directory)):
            if given:
                raise InputError(f"--o and {flag} cannot be used together", hint=f"leave out {flag}")
    base = name or default_name
    if not output and (not base or "/" in base or base in (".", "..")):
        raise InputError(f"'{base}' cannot be the name of a file", hint="use --dir for the directory")
    return Target(tuple(formats), output, directory or Path(), base)


def make(build: Build, target: Target) -> list[OutputFile]:
    """The files of every format: what they are made of is in the cache or in memory afterwards.

    Raises:
        LinuxkitError: of any kind.
    """
    made: dict[str, OutputFile] = {}
    for format_ in target.formats:
        for file in format_.make(build, target.name or "image"):
            other = made.setdefault(file.name, file)
            if other.pieces != file.pieces:
                raise InputError(f"{other.format} and {format_.name} both write {file.name}, and not the same into it",
                                 hint="build one after the other, with another --name or --dir")  # fmt: skip
    return list(made.values())


def warn_of_acls(build: Build, formats: Iterable[Format]) -> None:
    """One warning when files have access control lists that a format's root filesystem can't hold.

    Raises:
        ImageError: a layer is missing or damaged.
    """
    roots = [one.filesystem(build.disk_root) for one in formats if one.name not in ARCHIVES]
    if dropped_by(roots) and (said := left_out(build.plan, build.content)):
        build.content.warn(f"{said}: an initrd, a squashfs and an ISO can't hold them, and they are left out there")


def loaders(formats: Iterable[Format], *, rooted: bool = False) -> tuple[str, ...]:
    """The kit packages with the boot loaders of some formats.

    Args:
        rooted: the root of a disk may be in a partition.
    """
    found = set()
    for format_ in formats:
        found |= {*format_.loaders}
        if format_.on_device or (rooted and format_.root == DISK):
            found.add(BOOTSTAGE)
    return tuple(sorted(found))


def disk_root(formats: Iterable[Format], root: str, verity: bool) -> str:
    """The filesystem of a disk's root partition, from --root and --verity; empty: its root is in an initrd.

    Raises:
        InputError: nothing of that is in any of the formats.
    """
    formats = list(formats)
    disks, devices = any(one.root == DISK for one in formats), any(one.on_device for one in formats)
    if root not in ("", IN_INITRD, *DISK_ROOTS):
        hint = f"there are {IN_INITRD}, {', '.join(DISK_ROOTS)}"
        raise InputError(f"--root {root}: there is no such root", hint=hint)
    if root and not disks:
        raise InputError(f"--root {root}: in these formats there is no choice", hint="it is for disks, such as raw-efi")
    if verity and not devices and (not disks or root == IN_INITRD):
        raise InputError("--verity: in these formats the root filesystem is in memory",
                         hint="it is for kernel+squashfs and the like, and for disks with --root squashfs")  # fmt: skip
    if root == IN_INITRD or not disks:
        return ""
    return root or (DEFAULT_VERIFIED if verity else "")


def check_options(
    formats: Iterable[Format], *, size: int = 0, qcow2: str = "", decompress: bool = False, memory: int = 0,
    root: str = "", one_archive: bool = False,
) -> None:  # fmt: skip
    """Refuse options that would do nothing in all of the formats. What depends on more than the format is found out by
    `check_used`.

    Args:
        root: the filesystem of a disk's root partition, from `disk_root`.

    Raises:
        InputError: which one, and what it is for.
    """
    formats = list(formats)
    disks = [one for one in formats if one.root == DISK]
    in_memory = [one for one in formats if one.in_memory(root)]
    idle = (
        ("--size", size and not disks, "in these formats there is no disk", "it is for disks, such as raw-efi"),
        ("--qcow2-compress", qcow2 and not any(one.name.startswith("qcow2-") for one in formats),
         "none of these formats is a qcow2", "it is for qcow2-bios and qcow2-efi"),
        ("--decompress-kernel", decompress and all(one.name == "oci" for one in formats),
         "in this format there is no kernel", "it is for formats that boot, and for tar"),
        ("--mem", memory and not in_memory, "in these formats the root filesystem is not in memory",
         "it is for formats with an initrd"),
        ("--initrd-archives one", one_archive and not in_memory, "in these formats the root filesystem is in no initrd",
         "it is for formats with an initrd"),
    )  # fmt: skip
    for option, nothing, why, hint in idle:
        if nothing:
            raise InputError(f"{option}: {why}", hint=hint)


def check_used(used: Collection[str], codec: str, level: int | None) -> None:
    """Refuse a codec or a level when nothing was compressed with it.

    Args:
        used: as outputs.encoder.Counts has it.
        codec, level: as asked for; empty and None: not at all, or what is taken anyway.

    Raises:
        InputError: that it would do nothing.
    """
    for option, given in (("--compress", codec != ""), ("--level", level is not None)):
        if given and option not in used:
            raise InputError(f"{option}: in these formats nothing is compressed that way",
                             hint="it is for an initrd, a squashfs and an EROFS")  # fmt: skip


def check_data(formats: Iterable[Format], data: DataPartition | None) -> None:
    """Raise an InputError when there is a data partition, and no disk to have it."""
    if data is not None and not any(one.root == DISK for one in formats):
        raise InputError("--data-partition: in these formats there are no partitions",
                         hint="it is for disks, such as raw-efi")  # fmt: skip


def signer_of(formats: Iterable[Format], signer: Signer | None) -> str:
    """The fingerprint of who signs, for the plan.

    Raises:
        InputError: none of the formats has a program that can be signed.
    """
    if signer is None:
        return ""
    if EFI_BOOT not in loaders(formats):
        raise InputError("--sign-key: there is nothing to sign in these formats",
                         hint="what is signed is an EFI program, as in the formats uki and raw-efi")  # fmt: skip
    return signer.fingerprint


def _format(name: str) -> Format:
    if name in FORMATS:
        return FORMATS[name]
    import difflib

    close = difflib.get_close_matches(name, FORMATS, n=1)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(FORMATS)}"
    raise InputError(f"unknown format '{name}'", hint=hint)


def _streams() -> list[str]:
    return [f.name for f in FORMATS.values() if f.stream]
