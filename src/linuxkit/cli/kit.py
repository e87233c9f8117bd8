"""linuxkit kit: the packages behind kit://NAME"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from linuxkit.cli.main import allow_release_rollback

if TYPE_CHECKING:
    from linuxkit.cli.main import Settings
    from linuxkit.packages.kit import Kit

_MIRROR = "Debian mirror, URL or URL,SECURITY-URL.  [default: the one that this machine's apt uses]"


@click.group()
def kit() -> None:
    """The packages behind kit://NAME: made from Debian's, here, on first use."""


def open_kit(settings: Settings, mirror: str = "") -> Kit:
    """The project's kit, with the cache and the network that the global flags name."""
    import os

    from linuxkit import api

    def log(line: str) -> None:
        if settings.verbose:
            click.echo(line, err=True)

    return api.Sources(settings.cache, settings.mirrors, settings.cert_files, debian=mirror, environment=os.environ,
                       log=log, rollback=settings.rollback).kit  # fmt: skip


def host_architecture() -> str:
    """This machine's architecture in Go's names."""
    import platform

    machine = platform.machine().lower()
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


@kit.command("ls")
@click.option("--names", is_flag=True, help="Only the names.")
@click.pass_obj
def ls(settings: Settings, names: bool) -> None:
    """List the packages: name, hash, what they have been built for, description."""
    from linuxkit.oci.media import Platform

    known = open_kit(settings)
    for name in known.names():
        if names:
            click.echo(name)
            continue
        recipe = known.recipe(name)
        built = [a for a in recipe.arches if known.find(name, Platform("linux", a)) is not None]
        click.echo(f"{name:<16} {known.hash(name)[:12]}  {','.join(built) or '-':<12} {recipe.description}")


@kit.command("build")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--all", "everything", is_flag=True, help="All packages of the kit.")
@click.option("--arch", default=None, metavar="ARCH", help="amd64 or arm64.  [default: this machine's]")
@click.option("--force", is_flag=True, help="Build also what is there.")
@click.option("--debian-mirror", default="", metavar="URL", envvar="LINUXKIT_DEBIAN_MIRROR", show_envvar=True,
              help=_MIRROR)
@allow_release_rollback
@click.pass_obj
def build(settings: Settings, names: tuple[str, ...], everything: bool, arch: str | None, force: bool,
          debian_mirror: str) -> None:
    """Build packages ahead of their first use. Without root, a container or Docker."""
    from linuxkit.errors import InputError
    from linuxkit.oci.media import Platform

    start = time.monotonic()
    known = open_kit(settings, debian_mirror)
    if bool(names) == everything:
        raise InputError("name the packages to build, or give --all", hint=f"there are {', '.join(known.names())}")
    platform = Platform("linux", arch or host_architecture())
    wanted = [n for n in known.names() if platform.architecture in known.recipe(n).arches] if everything else names
    for built in known.ensure(list(wanted), platform, again=force):
        took = f"{built.seconds:.1f} s" if built.seconds else "there"
        size = sum(layer.size for layer in built.image.layers) / 1e6
        click.echo(f"{built.name:<16} {size:>7.1f} MB  {took:>7}  {built.image.reference}@{built.image.digest}")
    if settings.verbose:
        click.echo(f"took {time.monotonic() - start:.1f} s", err=True)
