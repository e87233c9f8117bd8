"""A reader of EROFS volumes for the tests, strict where Linux is: the same form as support.trees gives."""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import lz4.block

from linuxkit.encode.crc32c import crc32c
from support.trees import Seen

BLOCK, CLUSTER = 4096, 128 << 10
KINDS = {0o10: "f", 0o4: "d", 0o2: "c", 0o6: "b", 0o1: "p", 0o12: "l"}
TYPES = {"f": 1, "d": 2, "c": 3, "b": 4, "p": 5, "l": 7}
PREFIXES = {1: "user.", 2: "system.posix_acl_access", 3: "system.posix_acl_default", 4: "trusted.", 6: "security."}


@dataclass(frozen=True)
class Inode:
    layout: int
    mode: int
    links: int
    size: int
    where: int
    uid: int
    gid: int
    mtime: int
    xattrs: tuple[tuple[str, bytes], ...]
    behind: int  # where the attributes end

    @property
    def kind(self) -> str:
        return KINDS[self.mode >> 12]


class Volume:
    """A volume in memory. An AssertionError for what isn't as Linux has it."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        fields = struct.unpack_from("<IIIBBHQqIIII16s16sIHHHBBIQ24x", data, 1024)
        (magic, checksum, self.compat, bits, slots, root, _, self.time, _, blocks, meta, self.shared, self.uuid,
         self.label, self.features, self.algorithms, *_, packed) = fields  # fmt: skip
        assert (magic, bits, slots, meta) == (0xE0F5E1E2, 12, 0, 0)
        head = data[1024:1028] + bytes(4) + data[1032:BLOCK]
        assert checksum == crc32c(head) ^ 0xFFFFFFFF
        assert blocks * BLOCK == len(data)
        assert self.features & ~0x27 == 0
        at = 1152
        for number in range(16):
            if self.algorithms >> number & 1:
                at += 2 + struct.unpack_from("<H", data, at)[0] + 3 & ~3
        assert not any(data[at:BLOCK])
        self.root, self.packed = root, packed
        self.links: dict[int, int] = {}
        self.ends = self._content(self.inode(packed)) if packed else b""

    def listing(self) -> dict[str, Seen]:
        """Every name."""
        found: dict[str, Seen] = {}
        known: dict[int, Seen] = {}
        links: dict[int, int] = {}
        stack = [("", self.root, self.root)]
        while stack:
            path, number, above = stack.pop()
            inode = self.inode(number)
            links[number] = links.get(number, 0) + 1
            if inode.kind == "d":
                listed = list(self._entries(inode))
                names = [name for name, _, _ in listed]
                assert names == sorted(names)
                assert len(names) == len(set(names))
                own = {name: n for name, n, _ in listed}
                assert (own.pop(b"."), own.pop(b"..")) == (number, above)
                folders = 0
                for name, child, kind in reversed(listed):
                    if name in (b".", b".."):
                        continue
                    assert TYPES[self.inode(child).kind] == kind
                    folders += kind == 2
                    text = name.decode("utf-8", "surrogateescape")
                    stack.append((f"{path}/{text}" if path else text, child, number))
                assert inode.links == 2 + folders
            if number not in known:
                known[number] = self._seen(path, inode)
            found[path] = known[number]
        for number, count in links.items():
            inode = self.inode(number)
            assert inode.kind == "d" or inode.links == count
        return found

    def inode(self, number: int) -> Inode:
        at = number * 32
        form, count, mode = struct.unpack_from("<HHH", self.data, at)
        if form & 1:
            size, where, _, uid, gid, mtime, nanoseconds, links = struct.unpack_from("<QIIIIqII", self.data, at + 8)
            assert not nanoseconds
            head = 64
        else:
            links, size, _, where, _, uid, gid = struct.unpack_from("<HIIIIHH", self.data, at + 6)
            mtime, head = self.time, 32
        assert at % BLOCK + head <= BLOCK
        room = 12 + 4 * (count - 1) if count else 0
        xattrs = self._xattrs(at + head, at + head + room) if count else ()
        return Inode(form >> 1, mode, links, size, where, uid, gid, mtime, xattrs, at + head + room)

    def _seen(self, path: str, inode: Inode) -> Seen:
        content = self._content(inode) if inode.kind in "fl" else b""
        file, link = inode.kind == "f", inode.kind == "l"
        device = (0, 0)
        if inode.kind in "bc":
            device = inode.where >> 8 & 0xFFF, inode.where & 0xFF | inode.where >> 12 & 0xFFF00
        return Seen(
            inode.kind, inode.mode & 0o7777, inode.uid, inode.gid, inode.mtime, len(content) if file else 0,  # type: ignore[arg-type]
            hashlib.sha256(content).hexdigest() if file else "",
            content.decode("utf-8", "surrogateescape") if link else "", device, inode.xattrs, path,
        )  # fmt: skip

    def _entries(self, inode: Inode) -> Iterator[tuple[bytes, int, int]]:
        content = self._content(inode)
        for start in range(0, len(content), BLOCK):
            block = content[start : start + BLOCK]
            first = struct.unpack_from("<H", block, 8)[0]
            assert first % 12 == 0
            heads = [struct.unpack_from("<QHBB", block, n) for n in range(0, first, 12)]
            ends = [offset for _, offset, _, _ in heads[1:]] + [len(block)]
            for (number, offset, kind, _), end in zip(heads, ends, strict=True):
                name = block[offset:end].rstrip(b"\0")
                assert 1 <= len(name) <= 255
                yield name, number, kind

    def _xattrs(self, at: int, end: int) -> tuple[tuple[str, bytes], ...]:
        _, count = struct.unpack_from("<IB", self.data, at)
        shared = struct.unpack_from(f"<{count}I", self.data, at + 12)
        found = [self._xattr(self.shared * BLOCK + 4 * n)[0] for n in shared]
        at += 12 + 4 * count
        while at < end:
            pair, at = self._xattr(at)
            found.append(pair)
        assert at == end
        return tuple(sorted(found))

    def _xattr(self, at: int) -> tuple[tuple[str, bytes], int]:
        length, index, size = struct.unpack_from("<BBH", self.data, at)
        name = PREFIXES[index] + self.data[at + 4 : at + 4 + length].decode("utf-8", "surrogateescape")
        value = self.data[at + 4 + length : at + 4 + length + size]
        return (name, value), at + 4 + length + size + 3 & ~3

    # -- contents

    def _content(self, inode: Inode) -> bytes:
        size, start = inode.size, inode.where * BLOCK
        if inode.layout == 0:
            assert start + size <= len(self.data)
            return self.data[start : start + size]
        if inode.layout == 2:
            tail = size % BLOCK
            assert tail
            assert inode.behind % BLOCK + tail <= BLOCK
            return self.data[start : start + size - tail] + self.data[inode.behind : inode.behind + tail]
        if inode.layout == 4:
            return b"".join(self._chunks(inode))
        assert inode.layout == 1
        return self._zip(inode)

    def _chunks(self, inode: Inode) -> Iterator[bytes]:
        width = BLOCK << (inode.where & 0x1F)
        assert inode.where < 0x20
        table = inode.behind + 3 & ~3
        for n, at in enumerate(range(0, inode.size, width)):
            block = struct.unpack_from("<I", self.data, table + 4 * n)[0]
            length = min(width, inode.size - at)
            yield bytes(length) if block == 0xFFFFFFFF else self._bytes(block, length)

    def _bytes(self, block: int, size: int) -> bytes:
        assert block * BLOCK + size <= len(self.data)
        return self.data[block * BLOCK : block * BLOCK + size]

    def _zip(self, inode: Inode) -> bytes:
        at = inode.behind + 7 & ~7
        offset, flags, codecs, bits = struct.unpack_from("<IHBB", self.data, at)
        if bits & 0x80:
            start = struct.unpack_from("<Q", self.data, at)[0] & ~(1 << 63)
            assert start + inode.size <= len(self.ends)
            assert not inode.where
            return self.ends[start : start + inode.size]
        assert not flags & ~0x22
        assert codecs & 15 == codecs >> 4
        assert self.algorithms == 1 << (codecs & 15)
        count = -(-inode.size // BLOCK)
        index = [struct.unpack_from("<HHI", self.data, at + 16 + 8 * n) for n in range(count)]
        firsts = [n for n, (kind, _, _) in enumerate(index) if kind != 2]
        made, own = [], set()
        for first, behind in zip(firsts, [*firsts[1:], count], strict=True):
            kind, shift, block = index[first]
            assert not shift
            length = min(behind * BLOCK, inode.size) - first * BLOCK
            others = [(value & 0xFFFF, value >> 16) for _, _, value in index[first + 1 : behind]]
            assert [after for _, after in others] == list(range(behind - first - 1, 0, -1))
            assert [before for before, _ in others[1:]] == list(range(2, behind - first))
            if flags & 0x20 and first == firsts[-1]:
                start = offset | block << 32
                assert start + length <= len(self.ends)
                made.append(self.ends[start : start + length])
                continue
            if kind == 0:
                assert behind == first + 1
                made.append(self._bytes(block, length))
                own.add(block)
                continue
            blocks = 1
            if others:
                assert others[0][0] & 0x800
                blocks = others[0][0] & 0x7FF
            own |= set(range(block, block + blocks))
            made.append(self._unpacked(codecs & 15, self._bytes(block, blocks * BLOCK), length))
        assert inode.where >= len(own)
        return b"".join(made)

    def _unpacked(self, codec: int, data: bytes, length: int) -> bytes:
        start = data.lstrip(b"\0")
        assert len(data) - len(start) < BLOCK
        if codec == 0:
            made: Any = lz4.block.decompress(start, uncompressed_size=length)
        elif codec == 2:
            made = zlib.decompress(start, -15)
        else:
            from backports import zstd

            made = zstd.decompress(start)
        assert len(made) == length
        return bytes(made)


def listing_of(data: bytes) -> dict[str, Seen]:
    """Every name of a volume."""
    return Volume(data).listing()
