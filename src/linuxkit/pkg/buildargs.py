"""Build arguments: what build.yml, files and git say, with other packages' names filled in.

Precedence: --build-arg-file, build.yml, automatic. A value `@lkt:pkg:DIR` is the name of the package in DIR; with
`NAME_%=@lkt:pkgs:GLOB` each package that the glob finds gives an argument, `%` its image's name. Paths are relative to
the file that says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from linuxkit.errors import InputError, Problem
from linuxkit.pkg.git import Git
from linuxkit.pkg.model import Package
from linuxkit.pkg.naming import Name

ONE, MANY = "@lkt:pkg:", "@lkt:pkgs:"


@dataclass(frozen=True, slots=True)
class Argument:
    """`name=value` as written, and where."""

    name: str
    value: str
    folder: Path
    file: str
    line: int = 0


def read_file(path: Path) -> list[Argument]:
    """The arguments of a --build-arg-file: NAME=value lines; empty lines and those that start with # say nothing.

    Raises:
        InputError: it can't be read, or a line is something else.
    """
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise InputError(f"--build-arg-file {path}: {getattr(e, 'strerror', None) or e}") from None
    found, problems = [], []
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        name, mark, value = text.partition("=")
        if not mark or not name:
            problems.append(Problem(f"'{text}' is not NAME=value", str(path), number, 1))
        found.append(Argument(name, value, path.parent, str(path), number))
    if problems:
        raise InputError(f"{path} has problems", problems=problems)
    return found


def written(package: Package, files: Iterable[Path]) -> list[Argument]:
    """What build.yml and the files say, the stronger later."""
    own = []
    for n, text in enumerate(package.build_args):
        name, _, value = text.partition("=")
        line = package.positions[f"buildArgs[{n}]"].line
        own.append(Argument(name, value, package.directory, str(package.file), line))
    return [*own, *(argument for path in files for argument in read_file(path))]


def needs(arguments: Iterable[Argument]) -> list[Path]:
    """The directories of packages that are named one by one."""
    return [a.folder / a.value.removeprefix(ONE) for a in arguments if a.value.startswith(ONE)]


def found_by(argument: Argument) -> list[Path]:
    """The directories that a @lkt:pkgs: finds, sorted."""
    pattern = argument.value.removeprefix(MANY)
    base = argument.folder
    if pattern.startswith("/"):
        base, pattern = Path("/"), pattern.lstrip("/")
    while pattern.startswith("../"):
        base, pattern = base / "..", pattern.removeprefix("../")
    names = base.glob(pattern.rstrip("/")) if pattern else []
    return sorted(p for p in names if p.is_dir() and not p.name.startswith("."))


def resolve(arguments: Iterable[Argument], name_of: Callable[[Path], Name]) -> dict[str, str]:
    """name → value, with other packages' names in place.

    Args:
        name_of: the name of the package in a directory.

    Raises:
        InputError: an unknown `@lkt:`, a directory that is no package, a `%` too few.
    """
    out: dict[str, str] = {}
    for one in arguments:
        if one.value.startswith(ONE):
            out[one.name] = _name(one, one.folder / one.value.removeprefix(ONE), name_of).text
        elif one.value.startswith(MANY):
            if "%" not in one.name:
                raise _bad(one, f"'{one.name}' needs a % for the names of the packages", f"write {one.name}_%=…")
            for directory in found_by(one):
                name = _name(one, directory, name_of)
                spelled = name.image.replace("/", "_").replace("-", "_").upper()
                out[one.name.replace("%", spelled)] = name.text
        elif one.value.startswith("@lkt:"):
            raise _bad(one, f"'{one.value}' is not known", "there are @lkt:pkg:DIR and @lkt:pkgs:GLOB")
        else:
            out[one.name] = one.value
    return out


def automatic(package: Package, name: Name) -> dict[str, str]:
    """SOURCE, REVISION, GOPKGVERSION, PKG_HASH and PKG_IMAGE, as far as git knows."""
    found = {"PKG_HASH": name.hash, "PKG_IMAGE": name.text}
    if name.in_git:
        git = Git(package.directory)
        found |= {"SOURCE": package.git_repo, "GOPKGVERSION": git.go_version()}
        if not name.dirty:
            found["REVISION"] = git.head()
    return {key: value for key, value in sorted(found.items()) if value}


def _name(argument: Argument, directory: Path, name_of: Callable[[Path], Name]) -> Name:
    try:
        return name_of(directory)
    except InputError as e:
        where = f"{argument.file}:{argument.line}" if argument.line else argument.file
        raise InputError(f"{where}: {argument.name}: {e.message}", hint=e.hint, problems=e.problems) from None


def _bad(argument: Argument, message: str, hint: str) -> InputError:
    return InputError(f"{argument.file} has a problem",
                      problems=[Problem(message, argument.file, argument.line, 1 if argument.line else 0,
                                        "build arguments", hint)])  # fmt: skip
