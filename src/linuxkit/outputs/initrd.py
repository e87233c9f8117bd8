"""Formats with a kernel and an initrd: kernel+initrd, tar-kernel-initrd.

    initrd = [ microcode, uncompressed, padded to 4 ] { compressed cpio archive of a segment }

Linux takes archives end to end. Between compressed ones nothing may stand: the lz4 frame that the kernel reads ends
where the next begins.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from linuxkit.encode import tar
from linuxkit.encode.content import Reader
from linuxkit.entry import FIXED_MTIME, Entry, Kind, Source
from linuxkit.outputs.build import Build
from linuxkit.outputs.encoder import Piece
from linuxkit.outputs.files import Outputs, put


def write_kernel_initrd(build: Build, base: Path, outputs: Outputs, name: str) -> None:
    """BASE-kernel, BASE-initrd.img and BASE-cmdline; kernel and command line only when there are any."""
    boot = build.boot
    pieces = _initrd(build)
    if boot.kernel is not None and boot.kernel.size:
        with outputs.open(base.with_name(f"{base.name}-kernel"), name) as out:
            _copy(boot.kernel, out)
    with outputs.open(base.with_name(f"{base.name}-initrd.img"), name) as out:
        if boot.ucode is not None:
            _copy(boot.ucode, out)
            out.write(bytes(-boot.ucode.size % 4))
        put(pieces, out)
    if boot.cmdline:
        with outputs.open(base.with_name(f"{base.name}-cmdline"), name) as out:
            out.write(boot.cmdline)


def write_tar_kernel_initrd(build: Build, base: Path, outputs: Outputs, name: str) -> None:
    """BASE-initrd.tar with the members kernel, initrd.img, cmdline and ucode.cpio; those that are empty left out."""
    boot = build.boot
    pieces = _initrd(build)
    with outputs.open(base.with_name(f"{base.name}-initrd.tar"), name) as out:
        _member("kernel", boot.kernel, out)
        size = sum(piece.size for piece in pieces)
        if size:
            out.write(tar.member_header(_entry("initrd.img", size)))
            put(pieces, out)
            out.write(bytes(-size % 512))
        if boot.cmdline:
            out.write(tar.member_header(_entry("cmdline", len(boot.cmdline))))
            out.write(boot.cmdline + bytes(-len(boot.cmdline) % 512))
        _member("ucode.cpio", boot.ucode, out)
        out.write(tar.END)


def _initrd(build: Build) -> list[Piece]:
    return build.encoder.cpio(build.segments(boot=False), build.codec, build.level)


class _Sized:
    """A Source of which only the size is known: its bytes follow by another way."""

    def __init__(self, size: int) -> None:
        self.size = size

    def open(self) -> BinaryIO:
        raise NotImplementedError  # pragma: no cover


def _entry(path: str, size: int) -> Entry:
    return Entry(path, Kind.FILE, 0o644, mtime=FIXED_MTIME, source=_Sized(size))


def _member(path: str, source: Source | None, out: BinaryIO) -> None:
    if source is not None and source.size:
        out.write(tar.member_header(_entry(path, source.size)))
        _copy(source, out)
        out.write(bytes(-source.size % 512))


def _copy(source: Source, out: BinaryIO) -> None:
    with Reader() as reader:
        for piece in reader.pieces(source):
            out.write(piece)
