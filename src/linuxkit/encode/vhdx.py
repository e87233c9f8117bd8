"""VHDX: the disk file of Hyper-V.

    0 file type | 64K header | 128K header | 192K region table | 256K region table | 1M log, empty | 2M metadata |
    3M block table | blocks                                                   blocks and regions in whole MiB

Virtual Hard Disk v2 (VHDX) File Format, [MS-VHDX] 8.0; little-endian. Checksums are CRC-32C. An entry of the block
table is a place in the file, in MiB from bit 20 on, and a state: 6 present, 2 zeros. After the entries of each *chunk*
of 4 GiB stands one for a bitmap that only differencing disks have. Blocks have 1 MiB, more for a disk of more than
64 GiB.
"""

from __future__ import annotations

from collections.abc import Sequence

from linuxkit.encode import fields
from linuxkit.encode.crc32c import crc32c
from linuxkit.encode.gpt import guid_bytes
from linuxkit.encode.pieces import Piece, hole, literal, padded, size_of
from linuxkit.encode.sparse import runs
from linuxkit.entry import digest_of
from linuxkit.errors import InputError

KIB, MIB = 1 << 10, 1 << 20
SECTOR = 512
MAX_SIZE = 64 << 40
#: Blocks get larger until there are no more than that.
BLOCKS = 65536
_MAX_BLOCK = 256 * MIB
#: The table's entries for data between two entries for bitmaps, times the size of a block.
_CHUNK = (1 << 23) * SECTOR
_ZERO, _PRESENT = 2, 6
_BAT, _METADATA = "2dc27766-f623-4200-9d64-115e9bfd4a08", "8b7ca206-4790-4b9a-b8fe-575f050f886e"
_FILE_PARAMETERS = "caa16737-fa36-4d43-b3b6-33f0aa44e76b"
_DISK_SIZE = "2fa54224-cd1b-4876-b211-5dbed83bf4b8"
_DISK_ID = "beca12ab-b2e6-4523-93ef-c309e000c746"
_LOGICAL_SECTOR = "8141bf1d-a96f-4709-ba47-f233a8faab5f"
_PHYSICAL_SECTOR = "cda348c7-445d-4471-9cc9-e9885251c556"


def image(pieces: Sequence[Piece], *, seed: str) -> list[Piece]:
    """A dynamic VHDX file with the blocks of a disk that hold anything.

    Args:
        seed: what its identifiers are derived from.

    Raises:
        InputError: the disk is larger than the format allows.
    """
    size = -(-size_of(pieces) // SECTOR) * SECTOR
    if size > MAX_SIZE:
        raise InputError(f"a VHDX file can't hold a disk of {size} bytes", hint="at most 64 TiB")
    block = MIB
    while block < _MAX_BLOCK and size > block * BLOCKS:
        block *= 2
    blocks = max(1, -(-size // block))
    per_chunk = _CHUNK // block
    entries = [_ZERO] * blocks
    table_size = -(-8 * (blocks + (blocks - 1) // per_chunk) // MIB) * MIB
    at, body = 3 * MIB + table_size, list[Piece]()
    for run in runs(pieces, block):
        entries[run.first : run.first + run.blocks] = [at + n * block | _PRESENT for n in range(run.blocks)]
        at += run.blocks * block
        body += run.pieces
    table = bytearray()
    for first in range(0, blocks, per_chunk):
        part = entries[first : first + per_chunk]
        table += fields.pack(f"<{len(part)}Q", *part)
        if first + per_chunk < blocks:
            table += bytes(8)
    regions = literal(_regions(table_size))
    return [
        *padded([literal(b"vhdxfile" + "linuxkit".encode("utf-16-le"))], 64 * KIB),
        *padded([literal(_header(0, seed))], 64 * KIB),
        *padded([literal(_header(1, seed))], 64 * KIB),
        regions, regions, hole(2 * MIB - 320 * KIB),
        *padded(_metadata(size, block, seed), MIB),
        *padded([literal(bytes(table))], table_size),
        *body,
    ]  # fmt: skip


def _guid(seed: str, name: str) -> bytes:
    digits = digest_of([b"vhdx", seed.encode(), name.encode()])[7:39]
    return guid_bytes(f"{digits[:8]}-{digits[8:12]}-8{digits[13:16]}-8{digits[17:20]}-{digits[20:]}")


def _summed(data: bytes) -> bytes:
    """A structure with its checksum at its fifth byte."""
    return data[:4] + fields.pack("<I", crc32c(data)) + data[8:]


def _header(sequence: int, seed: str) -> bytes:
    written, data, log = _guid(seed, "file"), _guid(seed, "data"), bytes(16)  # no log: nothing to replay
    return _summed(fields.pack(
        "<4sIQ16s16s16sHHIQ", b"head", 0, sequence, written, data, log, 0, 1, MIB, MIB,
    ).ljust(4096, b"\0"))  # fmt: skip


def _regions(table_size: int) -> bytes:
    rows = (_BAT, 3 * MIB, table_size), (_METADATA, 2 * MIB, MIB)
    table = b"".join(fields.pack("<16sQII", guid_bytes(guid), at, length, 1) for guid, at, length in rows)
    return _summed((fields.pack("<4sIII", b"regi", 0, len(rows), 0) + table).ljust(64 * KIB, b"\0"))


def _metadata(size: int, block: int, seed: str) -> list[Piece]:
    """The table of items, and these behind it. Flags: 2 about the disk, 4 must be understood."""
    items = (
        (_FILE_PARAMETERS, 4, fields.pack("<II", block, 0)),
        (_DISK_SIZE, 6, fields.pack("<Q", size)),
        (_DISK_ID, 6, _guid(seed, "disk")),
        (_LOGICAL_SECTOR, 6, fields.pack("<I", SECTOR)),
        (_PHYSICAL_SECTOR, 6, fields.pack("<I", 4096)),
    )
    rows, body = b"", b""
    for guid, flags, content in items:
        rows += fields.pack("<16sIIII", guid_bytes(guid), 64 * KIB + len(body), len(content), flags, 0)
        body += content
    head = fields.pack("<8sHH20x", b"metadata", 0, len(items)) + rows
    return [*padded([literal(head)], 64 * KIB), literal(body)]
