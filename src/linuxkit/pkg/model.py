"""A package directory as its build.yml describes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from linuxkit.config.model import Position
from linuxkit.packages.recipe import Recipe

ARCHES = ("amd64", "arm64", "riscv64")
GIT_REPO = "https://github.com/linuxkit/linuxkit"
HASH_TAG = "{{.Hash}}"


@dataclass(frozen=True, slots=True)
class DockerImages:
    """`depends.docker-images`: where archives of images go, and which images."""

    target: str = ""
    target_dir: str = ""
    from_file: str = ""
    list: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ExtraSource:
    """Files from elsewhere in the repository that a build finds at `destination`."""

    source: str  # relative to the package, or absolute
    destination: str  # relative to the build's files


@dataclass(frozen=True, slots=True)
class Package:
    """What build.yml says. `recipe` is there for a native one; the others have a Dockerfile."""

    directory: Path
    file: Path
    image: str
    org: str = "linuxkit"
    tag: str = HASH_TAG
    dockerfile: str = "Dockerfile"
    arches: tuple[str, ...] = ARCHES
    extra_sources: tuple[ExtraSource, ...] = ()
    git_repo: str = GIT_REPO
    network: bool = False
    disable_cache: bool = False
    config: str = ""  # compact JSON: the label org.mobyproject.config
    build_args: tuple[str, ...] = ()
    depends: DockerImages | None = None
    recipe: Recipe | None = None
    positions: Mapping[str, Position] = field(default_factory=dict, compare=False)  # path in build.yml → place

    def sources(self) -> list[Path]:
        """The extra sources' places on this machine."""
        return [self.directory / extra.source for extra in self.extra_sources]
