"""What of a file's content is data and what is a hole, told from its bytes alone.

Runs of zeros become holes where they fill 64 KiB that begin at a multiple of that. What a host's own file system has
allocated decides nothing, so an image is the same wherever it is built; it only spares reading what is known to be
zero.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from linuxkit.encode.ext4_layout import BLOCK, Run
from linuxkit.encode.pieces import Piece, became_shorter, size_of

UNIT = 64 << 10
_PART = 1 << 20
_ZEROS = bytes(UNIT)
#: Of files that are too short for holes, by their blocks.
_SMALL: list[tuple[Run, ...]] = [(), *((Run(0, count),) for count in range(1, UNIT // BLOCK + 1))]


def data_runs(pieces: Sequence[Piece]) -> Sequence[Run]:
    """The blocks of a file that are to be stored: all but those of its holes.

    Raises:
        ImageError: a cached file became shorter.
    """
    size = size_of(pieces)
    whole = -(-size // BLOCK)
    if size < UNIT:
        return _SMALL[whole]
    if len(pieces) != 1:
        raise ValueError("a file is one run of bytes")
    full, piece = size // UNIT, pieces[0]
    flags = bytearray(full)  # of each whole unit: 1 is data
    if piece.data:
        _mark(piece.data, 0, flags)
    elif piece.path:
        _mark_file(piece, flags)
    runs, at, per = list[Run](), 0, UNIT // BLOCK
    while (first := flags.find(1, at)) >= 0:
        at = flags.find(0, first)
        at = full if at < 0 else at
        runs.append(Run(first * per, (at - first) * per))
        if at == full:
            break
    if whole > full * per:  # the last, shorter one is always data
        if runs and sum(runs[-1]) == full * per:
            runs[-1] = Run(runs[-1].start, whole - runs[-1].start)
        else:
            runs.append(Run(full * per, whole - full * per))
    return runs


def _mark(data: bytes, first: int, flags: bytearray) -> None:
    """Mark the units of some bytes that are not zero; `first` is the number of the first."""
    for at in range(0, len(data) - UNIT + 1, UNIT):
        if data[at] or data[at : at + UNIT] != _ZEROS:
            flags[first + at // UNIT] = 1


def _mark_file(piece: Piece, flags: bytearray) -> None:
    end = piece.offset + len(flags) * UNIT
    fd = os.open(piece.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        at = piece.offset
        while at < end:
            data = os.pread(fd, min(_PART, end - at), at)
            if len(data) != min(_PART, end - at):
                raise became_shorter(piece.path)
            first = (at - piece.offset) // UNIT
            _mark(data, first, flags)
            at += len(data)
            if not flags[(at - piece.offset) // UNIT - 1] and at < end:
                at = _next_data(fd, at, piece.offset, end)
    finally:
        os.close(fd)


def _next_data(fd: int, at: int, origin: int, end: int) -> int:
    """The start of the unit with the next byte that isn't in a hole of the file, or the end."""
    try:
        found = os.lseek(fd, at, os.SEEK_DATA)
    except OSError as e:
        if e.errno != errno.ENXIO or os.fstat(fd).st_size < end:
            return at  # this file system can't tell, or the file is too short: reading says so
        return end
    return min(end, found - (found - origin) % UNIT)
