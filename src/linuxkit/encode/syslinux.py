"""Installing syslinux on a FAT volume: its boot sector, and ldlinux.sys with the map of its own sectors.

    boot sector   jump, OEM name | parameter block of the FAT (11-89, the volume's own) | code | 55 AA
                  the code reads the file's first sector, whose number stands in two of its instructions
    ldlinux.sys   banner | patch area | … | extended area | … | sector map | …    whole sectors, then two ADV sectors
                  the first sector reads the others by the map and checks the sum of all

    patch area    magic u32, instance u32, data sectors u16, ADV sectors u16, dwords u32, checksum u32,
                  sectors a transfer u16, offset of the extended area u16
    extended area ten u16: ADV pointers, directory, its length, subvolume, its length, sector map, its entries, and in
                  the boot sector: the low and the high half of the first sector's number, where RAID mode patches
    map entry     first sector u64, sectors u16
    ADV           two copies of what `syslinux --once` keeps: magic, checksum, data, magic

There is no specification but syslinux 6.04 itself; what is written here is compared byte for byte with what its own
installer writes (tests/interop). Sector numbers are counted from the volume's start: the code adds its hidden sectors.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from linuxkit.encode import fields
from linuxkit.errors import ImageError

SECTOR = 512
MAGIC = 0x3EB202FE
#: What a boot sector keeps when syslinux is installed: the FAT's parameter block, as long as that of FAT32.
PARAMETERS = slice(11, 90)
_ADV = fields.pack("<II496xII", 0x5A2D2FA5, 0xA3041767, 0, 0xDD28BF64)
_ADVS = 2
#: An entry of the map is read in one go, into one segment.
_RUN = 65535 // SECTOR
_MOST = 128 * SECTOR
_JUMP, _BANNER = b"\xeb\x58\x90SYSLINUX", b"\r\nSYSLINUX "
_MODULE = b"\x7fELF\x01\x01\x01" + bytes(9) + b"\x03\0\x03\0"  # the start of a module for syslinux
_AREA, _EXTENDED = fields.Record("<IIHHIIHH"), fields.Record("<10H")


@dataclass(frozen=True)
class Loader:
    """syslinux as its installer carries it: `boot_sector` (512 bytes) and `system`, the file ldlinux.sys."""

    boot_sector: bytes
    system: bytes

    @property
    def size(self) -> int:
        """Bytes of the installed ldlinux.sys."""
        return len(self.system) + _ADVS * SECTOR


@dataclass(frozen=True)
class Installed:
    """What goes onto the volume. Of `boot_sector`, bytes 11 to 89 are for the volume's own parameters."""

    boot_sector: bytes
    system: bytes


def find(program: bytes, where: str) -> Loader:
    """The loader in the program `syslinux`, which is the only place that Debian has it in.

    Both parts are found by their own marks, and so is the end: that of the compressed stream which the file ends
    with, up to a whole sector.

    Args:
        where: names the program in messages.

    Raises:
        ImageError: it isn't there, or isn't as this version of the format has it.
    """
    at = -1
    while (at := program.find(_JUMP, at + 1)) >= 0:
        sector = program[at : at + SECTOR]
        if sector[504:508] == fields.pack("<I", MAGIC) and sector[510:] == b"\x55\xaa":
            break
    start = program.find(_BANNER)
    while start >= 0:
        following = program.find(_MODULE, start)
        content = program[start : min(following if following >= 0 else len(program), start + _MOST)].rstrip(b"\0")
        system = program[start : start + -(-(len(content) + 2) // SECTOR) * SECTOR]
        if content[-1:] == b"\x11" and _area(system) is not None and at >= 0:  # 11 00 00: the end of LZO1X data
            return Loader(program[at : at + SECTOR], system)
        start = program.find(_BANNER, start + 1)
    raise ImageError(f"{where}: there is no syslinux 6 in it", hint="take the package as Debian makes it")


def _area(system: bytes) -> int | None:
    """Where the patch area is; None when that isn't a fresh one."""
    for at in range(0, min(len(system), 4 * SECTOR) - _AREA.size, 4):
        if system[at : at + 4] != fields.pack("<I", MAGIC):
            continue
        _, _, data, advs, dwords, checksum, transfer, extended = _AREA.unpack_from(system, at)
        if any((data, advs, dwords, checksum)) or not transfer or extended + _EXTENDED.size > len(system):
            continue
        advs, folder, folder_size, volume, volume_size, table, entries, low, high, raid = _EXTENDED.unpack_from(
            system, extended
        )
        inside = (advs + 16, folder + folder_size, volume + volume_size, table + 10 * entries)
        if entries and all(end <= len(system) for end in inside) and max(low + 4, high + 4, raid + 2) <= 510:
            return at
    return None


def install(loader: Loader, sectors: Sequence[int]) -> Installed:
    """Fit the loader to its place.

    Args:
        sectors: the numbers of the sectors that hold ldlinux.sys, `loader.size` bytes, from the volume's start.

    Raises:
        ImageError: the sectors are so scattered that the map has no room for them.
        ValueError: there are fewer sectors than the file needs.
    """
    count = len(loader.system) // SECTOR
    if len(sectors) < count + _ADVS:
        raise ValueError(f"ldlinux.sys needs {count + _ADVS} sectors, and has {len(sectors)}")
    area = _area(loader.system)
    assert area is not None
    boot, system = bytearray(loader.boot_sector), bytearray(loader.system)
    _, instance, _, _, _, _, transfer, extended = _AREA.unpack_from(system, area)
    advs, _, _, _, _, table, entries, low, high, _ = _EXTENDED.unpack_from(system, extended)

    fields.pack_into("<I", boot, low, sectors[0] & 0xFFFFFFFF)
    fields.pack_into("<I", boot, high, sectors[0] >> 32)
    runs = _runs(sectors[1:count])
    if len(runs) > entries:
        raise ImageError(f"ldlinux.sys lies in {len(runs)} runs of sectors, and syslinux can follow {entries}")
    fields.pack_into(f"<{10 * entries}s", system, table, b"".join(fields.pack("<QH", *run) for run in runs))
    fields.pack_into("<QQ", system, advs, *sectors[count : count + _ADVS])
    dwords = len(system) // 4

    def put(checksum: int) -> None:
        _AREA.pack_into(system, area, MAGIC, instance, count, _ADVS, dwords, checksum, transfer, extended)

    put(0)
    put((MAGIC - sum(struct.unpack(f"<{dwords}I", system))) & 0xFFFFFFFF)
    return Installed(bytes(boot), bytes(system) + _ADV * _ADVS)


def _runs(sectors: Sequence[int]) -> list[tuple[int, int]]:
    """Runs of consecutive sectors: the first, and how many."""
    found: list[tuple[int, int]] = []
    for sector in sectors:
        if found and sector == sum(found[-1]) and found[-1][1] < _RUN:
            found[-1] = (found[-1][0], found[-1][1] + 1)
        else:
            found.append((sector, 1))
    return found
