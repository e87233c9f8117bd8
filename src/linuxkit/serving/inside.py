"""What is in the served folder, whatever links lead to it."""

from __future__ import annotations

from pathlib import Path


def inside(root: Path, path: Path) -> Path | None:
    """The file or folder that a path stands for, without links, when it is in the root, which has none.

    None when it is elsewhere or not there.
    """
    try:
        found = path.resolve(strict=True)
    except (OSError, RuntimeError, ValueError):
        return None
    return found if found == root or root in found.parents else None
