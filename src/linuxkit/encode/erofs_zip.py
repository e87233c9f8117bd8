"""Compressed files of EROFS: clusters, their index, and the ends of files packed together. Used by encode.erofs.

Specification: Linux, fs/erofs/erofs_fs.h ("z_erofs"); with full indexes, clusters of several blocks and fragments.

    cluster  128 KiB of a file compressed into whole blocks of 4096 bytes: zeros first, so that it ends with the last;
             stored as it is where that wouldn't save a block
    end      what is behind the last 128 KiB of a file, in the packed inode, a file of its own: clusters of many ends
    index    header (8) | 0 (8) | for each 4096 bytes of the file 8 bytes: kind u16, 0 u16, then
                 first of a cluster    address of its block u32
                 another one           distance to the first u16 (of the second: 0x800 + blocks), to the next first u16
    header   offset in the packed inode u32 | flags u16 | codec twice u8 | 0 u8
             or, for a file that is nothing but an end: offset u63 and the highest bit

The cutting, packing and keeping is that of squashfs, whose contents have the same form. What Linux can read: lz4 since
6.1, gzip (as raw deflate) since 6.6, zstd since 6.10. LZMA is left out: what Linux reads is a stream without its end
marker ("MicroLZMA"), and Python's lzma module always writes one.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from functools import cache

from linuxkit.encode import fields, libraries
from linuxkit.encode.compress import Codec
from linuxkit.encode.erofs_format import BLOCK
from linuxkit.encode.pieces import literal, size_of
from linuxkit.encode.squashfs_blocks import STORED, Blocks, Done
from linuxkit.encode.squashfs_codec import Pack, packer
from linuxkit.encode.squashfs_data import NO_FRAGMENT, Shelf, lay_out
from linuxkit.encode.tree import Node
from linuxkit.entry import Entry, Kind, Source
from linuxkit.errors import InputError

#: What is compressed at a time.
CLUSTER = 128 << 10
_BIG, _FRAGMENT = 0x2, 0x20
_PLAIN, _HEAD, _OTHER = 0, 1, 2
_COUNT = 0x800
#: Codec → its number, and what the superblock says of it.
_CODECS = {
    Codec.LZ4: (0, fields.pack("<HH10x", 0, CLUSTER // BLOCK)),
    Codec.GZIP: (2, fields.pack("<B5x", 15)),
    Codec.ZSTD: (3, fields.pack("<BB4x", 0, CLUSTER.bit_length() - 11)),
}
_FIRST, _NEXT = fields.Record("<H2xI"), fields.Record("<H2xHH")


def checked(codec: Codec) -> Codec:
    """A codec that EROFS can be written with.

    Raises:
        InputError: it can't.
    """
    if codec is not Codec.NONE and codec not in _CODECS:
        raise InputError(f"an EROFS can't be compressed with {codec}", hint="use zstd, gzip, lz4 or none")
    return codec


class Zip:
    """The compressed data of some files.

    Args:
        nodes: files that are not empty.

    Raises:
        InputError: the codec hasn't got such a level, or can't be used.
        HostError: the codec needs a Python package that is not installed.
        ImageError: a source was shorter than it said.
    """

    def __init__(self, nodes: Sequence[Node], codec: Codec, level: int, shelf: Shelf, threads: int) -> None:
        number, about = _CODECS[checked(codec)]
        #: The bit of the codec, and what stands behind the superblock, for the superblock.
        self.algorithms, self.settings = 1 << number, fields.pack("<H", len(about)) + about
        self._codecs = number << 4 | number
        pack = _packer(codec, level)
        flat = Node(Entry("", Kind.DIRECTORY), {f"{n}": node for n, node in enumerate(nodes)})
        with _Blocks(CLUSTER, pack) as blocks:
            data = lay_out(flat, 0, blocks, shelf, threads)
        self._fragments = data.fragments
        #: Whole blocks.
        self.pieces = list(data.pieces)
        self._words: dict[int, list[tuple[int, int, int]]] = {}  # by inode: length, block, stored bytes
        self._ends: dict[int, tuple[int, int]] = {}
        zeros: dict[int, int] = {}  # runs of zeros by their length
        behind = size_of(data.pieces) // BLOCK
        for node in nodes:
            place = data.places[node.inode]
            left, at, found = node.entry.size, place.start // BLOCK, []
            for (word,) in struct.iter_unpack("<I", place.words):
                length = min(CLUSTER, left)
                left -= length
                if word:
                    found.append((length, at, word))
                    at += (word & ~STORED) // BLOCK
                    continue
                if length not in zeros:
                    zeros[length] = behind + len(zeros)
                    self.pieces.append(literal(pack(bytes(length))))
                found.append((length, zeros[length], BLOCK))
            self._words[node.inode] = found
            if place.fragment != NO_FRAGMENT:
                self._ends[node.inode] = left, place.fragment * CLUSTER + place.offset
        #: How many they are, and the size of the packed inode.
        self.blocks, self.packed = behind + len(zeros), CLUSTER * len(data.fragments)

    def index_size(self, node: Node) -> int:
        """Bytes of a file's index."""
        if not self._words[node.inode]:
            return 8
        return 16 + 8 * -(-node.entry.size // BLOCK)

    def index(self, node: Node, first: int) -> tuple[bytes, int]:
        """A file's index, and how many blocks it has for itself.

        Args:
            first: the address of the first block of `pieces`.
        """
        words = self._words[node.inode]
        length, offset = self._ends.get(node.inode, (0, 0))
        if not words:
            return fields.pack("<Q", offset | 1 << 63), 0
        made = self._index(words, first, offset & 0xFFFFFFFF, _FRAGMENT if length else 0)
        if length:
            made += _FIRST.pack(_HEAD, offset >> 32) + _others(-(-length // BLOCK), 1)
        return made, sum((word & ~STORED) // BLOCK for _, _, word in words)

    def packed_size(self) -> int:
        """Bytes of the packed inode's index."""
        return 16 + 8 * (self.packed // BLOCK)

    def packed_index(self, first: int) -> tuple[bytes, int]:
        """The same for the packed inode."""
        words = [(CLUSTER, start // BLOCK, word) for start, word in self._fragments]
        return self._index(words, first, 0, 0), sum((word & ~STORED) // BLOCK for _, _, word in words)

    def _index(self, words: Iterable[tuple[int, int, int]], first: int, offset: int, flags: int) -> bytes:
        made = [fields.pack("<IHBB8x", offset, _BIG | flags, self._codecs, 0)]
        for length, block, word in words:
            count = -(-length // BLOCK)
            if word & STORED:
                made += [_FIRST.pack(_PLAIN, first + block + n) for n in range(count)]
            else:
                made += [_FIRST.pack(_HEAD, first + block), _others(count, _COUNT | word // BLOCK)]
        return b"".join(made)


class _Blocks(Blocks):
    """As for squashfs, but that each cluster of ends is full: an inode has no room for their lengths."""

    def fragment(self, ends: Sequence[bytes | tuple[Source, int]]) -> Done:
        used = sum(len(end) if isinstance(end, bytes) else end[1] for end in ends)
        return super().fragment([*ends, bytes(self.size - used)])


@cache
def _others(count: int, blocks: int) -> bytes:
    """The entries behind the first of a cluster of `count`; `blocks` stands in the first of them."""
    return b"".join(_NEXT.pack(_OTHER, blocks if n == 1 else n, count - n) for n in range(1, count))


def _packer(codec: Codec, level: int) -> Pack:
    """Compresses into whole blocks. What can't be told from the zeros before it is as good as not compressed."""
    pack = libraries.deflate_block(level, -15) if codec is Codec.GZIP else packer(codec, level, CLUSTER)

    def whole(data: bytes | memoryview) -> bytes:
        made = pack(data)
        return bytes(-len(made) % BLOCK) + made if made[0] else bytes(CLUSTER)

    return whole
