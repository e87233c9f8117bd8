"""Disks and programs for UEFI, built from YAML and started by real firmware; and what must not start."""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from linuxkit.errors import MachineError
from linuxkit.machine.machine import Machine
from linuxkit.platforms import firmware
from linuxkit.platforms.bootimage import Media
from support.fatread import read_volume
from support.firmware import SYSTEM, judge
from support.system import Build
from support.vm import boot

pytestmark = pytest.mark.boot


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
        judge(machine, "uefi")
        assert machine.power_off(30).off
    assert (Path(f"{disk}-state") / "uefi-vars.fd").stat().st_size > 100_000


def test_a_disk_whose_program_is_damaged_does_not_boot(build: Build) -> None:
    """What the marker is worth: the same disk, and the same wait, with one thing changed."""
    disk = Path(build(SYSTEM, "--format", "raw-efi") + "-efi.img")
    damage(disk)
    with boot(str(disk), seconds=60) as machine:
        machine.wait_console("failed to (load|start) Boot", 50)  # firmware's own words
        with pytest.raises(MachineError):
            machine.wait_booted(8)
    assert "Linux version" not in machine.console
    assert "started-by" not in machine.console


def test_the_program_alone_boots(build: Build) -> None:
    with boot(build(SYSTEM, "--format", "uki") + ".efi", seconds=150) as machine:
        judge(machine, "uefi")


def test_a_disk_boots_from_usb(build: Build) -> None:
    disk = build(SYSTEM, "--format", "raw-efi") + "-efi.img"
    with boot(disk, seconds=150, media=Media.USB, usb=True) as machine:
        judge(machine, "uefi")


def test_firmware_can_start_a_kernel_and_initrd_too(build: Build) -> None:
    with boot(build(SYSTEM), seconds=150, uefi=True) as machine:
        judge(machine, "uefi")


def test_an_arm64_disk_boots(build: Build) -> None:
    text = SYSTEM.replace("ttyS0", "ttyAMA0")
    with boot(build(text, "--format", "raw-efi", "--arch", "arm64") + "-efi.img", seconds=200) as machine:
        judge(machine, "uefi")
        assert machine.power_off(30).off


# -- Secure Boot


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A key, its certificate, and firmware variables in which it is the only one that may start anything."""
    folder = tmp_path_factory.mktemp("keys")
    key, certificate, variables = folder / "key.pem", folder / "cert.pem", folder / "vars.fd"
    subprocess.run(["openssl", "req", "-new", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=owner",
                    "-keyout", key, "-out", certificate, "-days", "3650"], check=True, capture_output=True)  # fmt: skip
    owner = "5c4a2ee5-8a3a-4b6c-9d6d-3c4b8d3d0f11"
    template = firmware.find("x86_64", secure=True).variables
    assert template is not None
    blank = template.with_name(template.name.replace(".ms", ""))
    subprocess.run([sys.executable, "-m", "virt.firmware.vars", "--input", blank, "--output", variables,
                    "--set-pk", owner, certificate, "--add-kek", owner, certificate, "--add-db", owner, certificate,
                    "--sb"], check=True, capture_output=True)  # fmt: skip
    return key, certificate, variables


def start(disk: Path, variables: Path) -> AbstractContextManager[Machine]:
    state = Path(f"{disk}-state")
    state.mkdir(exist_ok=True)
    shutil.copyfile(variables, state / "uefi-vars.fd")
    return boot(str(disk), seconds=150, secure_boot=True)


def test_secure_boot_starts_what_is_signed(build: Build, keys: tuple[Path, Path, Path]) -> None:
    key, certificate, variables = keys
    flags = ("--format", "raw-efi", "--sign-key", str(key), "--sign-cert", str(certificate))
    disk = Path(build(SYSTEM, *flags) + "-efi.img")
    with start(disk, variables) as machine:
        judge(machine, "uefi")
        assert "UEFI Secure Boot is enabled" in machine.console
        assert machine.power_off(30).off

    data = disk.read_bytes()
    at = data.index(b"console=ttyS0")  # the command line is signed: one letter of it
    with disk.open("r+b") as stream:
        stream.seek(at)
        stream.write(b"C")
    with start(disk, variables) as machine:
        machine.wait_console("Access Denied|Security Violation", 60)
    assert "Linux version" not in machine.console


def test_secure_boot_refuses_what_is_not_signed(build: Build, keys: tuple[Path, Path, Path]) -> None:
    disk = Path(build(SYSTEM, "--format", "raw-efi") + "-efi.img")
    with start(disk, keys[2]) as machine:
        machine.wait_console("Access Denied|Security Violation", 60)
    assert "Linux version" not in machine.console
