"""What a build of packages is asked to do, and what it found out before the first one is built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from linuxkit.errors import InputError
from linuxkit.oci.media import Platform
from linuxkit.pkg.model import Package
from linuxkit.pkg.naming import Name


@dataclass(frozen=True, slots=True)
class Request:
    """The flags of `pkg build`.

    arches, skip   architectures to build for, of those that build.yml has; empty: all; and those not to.
    force          build also what is there.
    pull           try to fetch what the cache lacks before building it.
    push           send to the registry.
    nobuild        with push: send what the cache has, build nothing.
    ignore_cached  don't serve base images from the cache.
    precache       fetch base images into the cache first.
    arch_tags      push TAG-ARCH names, too.
    release        a further tag to push under.
    docker         hand the images to Docker, too.
    published      ask the registry whether an image is there before building it.
    arg_files      files of build arguments.
    jobs           most builds at a time.
    """

    arches: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    force: bool = False
    pull: bool = False
    push: bool = False
    nobuild: bool = False
    ignore_cached: bool = False
    precache: bool = False
    arch_tags: bool = True
    release: str = ""
    docker: bool = False
    published: bool = True
    arg_files: tuple[Path, ...] = ()
    jobs: int = 2

    def check(self) -> None:
        """Raise InputError for flags that exclude each other."""
        pairs = (("--force", self.force, "--nobuild", self.nobuild), ("--force", self.force, "--pull", self.pull),
                 ("--platforms", bool(self.arches), "--skip-platforms", bool(self.skip)))  # fmt: skip
        for one, on, other, also in pairs:
            if on and also:
                raise InputError(f"{one} and {other} cannot be used together", hint="give one of them")
        if self.release and not self.push:
            raise InputError("--release names what is pushed", hint="give --push, too")


class State(StrEnum):
    """How an image for one architecture stands."""

    CACHED = "in the cache"
    PULLED = "pulled"
    PUBLISHED = "published"
    MISSING = "to build"


@dataclass(frozen=True, slots=True)
class Job:
    """A package to have: its name, for which architectures, and how these stand.

    asked      named by the user; others are needed by those.
    arguments  of a Dockerfile, resolved.
    base       image that a native recipe lies on.
    needs      full names of packages that come first.
    """

    package: Package
    name: Name
    arches: tuple[str, ...]
    asked: bool
    arguments: Mapping[str, str] = field(default_factory=dict)
    base: str = ""
    needs: frozenset[str] = frozenset()

    def platforms(self) -> list[Platform]:
        """The architectures as platforms."""
        return [Platform("linux", arch) for arch in self.arches]


@dataclass(frozen=True, slots=True)
class Done:
    """What became of a package: how each architecture's image was come by, and its digest when it is in the cache."""

    job: Job
    states: Mapping[str, State]
    digest: str
    seconds: float
