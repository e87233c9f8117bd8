"""The metadata of squashfs: inodes, directories, owners and extended attributes, in compressed blocks of 8 KiB.

    metadata block    length(2), its high bit set when it is stored as it is, then the bytes
    table             metadata blocks, then the position of each (8): where the superblock points to
    reference         (position of a metadata block in its table) << 16 | offset of something in the unpacked block

A directory's inode refers to its listing and the listing to the inodes of its children, so the tree is written from the
leaves to the root. A listing is runs of at most 256 names under one header, whose inodes are in one metadata block;
one that goes over a block's end gets an index: for each block the first name in it.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator

from linuxkit.encode import fields
from linuxkit.encode.squashfs_codec import Pack
from linuxkit.encode.squashfs_data import NO_FRAGMENT, Placed
from linuxkit.encode.tree import Node
from linuxkit.entry import Kind
from linuxkit.errors import InputError

METADATA = 8192
NONE = 0xFFFFFFFF
MAX_NAME, MAX_LINK, MAX_VALUE, MAX_IDS = 256, 4095, 65536, 65535
_RUN = 256
_EXTENDED = 7  # is added to the number of a type
_TYPES = {Kind.DIRECTORY: 1, Kind.FILE: 2, Kind.SYMLINK: 3, Kind.BLOCK: 4, Kind.CHAR: 5, Kind.FIFO: 6}
_PREFIXES = {"user.": 0, "trusted.": 1, "security.": 2}

_HEAD = fields.Record("<HHHHII")  # type, mode, owner, group, time, number
_DIRECTORY = fields.Record("<IIHHI")
_LONG_DIRECTORY = fields.Record("<IIIIHHI")
_FILE = fields.Record("<IIII")
_LONG_FILE = fields.Record("<QQQIIII")
_PAIR, _TRIPLE, _ENTRY = fields.Record("<II"), fields.Record("<III"), fields.Record("<HhHH")


class Metadata:
    """Bytes that become metadata blocks. `at` is the reference of the next byte."""

    def __init__(self, pack: Pack) -> None:
        self._pack, self._pending = pack, bytearray()
        self._blocks: list[bytes] = []
        self._starts = array("Q")
        self.size = 0  # of the finished blocks

    @property
    def at(self) -> int:
        return self.size << 16 | len(self._pending)

    def write(self, data: bytes) -> None:
        self._pending += data
        while len(self._pending) >= METADATA:
            self._finish(bytes(self._pending[:METADATA]))
            del self._pending[:METADATA]

    def finish(self) -> bytes:
        """All blocks, end to end."""
        if self._pending:
            self._finish(bytes(self._pending))
            self._pending.clear()
        return b"".join(self._blocks)

    def table(self, position: int) -> tuple[bytes, int]:
        """The blocks of a table at `position` of the volume with their index, and the position of the index."""
        blocks = self.finish()
        return blocks + b"".join(fields.pack("<Q", position + start) for start in self._starts), position + len(blocks)

    def _finish(self, data: bytes) -> None:
        made = metadata_block(self._pack, data)
        self._starts.append(self.size)
        self._blocks.append(made)
        self.size += len(made)


def metadata_block(pack: Pack, data: bytes) -> bytes:
    """One metadata block of at most 8 KiB."""
    made = pack(data)
    if len(made) < len(data):
        return fields.pack("<H", len(made)) + made
    return fields.pack("<H", len(data) | 0x8000) + data


class Tables:
    """What the tree becomes. Everything is done when it is made.

    inodes, directories   metadata blocks without index     root    reference of the root's inode
    references            of each inode, by its number      ids     owners and groups, by index
    xattrs                the table of extended attributes, empty when there are none

    Raises:
        InputError: a name, link or attribute that squashfs can't hold; the message names the file.
    """

    def __init__(self, root: Node, places: dict[int, Placed], pack: Pack) -> None:
        self._places, self._root = places, root
        self._inodes, self._listings = Metadata(pack), Metadata(pack)
        self._ids: dict[int, int] = {}
        self.xattrs = Xattrs(pack)
        self._references: dict[int, int] = {}
        for path, node, parent in _leaves_first(root):
            if node.inode not in self._references:
                self._references[node.inode] = self._inode(path, node, parent)
        self.root = self._references[root.inode]
        self.inodes, self.directories = self._inodes.finish(), self._listings.finish()

    @property
    def count(self) -> int:
        return len(self._references)

    @property
    def ids(self) -> bytes:
        return fields.pack(f"<{len(self._ids)}I", *self._ids)

    @property
    def references(self) -> bytes:
        found = self._references
        return fields.pack(f"<{len(found)}Q", *(found[number] for number in sorted(found)))

    def _id(self, number: int, path: str) -> int:
        if not 0 <= number <= NONE:
            raise InputError(f"{path[:200]}: the owner or group {number} is more than Linux knows",
                             hint=f"at most {NONE}")  # fmt: skip
        index = self._ids.setdefault(number, len(self._ids))
        if index >= MAX_IDS:
            raise InputError(f"{path[:80]}: squashfs holds {MAX_IDS} different owners and groups, and this is one more",
                             hint="use another file system, such as erofs")  # fmt: skip
        return index

    def _inode(self, path: str, node: Node, parent: Node | None) -> int:
        """Write one, and what it refers to; its reference."""
        e = node.entry
        xattr = self.xattrs.index(e.xattrs, path)
        extended, kind, links = xattr != NONE, _TYPES[e.kind], node.links
        tail = fields.pack("<I", xattr) if extended else b""
        if e.kind is Kind.DIRECTORY:
            start, size, index = self._listing(path, node)
            above = parent.inode if parent is not None else len(self._references) + 2
            extended = extended or bool(index) or size > 0xFFFF
            block, offset = start >> 16, start & 0xFFFF
            if extended:
                body = _LONG_DIRECTORY.pack(links, size, block, above, len(index), offset, xattr) + b"".join(index)
            else:
                body = _DIRECTORY.pack(block, links, size, offset, above)
        elif e.kind is Kind.FILE:
            place = self._places.get(node.inode) or Placed(0, b"", NO_FRAGMENT, 0, 0)
            extended = extended or links > 1 or place.start > NONE or e.size > NONE or bool(place.sparse)
            if extended:
                body = _LONG_FILE.pack(place.start, e.size, place.sparse, links, place.fragment, place.offset, xattr)
            else:
                body = _FILE.pack(place.start, place.fragment, place.offset, e.size)
            body += place.words
        elif e.kind is Kind.SYMLINK:
            target = e.target.encode("utf-8", "surrogateescape")
            if len(target) > MAX_LINK:
                raise InputError(f"{path[:200]} is a link with {len(target)} bytes: Linux follows at most {MAX_LINK}")
            body = _PAIR.pack(links, len(target)) + target + tail
        elif e.kind in (Kind.BLOCK, Kind.CHAR):
            body = _PAIR.pack(links, device_number(e.device, path)) + tail
        else:
            body = fields.pack("<I", links) + tail
        at = self._inodes.at
        mode = 0o777 if e.kind is Kind.SYMLINK else e.mode  # as on Linux, whatever an archive says
        head = _HEAD.pack(
            kind + _EXTENDED * extended, mode, self._id(e.uid, path), self._id(e.gid, path),
            min(max(e.mtime, 0), NONE), node.inode,
        )  # fmt: skip
        fields.checked(e)
        self._inodes.write(head + body)
        return at

    def _listing(self, path: str, node: Node) -> tuple[int, int, list[bytes]]:
        """Write a directory's listing: its reference, its size as an inode has it, its index."""
        out = self._listings
        start = out.at
        size, indexed = 0, start >> 16
        index: list[bytes] = []
        run: list[bytes] = []
        block = base = room = 0
        first = b""

        def close() -> None:
            nonlocal size, indexed
            if not run:
                return
            here = out.at >> 16
            if here != indexed:
                index.append(_TRIPLE.pack(size, here, len(first) - 1) + first)
                indexed = here
            data = _TRIPLE.pack(len(run) - 1, block, base) + b"".join(run)
            out.write(data)
            size += len(data)
            run.clear()

        for name, child in node.children.items():
            text = name.encode("utf-8", "surrogateescape")
            if len(text) > MAX_NAME:
                where = f"{path}/{name[:40]}…" if path else f"{name[:40]}…"
                raise InputError(f"{where}: the name has {len(text)} bytes, and squashfs holds at most {MAX_NAME}",
                                 hint="give the file a shorter name")  # fmt: skip
            reference = self._references[child.inode]
            delta = child.inode - base
            if (not run or reference >> 16 != block or not -32768 <= delta <= 32767 or len(run) == _RUN or room <= 0):
                close()
                block, base, delta, first = reference >> 16, child.inode, 0, text
                room = METADATA - (out.at & 0xFFFF) - _TRIPLE.size
            run.append(_ENTRY.pack(reference & 0xFFFF, delta, _TYPES[child.entry.kind], len(text) - 1) + text)
            room -= len(run[-1])
        close()
        thin = -(-len(index) // 0xFFFF) or 1
        return start, size + 3, index[::thin]


class Xattrs:
    """The table of extended attributes: each set of them once."""

    def __init__(self, pack: Pack) -> None:
        self._pack, self._pairs = pack, Metadata(pack)
        self._found: dict[tuple[tuple[str, bytes], ...], int] = {}
        self._sets: list[bytes] = []

    def index(self, xattrs: tuple[tuple[str, bytes], ...], path: str) -> int:
        """The number of a set; NONE for none."""
        if not xattrs:
            return NONE
        known = self._found.get(xattrs)
        if known is None:
            known = self._found[xattrs] = len(self._sets)
            data = b"".join(_pair(name, value, path) for name, value in xattrs)
            self._sets.append(fields.pack("<QII", self._pairs.at, len(xattrs), len(data)))
            self._pairs.write(data)
        return known

    def __bool__(self) -> bool:
        return bool(self._sets)

    def table(self, position: int) -> tuple[bytes, int]:
        """The whole of it at `position`, and the position that the superblock gets."""
        pairs = self._pairs.finish()
        sets = Metadata(self._pack)
        sets.write(b"".join(self._sets))
        # the index stands behind a header of its own
        blocks, at = sets.table(position + len(pairs))
        cut = at - position - len(pairs)
        header = fields.pack("<QII", position, len(self._sets), 0)
        return pairs + blocks[:cut] + header + blocks[cut:], at


def device_number(device: tuple[int, int], path: str) -> int:
    """A device number in Linux's 32 bits.

    Raises:
        InputError: it doesn't fit.
    """
    major, minor = device
    if not (0 <= major < 1 << 12 and 0 <= minor < 1 << 20):
        raise InputError(f"{path[:200]}: Linux has no device {major}:{minor}", hint="at most 4095:1048575")
    return minor & 0xFF | major << 8 | (minor & ~0xFF) << 12


def _pair(name: str, value: bytes, path: str) -> bytes:
    prefix = name[: name.find(".") + 1]
    if prefix not in _PREFIXES:
        raise InputError(f"{path[:200]}: squashfs can't hold the attribute {name}",
                         hint=f"only those that start with {', '.join(_PREFIXES)}")  # fmt: skip
    text = name[len(prefix) :].encode("utf-8", "surrogateescape")
    if len(text) + len(prefix) > 255 or len(value) > MAX_VALUE:
        raise InputError(f"{path[:200]}: the attribute {name[:60]} is longer than Linux allows")
    return fields.pack("<HH", _PREFIXES[prefix], len(text)) + text + fields.pack("<I", len(value)) + value


def _leaves_first(root: Node) -> Iterator[tuple[str, Node, Node | None]]:
    """Every name with its node and the directory it is in, directories after what is in them."""
    stack: list[tuple[str, Node, Node | None, Iterator[tuple[str, Node]]]] = []
    stack.append(("", root, None, iter(root.children.items())))
    while stack:
        path, node, parent, left = stack[-1]
        for name, child in left:
            where = f"{path}/{name}" if path else name
            if child.is_directory:
                stack.append((where, child, node, iter(child.children.items())))
                break
            yield where, child, node
        else:
            stack.pop()
            yield path, node, parent


def table(pack: Pack, data: bytes, position: int) -> tuple[bytes, int]:
    """Bytes as a table at `position`, and the position of its index."""
    made = Metadata(pack)
    made.write(data)
    return made.table(position)

