"""linuxkit pkg manifest (index), remote-tag and builder."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from linuxkit.cli.pkg_build import BUILDER, builder_settings, open_sources
from linuxkit.cli.pkg_common import DIRECTORY, Command, Common, common, pkg

if TYPE_CHECKING:
    from linuxkit.cli.main import Settings


@click.command("manifest")
@click.argument("directory", type=DIRECTORY, metavar="DIR")
@click.option("--release", default="", metavar="TAG", help="Give the index this tag, too, unless it is taken.")
@common
@click.pass_obj
def manifest(settings: Settings, directory: Path, release: str, flags: Common) -> None:
    """Make an index of the images TAG-ARCH that several machines pushed, and push it as TAG."""
    from linuxkit.oci.reference import parse_reference
    from linuxkit.pkg import publish
    from linuxkit.pkg.naming import name_of

    (package,) = flags.packages((directory,))
    name = name_of(package, flags.naming())
    target = publish.release_reference(name.full, release) if release else None
    if name.dirty and release:
        raise publish.refuse_dirty(name.text, "a release is what is committed")
    with ExitStack() as stack:
        sources = open_sources(settings, flags, stack)
        pushed = publish.index(sources.registry, name.full)
        click.echo(f"{name.full}@{pushed.digest}")
        if target is not None:
            publish.tag_again(sources.registry, parse_reference(name.full), target, False, sources.log)


pkg.add_command(manifest)
pkg.add_command(manifest, "index")


@pkg.command("remote-tag")
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@click.option("--release", default="", metavar="TAG", help="Accepted, and not used.")
@common
@click.pass_obj
def remote_tag(settings: Settings, source: str, target: str, release: str, flags: Common) -> None:
    """Give an image of a registry another name: a tag beside it, or a copy in another repository."""
    from linuxkit.pkg import publish

    with ExitStack() as stack:
        sources = open_sources(settings, flags, stack)
        found = publish.remote_tag(sources.registry, source, target, sources.log)
        click.echo(f"{target}@{found.digest}")


def _builder(command: Command) -> Command:
    for option in reversed(BUILDER):
        command = option(command)
    platforms = click.option("--platforms", default="", metavar="LIST",
                             help="Whose builders, as linux/amd64,linux/arm64.  [default: this machine's]")  # fmt: skip
    return platforms(command)


@pkg.group("builder")
@_builder
@click.pass_context
def builder(context: click.Context, /, **given: Any) -> None:
    """What the builders of Dockerfiles keep. The options may stand here, too, as with LinuxKit."""
    source = click.core.ParameterSource.DEFAULT
    chosen = {name: value for name, value in given.items() if context.get_parameter_source(name) is not source}
    context.default_map = dict.fromkeys(("du", "prune"), chosen)


@builder.command("du")
@_builder
@click.pass_obj
def du(settings: Settings, /, **rest: Any) -> None:
    """Print how much space their caches take."""
    _each("usage", rest)


@builder.command("prune")
@_builder
@click.pass_obj
def prune(settings: Settings, /, **rest: Any) -> None:
    """Empty their caches."""
    _each("prune", rest)


def _each(what: str, rest: dict[str, Any]) -> None:
    from linuxkit import host
    from linuxkit.cli.kit import host_architecture
    from linuxkit.pkg.engines.make import works
    from linuxkit.pkg.engines.table import choose, parse_builders

    builders = parse_builders(rest["builders"])
    settings = builder_settings(rest)
    platforms = [p.strip() for p in rest["platforms"].split(",") if p.strip()] or [f"linux/{host_architecture()}"]
    for where in dict.fromkeys(builders.get(platform, "") for platform in platforms):
        engine = choose(rest["engine"], where, os.environ, works)
        command = engine.usage(where, settings) if what == "usage" else engine.prune(where, settings)
        done = host.run(command, timeout=3600)
        click.echo(done.stdout.decode(errors="replace"), nl=False)
