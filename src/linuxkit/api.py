"""The library: what `import linuxkit` offers, and what the command line calls.

    config = linuxkit.load("web.yml")
    artifact = linuxkit.build(config, name="web", directory=Path("out"), cache=Path("cache"))
    for file in artifact.files:
        print(file.path, file.size)
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from linuxkit.config.model import Config
from linuxkit.errors import HostError, InputError, LinuxkitError, Problem
from linuxkit.oci.media import Image, Platform
from linuxkit.plan.model import BuildPlan, Options, SourceFile

if TYPE_CHECKING:
    from linuxkit.oci.resolve import Resolver
    from linuxkit.oci.store import Store
    from linuxkit.outputs.files import Written
    from linuxkit.packages.kit import Kit

ARCHITECTURES = ("amd64", "arm64", "riscv64")


@dataclass(frozen=True, slots=True)
class Artifact:
    """What a build made.

    files     in the order they were written; empty when it went to standard output.
    digest    of the plan: builds of one digest have the same bytes.
    segments  parts of the root filesystem; `cached` of them were in the cache already.
    """

    files: tuple[Written, ...]
    digest: str
    segments: int
    cached: int


@dataclass(frozen=True)
class Sources:
    """Where images come from.

    cache     LinuxKit's cache directory: an OCI layout, with the derived cache inside.
    mirrors   registry mirrors, `[REGISTRY=]URL`.
    offline   never use the network.
    pull      fetch images from the registry even when the cache has them.
    debian    the Debian mirror that kit packages are made from; "" takes the one of this machine's apt.
    log       takes a line about something that takes a while.
    """

    cache: Path
    mirrors: tuple[str, ...] = ()
    cert_files: tuple[Path, ...] = ()
    offline: bool = False
    pull: bool = False
    debian: str = ""
    log: Callable[[str], None] = lambda line: None

    def store(self) -> Store:
        from linuxkit.oci.store import Store

        return Store(self.cache)

    def resolver(self, store: Store) -> Resolver:
        """A resolver over the store, the kit and, unless offline, registries."""
        from linuxkit.oci.resolve import Resolver

        return Resolver(store, {"kit": self.kit(store)}, None, offline=self.offline, log=self.log)

    def kit(self, store: Store) -> Kit:
        from linuxkit.packages.kit import Kit

        return Kit(store, self.cache / "kit", mirror=self.debian, offline=self.offline, say=self.log)


def load(*files: str | Path) -> Config:
    """Read and merge YAML files.

    Raises:
        InputError: `problems` has every fault of every file.
        HostError: a file cannot be read.
    """
    from linuxkit.config.merge import merge
    from linuxkit.config.parse import parse_config

    configs: list[Config] = []
    problems: list[Problem] = []
    for file in files:
        try:
            configs.append(parse_config(Path(file).read_bytes(), str(file), check_reference=check_reference))
        except InputError as e:
            problems += e.problems or [Problem(e.message, str(file), hint=e.hint)]
    if problems:
        raise InputError(f"{len(problems)} problems", problems=problems)
    return merge(configs)


def check_reference(text: str) -> None:
    """Raise InputError when `text` cannot name an image."""
    from linuxkit.oci.reference import parse_reference
    from linuxkit.oci.resolve import ARCHIVES

    if "://" in text or text.partition(":")[0] in ARCHIVES:
        return  # the source of that scheme knows
    parse_reference(text)


def plan(config: Config, resolver: Resolver, options: Options, *, home: Path | None = None) -> BuildPlan:
    """Pin every image and decide every byte of a build, without writing anything but fetched images.

    Args:
        home: what `~/` in `source:` means.

    Raises:
        LinuxkitError: of any kind.
    """
    from linuxkit.config.render import metadata
    from linuxkit.oci.reference import expand
    from linuxkit.plan.make import make_plan

    platform = Platform("linux", options.architecture)
    images = _resolve(config, resolver, platform)
    kinds: tuple[Literal["yaml", "json"], ...] = ("yaml", "json")
    wanted = {file.metadata for file in config.files}
    rendered: dict[str, bytes] = {kind: metadata(config, kind, expand) for kind in kinds if kind in wanted}
    return make_plan(config, images, _read_sources(config, home), rendered, options)


def build(
    config: Config,
    *,
    name: str,
    sources: Sources,
    directory: Path | None = None,
    output: str = "",
    formats: Sequence[str] = (),
    options: Options | None = None,
    compress: str = "zstd",
    level: int | None = None,
    threads: int = 2,
    home: Path | None = None,
) -> Artifact:
    """Build a configuration.

    Args:
        name: what the files' names start with.
        directory: where they go; the current directory when not given.
        output: one file for a format that is one stream, or "-".
        formats: of outputs.table.FORMATS; kernel+initrd when empty (tar with `output`).
        compress: codec of an initrd: none, gzip, zstd, lz4, xz.
        level: of the codec; its default when not given.

    Raises:
        LinuxkitError: of any kind. What was in the place of the outputs before is still there then.
    """
    from linuxkit.encode.compress import Codec, level_of
    from linuxkit.outputs.table import choose

    target = choose(formats, output, directory, "" if output else name, name)
    try:
        codec = Codec(compress)
    except ValueError:
        raise InputError(f"unknown compression '{compress}'", hint=f"there are {', '.join(Codec)}") from None
    level = level_of(codec, level)

    from linuxkit.oci.derived import Derived
    from linuxkit.oci.resolve import cache_root
    from linuxkit.outputs.build import Build
    from linuxkit.outputs.encoder import Encoder
    from linuxkit.outputs.table import write
    from linuxkit.rootfs.content import Content

    store = sources.store()
    planned = plan(config, sources.resolver(store), options or Options(), home=home)
    content = Content(store, Derived(cache_root(sources.cache)))
    encoder = Encoder(content, threads=threads, log=lambda part: sources.log(f"encoding {part}"))
    written = write(Build(planned, content, encoder, codec, level), target)
    return Artifact(tuple(written), planned.digest, encoder.counts.segments, encoder.counts.cached)


def _resolve(config: Config, resolver: Resolver, platform: Platform) -> Mapping[str, Image]:
    """Every image, once. What is wrong with one does not hide what is wrong with the next."""
    texts = [("kernel.image", config.kernel.image, config.kernel.position)] if config.kernel.image else []
    texts += [(f"init[{n}]", item.image, item.position) for n, item in enumerate(config.init)]
    for section in ("onboot", "onshutdown", "services"):
        entries = getattr(config, section)
        texts += [(f"{section}[{n}].image", c.image, c.position) for n, c in enumerate(entries)]
    texts += [(f"volumes[{n}].image", v.image, v.position) for n, v in enumerate(config.volumes) if v.image]
    images: dict[str, Image] = {}
    failed: dict[str, tuple[LinuxkitError, Problem]] = {}
    for path, text, at in texts:
        if text in images or text in failed:
            continue
        try:
            images[text] = resolver.resolve(text, platform)
        except LinuxkitError as e:
            failed[text] = (e, Problem(e.message, at.file, at.line, at.column, path, e.hint))
    if not failed:
        return images
    errors = [error for error, _ in failed.values()]
    if len(errors) == 1:
        raise errors[0]
    listed = [problem for _, problem in failed.values()]
    if all(isinstance(e, InputError) for e in errors):
        raise InputError(f"{len(errors)} images cannot be used", problems=listed)
    raise type(errors[0])(
        f"{len(errors)} images cannot be used:" + "".join(f"\n  {problem}" for problem in listed)
    )


def _read_sources(config: Config, home: Path | None) -> dict[str, SourceFile]:
    found = {}
    for file in config.files:
        if file.source is None or file.source in found:
            continue
        path = Path(file.source)
        if file.source.startswith("~/"):
            path = (home or Path.home()) / file.source[2:]
        try:
            found[file.source] = _digest(path)
        except FileNotFoundError:
            continue  # optional, or an error with its place in the YAML
        except OSError as e:
            at = f" ({file.position.file}:{file.position.line})" if file.position.file else ""
            raise HostError(f"cannot read {path}{at}: {(e.strerror or str(e)).lower()}",
                            hint="source: names a file of this machine") from e  # fmt: skip
    return found


def _digest(path: Path) -> SourceFile:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return SourceFile(os.fspath(path), stream.tell(), f"sha256:{digest}")
