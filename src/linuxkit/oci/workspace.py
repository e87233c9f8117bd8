"""Folders for work in progress, that vanish with who made them.

Who works holds a lock on the folder. So what a killed process has left is recognised by the lock that nobody holds, and
removed by the next one that works in the same place, or by `cache gc`; programs that it had started do not count.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = ".linuxkit-work-"
_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def workspace(parent: Path) -> Iterator[Path]:
    """A new folder below `parent`, for this process's eyes only.

    Raises:
        OSError: it cannot be made.
    """
    parent.mkdir(parents=True, exist_ok=True)
    sweep_workspaces(parent)
    folder, lock = _make(parent)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _make(parent: Path) -> tuple[Path, int]:
    while True:
        folder = parent / f"{PREFIX}{os.urandom(8).hex()}"
        folder.mkdir(mode=0o700)
        with suppress(FileNotFoundError):  # swept between the two: once more
            lock = os.open(folder, _FLAGS)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if folder.exists():
                return folder, lock
            os.close(lock)


def sweep_workspaces(parent: Path, *, below: bool = False) -> int:
    """Remove the folders that nobody works in any more; with `below`, at any depth. Returns how many."""
    found = parent.rglob(f"{PREFIX}*") if below else parent.glob(f"{PREFIX}*")
    return sum(_remove_if_abandoned(folder) for folder in list(found))


def _remove_if_abandoned(folder: Path) -> bool:
    with suppress(OSError):
        lock = os.open(folder, _FLAGS)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
            return True
        finally:
            os.close(lock)
    return False
