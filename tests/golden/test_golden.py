"""Builds compared with what LinuxKit itself made: every recorded case."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support.recordings import CASES, GOLDEN, MASTER, ROOT

pytestmark = pytest.mark.golden


def check(program: str, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, GOLDEN / "check.py", "--exe", program, *more]
    return subprocess.run(command, capture_output=True, text=True)


def test_every_recorded_build() -> None:
    assert len(CASES) >= 144
    done = check(f"{sys.executable} -m linuxkit")
    assert done.returncode == 0, done.stdout[-4000:]
    assert ", 0 failed, " in done.stdout.splitlines()[-1]


def test_a_program_that_builds_nothing_fails() -> None:
    done = check("/bin/true", "-k", "caps")
    assert done.returncode == 1
    assert "0 passed, " in done.stdout


def test_they_are_what_their_master_says(tmp_path: Path) -> None:
    """The master may have more; what is here is what it says. Renew with tools/golden.py."""
    if not MASTER.is_dir():
        pytest.skip("the master of the recorded builds, shared/golden, does not lie beside this checkout")
    subprocess.run([sys.executable, ROOT / "tools/golden.py", MASTER, tmp_path], check=True, capture_output=True)
    fresh, kept = ({p.relative_to(root).as_posix(): p.read_bytes()
                    for folder in ("cases", "images") for p in (root / folder).rglob("*") if p.is_file()}
                   for root in (tmp_path, GOLDEN))  # fmt: skip
    del kept["images/index.json"]  # the list grows with the master
    assert not [name for name, data in kept.items() if fresh.get(name) != data]
