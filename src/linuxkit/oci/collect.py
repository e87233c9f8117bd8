"""Removing what nothing needs from the store."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from linuxkit.errors import ImageError, InputError
from linuxkit.oci import document as doc
from linuxkit.oci.files import host_errors, locked
from linuxkit.oci.media import INDEX_TYPES, MANIFEST_TYPES, Descriptor
from linuxkit.oci.select import MAX_DEPTH
from linuxkit.oci.store import Store


def reachable(store: Store) -> set[str]:
    """The digests of all blobs that a name leads to. What is missing or damaged leads nowhere."""
    found: set[str] = set()

    def walk(descriptor: Descriptor, depth: int) -> None:
        if descriptor.digest in found or depth > MAX_DEPTH:
            return
        found.add(descriptor.digest)
        if descriptor.media_type not in INDEX_TYPES | MANIFEST_TYPES:
            return
        with suppress(ImageError):
            document = doc.decode(store.read_blob(descriptor, doc.MAX_MANIFEST), descriptor.digest)
            for item in doc.objects(document, "manifests", descriptor.digest):
                walk(doc.parse_descriptor(item, descriptor.digest), depth + 1)
            if "manifests" not in document:
                config, layers = doc.parse_manifest(document, descriptor.digest)
                found.update(d.digest for d in (config, *layers))

    for entry in store.entries():
        walk(entry, 0)
    return found


def remove_images(store: Store, names: Sequence[str]) -> int:
    """Forget names, and remove the blobs that only they led to. Returns the bytes freed.

    Raises:
        HostError: the store cannot be written.
    """
    before = reachable(store)
    for name in names:
        store.remove_name(name)
    freed = 0
    with host_errors("cannot write the cache at", store.root), locked(store.root / ".lock"):
        for digest in before - reachable(store):
            path = store.blob_path(digest)
            with suppress(FileNotFoundError):
                freed += path.lstat().st_size
                path.unlink()
    return freed


def remove_all(root: Path) -> None:
    """Remove a whole cache directory; refuses one that does not look like a cache.

    Raises:
        InputError: it is something else. HostError: it cannot be removed.
    """
    if not root.exists():
        return
    known = {"oci-layout", "index.json", "blobs", ".lock", "derived", "kit"}
    with host_errors("cannot remove the cache", root):
        strange = sorted(p.name for p in root.iterdir() if p.name not in known and not p.name.startswith(".tmp-"))
        if strange:
            raise InputError(f"{root} holds more than a cache: {', '.join(strange[:5])}",
                             hint="remove it by hand if that is what you want")  # fmt: skip
        import shutil

        shutil.rmtree(root)
