"""linuxkit cache"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from linuxkit.cli.transfer import pull, push

if TYPE_CHECKING:
    from linuxkit.cli.main import Settings
    from linuxkit.oci.media import Platform


@click.group()
def cache() -> None:
    """List, fetch, import and export the images on this machine."""


cache.add_command(pull)
cache.add_command(push)


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
@click.pass_obj
def import_file(settings: Settings, file: str, name: str) -> None:
    """Bring in the images of FILE (- is standard input): an OCI layout, or what docker save wrote."""
    from linuxkit.errors import InputError
    from linuxkit.oci.archive import import_archive
    from linuxkit.oci.store import Store

    if file != "-" and not Path(file).exists():
        raise InputError(f"there is no file {file}")
    source = sys.stdin.buffer if file == "-" else Path(file)
    for found in import_archive(Store(settings.cache), source, name):
        click.echo(found)


@cache.command("export")
@click.argument("image")
@click.option("--platform", default="", metavar="OS/ARCH", help="Which platform.  [default: linux/<this machine>]")
@click.option("--outfile", required=True, metavar="FILE", help="Where to write; - is standard output.")
@click.option("--format", "kind", default="oci", show_default=True, type=click.Choice(["oci", "docker", "filesystem"]),
              help="An OCI layout, what docker load takes, or the root filesystem; each as a tar archive.")
@click.option("--name", default="", metavar="NAME:TAG", help="What the archive calls it.  [default: the image's name]")
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

    store = Store(settings.cache)
    found = Resolver(store).resolve(image, _platform(platform))
    called = parse_reference(name).tagged if name else found.reference
    layers = LayerCache(store, Derived(settings.cache / "derived"))
    if outfile == "-":
        export_image(store, layers, found, sys.stdout.buffer, kind, called)
        return
    with replacing(Path(outfile)) as stream:
        export_image(store, layers, found, stream, kind, called)


@cache.command("rm")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.pass_obj
def remove(settings: Settings, names: tuple[str, ...]) -> None:
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
    remove_images(store, [name if name in known else parse_reference(name).tagged for name in names])


@cache.command("clean")
@click.pass_obj
def clean(settings: Settings) -> None:
    """Remove everything: all images, and what was derived from them."""
    from linuxkit.oci.collect import remove_all

    remove_all(settings.cache)


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
