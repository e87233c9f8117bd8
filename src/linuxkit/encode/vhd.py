"""VHD: the disk file of Azure, Hyper-V's first generation and Virtual PC.

    fixed     disk | footer
    dynamic   footer | header | block table | { bitmap of sectors | block of 2 MiB } | footer

The footer: "conectix" features version header-at time creator size size geometry type checksum id. The checksum is the
complement of the sum of all bytes. A block that holds nothing has no place in the table, but FFFFFFFF.

Virtual Hard Disk Image Format Specification 1.0 (Microsoft, 2006); numbers are big-endian. Practice adds two things.
The geometry can't name every size, and readers take the size from the footer only when they know who wrote it: hence
the creator "win ". And Azure wants a whole number of MiB.
"""

from __future__ import annotations

from collections.abc import Sequence

from linuxkit.encode import fields
from linuxkit.encode.pieces import Piece, literal, padded, size_of
from linuxkit.encode.sparse import runs, split
from linuxkit.entry import FIXED_MTIME, digest_of
from linuxkit.errors import InputError

MIB = 1 << 20
SECTOR = 512
BLOCK = 2 * MIB
#: The largest disk that every reader takes.
MAX_SIZE = 2040 << 30
_NOWHERE = (1 << 64) - 1
_FIXED, _DYNAMIC = 2, 3
_YEAR_2000 = 946684800


def fixed(pieces: Sequence[Piece], *, seed: str) -> list[Piece]:
    """A disk, made a whole number of MiB, and the footer behind it.

    Args:
        seed: what its id is derived from.

    Raises:
        InputError: the disk is too large.
    """
    size = virtual_size(pieces)
    return [*padded(pieces, size), literal(_footer(size, _FIXED, _NOWHERE, seed))]


def dynamic(pieces: Sequence[Piece], *, seed: str) -> list[Piece]:
    """A file with the blocks of a disk that hold anything.

    Args:
        seed: what its id is derived from.

    Raises:
        InputError: the disk is too large.
    """
    size = virtual_size(pieces)
    footer = _footer(size, _DYNAMIC, SECTOR, seed)
    blocks = -(-size // BLOCK)
    table = bytearray(b"\xff" * (-(-4 * blocks // SECTOR) * SECTOR))
    head = 3 * SECTOR + len(table)
    bitmap = literal(b"\xff" * (BLOCK // SECTOR // 8))
    step = (bitmap.size + BLOCK) // SECTOR
    at, body = head // SECTOR, list[Piece]()
    for run in runs(pieces, BLOCK):
        fields.pack_into(f">{run.blocks}I", table, 4 * run.first, *range(at, at + run.blocks * step, step))
        at += run.blocks * step
        for content in split(run.pieces, BLOCK):
            body += [bitmap, *content]
    header = _header(blocks)
    return [literal(footer + header + table), *body, literal(footer)]


def virtual_size(pieces: Sequence[Piece]) -> int:
    """The size of the disk in bytes: a whole number of MiB.

    Raises:
        InputError: it is more than MAX_SIZE.
    """
    size = max(MIB, -(-size_of(pieces) // MIB) * MIB)
    if size > MAX_SIZE:
        raise InputError(f"a VHD file can't hold a disk of {size} bytes", hint="at most 2040 GiB; vhdx can")
    return size


def geometry(sectors: int) -> tuple[int, int, int]:
    """(cylinders, heads, sectors per track) for a size, as the appendix of the specification computes them."""
    sectors = min(sectors, 65535 * 16 * 255)
    if sectors >= 65535 * 16 * 63:
        heads, per_track = 16, 255
    else:
        per_track = 17
        heads = max(4, -(-(sectors // per_track) // 1024))
        if sectors // per_track >= heads * 1024 or heads > 16:
            heads, per_track = 16, 31
        if sectors // per_track >= heads * 1024:
            heads, per_track = 16, 63
    return sectors // per_track // heads, heads, per_track


def _footer(size: int, kind: int, header_at: int, seed: str) -> bytes:
    identity = bytes.fromhex(digest_of([b"vhd", seed.encode()])[7:39])
    return _summed(64, fields.pack(
        ">8sIIQI4sI4sQQHBBII16sB", b"conectix", 2, 0x10000, header_at, FIXED_MTIME - _YEAR_2000, b"win ", 0xA0000,
        b"Wi2k", size, size, *geometry(size // SECTOR), kind, 0, identity, 0,
    ).ljust(SECTOR, b"\0"))  # fmt: skip


def _header(blocks: int) -> bytes:
    return _summed(36, fields.pack(
        ">8sQQIIII", b"cxsparse", _NOWHERE, 3 * SECTOR, 0x10000, blocks, BLOCK, 0,
    ).ljust(2 * SECTOR, b"\0"))  # fmt: skip


def _summed(at: int, data: bytes) -> bytes:
    """The data with its checksum."""
    return data[:at] + fields.pack(">I", ~sum(data) & 0xFFFFFFFF) + data[at + 4 :]
