"""ext4: a file system that Linux can also write to, made in one go from a tree.

    group 0: superblock | descriptors | (reserve) | bitmaps | inodes | directories | attributes | files … | (journal)
    groups 1, 3, 5, 7, 9, 25 …: copies of superblock and descriptors, then files

Documentation/filesystems/ext4 (Linux 6.12). Blocks of 4096 bytes, inodes of 256, extents, flex_bg, 64bit, metadata_csum
(CRC-32C everywhere), sparse_super; writable ones have a journal and room to grow while they are mounted. Content is
never copied: it is pieces of where it lies already. Whatever is not in use is a hole, and groups say so (BLOCK_UNINIT,
INODE_UNINIT), so that 100 GiB of nothing are a megabyte. Runs of 64 KiB of zeros in files become holes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from linuxkit.encode import ext4_dirs, ext4_inode, ext4_super, ext4_xattr
from linuxkit.encode.ext4_checksum import checksum, of_many
from linuxkit.encode.ext4_data import data_runs
from linuxkit.encode.ext4_inode import Extent, extent_tree, inode_seed, tree_blocks
from linuxkit.encode.ext4_layout import BLOCK, GROUP, INODE, PER_BLOCK, Allocator, FullError, Layout, Run, trimmed
from linuxkit.encode.ext4_super import FIRST, JOURNAL, RESIZE, ROOT, Facts
from linuxkit.encode.pieces import Piece, cut, hole, literal, of_source, padded, size_of
from linuxkit.encode.tree import Node
from linuxkit.entry import FIXED_MTIME, Entry, Kind
from linuxkit.errors import InputError

#: Changes when the same tree gives other bytes.
VERSION = 1
MAX_LABEL = 16
#: Largest file: block numbers in it have 32 bits.
MAX_FILE = ((1 << 32) - 1) * BLOCK
#: Largest file system: its descriptors are a quarter of a group.
MAX_SIZE = 64 << 40
_LOST = "lost+found"
_MIB = 1 << 20


@dataclass(eq=False, slots=True)
class _Inode:
    entry: Entry
    number: int
    links: int
    names: dict[str, Node] = field(default_factory=dict)
    size: int = 0
    content: list[Piece] = field(default_factory=list)
    runs: Sequence[Run] = ()  # blocks of its own that are to be stored
    blocks: Sequence[bytes] = ()  # of a directory
    inside: bytes = b""
    attributes: bytes = b""  # a block of them
    attribute_block: int = 0
    root: bytes = bytes(60)
    used: int = 0  # blocks

    @property
    def wanted(self) -> int:
        """Blocks for content."""
        return sum(run.blocks for run in self.runs)

    @property
    def needed(self) -> int:
        """Blocks that it needs in all, as long as its content is in one run."""
        wanted = self.wanted
        extents = sum(-(-run.blocks // GROUP) for run in self.runs) if len(self.runs) > 1 else -(-wanted // GROUP)
        return wanted + tree_blocks(extents) + bool(self.attributes)


def uuid(seed: str) -> str:
    """The UUID of a file system with this seed: what `root=UUID=` names."""
    digits = ext4_super.uuid_of(seed).hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def filesystem(
    root: Node, *, seed: str, label: str = "", size: int = 0, free: int = 0, writable: bool = False,
    mtime: int = FIXED_MTIME,
) -> list[Piece]:  # fmt: skip
    """A file system with the tree in it.

    Args:
        root: as `tree` made it; lost+found is added.
        seed: what the UUID and the hash seed are derived from.
        label: at most 16 bytes.
        size: in bytes; 0 is as small as the content allows. What is over a whole block stays a hole.
        free: bytes that are to stay free, when the size is computed.
        writable: with a journal (from 8 MiB), spare inodes, and room to grow.
        mtime: when it was made.

    Raises:
        InputError: the content doesn't fit into `size`; a name, file or attribute that ext4 can't hold.
    """
    name = label.encode("utf-8", "surrogateescape")
    if len(name) > MAX_LABEL:
        raise InputError(f"'{label}' is too long for the label of an ext4 file system", hint="at most 16 bytes")
    if size > MAX_SIZE:
        raise InputError(f"an ext4 file system of {size} bytes is asked for, and 64 TiB is the most")
    inodes = _inodes(root, writable=writable)
    least = _smallest(inodes, free, writable=writable)
    layout = least
    if size:
        fitting = _layout(size // BLOCK, inodes[-1].number, writable=writable)
        if fitting is None:
            raise _too_small(size, least)
        layout = fitting
    try:
        pieces = _written(layout, inodes, seed, name, mtime, writable=writable)
    except FullError:
        raise _too_small(size, least) from None
    return padded(pieces, size) if size else pieces


def empty(*, seed: str, label: str, size: int) -> list[Piece]:
    """A writable file system with nothing in it.

    Args:
        seed, label, size: as for `filesystem`.
    """
    return filesystem(Node(Entry("", Kind.DIRECTORY, 0o755, mtime=FIXED_MTIME)), seed=seed, label=label, size=size,
                      writable=True)  # fmt: skip


def _too_small(size: int, least: Layout) -> InputError:
    needed = least.blocks * BLOCK
    return InputError(f"an ext4 file system of {size} bytes is asked for, and its content needs {needed}",
                      hint=f"give it {-(-needed // _MIB)}M, or more")  # fmt: skip


def _inodes(root: Node, *, writable: bool) -> list[_Inode]:
    """Every node once, the root first, lost+found second; `..` of a directory is the one that it was found in."""
    lost = root.children.get(_LOST)
    if lost is not None and not lost.is_directory:
        raise InputError(f"/{_LOST} is no directory, and on ext4 it has to be", hint="rename it")
    links = root.links or 2
    names = root.children
    if lost is None:
        lost = Node(Entry(_LOST, Kind.DIRECTORY, 0o700, mtime=FIXED_MTIME), links=2)
        links += 1
        names = dict(sorted({**names, _LOST: lost}.items(), key=lambda i: i[0].encode("utf-8", "surrogateescape")))
    first = _Inode(root.entry, ROOT, links, names)
    second = _Inode(lost.entry, FIRST, lost.links, lost.children)
    made, known = [first, second], {id(lost): second}
    parents = {ROOT: ROOT}
    stack = [first]
    while stack:
        folder = stack.pop()
        below = list[_Inode]()
        for node in folder.names.values():
            inode = known.get(id(node))
            if inode is None:
                inode = known[id(node)] = _Inode(node.entry, FIRST - 1 + len(made), node.links, node.children)
                made.append(inode)
            if node.is_directory:
                parents[inode.number] = folder.number
                below.append(inode)
        stack += reversed(below)
    for inode in made:
        _measure(inode)
        if inode.entry.kind is Kind.DIRECTORY:
            path = inode.entry.path
            entries = [
                (ext4_dirs.encoded(n, path), known[id(child)].number, child.entry.kind)
                for n, child in inode.names.items()
            ]
            least = 4 if writable and inode is second else 1
            inode.blocks = ext4_dirs.blocks(entries, inode.number, parents[inode.number], least=least)
            inode.size = len(inode.blocks) * BLOCK
            inode.runs = [Run(0, len(inode.blocks))]
    return made


def _measure(inode: _Inode) -> None:
    entry = inode.entry
    path = entry.path or "/"
    inode.inside, inode.attributes = ext4_xattr.stored(entry.xattrs, path)
    if inode.links > ext4_inode.MAX_LINKS and entry.kind is not Kind.DIRECTORY:
        raise InputError(f"{path[:200]} has {inode.links} names, and on ext4 a file has at most {ext4_inode.MAX_LINKS}",
                         hint="make copies of it instead of hard links")  # fmt: skip
    if entry.kind is Kind.FILE:
        inode.size = entry.size
        if inode.size > MAX_FILE:
            raise InputError(f"{path[:200]} has {inode.size} bytes, and on ext4 a file is smaller than 16 TiB")
        inode.content = of_source(entry.source)
        inode.runs = data_runs(inode.content)
    elif entry.kind is Kind.SYMLINK:
        target = entry.target.encode("utf-8", "surrogateescape")
        inode.size = len(target)
        if not 0 < len(target) < BLOCK:
            raise InputError(f"{path[:200]}: a symlink on ext4 has 1 to {BLOCK - 1} bytes, and this has {len(target)}")
        if len(target) < ext4_inode.INLINE:
            inode.root = target.ljust(60, b"\0")
        else:
            inode.content, inode.runs = [literal(target)], [Run(0, 1)]
    elif entry.kind in (Kind.CHAR, Kind.BLOCK):
        inode.root = ext4_inode.device(*entry.device)


def _layout(blocks: int, inodes: int, *, writable: bool) -> Layout | None:
    """The layout of a file system with so many blocks, perhaps a few fewer; None: it can't hold as many inodes."""
    wanted = inodes
    if writable:  # one for 16 KiB, as usual; for 8 KiB where there are few
        wanted = max(wanted, blocks * BLOCK // (16384 if blocks * BLOCK >= 512 * _MIB else 8192))
    while blocks > 0:
        groups = -(-blocks // GROUP)
        each = -(-wanted // (groups * PER_BLOCK)) * PER_BLOCK
        layout = Layout(blocks, min(each, GROUP), reserve=writable)
        kept = trimmed(layout)
        if kept is layout:
            return layout if layout.is_sound() and layout.inodes >= inodes else None
        blocks = kept.blocks
    return None


def _smallest(inodes: Sequence[_Inode], free: int, *, writable: bool) -> Layout:
    """The smallest layout that holds all, and as much free."""
    needed = sum(inode.needed for inode in inodes) + -(-free // BLOCK) + writable
    blocks = needed + 4
    while True:
        layout = _layout(blocks, inodes[-1].number, writable=writable)
        if layout is None or layout.blocks < blocks:
            blocks += 16
            continue
        journal = ext4_super.journal_blocks(blocks) if writable else 0
        # where a file goes on behind a copy of the superblock it has one extent more, and perhaps a block for them
        missing = needed + journal + len(layout.backups()) + 2 - (blocks - layout.metadata())
        if missing <= 0:
            return layout
        blocks += missing


def _written(
    layout: Layout, inodes: Sequence[_Inode], seed: str, label: bytes, mtime: int, *, writable: bool
) -> list[Piece]:
    allocator = Allocator(layout)
    key = checksum(ext4_super.uuid_of(seed))
    placed = dict[int, list[Piece]]()
    special = {RESIZE: b"", JOURNAL: b""}
    if layout.reserved:
        indirect = allocator.take(1)[0].start
        reserve = ext4_super.reserve(layout, indirect)
        placed |= {number: [literal(data)] for number, data in reserve.blocks.items()}
        special[RESIZE] = _own(reserve.content, reserve.size, reserve.used, mtime, extents=False)
    _place(inodes, allocator, placed, key)
    journal, size = None, ext4_super.journal_blocks(layout.blocks) if writable else 0
    if size:
        taken = allocator.take(size)
        root, tree = extent_tree(ext4_inode.extents([Run(0, size)], taken), allocator.take, key, JOURNAL)
        placed |= {number: [literal(data)] for number, data in tree.items()}
        placed[taken[0].start] = [literal(ext4_super.journal_superblock(size, seed))]
        special[JOURNAL] = _own(root, size * BLOCK, size + len(tree), mtime, extents=True)
        journal = root, size * BLOCK
    folders = [0] * layout.groups
    for inode in inodes:
        folders[(inode.number - 1) // layout.per_group] += inode.entry.kind is Kind.DIRECTORY
    used = inodes[-1].number
    groups = ext4_super.groups(layout, allocator, used, folders, key)
    placed |= {number: [literal(data)] for number, data in groups.bitmaps.items()}
    placed |= {number: [literal(data)] for number, data in _tables(layout, inodes, special, key)}
    overhead = layout.metadata() + size
    spare = layout.blocks - layout.metadata() - allocator.used
    facts = Facts(layout, seed, label, mtime, spare, layout.inodes - used, overhead, journal)
    for group in (0, *layout.backups()):
        front = [hole(1024)] if group == 0 else []
        block = padded([*front, literal(ext4_super.superblock(facts, group))], BLOCK)
        placed[group * GROUP] = [*block, literal(groups.descriptors)]
    return _joined(placed, layout.blocks * BLOCK)


def _place(inodes: Sequence[_Inode], allocator: Allocator, placed: dict[int, list[Piece]], key: int) -> None:
    """Give every inode its blocks, directories first, and put their content into them."""
    directories = [inode for inode in inodes if inode.blocks]
    seeds = [inode_seed(key, inode.number) for inode in directories]
    blocks = [block for inode in directories for block in inode.blocks]
    finished = ext4_dirs.finished(blocks, [s for i, s in zip(directories, seeds, strict=True) for _ in i.blocks])
    for inode in directories:
        for extent in _extents(inode, allocator, placed, key):
            placed[extent.physical] = [piece for _ in range(extent.blocks) for piece in next(finished)]
    for inode in inodes:
        if inode.attributes:
            inode.attribute_block = number = allocator.take(1)[0].start
            value = checksum(inode.attributes, checksum(number.to_bytes(8, "little"), key))
            data = inode.attributes[:16] + value.to_bytes(4, "little") + inode.attributes[20:]
            placed[number] = [literal(data)]
            inode.used += 1
    for inode in inodes:
        if inode.entry.kind is Kind.FILE or inode.content:
            for extent in _extents(inode, allocator, placed, key):
                whole = extent.blocks * BLOCK >= inode.size
                placed[extent.physical] = (
                    inode.content if whole else cut(inode.content, extent.logical * BLOCK, extent.blocks * BLOCK)
                )
            inode.content, inode.runs = [], ()  # there may be very many of them


def _extents(inode: _Inode, allocator: Allocator, placed: dict[int, list[Piece]], key: int) -> list[Extent]:
    wanted = inode.wanted
    taken = allocator.take(wanted)
    found = ext4_inode.extents(inode.runs, taken)
    inode.root, tree = extent_tree(found, allocator.take, key, inode.number)
    for number, data in tree.items():
        placed[number] = [literal(data)]
    inode.used += wanted + len(tree)
    return found


def _own(content: bytes, size: int, blocks: int, mtime: int, *, extents: bool) -> bytes:
    """An inode of the file system itself."""
    entry = Entry("", Kind.FILE, 0o600, mtime=mtime)
    made = ext4_inode.record(entry, links=1, size=size, content=content, blocks=blocks)
    return made if extents else made[:0x20] + bytes(4) + made[0x24:]


def _tables(
    layout: Layout, inodes: Sequence[_Inode], special: dict[int, bytes], key: int
) -> Iterator[tuple[int, bytes]]:
    """The inode tables, up to the last inode in use, with their blocks."""
    empty = bytes(INODE)
    last = inodes[-1].number
    by_number = {inode.number: inode for inode in inodes}
    for first in range(1, last + 1, layout.per_group):
        records, numbers = list[bytes](), range(first, min(first + layout.per_group, last + 1))
        for number in numbers:
            inode = by_number.get(number)
            records.append(special.get(number, empty) or empty if inode is None else _record(inode))
        starts = of_many(b"".join(n.to_bytes(4, "little") + bytes(4) for n in numbers), [key] * len(numbers))
        sums = of_many(b"".join(records), starts)
        data = b"".join(
            ext4_inode.with_checksum(one, value) if one != empty else one
            for one, value in zip(records, sums, strict=True)
        )
        yield layout.places((first - 1) // layout.per_group)[2], data


def _record(inode: _Inode) -> bytes:
    return ext4_inode.record(
        inode.entry, links=inode.links, size=inode.size, content=inode.root, blocks=inode.used,
        attributes=inode.inside, attribute_block=inode.attribute_block,
    )  # fmt: skip


def _joined(placed: dict[int, list[Piece]], size: int) -> list[Piece]:
    out, at = list[Piece](), 0
    for number in sorted(placed):
        start = number * BLOCK
        if start > at:
            out.append(hole(start - at))
        out += placed[number]
        at = start + size_of(placed[number])
    return [*out, hole(size - at)] if size > at else out
