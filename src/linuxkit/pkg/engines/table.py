"""The engines, in the order in which they are looked for, and how one is chosen."""

from __future__ import annotations

from collections.abc import Mapping

from linuxkit.config.convert import did_you_mean
from linuxkit.errors import HostError, InputError
from linuxkit.pkg.engines.buildkit import BuildKit
from linuxkit.pkg.engines.buildx import Buildx
from linuxkit.pkg.engines.model import Engine, Works
from linuxkit.pkg.engines.podman import Buildah, Podman

ENGINES: dict[str, Engine] = {engine.name: engine for engine in (BuildKit(), Buildx(), Podman(), Buildah())}


def by_name(name: str) -> Engine:
    """Raises: InputError, for a name that is none."""
    if name not in ENGINES:
        hint = did_you_mean(name, ENGINES)
        raise InputError(f"unknown engine '{name}'", hint=hint or f"there are {', '.join(ENGINES)}")
    return ENGINES[name]


def choose(name: str, builder: str, environment: Mapping[str, str], works: Works) -> Engine:
    """The engine for a platform.

    Args:
        name: what --engine says; "" to look for one.
        builder: what --builders says for the platform. An address is BuildKit's, a name a Docker context.

    Raises:
        HostError: there is none.
    """
    if name:
        return by_name(name)
    if builder:
        return ENGINES["buildkit" if "://" in builder else "buildx"]
    for engine in ENGINES.values():
        if engine.there(environment, works):
            return engine
    ways = "; or ".join(engine.hint for engine in ENGINES.values())
    raise HostError("nothing on this machine builds Dockerfiles",
                    hint=f"{ways}; or make it a native recipe, which needs none (docs/packages.md)")  # fmt: skip


def parse_builders(text: str) -> dict[str, str]:
    """`linux/arm64=WHERE,linux/s390x=WHERE` as a mapping of platforms.

    Raises:
        InputError: something else.
    """
    found = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        platform, mark, where = item.partition("=")
        if not mark or not where or not 1 <= platform.count("/") <= 2:
            raise InputError(f"--builders '{item}' is not PLATFORM=WHERE",
                             hint="for example linux/arm64=tcp://builder:1234")  # fmt: skip
        found[platform] = where
    return found
