"""One node of a root filesystem, and where its bytes come from. Knows no format, no image, no host path.

An Entry never touches the host's filesystem: its content is a Source, which can be opened again and again, so that
a writer may take two passes without a temporary directory.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import BinaryIO, Protocol


class Kind(StrEnum):
    """Kind of a node; the values are the letters of `find -type`, plus h for a hard link."""

    FILE = "f"
    DIRECTORY = "d"
    SYMLINK = "l"
    HARDLINK = "h"
    CHAR = "c"
    BLOCK = "b"
    FIFO = "p"


class Source(Protocol):
    """The bytes of a file, replayable."""

    @property
    def size(self) -> int:
        """Length in bytes, known without reading."""

    def open(self) -> BinaryIO:
        """A fresh reader that yields exactly `size` bytes; the caller closes it."""


@dataclass(frozen=True, slots=True)
class Bytes:
    """A Source held in memory, for small generated files."""

    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    def open(self) -> BinaryIO:
        return io.BytesIO(self.data)


@dataclass(frozen=True, slots=True)
class Extent:
    """A Source that is a run of bytes in a file on disk: `size` bytes from `offset` of `file`.

    Writers that can hand descriptors to the kernel (sendfile, copy_file_range) may look at the fields directly.
    """

    file: str
    offset: int
    size: int

    def open(self) -> BinaryIO:
        raw = open(self.file, "rb")  # noqa: SIM115  the caller closes it
        raw.seek(self.offset)
        return raw if self.size < 0 else _Window(raw, self.size)  # type: ignore[return-value]


class _Window(io.RawIOBase):
    """The next `left` bytes of `raw`, and no more."""

    def __init__(self, raw: BinaryIO, left: int) -> None:
        self._raw, self._left = raw, left

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        want = min(len(buffer), self._left)
        got: int = self._raw.readinto(memoryview(buffer)[:want])  # type: ignore[attr-defined]
        self._left -= got
        return got

    def close(self) -> None:
        self._raw.close()
        super().close()


@dataclass(frozen=True, slots=True)
class Entry:
    """One node.

    path    relative, `/`-joined, normalised: no leading `/`, no `.`, `..` or empty part. Undecodable bytes are
            kept with surrogateescape.
    mode    permission bits only (0o7777), never the file type.
    mtime   seconds since the epoch.
    target  of a symlink: the text as is; of a hard link: the `path` of the entry it names.
    device  (major, minor) of a device node.
    xattrs  sorted (name, value) pairs.
    source  content, files only (None means empty).
    origin  (source, location) for the LINUXKIT.source and LINUXKIT.location PAX records.
    implied a directory that nothing names, but that stands above something: Linux needs it in an initrd, and archives
            leave it out, as their readers make it.
    """

    path: str
    kind: Kind
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    target: str = ""
    device: tuple[int, int] = (0, 0)
    xattrs: tuple[tuple[str, bytes], ...] = ()
    source: Source | None = None
    origin: tuple[str, str] = field(default=("", ""))
    implied: bool = False

    @property
    def size(self) -> int:
        return self.source.size if self.source is not None and self.kind is Kind.FILE else 0


#: Time of everything the builder itself makes: 2017-04-18 16:30:00 UTC, LinuxKit's own constant.
FIXED_MTIME = 1492533000


def read_all(source: Source | None, limit: int) -> bytes:
    """The whole content of a small source.

    Raises:
        ValueError: it is larger than `limit` bytes.
    """
    if source is None:
        return b""
    if source.size > limit:
        raise ValueError(f"{source.size} bytes is over the limit of {limit}")
    with source.open() as stream:
        return stream.read()


def digest_of(parts: Iterable[bytes]) -> str:
    """`sha256:<hex>` of some byte strings, each length-prefixed so that their borders count."""
    h = hashlib.sha256()
    for part in parts:
        h.update(len(part).to_bytes(8, "big"))
        h.update(part)
    return f"sha256:{h.hexdigest()}"
