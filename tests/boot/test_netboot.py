"""A machine that boots from the network: QEMU's iPXE and `linuxkit serve`."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from linuxkit import host
from linuxkit.machine.machine import Machine
from linuxkit.platforms import accel, qemu
from linuxkit.serving.server import Server

pytestmark = pytest.mark.boot


def test_a_machine_boots_from_what_is_served(testguest: Callable[..., str], tmp_path: Path) -> None:
    prefix = Path(testguest("ok"))
    folder, state = tmp_path / "served", tmp_path / "state"
    folder.mkdir()
    state.mkdir()
    for end in ("-kernel", "-initrd.img", "-cmdline"):  # whole files: a link that leads outside is not served
        shutil.copyfile(f"{prefix}{end}", folder / f"web{end}")
    lines: list[str] = []
    server = Server("127.0.0.1", 0, folder, log=lines.append)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    card = ("-netdev", f"user,id=n0,bootfile=http://10.0.2.2:{server.server_port}/boot.ipxe",
            "-device", "virtio-net-pci,netdev=n0,bootindex=0")  # fmt: skip
    spec = qemu.MachineSpec(
        qemu=host.find_tool("qemu-system-x86_64", why="to run a machine"), accel=accel.Accel(accel.TCG, ""),
        kernel=None, networking=qemu.Networking(qemu.Network.NONE), extra=card,
    )  # fmt: skip
    try:
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
    asked = [line.split()[2] for line in lines]
    assert asked == ["/boot.ipxe", "/web-kernel", "/web-initrd.img"]
    size = (folder / "web-kernel").stat().st_size
    assert lines[1].endswith(f" 200 {size}")
