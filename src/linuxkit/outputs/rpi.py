"""Cards for the Raspberry Pi 3, 4 and 5: rpi, rpi3.

    NAME-rpi.img  MBR │ FAT32: what is below │ with --root: the root filesystem │ with --data-partition: that
    NAME.tar      the same files, for a card that is formatted already

    bootcode.bin start.elf fixup.dat      the firmware of a Pi 3        config.txt    what the firmware is to do
    start4.elf fixup4.dat                 the firmware of a Pi 4        cmdline.txt   the kernel's command line
    bcm2837-rpi-*.dtb … (Pi 3), bcm2711-… (Pi 4), bcm2712-… (Pi 5)      descriptions of the boards
    kernel8.img initrd.img

A Pi's own program in ROM or flash reads the first FAT partition of the card; a Pi 5 has all of its firmware in flash.
That picks the description of its board by name, and hands it to the kernel with the command line and the initrd.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from linuxkit.encode import fat, mbr, tar
from linuxkit.encode.pieces import Piece, cut, literal, of_source, read
from linuxkit.errors import ImageError, InputError
from linuxkit.outputs import datapart
from linuxkit.outputs.bootstage import Start
from linuxkit.outputs.build import Build
from linuxkit.outputs.diskroot import for_disk
from linuxkit.outputs.initrd import member
from linuxkit.outputs.pieces import OutputFile
from linuxkit.plan.asked import RPI_BOOT

#: Of the kit package with the firmware: the folder, the files, and their licence.
FOLDER = "usr/lib/raspi-firmware"
PARTS = ("bootcode.bin", "start.elf", "fixup.dat", "start4.elf", "fixup4.dat")
LICENCE = "usr/share/doc/raspi-firmware/copyright"
ARCHITECTURE = "arm64"
#: What the descriptions of boards are called, by Linux and by the firmware's own kernel.
BOARDS = ("bcm2837-rpi-", "bcm2711-rpi-", "bcm2712-rpi-", "bcm2710-rpi-")
#: As long as an arm64 kernel takes one, less what the firmware puts in front.
MAX_CMDLINE = 2047 - 512
#: `upstream_kernel`: boards are called as Linux calls them, not as the firmware's own kernel does.
CONFIG = b"""\
arm_64bit=1
enable_uart=1
upstream_kernel=1
kernel=kernel8.img
initramfs initrd.img followkernel
"""


def make_rpi(build: Build, base: str) -> list[OutputFile]:
    """BASE-rpi.img: a card."""
    return [OutputFile(f"{base}-rpi.img", "rpi", tuple(card(build)))]


def make_rpi3(build: Build, base: str) -> list[OutputFile]:
    """BASE.tar: what is on the card."""
    start = Start(build.initrd, build.boot.cmdline)
    pieces = [piece for name, content in sorted(files(build, start).items()) for piece in member(name, content)]
    return [OutputFile(f"{base}.tar", "rpi3", (*pieces, literal(tar.END)))]


def card(build: Build) -> list[Piece]:
    """A card with an MBR and a FAT32 partition; then root and data, where wanted."""
    check_architecture(build)
    start = for_disk(build, f"PARTUUID={mbr.signature(build.seed):08x}-02")
    hidden = mbr.ALIGNMENT // mbr.SECTOR
    volume = fat.volume(files(build, start), seed=build.seed, label="LINUXKIT", bits=32, hidden=hidden)
    parts = [mbr.Partition(volume.pieces, mbr.FAT32)]
    parts += [mbr.Partition(start.root, mbr.LINUX)] if start.root else []
    parts += datapart.in_mbr(build)
    return mbr.disk(parts, seed=build.seed, size=build.size)


def check_architecture(build: Build) -> None:
    """That the build is for a Raspberry Pi.

    Raises:
        InputError: it is for another machine.
    """
    if build.plan.architecture != ARCHITECTURE:
        raise InputError(f"a Raspberry Pi is an {ARCHITECTURE} machine, and the build is for {build.plan.architecture}",
                         hint=f"give --arch {ARCHITECTURE}")  # fmt: skip


def files(build: Build, start: Start) -> Mapping[str, Sequence[Piece]]:
    """Everything that a Pi reads, by its path on the card.

    Raises:
        InputError: the build is for another machine, or its command line can't be handed on.
        ImageError: the kernel isn't one for a Pi.
    """
    check_architecture(build)
    kernel = _kernel(build)
    return {
        **{name: [literal(build.loader(RPI_BOOT, f"{FOLDER}/{name}"))] for name in PARTS},
        "firmware-copyright.txt": [literal(build.loader(RPI_BOOT, LICENCE))],
        **_boards(build),
        "config.txt": [literal(CONFIG)],
        "cmdline.txt": [literal(_cmdline(start.cmdline))],
        "kernel8.img": kernel,
        "initrd.img": list(start.initrd),
    }


def _kernel(build: Build) -> list[Piece]:
    kernel = of_source(build.boot.kernel)
    if not kernel:
        raise ImageError("a card needs a kernel, and this build has none", hint="add kernel: to the YAML")
    head = b"".join(read(cut(kernel, 0, 64)))
    if head[56:60] != b"ARM\x64" and head[:2] != b"\x1f\x8b":  # the firmware unpacks gzip itself
        raise ImageError(f"the kernel of {_where(build)} is not a Linux kernel for {ARCHITECTURE}",
                         hint="use kit://kernel-rpi")  # fmt: skip
    return kernel


def _boards(build: Build) -> dict[str, list[Piece]]:
    """The descriptions of boards that the kernel's image has, wherever it has them."""
    found: dict[str, list[Piece]] = {}
    if build.plan.kernel is not None:
        for entry in build.content.tree(build.plan.kernel.image):
            name = entry.path.rpartition("/")[2]
            if name.startswith(BOARDS) and name.endswith(".dtb") and entry.source is not None:
                found[name] = of_source(entry.source)
    if not found:
        raise ImageError(f"the image of the kernel {_where(build)} has no description of a Raspberry Pi (*-rpi-*.dtb)",
                         hint="use kit://kernel-rpi")  # fmt: skip
    return found


def _cmdline(text: bytes) -> bytes:
    if any(byte < 32 for byte in text):
        raise InputError("the kernel command line is not one line, which the Raspberry Pi's firmware can't hand on",
                         hint="write kernel.cmdline in one line")  # fmt: skip
    if len(text) > MAX_CMDLINE:
        raise InputError(f"the kernel command line has {len(text)} bytes, and on a Raspberry Pi there is room for "
                         f"{MAX_CMDLINE}", hint="shorten kernel.cmdline")  # fmt: skip
    return text + b"\n"


def _where(build: Build) -> str:
    return build.plan.kernel.image.reference if build.plan.kernel else ""
