"""A machine that boots from the network: QEMU's iPXE and `linuxkit serve`."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from linuxkit import host
from linuxkit.machine.machine import Machine
from linuxkit.platforms import accel, qemu
from linuxkit.serving.server import Server

pytestmark = pytest.mark.boot


def boot(folder: Path, script: str, state: Path, prepare: Callable[[str], None] = lambda base: None) -> list[str]:
    """Boot a machine that loads a script from a folder; the server's log.

    Args:
        prepare: called with the folder's address as the machine sees it.
    """
    lines: list[str] = []
    state.mkdir()
    server = Server("127.0.0.1", 0, folder, log=lines.append)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    base = f"http://10.0.2.2:{server.server_port}"
    card = ("-netdev", f"user,id=n0,bootfile={base}/{script}", "-device", "virtio-net-pci,netdev=n0,bootindex=0")
    spec = qemu.MachineSpec(
        qemu=host.find_tool("qemu-system-x86_64", why="to run a machine"), accel=accel.Accel(accel.TCG, ""),
        kernel=None, networking=qemu.Networking(qemu.Network.NONE), extra=card,
    )  # fmt: skip
    try:
        prepare(base)
        with Machine(lambda channels: qemu.command(spec, channels), state=state) as machine:
            watchdog = threading.Timer(90, machine.kill)
            watchdog.start()
            try:
                assert machine.wait_booted(80).ok
                assert machine.power_off(15).off
            finally:
                watchdog.cancel()
                print(machine.console, *lines, sep="\n")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    return lines


def test_a_machine_boots_from_what_is_served(testguest: Callable[..., str], tmp_path: Path) -> None:
    prefix = Path(testguest("ok"))
    folder = tmp_path / "served"
    folder.mkdir()
    for end in ("-kernel", "-initrd.img", "-cmdline"):  # whole files: a link that leads outside is not served
        shutil.copyfile(f"{prefix}{end}", folder / f"web{end}")
    lines = boot(folder, "boot.ipxe", tmp_path / "state")
    asked = [line.split()[2] for line in lines]
    assert asked == ["/boot.ipxe", "/web-kernel", "/web-initrd.img"]
    size = (folder / "web-kernel").stat().st_size
    assert lines[1].endswith(f" 200 {size}")


def test_a_machine_boots_what_was_pushed_for_ipxe(testguest: Callable[..., str], tmp_path: Path) -> None:
    """By the script that push equinixmetal writes, with an initrd that it unpacked."""
    prefix = testguest("ok")
    folder = tmp_path / "pushed"
    folder.mkdir()

    def push(base: str) -> None:
        command = ["push", "equinixmetal", "--base-url", base, "--destination", str(folder), "--img-name", "web",
                   "--decompress", prefix]  # fmt: skip
        subprocess.run([sys.executable, "-m", "linuxkit", *command], check=True, timeout=60)
        assert (folder / "web-initrd.img").read_bytes()[:4] == b"0707"

    lines = boot(folder, "web-equinixmetal.ipxe", tmp_path / "state", push)
    assert [line.split()[2] for line in lines] == ["/web-equinixmetal.ipxe", "/web-kernel", "/web-initrd.img"]
