"""qcow2, version 3: QEMU's disk file, of which a cluster that holds nothing takes no room.

    0 header | refcount table | refcount blocks | L1 table | L2 tables | clusters of data      all in clusters of 64 KiB

The layout when nothing is compressed. With compression the data is not aligned, and what depends on its length
comes behind it:

    0 header | compressed clusters | L2 tables | L1 table | refcount blocks | refcount table

Specification: docs/interop/qcow2.txt of QEMU 7.2. Numbers are big-endian. An L1 entry leads to an L2 table with the
places of 8192 clusters, bit 63 set because nothing else refers to them; that of a compressed one has bit 62, its length
in sectors less one from bit 54 on, and its place, to the byte, in the rest. Reference counts have 16 bits.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from typing import BinaryIO

from linuxkit.encode import fields, libraries
from linuxkit.encode.pieces import Piece, literal, size_of
from linuxkit.encode.sparse import compressed, runs
from linuxkit.errors import InputError

#: Goes into cache keys: raise it when the bytes written for the same input change.
VERSION = 1
BITS = 16
CLUSTER = 1 << BITS
ENTRIES = CLUSTER // 8  # of an L2 table
#: --qcow2-compress: the number of the compression type.
TYPES = {"zlib": 0, "zstd": 1}
#: The largest disk: its L1 table has 1 MiB. QEMU would open larger ones.
MAX_SIZE = 1 << 46
_COPIED, _COMPRESSED = 1 << 63, 1 << 62
_HEADER = 112
_ZLIB_LEVEL, _ZSTD_LEVEL = 6, 3


def image(pieces: Sequence[Piece]) -> list[Piece]:
    """A qcow2 file around a disk, its clusters as they are.

    Raises:
        InputError: the disk is larger than MAX_SIZE.
    """
    size = _virtual_size(pieces)
    found = runs(pieces, CLUSTER)
    tables = sorted({n // ENTRIES for run in found for n in _tables(run.first, run.blocks)})
    l1_clusters = _clusters(8 * _l1_entries(size))
    data = sum(run.blocks for run in found)
    fixed = 1 + l1_clusters + len(tables) + data
    blocks, table_clusters = _refcounts(fixed)
    l1_at = (1 + table_clusters + blocks) * CLUSTER
    l2_at = l1_at + l1_clusters * CLUSTER
    at = data_at = l2_at + len(tables) * CLUSTER
    filled = {n: bytearray(CLUSTER) for n in tables}
    for run in found:
        _fill(filled, run.first, range(at | _COPIED, (at + run.blocks * CLUSTER) | _COPIED, CLUSTER))
        at += run.blocks * CLUSTER
    head = [
        _header(size, l1_at, CLUSTER, table_clusters, ""),
        _table(CLUSTER * (1 + table_clusters), blocks, table_clusters),
        _counts(fixed + blocks + table_clusters, blocks),
        _l1(size, tables, l2_at).ljust(l1_clusters * CLUSTER, b"\0"),
        *map(bytes, filled.values()),
    ]
    assert sum(map(len, head)) == data_at
    return [*map(literal, head), *(piece for run in found for piece in run.pieces)]


def compress(pieces: Sequence[Piece], out: BinaryIO, *, kind: str, threads: int = 2) -> None:
    """Write a qcow2 file with compressed clusters.

    Args:
        out: an empty file; the header is written last.
        kind: zlib, which every version of QEMU reads, or zstd, which takes 5.1.
        threads: on which the bytes don't depend.

    Raises:
        InputError: the disk is larger than MAX_SIZE. ImageError: a cached file became shorter.
    """
    size = _virtual_size(pieces)
    out.write(bytes(CLUSTER))
    at = CLUSTER
    filled: dict[int, bytearray] = {}
    counts = bytearray()
    make = _compressor(kind)
    for number, packed in compressed(runs(pieces, CLUSTER), CLUSTER, lambda data: (make(data), data), threads):
        if packed is None:
            continue
        content, plain = packed
        entry = 0
        if len(content) >= CLUSTER:  # not smaller: as it is, in a cluster of its own
            out.write(bytes(-at % CLUSTER))
            at += -at % CLUSTER
            content, entry = plain, at | _COPIED
        else:
            sectors = (at + len(content) - 1) // 512 - at // 512
            entry = _COMPRESSED | sectors << 62 - (BITS - 8) | at
        _fill(filled, number, range(entry, entry + 1))
        _count(counts, at, len(content))
        out.write(content)
        at += len(content)
    out.write(bytes(-at % CLUSTER))
    at += -at % CLUSTER
    l2_at = at
    for table in filled.values():
        out.write(table)
    l1 = _l1(size, list(filled), l2_at)
    l1_at = l2_at + len(filled) * CLUSTER
    l1_clusters = _clusters(len(l1))
    out.write(l1.ljust(l1_clusters * CLUSTER, b"\0"))
    fixed = l1_at // CLUSTER + l1_clusters
    blocks, table_clusters = _refcounts(fixed)
    ends = _counts(fixed + blocks + table_clusters, blocks)
    out.write(ends[:2] + counts.ljust(l2_at // CLUSTER * 2 - 2, b"\0") + ends[l2_at // CLUSTER * 2 :])
    out.write(_table(fixed * CLUSTER, blocks, table_clusters))
    out.seek(0)
    out.write(_header(size, l1_at, (fixed + blocks) * CLUSTER, table_clusters, kind))
    out.seek(0, 2)


def _virtual_size(pieces: Iterable[Piece]) -> int:
    size = -(-size_of(pieces) // 512) * 512
    if size > MAX_SIZE:
        raise InputError(f"a qcow2 file can't hold a disk of {size} bytes", hint="at most 64 TiB")
    return size


def _header(size: int, l1_at: int, counts_at: int, count_clusters: int, kind: str) -> bytes:
    incompatible = 1 << 3 if TYPES.get(kind) else 0
    return fields.pack(
        ">4sIQIIQIIQQIIQQQQIIB7x8x", b"QFI\xfb", 3, 0, 0, BITS, size, 0, _l1_entries(size), l1_at, counts_at,
        count_clusters, 0, 0, incompatible, 0, 0, 4, _HEADER, TYPES.get(kind, 0),
    ).ljust(CLUSTER, b"\0")  # fmt: skip


def _l1_entries(size: int) -> int:
    return max(1, -(-size // (CLUSTER * ENTRIES)))


def _l1(size: int, tables: Sequence[int], l2_at: int) -> bytes:
    table = bytearray(8 * _l1_entries(size))
    for n, index in enumerate(tables):
        fields.pack_into(">Q", table, 8 * index, (l2_at + n * CLUSTER) | _COPIED)
    return bytes(table)


def _tables(first: int, count: int) -> Iterable[int]:
    """A cluster of each L2 table that a run has entries in."""
    return [*range(first, first + count, ENTRIES), first + count - 1]


def _fill(filled: dict[int, bytearray], first: int, entries: range) -> None:
    """Put the entries of neighbouring clusters into the L2 tables."""
    while entries:
        index, at = divmod(first, ENTRIES)
        part, entries = entries[: ENTRIES - at], entries[ENTRIES - at :]
        table = filled.setdefault(index, bytearray(CLUSTER))
        fields.pack_into(f">{len(part)}Q", table, 8 * at, *part)
        first += len(part)


def _clusters(size: int) -> int:
    return -(-size // CLUSTER)


def _refcounts(clusters: int) -> tuple[int, int]:
    """How many refcount blocks and clusters of their table it takes to count some clusters, and these."""
    blocks = table = 0
    while (need := _clusters(2 * (clusters + blocks + table))) > blocks or _clusters(8 * blocks) > table:
        blocks, table = need, _clusters(8 * need)
    return blocks, table


def _table(first_at: int, blocks: int, clusters: int) -> bytes:
    places = range(first_at, first_at + blocks * CLUSTER, CLUSTER)
    return fields.pack(f">{blocks}Q", *places).ljust(clusters * CLUSTER, b"\0")


def _counts(clusters: int, blocks: int) -> bytes:
    return (b"\0\1" * clusters).ljust(blocks * CLUSTER, b"\0")


def _count(counts: bytearray, at: int, size: int) -> None:
    """One reference more for each cluster that a compressed one lies in; `counts` begins behind the header."""
    first, last = at // CLUSTER - 1, (at + size - 1) // CLUSTER - 1
    counts.extend(bytes(max(0, 2 * (last + 1) - len(counts))))
    for n in range(first, last + 1):
        fields.pack_into(">H", counts, 2 * n, struct.unpack_from(">H", counts, 2 * n)[0] + 1)


def library(kind: str) -> str:
    """The version of what compresses: another one may give other bytes."""
    return libraries.version({"zlib": "deflate"}.get(kind, kind))


def _compressor(kind: str) -> Callable[[bytes], bytes]:
    if kind == "zlib":
        return libraries.deflate_block(_ZLIB_LEVEL, -12, 9)  # a window of 4 KiB, as the format has it
    return libraries.zstd_block(_ZSTD_LEVEL)
