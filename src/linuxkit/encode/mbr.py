"""The master boot record: boot code and four partitions.

    0 code[440] | signature[4] 0 0 | 4 times (active, first CHS, type, last CHS, first sector, sectors) | 55 AA | 512

No standard but practice; UEFI 2.10, section 5.2, has the layout. Cylinder, head and sector are those of a disk with
255 heads and 63 sectors, the geometry that every BIOS assumes, and FE FF FF past its end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from linuxkit.encode import fields
from linuxkit.encode.pieces import Piece, hole, literal, size_of
from linuxkit.entry import digest_of
from linuxkit.errors import FieldError, InputError

SECTOR = 512
#: Where partitions start and disks end: multiples of this.
ALIGNMENT = 1 << 20
#: Bytes of boot code that fit before the disk signature.
CODE = 440
#: Types of partitions.
FAT12, FAT16, FAT32, LINUX, GPT, EFI = 0x01, 0x0E, 0x0C, 0x83, 0xEE, 0xEF
_HEADS, _SECTORS, _CYLINDERS = 255, 63, 1024


class Slot(NamedTuple):
    """An entry of the table; sectors are counted in 512 bytes."""

    first: int
    sectors: int
    type: int
    active: bool = False


class Partition(NamedTuple):
    """A partition and what is in it."""

    pieces: Sequence[Piece]
    type: int
    active: bool = False


def record(slots: Sequence[Slot], signature: int, code: bytes = b"") -> bytes:
    """The 512 bytes of the record.

    Raises:
        FieldError: more than four partitions, too much code, or a partition behind 2 TiB.
    """
    if len(slots) > 4 or len(code) > CODE:
        raise FieldError(f"{len(slots)} partitions and {len(code)} bytes of code don't fit into an MBR",
                         hint="four partitions and 440 bytes are the most; or use GPT")  # fmt: skip
    head = code.ljust(CODE, b"\0") + fields.pack("<IH", signature, 0)
    return (head + b"".join(_entry(slot) for slot in slots)).ljust(510, b"\0") + b"\x55\xaa"


def _entry(slot: Slot) -> bytes:
    first, last = _chs(slot.first), _chs(slot.first + slot.sectors - 1)
    if slot.type == GPT and slot.first == 1:
        last = b"\xff\xff\xff"  # as UEFI asks of the protective record, and of its length when it is more than fits
    length = min(slot.sectors, 0xFFFFFFFF) if slot.type == GPT else slot.sectors
    return fields.pack("<B3sB3sII", 0x80 if slot.active else 0, first, slot.type, last, slot.first, length)


def _chs(sector: int) -> bytes:
    rest, number = divmod(sector, _SECTORS)
    cylinder, head = divmod(rest, _HEADS)
    if cylinder >= _CYLINDERS:
        return b"\xfe\xff\xff"
    return bytes([head, (number + 1) | cylinder >> 2 & 0xC0, cylinder & 0xFF])


def signature(seed: str) -> int:
    """A disk's signature, never 0: what `root=PARTUUID=SSSSSSSS-01` names."""
    return int(digest_of([b"mbr", seed.encode()])[7:15], 16) or 1


def starts(partitions: Sequence[Sequence[Piece]], first: int = ALIGNMENT) -> list[int]:
    """The byte at which each partition of a disk starts."""
    found, at = [], first
    for pieces in partitions:
        found.append(at)
        at += -(-size_of(pieces) // ALIGNMENT) * ALIGNMENT
    return found


def disk(partitions: Sequence[Partition], *, seed: str, code: bytes = b"", size: int = 0) -> list[Piece]:
    """A disk: the record, and each partition at the next multiple of 1 MiB.

    Args:
        seed: what the disk's signature is derived from.
        code: at most 440 bytes.
        size: of the disk in bytes; 0 is as small as its content, in whole MiB.

    Raises:
        InputError: the partitions don't fit into `size`, or into the 2 TiB of an MBR.
    """
    places = starts([p.pieces for p in partitions])
    slots = [
        Slot(at // SECTOR, -(-size_of(p.pieces) // SECTOR), p.type, p.active)
        for at, p in zip(places, partitions, strict=True)
    ]
    end = max([ALIGNMENT, *(at + size_of(p.pieces) for at, p in zip(places, partitions, strict=True))])
    whole = sized(-(-end // ALIGNMENT) * ALIGNMENT, size)
    if whole > SECTOR << 32:
        raise InputError(f"an MBR can't describe a disk of {whole} bytes", hint="at most 2 TiB; or use GPT")
    pieces = [literal(record(slots, signature(seed), code))]
    return [*pieces, *placed([p.pieces for p in partitions], places, SECTOR, whole)]


def placed(contents: Sequence[Sequence[Piece]], places: Sequence[int], at: int, end: int) -> list[Piece]:
    """The contents of partitions with the holes between them, from byte `at` of the disk to byte `end`."""
    out = list[Piece]()
    for place, pieces in zip(places, contents, strict=True):
        out += [hole(place - at), *pieces]
        at = place + size_of(pieces)
    out.append(hole(end - at))
    return [piece for piece in out if piece.size]


def sized(needed: int, asked: int) -> int:
    """The size of a disk that needs some bytes and is to have others; 0 is what it needs.

    Raises:
        InputError: less is asked for than is needed.
    """
    if not asked:
        return needed
    if asked < needed or asked % SECTOR:
        raise InputError(f"a disk of {asked} bytes is asked for, and its content needs {needed}",
                         hint=f"--size {-(-needed // ALIGNMENT)}M, or more")  # fmt: skip
    return asked
