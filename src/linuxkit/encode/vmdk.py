"""streamOptimized VMDK: the disk file of VMware that can be written and read from front to back, compressed.

    0 header | 1 descriptor | 128 { grain marker, grain }… table marker, table | … | directory marker, directory |
    footer marker, footer (a header) | end of stream                                     numbers of sectors of 512 bytes

A grain is 64 KiB of the disk, deflated (zlib), behind its sector and length; a table has the places of 512 grains, 0
for one that is not there; the directory those of the tables. Only the footer knows where the directory is.

Virtual Disk Format 5.0 (VMware), little-endian. What stands before sector 128 depends on the file's name, and what
stands behind it only on the disk: `head` and `body`.
"""

from __future__ import annotations

from collections.abc import Sequence

from linuxkit.encode import fields, libraries
from linuxkit.encode.content import Sink
from linuxkit.encode.pieces import Piece, size_of
from linuxkit.encode.sparse import compressed, runs
from linuxkit.entry import digest_of
from linuxkit.errors import InputError

#: Goes into cache keys: raise it when the bytes written for the same input change.
VERSION = 2
SECTOR = 512
GRAIN = 64 << 10
ENTRIES = 512  # of a table
#: Sectors before the first grain.
OVERHEAD = 128
#: Places and sizes are sectors in 32 bits.
MAX_SIZE = (1 << 41) - GRAIN
_AT_END = (1 << 64) - 1
_TABLE, _DIRECTORY, _FOOTER = 1, 2, 3
_DESCRIPTOR = 20  # sectors
_LEVEL = 6


def virtual_size(pieces: Sequence[Piece]) -> int:
    """The size of the disk in bytes: a whole number of grains.

    Raises:
        InputError: it is more than MAX_SIZE.
    """
    size = max(GRAIN, -(-size_of(pieces) // GRAIN) * GRAIN)
    if size > MAX_SIZE:
        raise InputError(f"a VMDK file can't hold a disk of {size} bytes", hint="at most 2 TiB")
    return size


def head(size: int, *, name: str, seed: str) -> bytes:
    """What stands before the grains.

    Args:
        size: what `virtual_size` says.
        name: of the file.
        seed: what the content's id is derived from.

    Raises:
        InputError: the name can't stand in the descriptor.
    """
    if any(ord(c) < 32 or c == '"' or 0xD800 <= ord(c) < 0xE000 for c in name):
        raise InputError(f"a VMDK can't name a file {name!r}", hint="give another --name")
    heads, sectors = 255, 63  # as every reader assumes for a SCSI adapter
    identity = int(digest_of([b"vmdk", seed.encode()])[7:15], 16) & 0x7FFFFFFF
    text = f"""\
# Disk DescriptorFile
version=1
encoding="UTF-8"
CID={identity:08x}
parentCID=ffffffff
createType="streamOptimized"

# Extent description
RW {size // SECTOR} SPARSE "{name}"

# The Disk Data Base
#DDB

ddb.adapterType = "pvscsi"
ddb.geometry.cylinders = "{min(65535, size // SECTOR // heads // sectors)}"
ddb.geometry.heads = "{heads}"
ddb.geometry.sectors = "{sectors}"
ddb.virtualHWVersion = "6"
""".encode()
    if len(text) > _DESCRIPTOR * SECTOR:
        raise InputError(f"the name '{name[:60]}…' is too long for a VMDK", hint="give a shorter --name")
    return (_header(size, _AT_END) + text).ljust(OVERHEAD * SECTOR, b"\0")


def body(pieces: Sequence[Piece], out: Sink, *, threads: int = 2) -> None:
    """Write what stands behind sector 128: grains, tables, footer.

    Args:
        threads: on which the bytes don't depend.

    Raises:
        InputError: the disk is too large. ImageError: a cached file became shorter.
    """
    size = virtual_size(pieces)
    per_table = GRAIN * ENTRIES
    directory = [0] * -(-size // per_table)
    table, current = [0] * ENTRIES, -1
    at = OVERHEAD

    def put(data: bytes) -> None:
        nonlocal at
        out.write(data.ljust(-(-len(data) // SECTOR) * SECTOR, b"\0"))
        at += -(-len(data) // SECTOR)

    def end_table() -> None:
        if any(table):
            directory[current] = at + 1
            put(_marker(_TABLE, 4 * ENTRIES) + fields.pack(f"<{ENTRIES}I", *table))
            table[:] = [0] * ENTRIES

    for number, packed in compressed(runs(pieces, GRAIN), GRAIN, libraries.deflate_block(_LEVEL), threads):
        if packed is None:
            continue
        if number // ENTRIES != current:
            end_table()
            current = number // ENTRIES
        if at >= 1 << 32:
            raise InputError("a VMDK file can't be larger than 2 TiB", hint="put less into it")
        table[number % ENTRIES] = at
        put(fields.pack("<QI", number * GRAIN // SECTOR, len(packed)) + packed)
    end_table()
    directory_at = at + 1
    put(_marker(_DIRECTORY, 4 * len(directory)) + fields.pack(f"<{len(directory)}I", *directory))
    put(_marker(_FOOTER, SECTOR) + _header(size, directory_at))
    put(bytes(SECTOR))


def _header(size: int, directory_at: int) -> bytes:
    flags = 1 << 17 | 1 << 16 | 1  # markers, compressed grains, a valid newline test
    return fields.pack(
        "<4sIIQQQQIQQQB4sH", b"KDMV", 3, flags, size // SECTOR, GRAIN // SECTOR, 1, _DESCRIPTOR, ENTRIES, 0,
        directory_at, OVERHEAD, 0, b"\n \r\n", 1,
    ).ljust(SECTOR, b"\0")  # fmt: skip


def _marker(kind: int, size: int) -> bytes:
    return fields.pack("<QII", -(-size // SECTOR), 0, kind).ljust(SECTOR, b"\0")
