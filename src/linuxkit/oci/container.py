"""Files inside a directory or a tar archive, read by name and never by the host's rules.

A directory is read without following symbolic links; an archive is indexed once, and only its regular files
(and, as `docker save` of old wrote them, links between its own members) can be opened.
"""

from __future__ import annotations

import io
import os
import posixpath
import stat
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol

from linuxkit.errors import ImageError, InputError
from linuxkit.oci.files import host_errors
from linuxkit.oci.tarread import FileBytes, Limits, Row, read_tar
from linuxkit.oci.unpack import Bounds, unpack

#: A layout has a file for each blob, not for each member of a layer.
LIMITS = Limits(entries=100_000)
BOUNDS = Bounds(size=64 << 30)
#: What comes through a pipe has no size; this one leaves only the absolute bound.
STREAM_SIZE = BOUNDS.size


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
        bounds: how large a compressed one may be then.
    """

    def __init__(self, source: Path | BinaryIO, scratch: Path, bounds: Bounds = BOUNDS) -> None:
        self._bounds = bounds
        self._where = str(source) if isinstance(source, Path) else "standard input"
        self._file = self._plain(source, scratch)
        try:
            self._rows = self._index()
        except BaseException:
            self._file.close()
            raise

    def _index(self) -> dict[str, Row]:
        return {row.path: row for row in read_tar(FileBytes(self._file.fileno()), self._where, LIMITS)}

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
        if not isinstance(source, Path):
            return self._unpacked(source, STREAM_SIZE, scratch)
        try:
            fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe does not hold us up
        except OSError as e:
            raise InputError(f"cannot read {source}: {(e.strerror or str(e)).lower()}") from e
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise InputError(f"{source} is not a regular file", hint="give an archive, or oci:DIR for a directory")
        stream = open(fd, "rb")  # noqa: SIM115  it is the answer
        if stream.read(2) not in (b"\x1f\x8b", b"\x28\xb5"):
            return stream
        with stream:
            stream.seek(0)
            return self._unpacked(stream, os.fstat(fd).st_size, scratch)

    def _unpacked(self, stream: BinaryIO, size: int, scratch: Path) -> BinaryIO:
        import tempfile

        with host_errors("cannot write to", scratch):
            scratch.mkdir(parents=True, exist_ok=True)
            out = tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115  it is the answer
        try:
            with host_errors("cannot write to", scratch):
                for piece in unpack(stream, size, self._where, self._bounds):
                    out.write(piece)
                out.flush()
        except BaseException:
            out.close()
            raise
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
