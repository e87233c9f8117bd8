"""cpio archives in the "new ASCII" format, as Linux unpacks them for an initramfs. Written, not read.

Specification: Documentation/driver-api/early-userspace/buffer-format.rst in Linux; cpio(5), "New ASCII Format".

    archive  = run header "TRAILER!!!" NUL pad4 pad512
    run      = { header name NUL pad4 data pad4 }
    header   = "070701" then 13 fields of 8 hex digits:
               ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check

An initramfs holds no hard links here: like LinuxKit, a hard link becomes a relative symlink. Extended attributes have
no place in the format and are left out. The numbers are LinuxKit's: inodes from 721, device 3:1, two links for a
directory.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable

from linuxkit.encode import fields
from linuxkit.encode.content import CHUNK, Reader, Sink
from linuxkit.entry import MAX_PATH, Entry, Kind
from linuxkit.errors import LinuxkitError

#: Goes into cache keys: raise it when the bytes written for the same entries change.
VERSION = 1
FIRST_INODE = 721
MAX_FILE = 0xFFFFFFFF
_TYPES = {
    Kind.FILE: 0o100000, Kind.DIRECTORY: 0o040000, Kind.SYMLINK: 0o120000, Kind.HARDLINK: 0o120000,
    Kind.CHAR: 0o020000, Kind.BLOCK: 0o060000, Kind.FIFO: 0o010000,
}  # fmt: skip
_HEADER = b"070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%b\0"
_END = b"TRAILER!!!"
_ZEROS = bytes(512)


def write(entries: Iterable[Entry], out: Sink) -> int:
    """Write one whole archive and return its length in bytes, always a multiple of 512.

    A time that 32 bits without a sign can't hold becomes the nearest that they can. Extended attributes are left out.

    Raises:
        LinuxkitError, ImageError: as `write_run`.
    """
    total = write_run(entries, out)
    end = trailer(total)
    out.write(end)
    return total + len(end)


def trailer(total: int) -> bytes:
    """What ends an archive whose runs have `total` bytes."""
    end = bytes(_header_of(0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, _END))
    return end + _ZEROS[: -(total + len(end)) % 512]


def write_run(entries: Iterable[Entry], out: Sink) -> int:
    """Write members without the end of an archive, and return their length in bytes, always a multiple of 4.

    Raises:
        LinuxkitError: a file of 4 GiB or more, or anything else that the format can't say.
        ImageError: a source ended early, or an entry that Linux can't have.
    """
    pending = bytearray()
    total = 0
    inode = FIRST_INODE
    with Reader() as reader:
        for entry in entries:
            name = member_name(entry.path)
            if not name:
                continue  # the root itself exists already
            source, link = None, b""
            if entry.kind is Kind.FILE:
                source = entry.source
            elif entry.kind is Kind.SYMLINK:
                link = _bytes(entry.target)
            elif entry.kind is Kind.HARDLINK:
                link = _bytes(relative(entry.path, entry.target))
            if len(link) > MAX_PATH:
                raise LinuxkitError(f"{entry.path[:80]}… links to {len(link)} bytes: Linux takes {MAX_PATH}")
            size = source.size if source is not None else len(link)
            pending += _header(entry, name, inode, size)
            pending += link
            inode += 1
            if source is not None:
                for piece in reader.pieces(source):
                    pending += piece
                    if len(pending) >= CHUNK:
                        out.write(bytes(pending))
                        total += len(pending)
                        pending.clear()
            pending += _ZEROS[: -(total + len(pending)) % 4]
    out.write(bytes(pending))
    return total + len(pending)


def memory(entries: Iterable[Entry]) -> int:
    """Bytes of memory that an archive of these fills when Linux has unpacked it: its own length, or its files in whole
    pages of 4 KiB, whichever is more."""
    length = pages = 0
    for entry in entries:
        size = entry.size or len(_bytes(entry.target))
        length += 110 + len(_bytes(entry.path)) + 4 + size
        pages += -(-entry.size // 4096) * 4096
    return max(length, pages)


def member_name(path: str) -> bytes:
    """How a path is written: without the `..` and doubled `/` that a path of `files:` may carry, which the kernel would
    resolve from its root to the same place. Empty for the root itself."""
    if "//" in path or path.startswith((".", "/")) or "/." in path:
        path = posixpath.normpath("/" + path).lstrip("/")
    return _bytes(path)


def relative(path: str, target: str) -> str:
    """The symlink text at `path` that leads to `target`, both from the root: what a hard link becomes."""
    return posixpath.relpath("/" + target, posixpath.dirname("/" + path))


def _header(entry: Entry, name: bytes, inode: int, size: int) -> bytes:
    fields.checked(entry, names=True)
    if size > MAX_FILE:
        raise LinuxkitError(
            f"{entry.path} has {size} bytes: an initrd holds files under 4 GiB only",
            hint="leave it out of the image, or put it on a disk",
        )
    if name == _END:
        raise LinuxkitError(f"{entry.path[:200]} has the name that ends an initrd", hint="rename it")
    if len(name) > MAX_PATH:
        raise LinuxkitError(f"{entry.path[:80]}… has {len(name)} bytes: of an initrd, Linux takes {MAX_PATH}")
    directory = entry.kind is Kind.DIRECTORY
    mode = _TYPES[entry.kind] | (0o777 if entry.kind is Kind.HARDLINK else entry.mode & 0o7777)
    major, minor = entry.device
    mtime = min(max(entry.mtime, 0), MAX_FILE)
    return _header_of(inode, mode, entry.uid, entry.gid, 2 if directory else 1, mtime, size, 3, 1, major, minor, name)


def _header_of(*values: int | bytes) -> bytes:
    """The fields up to the device numbers, and the name. `%08X` widens for what is larger: each is looked at first."""
    *numbers, name = values
    for value in numbers:
        fields.number(value, 32)  # type: ignore[arg-type]
    return _pad4(_HEADER % (*numbers, len(name) + 1, 0, name))  # type: ignore[arg-type]


def _pad4(data: bytes) -> bytes:
    return data + _ZEROS[: -len(data) % 4]


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
