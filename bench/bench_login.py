#!/usr/bin/env python3
"""From /init to a machine that one can log in to, and what a login takes: examples/sshd.yml, no containerd.

    bench_login.py

Boots under TCG with one CPU. "Ready" is when the server greets a client, host keys made and all. The guest's clock
tells when its last service had started, this host's how much later the greeting came; the sum is rather too long.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from support.ssh import greeting, keypair, ssh  # noqa: E402
from support.system import build_in  # noqa: E402
from support.vm import boot, cache_dir  # noqa: E402

RUNS = 3
BAR = 6.0


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="bench-login-") as work:
        os.environ["LINUXKIT_TEST_CACHE"] = str(cache_dir())
        os.environ["HOME"] = work  # where the example looks for the key
        key = keypair(Path(work) / ".ssh")
        prefix = build_in(Path(work), (ROOT / "examples/sshd.yml").read_text())
        print(f"{'init to ready':>16}{'bar':>8}{'a login':>12}")
        for _ in range(RUNS):
            with boot(prefix, seconds=120, publish=("127.0.0.1:0:22",)) as machine:
                report, began = machine.wait_booted(100), time.monotonic()
                greeting(machine, 22, b"SSH-2.0-")
                ready = (report.booted or 0) - min(step.start for step in report.steps) + time.monotonic() - began
                began = time.monotonic()
                assert ssh(machine, key, "true").returncode == 0
                login = time.monotonic() - began
            print(f"{ready:14.2f} s{BAR:6.1f} s{login:10.2f} s   {'held' if ready < BAR else 'MISSED'}")


if __name__ == "__main__":
    main()
