"""What UEFI firmware starts: uki, raw-efi.

    NAME.efi       systemd's stub with .osrel .cmdline .uname .ucode .initrd .linux: one program, the whole system
    NAME-efi.img   GPT: one EFI system partition (FAT32), in it that program as EFI/BOOT/BOOTX64.EFI
                   with --root: a second partition, the root filesystem; the program's initrd only finds it

There is no boot manager between firmware and kernel: a machine has one image, and nothing to choose from.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from itertools import islice

from linuxkit.encode import fat, gpt, pe
from linuxkit.encode.authenticode import signed
from linuxkit.encode.pieces import Piece, cut, literal, of_source, read, size_of
from linuxkit.errors import ImageError, InputError
from linuxkit.outputs import datapart
from linuxkit.outputs.bootstage import Start
from linuxkit.outputs.build import Build
from linuxkit.outputs.diskroot import for_disk
from linuxkit.outputs.pieces import OutputFile
from linuxkit.plan.asked import EFI_BOOT

#: Where the loaders are in their kit package.
FOLDER = "usr/lib/systemd/boot/efi"
#: By architecture: what files of it are called, the program that firmware looks for on a disk.
NAMES = {"amd64": ("x64", "EFI/BOOT/BOOTX64.EFI"), "arm64": ("aa64", "EFI/BOOT/BOOTAA64.EFI"),
         "riscv64": ("riscv64", "EFI/BOOT/BOOTRISCV64.EFI")}  # fmt: skip
#: Attribute of a partition that is only read (Discoverable Partitions Specification).
READ_ONLY = 1 << 60
#: Where the first partition of a disk starts.
FIRST_SECTOR = 2048
MAX_CMDLINE = 4096


def make_uki(build: Build, base: str) -> list[OutputFile]:
    """BASE.efi: kernel, initrd and command line in one EFI program."""
    return [OutputFile(f"{base}.efi", "uki", tuple(uki(build)))]


def make_raw_efi(build: Build, base: str) -> list[OutputFile]:
    """BASE-efi.img: a disk for UEFI firmware."""
    return [OutputFile(f"{base}-efi.img", "raw-efi", tuple(disk(build)))]


def disk(build: Build, *, unit: int = 1) -> list[Piece]:
    """A disk with a GPT: the EFI system partition with the UKI, and partitions for root and data where they are wanted.

    Args:
        unit: its size is a multiple of that many bytes.
    """
    start = for_disk(build, root_spec(build))
    program = uki(build, cmdline=start.cmdline, initrd=start.initrd)
    esp = system_partition(build, {program_path(build): program})
    parts = [gpt.Partition(esp.pieces, gpt.ESP, "EFI System", gpt.LEGACY_BOOT), *root_partition(build, start)]
    parts += datapart.in_gpt(build)
    return gpt.disk(parts, seed=build.seed, size=build.size, unit=unit)


def root_spec(build: Build) -> str:
    """What stands behind root= for the root partition of a disk with a GPT: the second."""
    return f"PARTUUID={gpt.partition_guid(build.seed, 2)}"


def root_partition(build: Build, start: Start) -> list[gpt.Partition]:
    """The root partition, with the hash tree of its filesystem in it; none for a root in the initrd."""
    return [gpt.Partition(start.root, gpt.ROOT[build.plan.architecture], "root", READ_ONLY)] if start.root else []


def system_partition(build: Build, files: Mapping[str, Sequence[Piece]], *, hidden: int = FIRST_SECTOR) -> fat.Volume:
    """The EFI system partition: FAT32, as small as its content allows.

    Args:
        files: by path.
        hidden: the sector of the disk at which it starts.
    """
    return fat.volume(files, seed=build.seed, label="ESP", bits=32, hidden=hidden)


def program_path(build: Build) -> str:
    """Where firmware looks for a program on a disk that it knows nothing about."""
    return _names(build)[1]


def uki(build: Build, *, cmdline: bytes | None = None, initrd: Sequence[Piece] | None = None) -> list[Piece]:
    """The unified kernel image, signed when the build has a signer.

    Args:
        cmdline, initrd: others than the build's own.

    Raises:
        ImageError: there is no kernel, or it isn't one that EFI firmware can start.
    """
    short, _ = _names(build)
    boot = build.boot
    kernel = of_source(boot.kernel)
    if not kernel:
        raise ImageError("an EFI program needs a kernel, and this build has none", hint="add kernel: to the YAML")
    head = b"".join(islice(read(cut(kernel, 0, 65536), 65536), 1))
    _check_kernel(build, head)
    text = boot.cmdline if cmdline is None else cmdline
    if len(text) > MAX_CMDLINE:
        raise InputError(f"the kernel command line has {len(text)} bytes, and at most {MAX_CMDLINE} can be used")
    stub = build.loader(EFI_BOOT, f"{FOLDER}/linux{short}.efi.stub")
    sections = (
        pe.Section(".osrel", [literal(_os_release(build))]),
        pe.Section(".cmdline", [literal(text)] if text else []),
        pe.Section(".uname", [literal(name)] if (name := kernel_version(head, kernel)) else []),
        pe.Section(".ucode", of_source(boot.ucode)),
        pe.Section(".initrd", list(build.initrd if initrd is None else initrd)),
        pe.Section(".linux", kernel),  # the last: a kernel may unpack itself behind its end
    )
    program = pe.add_sections(stub, sections, f"systemd's stub of kit://{EFI_BOOT}")
    return signed(program, build.signer) if build.signer is not None else program


def _names(build: Build) -> tuple[str, str]:
    try:
        return NAMES[build.plan.architecture]
    except KeyError:
        raise InputError(f"there is no UEFI boot for {build.plan.architecture}",
                         hint=f"it is for {' and '.join(NAMES)}") from None  # fmt: skip


def _check_kernel(build: Build, head: bytes) -> None:
    where = build.plan.kernel.image.reference if build.plan.kernel else ""
    if head[:2] == b"\x1f\x8b":
        raise ImageError(f"the kernel of {where} is compressed with gzip, which EFI firmware can't start",
                         hint="build with --decompress-kernel")  # fmt: skip
    try:
        found = pe.header(head, f"the kernel of {where}").architecture
    except ImageError as e:
        e.hint = "it must be built with CONFIG_EFI_STUB; Debian's are, such as kit://kernel"
        raise
    if found != build.plan.architecture:
        raise ImageError(f"the kernel of {where} is for {found or 'another architecture'}, "
                         f"and the image for {build.plan.architecture}", hint="give --arch")  # fmt: skip


def kernel_version(head: bytes, kernel: Sequence[Piece]) -> bytes:
    """The release of an x86 kernel, as `uname -r` shows it; empty where it can't be told from the file."""
    if head[0x202:0x206] != b"HdrS":
        return b""
    at = struct.unpack_from("<H", head, 0x20E)[0] + 0x200
    if at >= size_of(kernel):
        return b""
    return b"".join(read(cut(kernel, at, 256))).split(b"\0")[0].split(b" ")[0]


def _os_release(build: Build) -> bytes:
    """What a boot manager would show."""
    identity = build.seed.removeprefix("sha256:")[:12]
    return f'ID=linuxkit\nNAME="LinuxKit"\nPRETTY_NAME="LinuxKit"\nBUILD_ID={identity}\n'.encode()
