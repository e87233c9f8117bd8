"""EROFS, the enhanced read-only file system of Linux: from a tree to pieces.

Specification: Linux, fs/erofs/erofs_fs.h and Documentation/filesystems/erofs.rst; blocks of 4096 bytes.

    block 0  1024 bytes of zeros | superblock | settings of compressors            checksum over all from 1024 on
    block 1  inodes, at multiples of 32 bytes; an inode's number is its place divided by 32, the root's is 128
             inode | extended attributes | addresses of chunks or clusters | the end of the data, which fills no block
    then     shared extended attributes | blocks of directories | blocks of files | clusters (erofs_zip)

Data that isn't compressed stays where it is: whole blocks are pieces of the sources, and so are the ends of files,
which stand behind their inodes. Files with the same content have the same blocks. Large files with runs of zeros are
kept in chunks (Linux 5.15), of which those that are zero take no room. The volume's own time is the one that most
files have: their inodes need only 32 bytes, not 64.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from linuxkit.encode import fields
from linuxkit.encode.compress import Codec, level_of
from linuxkit.encode.erofs_data import Chunks, Run, Same, chunked, content, mostly_zero
from linuxkit.encode.erofs_format import (
    BLOCK,
    MAX_TARGET,
    NULL,
    SLOT,
    SUPER_OFFSET,
    Feature,
    Layout,
    checked,
    device,
    directory_block,
    directory_blocks,
    inode,
    name_of,
    superblock,
    with_checksum,
)
from linuxkit.encode.erofs_place import Placed, Places, blocks_of
from linuxkit.encode.erofs_xattr import Attributes
from linuxkit.encode.erofs_zip import Zip
from linuxkit.encode.pieces import Piece, cut, literal, padded, size_of
from linuxkit.encode.squashfs_data import Memory, Shelf
from linuxkit.encode.tree import Node, walk
from linuxkit.entry import Entry, Kind, digest_of
from linuxkit.errors import FieldError, InputError

#: Goes into cache keys: raise it when the bytes written for the same tree change.
VERSION = 2
#: Files up to this size are not compressed: they stand behind their inodes.
_SMALL = 64


@dataclass(eq=False)
class _Inode:
    """A node on its way to its place.

    head   bytes of the inode and its attributes.
    table  bytes of the addresses behind it, `table_at` bytes from the inode's start.
    tail   bytes of data behind that.
    """

    node: Node
    xattrs: bytes
    size: int = 0
    layout: Layout = Layout.PLAIN
    compact: bool = True
    head: int = 0
    table_at: int = 0
    table: int = 0
    tail: int = 0
    end: list[Piece] = field(default_factory=list)
    run: Run | None = None
    chunks: Chunks | None = None
    names: list[tuple[bytes, Node]] = field(default_factory=list)
    cuts: list[tuple[int, int, int]] = field(default_factory=list)
    at: int = 0

    @property
    def number(self) -> int:
        return self.at // SLOT

    def compressed(self, index: int) -> None:
        """Its data is in clusters that an index of so many bytes finds."""
        self.layout, self.table_at, self.table = Layout.ZIP, -(-self.head // 8) * 8, index


@dataclass(frozen=True, slots=True)
class Options:
    """How to compress. `level` of None is the codec's default."""

    codec: Codec = Codec.NONE
    level: int | None = None


def volume(
    root: Node, how: Options = Options(), *, seed: str, label: str = "", shelf: Shelf | None = None, threads: int = 2
) -> tuple[Piece, ...]:
    """A volume with a tree in it: whole blocks.

    Args:
        seed: what its UUID is derived from.
        label: at most 16 bytes.
        shelf: keeps what was compressed; without one it is kept in memory.
        threads: that compress; the result doesn't depend on it.

    Raises:
        InputError: a name, a target, an attribute or a number is more than the format holds; a codec that it doesn't
            have, or a level that the codec doesn't.
        HostError: the codec needs a Python package that is not installed.
        ImageError: a cached file became shorter.
        FieldError: the label is too long.
    """
    name = label.encode("utf-8", "surrogateescape")
    if len(name) > 16:
        raise FieldError(f"the label {label} has more than 16 bytes")
    return _Writer(root, how, shelf or Memory(), threads).write(uuid_of(seed), name)


def uuid_of(seed: str) -> bytes:
    """The UUID of a volume."""
    made = bytearray.fromhex(digest_of([b"erofs", seed.encode()])[7:39])
    made[6], made[8] = made[6] & 0x0F | 0x80, made[8] & 0x3F | 0x80  # version 8: made in a way of one's own (RFC 9562)
    return bytes(made)


class _Writer:
    def __init__(self, root: Node, how: Options, shelf: Shelf, threads: int) -> None:
        nodes = list(dict.fromkeys(node for _, node in walk(root)))
        for node in nodes:
            checked(node.entry)
        self._time = Counter(node.entry.mtime for node in nodes).most_common(1)[0][0]
        self._attributes = Attributes(node.entry for node in nodes)
        self._same = Same()
        self._runs: dict[tuple[int, bool], Run] = {}
        self._chunks: dict[int, Chunks | None] = {}
        self._features = 0
        self._above = {child: node for node in nodes for child in node.children.values() if child.is_directory}
        self._above[root] = root
        zipped = [] if how.codec is Codec.NONE else [node for node in nodes if _worth_it(node)]
        self._zipped = set(zipped)
        self._zip: Zip | None = None
        self._zip_first = 0
        if zipped:
            self._zip = Zip(zipped, how.codec, level_of(how.codec, how.level), shelf, threads)
            self._features |= Feature.ZERO_PADDING | Feature.COMPRESSION | Feature.FRAGMENTS
        self._inodes = {node: self._inode(node) for node in nodes}
        self._packed: _Inode | None = None
        if self._zip is not None and self._zip.packed:
            ends = Node(Entry("", Kind.FILE, 0o600, mtime=self._time), links=1, inode=len(nodes) + 1)
            self._packed = self._inodes[ends] = self._packed_inode(ends, self._zip)

    def write(self, uuid: bytes, label: bytes) -> tuple[Piece, ...]:
        places = Places()
        for item in self._inodes.values():
            item.at = places.place(item.table_at + item.table + item.tail)
        shared = places.end // BLOCK
        data = _whole([literal(self._attributes.area)])
        blocks = shared + size_of(data) // BLOCK
        for item in self._inodes.values():
            if item.names:
                self._fill(item)
        for directories in (True, False):
            runs = (i.run for i in self._inodes.values() if i.run is not None and bool(i.names) is directories)
            for run in dict.fromkeys(runs):
                run.first = blocks
                blocks += run.blocks
                data += _whole(run.pieces)
        if self._zip is not None:
            self._zip_first = blocks
            blocks += self._zip.blocks
            data += _whole(self._zip.pieces)
        if blocks >= NULL:
            raise InputError(f"{blocks * BLOCK >> 40} TiB are too much for EROFS", hint="its limit is 16 TiB")
        inodes = blocks_of([self._placed(item) for item in self._inodes.values()], places.end)
        head = superblock(
            root=BLOCK // SLOT, inodes=len(self._inodes), time=self._time, blocks=blocks, shared=shared, uuid=uuid,
            label=label, features=self._features, algorithms=self._zip.algorithms if self._zip is not None else 0,
            packed=self._packed.number if self._packed is not None else 0,
        )  # fmt: skip
        settings = self._zip.settings if self._zip is not None else b""
        first = with_checksum((bytes(SUPER_OFFSET) + head + settings).ljust(BLOCK, b"\0"))
        return (literal(first), *inodes, *data)

    def _inode(self, node: Node) -> _Inode:
        entry = node.entry
        item = _Inode(node, self._attributes.of(entry))
        pieces: list[Piece] = []
        if node.is_directory:
            listed = [(name_of(name, child.entry.path), child) for name, child in node.children.items()]
            item.names = sorted([(b".", node), (b"..", self._above[node]), *listed], key=lambda named: named[0])
            item.cuts = directory_blocks([raw for raw, _ in item.names])
            item.size = (len(item.cuts) - 1) * BLOCK + item.cuts[-1][2]
        elif node in self._zipped:
            item.size = entry.size
        elif entry.kind is Kind.FILE:
            pieces = content(entry.source)
            item.size = size_of(pieces)
        elif entry.kind is Kind.SYMLINK:
            pieces = [literal(entry.target.encode("utf-8", "surrogateescape"))]
            item.size = pieces[0].size
            if item.size > MAX_TARGET:
                raise InputError(f"{entry.path[:200]}: a link of {item.size} bytes is too long",
                                 hint=f"at most {MAX_TARGET}")  # fmt: skip
        item.compact = (
            entry.mtime == self._time and max(entry.uid, entry.gid, node.links) < 1 << 16 and item.size < 1 << 32
        )
        item.head = item.table_at = (32 if item.compact else 64) + len(item.xattrs)
        if node.is_directory:
            self._lay_directory(item)
        elif self._zip is not None and node in self._zipped:
            item.compressed(self._zip.index_size(node))
        elif item.size:
            self._lay(item, pieces)
        return item

    def _packed_inode(self, node: Node, data: Zip) -> _Inode:
        """The file that holds the ends of others; in no directory."""
        item = _Inode(node, b"", compact=data.packed < 1 << 32, size=data.packed)
        item.head = 32 if item.compact else 64
        item.compressed(data.packed_size())
        return item

    def _lay_directory(self, item: _Inode) -> None:
        last = item.cuts[-1][2]
        if item.head + last <= BLOCK:
            item.layout, item.tail = Layout.INLINE, last
        if blocks := len(item.cuts) - bool(item.tail):
            item.run = Run([], blocks)

    def _lay(self, item: _Inode, pieces: Sequence[Piece]) -> None:
        """Decide how the data of a file or link is kept."""
        number = self._same.number(pieces, item.size)
        if number not in self._chunks:
            self._chunks[number] = chunked(pieces, item.size)
        item.chunks = self._chunks[number]
        tail = item.size % BLOCK
        if item.chunks is not None:
            item.layout, item.table_at, item.table = Layout.CHUNKS, -(-item.head // 4) * 4, 4 * len(item.chunks.starts)
            item.run = item.chunks.run
            self._features |= Feature.CHUNKS
            return
        if tail and item.head + tail <= BLOCK:
            item.layout, item.tail = Layout.INLINE, tail
            item.end = cut(pieces, item.size - tail, tail)
        stored = item.size - item.tail
        if stored:
            key = (number, bool(item.tail))
            if key not in self._runs:
                self._runs[key] = Run(cut(pieces, 0, stored), -(-stored // BLOCK))
            item.run = self._runs[key]

    def _fill(self, item: _Inode) -> None:
        """Write a directory, now that the numbers of all inodes are known."""
        blocks = []
        for first, behind, _ in item.cuts:
            named = [(raw, self._inodes[node].number, node.entry.kind) for raw, node in item.names[first:behind]]
            blocks.append(literal(directory_block(named)))
        if item.tail:
            item.end = [blocks.pop()]
        if item.run is not None:
            item.run.pieces = [literal(block.data.ljust(BLOCK, b"\0")) for block in blocks]

    def _placed(self, item: _Inode) -> Placed:
        entry = fields.checked(item.node.entry)
        where, table = 0, b""
        if self._zip is not None and item.layout is Layout.ZIP:
            if item is self._packed:
                table, where = self._zip.packed_index(self._zip_first)
            else:
                table, where = self._zip.index(item.node, self._zip_first)
        elif item.chunks is not None and item.run is not None:
            where, first = item.chunks.format, item.run.first
            starts = [NULL if start is None else first + start for start in item.chunks.starts]
            table = fields.pack(f"<{len(starts)}I", *starts)
        elif item.run is not None:
            where = item.run.first
        elif entry.kind in (Kind.CHAR, Kind.BLOCK):
            where = device(*entry.device)
        data = inode(
            layout=item.layout, compact=item.compact, xattrs=len(item.xattrs), kind=entry.kind, mode=entry.mode,
            links=item.node.links, size=item.size, where=where, number=item.node.inode, uid=entry.uid, gid=entry.gid,
            mtime=entry.mtime,
        )  # fmt: skip
        return Placed(item.at, (data + item.xattrs).ljust(item.table_at, b"\0") + table, item.end)


def _worth_it(node: Node) -> bool:
    """Whether to compress a node: a file that isn't tiny, and not one that is better kept in chunks."""
    return node.entry.size > _SMALL and not mostly_zero(node.entry.source)


def _whole(pieces: Sequence[Piece]) -> list[Piece]:
    size = size_of(pieces)
    return padded(pieces, -(-size // BLOCK) * BLOCK) if size else []
