"""Files of a package's folder: opened without leaving the folder, and copied where that matters.

A package may be a stranger's. Its links may lead about inside its folder; one that leads out is refused. A path is
resolved once, and then opened a directory at a time through no link: who changes a link meanwhile gains nothing.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import BinaryIO

from linuxkit.errors import ImageError, InputError
from linuxkit.oci.container import open_below

MAX_SOURCES = 256 << 20  # bytes of a copied folder
MAX_FILES = 20_000


def open_inside(folder: Path, name: str) -> BinaryIO:
    """Open a regular file of a folder.

    Args:
        name: relative to the folder.

    Raises:
        InputError: it is not there, no regular file, or outside of the folder when its links are followed.
    """
    root = folder.resolve()
    try:
        real = (root / name).resolve(strict=True)
    except (OSError, RuntimeError) as e:
        raise InputError(f"{folder / name} cannot be read: {getattr(e, 'strerror', None) or e}") from None
    if not real.is_relative_to(root) or real == root:
        raise InputError(f"{folder / name} leads out of the package's folder, to {real}",
                         hint="put the file itself there")  # fmt: skip
    try:
        return open_below(root, *real.relative_to(root).parts)
    except ImageError as e:
        raise InputError(f"{folder / name}: {e.message}") from None


def copy_inside(folder: Path, name: str, target: Path) -> int:
    """Copy a file of a folder. Returns its size in bytes. Raises InputError as open_inside."""
    with open_inside(folder, name) as stream, target.open("xb") as out:
        shutil.copyfileobj(stream, out, 1 << 20)
        return out.tell()


def copy_sources(folder: Path, target: Path) -> None:
    """Copy the files of a folder, links as what they lead to; what git keeps is left out.

    Raises:
        InputError: a link leads out of the folder, or it is too large for C sources.
    """
    total = count = 0
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name != ".git")
        below = Path(place).relative_to(folder)
        (target / below).mkdir(parents=True, exist_ok=True)
        for name in [d for d in folders if (Path(place) / d).is_symlink()]:
            if not (Path(place) / name).resolve().is_relative_to(folder.resolve()):
                raise InputError(f"{Path(place) / name} leads out of the package's folder",
                                 hint="put the files themselves there")  # fmt: skip
        for name in sorted(files):
            path = Path(place) / name
            if not path.is_symlink() and not path.is_file():
                continue  # a socket, a pipe
            total += copy_inside(folder, str(below / name), target / below / name)
            count += 1
            if total > MAX_SOURCES or count > MAX_FILES:
                raise InputError(f"{folder} has more than {MAX_SOURCES} bytes or {MAX_FILES} files: that is no "
                                 "folder of C sources", hint="put the sources into a folder of their own")  # fmt: skip
