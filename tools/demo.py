#!/usr/bin/env python3
"""make demo: build examples/web.yml from nothing, boot it, fetch its page, shut it down. Exits 0 if all worked."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINUXKIT = Path(sys.executable).with_name("linuxkit")
OUT = ROOT / "out"
PATIENCE = 120  # seconds from starting the machine to its first page; a slow machine without KVM needs 10 to 20


def step(text: str) -> float:
    print(f"\n==> {text}", flush=True)
    return time.monotonic()


def done(since: float, text: str = "done") -> None:
    print(f"    {text} in {time.monotonic() - since:.1f} s", flush=True)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


def fetch(url: str, machine: subprocess.Popen[bytes], until: float) -> str:
    """The page, once the guest serves it: QEMU accepts before the guest listens, so a whole reply counts."""
    while time.monotonic() < until and machine.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5) as reply:
                return str(reply.read().decode())
        except (OSError, urllib.error.URLError):
            time.sleep(0.2)
    return ""


def main() -> int:
    begin = time.monotonic()
    OUT.mkdir(exist_ok=True)
    at = step("linuxkit build --dir out examples/web.yml")
    if subprocess.run([LINUXKIT, "build", "--dir", OUT, ROOT / "examples" / "web.yml"], check=False).returncode != 0:
        return 1
    done(at, "built")

    port = free_port()
    at = step(f"linuxkit run --report --publish 127.0.0.1:{port}:80 out/web")
    machine = subprocess.Popen(
        [LINUXKIT, "run", "--report", "--publish", f"127.0.0.1:{port}:80", OUT / "web"], stdin=subprocess.DEVNULL
    )
    try:
        url = f"http://127.0.0.1:{port}/"
        page = fetch(url, machine, time.monotonic() + PATIENCE)
        if not page:
            print(f"error: the machine did not serve {url} within {PATIENCE} s", file=sys.stderr)
            return 1
        done(at, "up and serving")
        at = step(f"GET {url}")
        print("    " + page.strip().replace("\n", "\n    "))
        ok = "It boots." in page

        at = step("Ctrl-C: the guest shuts itself down")
        machine.send_signal(signal.SIGINT)
        status = machine.wait(60)
        done(at, f"the machine ended with exit status {status}")
    finally:
        if machine.poll() is None:
            machine.kill()
            machine.wait()
    if not ok or status != 0:
        print("error: not the page, or not the exit status, that was expected", file=sys.stderr)
        return 1
    print(f"\nAll took {time.monotonic() - begin:.1f} s. By hand: .venv/bin/linuxkit run --publish 8080:80 out/web")
    return 0


if __name__ == "__main__":
    sys.exit(main())
