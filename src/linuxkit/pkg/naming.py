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

from linuxkit.errors import InputError
from linuxkit.oci.reference import expand, parse_reference
from linuxkit.pkg.git import Git
from linuxkit.pkg.model import Package
from linuxkit.pkg.parse import read_package

_HASH = re.compile(r"(?:\s*\{\{-\s|\{\{\s*)\s*\.Hash\s*(?:\s-\}\}\s*|\}\})")


@dataclass(frozen=True, slots=True)
class Naming:
    """What the command line says about names; empty where build.yml and git decide.

    hash         in place of git's.
    commit       of which the hash is taken.
    hash_path    directory whose hash is taken, in place of the package's.
    force_dirty  treat the work tree as changed.
    user         organisation of a package under development: its hash is `dev`, unless `hash` is given.
    """

    build_file: str = "build.yml"
    org: str = ""
    tag: str = ""
    hash: str = ""
    commit: str = "HEAD"
    hash_path: Path | None = None
    force_dirty: bool = False
    user: str = ""


@dataclass(frozen=True, slots=True)
class Name:
    """A package's name.

    hash    "" outside git.
    dirty   the work tree differs from the commit.
    moving  the same name stands for other content as time goes by: `dev`, or `latest` outside git.
    """

    org: str
    image: str
    tag: str
    hash: str
    dirty: bool
    in_git: bool
    moving: bool = False

    @property
    def text(self) -> str:
        """ORG/IMAGE:TAG."""
        return f"{self.org}/{self.image}:{self.tag}"

    @property
    def full(self) -> str:
        """With the registry: docker.io/ORG/IMAGE:TAG."""
        return expand(self.text)


def package_name(directory: Path, *, build_file: str = "build.yml") -> str:
    """The full image name of a package, which `@pkg:DIR` stands for.

    Raises:
        InputError: the directory is no package, or git does not know it.
        HostError: there is no git.
    """
    return name_of(read_package(directory, build_file)).full


def name_of(package: Package, naming: Naming = Naming()) -> Name:
    """A package's name.

    Raises:
        InputError: git does not track the directory or an extra source, or the tag is a template that is not known.
        HostError: there is no git.
    """
    git = Git(package.directory)
    given = naming.hash or ("dev" if naming.user else "")
    found, dirty = given, False
    if git.inside:
        hashed = naming.hash_path or package.directory
        dirty = naming.force_dirty or (naming.commit == "HEAD" and git.dirty(hashed))
        if not given:
            found = _content_hash(package, git, hashed, naming.commit)
            if dirty:
                found += f"-dirty-{git.contents()[:7]}"
    template = naming.tag or package.tag
    tag = _HASH.sub(found or "latest", template)
    if "{{" in tag:
        raise InputError(f"{package.file}: the tag '{template}' is a template that is not known",
                         hint="only {{.Hash}} can be filled in")  # fmt: skip
    name = Name(naming.org or naming.user or package.org, package.image, tag, found, dirty, git.inside,
                moving=not naming.hash and (bool(naming.user) or not git.inside))  # fmt: skip
    try:
        parse_reference(name.text)
    except InputError as e:
        raise InputError(f"{package.file}: {e.message}", hint=e.hint) from None
    return name


def _content_hash(package: Package, git: Git, hashed: Path, commit: str) -> str:
    found = git.tree(hashed, commit)
    if package.extra_sources:
        trees = [git.tree(source, commit) for source in package.sources()]
        found = hashlib.sha1("".join([found, *trees]).encode(), usedforsecurity=False).hexdigest()
    return found
