"""The image name of a package directory, as LinuxKit gives it: ORG/IMAGE:TAG with a tag that is the content's git hash.

tag template of build.yml, usually {{.Hash}}
Hash = git tree id of the directory at HEAD
       sha1 over it and the tree ids of `extra-sources`, when there are any
       + -dirty-<7 hex of the sha256 of the files' contents>, when the work tree differs from HEAD
       "latest" outside git
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from linuxkit import host
from linuxkit.config.convert import BAD, Converter, did_you_mean
from linuxkit.config.document import Mapping, read_document
from linuxkit.config.types import ListOf, Str, Type
from linuxkit.errors import HostError, InputError

#: Keys of build.yml. Those without a type matter to a build, not to the name.
_KEYS: dict[str, Type | None] = {
    "image": Str(nonempty=True), "org": Str(nonempty=True), "tag": Str(nonempty=True), "extra-sources": ListOf(Str()),
    "dockerfile": None, "arches": None, "gitrepo": None, "network": None, "disable-cache": None, "config": None,
    "buildArgs": None, "depends": None,
}  # fmt: skip
_HASH = re.compile(r"\{\{-?\s*\.Hash\s*-?\}\}")
_TIMEOUT = 60.0  # seconds that one git command may take


@dataclass(frozen=True, slots=True)
class Package:
    """What build.yml says about the name."""

    directory: Path
    image: str
    org: str = "linuxkit"
    tag: str = "{{.Hash}}"
    extra_sources: tuple[str, ...] = ()


def package_name(directory: Path, *, build_file: str = "build.yml") -> str:
    """The full image name of a package: `docker.io/linuxkit/NAME:HASH`.

    Raises:
        InputError: the directory is no package, or git does not know it.
        HostError: there is no git.
    """
    package = read_package(directory, build_file)
    tag = package.tag
    filled = _HASH.sub(package_hash(package) or "latest", tag)
    if "{{" in filled:
        raise InputError(f"{directory / build_file}: the tag '{tag}' is a template that is not known",
                         hint="only {{.Hash}} can be filled in")  # fmt: skip
    return f"docker.io/{package.org}/{package.image}:{filled}"


def read_package(directory: Path, build_file: str = "build.yml") -> Package:
    """Read a package's build.yml. Raises InputError."""
    path = directory / build_file
    try:
        data = path.read_bytes()
    except OSError as e:
        raise InputError(f"{directory} is not a package: {build_file}: {e.strerror}",
                         hint="the path is relative to the YAML file") from None  # fmt: skip
    root = read_document(data, str(path))
    if not isinstance(root, Mapping):
        raise InputError(f"{path} has to be a mapping")
    reader = Converter(str(path), substitute=None, check_reference=None)
    values = {}
    for key, node in root.pairs:
        if key.text not in _KEYS:
            hint = did_you_mean(key.text, _KEYS)
            reader.problem(f"unknown key '{key.text}'", key.position, "", hint)
        elif (of := _KEYS[key.text]) is not None:
            values[key.text] = reader.value(node, of, key.text)
    if "image" not in values:
        reader.problem("'image' is missing", root.position, "")
    for n, text in enumerate(values.get("extra-sources", ()) if values.get("extra-sources") is not BAD else ()):
        if text.count(":") != 1:
            at = reader.positions[f"extra-sources[{n}]"]
            reader.problem(f"'{text}' is not source:destination", at, f"extra-sources[{n}]")
    if reader.problems:
        raise InputError(f"{path} has problems", problems=reader.problems)
    return Package(directory, values["image"], values.get("org", "linuxkit"), values.get("tag", "{{.Hash}}"),
                   values.get("extra-sources", ()))  # fmt: skip


def package_hash(package: Package) -> str:
    """The hash in a package's tag; empty outside git.

    Raises:
        InputError: git does not track the directory or an extra source.
        HostError: there is no git, or it failed.
    """
    folder = package.directory
    if _git(folder, "rev-parse", "--is-inside-work-tree", check=False).strip() != "true":
        return ""
    found = _tree(folder)
    if package.extra_sources:
        trees = [_tree(folder / source.split(":")[0]) for source in package.extra_sources]
        found = hashlib.sha1("".join([found, *trees]).encode(), usedforsecurity=False).hexdigest()
    if _git(folder, "status", "--porcelain", "--untracked-files=normal", "--", "."):
        found += f"-dirty-{_contents(folder)[:7]}"
    return found


def _tree(path: Path) -> str:
    """The id that git gives to a directory (or file) at HEAD."""
    folder, name = (path, ".") if path.is_dir() else (path.parent, path.name)
    prefix = _git(folder, "rev-parse", "--show-prefix").strip("\n") if folder.is_dir() else ""
    if folder.is_dir() and name == "." and not prefix:
        return _git(folder, "rev-parse", "HEAD^{tree}").strip()
    full = (prefix + ("" if name == "." else name)).rstrip("/")
    line = _git(folder, "ls-tree", "--full-tree", "-z", "HEAD", "--", full, check=False) if folder.is_dir() else ""
    fields = line.split("\0")[0].split("\t")[0].split()
    if len(fields) != 3:
        raise InputError(f"{path} is not in git", hint="git add and commit it: its name comes from the commit")
    return fields[2]


def _contents(folder: Path) -> str:
    """sha256 over the contents of tracked, then untracked files, in git's order; directories and links left out."""
    digest = hashlib.sha256()
    for more in ((), ("--exclude-standard", "--others")):
        for name in _git(folder, "ls-files", "-z", *more).split("\0"):
            path = folder / name
            if name and path.is_file() and not path.is_symlink():
                with path.open("rb") as stream:
                    while block := stream.read(1 << 20):
                        digest.update(block)
    return digest.hexdigest()


def _git(folder: Path, *arguments: str, check: bool = True) -> str:
    git = host.find_tool("git", why="to name a package by its content")
    try:
        done = host.run([git, "-C", folder, *arguments], timeout=_TIMEOUT, check=check)
    except HostError as e:
        raise InputError(f"{folder}: {e.message}", hint="is there a commit?") from e
    return done.stdout.decode(errors="surrogateescape")
