"""A small system that says by which firmware it was started, for tests of what firmware boots."""

from __future__ import annotations

from linuxkit.machine.machine import Machine
from linuxkit.machine.report import State
from support.system import CRUN

SYSTEM = CRUN.replace("  cmdline", "  tar: kernel-min.tar\n  cmdline") + """\
onboot:
  - name: marker
    image: kit://busybox
    command: ["/bin/sh", "-c", "echo started-by-$(test -d /sys/firmware/efi && echo uefi || echo bios)"]
    binds: ["/sys:/sys:ro"]
    maskedPaths: []  # /sys/firmware is masked by default
services:
  - name: service
    image: kit://busybox
    command: ["/bin/sleep", "1000"]
"""


def judge(machine: Machine, firmware: str) -> None:
    """That the system booted to its service, started by that firmware."""
    assert machine.wait_booted(140).ok
    assert {s.name: s.state for s in machine.report.steps}["service/service"] is State.RUNNING
    machine.wait_console(f"started-by-{firmware}", 20)
