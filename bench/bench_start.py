#!/usr/bin/env python3
"""How long the command line takes to answer, against a bare interpreter in the same run.

    bench_start.py        prints: what, best of 15, floor, ratio
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

LINUXKIT = Path(sys.executable).with_name("linuxkit")


def best(command: list[str | Path], runs: int = 15) -> float:
    """The shortest wall time of `runs` runs, in milliseconds."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    times = []
    for _ in range(runs):
        begin = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
        times.append(time.perf_counter() - begin)
    return min(times) * 1000


def main() -> None:
    floor = best([sys.executable, "-c", "pass"])
    print(f"{'command':<28}{'ms':>8}{'floor':>8}{'ratio':>8}   bar")
    for words in (["--help"], ["version", "--short"]):
        ms = best([LINUXKIT, *words])
        verdict = "held" if ms < 100 else "MISSED"
        print(f"linuxkit {' '.join(words):<19}{ms:8.1f}{floor:8.1f}{ms / floor:8.1f}   100 ms {verdict}")


if __name__ == "__main__":
    main()
