"""The kernel for real machines, and the one for RISC-V."""

from __future__ import annotations

from pathlib import Path

import pytest

from linuxkit.oci.media import Platform
from linuxkit.oci.store import Store
from support.system import HEAD, Build, image_cache, linuxkit
from support.vm import boot

pytestmark = pytest.mark.boot

LOOK = """\
onboot:
  - name: look
    image: kit://busybox
    command: ["/bin/sh", "-c", "exec >/dev/console 2>&1; for n in 1 2 3 4 5 6 7 8 9; do
      grep -q QEMU.USB /proc/bus/input/devices && [ -e /sys/class/net/eth0 ] && break; sleep 0.5; done;
      ls /sys/class/net; grep Name /proc/bus/input/devices; head -c 9 /dev/sda; echo; echo looked"]
    binds: ["/dev:/dev"]
"""


def hardware(disk: Path, arguments: list[str]) -> list[str]:
    """What a real machine has: a SATA disk, a USB keyboard, an Intel network card."""
    board = [argument.replace(",sata=off", "") for argument in arguments]
    board += ["-drive", f"if=none,id=real,file={disk},format=raw", "-device", "ide-hd,drive=real,bus=ide.0"]
    return [*board, "-device", "qemu-xhci", "-device", "usb-kbd", "-nic", "user,model=e1000e"]


@pytest.mark.parametrize("real", [True, False])
def test_real_hardware_has_drivers_in_the_kernel_for_it_only(real: bool, build: Build, tmp_path: Path) -> None:
    system = HEAD + "  - kit://crun\n" + LOOK
    if real:
        system = system.replace("kit://kernel\n", "kit://kernel-metal\n  tar: kernel-min.tar\n")
    disk = tmp_path / "disk.img"
    disk.write_bytes(b"real disk".ljust(1 << 20, b"\0"))
    with boot(build(system), change=lambda words: hardware(disk, words), networking="none") as machine:
        machine.wait_console("\nlooked", 45)
        console = machine.console
    assert "real disk" in console  # both know SATA
    assert ("eth0" in console, "USB Keyboard" in console) == (real, real)


NETBOOT = "usr/lib/debian-installer/images/13/riscv64/text/debian-installer/riscv64/linux"
RECIPE = f"""\
image: riscv-kernel
arches: [amd64]
debian:
  packages: [debian-installer-13-netboot-riscv64]
  data: [{NETBOOT}]
  move: {{{NETBOOT}: kernel}}
"""


def test_riscv64_boots(build: Build, tmp_path: Path) -> None:
    """Debian's kernel for it, out of a package that is in the lists of every architecture, and our init."""
    folder = tmp_path / "riscv-kernel"
    folder.mkdir()
    (folder / "build.yml").write_text(RECIPE)
    done = linuxkit("pkg", "build", str(folder))
    assert done.returncode == 0, done.stderr
    store = Store(image_cache())
    found = store.find("docker.io/linuxkit/riscv-kernel:latest-amd64")
    assert found is not None
    base = store.image(found, "riscv-kernel", Platform("linux", "amd64"))
    config = {"architecture": "riscv64", "os": "linux", "config": {},
              "rootfs": {"type": "layers", "diff_ids": list(base.config.diff_ids)}}  # type: ignore[attr-defined]  # fmt: skip
    store.put_image("docker.io/test/riscv-kernel:1", Platform("linux", "riscv64"), config, base.layers)  # type: ignore[arg-type]
    prefix = build('kernel:\n  image: test/riscv-kernel:1\n  tar: none\n  cmdline: "console=ttyS0"\n'
                   "init:\n  - kit://init\n", "--arch", "riscv64")  # fmt: skip
    with boot(prefix) as machine:
        machine.wait_console("Welcome to LinuxKit", 45)
        assert "riscv" in machine.console
        assert machine.prepared.spec.qemu.name == "qemu-system-riscv64"  # type: ignore[attr-defined]
    with boot(prefix, change=lambda words: [*words, "-append", "console=ttyS0 rdinit=/nothing"]) as machine:
        machine.wait_console("Kernel panic", 45)  # the negative control
        assert "Welcome to LinuxKit" not in machine.console
