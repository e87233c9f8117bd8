"""Free space: asked for before large work, and watched while other programs write."""

from __future__ import annotations

import os
from pathlib import Path

from linuxkit.errors import SpaceError

#: A disk with less than this is full: what still fits is no file.
FULL = 256 << 10  # bytes


def free(path: Path) -> int:
    """Bytes that can be written at `path`, which need not be there yet."""
    place = path.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    found = os.statvfs(place)
    return found.f_frsize * (found.f_bfree if os.geteuid() == 0 else found.f_bavail)


def full(path: Path) -> SpaceError:
    """The error for a disk on which nothing fits any more."""
    return SpaceError(f"no space left on {path} ({free(path) >> 20} MB are free)", hint=HINT)


def need(path: Path, size: int, what: str) -> None:
    """That so many bytes can be written.

    Args:
        path: the folder, which need not be there yet.
        what: takes them; for the message: "building the kit", an image's name.

    Raises:
        SpaceError: they can't.
    """
    there = free(path)
    if there < size:
        raise SpaceError(f"no space left on {path}: {what} takes about {_shown(size)}, and {_shown(there)} are free",
                         hint=HINT)  # fmt: skip


HINT = "free some space (linuxkit cache gc), or put the cache on another disk with --cache DIR"


def _shown(size: int) -> str:
    return f"{-(-size // 1_000_000)} MB"
