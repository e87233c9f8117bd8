"""Whether a build can boot: what `linuxkit check` asks, and `build` before it writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from linuxkit import api
from linuxkit.encode.compress import Codec, level_of
from linuxkit.errors import InputError
from linuxkit.oci.derived import Derived
from linuxkit.oci.resolve import cache_root
from linuxkit.outputs.build import Build
from linuxkit.outputs.encoder import Encoder
from linuxkit.outputs.preflight import Finding, Memory, preflight, refuse
from linuxkit.outputs.table import Format, choose, disk_root, loaders
from linuxkit.plan.model import Options
from linuxkit.rootfs.content import Content

if TYPE_CHECKING:
    from linuxkit.config.model import Config
    from linuxkit.plan.lock import Lock


def check(
    config: Config,
    *,
    sources: api.Sources,
    formats: Sequence[str] = (),
    options: Options | None = None,
    compress: str = "",
    lock: Lock | None = None,
    memory: int = 0,
    root: str = "",
    verity: bool = False,
) -> list[Finding]:
    """What keeps a configuration from booting; images are fetched as for a build, and nothing is written.

    Args:
        formats: as for a build.
        compress: codec of an initrd or file system, as for a build.
        lock: what every image has to be.
        memory: of the machine, in bytes; 0 is not known.
        root, verity: as for a build.

    Raises:
        LinuxkitError: of any kind.
    """
    target = choose(formats, "", None, "image", "image")
    try:
        codec = Codec(compress or Codec.ZSTD)
    except ValueError:
        raise InputError(f"unknown compression '{compress}'", hint=f"there are {', '.join(Codec)}") from None
    partition = disk_root(target.formats, root, verity)
    options = replace(options or Options(), loaders=loaders(target.formats, rooted=bool(partition)))
    plan = api.plan(config, sources, options, lock)
    content = Content(sources.store, Derived(cache_root(sources.cache)), whiteouts=plan.whiteouts, log=sources.log)
    encoder = Encoder(content, log=lambda part: sources.log(f"encoding {part}"))
    erofs = codec if compress else Codec.NONE
    made = Build(plan, content, encoder, codec, level_of(codec, None), erofs=erofs, disk_root=partition, verity=verity)
    return found_in(made, target.formats, memory)


def found_in(build: Build, formats: Sequence[Format], memory: int) -> list[Finding]:
    """What is wrong with a build."""
    if not memory:
        return preflight(build, formats)
    from linuxkit.platforms.memory import least_for

    return preflight(build, formats, Memory(memory, least_for))


def judge(build: Build, formats: Sequence[Format], memory: int, log: Callable[[str], None]) -> None:
    """Refuse a build that can't boot, and say what else is odd about it.

    Raises:
        InputError: `problems` has everything that keeps it from booting.
    """
    found = found_in(build, formats, memory)
    for one in found:
        if not one.fatal:
            log(f"warning: {one.problem}")
    refuse(found, "build --no-preflight builds it all the same")
