"""Four processes pull and import into one cache, and are killed at random moments: what is left must be whole.

    faults.py FOLDER REGISTRY NAMES ARCHIVE KILLS [in-place]

Prints {"kills": N, "finished": N, "failed": N, "blobs": N, "damage": [...]}; blobs are those that were there at the end
of a round. With `in-place`, blobs are written under their own names, without a temporary file and a rename, and slowly,
so that a kill meets one half-written: the negative control.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

from linuxkit.oci import pull
from linuxkit.oci.archive import import_archive
from linuxkit.oci.blob import BlobWriter
from linuxkit.oci.partial import BusyError
from linuxkit.oci.reference import parse_reference
from linuxkit.oci.registry import RegistryClient
from linuxkit.oci.store import Store
from linuxkit.oci.transport import Transport
from linuxkit.oci.verify import inspect

PROCESSES = 4
KILLS_A_ROUND = 10
SEED = 20261123


def write_in_place() -> None:
    """Leave out what makes a blob whole or not there."""

    def enter(self: BlobWriter) -> BlobWriter:
        self._path = self._folder / self._want[7:]
        self._stream = open(self._path, "w+b")  # noqa: SIM115
        return self

    def write(self: BlobWriter, data: bytes | memoryview) -> None:
        half = len(data) // 2
        for part in (data[:half], data[half:]):
            self._stream.write(part)
            self._stream.flush()
            time.sleep(0.01)

    def leave(self: BlobWriter, kind: object, error: object, trace: object) -> None:
        self._stream.close()

    def busy(*args: object) -> None:
        raise BusyError

    BlobWriter.__enter__, BlobWriter.write, BlobWriter.__exit__ = enter, write, leave
    pull.PartialBlob = busy


def work(cache: Path, registry: str, names: list[str], archive: Path, order: random.Random) -> None:
    """Bring in everything, in an order of one's own."""
    jobs = [*names, str(archive)]
    order.shuffle(jobs)
    client = RegistryClient(Store(cache), Transport())
    for job in jobs:
        if job in names:
            client.pull_all(parse_reference(f"{registry}/{job}"), None)
        else:
            import_archive(Store(cache), Path(job))


def start(cache: Path, registry: str, names: list[str], archive: Path, moments: random.Random) -> int:
    order = random.Random(moments.random())
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        work(cache, registry, names, archive, order)
        status = 0
    finally:
        os._exit(status)


def play(cache: Path, kills: int, moments: random.Random, begin: Callable[[], int], count: Counter[str]) -> list[str]:
    """One round: kill, start another, kill; then look at what is left."""
    running = [begin() for _ in range(PROCESSES)]
    for n in range(kills + PROCESSES):
        time.sleep(moments.uniform(0, 0.08))
        victim = moments.choice(running)
        os.kill(victim, signal.SIGKILL)
        _, status = os.waitpid(victim, 0)
        count["kills" if os.WIFSIGNALED(status) else "failed" if status else "finished"] += 1
        running.remove(victim)
        if n < kills:
            running.append(begin())
    report = inspect(Store(cache))
    count["blobs"] += report.blobs
    return [str(found) for found in report.damage]


def main() -> None:
    folder, registry, names, archive, kills = sys.argv[1:6]
    if "in-place" in sys.argv:
        write_in_place()
    moments, count = random.Random(SEED), Counter[str]()
    damage: list[str] = []
    while count["kills"] < int(kills):
        cache = Path(folder) / f"cache{len(damage)}"
        begin = partial(start, cache, registry, names.split(","), Path(archive), moments)
        damage += play(cache, KILLS_A_ROUND, moments, begin, count)
        shutil.rmtree(cache)
    print(json.dumps({**count, "damage": damage}))


if __name__ == "__main__":
    main()
