"""linuxkit sbom, and what build and attach share with it."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from linuxkit.cli.main import Settings, allow_local_files, allow_release_rollback, max_layer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from linuxkit.api import Sources
    from linuxkit.oci.media import Image
    from linuxkit.sbom.provenance import Provenance

FORMATS = ("spdx", "cyclonedx")


def created(now: bool) -> str:
    """When a document says it was made: empty for LinuxKit's fixed time; with `now` SOURCE_DATE_EPOCH or the clock.

    Raises:
        InputError: SOURCE_DATE_EPOCH is no number of seconds.
    """
    if not now:
        return ""
    text = os.environ.get("SOURCE_DATE_EPOCH", "").strip()
    if text:
        from linuxkit.errors import InputError

        try:
            seconds = int(text)
            if not 0 <= seconds < 253_402_300_800:  # the year 10000
                raise ValueError
        except ValueError:
            raise InputError(
                f"SOURCE_DATE_EPOCH is '{text[:40]}', which is no number of seconds since 1970",
                hint="unset it, or: export SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)",
            ) from None
    else:
        seconds = int(time.time())
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def provenance_of(file: str, embedded: str, builder: str, documents: Sequence[tuple[str, bytes]],
                  parameters: Mapping[str, Any]) -> Provenance | None:  # fmt: skip
    """What `build` was asked to say about itself; None when nothing was.

    Args:
        documents: every YAML file: its name as given, and its content.
        parameters: what else decides the bytes, by the names that the statement has for it.

    Raises:
        InputError: a flag has a value that it cannot have.
    """
    if not file and not embedded:
        return None
    import hashlib
    import re

    import linuxkit
    from linuxkit.encode import libraries
    from linuxkit.errors import InputError
    from linuxkit.sbom.provenance import BUILDER, Input, Provenance

    place = embedded.lstrip("/")
    if embedded and (not place or set(place.split("/")) & {"", ".", ".."}):
        raise InputError(f"'{embedded}' is no place for the provenance", hint="give a name, such as provenance.json")
    if file == "-":
        raise InputError("--provenance writes a file, not standard output", hint="give a file name")
    if builder and not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*:\S+", builder):
        raise InputError(f"--builder-id {builder} is no URI", hint="for example https://ci.example.com/linuxkit")
    inputs = [Input(_shown(name), f"sha256:{hashlib.sha256(data).hexdigest()}") for name, data in documents]
    listed = {"configuration": [i.name for i in inputs], **parameters} | ({"provenance": place} if place else {})
    tools = {"linuxkit": linuxkit.__version__}
    tools |= {name: number for name, _, number in (text.partition(" ") for text in libraries.versions().values())}
    return Provenance(inputs, listed, tools, builder or BUILDER, os.environ.get("HOME", ""),
                      Path(file) if file else None, place)  # fmt: skip


def _shown(name: str) -> str:
    """A file's name, or an address without the secrets that may be in it."""
    if "://" not in name:
        return name
    from linuxkit.oci.transport import redact

    return redact(name)


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="FILE.yml|IMAGE...")
@click.option("--format", "format_", type=click.Choice(FORMATS), default="spdx", show_default=True,
              help="SPDX 2.3 or CycloneDX 1.6, as JSON.")
@click.option("-f", "--for", "formats", multiple=True, metavar="NAME[,NAME...]",
              help="With the boot loaders of these output formats, which are beside the root filesystem.")
@click.option("--arch", default="", metavar="ARCH", help="amd64, arm64 or riscv64.  [default: this machine's]")
@click.option("--outfile", default="-", metavar="FILE", help="Where to write.  [default: standard output]")
@click.option("--current-time", is_flag=True, help="Date it now; it then differs each time.")
@click.option("--whiteouts", type=click.Choice(["linuxkit", "oci"]), default="linuxkit", show_default=True,
              help="How layers delete files: as LinuxKit reads it, or as the OCI specification says.")
@click.option("--pull", is_flag=True, help="Fetch images even when the cache has them.")
@click.option("--offline", is_flag=True, envvar="LINUXKIT_OFFLINE", show_envvar=True, help="Never use the network.")
@click.option("--debian-mirror", default="", envvar="LINUXKIT_DEBIAN_MIRROR", show_envvar=True,
              metavar="URL[,SECURITY-URL]", help="For kit packages.  [default: the one apt uses]")
@allow_local_files
@max_layer
@allow_release_rollback
@click.pass_obj
def sbom(
    settings: Settings, names: tuple[str, ...], format_: str, formats: tuple[str, ...], arch: str, outfile: str,
    current_time: bool, whiteouts: str, pull: bool, offline: bool, debian_mirror: str,
) -> None:  # fmt: skip
    """Print what is in images: the software bill of materials of YAML files' images, or of the images named.

    \b
    linuxkit sbom web.yml                             what a build of it would contain
    linuxkit sbom --for raw-efi web.yml               and what the disk has besides
    linuxkit sbom --format cyclonedx nginx:1.27       one image
    """
    from linuxkit import api
    from linuxkit.cli.build import architecture
    from linuxkit.cli.sign import policy_of
    from linuxkit.errors import InputError
    from linuxkit.oci.derived import Derived
    from linuxkit.oci.resolve import cache_root
    from linuxkit.rootfs.content import Content
    from linuxkit.sbom.make import document, encode

    if pull and offline:
        raise InputError("--pull and --offline cannot be used together", hint="leave one of them out")

    def note(line: str) -> None:
        if settings.verbose >= 1:
            click.echo(line, err=True)

    sources = api.Sources(settings.cache, settings.mirrors, settings.cert_files, offline, pull, debian_mirror,
                          os.environ, note, policy=policy_of(settings),
                          local_files=settings.local_files, rollback=settings.rollback,
                          max_layer=settings.max_layer)  # fmt: skip
    images = _images(names, sources, architecture(arch), whiteouts, formats)
    content = Content(sources.store, Derived(cache_root(settings.cache)), whiteouts=whiteouts,
                      attested=sources.unsigned, heal=sources.heal, max_layer=sources.max_layer)  # fmt: skip
    write(encode(document(images, content, format=format_, created=created(current_time))), outfile)


def _images(names: tuple[str, ...], sources: Sources, arch: str, whiteouts: str, formats: tuple[str, ...],
            ) -> list[tuple[str, Image]]:  # fmt: skip
    from linuxkit import api
    from linuxkit.cli.lock import chosen, content
    from linuxkit.errors import InputError
    from linuxkit.oci.media import Platform
    from linuxkit.outputs.table import choose, loaders
    from linuxkit.plan.asked import LOADER
    from linuxkit.plan.lock import decode
    from linuxkit.plan.model import Options

    yaml = [name for name in names if _is_yaml(name)]
    if yaml and len(yaml) < len(names):
        other = next(name for name in names if name not in yaml)
        raise InputError(f"{yaml[0]} is a YAML file and {other} an image", hint="give one kind at a time")
    if yaml:
        config = api.load(*names, sources=sources, stdin=sys.stdin.buffer.read)
        path = chosen(names, "", None, False)
        lock = decode(content(path), str(path)) if path is not None else None
        needed = loaders(choose(formats, "", None, "", "sbom").formats, rooted=False) if formats else ()
        planned = api.plan(config, sources, Options(arch, whiteouts=whiteouts, loaders=needed), lock)
        assert planned.sbom is not None
        return [*planned.sbom.images, *((LOADER, image) for _, image in planned.loaders)]
    if formats:
        raise InputError("--for is for YAML files", hint="an image has no boot loader")
    return [("", sources.resolver.resolve(name, Platform("linux", arch))) for name in names]


def _is_yaml(name: str) -> bool:
    return name == "-" or name.endswith((".yml", ".yaml")) or name.lower().startswith(("http://", "https://"))


def write(data: bytes, outfile: str) -> None:
    """To a file, whole or not at all; or to standard output for "-"."""
    if outfile == "-":
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    from linuxkit.outputs.files import Outputs

    with Outputs() as outputs, outputs.open(Path(outfile), "") as out:
        out.write(data)
