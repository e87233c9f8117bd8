"""Machines that libvirt runs, and a kernel that was taken out of its file, entered as PVH machines do."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from linuxkit.hypervisors.convert import data_disk
from linuxkit.platforms import vmlinux
from support.libvirtd import libvirt_uri
from support.system import CRUN, Build

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
    # What the user said is the user's alone (0600). Root's daemon gives it to who runs QEMU; this is not root's.
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/virsh").write_text(f'#!/bin/sh\n[ ! -e "{state}/data.iso" ] || chmod 644 "{state}/data.iso"\n'
                                        f'exec {shutil.which("virsh")} "$@"\n')  # fmt: skip
    (tmp_path / "bin/virsh").chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    with (tmp_path / "err").open("wb") as err, (tmp_path / "out").open("wb") as out:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=env)
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


SMALL = CRUN.replace("  cmdline", "  tar: kernel-min.tar\n  cmdline") + """\
onboot:
  - name: look
    image: kit://busybox
    command:
      - /bin/sh
      - -c
      - echo disk-of-$(cat /sys/class/block/vda/size); tr -d '\\000' < /dev/vda | grep -o from-the-host
    binds: ["/dev:/dev", "/sys:/sys:ro"]
    capabilities: [all]
"""


def test_what_firecracker_is_given_boots_on_a_board_like_its_own(build: Build, tmp_path: Path) -> None:
    """Without KVM there is no Firecracker; QEMU's microvm has neither PCI nor a BIOS to speak of, and its virtio disks
    are found by ACPI as well. The kernel is an ELF file that it enters at its PVH entry."""
    prefix, state = build(SMALL), tmp_path / "state"
    done = subprocess.run(
        [sys.executable, "-m", "linuxkit", "run", "firecracker", "--dry-run", "--data", "from-the-host",
         "--state", str(state), prefix], capture_output=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    config = json.loads(done.stdout)
    source, (drive,) = config["boot-source"], config["drives"]
    state.mkdir()
    vmlinux.extract(Path(f"{prefix}-kernel"), Path(source["kernel_image_path"]))
    data_disk(Path(drive["path_on_host"]), b"from-the-host")
    assert vmlinux.pvh_entry(Path(source["kernel_image_path"]))
    command = [
        "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio",
        "-machine", "microvm,acpi=on,rtc=on,pic=on,pit=on", "-accel", "tcg,thread=single", "-cpu", "max",
        "-m", str(config["machine-config"]["mem_size_mib"]), "-kernel", source["kernel_image_path"],
        "-initrd", source["initrd_path"], "-append", source["boot_args"] + " tsc_early_khz=2000000",  # TCG has no clock
        "-drive", f"file={drive['path_on_host']},format=raw,if=none,id=d,readonly=on",
        "-device", "virtio-blk-device,drive=d",
    ]  # fmt: skip
    with (tmp_path / "console").open("wb") as out:
        machine = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        try:
            deadline = time.monotonic() + 90
            shown = ""
            while "from-the-host" not in shown.partition("disk-of-")[2]:
                shown = (tmp_path / "console").read_text(errors="replace")
                assert machine.poll() is None and time.monotonic() < deadline, shown
                time.sleep(0.2)
        finally:
            machine.kill()
            machine.wait()
    assert f"disk-of-{Path(drive['path_on_host']).stat().st_size // 512}" in shown
    broken = bytearray(Path(source["kernel_image_path"]).read_bytes())  # the control: QEMU wants the note
    at = broken.index(b"\x04\0\0\0\x08\0\0\0\x12\0\0\0Xen\0")
    broken[at + 8] = 0x7F
    (tmp_path / "no-entry").write_bytes(broken)
    assert not vmlinux.pvh_entry(tmp_path / "no-entry")
    refused = subprocess.run([*command[: command.index("-kernel") + 1], tmp_path / "no-entry"], capture_output=True,
                             timeout=30, stdin=subprocess.DEVNULL)  # fmt: skip
    assert b"PVH" in refused.stderr
