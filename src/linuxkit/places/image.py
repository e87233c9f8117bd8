"""A local image file: its digest, and its blocks with those that are zero told apart."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from linuxkit.errors import HostError, InputError

T = TypeVar("T")

@dataclass(frozen=True)
class LocalImage:
    """A file that `build` wrote. `format` as given to --format."""

    path: Path
    format: str

    @cached_property
    def size(self) -> int:
        """Length in bytes."""
        try:
            return self.path.stat().st_size
        except OSError as e:
            raise InputError(f"{self.path}: {(e.strerror or str(e)).lower()}") from e

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the file, hexadecimal."""
        with self.path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset`; fewer at the end of the file.

        Raises:
            HostError: the file became shorter.
        """
        with self.path.open("rb") as stream:
            stream.seek(offset)
            data = stream.read(size)
        if len(data) != min(size, self.size - offset):
            raise HostError(f"{self.path} became shorter while it was being sent", hint="run it again")
        return data

    def blocks(self, size: int) -> Iterator[tuple[int, int]]:
        """(index, length) of the blocks of `size` bytes that are not all zero; holes are not even read."""
        following = 0
        with self.path.open("rb") as stream:
            for start, end in self._data(stream.fileno()):
                for index in range(max(following, start // size), -(-end // size)):
                    length = min(size, self.size - index * size)
                    stream.seek(index * size)
                    data = stream.read(length)
                    if data.count(0) != len(data):
                        yield index, length
                    following = index + 1

    def _data(self, fd: int) -> Iterator[tuple[int, int]]:
        """Runs of the file that are no holes; all of it where the file system doesn't tell."""
        at = 0
        while at < self.size:
            try:
                start = os.lseek(fd, at, os.SEEK_DATA)
                end = os.lseek(fd, start, os.SEEK_HOLE)
            except OSError as e:
                if e.errno != errno.ENXIO:  # ENXIO: nothing but a hole is left
                    yield at, self.size
                return
            yield start, end
            at = end


def side_by_side(work: Iterable[T], do: Callable[[T], object], *, workers: int = 8) -> None:
    """Do something with every item, several at once, with few of them waiting. The first failure ends it."""
    with ThreadPoolExecutor(workers, thread_name_prefix="send") as pool:
        running: set[Future[object]] = set()
        try:
            for item in work:
                if len(running) >= workers * 2:
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        future.result()
                running.add(pool.submit(do, item))
            for future in running:
                future.result()
        except BaseException:
            for future in running:
                future.cancel()
            raise
