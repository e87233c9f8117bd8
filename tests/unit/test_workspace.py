"""Folders for work in progress: nothing of a killed process stays."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from linuxkit.oci.workspace import PREFIX, sweep_workspaces, workspace

pytestmark = pytest.mark.unit
WORKS = """
import subprocess, sys, time
from pathlib import Path
from linuxkit.oci.workspace import workspace
with workspace(Path(sys.argv[1])) as folder:
    (folder / "deep").mkdir()
    (folder / "deep" / "file").write_text("x")
    child = subprocess.Popen(["sleep", "60"])  # which lives on, as a compiler does
    print(child.pid, flush=True)
    time.sleep(60)
"""


def test_a_folder_is_gone_when_its_work_is_done(tmp_path: Path) -> None:
    with workspace(tmp_path / "a" / "work") as one, workspace(tmp_path / "a" / "work") as two:
        assert one != two
        assert stat.S_IMODE(one.stat().st_mode) == 0o700
        (one / "x").write_text("x")
        assert sweep_workspaces(tmp_path, below=True) == 0  # somebody works there
    with pytest.raises(ZeroDivisionError), workspace(tmp_path / "a" / "work"):
        1 / 0  # noqa: B018
    assert list((tmp_path / "a" / "work").iterdir()) == []


@pytest.mark.parametrize("by", ["next", "gc"])
def test_what_a_killed_process_has_left_is_removed(tmp_path: Path, by: str) -> None:
    work = tmp_path / "kit" / "work"
    with subprocess.Popen([sys.executable, "-c", WORKS, str(work)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        process.kill()
        process.stdout.close()
    try:
        assert len(list(work.glob(f"{PREFIX}*/deep/file"))) == 1
        if by == "next":
            with workspace(work) as mine:
                assert [p for p in work.iterdir() if p != mine] == []
        else:
            from linuxkit.cli.main import main

            with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
                patch.setattr(sys, "argv", ["linuxkit", "--cache", str(tmp_path), "cache", "gc"])
                patch.setattr(signal, "signal", lambda *_: None)
                main()
            assert ended.value.code == 0
        assert list(work.iterdir()) == []
    finally:
        os.kill(child, signal.SIGKILL)


def test_what_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / f"{PREFIX}link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / f"{PREFIX}file").write_text("x")
    (tmp_path / ".work-of-another").mkdir()
    assert sweep_workspaces(tmp_path) == 0
    assert len(list(tmp_path.iterdir())) == 4
