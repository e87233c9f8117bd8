"""Inodes of ext4, and the extents that say where their content is.

    inode    128 bytes of the first ext2, 32 more, extended attributes; 256 in all
    extents  4 in the inode; with more, a tree of blocks with 340 each, and a checksum at the end

Documentation/filesystems/ext4/inodes.rst, ifork.rst.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from linuxkit.encode import fields
from linuxkit.encode.ext4_checksum import checksum
from linuxkit.encode.ext4_layout import BLOCK, INODE, Run
from linuxkit.entry import Entry, Kind

#: File types in a mode.
TYPES = {
    Kind.FILE: 0o100000, Kind.DIRECTORY: 0o040000, Kind.SYMLINK: 0o120000, Kind.CHAR: 0o020000,
    Kind.BLOCK: 0o060000, Kind.FIFO: 0o010000,
}  # fmt: skip
EXTENTS_FLAG = 0x80000
#: Symlinks shorter than this are in the inode.
INLINE = 60
#: A directory with more links than this has 1, which means many.
MAX_LINKS = 65000
_MAX_EXTENT = 32768
_IN_INODE, _IN_BLOCK = 4, 340
_EXTRA = 32
_RECORD = fields.Record("<HHIIIIIHHIII60sIIIIHHHHHHHHIIIIIII")
_EARLIEST, _LATEST = -(1 << 31), (1 << 34) - (1 << 31) - 1


class Extent(NamedTuple):
    """`blocks` blocks of a file from its block `logical`, which are on the disk from `physical`."""

    logical: int
    physical: int
    blocks: int


def extents(runs: Sequence[Run], blocks: Sequence[Run]) -> list[Extent]:
    """The extents of a file whose data are in the runs of its own blocks, and on the disk in as many `blocks`."""
    if len(runs) == len(blocks) == 1 and runs[0].blocks <= _MAX_EXTENT:
        return [Extent(runs[0].start, blocks[0].start, runs[0].blocks)]
    found = list[Extent]()
    disk = iter(blocks)
    at = left = 0
    for logical, wanted in runs:
        while wanted:
            if not left:
                at, left = next(disk)
            count = min(wanted, left, _MAX_EXTENT)
            found.append(Extent(logical, at, count))
            logical, at = logical + count, at + count
            wanted, left = wanted - count, left - count
    return found


def tree_blocks(count: int) -> int:
    """How many blocks the tree of `count` extents has outside of the inode."""
    total = 0
    while count > _IN_INODE:
        count = -(-count // _IN_BLOCK)
        total += count
    return total


def extent_tree(
    found: Sequence[Extent], take: Callable[[int], list[Run]], key: int, number: int
) -> tuple[bytes, dict[int, bytes]]:
    """What stands in inode `number`, and the blocks of the tree by their numbers; `key` is of all checksums."""
    seed = inode_seed(key, number) if len(found) > _IN_INODE else 0
    entries = [fields.pack("<IHHI", e.logical, e.blocks, e.physical >> 32, e.physical & 0xFFFFFFFF) for e in found]
    firsts = [e.logical for e in found]
    depth, blocks = 0, dict[int, bytes]()
    while len(entries) > _IN_INODE:
        count = -(-len(entries) // _IN_BLOCK)
        places = [start + n for start, length in take(count) for n in range(length)]
        for n, place in enumerate(places):
            part = b"".join(entries[n * _IN_BLOCK : (n + 1) * _IN_BLOCK])
            block = (_header(len(part) // 12, _IN_BLOCK, depth) + part).ljust(BLOCK - 4, b"\0")
            blocks[place] = block + fields.pack("<I", checksum(block, seed))
        firsts = firsts[::_IN_BLOCK]
        entries = [fields.pack("<IIHH", first, place & 0xFFFFFFFF, place >> 32, 0)
                   for first, place in zip(firsts, places, strict=True)]  # fmt: skip
        depth += 1
    return (_header(len(entries), _IN_INODE, depth) + b"".join(entries)).ljust(60, b"\0"), blocks


def _header(entries: int, most: int, depth: int) -> bytes:
    return fields.pack("<HHHHI", 0xF30A, entries, most, depth, 0)


def record(
    entry: Entry, *, links: int, size: int, content: bytes, blocks: int, attributes: bytes = b"",
    attribute_block: int = 0,
) -> bytes:  # fmt: skip
    """An inode without its checksum.

    Args:
        size: of its content in bytes.
        content: the 60 bytes that are extents, a short symlink or a device's number.
        blocks: that it has on the disk, with trees and attributes.
        attributes, attribute_block: what `ext4_xattr.stored` made, and where its block is.
    """
    fields.checked(entry)
    mode = 0o777 if entry.kind is Kind.SYMLINK else entry.mode
    is_tree = entry.kind in (Kind.FILE, Kind.DIRECTORY) or (entry.kind is Kind.SYMLINK and size >= INLINE)
    seconds = min(max(entry.mtime, _EARLIEST), _LATEST)
    low = seconds & 0xFFFFFFFF
    epoch = seconds - (low - (1 << 32) if low >> 31 else low) >> 32
    sectors = blocks * (BLOCK // 512)
    made = _RECORD.pack(
        TYPES[entry.kind] | mode, entry.uid & 0xFFFF, size & 0xFFFFFFFF, low, low, low, 0, entry.gid & 0xFFFF,
        links if links <= MAX_LINKS else 1, sectors & 0xFFFFFFFF, EXTENTS_FLAG if is_tree else 0, 0, content, 0,
        attribute_block & 0xFFFFFFFF, size >> 32, 0, sectors >> 32, attribute_block >> 32, entry.uid >> 16,
        entry.gid >> 16, 0, 0, _EXTRA, 0, epoch, epoch, epoch, low, epoch, 0, 0,
    )  # fmt: skip
    return made + attributes.ljust(INODE - len(made), b"\0")


def device(major: int, minor: int) -> bytes:
    """The 60 bytes of a device's inode."""
    if major < 256 and minor < 256:
        return fields.pack("<I56x", major << 8 | minor)
    return fields.pack("<4xI52x", minor & 0xFF | major << 8 | (minor & ~0xFF) << 12)


def inode_seed(key: int, number: int) -> int:
    """What the checksums of an inode, of its directory's blocks and of its extents' begin with."""
    return checksum(fields.pack("<II", number, 0), key)


def with_checksum(made: bytes, value: int) -> bytes:
    """An inode with the checksum that was made over it with zeros in its place."""
    low, high = fields.pack("<H", value & 0xFFFF), fields.pack("<H", value >> 16)
    return made[:0x7C] + low + made[0x7E:0x82] + high + made[0x84:]
