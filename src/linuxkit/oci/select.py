"""From a descriptor to an Image: choosing the platform's manifest, reading manifest and configuration."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from linuxkit.errors import ImageError
from linuxkit.oci import document as doc
from linuxkit.oci.kinds import check_kind
from linuxkit.oci.media import INDEX_TYPES, MANIFEST_TYPES, Descriptor, Image, Platform

#: Reads and verifies one small blob: (descriptor, limit in bytes) → its bytes.
Reader = Callable[[Descriptor, int], bytes]
MAX_DEPTH = 3


def select(read: Reader, descriptor: Descriptor, reference: str, platform: Platform) -> Image:
    """The image for `platform` that `descriptor` (index or manifest) leads to.

    Raises:
        ImageError: there is none for the platform, or a document is missing or not what it should be.
    """
    index = descriptor if _is_index(read, descriptor) else None
    if index is None:
        return read_image(read, descriptor, reference, platform, None)
    candidates = list(manifests(read, index, reference))
    chosen = match(candidates, platform)
    if chosen is None:
        for candidate in candidates:  # entries may leave the platform to the configuration
            if candidate.platform is None and _is_image(candidate):
                try:
                    return read_image(read, candidate, reference, platform, index)
                except WrongPlatformError:
                    continue
        known = sorted({str(c.platform) for c in candidates if c.platform and c.platform.architecture != "unknown"})
        raise NoPlatformError(
            f"image {reference} has no variant for {platform}",
            hint=f"it has {', '.join(known)}" if known else "its index lists no platform at all",
        )
    return read_image(read, chosen, reference, platform, index)


class NoPlatformError(ImageError):
    """The image is not for this platform."""


class WrongPlatformError(NoPlatformError):
    """It is for another one."""


def match(candidates: list[Descriptor], platform: Platform) -> Descriptor | None:
    """The first manifest for the platform; of several variants the one asked for, else the first without any."""
    fitting = [
        c for c in candidates
        if c.platform is not None and _is_image(c)
        and (c.platform.os, c.platform.architecture) == (platform.os, platform.architecture)
    ]  # fmt: skip
    exact = [c for c in fitting if c.platform and c.platform.variant == platform.variant]
    if platform.variant and not exact:
        exact = [c for c in fitting if c.platform and not c.platform.variant]
    usable = exact or ([] if platform.variant else fitting)
    return usable[0] if usable else None


def manifests(read: Reader, index: Descriptor, reference: str, depth: int = 1) -> Iterator[Descriptor]:
    """The descriptors in an index; an index inside an index is opened, up to three levels."""
    if depth > MAX_DEPTH:
        raise ImageError(f"image {reference}: indexes are nested more than {MAX_DEPTH} deep")
    document = doc.decode(read(index, doc.MAX_MANIFEST), f"image {reference}: index {index.digest}")
    for item in doc.objects(document, "manifests", reference):
        found = doc.parse_descriptor(item, f"image {reference}: index {index.digest}")
        if found.media_type in INDEX_TYPES and _is_index(read, found):
            yield from manifests(read, found, reference, depth + 1)
        else:
            yield found


def read_image(
    read: Reader, descriptor: Descriptor, reference: str, platform: Platform, index: Descriptor | None
) -> Image:
    """The Image of one manifest.

    Raises:
        WrongPlatformError: its configuration names another architecture. ImageError: it is not an image.
    """
    where = f"image {reference}: manifest {descriptor.digest}"
    manifest = doc.decode(read(descriptor, doc.MAX_MANIFEST), where)
    config, layers = doc.parse_manifest(manifest, where)
    check_kind(f"image {reference}", doc.text(manifest, "artifactType", where), config, layers)
    where = f"image {reference}: configuration {config.digest}"
    parsed = doc.parse_config(doc.decode(read(config, doc.MAX_CONFIG), where), where)
    if parsed.architecture and parsed.architecture != platform.architecture:
        raise WrongPlatformError(
            f"image {reference} is for {parsed.os or 'linux'}/{parsed.architecture}, not for {platform}",
            hint=f"use an image for {platform}, or build with --arch {parsed.architecture}",
        )
    if len(parsed.diff_ids) != len(layers):
        raise ImageError(f"{where}: it lists {len(parsed.diff_ids)} diff_ids for {len(layers)} layers")
    return Image(reference, descriptor.digest, platform, parsed, layers, index)


def _is_image(descriptor: Descriptor) -> bool:
    return descriptor.media_type in (*MANIFEST_TYPES, *INDEX_TYPES) or not descriptor.media_type


def _is_index(read: Reader, descriptor: Descriptor) -> bool:
    return is_index(doc.decode(read(descriptor, doc.MAX_MANIFEST), descriptor.digest), descriptor.media_type)


def is_index(document: Mapping[str, Any], media_type: str) -> bool:
    """Whether a document is an index. What is in it decides: LinuxKit's export labels a manifest as an index."""
    if "manifests" in document or "layers" in document:
        return "manifests" in document
    return media_type in INDEX_TYPES
