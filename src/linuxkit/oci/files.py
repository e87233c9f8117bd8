"""Files that are either whole or not there: temporary name, fsync, rename; and locks between processes.

A writer holds a lock on its temporary file for as long as it lives. So what a killed process left behind is
recognised by the lock that nobody holds, without looking at clocks or process numbers.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from linuxkit.errors import HostError

TEMPORARY = ".tmp-"
_guard = threading.Lock()  # POSIX locks do not keep threads of one process apart


@contextmanager
def host_errors(what: str, path: Path) -> Iterator[None]:
    """Turn failures of the file system at or under `path` into a HostError that names it; others pass."""
    try:
        yield
    except OSError as e:
        if e.filename is not None and not os.fspath(e.filename).startswith(os.fspath(path)):
            raise
        hints = {
            errno.ENOSPC: "free some space, or put the cache on another disk with --cache DIR",
            errno.EDQUOT: "free some space, or put the cache on another disk with --cache DIR",
        }
        hint = hints.get(e.errno or 0, "check its owner and mode, or choose another place with --cache DIR")
        raise HostError(f"{what} {path}: {(e.strerror or str(e)).lower()}", hint=hint) from e


def sync_directory(path: Path) -> None:
    """Make renames in `path` last through a power cut."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    except OSError:  # some network file systems cannot; the rename is atomic all the same
        pass
    finally:
        os.close(fd)


def make_temporary(directory: Path) -> tuple[BinaryIO, Path]:
    """A new locked temporary file in `directory`, open for writing and reading."""
    while True:
        path = directory / f"{TEMPORARY}{os.urandom(8).hex()}"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        fcntl.flock(fd, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):  # swept between open and lock: try again
            if path.stat().st_ino == os.fstat(fd).st_ino:
                return open(fd, "w+b"), path
        os.close(fd)


@contextmanager
def replacing(target: Path, *, sync: bool = True) -> Iterator[BinaryIO]:
    """A file that becomes `target`, whole, when the block ends without an exception, and vanishes otherwise.

    Without `sync`, a power cut may leave it empty: only for files whose reader notices.
    """
    stream, temporary = make_temporary(target.parent)
    try:
        yield stream
        stream.flush()
        if sync:
            os.fsync(stream.fileno())
        temporary.replace(target)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    finally:
        stream.close()
    if sync:
        sync_directory(target.parent)


def sweep(directory: Path) -> int:
    """Remove temporary files whose writer is gone. Returns how many."""
    removed = 0
    with suppress(OSError), os.scandir(directory) as found:
        for item in found:
            if item.name.startswith(TEMPORARY) and item.is_file(follow_symlinks=False):
                removed += _remove_if_abandoned(item.path)
    return removed


def _remove_if_abandoned(path: str) -> int:
    with suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            Path(path).unlink()
            return 1
        finally:
            os.close(fd)
    return 0


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the write lock on `path` (a POSIX record lock, the kind that LinuxKit takes on its cache)."""
    with _guard:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)
