"""The kernel inside a kernel's file: what hypervisors without a boot loader start.

    x86      HdrS at 0x202; the payload is at (setup_sects + 1) * 512 + payload_offset: compressed, an ELF file
    arm64    an Image as it is, or compressed with gzip, or inside an EFI program that unpacks itself ("zimg")
    ELF      as it is

Documentation/arch/x86/boot.rst (1.3 to 1.15) and arch/arm64/booting.rst in Linux; drivers/firmware/efi/libstub/
zboot-header.S. Payloads are gzip, xz, zstd, lzma, bzip2, or lz4's legacy frame, with a length behind that is not read.
An ELF kernel says with a note of Xen (type 18, include/xen/interface/elfnote.h) that PVH machines can enter it.
"""

from __future__ import annotations

import bz2
import lzma
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from linuxkit.errors import HostError, InputError
from linuxkit.oci.unpack import zstd_module

CHUNK = 1 << 20
#: Most bytes that a kernel may unpack to, and most of an LZ4 block.
MOST = 512 << 20
_LZ4_BLOCK = 8 << 20
_ELF, _ARM64 = b"\x7fELF", b"ARM\x64"
_PVH_NOTE = 18
_MAX_NOTES = 1 << 16


class Payload(NamedTuple):
    """Where in a file the kernel is. `size` 0: all of the file, as it is."""

    offset: int
    size: int


def payload(kernel: Path) -> Payload:
    """Where the kernel is.

    Raises:
        InputError: it is no kernel that is known here.
    """
    size = kernel.stat().st_size
    with kernel.open("rb") as f:
        head = f.read(4096)
    if head[:4] == _ELF or head[0x38:0x3C] == _ARM64:
        return Payload(0, 0)
    if head[:2] == b"\x1f\x8b":
        return Payload(0, size)
    offset = length = 0
    if head[4:8] == b"zimg" and len(head) >= 0x20:
        offset, length = struct.unpack_from("<II", head, 8)
    elif head[0x202:0x206] == b"HdrS" and len(head) >= 0x250:
        if struct.unpack_from("<H", head, 0x206)[0] < 0x208:
            raise InputError(f"{kernel} does not say where its kernel is", hint="use Linux 2.6.26 or later")
        offset, length = struct.unpack_from("<II", head, 0x248)
        offset += ((head[0x1F1] or 4) + 1) * 512
    if not length or offset + length > size:
        raise InputError(f"{kernel} is no kernel that can be unpacked", hint="give one that linuxkit build wrote")
    return Payload(offset, length)


def extract(kernel: Path, to: Path) -> None:
    """Write the kernel itself to a file, whole or not at all.

    Raises:
        InputError: it is none, or damaged, or unpacks to something else or to too much.
        HostError: what unpacks it is not installed.
    """
    where = payload(kernel)
    partial = to.with_name(to.name + ".partial")
    try:
        with kernel.open("rb") as f, partial.open("wb") as out:
            total = 0
            for data in _unpacked(f, where, kernel):
                if not total and data[:4] != _ELF and data[0x38:0x3C] != _ARM64:
                    raise InputError(f"{kernel} unpacks to something that is neither an ELF file nor an Image")
                total += len(data)
                if total > MOST:
                    raise InputError(f"{kernel} unpacks to more than {MOST >> 20} MB")
                out.write(data)
        if not total:
            raise InputError(f"{kernel} unpacks to nothing")
        partial.replace(to)
    except (zlib.error, lzma.LZMAError, EOFError, ValueError, OverflowError, zstd_module().ZstdError) as e:
        raise InputError(f"{kernel} is damaged: {e}", hint="build it again") from e
    finally:
        partial.unlink(missing_ok=True)


def _unpacked(f: BinaryIO, where: Payload, kernel: Path) -> Iterator[bytes]:
    f.seek(where.offset)
    left = where.size or os.fstat(f.fileno()).st_size
    magic = f.read(6)
    f.seek(where.offset)
    unpack: Any
    if not where.size:
        unpack = None
    elif magic[:2] == b"\x1f\x8b":
        unpack = zlib.decompressobj(31)
    elif magic == b"\xfd7zXZ\0":
        unpack = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=256 << 20)
    elif magic[:3] == b"]\0\0":
        unpack = lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=256 << 20)
    elif magic[:3] == b"BZh":
        unpack = bz2.BZ2Decompressor()
    elif magic[:4] == b"\x28\xb5\x2f\xfd":
        unpack = zstd_module().ZstdDecompressor()
    elif magic[:4] == b"\x02\x21\x4c\x18":
        yield from _lz4(f, left)
        return
    elif magic[:4] in (_ELF, b"MZ\0\0"):
        unpack = None
    else:
        raise InputError(f"{kernel} is compressed in a way that is not known here",
                         hint="known are gzip, xz, zstd, lzma, bzip2 and lz4")  # fmt: skip
    while left:
        data = f.read(min(CHUNK, left))
        if not data:
            raise EOFError("it ends too early")
        left -= len(data)
        if unpack is None:
            yield data
            continue
        while not unpack.eof:
            made = unpack.decompress(data, CHUNK)
            if made:
                yield made
            data = getattr(unpack, "unconsumed_tail", b"")  # zlib's; the others keep it themselves
            if not data and getattr(unpack, "needs_input", len(made) < CHUNK):
                break
        if unpack.eof:
            return
    if unpack is not None:
        raise EOFError("it ends too early")


def _lz4(f: BinaryIO, left: int) -> Iterator[bytes]:
    """The legacy frame: a magic number, then blocks, each behind its length; the payload's own length ends them."""
    try:
        import lz4.block
    except ImportError:
        raise HostError("this kernel is compressed with lz4, and Python's lz4 is not installed",
                        hint="pip install 'linuxkit[lz4]'") from None  # fmt: skip
    f.read(4)
    left -= 4
    while left > 8:
        size = int.from_bytes(f.read(4), "little")
        if not 0 < size <= min(left - 4, _LZ4_BLOCK + _LZ4_BLOCK // 64):
            raise EOFError("a block has a wrong length")
        try:
            made: bytes = lz4.block.decompress(f.read(size), uncompressed_size=_LZ4_BLOCK)
        except lz4.block.LZ4BlockError as e:
            raise ValueError(str(e)) from e
        yield made
        left -= 4 + size


def pvh_entry(kernel: Path) -> int:
    """The address where a PVH machine enters an ELF kernel; 0: it has none, or is no 64-bit ELF file of this order."""
    with kernel.open("rb") as f:
        head = f.read(64)
        if len(head) < 64 or head[:6] != _ELF + b"\x02\x01":
            return 0
        table, size, count = struct.unpack_from("<Q", head, 32)[0], *struct.unpack_from("<HH", head, 54)
        if size < 56 or not 0 < table < MOST:
            return 0
        f.seek(table)
        rows = f.read(size * min(count, 64))
        for at in range(0, len(rows) - 55, size):
            kind, offset, length = struct.unpack_from("<I4xQ16xQ", rows, at)
            if kind == 4 and offset < MOST:  # PT_NOTE
                f.seek(offset)
                if found := _pvh_note(f.read(min(length, _MAX_NOTES))):
                    return found
    return 0


def _pvh_note(notes: bytes) -> int:
    at = 0
    while at + 12 <= len(notes):
        name_size, size, kind = struct.unpack_from("<III", notes, at)
        name = at + 12
        start = name + name_size + -name_size % 4
        if kind == _PVH_NOTE and notes[name : name + name_size] == b"Xen\0" and size in (4, 8):
            return int.from_bytes(notes[start : start + size], "little")
        at = start + size + -size % 4
    return 0
