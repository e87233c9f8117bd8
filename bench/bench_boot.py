#!/usr/bin/env python3
"""From /init to the last of three services, in guest seconds and in guest instructions.

    bench_boot.py [crun|containerd]...

Each system boots twice under TCG with one CPU. The plain boot gives seconds as a user sees them. The other counts
instructions (-icount shift=3: 8 ns of guest time an instruction, so the guest's own clock is the counter) and repeats
exactly on one host with one QEMU. The floor is the same kernel and initrd with a service list that is empty.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from support.system import build_in  # noqa: E402
from support.vm import boot  # noqa: E402

KERNEL = 'kernel:\n  image: kit://kernel\n  cmdline: "console=ttyS0 nokaslr"\n  tar: kernel-min.tar\ninit:\n  - kit://init\n'
PARTS = {"crun": "  - kit://crun\n", "containerd": "  - kit://runc\n  - kit://containerd\n"}
BARS = {"crun": 2.5, "containerd": 10.0}
SERVICE = "  - name: s{n}\n    image: kit://busybox\n    command: ['/bin/sh', '-c', 'exec sleep 100000']\n"
#: what makes a boot repeat to the instruction: no random instructions, and the clock is the instruction count
COUNTED = (
    "-icount", "shift=3,sleep=off", "-rtc", "base=2026-01-01T00:00:00,clock=vm", "-seed", "1",
    "-cpu", "max,-rdrand,-rdseed",
)  # fmt: skip
NS_PER_INSTRUCTION = 8


def counted(arguments: list[str]) -> list[str]:
    """A command line without what works in the host's time: the random device, queues that another thread serves, and
    the console, whose socket can be full."""
    kept: list[str] = []
    for flag, value in itertools.zip_longest(arguments, arguments[1:], fillvalue=""):
        if "rng" in flag or (flag in ("-object", "-device") and "rng" in value):
            continue
        flag = "null,id=console" if flag.startswith("socket,id=console") else flag
        kept.append(flag.replace("virtio-serial-pci", "virtio-serial-pci,ioeventfd=off"))
    return [*kept, *COUNTED]


def measure(prefix: str, change: Callable[[list[str]], list[str]] | None = None) -> tuple[float, float]:
    """(guest seconds at /init's first word, guest seconds when the last service was ready)."""
    with boot(prefix, seconds=180, memory=1024, networking="none", change=change) as machine:
        report = machine.wait_booted(170)
        assert report.ok, report
        events = machine.events  # type: ignore[attr-defined]
        ready = [e.t for e in events if e.event == "ready" and e.step.startswith("service/")]
        booted = max(e.t for e in events if e.event == "booted")
        return min(step.start for step in report.steps), max(ready, default=booted)


def main() -> None:
    wanted = sys.argv[1:] or list(PARTS)
    print(f"{'system':<12}{'init to last service':>22}{'bar':>8}"
          f"{'instructions':>16}{'again':>16}{'no services':>16}{'ratio':>8}")  # fmt: skip
    for name in wanted:
        with tempfile.TemporaryDirectory(prefix="bench-boot-") as work:
            services = "services:\n" + "".join(SERVICE.format(n=n) for n in range(3))
            full = build_in(Path(work), KERNEL + PARTS[name] + services, name="full")
            empty = build_in(Path(work), KERNEL + PARTS[name], name="empty")
            first, last = measure(full)
            counts = []
            for prefix in (full, full, empty):
                begin, end = measure(prefix, counted)
                counts.append(round((end - begin) * 1e9 / NS_PER_INSTRUCTION))
        seconds = last - first
        verdict = "held" if seconds < BARS[name] else "MISSED"
        print(f"{name:<12}{seconds:20.2f} s{BARS[name]:6.1f} s{counts[0]:16,}{counts[1]:16,}{counts[2]:16,}"
              f"{counts[0] / max(counts[2], 1):8.1f}   {verdict}")  # fmt: skip


if __name__ == "__main__":
    main()
