#!/usr/bin/env python3
"""`cache ls` of 500 images, and `cache verify` of a gigabyte against sha256sum of the same blobs, in turns.

    bench_cache.py [--runs N] [--megabytes N]

Ours are whole commands, with the start of the interpreter. Figures are medians, with the least in brackets.
The floor of `verify` is sha256sum over the same blobs, in as many processes at once as verify has threads.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))
PROGRAM = [sys.executable, "-c", "from linuxkit.cli.main import main; main()"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONDONTWRITEBYTECODE": ""}
IMAGES, LS_BAR, VERIFY_BAR = 500, 0.150, 1.3


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def verdict(value: float, bar: float) -> str:
    return f"bar {bar:<5} {'held' if value <= bar else 'MISSED'}"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--runs", type=int, default=7)
    arguments.add_argument("--megabytes", type=int, default=1000)
    given = arguments.parse_args()
    from linuxkit.oci.media import OCI_LAYER, Platform
    from linuxkit.oci.store import Store

    with tempfile.TemporaryDirectory() as name:
        many, large = Path(name, "many"), Path(name, "large")
        store = Store(many)
        for n in range(IMAGES):
            with store.write_blob(OCI_LAYER) as out:
                out.write(b"%d" % n)
            digest = out.descriptor.digest
            store.put_image(f"example.com/team/app{n}:1", Platform("linux", "amd64"),
                            {"rootfs": {"diff_ids": [digest]}}, [out.descriptor])  # fmt: skip
        store, layers = Store(large), []
        with Path("/dev/urandom").open("rb") as noise:
            for _ in range(8):
                with store.write_blob(OCI_LAYER) as out:
                    for _ in range(given.megabytes // 8):
                        out.write(noise.read(1_000_000))
                layers.append(out.descriptor)
        diff_ids = [layer.digest for layer in layers]
        store.put_image("example.com/big:1", Platform("linux", "amd64"), {"rootfs": {"diff_ids": diff_ids}}, layers)

        ls = [seconds([*PROGRAM, "--cache", str(many), "cache", "ls"]) for _ in range(given.runs)]
        ours, floor = [], []
        blobs = str(large / "blobs" / "sha256")
        threads = min(4, os.cpu_count() or 1)
        for _ in range(given.runs):
            ours.append(seconds([*PROGRAM, "-q", "--cache", str(large), "cache", "verify"]))
            floor.append(seconds(["sh", "-c", f"ls {blobs}/* | xargs -P {threads} -n 1 sha256sum"]))
        listed = statistics.median(ls)
        print(f"cache ls of {IMAGES} images   {listed:.3f} ({min(ls):.3f}) s   {verdict(listed, LS_BAR)}")
        ratio = statistics.median(ours) / statistics.median(floor)
        print(f"cache verify of {given.megabytes} MB   {statistics.median(ours):.3f} ({min(ours):.3f}) s   "
              f"floor {statistics.median(floor):.3f} ({min(floor):.3f}) s   ratio {ratio:.2f}   "
              f"{verdict(ratio, VERIFY_BAR)}")  # fmt: skip


if __name__ == "__main__":
    main()
