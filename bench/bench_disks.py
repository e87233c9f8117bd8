#!/usr/bin/env python3
"""Disk files from a ready kernel and root against copying the same bytes; compressed ones against compressing once.

    bench_disks.py [--runs N] [--megabytes N]

    plain        raw, qcow2, VHD, VHDX, ISO: tables made and the file written; floor: cp --sparse=always of the raw disk
    compressed   VMDK, qcow2 with zlib and zstd, Google's archive; floor: the same blocks through the same codec on two
                 threads, written end to end
    another      a second format of a system that was built: planning, wrapping, writing; floor: cp of what it writes
    memory       the most that a child process has while it writes a disk of 2 GB

Work and floor take turns in one run; the figures are medians, with the least in brackets.
"""

from __future__ import annotations

import argparse
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
sys.path.insert(0, str(ROOT / "src"))

from linuxkit.encode import fat, gcp, gpt, iso9660, qcow2, vhd, vhdx, vmdk  # noqa: E402
from linuxkit.encode.pieces import Piece, cut, read, size_of  # noqa: E402
from linuxkit.encode.tree import tree  # noqa: E402
from linuxkit.entry import Entry, Extent, Kind  # noqa: E402
from linuxkit.outputs.pieces import put  # noqa: E402

MIB = 1 << 20
BAR, MEMORY = 1.5, 150
KERNEL = 12 * MIB


def content(path: Path, size: int) -> None:
    """A file that compresses about as an initrd does: hardly, but for some text in it."""
    noise = random.Random(1)
    with path.open("wb") as out:
        while out.tell() < size:
            out.write(noise.randbytes(7 * MIB) + b"".join(b"line %d of some text\n" % n for n in range(48_000)))
        out.truncate(size)


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def turns(runs: int, *work: Callable[[], object]) -> list[list[float]]:
    return [list(row) for row in zip(*([timed(one) for one in work] for _ in range(runs)), strict=True)]


def show(what: str, figures: Sequence[float], floor: Sequence[float], bar: float = BAR, more: float = 0) -> None:
    """One row; held when the time is at most `bar` times the floor and `more` seconds."""
    middle, least = statistics.median(figures), statistics.median(floor)
    ratio = middle / least
    verdict = "held" if middle <= bar * least + more else "MISSED"
    extra = f" + {more} s" if more else ""
    print(f"{what:<22}{middle:>7.3f} s ({min(figures):.3f})   floor {least:.3f} s ({min(floor):.3f})   "
          f"ratio {ratio:.2f}   bar {bar}{extra} {verdict}", flush=True)  # fmt: skip


def save(pieces: Sequence[Piece], path: Path) -> None:
    path.unlink(missing_ok=True)
    with path.open("wb") as out:
        put(pieces, out)


def copy(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    subprocess.run(["cp", "--sparse=always", source, target], check=True)


def disk(folder: Path) -> list[Piece]:
    kernel, initrd = (Piece((folder / n).stat().st_size, str(folder / n)) for n in ("kernel", "initrd"))
    esp = fat.volume({"kernel": [kernel], "initrd.img": [initrd]}, seed="s", bits=32, hidden=2048)
    return gpt.disk([gpt.Partition(esp.pieces, gpt.ESP, "EFI System")], seed="s")


def iso(folder: Path) -> list[Piece]:
    files = ((n, folder / n) for n in ("kernel", "initrd"))
    entries = [Entry(n, Kind.FILE, source=Extent(str(p), 0, p.stat().st_size)) for n, p in files]
    return list(iso9660.volume(tree(entries), "BENCH").pieces)


def plain(folder: Path, runs: int) -> None:
    raw = folder / "raw"
    save(disk(folder), raw)
    out = folder / "out"
    work: dict[str, Callable[[], list[Piece]]] = {
        "raw": lambda: disk(folder),
        "qcow2": lambda: qcow2.image(disk(folder)),
        "vhd": lambda: vhd.fixed(disk(folder), seed="s"),
        "dynamic-vhd": lambda: vhd.dynamic(disk(folder), seed="s"),
        "vhdx": lambda: vhdx.image(disk(folder), seed="s"),
        "iso": lambda: iso(folder),
    }
    for name, make in work.items():
        figures, floor = turns(
            runs, lambda make=make: save(make(), out), lambda: copy(raw, folder / "copy")  # type: ignore[misc]
        )
        show(name, figures, floor)


def blocks(pieces: Sequence[Piece], block: int) -> Iterator[bytes]:
    for run in qcow2.runs(pieces, block):
        yield from read(cut(run.pieces, 0, run.blocks * block), MIB)


def squeeze(pieces: Sequence[Piece], block: int, work: Callable[[bytes], bytes], out: Path) -> None:
    """The floor of a compressed format: every block that isn't zero, on two threads, written one after the other."""
    zeros = bytes(block)

    def batch(data: bytes) -> bytes:
        parts = (data[at : at + block] for at in range(0, len(data), block))
        return b"".join(work(part) for part in parts if part != zeros[: len(part)])

    out.unlink(missing_ok=True)
    with ThreadPoolExecutor(2) as pool, out.open("wb") as stream:
        pending = []
        for data in blocks(pieces, block):
            pending.append(pool.submit(batch, data))
            if len(pending) > 4:
                stream.write(pending.pop(0).result())
        for one in pending:
            stream.write(one.result())


def raw_deflate(data: bytes) -> bytes:
    worker = zlib.compressobj(6, zlib.DEFLATED, -15)
    return worker.compress(data) + worker.flush()


def compressed(folder: Path, runs: int) -> None:
    out, pieces = folder / "out", disk(folder)

    def written(write: Callable[..., None], **options: object) -> None:
        out.unlink(missing_ok=True)
        with out.open("wb") as stream:
            write(pieces, stream, **options)

    work = {
        "vmdk": (lambda: written(vmdk.body), 64 << 10, lambda d: zlib.compress(d, 6)),
        "qcow2, zlib": (lambda: written(qcow2.compress, kind="zlib"), 64 << 10, qcow2._compressor("zlib")),
        "qcow2, zstd": (lambda: written(qcow2.compress, kind="zstd"), 64 << 10, qcow2._compressor("zstd")),
        "gcp": (lambda: written(gcp.write), MIB, raw_deflate),
    }
    for name, (make, block, codec) in work.items():
        figures, floor = turns(runs, make, lambda b=block, c=codec: squeeze(pieces, b, c, out))  # type: ignore[misc]
        show(name, figures, floor)


def another(folder: Path, runs: int, megabytes: int) -> None:
    """Builds from YAML, in one process; the initrd is not compressed, so that its size is that of the root."""
    from linuxkit import Sources, build, load
    from linuxkit.oci.store import Store
    from support.builds import YAML
    from support.formats import cache_for_all
    from support.images import make_image, member, tar_of

    cache = cache_for_all(folder)
    data = (folder / "initrd").read_bytes()[: megabytes * MIB]
    make_image(Store(cache), "docker.io/t/large:1", tar_of(member("large", data)))
    (folder / "x.yml").write_text(YAML.replace("  - t/init:1\n", "  - t/init:1\n  - t/large:1\n"))
    place = folder / "built"
    place.mkdir()

    def made(formats: str) -> float:
        shutil.rmtree(place)
        place.mkdir()
        return timed(lambda: build(load(folder / "x.yml"), name="x", directory=place, sources=Sources(cache),
                                   formats=[formats], compress="none"))  # fmt: skip

    print(f"first: vmdk in {made('vmdk'):.2f} s", flush=True)
    for name in ("raw", "qcow2-bios", "vhd", "vhdx", "vmdk", "ova"):
        made(name)  # what it alone compresses or hashes is paid for once
        figures, floor = [], []
        for _ in range(runs):
            figures.append(made(name))
            (output,) = place.iterdir()
            floor.append(timed(lambda output=output: copy(output, folder / "copy")))  # type: ignore[misc]
        show(f"another: {name}", figures, floor, more=0.3)


def child(kind: str, folder: Path) -> None:
    """Write a disk of 2 GB, most of it data."""
    piece = Piece(64 * MIB, str(folder / "repeats"))
    pieces = gpt.disk([gpt.Partition([piece] * 24, gpt.LINUX), gpt.Partition([Piece(400 * MIB)], gpt.LINUX)], seed="s")
    assert size_of(pieces) > 1900 * MIB
    with (folder / "out").open("wb") as out:
        match kind:
            case "raw":
                put(pieces, out)
            case "qcow2":
                put(qcow2.image(pieces), out)
            case "vhd":
                put(vhd.dynamic(pieces, seed="s"), out)
            case "vhdx":
                put(vhdx.image(pieces, seed="s"), out)
            case "vmdk":
                vmdk.body(pieces, out)
            case "gcp":
                gcp.write(pieces, out)
            case _:
                qcow2.compress(pieces, out, kind=kind)
    # (of this program only: what wait4 reports counts what its parent had, too)
    print(next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line))


def memory(folder: Path) -> None:
    noise = random.Random(2).randbytes(8192)
    (folder / "repeats").write_bytes(noise * (64 * MIB // len(noise)))
    for kind in ("raw", "qcow2", "vhd", "vhdx", "vmdk", "zlib", "zstd", "gcp"):
        (folder / "out").unlink(missing_ok=True)
        command = [sys.executable, __file__, "--child", kind, "--folder", folder]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        peak = int(done.stdout) / 1024
        verdict = "held" if peak <= MEMORY else "MISSED"
        print(f"memory: {kind:<14}{peak:>7.0f} MiB   bar {MEMORY} MiB {verdict}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=250)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.child, given.folder)
        return
    with tempfile.TemporaryDirectory(prefix="bench-disks-") as name:
        folder = Path(name)
        content(folder / "kernel", KERNEL)
        content(folder / "initrd", given.megabytes * MIB)
        plain(folder, given.runs)
        compressed(folder, min(3, given.runs))
        another(folder, given.runs, given.megabytes)
        memory(folder)


if __name__ == "__main__":
    main()
