"""The data of squashfs: files in compressed blocks, their ends in fragments, each content stored once.

    data region = blocks of the files, end to end; then fragments

A file is cut into blocks of the block size, each compressed by itself. What is left at its end goes into a fragment, a
block that holds the ends of many files. A block of zeros is not stored. Files with the same blocks, and ends with the
same bytes, share them.

Files are stored in the order of the tree, but those of one group (an archive that they are runs of) together, and no
fragment holds ends from two groups: so a change in one image moves nothing of another. A `Shelf` keeps what was
compressed; contents that it knows are neither read nor compressed.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from linuxkit.encode import fields
from linuxkit.encode.pieces import Piece, literal, size_of
from linuxkit.encode.squashfs_blocks import SPAN, Blocks, Done, Span
from linuxkit.encode.tree import Node, walk
from linuxkit.entry import Bytes, Extent, Kind, Source

NO_FRAGMENT = 0xFFFFFFFF
AHEAD = 8 << 20  # bytes that wait for a thread, or for their place
_MANY = 256  # spans in a batch
_WAITING = 16  # fragments
_WORD = fields.Record("<I")


class Packed(NamedTuple):
    """A content, compressed.

    words   the lengths of its blocks as an inode has them: little-endian 32 bits each.
    pieces  the blocks, end to end.
    blocks  a digest of them; empty when there are none.
    end     SHA-256 of what is left behind the last full block; empty when nothing is.
    """

    words: bytes
    pieces: tuple[Piece, ...]
    blocks: bytes
    end: bytes


class Shelf(Protocol):
    """Where compressed blocks are kept."""

    def identity(self, source: Source) -> tuple[str, str]:
        """(group, key) that tell this content from all others. Of what is in group "" nothing is remembered."""

    def get(self, group: str, key: str) -> Packed | None:
        """What `note` was given, for this image or one before it."""

    def add(self, data: bytes) -> Piece:
        """Keep some bytes."""

    def note(self, group: str, key: str, packed: Packed) -> None:
        """Remember what was added."""


class Memory:
    """A Shelf for small images: it remembers nothing."""

    def identity(self, source: Source) -> tuple[str, str]:
        return identity(source)

    def get(self, group: str, key: str) -> Packed | None:
        return None

    def add(self, data: bytes) -> Piece:
        return literal(data)

    def note(self, group: str, key: str, packed: Packed) -> None:
        pass


def identity(source: Source) -> tuple[str, str]:
    """As `Shelf.identity`: the file that a source is a run of and which run, or only a digest of what is in memory."""
    if isinstance(source, Extent):
        return source.file, f"{source.offset}+{source.size}"
    return "", hashlib.sha256(source.data).hexdigest() if isinstance(source, Bytes) else ""


class Placed(NamedTuple):
    """Where the content of a file is. `start` is a position in the volume; `sparse` counts the bytes of zero blocks."""

    start: int
    words: bytes
    fragment: int
    offset: int
    sparse: int


class Data(NamedTuple):
    """The data region: its pieces, the places of files by inode number, the fragments as (position, length word)."""

    pieces: list[Piece]
    places: dict[int, Placed]
    fragments: list[tuple[int, int]]


@dataclass(eq=False, slots=True)
class _Content:
    """What one or several inodes hold."""

    source: Source
    group: str
    key: str
    inodes: list[int] = field(default_factory=list)


class _End(NamedTuple):
    """Something for a fragment. `data` is None for what is read only when the fragment isn't on the shelf."""

    digest: bytes
    size: int
    source: Source
    data: bytes | None


def lay_out(root: Node, start: int, blocks: Blocks, shelf: Shelf, threads: int) -> Data:
    """Compress all files of a tree. The region starts at `start` of the volume.

    Raises:
        ImageError: a source was shorter than it said.
    """
    with ThreadPoolExecutor(max(1, threads), thread_name_prefix="squashfs") as pool:
        try:
            return _Region(start, blocks, shelf, pool).data(_contents(root, shelf))
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _contents(root: Node, shelf: Shelf) -> list[_Content]:
    """The contents of all files, each once as far as that is told without reading; those of one group together."""
    groups: dict[str, list[_Content]] = {}
    known: dict[tuple[str, str], _Content] = {}
    seen: set[int] = set()
    for _, node in walk(root):
        source = node.entry.source
        if node.entry.kind is not Kind.FILE or source is None or not source.size or node.inode in seen:
            continue
        seen.add(node.inode)
        group, key = shelf.identity(source)
        content = known.get((group, key)) if key else None
        if content is None:
            content = _Content(source, group, key)
            if key:
                known[group, key] = content
            groups.setdefault(group, []).append(content)
        content.inodes.append(node.inode)
    return [content for group in groups.values() for content in group]


class _Batch(NamedTuple):
    """What a thread works on; or a content that is on the shelf."""

    spans: list[tuple[_Content, Span]]
    size: int
    packed: Packed | None = None


class _Stored(NamedTuple):
    """A span on the shelf; `piece` is None for zeros."""

    words: bytes
    digest: bytes
    piece: Piece | None


class _Region:
    """Puts everything in its place, in order, while the threads of the pool compress what is next."""

    def __init__(self, start: int, blocks: Blocks, shelf: Shelf, pool: ThreadPoolExecutor) -> None:
        self._at, self._blocks, self._shelf, self._pool = start, blocks, shelf, pool
        self._pieces: list[Piece] = []
        self._places: dict[int, Placed] = {}
        self._stored: dict[bytes, tuple[int, tuple[Piece, ...]]] = {}  # by the digest of blocks: position, pieces
        self._ends: dict[bytes, tuple[int, int]] = {}  # by their digest: fragment, offset
        self._group = ""
        self._open: list[_End] = []
        self._fill = 0
        self._fragments: list[Packed | None] = []  # None: on its way
        self._waiting: deque[tuple[int, str, str, Future[Done]]] = deque()

    def data(self, contents: Sequence[_Content]) -> Data:
        running: deque[tuple[_Batch, Future[list[Done]] | None]] = deque()
        grown: list[_Stored] = []  # of one content
        ahead = 0
        for batch in self._batches(contents):
            job = self._pool.submit(self._blocks.compress, [s for _, s in batch.spans]) if batch.size else None
            running.append((batch, job))
            ahead += batch.size
            while ahead > AHEAD:
                ahead -= self._take(*running.popleft(), grown)
        while running:
            self._take(*running.popleft(), grown)
        self._close()
        self._settle(0)
        start, fragments = self._at, []
        for packed in self._fragments:
            assert packed is not None
            fragments.append((start, int.from_bytes(packed.words, "little")))
            self._pieces += packed.pieces
            start += size_of(packed.pieces)
        return Data(_merged(self._pieces), self._places, fragments)

    def _batches(self, contents: Iterable[_Content]) -> Iterator[_Batch]:
        spans: list[tuple[_Content, Span]] = []
        size = 0
        for content in contents:
            packed = self._shelf.get(content.group, content.key) if content.group else None
            if packed is not None:
                if spans:
                    yield _Batch(spans, size)
                    spans, size = [], 0
                yield _Batch([(content, Span(content.source, 0, 0, True))], 0, packed)
                continue
            for span in self._blocks.spans(content.source):
                spans.append((content, span))
                size += span.size
                if size >= SPAN or len(spans) >= _MANY:
                    yield _Batch(spans, size)
                    spans, size = [], 0
        if spans:
            yield _Batch(spans, size)

    def _take(self, batch: _Batch, job: Future[list[Done]] | None, grown: list[_Stored]) -> int:
        """Store what a thread has done. Returns its bytes."""
        if job is None:
            assert batch.packed is not None
            self._place(batch.spans[0][0], batch.packed, None)
            return 0
        for (content, span), done in zip(batch.spans, job.result(), strict=True):
            if not done.words and not grown:
                packed = Packed(b"", (), b"", done.end_digest)  # all of it goes into a fragment
            elif span.last and not grown and done.digest in self._stored:
                pieces = self._stored[done.digest][1]
                packed = Packed(done.words, pieces, done.digest, done.end_digest)
            else:
                grown.append(_Stored(done.words, done.digest, self._shelf.add(done.data) if done.data else None))
                if not span.last:
                    continue
                digests = [one.digest for one in grown if one.digest]
                whole = digests[0] if len(digests) == 1 else hashlib.sha256(b"".join(digests)).digest()
                pieces = tuple(_merged(one.piece for one in grown if one.piece is not None))
                packed = Packed(b"".join(one.words for one in grown), pieces, whole, done.end_digest)
                grown.clear()
            if content.group:
                self._shelf.note(content.group, content.key, packed)
            self._place(content, packed, done.end)
        return batch.size

    def _place(self, content: _Content, packed: Packed, end: bytes | None) -> None:
        """Where a content is. `end`: what it has for a fragment, when that has been read."""
        if content.group != self._group:
            self._close()
            self._group = content.group
        start, fragment, offset = 0, NO_FRAGMENT, 0
        if packed.blocks:
            stored = self._stored.get(packed.blocks)
            if stored is None:
                stored = self._stored[packed.blocks] = self._at, packed.pieces
                self._pieces += packed.pieces
                self._at += size_of(packed.pieces)
            start = stored[0]
        if packed.end:
            size = content.source.size % self._blocks.size
            where = self._ends.get(packed.end)
            if where is None:
                if self._fill + size > self._blocks.size:
                    self._close()
                where = self._ends[packed.end] = len(self._fragments), self._fill
                self._open.append(_End(packed.end, size, content.source, end))
                self._fill += size
            fragment, offset = where
        sparse = self._sparse(packed.words, content.source.size) if b"\0\0\0\0" in packed.words else 0
        for inode in content.inodes:
            self._places[inode] = Placed(start, packed.words, fragment, offset, sparse)

    def _sparse(self, words: bytes, size: int) -> int:
        """Bytes in blocks that are not stored."""
        block = self._blocks.size
        return sum(min(block, size - n * block) for n, (word,) in enumerate(_WORD.iter_unpack(words)) if not word)

    def _close(self) -> None:
        """Make a fragment of the ends that have come together."""
        if not self._open:
            return
        ends, self._open, self._fill = self._open, [], 0
        key = "fragment-" + hashlib.sha256(b"".join(end.digest for end in ends)).hexdigest()
        self._fragments.append(self._shelf.get(self._group, key) if self._group else None)
        if self._fragments[-1] is None:
            parts = [(end.source, end.size) if end.data is None else end.data for end in ends]
            job = self._pool.submit(self._blocks.fragment, parts)
            self._waiting.append((len(self._fragments) - 1, self._group, key, job))
            self._settle(_WAITING)

    def _settle(self, limit: int) -> None:
        """Keep finished fragments, until no more than `limit` are on their way: in the same order with any threads."""
        while len(self._waiting) > limit:
            number, group, key, job = self._waiting.popleft()
            done = job.result()
            packed = self._fragments[number] = Packed(done.words, (self._shelf.add(done.data),), b"", b"")
            if group:
                self._shelf.note(group, key, packed)


def _merged(pieces: Iterable[Piece]) -> list[Piece]:
    """The same with fewer pieces: runs of a file that follow each other are one."""
    made: list[Piece] = []
    for piece in pieces:
        last = made[-1] if made else None
        if last is not None and piece.path and last.path == piece.path and last.offset + last.size == piece.offset:
            made[-1] = Piece(last.size + piece.size, piece.path, last.offset)
        else:
            made.append(piece)
    return made
