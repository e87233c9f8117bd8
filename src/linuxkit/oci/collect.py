"""What the store's blobs are needed for, how much room they take, and removing what nothing needs."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from linuxkit.errors import ImageError, InputError
from linuxkit.oci import document as doc
from linuxkit.oci.files import host_errors, locked
from linuxkit.oci.media import INDEX_TYPES, MANIFEST_TYPES, Descriptor
from linuxkit.oci.reference import is_digest
from linuxkit.oci.select import MAX_DEPTH
from linuxkit.oci.store import REF_NAME, Store

#: A blob that came or was asked for in this many seconds is kept: someone may be about to name it.
GRACE = 3600.0


@dataclass(frozen=True)
class Use:
    """The room that an image takes, in bytes: all its blobs, and those that no other image has."""

    name: str
    size: int
    own: int


@dataclass(frozen=True)
class Usage:
    """The room that a cache takes, in bytes: its images, blobs that no image needs, and what was derived."""

    images: tuple[Use, ...]
    blobs: int
    unneeded: int
    derived: int


def usage(store: Store) -> Usage:
    """What takes how much room.

    Raises:
        ImageError: index.json is damaged. HostError: something cannot be read.
    """
    with host_errors("cannot read the cache at", store.root):
        sizes = dict(_blobs(store))
        by_name = {
            entry.annotations.get(REF_NAME, entry.digest): reachable(store, [entry]) for entry in store.entries()
        }
        owners = Counter(digest for digests in by_name.values() for digest in digests)
        images = tuple(
            Use(name, sum(sizes.get(d, 0) for d in digests), sum(sizes.get(d, 0) for d in digests if owners[d] == 1))
            for name, digests in sorted(by_name.items())
        )
        unneeded = sum(size for digest, size in sizes.items() if digest not in owners)
        derived = sum(path.lstat().st_size for path in (store.root / "derived").rglob("*") if path.is_file())
    return Usage(images, sum(sizes.values()), unneeded, derived)


def collect(store: Store, *, dry_run: bool = False, age: float = GRACE) -> list[tuple[str, int]]:
    """Remove blobs that no name leads to, and what killed processes left.

    Args:
        dry_run: only say what would be removed.
        age: of a blob, in seconds, since it came or was last asked for; younger ones stay.

    Returns:
        (digest, size in bytes) of each blob.

    Raises:
        ImageError: index.json is damaged: then nothing is known to be unneeded. HostError: it cannot be written.
    """
    if not store.root.exists():
        return []
    removed = []
    store.prepare()
    with host_errors("cannot write the cache at", store.root), locked(store.root / ".lock"):
        needed, newest = reachable(store), time.time() - age
        for digest, size in sorted(_blobs(store)):
            path = store.blob_path(digest)
            with suppress(FileNotFoundError):
                if digest not in needed and path.lstat().st_mtime <= newest:
                    if not dry_run:
                        path.unlink()
                    removed.append((digest, size))
    return removed


def _blobs(store: Store) -> Iterator[tuple[str, int]]:
    """(digest, size) of every blob there is."""
    with suppress(FileNotFoundError), os.scandir(store.root / "blobs" / "sha256") as found:
        for item in found:
            if is_digest(f"sha256:{item.name}") and item.is_file(follow_symlinks=False):
                yield f"sha256:{item.name}", item.stat(follow_symlinks=False).st_size


def reachable(store: Store, entries: Sequence[Descriptor] | None = None) -> set[str]:
    """The digests of all blobs that names lead to. What is missing or damaged leads nowhere.

    Args:
        entries: of index.json; None is all of them.
    """
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

    for entry in store.entries() if entries is None else entries:
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
    known = {"oci-layout", "index.json", "index.json.damaged", "blobs", ".lock", "derived", "kit"}
    with host_errors("cannot remove the cache", root):
        strange = sorted(p.name for p in root.iterdir() if p.name not in known and not p.name.startswith(".tmp-"))
        if strange:
            raise InputError(f"{root} holds more than a cache: {', '.join(strange[:5])}",
                             hint="remove it by hand if that is what you want")  # fmt: skip
        import shutil

        shutil.rmtree(root)
