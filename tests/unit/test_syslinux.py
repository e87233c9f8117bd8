"""Installing syslinux: finding it in its installer, and the sectors, pointers and sums that are written into it."""

from __future__ import annotations

import random
import struct

import pytest

from linuxkit.encode import syslinux
from linuxkit.errors import ImageError
from support.bios import ADVS, AREA, ENTRIES, HIGH, LOW, SIZE, TABLE, boot_sector, installer, ldlinux

pytestmark = pytest.mark.unit
LOADER = syslinux.Loader(boot_sector(), ldlinux())
COUNT = SIZE // 512


def runs(system: bytes, entries: int = ENTRIES) -> list[tuple[int, int]]:
    found = [struct.unpack_from("<QH", system, TABLE + 10 * n) for n in range(entries)]
    return [run for run in found if run[1]]


def test_it_is_found_in_its_installer() -> None:
    assert syslinux.find(installer(), "x") == LOADER
    assert LOADER.size == SIZE + 1024


@pytest.mark.parametrize("ending", [1, 2, 199, 512])
def test_its_end_is_that_of_its_compressed_data(ending: int) -> None:
    """Zeros belong to it up to the end of the sector in which the stream's last three bytes, 11 00 00, are."""
    system = bytearray(ldlinux())
    system[-1500:] = bytes(1500)
    last = SIZE - 512 - ending
    system[last - 100 : last + 1] = b"\x7f" * 100 + b"\x11"
    expected = -(-(last + 3) // 512) * 512
    assert len(syslinux.find(installer(bytes(system)), "x").system) == expected


DAMAGED = {
    "nothing": b"",
    "no boot sector": installer().replace(boot_sector(), bytes(512)),
    "no end": installer(ldlinux()[:-200] + bytes(200)),
    "installed before": installer(ldlinux()[:AREA + 8] + b"\1\0" + ldlinux()[AREA + 10 :]),
    "map outside": installer(ldlinux(entries=3000)),
    "cut off": installer()[: installer().index(ldlinux()) + 1000],
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGED)
def test_what_is_no_syslinux(case: str) -> None:
    with pytest.raises(ImageError, match="there is no syslinux 6 in it"):
        syslinux.find(DAMAGED[case], "kit://syslinux")


def test_it_knows_its_sectors() -> None:
    sectors = [5, *range(100, 100 + COUNT - 1), 9000, 70]
    made = syslinux.install(LOADER, sectors)
    assert len(made.system) == LOADER.size
    assert struct.unpack_from("<I", made.boot_sector, LOW)[0] == 5
    assert struct.unpack_from("<I", made.boot_sector, HIGH)[0] == 0
    _, instance, data, advs, dwords, _, transfer, _ = struct.unpack_from("<IIHHIIHH", made.system, AREA)
    assert (instance, data, advs, dwords, transfer) == (7, COUNT, 2, SIZE // 4, 127)
    assert runs(made.system) == [(100, COUNT - 1)]
    assert struct.unpack_from("<QQ", made.system, ADVS) == (9000, 70)
    assert sum(struct.unpack(f"<{SIZE // 4}I", made.system[:SIZE])) & 0xFFFFFFFF == syslinux.MAGIC
    first, second = made.system[SIZE : SIZE + 512], made.system[SIZE + 512 :]
    assert first == second and first[-4:] == struct.pack("<I", 0xDD28BF64)


def test_nothing_else_changes() -> None:
    made = syslinux.install(LOADER, range(40, 40 + COUNT + 2))
    changed = {n for n in range(512) if made.boot_sector[n] != LOADER.boot_sector[n]}
    assert changed <= {*range(LOW, LOW + 4), *range(HIGH, HIGH + 4)}
    changed = {n for n in range(SIZE) if made.system[n] != LOADER.system[n]}
    assert changed <= {*range(AREA + 8, AREA + 20), *range(TABLE, TABLE + 10), *range(ADVS, ADVS + 16)}


def test_a_sector_behind_two_tebibytes() -> None:
    made = syslinux.install(LOADER, range(3 << 32, (3 << 32) + COUNT + 2))
    assert struct.unpack_from("<I", made.boot_sector, LOW)[0] == 0
    assert struct.unpack_from("<I", made.boot_sector, HIGH)[0] == 3


@pytest.mark.parametrize("seed", range(20))
def test_any_sectors_come_back_from_the_map(seed: int) -> None:
    rng = random.Random(seed)
    sectors: list[int] = []
    while len(sectors) < COUNT + 2:
        start = rng.randrange(1 << 30)
        sectors += range(start, start + rng.randrange(1, 20))
    made = syslinux.install(LOADER, sectors[: COUNT + 2])
    listed = [sector for start, count in runs(made.system) for sector in range(start, start + count)]
    assert listed == sectors[1:COUNT]


def test_a_run_is_read_in_one_go() -> None:
    large = syslinux.Loader(boot_sector(), ldlinux(300 * 512))
    made = syslinux.install(large, range(1000, 1302))
    assert runs(made.system) == [(1001, 127), (1128, 127), (1255, 45)]


def test_too_scattered() -> None:
    few = syslinux.Loader(boot_sector(), ldlinux(entries=3))
    syslinux.install(few, [1, 2, 9, 11, 12, *range(13, 13 + COUNT)])
    with pytest.raises(ImageError, match="in 39 runs of sectors, and syslinux can follow 3"):
        syslinux.install(few, range(0, 1000, 2))
    with pytest.raises(ValueError, match="needs 42 sectors, and has 41"):
        syslinux.install(LOADER, range(41))
