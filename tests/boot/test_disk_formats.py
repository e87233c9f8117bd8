"""Disk files booted as they are, by QEMU's readers of their formats."""

from __future__ import annotations

import pytest

from linuxkit.machine.machine import Machine
from linuxkit.machine.report import State
from support.system import CRUN, Build
from support.vm import boot

pytestmark = pytest.mark.boot
SYSTEM = CRUN.replace("  cmdline", "  tar: kernel-min.tar\n  cmdline") + """\
services:
  - name: service
    image: kit://busybox
    command: ["/bin/sleep", "1000"]
"""
#: format → how its file's name ends, what QEMU calls it, flags of build, whether UEFI firmware starts it
DISKS = {
    "qcow2-bios": (".qcow2", "qcow2", ["--qcow2-compress", "zstd"], False),
    "qcow2-efi": ("-efi.qcow2", "qcow2", [], True),
    "vmdk": (".vmdk", "vmdk", [], False),
    "vhdx": (".vhdx", "vhdx", [], False),
}


def judge(machine: Machine, kind: str, uefi: bool) -> None:
    """That the system booted to its service, from a disk of that kind."""
    spec = machine.prepared.spec  # type: ignore[attr-defined]
    assert spec.disks[0].format == kind and (spec.firmware is not None) == uefi
    assert machine.wait_booted(140).ok
    assert {s.name: s.state for s in machine.report.steps}["service/service"] is State.RUNNING


@pytest.mark.parametrize("name", DISKS)
def test_it_boots_to_its_service(build: Build, name: str) -> None:
    ending, kind, flags, uefi = DISKS[name]
    with boot(build(SYSTEM, "--format", name, *flags) + ending, seconds=150) as machine:
        judge(machine, kind, uefi)
