"""The guest's C, built once for this host: the parts under the sanitizers, and the whole program as it ships."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from guest_box import Box

GUEST = Path(__file__).resolve().parents[2] / "guest"
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def _make(target: str, out: Path) -> None:
    made = subprocess.run(["make", "-s", "-C", str(GUEST), f"OUT={out}", target], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs test-guest WORD ARGUMENT...; a sanitizer's complaint fails the test."""
    out = tmp_path_factory.mktemp("guest")
    _make("test", out)

    def run(*args: str | bytes | Path, status: int | None = 0) -> subprocess.CompletedProcess[str]:
        env = {
            **os.environ,
            "ASAN_OPTIONS": "detect_leaks=1:exitcode=99",
            "UBSAN_OPTIONS": "halt_on_error=1:exitcode=99",
        }
        done = subprocess.run([out / "test-guest", *args], capture_output=True, text=True, env=env, errors="replace")
        assert "Sanitizer" not in done.stderr and "runtime error" not in done.stderr, done.stderr
        assert status is None or done.returncode == status, (done.returncode, done.stdout, done.stderr)
        return done

    run.program = out / "test-guest"  # type: ignore[attr-defined]
    return run


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The static program that is /init."""
    out = tmp_path_factory.mktemp("program")
    _make(f"{out}/init", out)
    return out / "init"


@pytest.fixture
def box(tmp_path, program) -> Box:
    probe = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--pid", "--mount", "--fork", "true"], capture_output=True
    )
    if probe.returncode:
        pytest.skip(f"this host allows no user namespaces: {probe.stderr.decode().strip()}")
    return Box(tmp_path / "root", program)
