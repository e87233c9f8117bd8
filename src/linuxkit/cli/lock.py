"""linuxkit lock, linuxkit update; and how the other commands find a lock."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from linuxkit.cli.main import Settings, allow_local_files, allow_release_rollback

if TYPE_CHECKING:
    from linuxkit.api import Sources
    from linuxkit.config.model import Config
    from linuxkit.oci.media import Platform


def lock_path(files: tuple[str, ...], name: str = "") -> Path:
    """Where the lock of a build is: beside the last YAML file, with the build's name."""
    from linuxkit.cli.build import base_name

    last = files[-1]
    folder = Path() if last == "-" or "://" in last else Path(last).parent
    return folder / f"{name or base_name(last)}.lock"


def content(path: Path) -> bytes:
    """What is in a lock file. Raises InputError: it cannot be read."""
    from linuxkit.plan.lock import MAX_SIZE

    try:
        with path.open("rb") as stream:
            return stream.read(MAX_SIZE + 1)
    except OSError as e:
        from linuxkit.errors import InputError

        raise InputError(f"the lock {path} cannot be read: {(e.strerror or str(e)).lower()}",
                         hint="make it: linuxkit lock FILE") from e  # fmt: skip


def chosen(files: tuple[str, ...], name: str, given: Path | None, without: bool) -> Path | None:
    """The lock that a build goes by: the one that is named, else NAME.lock where it exists.

    Raises:
        InputError: the flags contradict each other.
    """
    if without and given is not None:
        from linuxkit.errors import InputError

        raise InputError("--lock and --no-lock cannot be used together", hint="leave one of them out")
    if without:
        return None
    path = given or lock_path(files, name)
    return path if given is not None or os.path.lexists(path) else None


_FILES = click.argument("files", nargs=-1, required=True, metavar="FILE.yml|URL|-...")
_NAME = click.option("--name", default="", help="The build's name.  [default: the last FILE's name]")
_ARCH = click.option("--arch", "arches", multiple=True, metavar="ARCH",
                     help="amd64, arm64 or riscv64; repeatable.  [default: this machine's]")
_PLATFORM = click.option("--platform", "platforms", multiple=True, metavar="OS/ARCH", help="The same, as linux/ARCH.")
_FORMAT = click.option("-f", "--format", "formats", multiple=True, metavar="NAME[,NAME...]",
                       help="Lock the boot loaders of these output formats, too.")
_MIRROR = click.option("--debian-mirror", default="", envvar="LINUXKIT_DEBIAN_MIRROR", show_envvar=True,
                       metavar="URL[,SECURITY-URL]", help="For kit packages.  [default: the one apt uses]")


@click.command()
@_FILES
@_NAME
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE",
              help="Where to write.  [default: NAME.lock beside the last FILE]")
@_ARCH
@_PLATFORM
@_FORMAT
@click.option("--pull", is_flag=True, help="Ask the registries even for what the cache has.")
@click.option("--offline", is_flag=True, envvar="LINUXKIT_OFFLINE", show_envvar=True, help="Never use the network.")
@_MIRROR
@allow_local_files
@allow_release_rollback
@click.pass_obj
def lock(settings: Settings, files: tuple[str, ...], name: str, output: Path | None, arches: tuple[str, ...],
         platforms: tuple[str, ...], formats: tuple[str, ...], pull: bool, offline: bool, debian_mirror: str) -> None:
    """Write down what a build takes now: images by digest, kit packages by recipe and .debs.

    The lock goes beside the YAML, as NAME.lock, and linuxkit build keeps to it from then on. Commit both.
    """
    from linuxkit.errors import InputError
    from linuxkit.locking import make_lock, renew
    from linuxkit.plan.lock import Lock, encode

    if pull and offline:
        raise InputError("--pull and --offline cannot be used together", hint="leave one of them out")
    sources, config, documents = _inputs(settings, files, offline, debian_mirror)
    wanted, loaders = wanted_platforms(arches, platforms), loaders_of(formats)
    if pull:
        made = renew(Lock(), config, sources, platforms=wanted, loaders=loaders, documents=documents)
    else:
        made = make_lock(config, sources, wanted, loaders=loaders, documents=documents)
    path = output or lock_path(files, name)
    _write(path, encode(made))
    if settings.verbose:
        count = len(made.images) + len(made.kit)
        many = f"{count} image{'s' if count != 1 else ''}"
        click.echo(f"wrote {path}: {many} for {', '.join(made.platforms()) or 'no platform'}", err=True)


@click.command()
@_FILES
@_NAME
@click.option("--lock", "path", type=click.Path(path_type=Path), metavar="FILE",
              help="The lock.  [default: NAME.lock beside the last FILE]")
@click.option("--image", "only", multiple=True, metavar="NAME", help="Renew only this image; repeatable.")
@_ARCH
@_PLATFORM
@_FORMAT
@click.option("--check", "--dry-run", "check", is_flag=True,
              help="Write nothing; exit with 1 when the lock is outdated.")
@_MIRROR
@allow_local_files
@allow_release_rollback
@click.pass_obj
def update(settings: Settings, files: tuple[str, ...], name: str, path: Path | None, only: tuple[str, ...],
           arches: tuple[str, ...], platforms: tuple[str, ...], formats: tuple[str, ...], check: bool,
           debian_mirror: str) -> int:
    """Renew a lock, and print what changed, a line for each: NAME: OLD -> NEW.

    Registries and the Debian archive are asked for what is new. --arch and --format add to what the lock has.
    """
    from linuxkit.locking import renew
    from linuxkit.plan.lock import changes, decode, encode

    path = path or lock_path(files, name)
    data = content(path)
    old = decode(data, str(path))
    sources, config, documents = _inputs(settings, files, False, debian_mirror)
    wanted = wanted_platforms(arches, platforms) if arches or platforms else ()
    new = renew(old, config, sources, platforms=wanted, loaders=loaders_of(formats), only=only, build=not check,
                documents=documents)  # fmt: skip
    lines = changes(old, new)
    for line in lines:
        click.echo(line)
    if check:
        if settings.verbose:
            click.echo(f"{path} is {'outdated' if lines else 'up to date'}", err=True)
        return 1 if lines else 0
    if encode(new) != data:
        _write(path, encode(new))
    if settings.verbose:
        click.echo(f"wrote {path}" if lines else f"{path}: nothing changed", err=True)
    return 0


def _inputs(settings: Settings, files: tuple[str, ...], offline: bool, debian_mirror: str,
            ) -> tuple[Sources, Config, list[tuple[str, bytes]]]:  # fmt: skip
    from linuxkit import api
    from linuxkit.cli.sign import policy_of

    def note(line: str) -> None:
        if settings.verbose:
            click.echo(line, err=True)

    sources = api.Sources(settings.cache, settings.mirrors, settings.cert_files, offline, debian=debian_mirror,
                          environment=os.environ, log=note, policy=policy_of(settings),
                          local_files=settings.local_files, rollback=settings.rollback)  # fmt: skip
    documents: list[tuple[str, bytes]] = []
    config = api.load(*files, sources=sources, stdin=sys.stdin.buffer.read, seen=lambda *one: documents.append(one))
    return sources, config, documents


def wanted_platforms(arches: tuple[str, ...], platforms: tuple[str, ...]) -> list[Platform]:
    """--arch and --platform as platforms; this machine's when there are none. Raises InputError."""
    from linuxkit.cli.build import architecture
    from linuxkit.errors import InputError
    from linuxkit.oci.media import Platform

    names = [*arches]
    for text in platforms:
        system, _, rest = text.partition("/")
        if system != "linux" or not rest or "/" in rest:
            raise InputError(f"invalid platform '{text}'", hint="write linux/ARCH, for example linux/arm64")
        names.append(rest)
    return list(dict.fromkeys(Platform("linux", architecture(one)) for one in names or [""]))


def loaders_of(formats: tuple[str, ...]) -> tuple[str, ...]:
    """The kit packages with boot loaders that output formats need. Raises InputError."""
    from linuxkit.outputs.table import choose, loaders

    names = [name for text in formats for name in text.split(",") if name.strip()]
    return loaders([found for name in names for found in choose([name], "", None, "x", "x").formats],
                   rooted=True)  # fmt: skip


def _write(path: Path, data: bytes) -> None:
    from linuxkit.oci.files import host_errors, replacing

    with host_errors("cannot write", path.parent), replacing(path) as stream:
        stream.write(data)
