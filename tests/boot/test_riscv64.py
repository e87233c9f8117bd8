"""riscv64: a disk with a verified root, started by a UEFI firmware, U-Boot's."""

from __future__ import annotations

import subprocess
import threading
import time
from pathlib import Path

import pytest

from support.firmware import SYSTEM
from support.system import Build

pytestmark = pytest.mark.boot
UBOOT = Path("/usr/lib/u-boot/qemu-riscv64_smode/uboot.elf")


def test_uefi_starts_a_disk_with_a_verified_root(build: Build) -> None:
    """QEMU by hand: U-Boot is loaded as a kernel is, and finds EFI/BOOT/BOOTRISCV64.EFI on the disk."""
    root = "$(grep ' / ' /proc/1/mounts | cut -d' ' -f1-3 | tr ' ' _)"
    text = SYSTEM.replace("started-by-", f"root-is-{root} started-by-")
    text = text.replace('binds: ["/sys:/sys:ro"]', 'binds: ["/sys:/sys:ro"]\n    pid: host')
    disk = build(text, "--arch", "riscv64", "--format", "raw-efi", "--root", "squashfs", "--verity") + "-efi.img"
    child = subprocess.Popen(
        ["qemu-system-riscv64", "-machine", "virt", "-cpu", "rv64", "-m", "768", "-accel", "tcg,thread=single",
         "-nographic", "-nodefaults", "-serial", "stdio", "-kernel", UBOOT,
         "-drive", f"if=none,id=d,format=raw,file={disk},readonly=on", "-device", "virtio-blk-pci,drive=d"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    said: list[bytes] = []
    assert child.stdout is not None
    reader = threading.Thread(target=lambda: said.extend(iter(lambda: child.stdout.read1(4096), b"")))  # type: ignore[union-attr]
    reader.start()
    try:
        until = time.monotonic() + 180
        while b"started-by-uefi" not in b"".join(said):
            assert child.poll() is None and time.monotonic() < until, b"".join(said).decode(errors="replace")
            time.sleep(0.2)
    finally:
        child.kill()
        child.wait()
        reader.join(10)
        child.stdout.close()
    console = b"".join(said).decode(errors="replace")
    assert "EFI stub" in console, console
    assert "root-is-/dev/dm-0_/_squashfs started-by-uefi" in console, console
