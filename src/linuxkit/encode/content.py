"""The bytes of sources, in pieces, for the writers of this package. Knows no format.

An `Extent` is read with pread from a descriptor that stays open for the whole archive: a root filesystem is tens of
thousands of small runs out of a handful of files, and opening each of them anew would cost more than reading it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import TracebackType
from typing import Protocol, Self

from linuxkit.entry import Extent, Source
from linuxkit.errors import ImageError

CHUNK = 256 * 1024
#: Files that are kept open.
MOST_OPEN = 64


class Sink(Protocol):
    """Where a writer's bytes go: a file, a compressor, a hash."""

    def write(self, data: bytes, /) -> object: ...


class Descriptors:
    """Open files by path, the last few of them; a context manager that closes them. For one thread."""

    def __init__(self) -> None:
        self._open: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def of(self, path: str) -> int:
        """The descriptor of a file, to be used before the next one is asked for."""
        fd = self._open.get(path)
        if fd is None:
            if len(self._open) >= MOST_OPEN:
                os.close(self._open.pop(next(iter(self._open))))
            fd = self._open[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        return fd

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for fd in self._open.values():
            os.close(fd)
        self._open.clear()


class Reader(Descriptors):
    """Reads sources out of files that stay open."""

    def pieces(self, source: Source) -> Iterator[bytes]:
        """Exactly `source.size` bytes, in pieces of at most CHUNK.

        Raises:
            ImageError: the source is shorter than it said; the archive would be corrupt.
        """
        left = source.size
        if isinstance(source, Extent):
            at = source.offset
            while left:
                data = os.pread(self.of(source.file), min(left, CHUNK), at)
                if not data:
                    raise _short(source.file)
                yield data
                at += len(data)
                left -= len(data)
            return
        with source.open() as stream:
            while left:
                data = stream.read(min(left, CHUNK))
                if not data:
                    raise _short("a file")
                yield data
                left -= len(data)


def _short(where: str) -> ImageError:
    return ImageError(f"{where} became shorter while it was being read", hint="run the build again")
