#!/usr/bin/env python3
"""Builds of examples/web.yml against their floors, measured in turns in one run; and the peak memory for a 250 MB root.

    bench_build.py [--cache DIR] [--runs N] [--yaml FILE]

    rebuild, nothing changed    floor: an interpreter start, and cat of the same output
    rebuild, one line changed   no floor; the bar is absolute
    first build                 floor: every layer unpacked and the result compressed once, zstd 3, on two threads
    peak memory                 of a first build and a rebuild

Absolute bars are for two idle cores; the ratios hold on a busy machine too, since floor and build take turns. The
figures are medians, with the least in brackets. "Derived" is emptied for first builds: it is safe to delete.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
sys.path.insert(0, str(ROOT / "src"))

PROGRAM = [sys.executable, "-c", "from linuxkit.cli.main import main; main()"]
FLOOR = """
import sys, zlib
from concurrent.futures import ThreadPoolExecutor
try:
    from compression import zstd
except ImportError:
    from backports import zstd
def work(path):
    with open(path, "rb") as f:
        magic = f.read(4); f.seek(0)
        if magic[:2] == b"\\x1f\\x8b": d = zlib.decompressobj(31)
        elif magic == b"\\x28\\xb5\\x2f\\xfd": d = zstd.ZstdDecompressor()
        else: d = None
        c = zstd.ZstdCompressor(level=3)
        n = 0
        while piece := f.read(1 << 18):
            n += len(c.compress(d.decompress(piece) if d else piece))
        return n + len(c.flush())
with ThreadPoolExecutor(2) as pool:
    sum(pool.map(work, sys.argv[1:]))
"""


def timed(command: list[str] | str, cwd: Path) -> tuple[float, float]:
    """(seconds, peak MiB)."""
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"} | {"PYTHONPATH": str(ROOT / "src")}
    start = time.perf_counter()
    child = subprocess.Popen(command, cwd=cwd, env=env, shell=isinstance(command, str), stderr=subprocess.PIPE)
    assert child.stderr is not None
    text = child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f"{command} failed:\n{text.decode()}")
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def turns(runs: int, *work: Callable[[], float]) -> list[list[float]]:
    """Each piece of work `runs` times, in turns."""
    seconds: list[list[float]] = [[] for _ in work]
    for _ in range(runs):
        for n, one in enumerate(work):
            seconds[n].append(one())
    return seconds


def show(what: str, figures: list[float], floor: list[float] | None, bar: str) -> None:
    text = f"{what:<28}{statistics.median(figures):>7.3f} s ({min(figures):.3f})"
    if floor:
        text += f"   floor {statistics.median(floor):.3f} s ({min(floor):.3f})"
        ratio = statistics.median(figures) / statistics.median(floor)
        text += f"   ratio {ratio:.2f} ({min(figures) / min(floor):.2f})"
    print(f"{text:<100} bar {bar}", flush=True)


def web(cache: Path, runs: int, yaml: Path) -> None:
    """The three rows about time."""
    with tempfile.TemporaryDirectory(prefix="bench-build-") as folder:
        work = Path(folder)
        shutil.copy(yaml, work / "web.yml")
        build = [*PROGRAM, "--cache", str(cache), "build", "web.yml"]
        for _ in range(3):
            timed(build, work)
        outputs = [p.name for p in work.iterdir() if p.suffix != ".yml"]
        copy = "; ".join(f"cat {name} > copy-{name}" for name in outputs)
        start = [sys.executable, "-c", "pass"]
        rebuilt, floor = turns(
            runs, lambda: timed(build, work)[0], lambda: timed(start, work)[0] + timed(copy, work)[0]
        )
        show("rebuild, nothing changed", rebuilt, floor, "0.4 s, 3x")

        changed = []
        for n in range(runs):
            (work / "web.yml").write_text(yaml.read_text().replace("It boots.", f"It boots {time.time_ns()} {n}."))
            changed.append(timed(build, work)[0])
        show("rebuild, one line changed", changed, None, "0.5 s")

        layers = layer_files(cache, work / "web.yml")
        unpack = [sys.executable, "-c", FLOOR, *layers]

        def first() -> float:
            shutil.rmtree(cache / "derived", ignore_errors=True)
            return timed(build, work)[0]

        cold, floor = turns(max(3, runs // 3), first, lambda: timed(unpack, work)[0])
        show("first build", cold, floor, "1.5x")


def layer_files(cache: Path, yaml: Path) -> list[str]:
    """The blobs of every layer that a build reads, each once, largest first."""
    from linuxkit import Sources, load
    from linuxkit.api import plan
    from linuxkit.plan.model import Options

    found = plan(load(yaml), Sources(cache), Options())
    images = [tree.image for tree in (*found.init, *(b.tree for b in found.bundles if b.tree))]
    images += [found.kernel.image] if found.kernel else []
    layers = {layer.digest: layer.size for image in images for layer in image.layers}
    return [str(cache / "blobs" / "sha256" / d[7:]) for d in sorted(layers, key=lambda d: -layers[d])]


def memory() -> None:
    """A root of 250 MB in one image of 4000 files."""
    from linuxkit.oci.store import Store
    from support.images import make_image, member, tar_of

    rng = random.Random(1)
    words = [rng.randbytes(64) for _ in range(4000)]
    with tempfile.TemporaryDirectory(prefix="bench-memory-") as folder:
        work = Path(folder)
        if (child := os.fork()) == 0:  # a process counts what its parent had in memory when it was started
            files = [member(f"f{n}", b"".join(rng.choices(words, k=1000)), mode=0o644) for n in range(3999)]
            make_image(Store(work / "cache"), "docker.io/t/big:1", tar_of(*files))
            os._exit(0)
        if os.waitpid(child, 0)[1]:
            sys.exit("the image could not be made")
        (work / "big.yml").write_text("init:\n  - t/big:1\n")
        build = [*PROGRAM, "--cache", "cache", "build", "big.yml"]
        for what in ("first build", "rebuild"):
            seconds, peak = timed(build, work)
            print(f"{'peak memory, ' + what:<28}{peak:>7.1f} MiB   {seconds:.1f} s, 256 MB root{'':<48} bar 120 MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = os.environ.get("LINUXKIT_CACHE") or Path.home() / ".linuxkit" / "cache"
    parser.add_argument("--cache", type=Path, default=default)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--yaml", type=Path, default=ROOT / "examples" / "web.yml")
    parser.add_argument("--only", choices=["time", "memory"])
    given = parser.parse_args()
    if given.only != "memory":
        web(Path(given.cache).absolute(), given.runs, given.yaml)
    if given.only != "time":
        memory()


if __name__ == "__main__":
    main()
