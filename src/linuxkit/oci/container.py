"""Files inside a directory or a tar archive, read by name and never by the host's rules.

A directory is read without following symbolic links; an archive is mapped and indexed, and only its regular files
(and, as `docker save` of old wrote them, links between its own members) can be opened.
"""

from __future__ import annotations

import io
import mmap
import os
import posixpath
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol

from linuxkit.errors import ImageError, InputError
from linuxkit.oci.files import host_errors
from linuxkit.oci.tarread import Limits, Row, read_tar
from linuxkit.oci.unpack import unpack

#: A layout has a file for each blob, not for each member of a layer.
LIMITS = Limits(entries=100_000)


class Container(Protocol):
    """A set of named files."""

    @property
    def where(self) -> str:
        """Its path, for messages."""

    def has(self, name: str) -> bool:
        """Whether there is a file of that name."""

    def size(self, name: str) -> int:
        """The file's length in bytes. Raises ImageError when it is not there."""

    def open(self, name: str) -> BinaryIO:
        """The file's bytes. Raises ImageError when it is not there."""


def open_below(root: Path, *parts: str) -> BinaryIO:
    """Open a regular file below `root`, one directory at a time, through no symbolic link.

    Raises:
        ImageError: it is not there, not a regular file, or behind a link.
    """
    where = root.joinpath(*parts)
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        fd = os.open(root, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
        for part in parts:
            above = fd
            try:
                fd = os.open(part, flags, dir_fd=above)
            finally:
                os.close(above)
    except OSError as e:
        raise ImageError(f"cannot read {where}: {(e.strerror or str(e)).lower()}",
                         hint="a part of the image is missing; fetch or import it again") from e  # fmt: skip
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise ImageError(f"{where} is not a regular file")
    return open(fd, "rb")


class Directory:
    """A Container on disk."""

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise InputError(f"{root} is not a directory", hint="oci:DIR takes an OCI image layout directory")
        self._root = root

    @property
    def where(self) -> str:
        return str(self._root)

    def has(self, name: str) -> bool:
        with suppress(ImageError):
            self.open(name).close()
            return True
        return False

    def size(self, name: str) -> int:
        with self.open(name) as stream:
            return os.fstat(stream.fileno()).st_size

    def open(self, name: str) -> BinaryIO:
        return open_below(self._root, *name.split("/"))


class Archive:
    """A Container in a tar archive, plain or compressed with gzip or zstd. A context manager.

    Args:
        source: the file, or a stream such as standard input.
        scratch: where a compressed or streamed archive is written out, without a name.
    """

    def __init__(self, source: Path | BinaryIO, scratch: Path) -> None:
        self._where = str(source) if isinstance(source, Path) else "standard input"
        self._file = self._plain(source, scratch)
        self._rows: dict[str, Row] = {}
        if os.fstat(self._file.fileno()).st_size:
            with mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as view:
                self._rows = {row.path: row for row in read_tar(view, self._where, LIMITS)}

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None,
                 ) -> None:  # fmt: skip
        self._file.close()

    @property
    def where(self) -> str:
        return self._where

    def has(self, name: str) -> bool:
        return self._find(name) is not None

    def size(self, name: str) -> int:
        return self._row(name).size

    def open(self, name: str) -> BinaryIO:
        row = self._row(name)
        return io.BufferedReader(_Slice(self._file.fileno(), row.offset, row.size), 1 << 20)

    def _row(self, name: str) -> Row:
        row = self._find(name)
        if row is None:
            raise ImageError(f"{self._where}: it has no file {name}")
        return row

    def _find(self, name: str) -> Row | None:
        row = self._rows.get(posixpath.normpath(name).lstrip("/"))
        if row is not None and row.kind in "lh":
            target = row.target if row.kind == "h" else posixpath.join(posixpath.dirname(row.path), row.target)
            row = self._rows.get(posixpath.normpath(target))
        return row if row is not None and row.kind == "f" else None

    def _plain(self, source: Path | BinaryIO, scratch: Path) -> BinaryIO:
        if isinstance(source, Path):
            try:
                stream: BinaryIO = source.open("rb")
            except OSError as e:
                raise InputError(f"cannot read {source}: {(e.strerror or str(e)).lower()}") from e
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                stream.close()
                raise InputError(f"{source} is not a regular file", hint="give an archive, or oci:DIR for a directory")
            if stream.read(2) not in (b"\x1f\x8b", b"\x28\xb5"):
                return stream
            stream.seek(0)
        else:
            stream = source
        with host_errors("cannot write to", scratch):
            scratch.mkdir(parents=True, exist_ok=True)
            out: BinaryIO = tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115
            for piece in unpack(stream, 1 << 40, self._where):
                out.write(piece)
            out.flush()
        if stream is not source:
            stream.close()
        return out


class _Slice(io.RawIOBase):
    """`size` bytes from `offset` of a descriptor; several can be open at once."""

    def __init__(self, fd: int, offset: int, size: int) -> None:
        self._fd, self._at, self._end = fd, offset, offset + size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = os.pread(self._fd, min(len(buffer), self._end - self._at), self._at)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
