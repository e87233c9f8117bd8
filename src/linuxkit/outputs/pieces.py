"""What an output file is made of: runs of bytes that exist already, end to end."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from typing import BinaryIO, NamedTuple

from linuxkit.errors import ImageError

CHUNK = 1 << 20


class Piece(NamedTuple):
    """`size` bytes from `offset` of the file `path`; or, without a path, `data`."""

    size: int
    path: str = ""
    offset: int = 0
    data: bytes = b""


class OutputFile(NamedTuple):
    """A file of an output: its name, without the directory, and its content."""

    name: str
    format: str
    pieces: tuple[Piece, ...]


def literal(data: bytes) -> Piece:
    """A piece that is at hand."""
    return Piece(len(data), data=data)


def put(pieces: Iterable[Piece], out: BinaryIO) -> int:
    """Copy pieces to a file, end to end, by the kernel alone where it can. Returns the number of bytes.

    Raises:
        ImageError: a cached file became shorter.
    """
    total = 0
    for piece in pieces:
        if not piece.path:
            out.write(piece.data)
        else:
            out.flush()
            with open(piece.path, "rb", buffering=0) as source:
                copied = _copy(source.fileno(), piece.offset, out, piece.size)
            if copied != piece.size:
                raise ImageError(f"{piece.path} became shorter while it was being copied", hint="run the build again")
        total += piece.size
    return total


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
