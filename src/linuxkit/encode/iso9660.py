"""ISO 9660 volumes with Rock Ridge and Joliet, bootable by El Torito: from a tree to pieces.

Specifications: ECMA-119 (4th edition), IEEE P1281 and P1282 (Rock Ridge), the Joliet specification of 1995.

    sector 0-15  system area: zero, or a boot record       path tables      little- and big-endian, of both trees
    16  primary volume descriptor                          directories      with Rock Ridge, each with what goes on
    17  boot record, where there is something to boot      directories      Joliet
    ..  Joliet's volume descriptor, terminator             boot catalogue   files, each from a sector of its own

Directories may be deeper than the eight levels of the standard, as every reader takes them. A file over 4 GiB has
several extents (level 3). Hard links share their extents. Extended attributes have no place in it and are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from linuxkit.encode import eltorito, fields, rockridge
from linuxkit.encode.iso_names import iso_names, joliet_names
from linuxkit.encode.pieces import Piece, hole, literal, of_source, read, size_of
from linuxkit.encode.rockridge import both16, both32, stamp
from linuxkit.encode.tree import Node, walk
from linuxkit.entry import Kind
from linuxkit.errors import InputError

SECTOR = 2048
#: Goes into cache keys: raise it when the bytes written for the same tree change.
VERSION = 1
#: The longest run of one directory record: the last full sector under 4 GiB.
EXTENT_MAX = (1 << 32) - SECTOR
MAX_DIRECTORIES = 65535
DATE = b"2017041816300000\0"  # entry.FIXED_MTIME as a volume descriptor writes it (8.4.26.1)


@dataclass(frozen=True)
class Boot:
    """Something to boot by: a file of the tree, for one platform.

    load  512-byte sectors that the firmware loads; 0: as many as the file has.
    info  the program gets isolinux' boot information table.
    """

    platform: eltorito.Platform
    path: str
    load: int = 0
    info: bool = False


@dataclass(frozen=True)
class Volume:
    """A volume. `runs`: of each file the first sector (of 2048 bytes) and its size in bytes."""

    pieces: tuple[Piece, ...]
    runs: dict[str, tuple[int, int]]


@dataclass
class _File:
    node: Node
    pieces: list[Piece]
    size: int
    sector: int = 0


@dataclass
class _Directory:
    """A directory in one of the two trees."""

    node: Node
    parent: _Directory | None
    number: int  # in the path table, from 1
    identifier: bytes
    children: list[tuple[str, bytes, Node, _Directory | None]] = field(default_factory=list)  # name, identifier
    sector: int = 0
    size: int = 0


def volume(
    root: Node, label: str, *, boot: Sequence[Boot] = (), contents: Mapping[str, Sequence[Piece]] | None = None
) -> Volume:
    """An image of a tree.

    Args:
        label: of the volume, at most 16 characters of A-Z a-z 0-9 and _.
        contents: of files of the tree whose content is pieces, by path.

    Raises:
        InputError: more directories than the format can number; a boot file that isn't there.
    """
    return _Writer(root, label, boot, contents or {}).volume()


class _Writer:
    def __init__(self, root: Node, label: str, boot: Sequence[Boot], contents: Mapping[str, Sequence[Piece]]) -> None:
        self._root, self._label, self._boot, self._contents = root, label, boot, contents
        self._files: dict[int, _File] = {}
        self._by_path: dict[str, _File] = {}
        self._pieces: list[Piece] = []
        self._sector = 0

    def volume(self) -> Volume:
        self._collect()
        rock = self._directories(iso_names)
        joliet = self._directories(joliet_names)
        head = 16 + 1 + bool(self._boot) + 2
        tables = [_table_size(rock)] * 2 + [_table_size(joliet)] * 2
        at = head
        places = []
        for size in tables:
            places.append(at)
            at += _sectors(size)
        for directory in rock:
            rest = _Rest(0)
            directory.size = _packed(len(r) for r in self._rock_records(directory, rest))
            directory.sector, at = at, at + _sectors(directory.size) + rest.sectors
        for directory in joliet:
            directory.size = _packed(len(r) for r in self._joliet_records(directory))
            directory.sector, at = at, at + _sectors(directory.size)
        catalogue, at = at, at + bool(self._boot)
        for file in self._files.values():
            file.sector, at = at, at + _sectors(file.size)
        self._load_tables()

        self._put([literal(b"")], 16)
        self._put([literal(self._descriptor(1, rock[0], at, places[0:2], tables[0]))], 1)
        if self._boot:
            self._put([literal(eltorito.boot_record(catalogue))], 1)
        self._put([literal(self._descriptor(2, joliet[0], at, places[2:4], tables[2]))], 1)
        self._put([literal(b"\xffCD001\x01")], 1)
        for tree in (rock, joliet):
            for order in "<>":
                self._put([literal(_table(tree, order))], _sectors(_table_size(tree)))
        for directory in rock:
            # right behind the directory: libarchive looks no further before it tells the name
            rest = _Rest(directory.sector + _sectors(directory.size))
            self._put([literal(_pack(self._rock_records(directory, rest)))], _sectors(directory.size))
            self._put([literal(rest.data())], rest.sectors)
        for directory in joliet:
            self._put([literal(_pack(self._joliet_records(directory)))], _sectors(directory.size))
        if self._boot:
            self._put([literal(eltorito.catalogue([self._boot_image(b) for b in self._boot]))], 1)
        for file in self._files.values():
            self._put(file.pieces, _sectors(file.size))
        runs = {path: (file.sector, file.size) for path, file in self._by_path.items()}
        return Volume(tuple(self._pieces), runs)

    def _put(self, pieces: Sequence[Piece], sectors: int) -> None:
        gap = sectors * SECTOR - size_of(pieces)
        self._pieces += [p for p in pieces if p.size]
        if gap:
            self._pieces.append(hole(gap))
        self._sector += sectors

    def _collect(self) -> None:
        for path, node in walk(self._root):
            fields.checked(node.entry, names=True)
            if node.entry.kind is Kind.FILE:
                if id(node) not in self._files:
                    given = self._contents.get(path)
                    pieces = list(given) if given is not None else of_source(node.entry.source)
                    self._files[id(node)] = _File(node, pieces, size_of(pieces))
                self._by_path[path] = self._files[id(node)]

    def _directories(self, names: Callable[[Iterable[tuple[str, bool]]], dict[str, bytes]]) -> list[_Directory]:
        """The directories of one tree in the order of its path table (6.9.1): by level, then parent, then name."""
        found = [_Directory(self._root, None, 1, b"\0")]
        for directory in found:
            listed = [(name, child.entry.kind is Kind.DIRECTORY) for name, child in directory.node.children.items()]
            made = names(listed)
            for name in sorted(made, key=lambda n: made[n]):
                child = directory.node.children[name]
                sub = None
                if child.entry.kind is Kind.DIRECTORY:
                    sub = _Directory(child, directory, len(found) + 1, made[name])
                    found.append(sub)
                directory.children.append((name, made[name], child, sub))
        if len(found) > MAX_DIRECTORIES:
            raise InputError(f"the image has {len(found)} directories: an ISO 9660 volume can number {MAX_DIRECTORIES}",
                             hint="use another format, such as kernel+squashfs")  # fmt: skip
        return found

    def _rock_records(self, directory: _Directory, rest: _Rest) -> list[bytes]:
        own, above = directory, directory.parent or directory
        area = rockridge.protocol() if directory.parent is None else []
        area += rockridge.attributes(own.node.entry, own.node.links, own.node.inode)
        if directory.parent is None:
            area += rockridge.extension()
        up = rockridge.attributes(above.node.entry, above.node.links, above.node.inode)
        time = own.node.entry.mtime
        made = [_record(b"\0", own.sector, own.size, time, 2, area, rest),
                _record(b"\1", above.sector, above.size, above.node.entry.mtime, 2, up, rest)]  # fmt: skip
        for name, identifier, node, sub in directory.children:
            entry = node.entry
            area = rockridge.attributes(entry, node.links, node.inode) + rockridge.name(_bytes(name))
            if entry.kind is Kind.SYMLINK:
                area += rockridge.link(_bytes(entry.target))
            for sector, size, flags in self._extents(node, sub):
                made.append(_record(identifier, sector, size, entry.mtime, flags, area, rest))
        return made

    def _joliet_records(self, directory: _Directory) -> list[bytes]:
        own, above = directory, directory.parent or directory
        made = [_record(b"\0", own.sector, own.size, own.node.entry.mtime, 2),
                _record(b"\1", above.sector, above.size, above.node.entry.mtime, 2)]  # fmt: skip
        for _, identifier, node, sub in directory.children:
            if sub is not None or node.entry.kind is Kind.FILE:  # it knows nothing else
                for sector, size, flags in self._extents(node, sub):
                    made.append(_record(identifier, sector, size, node.entry.mtime, flags))
        return made

    def _extents(self, node: Node, sub: _Directory | None) -> list[tuple[int, int, int]]:
        """(sector, size, flags) of each record of a node."""
        if sub is not None:
            return [(sub.sector, sub.size, 2)]
        file = self._files.get(id(node))
        if file is None:
            return [(0, 0, 0)]
        full, last = divmod(max(file.size - 1, 0), EXTENT_MAX)
        step = EXTENT_MAX // SECTOR
        extents = [(file.sector + n * step, EXTENT_MAX, 0x80) for n in range(full)]
        return [*extents, (file.sector + full * step, last + 1 if file.size else 0, 0)]

    def _load_tables(self) -> None:
        """Now that places are known, give the loaders that want one their boot information table."""
        for boot in self._boot:
            file = self._by_path.get(boot.path)
            if file is None:
                raise InputError(f"there is no {boot.path} in the image to boot by")
            if boot.info:
                program = b"".join(read(file.pieces))
                file.pieces = [literal(eltorito.with_boot_info(program, file.sector))]

    def _boot_image(self, boot: Boot) -> eltorito.BootImage:
        file = self._by_path[boot.path]
        return eltorito.BootImage(boot.platform, file.sector, boot.load or -(-file.size // 512))

    def _descriptor(self, kind: int, root: _Directory, sectors: int, tables: list[int], size: int) -> bytes:
        """A primary (8.4) or Joliet's supplementary (8.5) volume descriptor."""

        def blank(length: int) -> bytes:
            return b" " * length if kind == 1 else (b"\0 " * (length // 2)).ljust(length, b"\0")

        def titled(value: str, length: int) -> bytes:
            start = value.encode("ascii" if kind == 1 else "utf-16-be")
            return fields.text(start, length)[: len(start)] + blank(length)[len(start) :]

        made = bytes([kind]) + b"CD001\x01\0" + titled("LINUX", 32) + titled(self._label, 32)
        made += bytes(8) + both32(sectors)
        made += (b"" if kind == 1 else b"%/E").ljust(32, b"\0")
        made += both16(1) + both16(1) + both16(SECTOR) + both32(size)
        made += fields.pack("<II", tables[0], 0) + fields.pack(">II", tables[1], 0)
        made += _record(b"\0", root.sector, root.size, root.node.entry.mtime, 2)
        made += blank(128 * 3) + titled("LINUXKIT", 128) + blank(37 * 3)
        return (made + DATE + DATE + (b"0" * 16 + b"\0") + DATE + b"\x01").ljust(SECTOR, b"\0")


class _Rest:
    """A directory's continuation area: entries of records that have no room for them."""

    def __init__(self, sector: int) -> None:
        self._sector = sector
        self._parts: list[bytearray] = []

    @property
    def sectors(self) -> int:
        return len(self._parts)

    def data(self) -> bytes:
        return b"".join(part.ljust(SECTOR, b"\0") for part in self._parts)

    def add(self, entries: Sequence[bytes]) -> bytes:
        """Keep entries, and give the CE entry that leads to them. No run of them crosses a sector."""
        here, over = rockridge.fit(entries, SECTOR)
        data = b"".join(here)
        if over:
            data += self.add(over)
        if not self._parts or len(self._parts[-1]) + len(data) > SECTOR:
            self._parts.append(bytearray())
        part = self._parts[-1]
        part += data
        return rockridge.continuation(self._sector + len(self._parts) - 1, len(part) - len(data), len(data))


def _record(
    identifier: bytes, sector: int, size: int, mtime: int, flags: int,
    area: Sequence[bytes] = (), rest: _Rest | None = None,
) -> bytes:  # fmt: skip
    """A directory record (9.1)."""
    base = 33 + len(identifier) + (len(identifier) + 1) % 2
    here, over = rockridge.fit(area, 254 - base)
    if over and rest is not None:
        here.append(rest.add(over))
    system = b"".join(here)
    system += bytes(len(system) % 2)
    record = bytes([base + len(system), 0]) + both32(sector) + both32(size) + stamp(mtime)
    record += bytes([flags, 0, 0]) + both16(1) + bytes([len(identifier)]) + identifier
    return record.ljust(base, b"\0") + system


def _packed(sizes: Iterable[int]) -> int:
    """Bytes of a directory, in full sectors: no record crosses a sector's end."""
    at = 0
    for size in sizes:
        if at % SECTOR + size > SECTOR:
            at += -at % SECTOR
        at += size
    return at + -at % SECTOR


def _pack(records: Iterable[bytes]) -> bytes:
    made = bytearray()
    for record in records:
        if len(made) % SECTOR + len(record) > SECTOR:
            made += bytes(-len(made) % SECTOR)
        made += record
    return bytes(made)


def _table(tree: Sequence[_Directory], order: str) -> bytes:
    """A path table (9.4)."""
    made = []
    for directory in tree:
        name = directory.identifier
        parent = (directory.parent or directory).number
        made.append(fields.pack(f"{order}BBIH", len(name), 0, directory.sector, parent) + name + bytes(len(name) % 2))
    return b"".join(made)


def _table_size(tree: Iterable[_Directory]) -> int:
    return sum(8 + len(d.identifier) + len(d.identifier) % 2 for d in tree)


def _sectors(size: int) -> int:
    return -(-size // SECTOR)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
