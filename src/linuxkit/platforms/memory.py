"""How much memory a machine needs, from what its initramfs unpacks to.

Linux unpacks an initramfs into a tmpfs that may fill half of the memory, and what the compressed file takes is not part
of that memory: it is reserved until all is unpacked, as are the kernel and a 64th of everything for its page table. So

    least = (2 x unpacked + packed + kernel) x 64/63        without the 2 when the whole memory may be filled

Where it doesn't fit, Linux says "write error" and starts what there is. Every file fills pages of 4 KiB; their number
is counted where an archive can be read on the way. What it unpacks to comes from the frames' own headers where the
format has them, and from decompressing where not:

    zstd     decompressed and counted, up to 4 GiB
    xz       the index at the end of each stream
    lz4      (the kernel's legacy format) every block but the last is 8 MiB
    gzip     decompressed and counted
    cpio     as is
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from linuxkit.errors import InputError
from linuxkit.foreign import number
from linuxkit.oci.unpack import zstd_module

MIB = 1 << 20
DEFAULT = 1024
MOST = 4096  # of a guess
PAGE = 4096
KERNEL = 96 * MIB  # the kernel, its page tables, early user space
WORK = 256 * MIB  # what containers may use before anybody has to think of --mem
CHUNK = 1 << 18
COUNTED = 4 << 30  # what could be more than that is estimated

ZSTD, ZSTD_SKIP, LZ4 = 0xFD2FB528, 0x184D2A50, 0x184C2102
LZ4_BLOCK = 8 * MIB


class Packed(NamedTuple):
    """An initramfs inside another file, an EFI program or a disk, and the command line beside it."""

    path: Path
    offset: int
    size: int
    cmdline: str = ""


class _Pages:
    """The memory that the files of cpio archives fill, which come in runs of any size."""

    def __init__(self) -> None:
        self.size = 0
        self._pending, self._skip = b"", 0

    def add(self, mode: int, size: int) -> None:
        """One member."""
        if mode & 0o170000 == 0o100000:
            self.size += -(-size // PAGE) * PAGE

    def feed(self, data: bytes) -> None:
        """What can't be understood is passed over: the archive's length tells about it then."""
        at = min(self._skip, len(data))
        self._skip -= at
        data = self._pending + data[at:] if at < len(data) or self._pending else b""
        at = 0
        while len(data) - at >= 110:
            if data[at : at + 5] != b"07070":
                zeros = len(data) - at - len(data[at:].lstrip(b"\0"))
                if not zeros:
                    at = len(data)
                    break
                at += zeros
                continue
            try:
                mode, size, name = (int(data[at + n : at + n + 8], 16) for n in (14, 54, 94))
            except ValueError:
                at = len(data)
                break
            if not (0 <= size <= 0xFFFFFFFF and 0 < name <= 4096):
                at = len(data)
                break
            self.add(mode, size)
            length = 110 + name + -(110 + name) % 4 + size + -size % 4
            self._skip = max(0, at + length - len(data))
            at = min(at + length, len(data))
        self._pending = data[at:]


def held_size(path: Path, offset: int = 0, size: int | None = None) -> int:
    """Bytes of memory that an initramfs fills: what it unpacks to, files in whole pages. See `unpacked_size`."""
    pages = _Pages()
    return max(unpacked_size(path, offset, size, pages), pages.size)


def unpacked_size(
    path: Path, offset: int = 0, size: int | None = None, pages: _Pages | None = None
) -> int:
    """Bytes that an initramfs (cpio archives end to end, each compressed in its own way) unpacks to.

    Args:
        offset, size: where it is in the file; all of it when not given.
        pages: told of the members on the way, where the format lets them be seen.

    Archives that cannot be read further count with four times what is left of the file.
    """
    total = 0
    length = path.stat().st_size if size is None else offset + size
    with path.open("rb") as f:
        f.seek(offset)
        while True:
            at = f.tell()
            head = f.read(6)
            if len(head) < 6 or at + 6 > length:
                return total
            f.seek(at)
            magic = int.from_bytes(head[:4], "little")
            try:
                if head[:4] == b"\0\0\0\0":  # padding between archives
                    f.seek(at + 4)
                elif head.startswith(b"0707"):
                    total += skip_cpio(f, pages)
                elif magic == ZSTD or magic & 0xFFFFFFF0 == ZSTD_SKIP:
                    total += _zstd(f, pages)
                elif head.startswith(b"\x1f\x8b"):
                    total += _gzip(f, pages)
                elif magic == LZ4:
                    total += _lz4(f, length)
                elif head == b"\xfd7zXZ\0":
                    return total + _xz(f, at, length)
                else:
                    raise ValueError
            except (ValueError, IndexError, zlib.error):
                return total + 4 * (length - at)


def _exactly(f: BinaryIO, count: int) -> bytes:
    data = f.read(count)
    if len(data) < count:
        raise ValueError
    return data


def skip_cpio(f: BinaryIO, pages: _Pages | None = None) -> int:
    """One newc archive, to its trailer; the next archive begins at the next multiple of four that is not zero."""
    start = f.tell()
    while True:
        head = _exactly(f, 110)
        if not head.startswith((b"070701", b"070702")):
            raise ValueError
        size, name = number(head[54:62], 16), number(head[94:102], 16)
        if not 0 < name <= 4096:
            raise ValueError
        if pages is not None:
            pages.add(int(head[14:22], 16), size)
        trailer = _exactly(f, name).startswith(b"TRAILER!!!\0")
        f.seek(f.tell() + -(110 + name) % 4)
        f.seek(f.tell() + size + -size % 4)
        if trailer:
            return f.tell() - start


def _zstd(f: BinaryIO, pages: _Pages | None) -> int:
    """One frame (RFC 8878, 3.1.1)."""
    start = f.tell()
    magic = int.from_bytes(_exactly(f, 4), "little")
    if magic != ZSTD:
        f.seek(int.from_bytes(_exactly(f, 4), "little"), 1)
        return 0
    flags = _exactly(f, 1)[0]
    single, dictionary, width = flags >> 5 & 1, (0, 1, 2, 4)[flags & 3], flags >> 6
    _exactly(f, (0 if single else 1) + dictionary)
    count = (single, 2, 4, 8)[width]
    size = int.from_bytes(_exactly(f, count), "little") + (256 if count == 2 else 0)
    blocks, last = 0, False
    while not last:
        header = int.from_bytes(_exactly(f, 3), "little")
        last, kind, length = bool(header & 1), header >> 1 & 3, header >> 3
        if kind == 3:
            raise ValueError
        blocks += 1
        f.seek(1 if kind == 1 else length, 1)
    f.seek(4 if flags & 4 else 0, 1)
    if count and (pages is None or size > COUNTED):
        return size
    most = blocks * 128 * 1024  # no block unpacks to more than 128 KiB, and most to less
    return _zstd_counted(f, start, f.tell(), pages) if most <= COUNTED else most


def _zstd_counted(f: BinaryIO, start: int, end: int, pages: _Pages | None) -> int:
    """What a frame unpacks to, unpacked to nowhere."""
    zstd = zstd_module()
    unpack = zstd.ZstdDecompressor()
    total = 0
    f.seek(start)
    try:
        while not unpack.eof:
            data = _exactly(f, min(CHUNK, end - f.tell()) or 1) if unpack.needs_input else b""
            made = unpack.decompress(data, 4 * MIB)
            total += len(made)
            if pages is not None:
                pages.feed(made)
    except zstd.ZstdError:
        raise ValueError from None
    f.seek(end)
    return total


def _gzip(f: BinaryIO, pages: _Pages | None) -> int:
    """One member, decompressed to nowhere."""
    unpack = zlib.decompressobj(31)
    total = 0
    while not unpack.eof:
        data = unpack.unconsumed_tail or _exactly(f, 1) + f.read(CHUNK)
        made = unpack.decompress(data, 4 * MIB)
        total += len(made)
        if pages is not None:
            pages.feed(made)
    f.seek(-len(unpack.unused_data), 1)
    return total


def _lz4(f: BinaryIO, length: int) -> int:
    """One legacy stream; it ends at the end of the file or at something too large to be a block."""
    _exactly(f, 4)
    total = 0
    while len(word := f.read(4)) == 4:
        size = int.from_bytes(word, "little")
        if size == LZ4:
            continue
        if not 0 < size <= LZ4_BLOCK + LZ4_BLOCK // 128 or f.tell() + size > length:
            f.seek(-4, 1)
            break
        total += min(LZ4_BLOCK, size * 255)
        f.seek(size, 1)
    return total


def _xz(f: BinaryIO, start: int, end: int) -> int:
    """Every stream from `start` to the end, read backwards by their footers (xz file format 1.2)."""
    total = 0
    while end > start:
        if end - start < 24:
            raise ValueError
        f.seek(end - 12)
        footer = _exactly(f, 12)
        if footer == bytes(12) or footer[8:] == bytes(4):
            end -= 4
            continue
        if footer[10:] != b"YZ":
            raise ValueError
        index_size = (int.from_bytes(footer[4:8], "little") + 1) * 4
        if end - start < 24 + index_size:
            raise ValueError
        f.seek(end - 12 - index_size)
        index = _exactly(f, index_size)
        at = 1
        count, at = _varint(index, at)
        packed = 0
        for _ in range(count):
            unpadded, at = _varint(index, at)
            size, at = _varint(index, at)
            total += size
            packed += unpadded + -unpadded % 4
        end -= 24 + index_size + packed
    f.seek(0, 2)
    return total


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 63, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, at
    raise ValueError


@dataclass(frozen=True, slots=True)
class Memory:
    """What a machine is given, in MiB, and why."""

    mib: int
    why: str


def least_for(unpacked: int, packed: int, cmdline: str) -> int:
    """The least memory, in bytes, of a machine that unpacks an initramfs of `packed` bytes to `unpacked`."""
    return ((2 if _halved(cmdline) else 1) * unpacked + packed + KERNEL) * 64 // 63


def _halved(cmdline: str) -> bool:
    """Whether an initramfs may fill only half of the memory."""
    return not any(word in ("rootfstype=ramfs", "rootflags=size=100%") for word in cmdline.split())


def memory_for(initrd: Path | Packed | None, cmdline: str, wanted: int | None = None) -> Memory:
    """The memory of a machine.

    Args:
        initrd: a file, or what an EFI program holds: that one is in memory twice while it starts.
        wanted: MiB that the user asked for; None to compute it.

    Raises:
        InputError: what the user asked for cannot hold the image.
    """
    if isinstance(initrd, Packed):
        packed, unpacked, cmdline = 2 * initrd.size, held_size(*initrd[:3]), initrd.cmdline
    else:
        packed = initrd.stat().st_size if initrd is not None else 0
        unpacked = held_size(initrd) if initrd is not None else 0
    halved, least = _halved(cmdline), least_for(unpacked, packed, cmdline)
    size = f"the image unpacks to {-(-unpacked // MIB)} MB" if unpacked else "the usual amount"
    if wanted is not None:
        if wanted * MIB < least:
            rule = ", and Linux lets an initramfs fill half of the memory" if halved else ""
            raise InputError(
                f"{wanted} MB of memory cannot hold this image: {size}{rule}",
                hint=f"use --mem {_rounded(least)} or more, or leave --mem out",
            )
        return Memory(wanted, f"as asked; {size}")
    return Memory(max(DEFAULT, _rounded(least + WORK)), size)


def memory_for_disk(disk: Path, wanted: int | None = None) -> Memory:
    """The memory of a machine whose disk isn't looked into: as if all that is on it were a packed initramfs."""
    if wanted is not None:
        return Memory(wanted, "as asked")
    size = disk.stat().st_size
    guess = min(_rounded(7 * size + KERNEL + WORK), MOST)
    return Memory(max(DEFAULT, guess), f"guessed from the {-(-size // MIB)} MB of {disk.name}")


def _rounded(size: int) -> int:
    return -(-size // (128 * MIB)) * 128
