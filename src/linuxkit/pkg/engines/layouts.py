"""Base images from the cache, as OCI layouts that engines read: one image each, its blobs links to the cache's.

    <folder>/linuxkit/<hex of the manifest>/oci-layout, index.json, blobs/sha256/<hex> → the store's

The history of a configuration is optional (OCI image-spec v1.1, config.md), but Buildah counts layers by it: an image
without one is laid out with one.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from linuxkit.oci import document as doc
from linuxkit.oci.media import OCI_INDEX, OCI_MANIFEST, Descriptor, Image
from linuxkit.oci.reference import Reference
from linuxkit.oci.store import Store
from linuxkit.pkg.dockerfile import Base
from linuxkit.pkg.engines.model import Served


def lay_out(store: Store, image: Image, base: Base, folder: Path) -> Served:
    """Make the layout of an image of the store below `folder`.

    Args:
        base: what the Dockerfile says of it.

    Raises:
        ImageError: a blob is missing or damaged.
    """
    top = store.find_reference(Reference("", "", "", digest=image.digest))
    assert top is not None
    data = store.read_blob(top, doc.MAX_MANIFEST)
    manifest = doc.decode(data, image.digest)
    config, layers = doc.parse_manifest(manifest, image.digest)
    made = _with_history(store, manifest, config, len(layers))
    digest = image.digest if made is None else _digest(made[1])
    layout = Path("linuxkit", digest.removeprefix("sha256:"))
    blobs = folder / layout / "blobs" / "sha256"
    if not blobs.exists():
        blobs.mkdir(parents=True)
        for blob in (*layers, *(() if made else (top, config))):
            link = blobs / blob.digest[7:]
            if not link.exists():
                link.symlink_to(store.blob_path(blob.digest).absolute())
        for written in made or ():
            (blobs / _digest(written)[7:]).write_bytes(written)
        size = len(data if made is None else made[1])
        kind = doc.text(manifest, "mediaType", image.digest) or OCI_MANIFEST
        listed = [doc.descriptor_document(Descriptor(kind, digest, size))]
        (folder / layout / "oci-layout").write_bytes(b'{"imageLayoutVersion":"1.0.0"}')
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed}
        (folder / layout / "index.json").write_bytes(doc.encode(index))
    return Served(base.image, base.written, digest, layout.as_posix())


def _with_history(
    store: Store, manifest: dict[str, Any], config: Descriptor, layers: int
) -> tuple[bytes, bytes] | None:
    """(configuration, manifest) with a history for each layer; None when they have one."""
    document = doc.decode(store.read_blob(config, doc.MAX_CONFIG), config.digest)
    history = document.get("history")
    entries = history if isinstance(history, list) else []
    if sum(1 for one in entries if isinstance(one, dict) and not one.get("empty_layer")) == layers:
        return None
    data = doc.encode({**document, "history": [{"created_by": "linuxkit"}] * layers})
    entry = doc.descriptor_document(Descriptor(config.media_type, _digest(data), len(data)))
    return data, doc.encode({**manifest, "config": entry})


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
