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


class Sink(Protocol):
    """Where a writer's bytes go: a file, a compressor, a hash."""

    def write(self, data: bytes, /) -> object: ...


class Reader:
    """Opens sources; a context manager that closes what it opened. For one thread."""

    def __init__(self) -> None:
        self._open: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for fd in self._open.values():
            os.close(fd)
        self._open.clear()

    def pieces(self, source: Source) -> Iterator[bytes]:
        """Exactly `source.size` bytes, in pieces of at most CHUNK.

        Raises:
            ImageError: the source is shorter than it said; the archive would be corrupt.
        """
        left = source.size
        if isinstance(source, Extent):
            fd = self._open.get(source.file)
            if fd is None:
                fd = self._open[source.file] = os.open(source.file, os.O_RDONLY | os.O_CLOEXEC)
            at = source.offset
            while left:
                data = os.pread(fd, min(left, CHUNK), at)
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
