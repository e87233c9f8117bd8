"""A cache disk that fills up, turns read-only, loses a blob: a plain error in seconds, and all works afterwards."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from pathlib import Path

from endure.scene import Scene, Summary, kill, scene

LIMIT = 60.0  # seconds in which a command has to say that it cannot


def run(count: int, seed: int) -> Summary:
    summary, order = Summary("disks", seed), random.Random(seed)
    with scene() as here:
        small = here.folder / "small"
        small.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", small], check=False).returncode:
            summary.fault("a small disk needs the right to mount one: run as root, or in unshare -rm")
            return summary
        try:
            here.cache = small / "cache"
            for number in range(count):
                here.renew()
                words = order.choice(here.commands(number % 5))
                kind = order.choice(["full", "read-only", "lost", "damaged"])
                began = time.monotonic()
                status, said = {"full": full, "read-only": read_only, "lost": lost, "damaged": damaged}[kind](
                    here, words, order, small
                )
                summary.add(kind)
                if time.monotonic() - began > LIMIT or "Traceback" in said:
                    summary.fault(f"{kind}, {' '.join(words)}: {time.monotonic() - began:.0f} s: {said[-400:]}")
                if status not in (0, 1):
                    summary.fault(f"{kind}, {' '.join(words)}: status {status}: {said[-400:]}")
                after(here, summary, kind, words)
        finally:
            subprocess.run(["umount", "-l", small], check=False)
    return summary


def full(here: Scene, words: list[str], order: random.Random, small: Path) -> tuple[int, str]:
    """Leave between nothing and 2 MB."""
    ballast = small / "ballast"
    space = os.statvfs(small)
    with open(ballast, "wb") as out:
        os.posix_fallocate(out.fileno(), 0, max(4096, space.f_bavail * space.f_frsize - order.randrange(2 << 20)))
    try:
        return here.run(words)
    finally:
        ballast.unlink()


def read_only(here: Scene, words: list[str], order: random.Random, small: Path) -> tuple[int, str]:
    """The disk gives up while the command works."""
    child = here.start(words)
    time.sleep(order.uniform(0, 0.5))
    for _ in range(100):  # busy while a file is open for writing
        done = subprocess.run(["mount", "-o", "remount,ro", small], stderr=subprocess.DEVNULL, check=False)
        if done.returncode == 0 or child.poll() is not None:
            break
        time.sleep(0.01)
    try:
        said, _ = child.communicate(timeout=LIMIT + 5)
        return child.returncode, said
    except subprocess.TimeoutExpired:
        kill(child)
        return -1, "no end"
    finally:
        subprocess.run(["mount", "-o", "remount,rw", small], check=False)


def lost(here: Scene, words: list[str], order: random.Random, small: Path) -> tuple[int, str]:
    blobs = sorted((here.cache / "blobs/sha256").iterdir())
    order.choice(blobs).unlink()
    return here.run(words)


def damaged(here: Scene, words: list[str], order: random.Random, small: Path) -> tuple[int, str]:
    path = order.choice(sorted((here.cache / "blobs/sha256").iterdir()))
    data = bytearray(path.read_bytes())
    data[order.randrange(len(data))] ^= 1 << order.randrange(8)
    path.unlink()
    path.write_bytes(data)
    return here.run(words)


def after(here: Scene, summary: Summary, kind: str, words: list[str]) -> None:
    """With the disk as it should be, and a repaired cache, the same command works."""
    if kind in ("lost", "damaged"):
        shutil.rmtree(here.cache / "blobs")
        shutil.copytree(here.blank / "blobs", here.cache / "blobs")
    status, said = here.run(words)
    if status:
        summary.fault(f"after {kind}, {' '.join(words)}: {said[-400:]}")
    status, said = here.run(["cache", "verify"])
    if status:
        summary.fault(f"after {kind}, {' '.join(words)}, cache verify: {said[-400:]}")
