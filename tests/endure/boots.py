"""Boots in a row: one image many times, and every example that runs here. What differs from the first boot is told."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from endure.scene import Summary
from linuxkit.errors import LinuxkitError
from linuxkit.machine.report import BootReport
from support.recordings import ROOT
from support.system import linuxkit
from support.vm import boot

#: Examples that need what this machine lacks: a cloud, a host device, several machines, packages of one's own.
ELSEWHERE = ("platform-", "openstack", "vsudd", "docker-desktop", "cluster", "swarm", "tunnel", "node",
             "linuxkit-template", "kubernetes-node")  # fmt: skip
DISKS = {"data-disk": 512, "dm-crypt": 256, "dm-crypt-loop": 256, "docker": 2048, "swap": 4096}


def run(count: int, seed: int) -> Summary:
    """`count` boots of examples/minimal.yml, and one of each other."""
    summary = Summary("boots", seed)
    names = sorted(path.stem for path in (ROOT / "examples").glob("*.yml"))
    names = [name for name in names if not name.startswith(ELSEWHERE) or name == "node_exporter"]
    with tempfile.TemporaryDirectory(prefix="endure-") as text:
        folder = Path(text)
        for name in names:
            done = linuxkit("build", "--arch", "amd64", str(ROOT / f"examples/{name}.yml"), cwd=folder)
            if done.returncode:
                summary.fault(f"{name} does not build: {done.stderr[-300:]}")
                continue
            times, first = [], None
            for number in range(count if name == "minimal" else max(1, count // 50)):
                report = one(folder, name, number, summary)
                if report is None:
                    continue
                summary.add("boots")
                shape = [(s.name, s.state.value, s.status) for s in report.steps]
                first = first or shape
                if sorted(shape) != sorted(first):
                    summary.fault(f"{name}, boot {number}: {sorted(set(shape) ^ set(first))}")
                times.append(report.booted or 0.0)
            if times:
                middle = statistics.median(times)
                print(f"{name}: {len(times)} boots, median {middle:.2f} s, longest {max(times):.2f} s", flush=True)
    return summary


def one(folder: Path, name: str, number: int, summary: Summary) -> BootReport | None:
    disks = ()
    if size := DISKS.get(name):
        path = folder / f"{name}.disk"
        if not path.exists():
            with open(path, "wb") as out:
                out.truncate(size << 20)
        disks = (str(path),)
    try:
        with boot(str(folder / name), seconds=300, disks=disks, memory=1024 if name == "docker" else 0) as machine:
            report = machine.wait_booted(240)
            if not report.ok:
                summary.fault(f"{name}, boot {number}: {[s.name for s in report.failed]}")
            if not machine.power_off(60).off:
                summary.fault(f"{name}, boot {number}: it did not power off")
            return report
    except LinuxkitError as e:
        summary.fault(f"{name}, boot {number}: {e.message}")
        return None
