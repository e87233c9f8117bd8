"""Builds compared with what LinuxKit itself made: every recorded case. The recordings lie beside the repository."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.golden
GOLDEN = Path(os.environ.get("LINUXKIT_GOLDEN") or Path(__file__).resolve().parents[3] / "shared" / "golden")


@pytest.mark.skipif(not (GOLDEN / "check.py").is_file(), reason="the recorded builds are not on this machine")
def test_every_recorded_build() -> None:
    program = f"{sys.executable} -m linuxkit"
    done = subprocess.run([sys.executable, GOLDEN / "check.py", "--exe", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:]
    assert ", 0 failed, " in done.stdout.splitlines()[-1]
