"""Disks and programs for UEFI, built from YAML and started by real firmware; and what must not start."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from linuxkit.errors import MachineError
from linuxkit.machine.machine import Machine
from linuxkit.machine.report import State
from support.fatread import read_volume
from support.system import CRUN, Build
from support.vm import boot

pytestmark = pytest.mark.boot
SYSTEM = CRUN.replace("  cmdline", "  tar: kernel-min.tar\n  cmdline") + """\
onboot:
  - name: marker
    image: kit://busybox
    command: ["/bin/sh", "-c", "echo started-by-$(test -d /sys/firmware/efi && echo uefi)"]
    binds: ["/sys:/sys:ro"]
services:
  - name: service
    image: kit://busybox
    command: ["/bin/sleep", "1000"]
"""



def judge(machine: Machine) -> None:
    """That the system booted to its service, under UEFI."""
    assert machine.wait_booted(140).ok
    assert {s.name: s.state for s in machine.report.steps}["service/service"] is State.RUNNING
    machine.wait_console("started-by-uefi", 20)


def damage(disk: Path) -> None:
    """Spoil the program of a raw-efi disk: two bytes of its signature."""
    data = disk.read_bytes()
    (program,) = read_volume(data[2048 * 512 : (struct.unpack_from("<Q", data, 1024 + 40)[0] + 1) * 512]).files.values()
    at = data.index(program[:4096]) + struct.unpack_from("<I", program, 0x3C)[0]
    assert data[at : at + 4] == b"PE\0\0"
    with disk.open("r+b") as stream:
        stream.seek(at)
        stream.write(b"XX")


def test_a_disk_boots_to_its_service(build: Build) -> None:
    disk = build(SYSTEM, "--format", "raw-efi") + "-efi.img"
    with boot(disk, seconds=150) as machine:
        assert machine.prepared.spec.firmware is not None  # type: ignore[attr-defined]
        judge(machine)
        assert machine.power_off(30).off
    assert (Path(f"{disk}-state") / "uefi-vars.fd").stat().st_size > 100_000


def test_a_disk_whose_program_is_damaged_or_gone_does_not_boot(build: Build) -> None:
    """What the marker is worth: the same disk, and the same wait, with one thing changed."""
    disk = Path(build(SYSTEM, "--format", "raw-efi") + "-efi.img")
    damage(disk)
    with boot(str(disk), seconds=40) as machine, pytest.raises(MachineError):
        machine.wait_booted(30)
    assert "Linux version" not in machine.console
    assert "started-by" not in machine.console


def test_the_program_alone_boots(build: Build) -> None:
    with boot(build(SYSTEM, "--format", "uki") + ".efi", seconds=150) as machine:
        judge(machine)


def test_firmware_can_start_a_kernel_and_initrd_too(build: Build) -> None:
    with boot(build(SYSTEM), seconds=150, uefi=True) as machine:
        judge(machine)


def test_an_arm64_disk_boots(build: Build) -> None:
    text = SYSTEM.replace("ttyS0", "ttyAMA0")
    with boot(build(text, "--format", "raw-efi", "--arch", "arm64") + "-efi.img", seconds=200) as machine:
        judge(machine)
        assert machine.power_off(30).off
