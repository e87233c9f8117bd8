"""What is in an archive for Google's cloud: gzip( tar header of disk.raw | the disk | zeros ), see encode/gcp."""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from linuxkit.errors import InputError
from linuxkit.foreign import number
from linuxkit.platforms import bootimage

GIB = 1 << 30
PEEK = bootimage.LOOK + (4 << 20)  # of the disk: what starts it is there
CHUNK = 1 << 18
_BUILD = "linuxkit build --format gcp FILE.yml"


@dataclass(frozen=True, slots=True)
class Disk:
    """The disk in an archive: its size in bytes, what can start it, its processor as QEMU has it or empty."""

    size: int
    bios: bool
    uefi: bool
    arch: str


def look(path: Path) -> Disk:
    """What is in an archive; only its start is unpacked.

    Raises:
        InputError: it is no archive that Google takes.
    """
    stream = _unpacked(path)
    try:
        head = b""
        while len(head) < 512:
            head += next(stream)
        header, rest = head[:512], head[512:]
        field = header[124:136]
        size = int.from_bytes(field[1:], "big") if field[0] & 0x80 else number(field.rstrip(b" \0"), 8)
        if header[:100].rstrip(b"\0") != b"disk.raw" or header[257:262] != b"ustar":
            raise ValueError
    except (StopIteration, ValueError, zlib.error):
        raise InputError(f"{path} is not a gzip archive with one file, disk.raw", hint=_BUILD) from None
    if size % GIB or not size:
        raise InputError(f"{path}: the disk in it has {size} bytes, and Google takes whole GiB", hint=_BUILD)
    with tempfile.TemporaryDirectory(prefix="linuxkit-") as folder:
        start = Path(folder) / "disk.raw"
        with start.open("wb") as out:
            try:
                while out.tell() < min(PEEK, size):
                    out.write(rest)
                    rest = next(stream)
            except (StopIteration, zlib.error):
                raise InputError(f"{path} is damaged: it ends in the middle of the disk", hint=_BUILD) from None
        found = bootimage.look(start)
    if found.media is not bootimage.Media.DISK or not (found.bios or found.uefi):
        raise InputError(f"{path}: the disk in it can't be started", hint=_BUILD)
    return Disk(size, found.bios, found.uefi, found.arch)


def _unpacked(path: Path) -> Iterator[bytes]:
    """The bytes of a gzip file of any number of members."""
    unpacker = zlib.decompressobj(31)
    try:
        with path.open("rb") as f:
            data = f.read(CHUNK)
            while data:
                yield unpacker.decompress(data, CHUNK)
                data = unpacker.unconsumed_tail or unpacker.unused_data
                if unpacker.eof:
                    unpacker = zlib.decompressobj(31)
                data = data or f.read(CHUNK)
    except OSError as e:
        raise InputError(f"{path} cannot be read: {e.strerror or e}") from e
