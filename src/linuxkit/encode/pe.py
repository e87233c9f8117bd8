"""EFI programs (PE32+): more sections for one. How systemd's stub becomes a kernel image that firmware starts.

    MZ … → PE\\0\\0 file-header[20] optional-header[240] section-table | sections | added sections
                                                       40 bytes each    at multiples of the file alignment

Microsoft's PE format specification; the names of the sections are those of the UAPI group's "Unified Kernel Image". An
added section is initialised data that can be read. The checksum is 0, for none: firmware does not look at it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from linuxkit.encode import fields
from linuxkit.encode.pieces import Piece, literal, padded, size_of
from linuxkit.errors import ImageError

MACHINES = {0x8664: "amd64", 0xAA64: "arm64", 0x5064: "riscv64"}
_ROW = 40
#: Initialised data, readable.
_DATA = 0x40000040
#: Offsets in the optional header.
_INITIALISED, _ALIGNMENT, _IMAGE_SIZE, _HEADERS, _CHECKSUM, _DIRECTORIES, _DIRECTORY = 8, 32, 56, 60, 64, 108, 112
_CERTIFICATES = _DIRECTORY + 4 * 8


class Section(NamedTuple):
    """A section to add: its name, at most 8 bytes, and its content."""

    name: str
    pieces: Sequence[Piece]


class Header(NamedTuple):
    """Where things are in a program, in bytes from its start."""

    machine: int
    sections: int
    optional: int
    table: int

    @property
    def checksum(self) -> int:
        return self.optional + _CHECKSUM

    @property
    def certificates(self) -> int:
        """Of the directory entry for the certificate table: its place and its size, 32 bits each."""
        return self.optional + _CERTIFICATES

    @property
    def architecture(self) -> str:
        """Go's name; empty when it is another one."""
        return MACHINES.get(self.machine, "")


def header(data: bytes, what: str) -> Header:
    """The header of a 64-bit program.

    Args:
        data: its first bytes, 1024 or more.
        what: names it in messages.

    Raises:
        ImageError: it isn't one.
    """
    try:
        start = struct.unpack_from("<I", data, 0x3C)[0]
        if data[:2] != b"MZ" or data[start : start + 4] != b"PE\0\0":
            raise ImageError(f"{what} is not an EFI program")
        machine, sections, optional_size = struct.unpack_from("<HH12xH", data, start + 4)
        optional = start + 24
        magic, directories = struct.unpack_from("<H106xI", data, optional)
    except struct.error:
        raise ImageError(f"{what} is not an EFI program") from None
    if magic != 0x20B or directories < 5 or optional_size < _CERTIFICATES + 8:
        raise ImageError(f"{what} is not a 64-bit EFI program")
    return Header(machine, sections, optional, optional + optional_size)


def add_sections(program: bytes, sections: Sequence[Section], what: str = "the EFI stub") -> list[Piece]:
    """A program with more sections behind its own; empty ones are left out.

    Raises:
        ImageError: it isn't a program, is signed already, or has no room for that many or that much.
    """
    head = header(program, what)
    wanted = [s for s in sections if size_of(s.pieces)]
    image = bytearray(program)
    section_unit, file_unit = struct.unpack_from("<II", image, head.optional + _ALIGNMENT)
    if any(struct.unpack_from("<II", image, head.certificates)):
        raise ImageError(f"{what} is signed, and sections can't be added to it", hint="use one without a signature")
    rows = [struct.unpack_from("<8sIIIIIIHHI", image, head.table + _ROW * n) for n in range(head.sections)]
    end = head.table + _ROW * head.sections
    if end + _ROW * len(wanted) > min([len(image), *(row[4] for row in rows if row[3])]):
        raise ImageError(f"{what} has no room for {len(wanted)} more sections")
    if any(image[end : end + _ROW * len(wanted)]) or section_unit & (section_unit - 1) or file_unit < 1:
        raise ImageError(f"{what}: its section table is not understood")

    address = _up(max(row[2] + max(row[1], row[3]) for row in rows), section_unit)
    out = [b""]
    image += bytes(-len(image) % file_unit)
    at, added, content = len(image), 0, list[Piece]()
    for section in wanted:
        size = size_of(section.pieces)
        raw = _up(size, file_unit)
        if address + size >= 1 << 32 or at + raw >= 1 << 32:
            raise ImageError(f"the EFI program would be larger than 4 GiB: {section.name} has {size} bytes",
                             hint="put less into the initrd, or take a format with its root on the disk")  # fmt: skip
        out.append(fields.pack("<8sIIIIIIHHI", section.name.encode(), size, address, raw, at, 0, 0, 0, 0, _DATA))
        content += padded(section.pieces, raw)
        address = _up(address + size, section_unit)
        at, added = at + raw, added + raw
    table = b"".join(out)
    image[end : end + len(table)] = table
    fields.pack_into("<H", image, head.optional - 18, head.sections + len(wanted))
    initialised = struct.unpack_from("<I", image, head.optional + _INITIALISED)[0]
    fields.pack_into("<I", image, head.optional + _INITIALISED, min(initialised + added, 0xFFFFFFFF))
    fields.pack_into("<I", image, head.optional + _IMAGE_SIZE, address)
    fields.pack_into("<I", image, head.checksum, 0)
    return [literal(bytes(image)), *content]


def _up(value: int, unit: int) -> int:
    return -(-value // unit) * unit
