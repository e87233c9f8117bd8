"""The example with three machines: they find each other, and the host finds the one that is published."""

from __future__ import annotations

import re
import signal
import subprocess
import threading
import urllib.request
from pathlib import Path

import pytest

from support.follow import cluster

pytestmark = pytest.mark.boot
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def test_three_machines_meet(tmp_path: Path) -> None:
    errors, command = tmp_path / "errors", cluster("cluster", tmp_path)
    with errors.open("wb") as stream:
        child = subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                 stderr=stream, text=True)  # fmt: skip
    lines: list[str] = []
    watchdog = threading.Timer(120, child.kill)
    try:
        assert child.stdout is not None
        watchdog.start()
        while sum("all three are here" in line for line in lines) < 3:
            lines.append(child.stdout.readline())
            assert lines[-1], errors.read_text()
        met = {re.sub(r"\s+", " ", line).strip() for line in lines if "met node" in line}
        names, numbers = ("first", "other-1", "other-2"), (11, 12, 13)
        assert met == {f"{name} | met node 192.168.76.{n}" for name in names for n in numbers}
        port = re.search(r"first: published: 127.0.0.1:([0-9]+)", errors.read_text())
        assert port is not None
        with urllib.request.urlopen(f"http://127.0.0.1:{port[1]}/", timeout=10) as answer:
            assert answer.read() == b"node 192.168.76.11\n"
        child.send_signal(signal.SIGINT)
        child.communicate(timeout=40)
        assert child.returncode == 0
    except BaseException:
        print(*lines, errors.read_text(), sep="")
        raise
    finally:
        watchdog.cancel()
        child.kill()
        child.wait()
