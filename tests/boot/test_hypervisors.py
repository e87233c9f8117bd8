"""Machines that libvirt runs, and a kernel that was taken out of its file, entered as PVH machines do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from linuxkit.platforms import vmlinux
from linuxkit.platforms.hypervisors.convert import data_disk
from support.libvirtd import libvirt_uri
from support.system import CRUN, Build
from support.vm import boot

__all__ = ["libvirt_uri"]
pytestmark = pytest.mark.boot
SYSTEM = CRUN + """\
onboot:
  - name: metadata
    image: kit://metadata
    command: ["/usr/bin/metadata", "-v", "cdrom"]
  - name: look
    image: kit://busybox
    command: ["/bin/sh", "/look"]
    binds: ["/dev:/dev", "/sys:/sys:ro", "/look:/look:ro", "/run/config:/run/config:ro"]
    capabilities: [all]
files:
  - path: look
    contents: |
      echo disk-of-$(($(cat /sys/class/block/vda/size) / 2048))-$(cat /sys/class/block/vda/serial)
      echo card-$(cat /sys/class/net/eth0/address)
      echo userdata-$(cat /run/config/userdata)
      mkdir -p /tmp/cd && mount -t iso9660 -o ro /dev/sr0 /tmp/cd && echo cd-$(cat /tmp/cd/config)
      echo looked-around
"""


def virsh(uri: str, *words: str) -> str:
    done = subprocess.run(["virsh", "--quiet", "--connect", uri, *words], capture_output=True, text=True, timeout=30)
    return done.stdout + done.stderr


def opened(path: Path) -> None:
    """Let libvirt's user in."""
    for folder in (path, *path.parents):
        if folder.stat().st_uid == os.geteuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o055)


def test_libvirt_runs_it_and_shuts_it_down(build: Build, libvirt_uri: str, tmp_path: Path) -> None:
    prefix = build(SYSTEM)
    opened(tmp_path)
    state = Path(f"{prefix}-state")
    state.mkdir()
    (state / "disk.img").touch(0o666)
    os.truncate(state / "disk.img", 64 << 20)
    (state / "disk.img").chmod(0o666)
    command = [sys.executable, "-m", "linuxkit", "run", "libvirt", "--connect", libvirt_uri, "--name", "it's <one>"]
    data_disk(tmp_path / "data", b"from-the-disk")
    (tmp_path / "data").chmod(0o666)
    command += ["--disk", "size=64M", "--disk", str(tmp_path / "data"), "--data", "from-the-cd"]
    command += ["--stop-timeout", "30", "--accel", "tcg", prefix]
    with (tmp_path / "err").open("wb") as err, (tmp_path / "out").open("wb") as out:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        try:
            deadline = time.monotonic() + 90
            while (shown := (tmp_path / "out").read_text(errors="replace")).count("looked-around") == 0:
                assert child.poll() is None and time.monotonic() < deadline, (shown, (tmp_path / "err").read_text())
                time.sleep(0.2)
            assert "it's <one>" in virsh(libvirt_uri, "list", "--name")
            time.sleep(1)  # until init waits for the power button
            child.send_signal(signal.SIGINT)
            status = child.wait(60)
        finally:
            child.kill()
            child.wait()
    shown, said = (tmp_path / "out").read_text(errors="replace"), (tmp_path / "err").read_text()
    assert status == 0, (shown, said)
    assert "disk-of-64-disk0" in shown
    assert "userdata-from-the-disk" in shown
    assert "cd-from-the-cd" in shown
    assert f"card-{(state / 'mac-addr').read_text()}" in shown
    assert "reboot: Power down" in shown, shown
    assert shown == (state / "console.log").read_text(errors="replace")
    assert virsh(libvirt_uri, "list", "--all", "--name").strip() == ""


def test_a_domain_that_cannot_start_is_not_left_behind(testguest: Callable[..., str], libvirt_uri: str,
                                                       tmp_path: Path) -> None:  # fmt: skip
    """The control: the same way, and libvirt's own words when it fails."""
    opened(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "linuxkit", "run", "libvirt", "--connect", libvirt_uri, "--accel", "tcg",
         "--networking", "network,missing", testguest("off")], capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert "virsh could not start the machine" in done.stderr
    assert "missing" in done.stderr
    assert virsh(libvirt_uri, "list", "--all", "--name").strip() == ""


def test_a_kernel_taken_out_of_its_file_boots(testguest: Callable[..., str], tmp_path: Path) -> None:
    """QEMU enters an ELF file at its PVH entry, as Firecracker and Cloud Hypervisor do."""
    prefix = testguest("off")
    vmlinux.extract(Path(f"{prefix}-kernel"), tmp_path / "vmlinux")
    assert vmlinux.pvh_entry(tmp_path / "vmlinux")

    def change(command: list[str]) -> list[str]:
        at = command.index("-bios")
        del command[at : at + 2]  # SeaBIOS knows the way
        command[command.index("-kernel") + 1] = str(tmp_path / "vmlinux")
        return command

    with boot(prefix, change=change) as machine:
        assert machine.wait(60).booted
