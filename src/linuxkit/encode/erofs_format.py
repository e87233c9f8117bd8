"""The structures of EROFS on disk, little endian. Used by encode.erofs, whose docstring draws the layout.

Specification: Linux, fs/erofs/erofs_fs.h and Documentation/filesystems/erofs.rst.

    inode, compact   32 bytes: no time of its own, 16 bits for owner, group and links, 32 bits for the size
    inode, extended  64 bytes
    directory block  entries: inode number u64, offset of the name u16, type u8, 0; then the names, sorted as bytes
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

from linuxkit.encode import fields
from linuxkit.encode.crc32c import crc32c
from linuxkit.entry import Entry, Kind
from linuxkit.errors import InputError

BLOCK = 4096
SLOT = 32  # inodes stand at multiples of it
SUPER_OFFSET = 1024
MAX_NAME, MAX_TARGET = 255, BLOCK - 1
#: The address of a block that isn't there.
NULL = 0xFFFFFFFF
DIRENT = 12
_MAGIC = 0xE0F5E1E2
_TYPES = {
    Kind.FILE: (1, 0o100000), Kind.DIRECTORY: (2, 0o040000), Kind.CHAR: (3, 0o020000), Kind.BLOCK: (4, 0o060000),
    Kind.FIFO: (5, 0o010000), Kind.SYMLINK: (7, 0o120000),
}  # fmt: skip
_SUPER = fields.Record("<IIIBBHQqIIII16s16sIHHHBBIQ24x")
_COMPACT, _EXTENDED = fields.Record("<HHHHIIIIHHI"), fields.Record("<HHHHQIIIIqII16x")
_DIRENT = fields.Record("<QHBB")

# feature_compat: a checksum; times of inodes are those of the content
_CHECKSUM, _MTIME = 0x1, 0x2


class Feature(IntEnum):
    """feature_incompat: what an older kernel can't read."""

    ZERO_PADDING = 0x1
    COMPRESSION = 0x2  # configurations of compressors, and clusters of several blocks
    CHUNKS = 0x4
    FRAGMENTS = 0x20


class Layout(IntEnum):
    """How an inode's data is found."""

    PLAIN = 0
    ZIP = 1
    INLINE = 2
    CHUNKS = 4


def superblock(
    *, root: int, inodes: int, time: int, blocks: int, shared: int, uuid: bytes, label: bytes, features: int,
    algorithms: int, packed: int,
) -> bytes:  # fmt: skip
    """The superblock, its checksum still to come.

    Args:
        root: number of the root's inode. shared: block of the shared attributes.
        time: that of compact inodes.
        algorithms: bits of the compressors in use. packed: number of the inode with the ends of files, or 0.
    """
    return _SUPER.pack(
        _MAGIC, 0, _CHECKSUM | _MTIME, BLOCK.bit_length() - 1, 0, root, inodes, time, 0, blocks, 0, shared, uuid, label,
        features, algorithms, 0, 0, 0, 0, 0, packed,
    )  # fmt: skip


def with_checksum(block: bytes) -> bytes:
    """The first block of a volume with the superblock's checksum filled in."""
    at = SUPER_OFFSET + 4
    value = crc32c(block[SUPER_OFFSET:]) ^ 0xFFFFFFFF  # not inverted at the end, as usual elsewhere
    return block[:at] + value.to_bytes(4, "little") + block[at + 4 :]


def inode(
    *, layout: Layout, compact: bool, xattrs: int, kind: Kind, mode: int, links: int, size: int, where: int,
    number: int, uid: int, gid: int, mtime: int,
) -> bytes:  # fmt: skip
    """An inode.

    Args:
        compact: the short form; `fits_compact` says whether it can be.
        xattrs: bytes of extended attributes behind it.
        where: first block, device number, number of compressed blocks or format of chunks.
    """
    mode = _TYPES[kind][1] | (0o777 if kind is Kind.SYMLINK else mode)  # as Linux has them: without a meaning
    count = (xattrs - 12) // 4 + 1 if xattrs else 0
    if compact:
        return _COMPACT.pack(layout << 1, count, mode, links, size, 0, where, number, uid, gid, 0)
    return _EXTENDED.pack(layout << 1 | 1, count, mode, 0, size, where, number, uid, gid, mtime, 0, links)


def checked(entry: Entry) -> None:
    """Look at the numbers of an entry.

    Raises:
        InputError: one is more than an inode holds.
    """
    major, minor = entry.device
    for what, value, low, high in (
        ("owner", entry.uid, 0, (1 << 32) - 1), ("group", entry.gid, 0, (1 << 32) - 1),
        ("time", entry.mtime, -(1 << 63), (1 << 63) - 1), ("device", major, 0, 4095), ("device", minor, 0, 1048575),
    ):  # fmt: skip
        if not low <= value <= high:
            raise InputError(f"{entry.path[:200]}: the {what} {value} is more than EROFS holds", hint=f"at most {high}")


def device(major: int, minor: int) -> int:
    """A device number as Linux packs it into 32 bits."""
    return minor & 0xFF | major << 8 | (minor & ~0xFF) << 12


def name_of(text: str, path: str) -> bytes:
    """A file's name as bytes.

    Raises:
        InputError: it is too long.
    """
    raw = text.encode("utf-8", "surrogateescape")
    if len(raw) > MAX_NAME:
        raise InputError(f"{path[:120]}: a name of {len(raw)} bytes is too long for EROFS", hint="at most 255 bytes")
    return raw


def directory_blocks(names: Sequence[bytes]) -> list[tuple[int, int, int]]:
    """How sorted names fall into blocks: (first, behind the last, bytes) of each."""
    found, first, used = [], 0, 0
    for n, raw in enumerate(names):
        need = DIRENT + len(raw)
        if used + need > BLOCK:
            found.append((first, n, used))
            first, used = n, 0
        used += need
    found.append((first, len(names), used))
    return found


def directory_block(entries: Sequence[tuple[bytes, int, Kind]]) -> bytes:
    """One block of a directory, not padded, of (name, number of the inode, kind)."""
    at = DIRENT * len(entries)
    heads = []
    for raw, number, kind in entries:
        heads.append(_DIRENT.pack(number, at, _TYPES[kind][0], 0))
        at += len(raw)
    return b"".join(heads) + b"".join(raw for raw, _, _ in entries)
