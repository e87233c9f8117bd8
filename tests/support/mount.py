"""File systems mounted by this machine's own kernel: the judge of what a writer made. Needs root and a loop device."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

EXCUSES = ("must be superuser", "unknown filesystem", "failed to setup loop device")


@contextlib.contextmanager
def mounted(volume: Path, *options: str) -> Iterator[Path]:
    """Where a volume is mounted, read-only; skips the test on a machine that has no way to."""
    assert volume.stat().st_size  # what isn't there is no excuse
    where = volume.with_name(f"{volume.name}.mounted")
    where.mkdir(exist_ok=True)
    command = ["mount", "-o", ",".join(["loop", "ro", *options]), volume, where]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode and any(excuse in done.stderr for excuse in EXCUSES):
        pytest.skip(f"this machine can't mount {volume.name}: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    try:
        yield where
    finally:
        subprocess.run(["umount", where], check=True)
