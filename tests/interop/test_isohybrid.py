"""CDs that are disks as well, read by xorriso, isoinfo, sgdisk, sfdisk, mtools and fsck.fat."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from linuxkit.encode import eltorito, fat, iso9660, isohybrid
from linuxkit.encode.pieces import literal, padded
from linuxkit.encode.tree import tree
from linuxkit.entry import Entry, Kind
from linuxkit.outputs.pieces import put

pytestmark = pytest.mark.interop
LOADER = (bytes(64) + isohybrid.SIGNATURE).ljust(9000, b"l")


def run(*command: object) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def image(path: Path, *, bios: bool = True, uefi: bool = True) -> Path:
    made = fat.volume({"EFI/BOOT/BOOTX64.EFI": [literal(b"MZ" * 40000)]}, seed="s", label="ESP")
    files = {"boot/efi.img": padded(made.pieces, -(-made.size // 2048) * 2048)} if uefi else {}
    files |= {"isolinux/isolinux.bin": [literal(LOADER)]} if bios else {}
    boot = [iso9660.Boot(eltorito.Platform.BIOS, "isolinux/isolinux.bin", 4, info=True)] if bios else []
    boot += [iso9660.Boot(eltorito.Platform.EFI, "boot/efi.img")] if uefi else []
    entries = [Entry(name, Kind.FILE, 0o644) for name in files]
    volume = iso9660.volume(tree(entries), "LinuxKit", boot=boot, contents=files)
    pieces = isohybrid.hybrid(volume, seed="s", code=b"\x90" * 432 if bios else b"",
                              loader="isolinux/isolinux.bin" if bios else "",
                              esp="boot/efi.img" if uefi else "")  # fmt: skip
    with path.open("wb") as out:
        put(pieces, out)
    return path


@pytest.mark.parametrize(("bios", "uefi"), [(True, True), (False, True), (True, False)])
def test_tools_see_the_cd_and_the_disk(tmp_path: Path, bios: bool, uefi: bool) -> None:
    cd = image(tmp_path / "x.iso", bios=bios, uefi=uefi)
    seen = run("xorriso", "-indev", cd, "-report_el_torito", "plain", "-report_system_area", "plain")
    assert "FAILURE" not in seen and "WARNING" not in seen and "Volume id    : 'LinuxKit'" in seen
    lines = [line.split() for line in seen.splitlines()]
    assert [line[6] for line in lines if line[:4] == ["El", "Torito", "boot", "img"]] == (
        ["BIOS"] * bios + ["UEFI"] * uefi
    )
    assert ("boot-info-table isohybrid-suitable" in seen) == bios
    assert ("GPT partition path :   1  /boot/efi.img" in seen) == uefi
    assert "No errors detected" in run("sfdisk", "--verify", cd)
    if uefi:
        assert "No problems found" in run("sgdisk", "-v", cd)
    assert ("isolinux" in run("isoinfo", "-R", "-f", "-i", cd)) == bios


def test_the_partition_is_the_image(tmp_path: Path) -> None:
    """mtools and fsck.fat read the system partition where the GPT has it."""
    cd = image(tmp_path / "x.iso")
    start = int(run("sfdisk", "--dump", cd).split("start=")[1].split(",")[0])
    assert run("mtype", "-i", f"{cd}@@{start * 512}", "::EFI/BOOT/BOOTX64.EFI") == "MZ" * 40000
    partition = tmp_path / "esp.img"
    partition.write_bytes(cd.read_bytes()[start * 512 :])
    run("fsck.fat", "-n", partition)
