"""FAT12, FAT16 and FAT32 with long names, made in one go from files that are pieces.

    FAT12/16:  boot | FAT | FAT | root directory | cluster 2 …
    FAT32:     boot | info | … | boot, info again | … | FAT | FAT | cluster 2 = root directory …

Microsoft FAT specification 1.03. Every file is one run of clusters, directories come before files, and what is free is
a hole: a volume is a few kilobytes of tables between the runs of its files. Sizes come from the content; the number of
clusters alone says which FAT it is, so a volume is never smaller than its type's least number of clusters.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from linuxkit.encode import fat_names, fields
from linuxkit.encode.pieces import Piece, hole, literal, padded, size_of
from linuxkit.entry import FIXED_MTIME, digest_of
from linuxkit.errors import ImageError, InputError

SECTOR = 512
MAX_FILE = (1 << 32) - 1
MAX_SIZE = SECTOR * MAX_FILE  # sectors are counted in 32 bits
#: Fewest and most clusters of each type; 16 away from the borders, where readers miscount.
CLUSTERS = {12: (1, 4084 - 16), 16: (4085 + 16, 65524 - 16), 32: (65525 + 16, (1 << 28) - 16)}
_END = {12: 0xFFF, 16: 0xFFFF, 32: 0x0FFFFFFF}
_MEDIA = 0xF8
#: Most entries of a directory.
MAX_ENTRIES = 65536
_INFO, _BACKUP = 1, 6


@dataclass(frozen=True)
class Volume:
    """A volume. `runs`: of each file the first sector and the number of sectors, from the start of the volume."""

    pieces: tuple[Piece, ...]
    bits: int
    sectors_per_cluster: int
    runs: Mapping[str, tuple[int, int]]

    @property
    def size(self) -> int:
        """In bytes."""
        return size_of(self.pieces)

    def sectors(self, path: str) -> range:
        """The sectors that hold a file, from the start of the volume; none for an empty one."""
        start, count = self.runs[path]
        return range(start, start + count)


@dataclass
class _Node:
    path: str
    size: int = 0
    pieces: Sequence[Piece] = ()
    children: dict[str, _Node] | None = None  # by folded name; of a directory
    names: list[str] = field(default_factory=list)
    short: dict[str, bytes] = field(default_factory=dict)
    cluster: int = 0


@dataclass(frozen=True)
class _Geometry:
    bits: int
    per_cluster: int
    reserved: int
    fat: int
    root: int  # sectors
    clusters: int
    total: int

    @property
    def data(self) -> int:
        return self.reserved + 2 * self.fat + self.root


def volume(
    files: Mapping[str, Sequence[Piece]],
    *,
    seed: str,
    label: str = "",
    bits: int = 0,
    size: int = 0,
    free: int = 0,
    hidden: int = 0,
    first: Sequence[str] = (),
    boot_sector: bytes = b"",
    mtime: int = FIXED_MTIME,
) -> Volume:
    """A FAT volume.

    Args:
        files: content by path. Folders are made as needed; a path that ends in `/` is a folder.
        seed: what the volume's serial number is derived from.
        label: at most 11 characters.
        bits: 12, 16, 32; 0 chooses by the size.
        size: in bytes, a multiple of 512; 0 is as small as the content allows.
        free: bytes that are to stay free, when the size is computed.
        hidden: sectors before the volume: where its partition starts.
        first: paths of files that come before all others.
        boot_sector: 512 bytes of a loader, of which all but the parameter block is used.
        mtime: of everything, in seconds since the epoch.

    Raises:
        ImageError: a name, a clash or a file that FAT can't hold.
        InputError: the content doesn't fit into `size`.
    """
    root = _tree(files)
    nodes = list(_walk(root))
    name = fat_names.label(label)
    root.size += fat_names.ENTRY * bool(name)
    shape = _choose(nodes, root, bits, size, free)
    order = _order(nodes, root, first, shape.bits)
    used = _place(order, shape)
    stamp = fat_names.dos_time(mtime)

    table = _table(order, shape, used)
    tables = padded([literal(table)], shape.fat * SECTOR)
    out = list(_head(shape, seed, name or b"NO NAME    ", hidden, boot_sector, used))
    out += [*tables, *tables]
    if shape.bits != 32:
        out += padded([literal(_directory(root, None, root, name, stamp))], shape.root * SECTOR)
    unit = shape.per_cluster * SECTOR
    for node in order:
        content: Sequence[Piece] = node.pieces
        if node.children is not None:
            parent = _parent(root, node)
            content = [literal(_directory(node, parent, root, name if node is root else b"", stamp))]
            assert size_of(content) <= node.size, node.path
        out += padded(content, _count(node.size, unit) * unit)  # as many clusters as its chain has
    whole = padded(out, shape.total * SECTOR)
    runs = {
        node.path: ((node.cluster - 2) * shape.per_cluster + shape.data, _count(node.size, SECTOR))
        if node.size
        else (0, 0)
        for node in nodes
        if node.children is None
    }
    return Volume(tuple(p for p in whole if p.size), shape.bits, shape.per_cluster, runs)


def _tree(files: Mapping[str, Sequence[Piece]]) -> _Node:
    root = _Node("", children={})
    for path in sorted(files):
        parts = path.rstrip("/").split("/")
        node = root
        for depth, part in enumerate(parts):
            here, last = "/".join(parts[: depth + 1]), depth == len(parts) - 1
            fat_names.check(part, here)
            if node.children is None:
                raise ImageError(f"{path[:200]}: {node.path} is a file as well as a folder")
            key = fat_names.folded(part)
            found = node.children.get(key)
            folder = not last or path.endswith("/")
            if found is None:
                found = _Node(here, children={} if folder else None)
                node.children[key] = found
                node.names.append(part)
                if not folder:
                    found.pieces, found.size = files[path], size_of(files[path])
                    if found.size > MAX_FILE:
                        raise ImageError(f"{path[:80]}: has {found.size} bytes, and a file on FAT is under 4 GiB",
                                         hint="use a format without a FAT partition")  # fmt: skip
            elif found.path != here:
                raise ImageError(f"{here} and {found.path} differ in case only: on FAT they are one name",
                                 hint="rename one of them")  # fmt: skip
            elif not folder or found.children is None:
                raise ImageError(f"{path[:200]}: is there twice, as a file and as a folder")
            node = found
    for node in _walk(root):
        node.names.sort()
        node.short = fat_names.short_names(node.names)
        if node.children is None:
            continue
        node.size = sum(fat_names.length(n, node.short[n]) for n in node.names)
        # "." and ".." of a folder; the first entry of the root, which has a cluster even when there is none
        node.size += fat_names.ENTRY * (2 if node is not root else not node.names)
        if node.size > MAX_ENTRIES * fat_names.ENTRY:
            raise ImageError(f"/{node.path}: too many names for one folder on FAT")
    return root


def _walk(node: _Node) -> Iterator[_Node]:
    yield node
    for child in (node.children or {}).values():
        yield from _walk(child)


def _parent(root: _Node, node: _Node) -> _Node | None:
    if node is root:
        return None
    for part in node.path.split("/")[:-1]:
        assert root.children is not None
        root = root.children[fat_names.folded(part)]
    return root


def _count(size: int, unit: int) -> int:
    return -(-size // unit)


def _choose(nodes: Sequence[_Node], root: _Node, bits: int, size: int, free: int) -> _Geometry:
    """The type and cluster size: the first of the preferred ones that holds the content."""
    if size % SECTOR:
        raise InputError(f"a FAT volume of {size} bytes is not a number of sectors")
    content = max(size, free + sum(n.size for n in nodes))
    if content > MAX_SIZE:
        raise InputError(f"a FAT volume of {content} bytes is more than the format counts", hint="at most 2 TiB")
    large = (16, 32, 64) if content <= 16 << 30 else (64, 32, 16)
    # clusters of at most 4 KiB if they will do; then with room that only the type asks for; then larger ones
    passes = (((8, 4, 2, 1), True), ((1, 2, 4, 8), False), (large, True), ((16, 32, 64), False))
    for units, exact in (passes[2], *passes) if content > 8 << 30 else passes:
        for kind in (bits,) if bits else (12, 16, 32):
            for per_cluster in units:
                found = _geometry(nodes, root, kind, per_cluster, size, free, exact=exact)
                if found is not None:
                    return found
    if size:
        raise InputError(f"{sum(n.size for n in nodes)} bytes of files don't fit into {size} bytes of FAT{bits or ''}",
                         hint="ask for a larger size")  # fmt: skip
    raise ImageError(f"the files are too large for FAT{bits or ''}: {sum(n.size for n in nodes)} bytes")


def _geometry(
    nodes: Sequence[_Node], root: _Node, bits: int, per_cluster: int, size: int, free: int, *, exact: bool
) -> _Geometry | None:
    unit = per_cluster * SECTOR
    small, large = CLUSTERS[bits]
    need = sum(_count(node.size, unit) for node in nodes if node is not root or bits == 32) + _count(free, unit)
    in_root = _count(root.size, fat_names.ENTRY)
    root_sectors = 0 if bits == 32 else _count(max(in_root, 512), 16)
    if bits != 32 and root_sectors * 16 > 65535:
        return None
    reserved = 32 if bits == 32 else 1

    def fat_sectors(clusters: int) -> int:
        return _count((clusters + 2) * bits, 8 * SECTOR)

    if not size:
        clusters = max(need, 1) if exact else max(need, small)
        fat = fat_sectors(clusters)
        reserved = _aligned(reserved, fat, bits)
        total = reserved + 2 * fat + root_sectors + clusters * per_cluster
    else:
        total = size // SECTOR

        def left(fat: int) -> int:
            return (total - _aligned(reserved, fat, bits) - 2 * fat - root_sectors) // per_cluster

        fat = fat_sectors(max(left(1), 1))  # enough, and a little more
        while fat > 1 and fat_sectors(left(fat - 1)) < fat:
            fat -= 1
        clusters, reserved = left(fat), _aligned(reserved, fat, bits)
    if not small <= clusters <= large or need > clusters or total >= 1 << 32:
        return None
    return _Geometry(bits, per_cluster, reserved, fat, root_sectors, clusters, total)


def _aligned(reserved: int, fat: int, bits: int) -> int:
    """FAT32's reserved sectors, so many that the clusters start at a multiple of 4096 bytes."""
    return reserved + (-2 * fat) % 8 if bits == 32 else reserved


def _order(nodes: Sequence[_Node], root: _Node, first: Sequence[str], bits: int) -> list[_Node]:
    """What takes clusters, in the order on disk: FAT32's root, the files to come first, folders, files."""
    rank = {path: at for at, path in enumerate(first)}
    folders = [n for n in nodes if n.children is not None and n is not root]
    files = [n for n in nodes if n.children is None and n.size]
    early = sorted((n for n in files if n.path in rank), key=lambda n: rank[n.path])
    return [*([root] if bits == 32 else []), *early, *folders, *(n for n in files if n.path not in rank)]


def _place(order: Sequence[_Node], shape: _Geometry) -> int:
    """Give each node its first cluster. Returns the number of clusters used."""
    at, unit = 2, shape.per_cluster * SECTOR
    for node in order:
        node.cluster = at
        at += _count(node.size, unit)
    return at - 2


def _table(order: Sequence[_Node], shape: _Geometry, used: int) -> bytes:
    end, unit = _END[shape.bits], shape.per_cluster * SECTOR
    table = array("I" if array("I").itemsize == 4 else "L", [end & ~0xFF | _MEDIA, end])
    for node in order:
        table.extend(range(node.cluster + 1, node.cluster + _count(node.size, unit)))
        table.append(end)
    assert len(table) == used + 2
    if shape.bits == 12:
        table.append(0)
        pairs = (table[i] | table[i + 1] << 12 for i in range(0, len(table) - 1, 2))
        return b"".join(pair.to_bytes(3, "little") for pair in pairs)
    if shape.bits == 16:
        table = array("H", table)
    if sys.byteorder == "big":
        table.byteswap()
    return table.tobytes()


def _directory(node: _Node, parent: _Node | None, root: _Node, label: bytes, stamp: tuple[int, int]) -> bytes:
    out = [fat_names.short_entry(label, fat_names.VOLUME, 0, 0, stamp)] if label else []
    if parent is not None:
        above = 0 if parent is root else parent.cluster
        for dots, cluster in ((b".", node.cluster), (b"..", above)):
            out.append(fat_names.short_entry(dots.ljust(11), fat_names.DIRECTORY, cluster, 0, stamp))
    children = node.children or {}
    for name in node.names:
        child = children[fat_names.folded(name)]
        kind, size = (fat_names.DIRECTORY, 0) if child.children is not None else (fat_names.ARCHIVE, child.size)
        out.append(fat_names.entries(name, node.short[name], kind, child.cluster if child.size else 0, size, stamp))
    return b"".join(out)


def _head(shape: _Geometry, seed: str, label: bytes, hidden: int, boot_sector: bytes, used: int) -> Iterator[Piece]:
    """The reserved sectors."""
    wide = shape.bits == 32
    short_total = shape.total if shape.total < 65536 and not wide else 0
    block = fields.pack(
        "<HBHBHHBHHHII",
        SECTOR, shape.per_cluster, shape.reserved, 2, shape.root * 16, short_total, _MEDIA,
        0 if wide else shape.fat, 63, 255, hidden, 0 if short_total else shape.total,
    )  # fmt: skip
    if wide:
        block += fields.pack("<IHHIHH12x", shape.fat, 0, 0, 2, _INFO, _BACKUP)
    serial = bytes.fromhex(digest_of([b"fat", seed.encode()])[7:15])
    block += fields.pack("<BBB4s11s8s", 0x80, 0, 0x29, serial, label, f"FAT{shape.bits}   ".encode())
    # without a loader: a jump to INT 18h (no boot device here), which firmware takes for "try the next one"
    start = 11 + len(block)
    code = boot_sector or (b"\xeb" + bytes([start - 2]) + b"\x90LINUXKIT").ljust(start, b"\0") + b"\xcd\x18\xeb\xfe"
    sector = code[:11] + block + code[start:510].ljust(510 - start, b"\0") + b"\x55\xaa"
    if not wide:
        yield literal(sector)
        return
    info = fields.pack("<I480xIII12xI", 0x41615252, 0x61417272, shape.clusters - used, used + 2, 0xAA550000)
    pair = literal(sector + info)
    yield from (pair, hole((_BACKUP - 2) * SECTOR), pair, hole((shape.reserved - _BACKUP - 2) * SECTOR))
