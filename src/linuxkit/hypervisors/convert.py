"""Disks in the form that a hypervisor takes, made by this program alone.

    raw → VMDK      a page of text beside it (encode.vmdk_flat); nothing is copied, what is written is in the raw disk
    raw → VHDX      copied, without what is zero
    user data       a CD's file system on a disk, where there are no CDs
    VMDK → raw      of the compressed kind (streamOptimized), which no machine can write on
"""

from __future__ import annotations

import errno
import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from linuxkit.encode import iso9660, vhdx, vmdk_flat
from linuxkit.encode.config_iso import private_file
from linuxkit.encode.pieces import Piece, became_shorter, hole
from linuxkit.encode.tree import tree
from linuxkit.entry import Bytes, Entry, Kind
from linuxkit.errors import InputError

SECTOR = 512
CHUNK = 1 << 20
MAX_GRAIN = 1 << 20


def pieces_of(path: Path) -> list[Piece]:
    """A raw disk as pieces, its holes told from its data where the file system knows them."""
    found: list[Piece] = []
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    try:
        size, at = os.lseek(fd, 0, os.SEEK_END), 0
        while at < size:
            start, end = _data(fd, at, size)
            found += [hole(start - at)] if start > at else []
            found += [Piece(end - start, str(path), start)] if end > start else []
            at = end
    finally:
        os.close(fd)
    return found


def _data(fd: int, at: int, size: int) -> tuple[int, int]:
    """The next run of data from `at` on."""
    if not hasattr(os, "SEEK_DATA"):
        return at, size
    try:
        start = os.lseek(fd, at, os.SEEK_DATA)
        return start, min(os.lseek(fd, start, os.SEEK_HOLE), size)
    except OSError as e:
        return (size, size) if e.errno == errno.ENXIO else (at, size)


def write(pieces: Iterable[Piece], path: Path) -> None:
    """Write pieces to a file, whole or not at all; what is zero is left out. On every system that Python knows."""
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as out:
            _write(pieces, out)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _write(pieces: Iterable[Piece], out: BinaryIO) -> None:
    zeros = bytes(CHUNK)
    for piece in pieces:
        if piece.is_hole:
            out.seek(piece.size, os.SEEK_CUR)
            continue
        for data in _content(piece):
            if data == zeros:
                out.seek(CHUNK, os.SEEK_CUR)
            else:
                out.write(data)
    out.truncate(out.tell())


def _content(piece: Piece) -> Iterator[bytes]:
    if not piece.path:
        yield piece.data
        return
    with open(piece.path, "rb") as f:
        f.seek(piece.offset)
        for at in range(0, piece.size, CHUNK):
            data = f.read(min(CHUNK, piece.size - at))
            if len(data) != min(CHUNK, piece.size - at):
                raise became_shorter(piece.path)
            yield data


def blank(path: Path, size: int, form: str) -> None:
    """An empty disk.

    Args:
        form: raw, vhdx, or vmdk: a raw disk `NAME-flat.img` beside it.

    Raises:
        InputError: it cannot have that size.
    """
    if form == "vhdx":
        write(vhdx.image([hole(size)], seed=str(path) + str(size)), path)
    elif form == "vmdk":
        raw = path.with_name(f"{path.stem}-flat.img")
        if not raw.exists():  # only its page of text was lost
            write([hole(size)], raw)
        wrap(raw, path, extent=raw.name)
    else:
        write([hole(size)], path)


def wrap(raw: Path, to: Path, *, extent: str = "") -> None:
    """The page of text that makes a raw disk a VMDK.

    Raises:
        InputError: the disk isn't whole sectors, or its path can't be written.
    """
    text = vmdk_flat.descriptor(raw.stat().st_size, extent=extent or str(raw), seed=str(raw))
    partial = to.with_name(to.name + ".partial")
    partial.write_bytes(text)
    partial.replace(to)


def to_vhdx(raw: Path, to: Path) -> None:
    """A raw disk as a VHDX.

    Raises:
        InputError: it is too large.
    """
    write(vhdx.image(pieces_of(raw), seed=str(raw)), to)


def data_disk(path: Path, content: bytes) -> None:
    """User data for a machine without CDs: a disk labelled `cidata` (NoCloud), with it as user-data and config."""
    source = Bytes(content)
    root = tree([Entry(name, Kind.FILE, source=source) for name in ("config", "user-data")])
    with private_file(path) as out:
        _write(iso9660.volume(root, "cidata").pieces, out)


def is_stream(path: Path) -> bool:
    """Is a VMDK of the compressed kind?"""
    with path.open("rb") as f:
        head = f.read(12)
    return len(head) == 12 and head[:4] == b"KDMV" and bool(head[10] & 1)


def unpack_stream(path: Path, to: Path) -> None:
    """What is in a streamOptimized VMDK, as a raw disk. Read by its markers, from front to back.

    Raises:
        InputError: it is damaged.
    """
    partial = to.with_name(to.name + ".partial")
    try:
        with path.open("rb") as f, partial.open("wb") as out:
            head = f.read(SECTOR)
            if len(head) < SECTOR or head[:4] != b"KDMV":
                raise InputError(f"{path} is no VMDK file")
            capacity, grain = struct.unpack_from("<QQ", head, 12)
            (overhead,) = struct.unpack_from("<Q", head, 64)
            if not 0 < grain * SECTOR <= MAX_GRAIN or not 0 < capacity < 1 << 40 or not 0 < overhead < 1 << 20:
                raise InputError(f"{path} is damaged: its header makes no sense", hint="build it again")
            f.seek(overhead * SECTOR)
            out.truncate(capacity * SECTOR)
            while _grain(f, out, path, capacity, grain):
                pass
        partial.replace(to)
    except (zlib.error, struct.error) as e:
        raise InputError(f"{path} is damaged: {e}", hint="build it again") from e
    finally:
        partial.unlink(missing_ok=True)


def _grain(f: BinaryIO, out: BinaryIO, path: Path, capacity: int, grain: int) -> bool:
    """The next marker and what belongs to it. False: it was the last."""
    head = f.read(SECTOR)
    value, size, kind = struct.unpack_from("<QII", head)
    if size:
        if value >= capacity or size > 2 * MAX_GRAIN:
            raise InputError(f"{path} is damaged: a grain is outside of the disk", hint="build it again")
        packed = head[12 : 12 + size] + f.read(max(0, size - (SECTOR - 12)))
        f.seek(-(12 + max(size, SECTOR - 12)) % SECTOR, os.SEEK_CUR)
        unpack = zlib.decompressobj()
        data = unpack.decompress(packed, grain * SECTOR)
        if not unpack.eof and unpack.decompress(unpack.unconsumed_tail, 1):
            raise InputError(f"{path} is damaged: a grain is too large", hint="build it again")
        out.seek(value * SECTOR)
        out.write(data[: (capacity - value) * SECTOR])
        return True
    if kind == 0:  # end of stream
        return False
    if kind > 3 or value > 1 << 24:
        raise InputError(f"{path} is damaged: a marker of kind {kind}", hint="build it again")
    f.seek(value * SECTOR, os.SEEK_CUR)
    return True
