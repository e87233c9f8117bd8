"""Disks for a BIOS, and for both kinds of firmware, booted by them; and one that must not boot."""

from __future__ import annotations

from pathlib import Path

import pytest

from linuxkit.errors import MachineError
from support.firmware import SYSTEM, judge
from support.system import Build
from support.vm import boot

pytestmark = pytest.mark.boot


def test_a_bios_boots_it_to_its_service(build: Build) -> None:
    """With the longest command line that syslinux hands on, of which the last word counts."""
    filler = "x=y " * ((2009 - len("console=ttyS0 quiet")) // 4)
    line = f"console=tty0 {filler}"[: 2009 - len(" console=ttyS0")] + " console=ttyS0"
    disk = build(SYSTEM.replace("console=ttyS0", line), "--format", "raw-bios") + "-bios.img"
    assert len(line) == 2009
    with boot(disk, seconds=150) as machine:
        assert machine.prepared.spec.firmware is None  # type: ignore[attr-defined]
        judge(machine, "bios")
        assert machine.power_off(30).off


@pytest.mark.parametrize("firmware", ["bios", "uefi"])
def test_one_disk_for_both(build: Build, firmware: str) -> None:
    with boot(build(SYSTEM, "--format", "raw") + ".img", seconds=150, uefi=firmware == "uefi") as machine:
        judge(machine, firmware)


def test_a_damaged_loader_does_not_boot(build: Build) -> None:
    """What the marker is worth: the same disk, and the same wait, with one byte of ldlinux.sys changed."""
    disk = Path(build(SYSTEM, "--format", "raw-bios") + "-bios.img")
    data = disk.read_bytes()
    at = data.index(b"\r\nSYSLINUX ") + 20000
    with disk.open("r+b") as stream:
        stream.seek(at)
        stream.write(bytes([data[at] ^ 1]))
    with boot(str(disk), seconds=30) as machine, pytest.raises(MachineError):
        machine.wait_booted(8)
    assert "Linux version" not in machine.console
    assert "started-by" not in machine.console
