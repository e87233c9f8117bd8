"""The wheel: what pip makes of the sources has all that a build needs, and nothing else."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.interop
ROOT = Path(__file__).resolve().parents[2]


def test_the_wheel_brings_the_kit_the_guest_and_the_keys(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", tmp_path, ROOT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("linuxkit-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())

    def tracked(*folders: str) -> set[str]:
        listed = subprocess.run(["git", "ls-files", *folders], cwd=ROOT, capture_output=True, text=True, check=True)
        return set(listed.stdout.split())

    sources = {name.removeprefix("src/") for name in tracked("src")}
    data = {f"linuxkit/_data/{name}" for name in tracked("kit", "guest")}
    assert sources | data <= names
    extra = {name for name in names - sources - data if ".dist-info/" not in name and "__pycache__" not in name}
    assert not extra
