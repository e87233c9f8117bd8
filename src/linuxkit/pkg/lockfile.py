"""build.lock: the archive's packages that a native recipe is made of, so that its image doesn't change by itself.

    # made by linuxkit pkg lock
    debian trixie amd64 libc6 2.41-12 9f1c…          archive, release, architecture, package, version, digest

Beside build.yml, and so part of the package's hash. The digest is what the archive's signed index says.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from linuxkit.errors import InputError, Problem
from linuxkit.oci.files import replacing
from linuxkit.packages.origin import Piece, Pins
from linuxkit.packages.recipe import Recipe
from linuxkit.pkg.model import Package

NAME = "build.lock"
_HEAD = "# made by linuxkit pkg lock\n"
_WORD = re.compile(r"[!-~]+")
_MOST = 1 << 20


def source(recipe: Recipe) -> tuple[str, str]:
    """(archive, release) that a recipe draws on."""
    return ("alpine", recipe.alpine.branch) if recipe.alpine is not None else ("debian", recipe.debian.suite)


def draws(recipe: Recipe) -> bool:
    """Whether a recipe takes anything from an archive."""
    return bool(recipe.kernel or recipe.debian.packages or (recipe.alpine and recipe.alpine.packages))


def write(package: Package, pieces: Mapping[str, Iterable[Piece]]) -> Path:
    """Write the lock of a package.

    Args:
        pieces: by architecture.

    Returns:
        its place.
    """
    assert package.recipe is not None
    archive, release = source(package.recipe)
    lines = [f"{archive} {release} {arch} {p.name} {p.version} {p.digest}\n"
             for arch, found in sorted(pieces.items()) for p in sorted(found, key=lambda p: p.name)]  # fmt: skip
    path = package.directory / NAME
    with replacing(path) as stream:
        stream.write((_HEAD + "".join(lines)).encode())
    return path


def read(package: Package, architecture: str) -> Pins | None:
    """What a package's lock has for an architecture; None when there is no lock, or nothing to lock.

    Raises:
        InputError: it is damaged, or doesn't fit the recipe.
    """
    recipe, path = package.recipe, package.directory / NAME
    if recipe is None or not path.is_file() or not draws(recipe):
        return None
    if path.stat().st_size > _MOST:
        raise InputError(f"{path} is larger than {_MOST >> 10} KiB", hint="make it anew: linuxkit pkg lock")
    wanted, pins, problems = source(recipe), {}, []
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
        words = line.split()
        if not words or line.startswith("#"):
            continue
        if len(words) != 6 or not all(_WORD.fullmatch(word) for word in words):
            problems.append(Problem("not a line of a lock", str(path), number, 1, hint="renew it: linuxkit pkg lock"))
        elif tuple(words[:2]) != wanted:
            problems.append(Problem(f"it is of {' '.join(words[:2])}, and the recipe takes {' '.join(wanted)}",
                                    str(path), number, 1, hint="renew it: linuxkit pkg lock"))  # fmt: skip
        elif words[2] == architecture:
            pins[words[3]] = (words[4], words[5])
    if problems:
        raise InputError(f"{path} has problems", problems=problems)
    if not pins:
        raise InputError(f"{path} has nothing for {architecture}", hint="renew it: linuxkit pkg lock")
    return pins
