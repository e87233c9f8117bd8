"""A volume of `format: oci`: the image as an OCI layout in the volume, for programs that run images of their own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from linuxkit.entry import FIXED_MTIME, Bytes, Entry, Extent, Kind, digest_of
from linuxkit.errors import ImageError
from linuxkit.foreign import read_json
from linuxkit.oci.media import INDEX_TYPES, OCI_INDEX, OCI_MANIFEST, Descriptor
from linuxkit.oci.reference import expand
from linuxkit.plan.model import VolumePlan
from linuxkit.rootfs.content import Content
from linuxkit.rootfs.flatten import leading
from linuxkit.rootfs.segment import Segment

VERSION = 1
MAX_MANIFEST = 4 << 20
#: As the libraries that LinuxKit uses write them: the bytes are part of the image.
OCI_LAYOUT = b'{\n\t\t"imageLayoutVersion": "1.0.0"\n\t}'


def layout_segment(volume: VolumePlan, content: Content) -> Segment:
    """The segment of one such volume."""
    image = volume.layout
    assert image is not None
    top = image.index or Descriptor(OCI_MANIFEST, image.digest, 0)
    key = digest_of([b"oci layout", b"%d" % VERSION, top.digest.encode(), image.reference.encode(),
                     volume.directory.encode(), *(p.encode() for p in volume.platforms)])  # fmt: skip
    return Segment(f"volume/{volume.name}", key, lambda: _entries(volume, content), volume.origin,
                   prefix=f"{volume.directory}/lower")  # fmt: skip


def _entries(volume: VolumePlan, content: Content) -> Iterator[Entry]:
    image = volume.layout
    assert image is not None
    top = image.index or _sized(Descriptor(OCI_MANIFEST, image.digest, 0), content)
    base = f"{volume.directory}/lower"
    name = {"org.opencontainers.image.ref.name": expand(image.reference)}
    index = {
        "schemaVersion": 2, "mediaType": OCI_INDEX,
        "manifests": [{"mediaType": top.media_type, "size": top.size, "digest": top.digest, "annotations": name}],
    }  # fmt: skip
    yield from leading(f"{base}/blobs/sha256", volume.origin)
    made = {"oci-layout": OCI_LAYOUT, "index.json": json.dumps(index, indent=3, separators=(",", ": ")).encode()}
    for path, data in made.items():
        yield Entry(f"{base}/{path}", Kind.FILE, 0o644, mtime=FIXED_MTIME, source=Bytes(data), origin=volume.origin)
    for digest, size in sorted(_blobs(volume, top, content).items()):
        yield Entry(
            f"{base}/blobs/sha256/{digest[7:]}", Kind.FILE, 0o644, mtime=FIXED_MTIME,
            source=Extent(str(content.store.blob_path(digest)), 0, size), origin=volume.origin,
        )  # fmt: skip


def _blobs(volume: VolumePlan, top: Descriptor, content: Content) -> dict[str, int]:
    """Digest and size of every blob: the index whole, the manifests of the chosen platforms and what they name."""
    blobs = {top.digest: top.size}
    document = read_json(content.store.read_blob(top, MAX_MANIFEST))
    manifests: list[dict[str, Any]]
    manifests = document["manifests"] if top.media_type in INDEX_TYPES else [{"digest": top.digest, "size": top.size}]
    for manifest in manifests:
        if "platform" in manifest and volume.platforms and _platform(manifest["platform"]) not in volume.platforms:
            continue
        descriptor = Descriptor(manifest.get("mediaType", top.media_type), manifest["digest"], manifest["size"])
        if not content.store.has_blob(descriptor):
            if volume.platforms or len(manifests) == 1:
                raise ImageError(f"{volume.layout.reference if volume.layout else ''}: {descriptor.digest} is missing",
                                 hint="fetch the image for all its platforms")  # fmt: skip
            continue
        blobs[descriptor.digest] = descriptor.size
        parts = read_json(content.store.read_blob(descriptor, MAX_MANIFEST))
        for part in (parts["config"], *parts["layers"]):
            blobs[part["digest"]] = part["size"]
    return blobs


def _platform(document: dict[str, Any]) -> str:
    return "/".join(p for p in (document["os"], document["architecture"], document.get("variant")) if p)


def _sized(descriptor: Descriptor, content: Content) -> Descriptor:
    size = content.store.blob_path(descriptor.digest).stat().st_size
    return Descriptor(descriptor.media_type, descriptor.digest, size)
