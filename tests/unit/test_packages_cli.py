"""linuxkit kit, as typed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from linuxkit.data import data_dir

pytestmark = pytest.mark.unit


def run(tmp_path: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "linuxkit", "--cache", str(tmp_path / "cache"), "kit", *words],
        capture_output=True, text=True,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), **environment}, cwd=tmp_path,
    )  # fmt: skip


def test_ls_lists_the_kit_and_writes_nothing(tmp_path: Path) -> None:
    done = run(tmp_path, "ls")
    assert (done.returncode, done.stderr) == (0, "")
    names = sorted(p.parent.name for p in data_dir("kit").glob("*/build.yml"))
    assert [line.split()[0] for line in done.stdout.splitlines()] == names
    assert all(line.split()[2] == "-" for line in done.stdout.splitlines())
    assert run(tmp_path, "ls", "--names").stdout.split() == names
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(("words", "status", "message"), [
    (["build"], 2, "name the packages to build, or give --all"),
    (["build", "--all", "crun"], 2, "name the packages to build, or give --all"),
    (["build", "crum"], 2, "did you mean kit://crun?"),
    (["build", "crun", "--arch", "vax"], 2, "the kit is not made for vax"),
    (["build", "crun", "--debian-mirror", "debian"], 2, "'debian' is not the URL of a Debian mirror"),
    (["build", "busybox", "--debian-mirror", "http://127.0.0.1:9/debian"], 1, "127.0.0.1"),
    (["bild"], 2, "No such command 'bild'"),
])  # fmt: skip
def test_mistakes_are_one_message_and_an_exit_status(
    tmp_path: Path, words: list[str], status: int, message: str
) -> None:
    done = run(tmp_path, *words, no_proxy="127.0.0.1")
    assert done.returncode == status
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_the_mirror_can_come_from_the_environment(tmp_path: Path) -> None:
    done = run(tmp_path, "build", "busybox", LINUXKIT_DEBIAN_MIRROR="nonsense")
    assert done.returncode == 2
    assert "'nonsense' is not the URL" in done.stderr
