"""The files of an output, as pieces, and the one copy that writes them."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterable
from typing import BinaryIO, NamedTuple

from linuxkit.encode.content import Descriptors
from linuxkit.encode.pieces import Piece, became_shorter

CHUNK = 1 << 20
#: Pieces up to this size are gathered and written together; holes from a page on are left out.
SMALL, PAGE = 32 << 10, 4096


class OutputFile(NamedTuple):
    """A file of an output: its name, without the directory, and its content."""

    name: str
    format: str
    pieces: tuple[Piece, ...]


def put(pieces: Iterable[Piece], out: BinaryIO) -> int:
    """Copy pieces to a file, end to end, by the kernel alone where it can. Returns the number of bytes.

    Holes stay holes in a new file; in a pipe or a device they are written.

    Raises:
        ImageError: a cached file became shorter.
    """
    total = 0
    sparse, gap = _takes_holes(out), False
    near = bytearray()  # small pieces on their way: a file system is made of tens of thousands
    with Descriptors() as sources:
        for piece in pieces:
            if not piece.size:
                continue
            total += piece.size
            gap = piece.is_hole and piece.size >= PAGE
            if piece.size < PAGE or (piece.size <= SMALL and not piece.is_hole):
                near += _at_hand(piece, sources)
                if len(near) < CHUNK:
                    continue
            out.write(near)
            near.clear()
            if gap:
                _leave_out(piece.size, out, sparse=sparse)
            elif piece.size > SMALL and not piece.path:
                out.write(piece.data)
            elif piece.size > SMALL:
                out.flush()
                gap = _copy_runs(sources.of(piece.path), piece, out, sparse=sparse)
        out.write(near)
    if sparse and gap:
        out.truncate(out.tell())
    return total


def _at_hand(piece: Piece, sources: Descriptors) -> bytes:
    """The bytes of a small piece."""
    if not piece.path:
        return piece.data or bytes(piece.size)
    data = os.pread(sources.of(piece.path), piece.size, piece.offset)
    if len(data) != piece.size:
        raise became_shorter(piece.path)
    return data


def _copy_runs(source: int, piece: Piece, out: BinaryIO, *, sparse: bool) -> bool:
    """Copy a piece of a file, its holes left out where they can be. True: it ended with a hole."""
    at, end = piece.offset, piece.offset + piece.size
    while at < end:
        start, stop = _data_run(source, at, end) if sparse else (at, end)
        if start > at:
            _leave_out(start - at, out, sparse=True)
            out.flush()
        if _copy(source, start, out, stop - start) != stop - start:
            raise became_shorter(piece.path)
        if start == end:
            return True
        at = stop
    return False


def _data_run(fd: int, at: int, end: int) -> tuple[int, int]:
    """Where from `at` on the next data of a file starts and ends, in the bounds of `end`; (end, end): there is none."""
    try:
        start = os.lseek(fd, at, os.SEEK_DATA)
    except OSError as e:
        if e.errno != errno.ENXIO:
            return at, end  # this file system can't tell
        return (end, end) if os.fstat(fd).st_size >= end else (at, end)
    return min(start, end), min(os.lseek(fd, start, os.SEEK_HOLE), end) if start < end else end


def _takes_holes(out: BinaryIO) -> bool:
    """Whether what is skipped reads as zeros: a regular file, at its end, that isn't appended to."""
    try:
        info, flags = os.fstat(out.fileno()), fcntl.fcntl(out.fileno(), fcntl.F_GETFL)
        return stat.S_ISREG(info.st_mode) and not flags & os.O_APPEND and out.tell() >= info.st_size
    except OSError:  # io.UnsupportedOperation of an object in memory, too
        return False


def _leave_out(size: int, out: BinaryIO, *, sparse: bool) -> None:
    if sparse:
        out.seek(size, os.SEEK_CUR)
        return
    zeros = bytes(min(CHUNK, size))
    for at in range(0, size, CHUNK):
        out.write(zeros[: size - at])


def _copy(source: int, offset: int, out: BinaryIO, size: int) -> int:
    done = 0
    if hasattr(os, "copy_file_range"):
        try:
            to = out.fileno()
            while done < size and (n := os.copy_file_range(source, to, size - done, offset + done)):
                done += n
        except OSError as e:
            if e.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
                raise
        if done:
            out.seek(0, os.SEEK_CUR)
    while done < size and (data := os.pread(source, min(CHUNK, size - done), offset + done)):
        out.write(data)
        done += len(data)
    return done
