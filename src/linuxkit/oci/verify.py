"""Checking a whole store: every blob hashed again, every name followed to the blobs it needs; and mending it.

What can be wrong: index.json or oci-layout cannot be read; a blob is missing, has another size or other bytes;
something lies among the blobs that is none. A platform of an index that was never fetched is no damage: a
store holds the platforms that somebody wanted.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from linuxkit.errors import ImageError, NetworkError
from linuxkit.oci import document as doc
from linuxkit.oci import kitmade
from linuxkit.oci.files import TEMPORARY, host_errors, locked
from linuxkit.oci.media import INDEX_TYPES, MANIFEST_TYPES, Descriptor
from linuxkit.oci.reference import Reference, is_digest, is_kit_name, parse_reference
from linuxkit.oci.select import MAX_DEPTH
from linuxkit.oci.store import REF_NAME, Store

CHUNK = 1 << 20
ROUNDS = 8  # of mending: a manifest that comes back may show that its layers are missing


class Registry(Protocol):
    """Where a blob can be had again."""

    def fetch(self, reference: Reference, descriptor: Descriptor) -> None: ...

    def read(self, reference: Reference, descriptor: Descriptor, limit: int) -> bytes: ...


@dataclass(frozen=True)
class Damage:
    """One thing that is wrong: with what (a digest or a file's name), how, and for which images."""

    what: str
    why: str
    images: tuple[str, ...] = ()

    def __str__(self) -> str:
        needed = f"  (needed by {', '.join(self.images)})" if self.images else ""
        return f"{self.what}: {self.why}{needed}"


@dataclass(frozen=True)
class Report:
    """What was found. `blobs` and `size` (bytes) are what was read; `needed` says how to get a damaged blob again."""

    blobs: int
    size: int
    damage: tuple[Damage, ...]
    needed: dict[str, tuple[Descriptor, tuple[str, ...]]] = field(default_factory=dict)


@dataclass
class _Walk:
    """What names lead to: digest → descriptor, names."""

    store: Store
    found: dict[str, tuple[Descriptor, set[str]]] = field(default_factory=dict)
    optional: set[str] = field(default_factory=set)  # children of an index, which may never have been fetched

    def follow(self, descriptor: Descriptor, name: str, depth: int, *, optional: bool = False) -> None:
        known = self.found.setdefault(descriptor.digest, (descriptor, set()))
        if name in known[1] or depth > MAX_DEPTH:
            return
        known[1].add(name)
        if optional:
            self.optional.add(descriptor.digest)
        if descriptor.media_type not in INDEX_TYPES | MANIFEST_TYPES:
            return
        with suppress(ImageError):  # missing, or found to be damaged when it is hashed
            document = doc.decode(self.store.read_blob(descriptor, doc.MAX_MANIFEST), descriptor.digest)
            for item in doc.objects(document, "manifests", descriptor.digest):
                self.follow(doc.parse_descriptor(item, descriptor.digest), name, depth + 1, optional=True)
            if "manifests" not in document:
                config, layers = doc.parse_manifest(document, descriptor.digest)
                for blob in (config, *layers):
                    self.follow(blob, name, depth + 1)


def inspect(
    store: Store, *, threads: int = 2, progress: Callable[[int, int], None] = lambda done, total: None
) -> Report:
    """Check everything.

    Args:
        threads: how many files to hash at once.
        progress: called with the bytes read and the bytes in all.

    Raises:
        HostError: the store cannot be read.
    """
    damage: list[Damage] = []
    walk = _Walk(store)
    begun = any(os.path.lexists(store.root / name) for name in ("blobs", "index.json"))
    if begun and not (store.root / "oci-layout").is_file():
        damage.append(Damage("oci-layout", "is missing"))
    try:
        made = kitmade.read(store.root)
        for entry in store.entries():
            name = entry.annotations.get(REF_NAME, "")
            if is_kit_name(name) and (why := _not_made(store, entry, made)):
                damage.append(Damage(name, why))
            walk.follow(entry, entry.annotations.get(REF_NAME, "-"), 0)
    except ImageError as e:
        damage.append(Damage("index.json", e.message.removeprefix(f"{store.root}/index.json").lstrip(": ")))
    sizes, strange = _files(store)
    for name, why in strange:
        known = walk.found.get(f"sha256:{name}")
        what = f"sha256:{name}" if is_digest(f"sha256:{name}") else f"blobs/sha256/{name}"
        damage.append(Damage(what, why, tuple(sorted(known[1])) if known else ()))
    odd = {name for name, _ in strange}
    done, total = 0, sum(sizes.values())
    with ThreadPoolExecutor(threads) as pool:
        order = sorted(sizes, key=lambda name: (-sizes[name], name))  # the longest first: all threads end together
        for name, actual in zip(order, pool.map(lambda name: _hash(store, name), order), strict=True):
            done += sizes[name]
            progress(done, total)
            known = walk.found.get(f"sha256:{name}")
            if actual != name:
                why = f"its bytes have the digest sha256:{actual}" if actual else "cannot be read"
                if known is not None and known[0].size != sizes[name]:
                    why = f"has {sizes[name]} bytes instead of {known[0].size}"
                damage.append(Damage(f"sha256:{name}", why, tuple(sorted(known[1])) if known else ()))
    for digest, (_, names) in walk.found.items():
        if digest[7:] not in sizes and digest[7:] not in odd and digest not in walk.optional:
            damage.append(Damage(digest, "is missing", tuple(sorted(names))))
    wanted = {d.what: walk.found[d.what] for d in damage if d.what in walk.found}
    needed = {digest: (descriptor, tuple(sorted(names))) for digest, (descriptor, names) in wanted.items()}
    return Report(len(sizes), total, tuple(sorted(damage, key=lambda d: d.what)), needed)


def repair(store: Store, report: Report, registry: Registry | None, log: Callable[[str], None]) -> Report:
    """Mend what can be mended, and say what is left.

    A damaged blob is removed, and fetched again for the images that need it. Images of the kit are forgotten: the next
    build makes them again. A damaged index.json is put aside, as index.json.damaged.

    Args:
        registry: None is offline.
        log: takes a line about each thing that was done.

    Raises:
        HostError: the store cannot be written.
    """
    for _ in range(ROUNDS):
        if not report.damage:
            break
        before = report.damage
        known = [d for d in before if d.what in report.needed]
        above = [d for d in known if report.needed[d.what][0].media_type in INDEX_TYPES | MANIFEST_TYPES]
        # from above: until a manifest can be read, nobody knows what is needed
        for damage in above or before:
            _mend(store, damage, report, registry, log)
        report = inspect(store)
        if report.damage == before:
            break
    return report


def _mend(store: Store, damage: Damage, report: Report, registry: Registry | None, log: Callable[[str], None]) -> None:
    if damage.what in ("index.json", "oci-layout"):
        with host_errors("cannot write the cache at", store.root), locked(store.root / ".lock"):
            if damage.what == "index.json":
                (store.root / damage.what).replace(store.root / "index.json.damaged")
                log("index.json: put aside as index.json.damaged; its names are lost")
        Store(store.root).prepare()
        return
    if is_kit_name(damage.what):
        _forget(store, damage.what)
        log(f"{damage.what}: forgotten; the next build makes it")
        return
    if not is_digest(damage.what):
        with host_errors("cannot write the cache at", store.root):
            _drop(store, damage.what.rpartition("/")[2])
        log(f"{damage.what}: removed")
        return
    with host_errors("cannot write the cache at", store.root):
        removed = _drop(store, damage.what[7:])
    descriptor, names = report.needed.get(damage.what, (None, ()))
    if descriptor is None:
        log(f"{damage.what}: removed; no image needs it")
        return
    for name in names:
        if is_kit_name(name):
            _forget(store, name)
            log(f"{name}: forgotten; the next build makes it again")
            return
    for name in names:
        if registry is None or name == "-":
            continue
        try:
            if descriptor.media_type in INDEX_TYPES | MANIFEST_TYPES:
                store.put_blob(
                    registry.read(parse_reference(name), descriptor, doc.MAX_MANIFEST), descriptor.media_type
                )
            else:
                registry.fetch(parse_reference(name), descriptor)
        except (ImageError, NetworkError) as e:
            log(f"{damage.what}: {e.message}")
        else:
            log(f"{damage.what}: fetched again for {name}")
            return
    if removed:
        log(f"{damage.what}: removed")


def _forget(store: Store, name: str) -> None:
    store.remove_name(name)
    kitmade.forget(store.root, name)


def _not_made(store: Store, entry: Descriptor, made: kitmade.Made) -> str:
    """Why an image with a name of the kit is not what the kit made here; empty when it is."""
    name = entry.annotations.get(REF_NAME, "")
    try:
        document = doc.decode(store.read_blob(entry, doc.MAX_MANIFEST), entry.digest)
        below = [doc.parse_descriptor(d, entry.digest) for d in doc.objects(document, "manifests", entry.digest)]
    except ImageError:
        return ""  # found to be damaged when it is hashed
    there = {d.digest for d in below} if "manifests" in document else {entry.digest}
    strange = sorted(there - kitmade.digests(made, name))
    return f"{strange[0]} under this name was not made by the kit here from its recipe and .debs" if strange else ""


def _drop(store: Store, name: str) -> bool:
    path = store.root / "blobs" / "sha256" / name
    with suppress(FileNotFoundError):
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink()
        return True
    return False


def _files(store: Store) -> tuple[dict[str, int], Sequence[tuple[str, str]]]:
    """(name → size of each blob, name and fault of each thing that is none)."""
    sizes: dict[str, int] = {}
    strange = []
    folder = store.root / "blobs" / "sha256"
    with host_errors("cannot read the cache at", store.root), suppress(FileNotFoundError), os.scandir(folder) as found:
        for item in found:
            if item.name.startswith(TEMPORARY):
                continue
            info = item.stat(follow_symlinks=False)
            if not is_digest(f"sha256:{item.name}"):
                strange.append((item.name, "is not the name of a blob"))
            elif not stat.S_ISREG(info.st_mode):
                strange.append((item.name, "is not a file"))
            else:
                sizes[item.name] = info.st_size
    return sizes, sorted(strange)


def _hash(store: Store, name: str) -> str:
    """The SHA-256 of a blob's bytes; empty when they cannot be read."""
    try:
        with store.open_blob(f"sha256:{name}") as stream:
            digest, buffer = hashlib.sha256(), memoryview(bytearray(CHUNK))
            while count := stream.readinto(buffer):  # type: ignore[attr-defined]
                digest.update(buffer[:count])
            return digest.hexdigest()
    except (ImageError, OSError):
        return ""
