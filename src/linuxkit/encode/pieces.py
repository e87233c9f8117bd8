"""Images as lists of pieces: runs of bytes that exist already, literal bytes, and holes.

A disk image is a gigabyte of which all but a few kilobytes are in the cache already, or zero. So what makes a
partition table, a FAT volume or a qcow2 file never copies: it takes pieces and gives pieces, and one copy at the very
end, by the kernel where it can, writes the file with its holes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from linuxkit.entry import Extent, Source, read_all
from linuxkit.errors import ImageError

#: Most bytes of a source without a file of its own that are kept in memory.
MAX_LITERAL = 1 << 30


class Piece(NamedTuple):
    """`size` bytes: from `offset` of the file `path`; without a path, `data`; with neither, zeros (a hole)."""

    size: int
    path: str = ""
    offset: int = 0
    data: bytes = b""

    @property
    def is_hole(self) -> bool:
        return not self.path and not self.data


def literal(data: bytes) -> Piece:
    """A piece that is at hand."""
    return Piece(len(data), data=data)


def hole(size: int) -> Piece:
    """`size` bytes that are zero and take no room in a sparse file."""
    return Piece(size)


def of_source(source: Source | None) -> list[Piece]:
    """The content of a file as pieces; empty for None.

    Raises:
        ValueError: a source without a file of its own has more than MAX_LITERAL bytes.
    """
    if source is None or not source.size:
        return []
    if isinstance(source, Extent):
        return [Piece(source.size, source.file, source.offset)]
    return [literal(read_all(source, MAX_LITERAL))]


def size_of(pieces: Iterable[Piece]) -> int:
    """Their length in bytes."""
    return sum(piece.size for piece in pieces)


def padded(pieces: Sequence[Piece], size: int) -> list[Piece]:
    """The pieces and a hole behind them, `size` bytes in all.

    Raises:
        ValueError: they are longer than that.
    """
    rest = size - size_of(pieces)
    if rest < 0:
        raise ValueError(f"{size - rest} bytes don't fit into {size}")
    return [*pieces, hole(rest)] if rest else list(pieces)


def cut(pieces: Iterable[Piece], start: int, size: int) -> list[Piece]:
    """`size` bytes from `start`; fewer where the pieces end."""
    found = []
    for piece in pieces:
        if start >= piece.size:  # an empty one, too
            start -= piece.size
            continue
        take = min(piece.size - start, size)
        if take <= 0:
            break
        offset = piece.offset + start if piece.path else 0
        found.append(Piece(take, piece.path, offset, piece.data[start : start + take]))
        start, size = 0, size - take
    return found


def read(pieces: Iterable[Piece], chunk: int = 1 << 20) -> Iterator[bytes]:
    """Their bytes, in runs of at most `chunk`; holes as zeros.

    Raises:
        ImageError: a cached file became shorter.
    """
    zeros = bytes(chunk)
    for piece in pieces:
        if not piece.path:
            for at in range(0, piece.size, chunk):
                yield piece.data[at : at + chunk] or zeros[: min(chunk, piece.size - at)]
            continue
        fd = os.open(piece.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            for at in range(0, piece.size, chunk):
                want = min(chunk, piece.size - at)
                data = os.pread(fd, want, piece.offset + at)
                if len(data) != want:
                    raise became_shorter(piece.path)
                yield data
        finally:
            os.close(fd)


def became_shorter(path: str) -> ImageError:
    """The error for a file of the cache that ended early."""
    return ImageError(f"{path} became shorter while it was being copied", hint="run the build again")
