"""Formats with a kernel and an initrd: kernel+initrd, tar-kernel-initrd.

    initrd = [ microcode, uncompressed, padded to 4 ] { compressed cpio archive of a segment }

Linux takes archives end to end. Between compressed ones nothing may stand: the lz4 frame that the kernel reads ends
where the next begins.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from linuxkit.encode import tar
from linuxkit.encode.pieces import Piece, literal, of_source, size_of
from linuxkit.entry import FIXED_MTIME, Entry, Extent, Kind
from linuxkit.outputs.build import Build
from linuxkit.outputs.pieces import OutputFile


def make_kernel_initrd(build: Build, base: str) -> list[OutputFile]:
    """BASE-kernel, BASE-initrd.img and BASE-cmdline; kernel and command line only when there are any."""
    boot = build.boot
    files = (("kernel", of_source(boot.kernel)), ("initrd.img", whole(build)), ("cmdline", [literal(boot.cmdline)]))
    return [
        OutputFile(f"{base}-{name}", "kernel+initrd", tuple(pieces))
        for name, pieces in files
        if name == "initrd.img" or size_of(pieces)
    ]


def whole(build: Build, archives: Sequence[Piece] | None = None) -> list[Piece]:
    """The initrd as a loader takes it: with microcode in front, where there is any.

    Args:
        archives: others than those of the root filesystem.
    """
    ucode = build.boot.ucode
    front = [] if ucode is None else [*of_source(ucode), literal(bytes(-ucode.size % 4))]
    return [*front, *(build.initrd if archives is None else archives)]


def make_tar_kernel_initrd(build: Build, base: str) -> list[OutputFile]:
    """BASE-initrd.tar with the members kernel, initrd.img, cmdline and ucode.cpio; those that are empty left out."""
    boot = build.boot
    pieces = [
        *member("kernel", of_source(boot.kernel)),
        *member("initrd.img", build.initrd),
        *member("cmdline", [literal(boot.cmdline)]),
        *member("ucode.cpio", of_source(boot.ucode)),
        literal(tar.END),
    ]
    return [OutputFile(f"{base}-initrd.tar", "tar-kernel-initrd", tuple(pieces))]


def member(name: str, pieces: Sequence[Piece]) -> Iterator[Piece]:
    """A member of a tar whose content is made of pieces."""
    size = size_of(pieces)
    if size:
        stand_in = Extent("", 0, size)  # only its size is looked at
        yield literal(tar.member_header(Entry(name, Kind.FILE, 0o644, mtime=FIXED_MTIME, source=stand_in)))
        yield from pieces
        yield literal(bytes(-size % 512))
