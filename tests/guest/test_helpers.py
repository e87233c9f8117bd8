"""The programs that the kernel starts by itself: which, where the kernel asks one program for all."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.guest


@pytest.mark.parametrize("path", ["/sbin/modprobe", "/sbin/poweroff", "/sbin/reboot", "/sbin/request-key"])
def test_helpers_that_are_allowed(parts, path: str) -> None:
    parts("helper", path)


@pytest.mark.parametrize("path", ["", "modprobe", "/sbin/../tmp/modprobe", "/sbin/modprobe2", "/bin/sh", "/sbin/init"])
def test_helpers_that_are_not(parts, path: str) -> None:
    parts("helper", path, status=1)


def test_what_the_kernel_hands_to_the_static_helper(program: Path, tmp_path: Path) -> None:
    """As call_usermodehelper does: the file is always the same, argv[0] is who was wanted."""
    helper, marker, wanted = tmp_path / "usermode-helper", tmp_path / "ran", tmp_path / "wanted"
    helper.symlink_to(program)
    wanted.write_text(f"#!/bin/sh\n: > {marker}\n")
    wanted.chmod(0o755)
    subprocess.run([wanted], check=True, timeout=10)
    assert marker.exists()  # it would leave a trace
    marker.unlink()
    assert subprocess.run([wanted], executable=helper, timeout=10).returncode == 126
    assert not marker.exists()
    if not Path("/sbin/bridge-stp").exists():  # allowed, and not there
        assert subprocess.run(["/sbin/bridge-stp"], executable=helper, timeout=10).returncode == 127
