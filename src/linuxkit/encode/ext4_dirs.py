"""Directories of ext4: names one after the other, in blocks of 4096 bytes with a checksum at the end.

    inode length name-length type name … | inode length name-length type name … | 0 12 0 0xDE checksum

Documentation/filesystems/ext4/directory.rst. They are linear: Linux looks names up in its own cache, and searches a
block only for what is not there.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence

from linuxkit.encode import fields
from linuxkit.encode.ext4_checksum import checksum
from linuxkit.encode.ext4_layout import BLOCK
from linuxkit.encode.pieces import Piece, hole, literal
from linuxkit.entry import Kind
from linuxkit.errors import InputError

_TYPES = {Kind.FILE: 1, Kind.DIRECTORY: 2, Kind.CHAR: 3, Kind.BLOCK: 4, Kind.FIFO: 5, Kind.SYMLINK: 7}
_TAIL = 12
_ROOM = BLOCK - _TAIL
MAX_NAME = 255


def encoded(name: str, folder: str) -> bytes:
    """A name as it stands on the disk.

    Raises:
        InputError: ext4 can't hold it.
    """
    data = name.encode("utf-8", "surrogateescape")
    if len(data) > MAX_NAME:
        raise InputError(f"{folder}/{name[:60]}…: the name has {len(data)} bytes, and ext4 holds {MAX_NAME}",
                         hint="shorten it")  # fmt: skip
    if b"\0" in data:
        raise InputError(f"{folder}/{name[:60]!r}: the name has a zero byte in it", hint="rename it")
    return data


def blocks(names: Iterable[tuple[bytes, int, Kind]], own: int, parent: int, *, least: int = 1) -> list[bytes]:
    """The blocks of a directory, each without the zeros and the checksum at its end.

    Args:
        names: with the inode's number and its kind.
        own, parent: the numbers of `.` and `..`.
        least: so many blocks at least.
    """
    found, parts, room = list[bytes](), list[bytes](), _ROOM

    def close() -> None:
        last = parts[-1]
        parts[-1] = last[:4] + fields.pack("<H", room + struct.unpack_from("<H", last, 4)[0]) + last[6:]
        found.append(b"".join(parts))

    for name, number, kind in ((b".", own, Kind.DIRECTORY), (b"..", parent, Kind.DIRECTORY), *names):
        size = 8 + -(-len(name) // 4) * 4
        if size > room:
            close()
            parts, room = [], _ROOM
        parts.append(fields.pack("<IHBB", number, size, len(name), _TYPES[kind]) + name.ljust(size - 8, b"\0"))
        room -= size
    close()
    return found + [fields.pack("<IHH", 0, _ROOM, 0)] * (least - len(found))


def finished(content: Sequence[bytes], seeds: Sequence[int]) -> Iterator[list[Piece]]:
    """Each block, whole. `seeds` are of the checksums of the inodes that they belong to."""
    for block, seed in zip(content, seeds, strict=True):
        rest = _ROOM - len(block)
        tail = literal(fields.pack("<IHBBI", 0, _TAIL, 0, 0xDE, checksum(block + bytes(rest), seed)))
        yield [literal(block), hole(rest), tail] if rest else [literal(block), tail]
