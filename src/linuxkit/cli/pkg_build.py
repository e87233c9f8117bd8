"""linuxkit pkg build and push."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from linuxkit.cli.main import allow_release_rollback, max_layer
from linuxkit.cli.pkg_common import DIRECTORY, Command, Common, common, pkg

if TYPE_CHECKING:
    from linuxkit.api import Sources
    from linuxkit.cli.main import Settings
    from linuxkit.pkg.engines.make import EngineOptions, Engines
    from linuxkit.pkg.model import Package
    from linuxkit.pkg.naming import Naming
    from linuxkit.pkg.request import Done, Job, Request

FILE = click.Path(path_type=Path)
BUILDER = (
    click.option("--engine", default="", metavar="NAME", envvar="LINUXKIT_ENGINE", show_envvar=True,
                 help="buildkit, buildx, podman or buildah, for Dockerfiles.  [default: the first that is there]"),
    click.option("--builders", default="", metavar="PLATFORM=WHERE,...", envvar="LINUXKIT_BUILDERS", show_envvar=True,
                 help="Where a platform is built: a BuildKit address, or a Docker context."),
    click.option("--builder-name", default="linuxkit-builder", show_default=True, metavar="NAME",
                 envvar="LINUXKIT_BUILDER_NAME", show_envvar=True, help="Builder of docker buildx; made when missing."),
    click.option("--builder-image", default="moby/buildkit:v0.26.3", show_default=True, metavar="IMAGE",
                 envvar="LINUXKIT_BUILDER_IMAGE", show_envvar=True, help="BuildKit of a builder that is made."),
    click.option("--builder-config", default=None, type=FILE, metavar="FILE", envvar="LINUXKIT_BUILDER_CONFIG",
                 show_envvar=True, help="buildkitd.toml of a builder that is made."),
)  # fmt: skip
_FLAGS = (
    click.option("--force", is_flag=True, help="Build also what is there."),
    click.option("--pull", is_flag=True, help="Fetch what the registry has, instead of building it."),
    click.option("--ignore-cached", is_flag=True, help="Don't give an engine base images from the cache."),
    click.option("--precache-images", is_flag=True, help="Fetch base images into the cache first."),
    click.option("--docker", is_flag=True, help="Load the images into Docker, too."),
    click.option("--platforms", default="", metavar="LIST", help="Only these, as linux/amd64,linux/arm64."),
    click.option("--skip-platforms", default="", metavar="LIST", help="All but these."),
    click.option("--builder-restart", is_flag=True, help="Make the builder of docker buildx anew."),
    click.option("--cache", "own_cache", default=None, type=DIRECTORY, metavar="DIR",
                 help="Image cache.  [default: linuxkit --cache]"),
    click.option("--release", default="", metavar="TAG", help="Push under this tag, too, unless it is taken.  "
                                                             "[default: the git tag of HEAD]"),
    click.option("--nobuild", is_flag=True, help="With --push: push what the cache has, build nothing."),
    click.option("--manifest/--no-manifest", "arch_tags", default=True, help="Push TAG-ARCH for each image, too."),
    click.option("--sbom-scanner", default="", metavar="IMAGE|false",
                 help="What BuildKit makes an SBOM with; false: none.  [default: BuildKit's own]"),
    click.option("--dockerfile", default="", metavar="FILE", help="Instead of build.yml's."),
    click.option("--build-arg-file", "arg_files", multiple=True, type=FILE, metavar="FILE",
                 help="NAME=VALUE lines for a Dockerfile's ARG; repeatable."),
    click.option("--secret", "secrets", multiple=True, metavar="id=NAME,src=FILE",
                 help="A secret for RUN --mount=type=secret; repeatable."),
    click.option("--ssh", "ssh", multiple=True, metavar="default|ID=SOCKET",
                 help="An ssh agent for RUN --mount=type=ssh; repeatable."),
    click.option("--progress", default="auto", show_default=True, type=click.Choice(["auto", "plain", "tty"]),
                 help="How an engine shows what it does."),
    click.option("--jobs", default=2, show_default=True, type=click.IntRange(1, 64), metavar="N",
                 help="Most builds at a time."),
    click.option("--dry-run", is_flag=True, help="Only print what an engine would be told."),
    max_layer,
)  # fmt: skip


ARCHIVES = (
    allow_release_rollback,
    click.option("--debian-mirror", default="", metavar="URL", envvar="LINUXKIT_DEBIAN_MIRROR", show_envvar=True,
                 help="Debian mirror of native recipes, URL or URL,SECURITY-URL.  [default: apt's]"),
    click.option("--alpine-mirror", default="", metavar="URL", envvar="LINUXKIT_ALPINE_MIRROR", show_envvar=True,
                 help="Alpine mirror of native recipes.  [default: apk's]"),
    click.option("--alpine-keys", default=None, type=DIRECTORY, metavar="DIR", envvar="LINUXKIT_ALPINE_KEYS",
                 show_envvar=True, help="Folder of the keys that Alpine's packages are signed by.  [default: apk's]"),
)  # fmt: skip


def _flags(command: Command) -> Command:
    for option in reversed((*_FLAGS, *ARCHIVES, *BUILDER)):
        command = option(command)
    return command


@pkg.command("build")
@click.argument("directories", nargs=-1, required=True, type=DIRECTORY, metavar="DIR...")
@click.option("--push", is_flag=True, help="Send the images to their registry.")
@_flags
@common
@click.pass_obj
def build(settings: Settings, /, directories: tuple[Path, ...], push: bool, flags: Common, **rest: Any) -> None:
    """Build packages into the cache, for all their architectures, in the order in which they need each other.

    What the cache or the registry has is not built again.
    """
    _build(settings, directories, push, flags, **rest)


@pkg.command("push")
@click.argument("directories", nargs=-1, required=True, type=DIRECTORY, metavar="DIR...")
@_flags
@common
@click.pass_obj
def push(settings: Settings, /, directories: tuple[Path, ...], flags: Common, **rest: Any) -> None:
    """Build packages and send them to their registry: build --push."""
    _build(settings, directories, True, flags, **rest)


@pkg.command("lock")
@click.argument("directories", nargs=-1, required=True, type=DIRECTORY, metavar="DIR...")
@common
@click.pass_obj
def lock(settings: Settings, /, directories: tuple[Path, ...], flags: Common, **rest: Any) -> None:
    """Write down which packages of Debian or Alpine native recipes are made of: DIR/build.lock.

    They are the newest; builds take exactly these until the lock is made anew or removed.
    """
    from linuxkit.pkg import lockfile

    packages = flags.packages(directories)
    with ExitStack() as stack:
        sources = open_sources(settings, flags, stack, rest)
        builder = stack.enter_context(sources.kit.workshop())
        for package in packages:
            recipe = package.recipe
            if recipe is None or not lockfile.draws(recipe):
                sources.log(f"{package.directory}: nothing to lock: it takes nothing from an archive")
                continue
            pieces = {arch: builder(arch).newest(recipe) for arch in package.arches}
            click.echo(lockfile.write(package, pieces))


for _option in reversed(ARCHIVES):
    lock = _option(lock)


def _build(settings: Settings, directories: tuple[Path, ...], push: bool, flags: Common, *, dry_run: bool,
           own_cache: Path | None, **rest: Any) -> None:  # fmt: skip
    from dataclasses import replace

    from linuxkit.errors import InputError

    if own_cache is not None:
        settings = replace(settings, cache=own_cache)
    naming = flags.naming()
    if naming.commit != "HEAD":
        raise InputError("--hash-commit: only the files of HEAD can be built", hint="check that commit out, or leave "
                         "--hash-commit out")  # fmt: skip
    if rest["nobuild"] and not push:
        say(settings)("--nobuild has no effect without --push")
    with ExitStack() as stack:
        sources = open_sources(settings, flags, stack, rest)
        for done in build_packages(settings, sources, flags.packages(directories), naming, push, rest, dry_run):
            if done.job.asked:
                click.echo(f"{done.job.name.full}@{done.digest}" if done.digest else done.job.name.full)


def build_packages(settings: Settings, sources: Sources, packages: Sequence[Package], naming: Naming, push: bool,
                   rest: Mapping[str, Any], dry_run: bool = False) -> list[Done]:  # fmt: skip
    """Build packages as the flags say; with `dry_run`, only print what an engine would be told."""
    from dataclasses import replace

    import linuxkit
    from linuxkit.pkg.build import Builds
    from linuxkit.pkg.engines.make import Engines
    from linuxkit.pkg.jobs import make_jobs

    request = _request(push, rest)
    request.check()
    options = _engine_options(settings, rest)
    chosen = [replace(package, dockerfile=rest["dockerfile"] or package.dockerfile) for package in packages]
    jobs = make_jobs(chosen, naming, request)
    engines = Engines(sources.store, sources.resolver, options, os.environ, sources.log)
    if dry_run:
        _dry_run(jobs, engines)
        return []
    builds = Builds(sources.store, sources.kit, sources.resolver, lambda: sources.registry, engines,
                    version=linuxkit.__version__, say=sources.log)  # fmt: skip
    return builds.run(jobs, request)


def _dry_run(jobs: list[Job], engines: Engines) -> None:
    import linuxkit
    from linuxkit.pkg.build import labels_of

    for job in jobs:
        for platform in job.platforms():
            if job.package.recipe is not None:
                words = ["linuxkit", "pkg", "build", "--force", "--platforms", str(platform)]
                click.echo(shlex.join([*words, str(job.package.directory)]))
                continue
            for command in engines.dry_run(job, platform, labels_of(job.package, job.name, linuxkit.__version__)):
                click.echo(shlex.join(command))


def _request(push: bool, rest: Mapping[str, Any]) -> Request:
    from linuxkit.pkg.request import Request

    return Request(
        arches=_arches("--platforms", rest["platforms"]), skip=_arches("--skip-platforms", rest["skip_platforms"]),
        force=rest["force"], pull=rest["pull"], push=push, nobuild=rest["nobuild"], arch_tags=rest["arch_tags"],
        release=rest["release"], docker=rest["docker"], arg_files=rest["arg_files"], jobs=rest["jobs"],
    )  # fmt: skip


def _engine_options(settings: Settings, rest: Mapping[str, Any]) -> EngineOptions:
    from linuxkit.pkg.engines.make import EngineOptions
    from linuxkit.pkg.engines.table import by_name, parse_builders

    if rest["engine"]:
        by_name(rest["engine"])
    scanner = rest["sbom_scanner"]
    return EngineOptions(
        rest["engine"], parse_builders(rest["builders"]), builder_settings(rest), not rest["ignore_cached"],
        rest["precache_images"], tuple(map(_secret, rest["secrets"])), tuple(map(_agent, rest["ssh"])),
        rest["progress"], None if scanner == "false" else scanner, show=settings.verbose > 0,
        max_layer=settings.max_layer,
    )  # fmt: skip


def _secret(text: str) -> str:
    """A --secret with its file's whole path: engines run elsewhere."""
    from linuxkit.errors import InputError

    fields = dict(part.partition("=")[::2] for part in text.split(","))
    source = fields.get("src") or fields.get("source") or ""
    if not fields.get("id") or not (source or fields.get("env")):
        raise InputError("--secret is not id=NAME,src=FILE", hint="for example id=token,src=token.txt")
    if source and not Path(source).is_file():
        raise InputError(f"--secret {fields['id']}: there is no file {source}")
    where = {"src": str(Path(source).absolute())} if source else {}
    rest = {name: value for name, value in fields.items() if name not in ("src", "source")}
    return ",".join(f"{name}={value}" for name, value in (rest | where).items())


def _agent(text: str) -> str:
    """A --ssh with its socket's whole path."""
    name, mark, socket = text.partition("=")
    return f"{name}={Path(socket).absolute()}" if mark else name


def builder_settings(rest: Mapping[str, Any]) -> Any:
    """The flags about a builder of buildx."""
    from linuxkit.errors import InputError
    from linuxkit.pkg.engines.model import Settings as Builder

    config = rest["builder_config"]
    if config is not None and not config.is_file():
        raise InputError(f"--builder-config {config}: there is no such file")
    return Builder(rest["builder_name"], rest["builder_image"], config, rest.get("builder_restart", False))


def _arches(flag: str, text: str) -> tuple[str, ...]:
    from linuxkit.errors import InputError

    found = []
    for item in filter(None, (part.strip() for part in text.split(","))):
        system, _, arch = item.partition("/")
        if system != "linux" or not arch or "/" in arch:
            raise InputError(f"{flag}: '{item}' is not linux/ARCH", hint="for example linux/amd64,linux/arm64")
        found.append(arch)
    return tuple(found)


def say(settings: Settings) -> Callable[[str], None]:
    """Prints a line to standard error, unless that should be quiet."""

    def line(text: str) -> None:
        if settings.verbose:
            click.echo(text, err=True)

    return line


def open_sources(settings: Settings, flags: Common, stack: ExitStack, rest: Mapping[str, Any] | None = None) -> Sources:
    """The cache, the kit and registries; the latter with the logins of the command line.

    Args:
        rest: with the flags of ARCHIVES.
    """
    from linuxkit import api
    from linuxkit.cli.progress import Progress
    from linuxkit.pkg.logins import parse_logins
    from linuxkit.trust.policy import load

    progress = stack.enter_context(Progress(sys.stderr, "moved", quiet=not settings.verbose))
    policy = load(settings.policy_file) if settings.policy_file else None
    given = rest or {}
    return api.Sources(settings.cache, settings.mirrors, settings.cert_files, debian=given.get("debian_mirror", ""),
                       environment=os.environ, log=progress.line, progress=progress, policy=policy,
                       logins=parse_logins(flags.registry_creds), alpine=given.get("alpine_mirror", ""),
                       alpine_keys=given.get("alpine_keys"), rollback=settings.rollback,
                       max_layer=settings.max_layer)  # fmt: skip
