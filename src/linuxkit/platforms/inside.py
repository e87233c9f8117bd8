"""One file's place in a file system: as much of FAT and ISO 9660 as finding an initrd takes.

Only files in the top folder that lie in one piece are found, which is how images are written. What cannot be read is
not there: the answer is used to choose an amount of memory, nothing more.
"""

from __future__ import annotations

import struct
from typing import BinaryIO

MAX_FOLDER = 1 << 20


def read_at(f: BinaryIO, at: int, size: int) -> bytes:
    """Bytes of a file from a place that its own content names; fewer or none where there are none."""
    if not 0 <= at < 1 << 62:
        return b""
    f.seek(at)
    return f.read(size)


def find_in_fat(f: BinaryIO, start: int, name: str) -> tuple[int, int] | None:
    """Where a file lies: its first byte and its size.

    Args:
        start: the byte at which the volume begins.
        name: eight and three characters, as the folder has them (Microsoft's FAT specification, section 6).
    """
    boot = read_at(f, start, 512)
    if len(boot) < 512 or boot[510:] != b"\x55\xaa":
        return None
    sector, per_cluster, reserved, tables, entries = struct.unpack_from("<HBHBH", boot, 11)
    size = struct.unpack_from("<H", boot, 22)[0] or struct.unpack_from("<I", boot, 36)[0]
    if sector not in (512, 1024, 2048, 4096) or not per_cluster or not size:
        return None
    folder = start + (reserved + tables * size) * sector
    data = folder + -(-entries * 32 // sector) * sector
    if not entries:  # FAT32: the top folder is a chain of clusters; its first one is looked at
        folder = data + (struct.unpack_from("<I", boot, 44)[0] - 2) * per_cluster * sector
        entries = per_cluster * sector // 32
    if folder < start:
        return None
    rows = read_at(f, folder, min(entries * 32, MAX_FOLDER))
    for n in range(0, len(rows) - 31, 32):
        if not rows[n]:
            return None
        if rows[n : n + 11] == name.encode() and not rows[n + 11] & 0x18:
            high, low, length = (*struct.unpack_from("<H", rows, n + 20), *struct.unpack_from("<HI", rows, n + 26))
            return _inside(f, data + ((high << 16 | low) - 2) * per_cluster * sector, length)
    return None


def find_in_iso(f: BinaryIO, name: str) -> tuple[int, int] | None:
    """Where a file lies: its first byte and its size (ECMA-119, 9.1). The name is without its version."""
    volume = read_at(f, 16 * 2048, 2048).ljust(2048, b"\0")
    where, size = struct.unpack_from("<I4xI", volume, 156 + 2)
    rows = read_at(f, where * 2048, min(size, MAX_FOLDER))
    at = 0
    while at + 34 <= len(rows):
        if not rows[at]:  # the rest of a sector
            at += 2048 - at % 2048
            continue
        length = rows[at + 32]
        found = rows[at + 33 : at + 33 + length].split(b";")[0].rstrip(b".")
        if found.upper() == name.encode() and not rows[at + 25] & 2:
            sector, count = struct.unpack_from("<I4xI", rows, at + 2)
            return _inside(f, sector * 2048, count)
        at += rows[at]
    return None


def _inside(f: BinaryIO, at: int, size: int) -> tuple[int, int] | None:
    return (at, size) if size and at >= 0 and at + size <= f.seek(0, 2) else None
