"""What a CD boots by: the El Torito boot catalogue and isolinux' boot information table.

Specification: "El Torito" Bootable CD-ROM Format 1.0; UEFI 2.10, 13.3.2.1; ECMA-119 for the volume descriptor.

    sector 17   boot record volume descriptor → catalogue
    catalogue   validation entry, default entry, then for each further platform a section header and a section entry,
                all of 32 bytes
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

from linuxkit.encode import fields

SECTOR = 2048


class Platform(IntEnum):
    """Whose firmware a boot entry is for."""

    BIOS = 0x00
    EFI = 0xEF


class BootImage(NamedTuple):
    """An entry of the catalogue: where its image is (sectors of 2048 bytes), how many 512-byte sectors are loaded."""

    platform: Platform
    sector: int
    load: int


def boot_record(catalogue: int) -> bytes:
    """The boot record volume descriptor, of one sector."""
    record = b"\0CD001\x01" + b"EL TORITO SPECIFICATION".ljust(64, b"\0") + fields.pack("<I", catalogue)
    return record.ljust(SECTOR, b"\0")


def catalogue(images: Sequence[BootImage]) -> bytes:
    """The boot catalogue, of one sector."""
    first = images[0]
    validation = bytearray(fields.pack("<BBH24sHBB", 1, first.platform, 0, b"LinuxKit", 0, 0x55, 0xAA))
    words = struct.unpack("<16H", validation)
    fields.pack_into("<H", validation, 28, -sum(words) & 0xFFFF)
    made = bytes(validation) + _entry(first)
    for n, image in enumerate(images[1:], 1):
        made += fields.pack("<BBH28s", 0x91 if n == len(images) - 1 else 0x90, image.platform, 1, b"") + _entry(image)
    return made.ljust(SECTOR, b"\0")


def _entry(image: BootImage) -> bytes:
    """Bootable, no emulation. What is too long for the number of sectors reaches to the CD's end, by UEFI 13.3.2.1."""
    load = image.load if image.load <= 0xFFFF else 0
    return fields.pack("<BBHBBHI20s", 0x88, 0, 0, 0, 0, load, image.sector, b"")


def with_boot_info(program: bytes, sector: int) -> bytes:
    """isolinux.bin with its boot information table (bytes 8 to 63): the volume's sector, its own, its size, its sum."""
    padded = program + bytes(-len(program) % 4)
    total = sum(struct.unpack(f"<{(len(padded) - 64) // 4}I", padded[64:])) & 0xFFFFFFFF
    return program[:8] + fields.pack("<IIII40s", 16, sector, len(program), total, b"") + program[64:]
