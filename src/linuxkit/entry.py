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


#: What Linux has room for: device numbers of 12 and 20 bits, owners of 32; paths, names and attributes in bytes.
MAX_MAJOR, MAX_MINOR = (1 << 12) - 1, (1 << 20) - 1
MAX_ID = (1 << 32) - 1
MAX_MODE = 0o7777
MAX_PATH, MAX_NAME = 4095, 255
MAX_XATTR_NAME, MAX_XATTR, MAX_XATTRS = 255, 64 << 10, 128
MAX_SIZE = (1 << 63) - 1
#: Times that everything here can count with: some 34 thousand years each way. No file system holds more.
MAX_TIME = 1 << 40


def fault(entry: Entry, most: int = MAX_ID) -> str:
    """What Linux can't have of an entry, as the rest of a sentence that begins with its path; empty when all is well.

    Where an Entry is made from foreign bytes, and where one is written, this is asked: a number that is too large for
    its field must not get as far as an archive, which it would shift.

    Args:
        most: the highest owner's number; tar has room for more than Linux.
    """
    if not (0 <= entry.uid <= most and 0 <= entry.gid <= most):
        return f"belongs to user {entry.uid}, group {entry.gid}: Linux has numbers up to {MAX_ID}, of 32 bits"
    if entry.device != (0, 0):
        major, minor = entry.device
        if not (0 <= major <= MAX_MAJOR and 0 <= minor <= MAX_MINOR):
            return f"is a device {major}:{minor}: Linux has none over {MAX_MAJOR}:{MAX_MINOR}"
    if not 0 <= entry.mode <= MAX_MODE:
        return f"has the mode {entry.mode}: permissions are 0 to 07777"
    if not -MAX_TIME <= entry.mtime <= MAX_TIME:
        return f"is dated {entry.mtime} seconds from 1970: {MAX_TIME} is the most"
    if not 0 <= entry.size <= MAX_SIZE:
        return f"has a size of {entry.size} bytes"
    return _fault_of_names(entry)


def _fault_of_names(entry: Entry) -> str:
    links = entry.kind in (Kind.SYMLINK, Kind.HARDLINK)
    if "\0" in entry.path or (links and "\0" in entry.target):
        return "has a NUL byte in its name or target"
    if links and not entry.target:
        return "is a link to nothing"
    if links and len(entry.target) > 1000 and len(entry.target.encode("utf-8", "surrogateescape")) > MAX_PATH:
        return f"is a link to more than {MAX_PATH} bytes"
    if len(entry.xattrs) > MAX_XATTRS:
        return f"has {len(entry.xattrs)} extended attributes: {MAX_XATTRS} are the most"
    for name, value in entry.xattrs:
        raw = name.encode("utf-8", "surrogateescape")
        if not 0 < len(raw) <= MAX_XATTR_NAME or b"\0" in raw or len(value) > MAX_XATTR:
            return f"has an extended attribute that is too long: {len(raw)} bytes of name, {len(value)} of value"
    return ""


def long_name(path: str) -> str:
    """The same for a path that is too long for Linux; a writer of a format with limits of its own names these."""
    if len(path) > 60:  # shorter ones can't be, at four bytes a character
        raw = path.encode("utf-8", "surrogateescape")
        if len(raw) > MAX_PATH or max(map(len, raw.split(b"/"))) > MAX_NAME:
            return f"has too long a name: a path has at most {MAX_PATH} bytes, {MAX_NAME} between two slashes"
    return ""


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
