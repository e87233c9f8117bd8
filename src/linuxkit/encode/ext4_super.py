"""The superblock, the group descriptors, the journal's superblock and the inode of the blocks reserved for growth.

Documentation/filesystems/ext4/super.rst, group_descr.rst, journal.rst.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from linuxkit.encode import fields
from linuxkit.encode.ext4_checksum import checksum, of_many
from linuxkit.encode.ext4_layout import BLOCK, DESCRIPTOR, GROUP, INODE, Allocator, Layout
from linuxkit.entry import digest_of

ROOT, RESIZE, JOURNAL, FIRST = 2, 7, 8, 11
_HAS_JOURNAL, _EXT_ATTR, _RESIZE_INODE, _DIR_INDEX = 0x4, 0x8, 0x10, 0x20
_FILETYPE, _EXTENTS, _64BIT, _FLEX_BG = 0x2, 0x40, 0x80, 0x200
_SPARSE_SUPER, _LARGE_FILE, _HUGE_FILE, _DIR_NLINK, _EXTRA_ISIZE, _METADATA_CSUM = 1, 2, 8, 0x20, 0x40, 0x400
_INODE_UNINIT, _BLOCK_UNINIT, _INODE_ZEROED = 1, 2, 4
_USER_XATTR, _ACL = 4, 8
_SIGNED_HASH, _HALF_MD4, _CRC32C = 1, 1, 1
#: Blocks of the resize inode's content that come before what its double indirect block tells of.
_DIRECT = 12
_ADDRESSES = BLOCK // 4


def uuid_of(seed: str) -> bytes:
    """The 16 bytes of a file system's UUID."""
    return _uuid(seed, b"uuid")


def _uuid(seed: str, what: bytes) -> bytes:
    made = bytearray.fromhex(digest_of([b"ext4", what, seed.encode()])[7:39])
    made[6] = made[6] & 0x0F | 0x80  # version 8: made in a way of one's own (RFC 9562)
    made[8] = made[8] & 0x3F | 0x80
    return bytes(made)


class Facts(NamedTuple):
    """What a superblock tells. `journal` is the content of the journal's inode and its size, when there is one."""

    layout: Layout
    seed: str
    label: bytes
    time: int
    free_blocks: int
    free_inodes: int
    overhead: int
    journal: tuple[bytes, int] | None


def superblock(facts: Facts, group: int) -> bytes:
    """The 1024 bytes of the superblock, or of its copy in a group."""
    layout, journal = facts.layout, facts.journal
    compatible = _EXT_ATTR | _DIR_INDEX | (_HAS_JOURNAL if journal else 0) | (_RESIZE_INODE if layout.reserved else 0)
    made = bytearray(1024)
    time = facts.time & 0xFFFFFFFF
    fields.pack_into(
        "<11I", made, 0, layout.inodes, layout.blocks & 0xFFFFFFFF, 0, facts.free_blocks & 0xFFFFFFFF,
        facts.free_inodes, 0, 2, 2, GROUP, GROUP, layout.per_group,
    )  # fmt: skip
    fields.pack_into("<IIHHHHHHIIIIHH", made, 0x2C, 0, time, 0, 0xFFFF, 0xEF53, 1, 1, 0, time, 0, 0, 1, 0, 0)
    fields.pack_into(
        "<IHHIII16s16s", made, 0x54, FIRST, INODE, group, compatible, _FILETYPE | _EXTENTS | _64BIT | _FLEX_BG,
        _SPARSE_SUPER | _LARGE_FILE | _HUGE_FILE | _DIR_NLINK | _EXTRA_ISIZE | _METADATA_CSUM,
        uuid_of(facts.seed), facts.label,
    )  # fmt: skip
    fields.pack_into("<H", made, 0xCE, layout.reserved)
    fields.pack_into("<I", made, 0xE0, JOURNAL if journal else 0)
    fields.pack_into("<16sBBHIII", made, 0xEC, _uuid(facts.seed, b"hash"), _HALF_MD4, 1 if journal else 0, DESCRIPTOR,
                     _USER_XATTR | _ACL, 0, time)  # fmt: skip
    if journal:
        fields.pack_into("<60sII", made, 0x10C, journal[0], journal[1] >> 32, journal[1] & 0xFFFFFFFF)
    fields.pack_into("<IIIHHI", made, 0x150, layout.blocks >> 32, 0, facts.free_blocks >> 32, 32, 32, _SIGNED_HASH)
    fields.pack_into("<BB", made, 0x174, layout.flex.bit_length() - 1, _CRC32C)
    fields.pack_into("<I", made, 0x248, facts.overhead & 0xFFFFFFFF)
    fields.pack_into("<I", made, 0x3FC, checksum(bytes(made[:0x3FC])))
    return bytes(made)


class Groups(NamedTuple):
    """Of every group: its descriptors end to end, and of those that need one the bitmaps, by block."""

    descriptors: bytes
    bitmaps: dict[int, bytes]


def groups(layout: Layout, allocator: Allocator, inodes: int, directories: Sequence[int], seed: int) -> Groups:
    """The descriptors and bitmaps.

    Args:
        inodes: how many are in use; they are the first.
        directories: how many of them are directories, for the first groups.
        seed: of the checksums.
    """
    made, bitmaps = bytearray(), dict[int, bytes]()
    known = dict[tuple[int, int, int], tuple[bytes, int]]()

    def bitmap(used: int, bits: int, covered: int) -> tuple[bytes, int]:
        """`used` ones, zeros up to `bits`, ones to the block's end; the checksum is of `covered` bits."""
        key = used, bits, covered
        if key not in known:
            value = (1 << used) - 1 | (1 << BLOCK * 8) - (1 << bits)
            data = value.to_bytes(BLOCK, "little")
            known[key] = data, checksum(data[: covered // 8], seed)
        return known[key]

    for group in range(layout.groups):
        length, used = layout.length(group), allocator.in_use(group)
        taken = min(max(0, inodes - group * layout.per_group), layout.per_group)
        blocks_at, inodes_at, table = layout.places(group)
        flags, block_sum, inode_sum = _INODE_ZEROED, 0, 0
        if used == layout.copies(group) and group != layout.groups - 1:
            flags |= _BLOCK_UNINIT
        else:
            bitmaps[blocks_at], block_sum = bitmap(used, length, GROUP)
        if not taken:
            flags |= _INODE_UNINIT
        else:
            bitmaps[inodes_at], inode_sum = bitmap(taken, layout.per_group, layout.per_group)
        free, spare = length - used, layout.per_group - taken
        folders = directories[group] if group < len(directories) else 0
        made += fields.pack(
            "<IIIHHHHIHHHHIIIHHHHIHHI",
            blocks_at & 0xFFFFFFFF, inodes_at & 0xFFFFFFFF, table & 0xFFFFFFFF, free, spare, folders, flags, 0,
            block_sum & 0xFFFF, inode_sum & 0xFFFF, spare, 0, blocks_at >> 32, inodes_at >> 32, table >> 32,
            0, 0, 0, 0, 0, block_sum >> 16, inode_sum >> 16, 0,
        )  # fmt: skip
    starts = of_many(fields.pack(f"<{layout.groups}I", *range(layout.groups)), [seed] * layout.groups)
    for group, value in enumerate(of_many(bytes(made), starts)):
        fields.pack_into("<H", made, group * DESCRIPTOR + 0x1E, value & 0xFFFF)
    return Groups(bytes(made), bitmaps)


def journal_blocks(blocks: int) -> int:
    """How large the journal of a file system is, in blocks: as mke2fs has it, up to 256 MiB; 0 is none."""
    for below, size in ((2048, 0), (32768, 1024), (1 << 18, 4096), (1 << 19, 8192), (1 << 22, 16384), (1 << 23, 32768)):
        if blocks < below:
            return size
    return 65536


def journal_superblock(blocks: int, seed: str) -> bytes:
    """The first block of an empty journal (jbd2)."""
    head = fields.pack(">12I", 0xC03B3998, 4, 0, BLOCK, blocks, 1, 1, 0, 0, 0, 0, 0)
    return (head + uuid_of(seed) + fields.pack(">I", 1)).ljust(1024, b"\0")


class Reserve(NamedTuple):
    """The resize inode: its size and blocks, what stands in it, and its blocks by their numbers."""

    size: int
    used: int
    content: bytes
    blocks: dict[int, bytes]


def reserve(layout: Layout, indirect: int) -> Reserve:
    """The inode that owns the blocks reserved for descriptors.

    Args:
        indirect: the block of it that names them all.
    """
    backups = layout.backups()
    first = 1 + layout.descriptors
    table = [0] * _ADDRESSES
    blocks = dict[int, bytes]()
    for n in range(layout.reserved):
        table[(layout.descriptors + n) % _ADDRESSES] = first + n
        if backups:
            copies = [first + n + group * GROUP for group in backups]
            blocks[first + n] = fields.pack(f"<{len(copies)}I", *copies).ljust(BLOCK, b"\0")
    blocks[indirect] = fields.pack(f"<{_ADDRESSES}I", *table)
    size = (_ADDRESSES * _ADDRESSES + _ADDRESSES + _DIRECT) * BLOCK
    count = 1 + layout.reserved * (1 + len(backups))
    return Reserve(size, count, fields.pack("<13II4x", *([0] * 13), indirect), blocks)
