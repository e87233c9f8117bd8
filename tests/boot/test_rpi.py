"""A Raspberry Pi's card. QEMU doesn't run a Pi's firmware, so a test does its part with the files of the card."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from support.system import CRUN, Build

pytestmark = pytest.mark.boot
CONSOLE = "ttyS1,115200"  # of a Pi 3 and 4: the serial port on its pins
SYSTEM = CRUN.replace("kit://kernel", "kit://kernel-rpi\n  tar: kernel-min.tar").replace("ttyS0", CONSOLE) + """\
onboot:
  - name: marker
    image: kit://busybox
    command:
      - /bin/sh
      - -c
      - |
        echo "running-on-$(cat /sys/firmware/devicetree/base/model)"
        until grep mmcblk0p1 /proc/partitions; do sleep 0.2; done
    binds: ["/sys:/sys:ro"]
    maskedPaths: []  # /sys/firmware is masked by default
"""


def from_card(card: Path, folder: Path, name: str) -> Path:
    subprocess.run(["mcopy", "-n", "-i", f"{card}@@1M", f"::{name}", folder], check=True, timeout=60)
    return folder / name


def test_a_pi_3_boots_to_its_service(build: Build, tmp_path: Path) -> None:
    card = Path(build(SYSTEM, "--arch", "arm64", "--format", "rpi", "--size", "128M") + "-rpi.img")
    kernel, initrd, board, cmdline = (
        from_card(card, tmp_path, name) for name in ("kernel8.img", "initrd.img", "bcm2837-rpi-3-b.dtb", "cmdline.txt")
    )
    log = tmp_path / "console"
    machine = subprocess.Popen([
        "qemu-system-aarch64", "-M", "raspi3b", "-accel", "tcg,thread=single", "-display", "none", "-monitor", "none",
        "-kernel", kernel, "-initrd", initrd, "-dtb", board, "-append", cmdline.read_text().strip(),
        "-drive", f"file={card},format=raw,if=sd", "-serial", "null", "-serial", f"file:{log}",
    ], stdin=subprocess.DEVNULL)  # fmt: skip
    try:
        end = time.monotonic() + 120
        while "mmcblk0p1" not in (text := log.read_text(errors="replace") if log.exists() else ""):
            assert time.monotonic() < end and machine.poll() is None, text
            time.sleep(0.2)
    finally:
        machine.kill()
        machine.wait()
    assert "running-on-Raspberry Pi 3 Model B" in text
