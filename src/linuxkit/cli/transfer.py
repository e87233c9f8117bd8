"""linuxkit cache pull, linuxkit cache push"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

    from linuxkit.cli.main import Settings
    from linuxkit.cli.progress import Progress
    from linuxkit.oci.media import Platform
    from linuxkit.oci.reference import Reference
    from linuxkit.oci.registry import RegistryClient
    from linuxkit.oci.store import Store

_ALL = "Everything that the index lists: all platforms, attestations."


@click.command("pull")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--platform", "platforms", multiple=True, metavar="OS/ARCH",
              help="Which platform; repeatable.  [default: linux/<this machine>]")
@click.option("--all-platforms", "everything", is_flag=True, help=_ALL)
@click.pass_obj
def pull(settings: Settings, names: tuple[str, ...], platforms: tuple[str, ...], everything: bool) -> None:
    """Fetch images from their registries, also those that the cache has already.

    Prints the name and digest of each. Logins are those of Docker's configuration (docker login).
    """
    from linuxkit.oci.reference import parse_reference

    wanted = _platforms(platforms, everything)
    references = [parse_reference(name) for name in names]  # before anything is fetched
    with _progress(settings, "pulled") as progress:
        registry = connect(settings, progress)
        for reference in references:
            progress.line(f"pulling {reference.tagged}")
            found = registry.pull_all(reference, None if everything else wanted or [_here()], verify=True)
            progress.clear()
            click.echo(f"{reference.tagged if not reference.digest else reference.name}@{found.digest}")


@click.command("push")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--remote-name", default="", metavar="NAME:TAG", help="Under this name.  [default: the image's name]")
@click.option("--with-arch-tags", is_flag=True, help="Give each platform's image a name of its own too: TAG-ARCH.")
@click.option("--override", is_flag=True, help="Push even when that replaces something in the registry.")
@click.option("--platform", "platforms", multiple=True, metavar="OS/ARCH",
              help="Which platform; repeatable.  [default: all that are in the cache]")
@click.option("--all-platforms", "everything", is_flag=True,
              help="All that the index lists; an error when one is not in the cache.")
@click.pass_obj
def push(settings: Settings, names: tuple[str, ...], remote_name: str, with_arch_tags: bool, override: bool,
         platforms: tuple[str, ...], everything: bool) -> None:
    """Send images of the cache to their registries.

    What the registry has is not sent again. Under a name that is an index there, ours is merged into it: our platforms
    count, its others stay.
    """
    from linuxkit.errors import InputError
    from linuxkit.oci.reference import parse_reference
    from linuxkit.oci.store import Store

    wanted = _platforms(platforms, everything)
    if remote_name and len(names) > 1:
        raise InputError("--remote-name names one image", hint="push the others by themselves")
    pairs = [(name, parse_reference(remote_name or name)) for name in names]
    for name, target in pairs:
        if target.digest:
            raise InputError(f"'{target.text}' has a digest: an image is pushed under a tag",
                             hint=f"linuxkit cache push --remote-name {target.name}:TAG {name}")  # fmt: skip
    with _progress(settings, "pushed") as progress:
        registry = connect(settings, progress)
        for name, target in pairs:
            _push(registry, Store(settings.cache), progress, name, target, wanted, with_arch_tags, override, everything)


def _push(registry: RegistryClient, store: Store, progress: Progress, name: str, target: Reference,
          wanted: Sequence[Platform], with_arch_tags: bool, override: bool, everything: bool) -> None:
    from linuxkit.errors import InputError

    found = store.find(name)
    if found is None:
        raise InputError(f"{name} is not in the cache {store.root}", hint="see linuxkit cache ls")
    if not override:
        state = registry.compare(target, found, platforms=wanted or None)
        if state == "differs":
            progress.line(f"{target.tagged}: the registry has another image under this name: skipped "
                          "(--override replaces it)")  # fmt: skip
            return
        if state == "same" and not with_arch_tags:
            progress.line(f"{target.tagged}: the registry has it already")
            return
    progress.line(f"pushing {target.tagged}")
    pushed = registry.push(target, found, platforms=wanted or None, merge=not everything,
                                   arch_tags=with_arch_tags, say=lambda text: progress.line(f"  {text}"))  # fmt: skip
    progress.clear()
    click.echo(f"{target.tagged}@{pushed.digest}")


def _progress(settings: Settings, verb: str) -> Progress:
    from linuxkit.cli.progress import Progress

    return Progress(sys.stderr, verb, quiet=not settings.verbose)


def connect(settings: Settings, progress: Progress) -> RegistryClient:
    """The registries, with the mirrors, certificates and logins of this command."""
    from linuxkit.oci import registry
    from linuxkit.oci.store import Store
    from linuxkit.oci.transport import Transport

    transport = Transport(cert_files=settings.cert_files, environment=os.environ)
    return registry.connect(Store(settings.cache), transport, environment=os.environ, mirrors=settings.mirrors,
                   say=progress.line, progress=progress)  # fmt: skip


def _platforms(texts: Sequence[str], everything: bool) -> list[Platform]:
    from linuxkit.errors import InputError
    from linuxkit.oci.media import Platform

    if texts and everything:
        raise InputError("--platform and --all-platforms cannot be used together", hint="give one of them")
    found = []
    for text in texts:
        parts = text.split("/")
        if not 2 <= len(parts) <= 3 or not all(parts):
            raise InputError(f"invalid platform '{text}'", hint="write OS/ARCH, for example linux/arm64")
        found.append(Platform(*parts))
    return found


def _here() -> Platform:
    from linuxkit.cli.kit import host_architecture
    from linuxkit.oci.media import Platform

    return Platform("linux", host_architecture())
