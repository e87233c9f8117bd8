"""The CD that brings user data: ISO 9660 (ECMA-119), as much of it as one file needs.

    sector 0-15  zero             18  path table, little-endian
    16  primary volume            19  path table, big-endian
    17  terminator                20  root directory      21…  the file

The layout of `linuxkit metadata create`: volume and file are both called `config`, in lower case and without the `;1`
of the standard, which every reader accepts. No Joliet, no Rock Ridge, no clock.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from linuxkit.encode import fields

SECTOR = 2048
ROOT, FILE = 20, 21
#: 1970-01-01 00:00:00 UTC, in the two forms of the standard
NO_TIME = bytes([70, 1, 1, 0, 0, 0, 0])
NO_DATE = b"0" * 16 + b"\0"
NAME = b"config"


def _both16(value: int) -> bytes:
    return fields.pack("<H", value) + fields.pack(">H", value)


def _both32(value: int) -> bytes:
    return fields.pack("<I", value) + fields.pack(">I", value)


def _record(name: bytes, sector: int, size: int, *, directory: bool) -> bytes:
    """A directory record (9.1)."""
    length = 33 + len(name) + (len(name) + 1) % 2
    record = bytes([length, 0]) + _both32(sector) + _both32(size) + NO_TIME
    record += bytes([2 if directory else 0, 0, 0]) + _both16(1) + bytes([len(name)]) + name
    return record.ljust(length, b"\0")


def _volume(sectors: int, table: int) -> bytes:
    """The primary volume descriptor (8.4)."""
    text = b"\x01CD001\x01\0" + b" " * 32 + NAME.ljust(32) + bytes(8) + _both32(sectors) + bytes(32)
    text += _both16(1) + _both16(1) + _both16(SECTOR) + _both32(table)
    text += fields.pack("<II", 18, 0) + fields.pack(">II", 19, 0)
    text += _record(b"\0", ROOT, SECTOR, directory=True)
    text += b" " * (128 * 4) + b" " * (37 * 3)
    return (text + NO_DATE * 4 + b"\x01\0").ljust(SECTOR, b"\0")


def config_image(content: bytes) -> bytes:
    """An image whose one file, `/config`, holds `content` (less than 4 GiB)."""
    length = -(-len(content) // SECTOR)
    little = b"\x01\0" + fields.pack("<I", ROOT) + fields.pack("<H", 1) + b"\0\0"
    big = b"\x01\0" + fields.pack(">I", ROOT) + fields.pack(">H", 1) + b"\0\0"
    directory = _record(b"\0", ROOT, SECTOR, directory=True) + _record(b"\1", ROOT, SECTOR, directory=True)
    directory += _record(NAME, FILE, len(content), directory=False)
    parts = [
        bytes(16 * SECTOR), _volume(FILE + length, len(little)), (b"\xffCD001\x01").ljust(SECTOR, b"\0"),
        little.ljust(SECTOR, b"\0"), big.ljust(SECTOR, b"\0"), directory.ljust(SECTOR, b"\0"),
        content.ljust(length * SECTOR, b"\0"),
    ]  # fmt: skip
    return b"".join(parts)


def write_config(path: Path, content: bytes) -> None:
    """Write such an image, whole or not at all, for its owner's eyes only."""
    with private_file(path) as out:
        out.write(config_image(content))


@contextmanager
def private_file(path: Path) -> Iterator[BinaryIO]:
    """A file that becomes `path` when the block ends well. Nobody but its owner can read it, at no moment.

    Raises:
        OSError: it cannot be written.
    """
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)  # one that a killed process left may have another mode, or be a link
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    try:
        with open(os.open(partial, flags, 0o600), "wb") as out:
            yield out
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
