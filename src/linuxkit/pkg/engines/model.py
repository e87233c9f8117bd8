"""What an engine is: something on this machine, or behind an address, that builds Dockerfiles.

An engine turns a Build into command lines; running them is somebody else's work (make.py), so that each engine's
commands are a pure function of what it is asked for. The last command leaves an OCI archive at `Build.output`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from linuxkit.oci.media import Platform

Command = list[str]
#: Whether a command succeeds.
Works = Callable[[Command], bool]


@dataclass(frozen=True, slots=True)
class Served:
    """A base image that the cache serves.

    image    its name.
    written  as the Dockerfile has it, with its variables.
    digest   of its manifest for the platform.
    layout   an OCI layout directory with nothing else in it, relative to the directory that commands run in; the
             path is the digest's, because some engines name an image after the path and keep it under that name.
    """

    image: str
    written: str
    digest: str
    layout: str


@dataclass(frozen=True, slots=True)
class Build:
    """One Dockerfile for one platform.

    context     directory with the files.
    dockerfile  relative to it.
    name        what the engine calls the result.
    output      where the OCI archive goes.
    arguments   build arguments, with proxies.
    network     whether RUN steps have the network.
    secrets     `id=NAME,src=FILE`; ssh: `default` or `ID=SOCKET`.
    progress    auto, plain or tty.
    builder     what --builders says for the platform: an address, a Docker context, a Podman connection; or "".
    sbom        generator of an SBOM; "" is the engine's own, None is none.
    """

    context: Path
    dockerfile: str
    name: str
    platform: Platform
    output: Path
    arguments: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    network: bool = False
    no_cache: bool = False
    bases: tuple[Served, ...] = ()
    secrets: tuple[str, ...] = ()
    ssh: tuple[str, ...] = ()
    progress: str = "auto"
    builder: str = ""
    sbom: str | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """How an engine is set up: of BuildKit in Docker.

    name     of the builder.
    image    of BuildKit.
    config   buildkitd.toml.
    restart  make the builder anew.
    """

    name: str = "linuxkit-builder"
    image: str = "moby/buildkit:v0.26.3"
    config: Path | None = None
    restart: bool = False


class Engine(Protocol):
    """A builder of Dockerfiles."""

    name: str  # as --engine has it
    hint: str  # what to install or start, when it is missing

    def there(self, environment: Mapping[str, str], works: Works) -> bool:
        """Whether it can be used on this machine without being told where it is."""

    def prepare(self, builder: str, settings: Settings, works: Works) -> list[Command]:
        """What has to be run once before the first build."""

    def commands(self, build: Build, settings: Settings) -> list[Command]:
        """What builds."""

    def note(self, build: Build) -> str:
        """What it does not do as it is asked; "" when it does everything."""

    def usage(self, builder: str, settings: Settings) -> Command:
        """What tells the space that its cache takes."""

    def prune(self, builder: str, settings: Settings) -> Command:
        """What empties its cache."""


def named(values: Mapping[str, str], flag: str) -> list[str]:
    """`FLAG NAME=VALUE` for each."""
    return [word for name, value in values.items() for word in (flag, f"{name}={value}")]


def each(values: tuple[str, ...], flag: str) -> list[str]:
    """`FLAG VALUE` for each."""
    return [word for value in values for word in (flag, value)]


def familiar(image: str) -> str:
    """An image's name as BuildKit compares names: no docker.io, no library/, no :latest."""
    from linuxkit.oci.reference import parse_reference

    text = parse_reference(image).text.removeprefix("docker.io/").removeprefix("library/")
    return text if "@" in text else text.removesuffix(":latest")
