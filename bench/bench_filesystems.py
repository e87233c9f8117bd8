#!/usr/bin/env python3
"""squashfs and EROFS of a root of some 250 MB against mksquashfs and mkfs.erofs, in turns in one run.

    bench_filesystems.py [--cache DIR] [--runs N] [--levels 3,15] [--erofs none,lz4]

    mksquashfs     of the same tree, unpacked into a folder, with the same codec and level, on two processors
    start          linuxkit build --plan: what every build costs, whatever it makes
    first          linuxkit build --format kernel+squashfs; the layers are unpacked, nothing has been compressed
    blocks cached  the same; the compressed blocks are in the cache, the image is not
    mkfs.erofs     with its defaults, and with lz4 in clusters of 128 KiB; Debian 12's knows no zstd

The root is made of the kit's images in --cache: every file of them once, and shifted by some bytes until there are
250 MB, so that nothing comes twice. Whole commands are timed: medians, with the least in brackets. On a machine that
does other work, compare the processor times: mksquashfs has more threads than processors, and so gets more of them.
"""

from __future__ import annotations

import argparse
import os
import resource
import shlex
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
sys.path.insert(0, str(ROOT / "src"))

from bench_build import PROGRAM, timed, turns  # noqa: E402

SIZE = 250_000_000
RATIO, WARM = 1.3, 0.6
EROFS = {"none": 1.3, "lz4": 1.5}


YAML = """\
kernel: {image: kit://kernel, cmdline: console=ttyS0}
init: [kit://init, kit://runc, kit://containerd, kit://ca-certificates, kit://busybox]
services:
  - {name: nginx, image: kit://nginx}
  - {name: dhcpcd, image: kit://dhcpcd}
  - {name: sysctl, image: kit://sysctl}
  - {name: getty, image: kit://getty}
"""


def make_root(cache: Path, work: Path) -> tuple[int, int]:
    """An image t/big:1 in work/cache, from the files of YAML. Returns its number of files and bytes."""
    from linuxkit import Sources, load
    from linuxkit.api import plan
    from linuxkit.encode.tree import tree, walk
    from linuxkit.entry import Kind, read_all
    from linuxkit.oci.derived import Derived
    from linuxkit.oci.store import Store
    from linuxkit.plan.model import Options
    from linuxkit.rootfs.assemble import assemble
    from linuxkit.rootfs.content import Content
    from support.images import make_image, member, symlink, tar_of

    (work / "kit.yml").write_text(YAML)
    content = Content(Store(cache), Derived(cache / "derived"))
    segments = assemble(plan(load(work / "kit.yml"), Sources(cache), Options()), content, boot=True)
    found, members = {}, []
    for path, node in walk(tree([entry for segment in segments for entry in segment.entries()])):
        if node.entry.kind is Kind.FILE:
            found[path] = read_all(node.entry.source, 1 << 30)
        elif node.entry.kind is Kind.SYMLINK:
            members.append(symlink(f"0/{path}", node.entry.target))
    total = turn = 0
    while total < SIZE:
        for path, data in found.items():
            shift = 17 * turn % (len(data) or 1)
            members.append(member(f"{turn}/{path}", data[shift:] + data[:shift], mode=0o644))
            total += len(data)
            if total >= SIZE:
                break
        turn += 1
    make_image(Store(work / "cache"), "docker.io/t/big:1", tar_of(*members))
    return len(members), total


def measured(command: list[str], work: Path, busy: list[float]) -> float:
    """Seconds that a command takes; those of processors go into `busy`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = timed(command, work)[0]
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return seconds


def compare(work: Path, runs: int, level: int) -> None:
    """The rows of one level."""
    build = [*PROGRAM, "--cache", "cache", "build", "--no-sbom", "--format", "kernel+squashfs", "--level", str(level),
             "big.yml"]  # fmt: skip
    make = ["mksquashfs", "tree", "theirs.img", "-comp", "zstd", "-Xcompression-level", str(level), "-processors", "2",
            "-noappend", "-no-progress", "-quiet"]  # fmt: skip

    def forget(*kinds: str) -> None:
        for kind in kinds:
            shutil.rmtree(work / "cache" / "derived" / kind, ignore_errors=True)
        (work / "big-squashfs.img").unlink(missing_ok=True)  # to remove what is replaced takes time for both
        os.sync()

    def theirs() -> float:
        (work / "theirs.img").unlink(missing_ok=True)
        os.sync()
        return measured(make, work, busy[1])

    def first() -> float:
        forget("builds", "filesystems", "blocks")
        return measured(build, work, busy[0])

    def warm() -> float:
        forget("builds", "filesystems")
        return timed(build, work)[0]

    busy: tuple[list[float], list[float]] = [], []
    first()
    busy[0].clear()
    begin = shlex.join([*build, "--plan"]) + " > plan.json"
    ours, floor, start = turns(runs, first, theirs, lambda: timed(begin, work)[0])
    again = turns(runs, warm)[0]
    forget("builds", "filesystems", "blocks")
    peak = timed(build, work)[1]
    sizes = [(work / name).stat().st_size / 1e6 for name in ("big-squashfs.img", "theirs.img")]
    verdict(f"zstd {level}: first", statistics.median(ours) / statistics.median(floor), RATIO, "x",
            f"{spread(ours)} s, {spread(start)} s of it start; mksquashfs {spread(floor)} s")  # fmt: skip
    verdict(f"zstd {level}: blocks cached", statistics.median(again), WARM, " s", f"{spread(again)} s")
    print(f"{'':<28}processor time {statistics.median(busy[0]):.2f} s, mksquashfs {statistics.median(busy[1]):.2f} s")
    print(f"{'':<28}{sizes[0]:.1f} MB, mksquashfs {sizes[1]:.1f} MB; peak memory {peak:.0f} MiB", flush=True)


def compare_erofs(work: Path, runs: int, codec: str) -> None:
    """The row of a codec; "none" is the default of both."""
    build = [*PROGRAM, "--cache", "cache", "build", "--no-sbom", "--format", "kernel+erofs", "--compress", codec,
             "big.yml"]  # fmt: skip
    make = ["mkfs.erofs", "--quiet", *([] if codec == "none" else ["-zlz4", "-C131072"]), "theirs.img", "tree"]

    def first() -> float:
        for kind in ("builds", "filesystems", "blocks"):
            shutil.rmtree(work / "cache" / "derived" / kind, ignore_errors=True)
        (work / "big-erofs.img").unlink(missing_ok=True)
        os.sync()
        return timed(build, work)[0]

    def theirs() -> float:
        (work / "theirs.img").unlink(missing_ok=True)
        os.sync()
        return timed(make, work)[0]

    first()
    ours, floor = turns(runs, first, theirs)
    peak = timed([*build[:-1], "--name", "other", "big.yml"], work)[1]
    sizes = [(work / name).stat().st_size / 1e6 for name in ("big-erofs.img", "theirs.img")]
    than = "mkfs.erofs" if codec == "none" else "mkfs.erofs -zlz4 -C131072"
    verdict(f"erofs {codec}: first", statistics.median(ours) / statistics.median(floor), EROFS[codec], "x",
            f"{spread(ours)} s, {than} {spread(floor)} s")  # fmt: skip
    print(f"{'':<28}{sizes[0]:.1f} MB, {than} {sizes[1]:.1f} MB; peak memory {peak:.0f} MiB", flush=True)


def spread(figures: list[float]) -> str:
    return f"{statistics.median(figures):.3f} ({min(figures):.3f})"


def verdict(what: str, figure: float, bar: float, unit: str, more: str) -> None:
    held = "held" if figure <= bar else "MISSED"
    print(f"{what:<28}{figure:.2f}{unit}   bar {bar}{unit}   {held}   {more}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = os.environ.get("LINUXKIT_CACHE") or Path.home() / ".linuxkit" / "cache"
    parser.add_argument("--cache", type=Path, default=default)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--levels", default="3,15")
    parser.add_argument("--erofs", default="none,lz4", choices=["none", "lz4", "none,lz4", ""])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-filesystems-") as folder:
        work = Path(folder)
        if (child := os.fork()) == 0:  # a process counts what its parent had in memory when it was started
            files, total = make_root(Path(given.cache).absolute(), work)
            print(f"{files} files, {total / 1e6:.0f} MB", flush=True)
            os._exit(0)
        if os.waitpid(child, 0)[1]:
            sys.exit("the image could not be made")
        (work / "big.yml").write_text("init:\n  - t/big:1\n")
        timed([*PROGRAM, "--cache", "cache", "build", "--no-sbom", "--format", "kernel+squashfs", "big.yml"], work)
        timed(["unsquashfs", "-quiet", "-no-progress", "-d", "tree", "big-squashfs.img"], work)
        for level in filter(None, given.levels.split(",")):
            compare(work, given.runs, int(level))
        for codec in filter(None, given.erofs.split(",")):
            compare_erofs(work, given.runs, codec)


if __name__ == "__main__":
    main()
