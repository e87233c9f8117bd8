"""The files that a build sees: the package's directory, extra sources, archives of images."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from linuxkit.errors import InputError
from linuxkit.pkg.model import Package

#: Writes the archives of `depends.docker-images` below a directory.
AddImages = Callable[[Package, Path], None]


@contextmanager
def build_files(package: Package, add_images: AddImages) -> Iterator[Path]:
    """A directory with a build's files: the package's own, when nothing is to be added.

    Raises:
        InputError: an extra source is not there.
    """
    if not package.extra_sources and package.depends is None:
        yield package.directory
        return
    with tempfile.TemporaryDirectory(prefix="linuxkit-pkg-") as folder:
        root = Path(folder)
        _copy(package.directory, root)
        for extra in package.extra_sources:
            source = package.directory / extra.source
            if not source.exists():
                raise InputError(f"{package.file}: extra-sources: {source} does not exist")
            _copy(source, root / extra.destination)
        if package.depends is not None:
            add_images(package, root)
        yield root


def _copy(source: Path, target: Path) -> None:
    """Copy a file or a directory's content, links as links, over what is there."""
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)
