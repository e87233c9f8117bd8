"""linuxkit attach"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from linuxkit.cli.main import Settings

if TYPE_CHECKING:
    from linuxkit.oci.media import Descriptor
    from linuxkit.oci.reference import Reference
    from linuxkit.oci.registry import RegistryClient
    from linuxkit.sbom.attach import Document
    from linuxkit.trust.keys import PrivateKey


@click.command()
@click.argument("image", metavar="REF")
@click.option("--sbom", "sboms", multiple=True, metavar="FILE",
              help="An SPDX or CycloneDX document; - is standard input.")
@click.option("--provenance", "provenances", multiple=True, metavar="FILE", help="What build --provenance wrote.")
@click.option("--platform", default="", metavar="OS/ARCH",
              help="To one platform's image of an index.  [default: to what the name points at]")
@click.option("--key", "key_file", type=click.Path(path_type=Path), metavar="FILE",
              help="Sign what is attached with this private key, PEM.")
@click.pass_obj
def attach(
    settings: Settings, image: str, sboms: tuple[str, ...], provenances: tuple[str, ...], platform: str,
    key_file: Path | None,
) -> None:  # fmt: skip
    """Attach documents to the image REF in its registry. Prints what was attached, by digest.

    \b
    linuxkit sbom REF | linuxkit attach REF --sbom -
    """
    from linuxkit import api
    from linuxkit.errors import InputError
    from linuxkit.oci.reference import parse_reference
    from linuxkit.sbom.attach import attach, envelope, read

    if not sboms and not provenances:
        raise InputError("there is nothing to attach", hint="give --sbom FILE or --provenance FILE")
    reference = parse_reference(image)
    documents = [read(_bytes(name), name, "sbom") for name in sboms]
    documents += [read(_bytes(name), name, "provenance") for name in provenances]
    registry = api.Sources(settings.cache, settings.mirrors, settings.cert_files, environment=os.environ).registry
    key = _key(key_file) if key_file else None
    subject = _subject(registry, reference, platform)
    for document in documents:
        signed = b""
        if key is not None:
            signed = envelope(document, subject, reference.name, key.sign)
        else:
            _warn(settings, document, subject)
        done = attach(registry, reference, subject, document, signed)
        click.echo(f"{reference.name}@{done.digest}")


def _key(path: Path) -> PrivateKey:
    from linuxkit.cli.sign import ask_password
    from linuxkit.trust.keys import private_key, read_key

    return private_key(read_key(path), str(path), ask_password)


def _warn(settings: Settings, document: Document, subject: Descriptor) -> None:
    if document.kind == "provenance" and settings.verbose and not document.names(subject):
        click.echo(f"note: the provenance does not name {subject.digest} among its subjects", err=True)


def _bytes(name: str) -> bytes:
    from linuxkit.errors import InputError
    from linuxkit.sbom.attested import MAX_DOCUMENT

    if name == "-":
        return sys.stdin.buffer.read(MAX_DOCUMENT + 1)
    try:
        with Path(name).open("rb") as stream:
            return stream.read(MAX_DOCUMENT + 1)
    except OSError as e:
        raise InputError(f"{name} cannot be read: {(e.strerror or str(e)).lower()}") from None


def _subject(registry: RegistryClient, reference: Reference, platform: str) -> Descriptor:
    """The manifest or index in the registry that is attached to."""
    from linuxkit.errors import ImageError, InputError
    from linuxkit.oci.media import INDEX_TYPES, Platform
    from linuxkit.oci.select import manifests, match

    found = registry.find(reference)
    if found is None:
        raise ImageError(f"image {reference.tagged} is not in its registry", hint="push it first: linuxkit cache push")
    top = found[0]
    if not platform:
        return top
    parts = platform.split("/")
    if not 2 <= len(parts) <= 3 or not all(parts):
        raise InputError(f"invalid platform '{platform}'", hint="write OS/ARCH, for example linux/arm64")
    if top.media_type not in INDEX_TYPES:
        raise InputError(f"image {reference.tagged} is no index", hint="leave out --platform")
    listed = list(manifests(lambda d, limit: registry.read(reference, d, limit), top, reference.tagged))
    chosen = match(listed, Platform(*parts))
    if chosen is None:
        known = sorted({str(c.platform) for c in listed if c.platform and c.platform.architecture != "unknown"})
        raise ImageError(f"image {reference.tagged} has no variant for {platform}", hint=f"it has {', '.join(known)}")
    return chosen
