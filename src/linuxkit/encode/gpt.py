"""The GUID partition table.

    0 protective MBR | 1 header | 2…33 entries | partitions, at multiples of 1 MiB | entries | header

UEFI 2.10, section 5. Header: "EFI PART" revision size crc 0 here there first last disk-guid entries count size crc.
Every GUID is derived from the seed and the partition's number, so that `partition_guid` tells it in advance.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from typing import NamedTuple

from linuxkit.encode import fields, mbr
from linuxkit.encode.pieces import Piece, literal, padded, size_of
from linuxkit.entry import digest_of
from linuxkit.errors import FieldError

#: Types of partitions (the last four: the Discoverable Partitions Specification).
ESP = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
LINUX = "0fc63daf-8483-4772-8e79-3d69d8477de4"
BIOS_BOOT = "21686148-6449-6e6f-744e-656564454649"
ROOT = {"amd64": "4f68bce3-e8cd-4db1-96e7-fbcaf984b709", "arm64": "b921b045-1df0-41c3-af44-4c6f280d3fae",
        "riscv64": "72ec70a6-cf74-40e6-bd49-4bda08e8f224"}  # fmt: skip
VERITY = {"amd64": "2c7357ed-ebd2-46d9-aec1-23d437ec2bf5", "arm64": "df3300ce-d69f-4c92-978c-9bfb0f38d820",
          "riscv64": "b6ed5582-440b-4209-b8da-5ff7c419ea3d"}  # fmt: skip
#: Attributes: needed by the platform; a BIOS may boot from it.
REQUIRED, LEGACY_BOOT = 1 << 0, 1 << 2
ENTRIES, ENTRY = 128, 128
_GUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


class Partition(NamedTuple):
    """A partition. `guid` is derived when it is empty; `name` has at most 36 UTF-16 units."""

    pieces: Sequence[Piece]
    type: str
    name: str = ""
    attributes: int = 0
    guid: str = ""


def disk_guid(seed: str) -> str:
    """The GUID of a disk."""
    return _guid(seed, 0)


def partition_guid(seed: str, number: int) -> str:
    """The GUID of a disk's partition, counted from 1: what `root=PARTUUID=` names."""
    return _guid(seed, number)


def _guid(seed: str, number: int) -> str:
    digits = digest_of([b"gpt", seed.encode(), b"%d" % number])[7:39]
    variant = "89ab"[int(digits[16], 16) & 3]
    # version 8: made in a way of one's own (RFC 9562)
    return f"{digits[:8]}-{digits[8:12]}-8{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


def guid_bytes(guid: str) -> bytes:
    """A GUID as it stands on disk: its first three fields little-endian.

    Raises:
        FieldError: it isn't one.
    """
    if not _GUID.fullmatch(guid):
        raise FieldError(f"{guid[:60]!r} is not a GUID")
    a, b, c, d, e = (bytes.fromhex(part) for part in guid.split("-"))
    return a[::-1] + b[::-1] + c[::-1] + d + e


def disk(
    partitions: Sequence[Partition],
    *,
    seed: str,
    code: bytes = b"",
    size: int = 0,
    unit: int = 1,
    sector: int = 512,
    hybrid: Sequence[mbr.Slot] = (),
) -> list[Piece]:
    """A disk with the partitions in this order.

    Args:
        seed: what GUIDs and the MBR's signature are derived from.
        code: boot code for the MBR, at most 440 bytes.
        size: of the disk in bytes; 0 is as small as its content, in whole MiB.
        unit: its size is a multiple of that, and is made larger where it isn't.
        sector: the disk's sector size in bytes, 512 or 4096.
        hybrid: partitions that the MBR shows, too, in its sectors: before the one that protects the rest.

    Raises:
        InputError: the partitions don't fit into `size`.
        FieldError: a name is too long, there are too many partitions, or one is empty.
    """
    if len(partitions) > ENTRIES:
        raise FieldError(f"{len(partitions)} partitions don't fit into a GPT of {ENTRIES}")
    contents = [padded(p.pieces, -(-size_of(p.pieces) // sector) * sector) for p in partitions]
    places = mbr.starts(contents)
    tail = ENTRIES * ENTRY + sector  # the second table
    end = max([mbr.ALIGNMENT, *(at + size_of(c) for at, c in zip(places, contents, strict=True))])
    needed = -(-(end + tail) // mbr.ALIGNMENT) * mbr.ALIGNMENT
    whole = mbr.sized(-(-needed // unit) * unit, -(-size // unit) * unit)
    last = whole // sector - 1
    placed = [
        (p, at // sector, (at + size_of(c)) // sector - 1)
        for p, at, c in zip(partitions, places, contents, strict=True)
    ]
    tables_, foot = tables(placed, whole, seed=seed, sector=sector)
    protective = mbr.Slot(1, last, mbr.GPT)
    if hybrid:
        protective = mbr.Slot(1, min(slot.first for slot in hybrid) - 1, mbr.GPT)
    first = mbr.record([*hybrid, protective] if hybrid else [protective], mbr.signature(seed) if hybrid else 0, code)
    head = first.ljust(sector, b"\0") + tables_
    return [literal(head), *mbr.placed(contents, places, len(head), whole - len(foot)), literal(foot)]


def tables(
    placed: Sequence[tuple[Partition, int, int]], size: int, *, seed: str, sector: int = 512
) -> tuple[bytes, bytes]:
    """Both tables of a disk of `size` bytes: what follows the MBR, and what ends the disk.

    Args:
        placed: partitions with their first and last sectors. Their content isn't looked at.
    """
    table = b"".join(
        _entry(part, part.guid or partition_guid(seed, n), first, last)
        for n, (part, first, last) in enumerate(placed, 1)
    ).ljust(ENTRIES * ENTRY, b"\0")
    last, length = size // sector - 1, len(table) // sector
    usable = (2 + length, last - length - 1)
    head = _header(1, last, usable, seed, 2, table).ljust(sector, b"\0") + table
    return head, table + _header(last, 1, usable, seed, last - length, table).ljust(sector, b"\0")


def _entry(partition: Partition, guid: str, first: int, last: int) -> bytes:
    name = partition.name.encode("utf-16-le")
    if len(name) > 72:
        raise FieldError(f"'{partition.name}' is too long for the name of a partition")
    if last < first:
        raise FieldError(f"the partition '{partition.name}' is empty")
    return fields.pack(
        "<16s16sQQQ72s", guid_bytes(partition.type), guid_bytes(guid), first, last, partition.attributes, name
    )


def _header(here: int, there: int, usable: tuple[int, int], seed: str, table_at: int, table: bytes) -> bytes:
    def made(crc: int) -> bytes:
        return fields.pack(
            "<8sIIIIQQQQ16sQIII",
            b"EFI PART", 0x10000, 92, crc, 0, here, there, *usable, guid_bytes(disk_guid(seed)),
            table_at, ENTRIES, ENTRY, zlib.crc32(table),
        )  # fmt: skip

    return made(zlib.crc32(made(0)))
