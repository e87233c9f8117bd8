"""squashfs: a compressed read-only filesystem, from a tree to pieces.

Specification: version 4.0, Documentation/filesystems/squashfs.rst and fs/squashfs/squashfs_fs.h in Linux.

    superblock (96 bytes), compressor options    inode table         metadata blocks
    blocks of files        squashfs_data         directory table     metadata blocks
    fragments              squashfs_data         fragment table      position, length of each fragment
                                                 export table        reference of each inode, by number
                                                 id table            owners and groups
    zeros up to 4 KiB      not counted           xattr table         only when there are attributes

All numbers are little-endian. A table is metadata blocks (squashfs_tables) with an index behind them, and the
superblock points to the index. Every kind of inode has an extended form, used where the basic one lacks a field:
several links, attributes, a size or position over 4 GiB, blocks of zeros, an indexed directory.
"""

from __future__ import annotations

from dataclasses import dataclass

from linuxkit.encode import fields
from linuxkit.encode.compress import Codec, level_of
from linuxkit.encode.pieces import Piece, hole, literal, size_of
from linuxkit.encode.squashfs_blocks import Blocks
from linuxkit.encode.squashfs_codec import IDS, options, packer
from linuxkit.encode.squashfs_data import Memory, Shelf, lay_out
from linuxkit.encode.squashfs_tables import Tables, table
from linuxkit.encode.tree import Node
from linuxkit.entry import FIXED_MTIME

#: Goes into cache keys: raise it when the bytes written for the same tree change.
VERSION = 1
BLOCK = 128 << 10
_SUPER = fields.Record("<4sIIIIHHHHHH8Q")
_ABSENT = 0xFFFFFFFFFFFFFFFF
_STORED = 0x1 | 0x2 | 0x8 | 0x100 | 0x800  # nothing is compressed: inodes, data, fragments, attributes, owners
_DUPLICATES, _EXPORTABLE, _NO_XATTRS, _OPTIONS = 0x40, 0x80, 0x200, 0x400
_ALIGNMENT = 4096


@dataclass(frozen=True, slots=True)
class Options:
    """How to compress. `level` of None is the codec's default; `block_size` is a power of two from 4 KiB to 1 MiB."""

    codec: Codec = Codec.ZSTD
    level: int | None = None
    block_size: int = BLOCK


def image(root: Node, how: Options = Options(), *, shelf: Shelf | None = None, threads: int = 2) -> list[Piece]:
    """A filesystem with the content of a tree; its size is a multiple of 4 KiB.

    Args:
        shelf: keeps what was compressed; without one it is kept in memory.
        threads: that compress; the result doesn't depend on it.

    Raises:
        InputError: something in the tree that the format can't hold, or a level that the codec hasn't got.
        HostError: the codec needs a Python package that is not installed.
        ImageError: a source was shorter than it said.
    """
    level = level_of(how.codec, how.level)
    size = how.block_size
    if size & (size - 1) or not 4096 <= size <= 1 << 20:
        raise ValueError(f"{size} can't be the size of a block")
    pack = packer(how.codec, level, size)
    about = options(how.codec, level)
    head = _SUPER.size + (2 + len(about) if about else 0)
    with Blocks(size, pack) as blocks:
        data = lay_out(root, head, blocks, shelf or Memory(), threads)
    tables = Tables(root, data.places, pack)
    at = inode_table = head + size_of(data.pieces)
    directory_table = at + len(tables.inodes)
    at = directory_table + len(tables.directories)
    parts = [tables.inodes, tables.directories]
    starts = []
    fragments = b"".join(fields.pack("<QII", start, word, 0) for start, word in data.fragments)
    for content in (fragments, tables.references, tables.ids):
        made, index = table(pack, content, at)
        parts.append(made)
        starts.append(index)
        at += len(made)
    xattrs = _ABSENT
    if tables.xattrs:
        made, xattrs = tables.xattrs.table(at)
        parts.append(made)
        at += len(made)
    flags = _DUPLICATES | _EXPORTABLE | (_OPTIONS if about else 0) | (0 if tables.xattrs else _NO_XATTRS)
    flags |= _STORED if how.codec is Codec.NONE else 0
    superblock = _SUPER.pack(
        b"hsqs", tables.count, FIXED_MTIME, size, len(data.fragments), IDS[how.codec], size.bit_length() - 1, flags,
        len(tables.ids) // 4, 4, 0, tables.root, at, starts[2], xattrs, inode_table, directory_table, starts[0],
        starts[1],
    )  # fmt: skip
    if about:
        superblock += fields.pack("<H", len(about) | 0x8000) + about
    pieces = [literal(superblock), *data.pieces, literal(b"".join(parts))]
    return [*pieces, hole(-at % _ALIGNMENT)] if at % _ALIGNMENT else pieces
