"""The files that a build sees: the package's directory, extra sources, archives of images."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from linuxkit.errors import InputError
from linuxkit.oci.workspace import workspace
from linuxkit.pkg.model import Package

#: Writes the archives of `depends.docker-images` below a directory.
AddImages = Callable[[Package, Path], None]


@contextmanager
def build_files(package: Package, add_images: AddImages) -> Iterator[Path]:
    """A directory with a build's files: the package's own, when nothing is to be added.

    Raises:
        InputError: an extra source is not there, or elsewhere than in the package's repository.
    """
    if not package.extra_sources and package.depends is None:
        yield package.directory
        return
    with workspace(Path(tempfile.gettempdir())) as root:
        _copy(package.directory, root)
        for extra in package.extra_sources:
            source = package.directory / extra.source
            if not source.exists():
                raise InputError(f"{package.file}: extra-sources: {source} does not exist")
            around = repository(package.directory)
            if not source.resolve().is_relative_to(around):
                raise InputError(f"{package.file}: extra-sources: {source} is outside of {around}",
                                 hint="a package takes files of its own repository only")  # fmt: skip
            _copy(source, root / extra.destination)
        if package.depends is not None:
            add_images(package, root)
        yield root


def repository(folder: Path) -> Path:
    """The folder whose files a package may take: the nearest one around it that git knows, else its own.

    Git itself is not asked: the configuration of a stranger's repository could say that it is everything.
    """
    here = folder.resolve()
    return next((place for place in (here, *here.parents) if (place / ".git").exists()), here)


def _copy(source: Path, target: Path) -> None:
    """Copy a file or a directory's content, links as links, over what is there."""
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)
