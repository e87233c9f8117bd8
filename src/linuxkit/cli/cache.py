"""linuxkit cache"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from linuxkit.cli.main import max_layer
from linuxkit.cli.transfer import pull, push
from linuxkit.cli.upkeep import du, gc, verify

if TYPE_CHECKING:
    from collections.abc import Sequence

    from linuxkit.cli.main import Settings
    from linuxkit.oci.media import Platform


@click.group()
def cache() -> None:
    """List, fetch, send, check, import and export the images on this machine."""


for _command in (pull, push, verify, gc, du):
    cache.add_command(_command)


@cache.command("ls")
@click.pass_obj
def list_images(settings: Settings) -> None:
    """List the images: name and digest, a tab between them in a pipe."""
    from linuxkit.oci.store import REF_NAME, Store

    rows = sorted({(d.annotations.get(REF_NAME, "-"), d.digest) for d in Store(settings.cache).entries()})
    if not sys.stdout.isatty():
        text = "".join(f"{name}\t{digest}\n" for name, digest in rows)
    else:
        width = max((len(name) for name, _ in rows), default=0)
        text = "".join(f"{name:{width}}  {digest}\n" for name, digest in [("NAME", "DIGEST"), *rows])
    sys.stdout.write(text)


@cache.command("import")
@click.argument("file")
@click.option("--name", default="", metavar="NAME:TAG", help="Keep the image under this name.")
@max_layer
@click.pass_obj
def import_file(settings: Settings, file: str, name: str) -> None:
    """Bring in the images of FILE (- is standard input): an OCI layout, or what docker save wrote."""
    from linuxkit.errors import InputError
    from linuxkit.oci.archive import import_archive
    from linuxkit.oci.store import Store

    if file != "-" and not Path(file).exists():
        raise InputError(f"there is no file {file}")
    source = sys.stdin.buffer if file == "-" else Path(file)
    for found in import_archive(Store(settings.cache), source, name, settings.max_layer):
        click.echo(found)


@cache.command("export")
@click.argument("image")
@click.option("--platform", default="", metavar="OS/ARCH", help="Which platform.  [default: linux/<this machine>]")
@click.option("--outfile", required=True, metavar="FILE", help="Where to write; - is standard output.")
@click.option("--format", "kind", default="oci", show_default=True, type=click.Choice(["oci", "docker", "filesystem"]),
              help="An OCI layout, what docker load takes, or the root filesystem; each as a tar archive.")
@click.option("--name", default="", metavar="NAME:TAG", help="What the archive calls it.  [default: the image's name]")
@max_layer
@click.pass_obj
def export(settings: Settings, image: str, platform: str, outfile: str, kind: str, name: str) -> None:
    """Write IMAGE to a file."""
    from linuxkit.oci.derived import Derived
    from linuxkit.oci.export import export_image
    from linuxkit.oci.files import replacing
    from linuxkit.oci.layer import LayerCache
    from linuxkit.oci.reference import parse_reference
    from linuxkit.oci.resolve import Resolver
    from linuxkit.oci.store import Store
    from linuxkit.oci.unpack import Bounds

    store = Store(settings.cache)
    found = Resolver(store).resolve(image, _platform(platform))
    called = parse_reference(name).tagged if name else found.reference
    layers = LayerCache(store, Derived(settings.cache / "derived"), bounds=Bounds.of(settings.max_layer))
    if outfile == "-":
        export_image(store, layers, found, sys.stdout.buffer, kind, called)
        return
    with replacing(Path(outfile)) as stream:
        export_image(store, layers, found, stream, kind, called)


_PUBLISHED = click.option("--published-only", is_flag=True,
                          help="Only images that their registry has as they are here.")  # fmt: skip


@cache.command("rm")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@_PUBLISHED
@click.pass_obj
def remove(settings: Settings, names: tuple[str, ...], published_only: bool) -> None:
    """Remove images by name, and the blobs that no other image needs."""
    from linuxkit.errors import InputError
    from linuxkit.oci.collect import remove_images
    from linuxkit.oci.reference import parse_reference
    from linuxkit.oci.store import Store

    store = Store(settings.cache)
    known = store.names()
    missing = [name for name in names if name not in known and parse_reference(name).tagged not in known]
    if missing:
        raise InputError(f"not in the cache {settings.cache}: {', '.join(missing)}", hint="see linuxkit cache ls")
    chosen = [name if name in known else parse_reference(name).tagged for name in names]
    remove_images(store, _published(settings, chosen) if published_only else chosen)


@cache.command("clean")
@_PUBLISHED
@click.pass_obj
def clean(settings: Settings, published_only: bool) -> None:
    """Remove everything: all images, and what was derived from them."""
    from linuxkit.oci.collect import remove_all, remove_images
    from linuxkit.oci.store import Store

    if published_only:
        store = Store(settings.cache)
        remove_images(store, _published(settings, store.names()))
    else:
        remove_all(settings.cache)


def _published(settings: Settings, names: Sequence[str]) -> list[str]:
    """Those of the names behind which the registry has the same digest; the others are told."""
    from linuxkit.cli.progress import Progress
    from linuxkit.cli.transfer import connect
    from linuxkit.errors import InputError, NetworkError
    from linuxkit.oci.reference import is_kit_name, parse_reference
    from linuxkit.oci.store import Store

    store, same = Store(settings.cache), []
    with Progress(sys.stderr, "checked", quiet=not settings.verbose) as progress:
        registry = connect(settings, progress)
        for name in names:
            here, why = store.find(name), "its registry has no such image"
            try:
                there = None if is_kit_name(name) else registry.find(parse_reference(name))
            except (InputError, NetworkError) as e:
                there, why = None, e.message
            if here is not None and there is not None and there[0].digest == here.digest:
                same.append(name)
            else:
                progress.line(f"kept {name}: {'its registry has another one' if there else why}")
    return same


def _platform(text: str) -> Platform:
    import platform as host

    from linuxkit.errors import InputError
    from linuxkit.oci.media import Platform

    if not text:
        machine = host.machine().lower()
        return Platform("linux", {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine))
    parts = text.split("/")
    if not 2 <= len(parts) <= 3 or not all(parts):
        raise InputError(f"invalid platform '{text}'", hint="write OS/ARCH, for example linux/arm64")
    return Platform(*parts)
