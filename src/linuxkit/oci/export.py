"""Writing an image out of the store as a tar: an OCI layout, what `docker load` takes, or its root filesystem."""

from __future__ import annotations

from collections.abc import Iterator

from linuxkit.encode import tar
from linuxkit.encode.content import Sink
from linuxkit.entry import FIXED_MTIME, Bytes, Entry, Extent, Kind
from linuxkit.errors import ImageError
from linuxkit.oci import document as doc
from linuxkit.oci.archive import IMAGE_NAME
from linuxkit.oci.layer import LayerCache
from linuxkit.oci.media import OCI_INDEX, OCI_MANIFEST, Descriptor, Image
from linuxkit.oci.merge import merge_layers
from linuxkit.oci.store import REF_NAME, Store

FORMATS = ("oci", "docker", "filesystem")


def export_image(store: Store, layers: LayerCache, image: Image, out: Sink, kind: str, name: str) -> None:
    """Write an image.

    Args:
        out: takes the bytes; never sought.
        kind: one of FORMATS.
        name: what the archive calls the image.

    Raises:
        ImageError: a blob is missing or damaged.
    """
    members = {"oci": _oci, "docker": docker_members, "filesystem": _filesystem}[kind](store, layers, image, name)
    tar.write(members, out)
    out.write(tar.END)


def _manifest(store: Store, image: Image) -> tuple[Descriptor, bytes, Descriptor]:
    """(manifest, its bytes, configuration)."""
    size = store.blob_path(image.digest).stat().st_size
    found = Descriptor(OCI_MANIFEST, image.digest, size)
    data = store.read_blob(found, doc.MAX_MANIFEST)
    document = doc.decode(data, image.digest)
    kind = doc.text(document, "mediaType", image.digest) or OCI_MANIFEST
    config, _ = doc.parse_manifest(document, image.digest)
    return Descriptor(kind, image.digest, size, image.platform), data, config


def _oci(store: Store, layers: LayerCache, image: Image, name: str) -> Iterator[Entry]:
    manifest, data, config = _manifest(store, image)
    # LinuxKit calls the manifest an index here, which no other reader takes.
    top = doc.descriptor_document(manifest) | {"annotations": {REF_NAME: name, IMAGE_NAME: name}}
    yield _text("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
    yield _text("index.json", doc.encode({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [top]}))
    yield Entry("blobs", Kind.DIRECTORY, 0o755, mtime=FIXED_MTIME)
    yield Entry("blobs/sha256", Kind.DIRECTORY, 0o755, mtime=FIXED_MTIME)
    yield _text(f"blobs/sha256/{image.digest[7:]}", data)
    for blob in {d.digest: d for d in (config, *image.layers)}.values():
        yield _blob(store, blob, f"blobs/sha256/{blob.digest[7:]}")


def docker_members(store: Store, layers: LayerCache, image: Image, name: str) -> Iterator[Entry]:
    """The members of an archive as `docker save` writes it, manifest.json last."""
    _, _, config = _manifest(store, image)
    names = []
    written = set()
    for blob, diff_id in zip(image.layers, image.config.diff_ids, strict=True):
        plain = layers.archive(blob, diff_id)
        names.append(f"{diff_id[7:]}/layer.tar")
        if names[-1] not in written:
            written.add(names[-1])
            yield Entry(names[-1], Kind.FILE, 0o644, mtime=FIXED_MTIME,
                        source=Extent(str(plain), 0, plain.stat().st_size))  # fmt: skip
    data = store.read_blob(config, doc.MAX_CONFIG)
    yield _text(f"{config.digest[7:]}.json", data)
    yield _text("manifest.json", doc.encode([
        {"Config": f"{config.digest[7:]}.json", "RepoTags": [name], "Layers": names},
    ]))  # fmt: skip


def _filesystem(store: Store, layers: LayerCache, image: Image, name: str) -> Iterator[Entry]:
    yield from merge_layers(layers.image_entries(image), where=f"image {name}")


def _text(path: str, data: bytes) -> Entry:
    return Entry(path, Kind.FILE, 0o644, mtime=FIXED_MTIME, source=Bytes(data))


def _blob(store: Store, blob: Descriptor, path: str) -> Entry:
    if not store.has_blob(blob):
        raise ImageError(f"{blob.digest} is missing or cut short in the cache {store.root}",
                         hint="fetch or import the image again")  # fmt: skip
    store.verify(blob)
    content = Extent(str(store.blob_path(blob.digest)), 0, blob.size)
    return Entry(path, Kind.FILE, 0o644, mtime=FIXED_MTIME, source=content)
