"""The derived cache: what can always be made again from the store. Safe to delete at any time.

    <root>/<kind>/<key>        the bytes, exactly as `put` was given them
    <root>/<kind>/<key>.ok     their size in decimal; its time is the time of the last use

The note is written after the bytes are in place and synced, so bytes without a note, or of another size than the note
says, are what a crash or a full disk left: `get` says no, and the next `put` replaces them. The size is in a file
of its own because users of the bytes map and copy them whole, which a trailer would spoil, and because re-hashing
hundreds of megabytes on each build would cost more than the build.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from linuxkit.oci.files import host_errors, replacing, sweep

DEFAULT_LIMIT = 8 << 30  # bytes
#: What was used in this many seconds is kept even over the limit: another build may be reading it.
GRACE = 3600.0
_SAFE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,150}")
_NOTE = ".ok"


class Derived:
    """Cached results by kind and key.

    Args:
        root: its directory; made on the first `put`.
        limit: bytes that it may take; the least recently used go first.
    """

    def __init__(self, root: Path, limit: int = DEFAULT_LIMIT) -> None:
        self.root, self.limit = root, limit
        self._swept: set[str] = set()

    def path(self, kind: str, key: str) -> Path:
        """Where the bytes of `key` are or would be."""
        name = key.replace(":", "-")
        if not _SAFE.fullmatch(name) or name.endswith(_NOTE):
            name = hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()
        return self.root / kind / name

    def get(self, kind: str, key: str) -> Path | None:
        """The file with the result, or None when it is not there or not whole."""
        path = self.path(kind, key)
        note = f"{path}{_NOTE}"
        try:
            with open(note, "rb") as stream:
                size = int(stream.read(20))
            if os.lstat(path).st_size != size:
                return None
        except (OSError, ValueError):
            return None
        with suppress(OSError):  # a read-only cache can still be read
            os.utime(note)
        return path

    @contextmanager
    def put(self, kind: str, key: str) -> Iterator[BinaryIO]:
        """A file to write the result to. It counts once the block ends without an exception.

        Raises:
            HostError: the cache cannot be written.
        """
        path = self.path(kind, key)
        with host_errors("cannot write the cache at", self.root):
            path.parent.mkdir(parents=True, exist_ok=True)
            if kind not in self._swept:
                self._swept.add(kind)
                sweep(path.parent)
            with replacing(path) as stream:
                yield stream
                size = stream.seek(0, os.SEEK_END)
            with replacing(Path(f"{path}{_NOTE}"), sync=False) as note:
                note.write(b"%d" % size)
        self.trim()

    def trim(self) -> int:
        """Drop abandoned temporary files and, over the limit, what was not used for longest. Returns bytes freed."""
        used: list[tuple[float, int, str]] = []
        total = 0
        with suppress(OSError):
            for kind in self.root.iterdir():
                for at, size, path in _scan(kind):
                    used.append((at, size, path))
                    total += size
        if total <= self.limit:
            return 0
        freed, newest = 0, time.time() - GRACE
        for at, size, path in sorted(used):
            if total - freed <= self.limit or at > newest:
                break
            for name in (path + _NOTE, path):  # the note first: without it the bytes do not count
                with suppress(FileNotFoundError):
                    Path(name).unlink()
            freed += size
        return freed


def _scan(kind: Path) -> Iterator[tuple[float, int, str]]:
    """(time of last use, size, path) of everything of one kind, with or without its note."""
    with suppress(OSError), os.scandir(kind) as found:
        stats = {item.name: item.stat(follow_symlinks=False) for item in found}
        for name, stat in stats.items():
            if not name.endswith(_NOTE):
                note = stats.get(name + _NOTE)
                yield (note or stat).st_mtime, stat.st_size, str(kind / name)
