"""syslinux installed by us and by its own installer: the same bytes; our disks, read by the usual tools."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from linuxkit.encode import fat, gpt, mbr, syslinux
from linuxkit.encode.pieces import literal, read

pytestmark = pytest.mark.interop
MIB = 1 << 20


@pytest.fixture(scope="module")
def loader() -> syslinux.Loader:
    program = shutil.which("syslinux")
    assert program is not None, "tools/setup.sh test installs it"
    return syslinux.find(Path(program).read_bytes(), program)


def run(*command: object) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def sectors_of(volume: bytes, name: bytes) -> list[int]:
    """The sectors of a file in the root folder, read from the FAT."""
    per, reserved, copies, root, _, _, small = struct.unpack_from("<BHBHHBH", volume, 13)
    size = small or struct.unpack_from("<I", volume, 36)[0]
    data = reserved + copies * size + root * 32 // 512
    total = struct.unpack_from("<H", volume, 19)[0] or struct.unpack_from("<I", volume, 32)[0]
    clusters = (total - data) // per
    bits = 12 if clusters < 4085 else 16 if clusters < 65525 else 32
    table = int.from_bytes(volume[reserved * 512 : (reserved + size) * 512], "little")
    at = volume.index(name, (reserved + copies * size) * 512)
    high, cluster, length = struct.unpack_from("<H4xHI", volume, at + 20)
    cluster |= high << 16
    found: list[int] = []
    while cluster < (1 << min(bits, 28)) - 8:
        start = data + (cluster - 2) * per
        found += range(start, start + per)
        cluster = table >> cluster * bits & ((1 << min(bits, 28)) - 1)
    return found[: -(-length // 512)]


@pytest.mark.parametrize(("bits", "flags", "mib"), [(12, ["-c", "4"], 2), (16, [], 20), (32, ["-F", "-c", "1"], 34)])
def test_the_installer_writes_the_same(
    tmp_path: Path, loader: syslinux.Loader, bits: int, flags: list[str], mib: int
) -> None:
    """mtools' volume, syslinux' own installation: every byte of the file and of the boot sector."""
    image = tmp_path / "x.img"
    run("mformat", "-C", "-i", image, "-T", mib * 2048, *flags, "::")
    run("syslinux", "--install", image)
    volume = image.read_bytes()
    sectors = sectors_of(volume, b"LDLINUX SYS")
    made = syslinux.install(loader, sectors)
    assert b"".join(volume[s * 512 : (s + 1) * 512] for s in sectors) == made.system
    kept = syslinux.PARAMETERS
    assert volume[: kept.start] == made.boot_sector[: kept.start]
    assert volume[kept.stop : 512] == made.boot_sector[kept.stop :]


@pytest.mark.parametrize("bits", [12, 16, 32])
def test_it_accepts_our_volumes(tmp_path: Path, loader: syslinux.Loader, bits: int) -> None:
    """syslinux installs itself again over our installation, and comes to the same boot sector but for the place."""

    def made(boot_sector: bytes, system: bytes) -> fat.Volume:
        return fat.volume({"ldlinux.sys": [literal(system)], "kernel": [literal(b"k" * 5000)]}, seed="s", bits=bits,
                          free=MIB, first=("ldlinux.sys",), boot_sector=boot_sector)  # fmt: skip

    place = made(b"", bytes(loader.size))
    installed = syslinux.install(loader, place.sectors("ldlinux.sys"))
    ours = b"".join(read(made(installed.boot_sector, installed.system).pieces))
    assert sectors_of(ours, b"LDLINUX SYS") == list(place.sectors("ldlinux.sys"))
    image = tmp_path / "x.img"
    image.write_bytes(ours)
    run("fsck.fat", "-n", image)
    run("syslinux", "--install", image)
    theirs = image.read_bytes()
    again = syslinux.install(loader, sectors_of(theirs, b"LDLINUX SYS"))
    changed = {n for n in range(512) if theirs[n] != ours[n]}
    place_at = {n for n in range(512) if again.boot_sector[n] != installed.boot_sector[n]}
    assert changed == place_at
    run("fsck.fat", "-n", image)


def test_tools_read_the_disks(tmp_path: Path) -> None:
    pieces = [literal(b"x" * MIB)]
    image = tmp_path / "bios.img"
    part = mbr.Partition(pieces, mbr.FAT16, active=True)
    image.write_bytes(b"".join(read(mbr.disk([part], seed="s", code=b"\xfa" * 440))))
    assert "No errors detected" in run("sfdisk", "--verify", image)
    assert "*" in run("sfdisk", "-l", image).splitlines()[-1]
    image = tmp_path / "both.img"
    esp = gpt.Partition(pieces, gpt.ESP, "EFI System", gpt.LEGACY_BOOT)
    image.write_bytes(b"".join(read(gpt.disk([esp], seed="s", code=b"\xfa" * 440))))
    assert "No errors detected" in run("sfdisk", "--verify", image)
    assert "No problems found" in run("sgdisk", "-v", image)
    assert "LegacyBIOSBootable" in run("sfdisk", "--dump", image)
