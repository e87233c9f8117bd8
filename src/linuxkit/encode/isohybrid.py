"""A CD image that is a disk as well: partition tables in the part of an ISO 9660 volume that it leaves to others.

    sector 0        boot code[432], sector of isolinux.bin u64 │ signature, partitions │ 55 AA
    1, 2-33         GPT header, entries                               the system area: 64 sectors of 512 bytes
    64 …            the volume
    the last 33     GPT entries, header                               behind the volume, at the next multiple of 1 MiB

ECMA-119, 6.2.1; UEFI 2.10, section 5. With something for UEFI to boot from, its FAT image inside the volume is the one
partition of a GPT; some BIOSes start only what has an active partition, for which an empty one stands in the MBR.
Without, the MBR has one active partition, which is the whole image. The boot code is isolinux' own (isohdpfx.bin): it
loads isolinux.bin from the place it is told, and that reads the volume as a disk.
"""

from __future__ import annotations

from linuxkit.encode import fields, gpt, iso9660, mbr
from linuxkit.encode.pieces import Piece, cut, hole, literal, read, size_of
from linuxkit.errors import ImageError

SECTOR = 512
#: Bytes of an ISO 9660 volume before its descriptors.
SYSTEM_AREA = 16 * iso9660.SECTOR
CODE = 432
#: What is at byte 64 of an isolinux.bin that can be started from a disk.
SIGNATURE = fields.pack("<I", 0x7078C0FB)
#: The type of a partition that isohybrid images have by custom (hidden NTFS: no system touches it).
HIDDEN, EMPTY = 0x17, 0x00


def hybrid(volume: iso9660.Volume, *, seed: str, code: bytes = b"", loader: str = "", esp: str = "") -> list[Piece]:
    """The volume as a disk too.

    Args:
        seed: what GUIDs and the MBR's signature are derived from.
        code: isolinux' boot code for a BIOS; empty where none is to start it.
        loader: the path of isolinux.bin in the volume, when there is code.
        esp: the path of the FAT image that UEFI starts; empty for none.

    Raises:
        ImageError: what should be isolinux can't be started from a disk.
    """
    tail = SECTOR + gpt.ENTRIES * gpt.ENTRY if esp else 0
    end = size_of(volume.pieces)
    size = -(-(end + tail) // mbr.ALIGNMENT) * mbr.ALIGNMENT
    boot = _code(volume, code, loader) if code else b""
    if not esp:
        slots = [mbr.Slot(0, size // SECTOR, HIDDEN, active=True)]
        head, foot = mbr.record(slots, mbr.signature(seed), boot), b""
    else:
        first, count = volume.runs[esp]
        part = gpt.Partition((), gpt.ESP, "EFI System")
        at = first * iso9660.SECTOR // SECTOR
        placed = [(part, at, at + -(-count // SECTOR) - 1)]
        tables, foot = gpt.tables(placed, size, seed=seed)
        slots = [mbr.Slot(1, size // SECTOR - 1, mbr.GPT)]
        slots += [mbr.Slot(0, 1, EMPTY, active=True)] if code else []
        head = mbr.record(slots, mbr.signature(seed), boot) + tables
    rest = cut(volume.pieces, SYSTEM_AREA, end)
    pieces = [literal(head), hole(SYSTEM_AREA - len(head)), *rest, hole(size - end - len(foot)), literal(foot)]
    return [piece for piece in pieces if piece.size]


def _code(volume: iso9660.Volume, code: bytes, loader: str) -> bytes:
    first, size = volume.runs[loader]
    program = b"".join(read(cut(volume.pieces, first * iso9660.SECTOR, min(size, iso9660.SECTOR))))
    if program[64:68] != SIGNATURE or len(code) != CODE:
        raise ImageError(f"{loader} can't be started from a disk", hint="take isolinux and isohdpfx.bin of version 6")
    return code + fields.pack("<Q", first * iso9660.SECTOR // SECTOR)
