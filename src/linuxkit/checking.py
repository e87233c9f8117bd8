"""Whether a build can boot: what `linuxkit check` asks, and `build` before it writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from linuxkit import api
from linuxkit.config.document import printable
from linuxkit.encode.compress import Codec, level_of
from linuxkit.errors import InputError, Problem
from linuxkit.oci.derived import Derived
from linuxkit.oci.resolve import cache_root
from linuxkit.outputs.build import Build
from linuxkit.outputs.encoder import Encoder
from linuxkit.outputs.preflight import Finding, Memory, preflight, refuse
from linuxkit.outputs.starts import tree_of
from linuxkit.outputs.table import Format, check_options, choose, disk_root, loaders
from linuxkit.plan.model import BundlePlan, Options
from linuxkit.rootfs.content import Content
from linuxkit.runtime.doomed import doomed

if TYPE_CHECKING:
    from linuxkit.config.model import Config, Container, Position
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
    check_options(target.formats, memory=memory, root=partition)
    options = replace(options or Options(), loaders=loaders(target.formats, rooted=bool(partition)))
    plan = api.plan(config, sources, options, lock)
    content = Content(sources.store, Derived(cache_root(sources.cache)), whiteouts=plan.whiteouts, log=sources.log,
                      attested=sources.unsigned, heal=sources.heal, max_layer=sources.max_layer)  # fmt: skip
    encoder = Encoder(content, log=lambda part: sources.log(f"encoding {part}"))
    erofs = codec if compress else Codec.NONE
    made = Build(plan, content, encoder, codec, level_of(codec, None), erofs=erofs, disk_root=partition, verity=verity)
    found = found_in(made, target.formats, memory, config)
    content.tell(plan.images())
    return found


def found_in(
    build: Build, formats: Sequence[Format], memory: int, config: Config | None = None
) -> list[Finding]:
    """What is wrong with a build; with the configuration, what is odd about its `files:` too."""
    found = [*_directories(build, config), *_settings(build, config)] if config is not None else []
    least: Memory | None = None
    if memory:
        from linuxkit.platforms.memory import least_for

        least = Memory(memory, least_for)
    judged = preflight(build, formats, least)
    return found + ([_placed(one, config) for one in judged] if config is not None else judged)


def _placed(one: Finding, config: Config) -> Finding:
    """With the line of the container or file that it is about."""
    problem = one.problem
    if problem.file:
        return one
    at: Position | None = None
    for section in ("onboot", "onshutdown", "services"):
        for entry in getattr(config, section):
            if at is None and problem.path == f"{section}.{entry.name}":
                at = entry.positions.get("command", entry.position)
    for file in config.files:
        if problem.path == f"/{file.path.strip('/')}":
            at = file.position
    if at is None:
        return one
    return replace(one, problem=replace(problem, file=at.file, line=at.line, column=at.column))


def _settings(build: Build, config: Config) -> Iterator[Finding]:
    """Containers that no runtime starts. Only warned of in a system of LinuxKit's own parts, which it builds."""
    ours = bool(build.plan.guest) or config.kernel.image.startswith("kit://")
    raised = any("nr_open" in (file.contents or "") for file in config.files)
    entries = (*config.onboot, *config.onshutdown, *config.services)
    for bundle, entry in zip(build.plan.bundles, entries, strict=True):
        for problem in doomed(entry, bundle.config):
            if not (raised and "rlimits" in problem.path):
                yield Finding(problem, fatal=ours)
        yield from _user(build, bundle, entry)
    for n, file in enumerate(config.files):
        planned = any(one.origin[1] == f"files[{n}]" for one in build.plan.files)
        if file.optional and file.source is not None and not planned:
            at = file.position
            yield Finding(Problem(f"there is no file '{file.source}', and it is left out", at.file, at.line, at.column,
                                  f"files[{n}].source"), fatal=False, note=True)  # fmt: skip


def _user(build: Build, bundle: BundlePlan, entry: Container) -> Iterator[Finding]:
    """An image's User that does not count, as in LinuxKit."""
    tree = tree_of(build.plan.bundles, bundle)
    user = tree.image.config.user if tree is not None else ""
    if user.partition(":")[0] in ("", "0", "root") or entry.settings.uid is not None:
        return
    if (bundle.config.get("process") or {}).get("user", {}).get("uid") == 0:
        at = entry.position
        yield Finding(Problem(f"the image's User '{printable(user[:60])}' is ignored: it runs as root", at.file,
                              at.line, at.column, entry.path, "write uid: and gid:; uid: 0 says that root is meant"),
                      fatal=False, note=True)  # fmt: skip


def _directories(build: Build, config: Config) -> Iterator[Finding]:
    """Directories of images that `files:` gives another mode or owner, on purpose or because a file is put there."""
    for change in build.joined.changes:
        number = change.location.removeprefix("files[").removesuffix("]")
        if change.part != "files" or not number.isdigit():
            continue
        (mode, *owner), (new_mode, *new_owner) = change.before, change.after
        how = [f"mode {new_mode:04o}, where {change.owner} has {mode:04o}"] if mode != new_mode else []
        if owner != new_owner:
            how.append(f"owner {new_owner[0]}:{new_owner[1]}, where {change.owner} has {owner[0]}:{owner[1]}")
        at = config.files[int(number)].position
        yield Finding(Problem(
            f"/{change.path} gets {' and '.join(how)}", at.file, at.line, at.column, change.location,
            f'put "- path: {change.path}" with directory: true and the mode and owner that you want before it',
        ), fatal=False)  # fmt: skip


def judge(
    build: Build, formats: Sequence[Format], memory: int, log: Callable[[str], None], config: Config | None = None
) -> None:
    """Refuse a build that can't boot, and say what else is odd about it.

    Raises:
        InputError: `problems` has everything that keeps it from booting.
    """
    found = found_in(build, formats, memory, config)
    for one in found:
        if not one.fatal:
            log(f"{'note' if one.note else 'warning'}: {one.problem}")
    refuse(found, "build --no-preflight builds it all the same")
