"""The content of files for EROFS: which parts of it are zero, and which files have the same. Used by encode.erofs.

A large file with runs of zeros is kept in chunks, of which those that are zero take no room. Whether a run is zero is
told by its bytes alone, so that the volume doesn't depend on how a cached file happens to lie on a disk; what this
machine knows of holes only saves reading them.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from linuxkit.encode.erofs_format import BLOCK
from linuxkit.encode.pieces import Piece, hole, literal, of_source, read
from linuxkit.entry import Bytes, Extent, Source
from linuxkit.errors import ImageError

#: What is looked at: runs of this size, in files that have several of them.
UNIT = 1 << 16
_MIN_SIZE = 16 * UNIT
_ZEROS = bytes(UNIT)
_PROBE = 64


@dataclass(eq=False)
class Run:
    """Blocks that a file's data is in; files with the same content have the same.

    pieces  what is stored; padded to whole blocks.
    blocks  their number.
    first   the address of the first one, when it is known.
    """

    pieces: list[Piece]
    blocks: int
    first: int = 0


class Same:
    """Finds content that was there before: by where it comes from, and among files of one size by its bytes."""

    def __init__(self) -> None:
        self._count = 0
        self._by_place: dict[tuple[Piece, ...], int] = {}
        self._alone: dict[int, tuple[int, tuple[Piece, ...]]] = {}  # by size: the first of it, while it has no digest
        self._by_digest: dict[bytes, int] = {}

    def number(self, pieces: Sequence[Piece], size: int) -> int:
        """The number of a content: the one that the same content got, or the next."""
        place = tuple(pieces)
        number = self._by_place.get(place)
        if number is None:
            number = self._by_place[place] = self._find(place, size)
        return number

    def _find(self, place: tuple[Piece, ...], size: int) -> int:
        number, self._count = self._count, self._count + 1
        if size < BLOCK:  # it stands behind its inode
            return number
        if size not in self._alone:
            self._alone[size] = number, place
            return number
        first, other = self._alone[size]
        if other:
            self._by_digest[_digest(other)] = first
            self._alone[size] = first, ()
        return self._by_digest.setdefault(_digest(place), number)


def _digest(pieces: Iterable[Piece]) -> bytes:
    hashed = hashlib.sha256()
    for data in read(pieces):
        hashed.update(data)
    return hashed.digest()


def content(source: Source | None) -> list[Piece]:
    """A file's content; in a large one each unit that is zero is a hole, and nothing else is."""
    if source is None or source.size < _MIN_SIZE:
        return of_source(source)
    if isinstance(source, Extent):
        fd = os.open(source.file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            zero = list(_zero_units(fd, source))
        finally:
            os.close(fd)
        return _runs(source.size, zero, lambda at, size: Piece(size, source.file, source.offset + at))
    if isinstance(source, Bytes):
        data = source.data
        zero = [n for n in range(-(-len(data) // UNIT)) if _is_zero(data[n * UNIT : (n + 1) * UNIT])]
        return _runs(len(data), zero, lambda at, size: literal(data[at : at + size]))
    return list(_streamed(source))


def mostly_zero(source: Source | None) -> bool:
    """Whether a file is large and most of it are zeros: then it takes less room in chunks than compressed."""
    if source is None or source.size < _MIN_SIZE:
        return False
    return 2 * sum(piece.size for piece in content(source) if piece.is_hole) > source.size


@dataclass(frozen=True)
class Chunks:
    """A file in chunks.

    format  the power of two of a chunk's size in blocks, as the inode has it.
    starts  of each chunk the first block within `run`, or None: it is zero.
    """

    format: int
    starts: tuple[int | None, ...]
    run: Run


def chunked(pieces: Sequence[Piece], size: int) -> Chunks | None:
    """Content that `content` gave, in chunks of the size that takes least room; None if nothing of it is a hole."""
    stored = [True] * -(-size // UNIT)
    at = 0
    for piece in pieces:
        if piece.is_hole:
            units = range(at // UNIT, -(-(at + piece.size) // UNIT))
            stored[units.start : units.stop] = [False] * len(units)
        at += piece.size
    if all(stored):
        return None
    stored[-1] = True  # fsck.erofs 1.8 extracts a file that ends with a hole without it
    best, cost, width = stored, 4 * len(stored) + UNIT * sum(stored), UNIT
    level, step = stored, UNIT
    while len(level) > 1:
        level = [any(level[n : n + 2]) for n in range(0, len(level), 2)]
        step *= 2
        if (now := 4 * len(level) + step * sum(level)) < cost:
            best, cost, width = level, now, step
    starts: list[int | None] = []
    blocks = 0
    for n, there in enumerate(best):
        starts.append(blocks if there else None)
        blocks += there * -(-min(width, size - n * width) // BLOCK)
    run = Run(list(_kept(pieces, best, width)), blocks)
    return Chunks(width.bit_length() - BLOCK.bit_length(), tuple(starts), run)


def _kept(pieces: Sequence[Piece], stored: Sequence[bool], width: int) -> Iterator[Piece]:
    """Pieces without the holes that are in chunks not stored."""
    at = 0
    for piece in pieces:
        end = at + piece.size
        if not piece.is_hole:
            yield piece
        else:
            while at < end:
                stop = min(end, (at // width + 1) * width)
                if stored[at // width]:
                    yield hole(stop - at)
                at = stop
        at = end


def _runs(size: int, zero: Sequence[int], part: Callable[[int, int], Piece]) -> list[Piece]:
    """Pieces of `size` bytes with holes for the units in `zero`."""
    pieces, at = [], 0
    n = 0
    while n < len(zero):
        start = zero[n] * UNIT
        while n + 1 < len(zero) and zero[n + 1] == zero[n] + 1:
            n += 1
        end = min((zero[n] + 1) * UNIT, size)
        n += 1
        if start > at:
            pieces.append(part(at, start - at))
        pieces.append(hole(end - start))
        at = end
    if at < size:
        pieces.append(part(at, size - at))
    return pieces


def _zero_units(fd: int, source: Extent) -> Iterator[int]:
    """The units of a run of a file that are zero. Few of those that aren't are read further than their first bytes."""
    data_end = 0  # up to here this machine has something stored
    hole_end = 0  # and up to here nothing
    for at in range(0, source.size, UNIT):
        size = min(UNIT, source.size - at)
        if at >= data_end and at >= hole_end:
            hole_end, data_end = _stored(fd, source.offset + at, source.offset + source.size)
            hole_end, data_end = hole_end - source.offset, data_end - source.offset
        if at + size <= hole_end:
            yield at // UNIT
            continue
        start = os.pread(fd, min(_PROBE, size), source.offset + at)
        if not start:
            raise ImageError(f"{source.file} became shorter while it was being read", hint="run the build again")
        if _is_zero(start) and _is_zero(os.pread(fd, size, source.offset + at)):
            yield at // UNIT


def _stored(fd: int, at: int, end: int) -> tuple[int, int]:
    """Where the next stored byte is, and where the hole after it begins."""
    try:
        start = os.lseek(fd, at, os.SEEK_DATA)
        return min(start, end), os.lseek(fd, start, os.SEEK_HOLE)
    except AttributeError:
        return at, end  # this system has no way to tell
    except OSError as e:
        if e.errno != errno.ENXIO or os.fstat(fd).st_size < end:
            return at, end
        return end, end


def _streamed(source: Source) -> Iterator[Piece]:
    """A source without a file of its own: what isn't zero of it is kept in memory."""
    with source.open() as stream:
        for at in range(0, source.size, UNIT):
            size = min(UNIT, source.size - at)
            data = stream.read(size)
            while len(data) < size and (more := stream.read(size - len(data))):
                data += more
            if len(data) < size:
                raise ImageError("a file became shorter while it was being read", hint="run the build again")
            yield hole(size) if _is_zero(data) else literal(data)


def _is_zero(data: bytes) -> bool:
    return data == (_ZEROS if len(data) == UNIT else _ZEROS[: len(data)])
