#!/usr/bin/env python3
"""Pull and push of a 60 MB layer through a registry on loopback, against curl and sha256sum, in turns in one run.

    bench_registry.py [--runs N] [--megabytes N] [--dir DIR]

    pull    floor: curl of the same blob into sha256sum, which keeps nothing; ours is verified and on the disk
    push    floor: sha256sum of the blob, and curl sending it
    again   a pull and a push of what is there already; no floor
    memory  peak of the pull and the push

The registry is Debian's docker-registry. Ours are whole commands, with the start of the interpreter. Figures are
medians, with the least in brackets; the ratio is that of the medians.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
sys.path.insert(0, str(ROOT / "src"))

PROGRAM = [sys.executable, "-c", "from linuxkit.cli.main import main; main()"]


@contextmanager
def registry(folder: Path) -> Iterator[str]:
    """A docker-registry; yields host:port."""
    program = shutil.which("docker-registry") or sys.exit("docker-registry is not installed: tools/setup.sh test")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{free.getsockname()[1]}"
    config = folder / "registry.yml"
    config.write_text(json.dumps({
        "version": "0.1", "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "registry")}, "delete": {"enabled": True}},
        "http": {"addr": host},
    }))  # fmt: skip
    with (folder / "registry.log").open("wb") as log, \
            subprocess.Popen([program, "serve", str(config)], stdout=log, stderr=log) as server:
        try:
            for _ in range(100):
                try:
                    urllib.request.urlopen(f"http://{host}/v2/").close()
                    break
                except OSError:
                    time.sleep(0.1)
            yield host
        finally:
            server.terminate()


def timed(command: list[str] | str) -> tuple[float, float]:
    """(seconds, peak MiB)."""
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"} | {"PYTHONPATH": str(ROOT / "src")}
    start = time.perf_counter()
    child = subprocess.Popen(command, env=env, shell=isinstance(command, str), stderr=subprocess.PIPE,
                             stdout=subprocess.DEVNULL)  # fmt: skip
    assert child.stderr is not None
    text = child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f"{command} failed:\n{text.decode()}")
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def show(what: str, ours: list[float], floor: list[float], bar: float) -> None:
    ratio = statistics.median(ours) / statistics.median(floor)
    print(f"{what:<8} {statistics.median(ours):6.3f} ({min(ours):.3f}) s   floor {statistics.median(floor):6.3f} "
          f"({min(floor):.3f}) s   ratio {ratio:.2f}   bar {bar}{'' if ratio <= bar else '   OVER'}")  # fmt: skip


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--runs", type=int, default=9)
    arguments.add_argument("--megabytes", type=int, default=60)
    arguments.add_argument("--dir", type=Path, default=None, help="where the files go; default: the temporary folder")
    given = arguments.parse_args()
    from linuxkit.oci.media import OCI_LAYER, Platform
    from linuxkit.oci.store import Store

    with tempfile.TemporaryDirectory(dir=given.dir) as name, registry(Path(name)) as host:
        folder = Path(name)
        store = Store(folder / "source")
        with Path("/dev/urandom").open("rb") as noise, store.write_blob(OCI_LAYER) as out:
            for _ in range(given.megabytes):  # in pieces: a process counts what its parent had in memory
                out.write(noise.read(1_000_000))
        layer = out.descriptor
        store.put_image("bench/app:1", Platform("linux", "amd64"), {"rootfs": {"diff_ids": [layer.digest]}}, [layer])
        blob = store.blob_path(layer.digest)
        here = [*PROGRAM, "-q", "--cache"]
        pulling = ["cache", "pull", "--platform", "linux/amd64"]
        peaks: dict[str, list[float]] = {"pull": [], "push": []}
        count = iter(range(10_000))

        def ours_push() -> float:
            os.sync()
            target = ["--remote-name", f"{host}/bench/push{next(count)}:1"]
            seconds, peak = timed([*here, str(folder / "source"), "cache", "push", "bench/app:1", *target])
            peaks["push"].append(peak)
            shutil.rmtree(folder / "registry", ignore_errors=True)
            return seconds

        def floor_push() -> float:
            os.sync()
            begin = ["curl", "-sfi", "-X", "POST", f"http://{host}/v2/bench/curl{next(count)}/blobs/uploads/"]
            head = subprocess.run(begin, check=True, capture_output=True, text=True).stdout.splitlines()
            place = next(line.split(None, 1)[1].strip() for line in head if line[:9].lower() == "location:")
            seconds, _ = timed(f"sha256sum {blob} && curl -sf -X PUT -T {blob} '{place}&digest={layer.digest}'")
            shutil.rmtree(folder / "registry", ignore_errors=True)
            return seconds

        def ours_pull() -> float:
            shutil.rmtree(folder / "target", ignore_errors=True)
            os.sync()
            seconds, peak = timed([*here, str(folder / "target"), *pulling, f"{host}/bench/app:1"])
            peaks["pull"].append(peak)
            return seconds

        def floor_pull() -> float:
            os.sync()
            return timed(f"curl -sf http://{host}/v2/bench/app/blobs/{layer.digest} | sha256sum")[0]

        def turns(*work: Callable[[], float]) -> list[list[float]]:
            """Each piece of work, in turns."""
            seconds: list[list[float]] = [[] for _ in work]
            for _ in range(given.runs):
                for n, one in enumerate(work):
                    seconds[n].append(one())
            return seconds

        print(f"a layer of {given.megabytes} MB; {given.runs} runs in turns; whole commands")
        show("push", *turns(ours_push, floor_push), 1.5)
        send = [*here, str(folder / "source"), "cache", "push", "bench/app:1", "--remote-name", f"{host}/bench/app:1"]
        timed(send)
        show("pull", *turns(ours_pull, floor_pull), 1.5)
        again = [timed([*here, str(folder / "target"), *pulling, f"{host}/bench/app:1"])[0] for _ in range(given.runs)]
        print(f"again    pull {statistics.median(again):.3f} s, "
              f"push {statistics.median([timed(send)[0] for _ in range(given.runs)]):.3f} s")  # fmt: skip
        for what, peak in peaks.items():
            print(f"memory   {what} {max(peak):.0f} MiB   bar 60{'' if max(peak) <= 60 else '   OVER'}")


if __name__ == "__main__":
    main()
