"""What is pushed under a name: the manifests of an index that are here, with those that the registry has. Pure but for
reading the store.

An image is built for one architecture at a time, on several machines. So a push adds to the index that the registry has
under the name: for a platform that is here ours counts, the registry's others stay. An attestation (BuildKit's, an
entry with the annotation vnd.docker.reference.digest) stays as long as the manifest does that it speaks of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from linuxkit.errors import ImageError, InputError
from linuxkit.oci import document as doc
from linuxkit.oci.media import DOCKER_INDEX, INDEX_TYPES, MANIFEST_TYPES, OCI_INDEX, Descriptor, Platform
from linuxkit.oci.reference import parse_reference
from linuxkit.oci.select import MAX_DEPTH, Reader, match
from linuxkit.oci.store import REF_NAME, Store

ATTESTED = "vnd.docker.reference.digest"
Item = Mapping[str, Any]  # of an index, as it stands there


@dataclass(frozen=True, slots=True)
class Listing:
    """What a name points at, as manifests with their platforms; a single manifest is a listing of one."""

    top: Descriptor
    data: bytes
    items: tuple[Item, ...]

    @property
    def is_index(self) -> bool:
        return self.top.media_type in INDEX_TYPES


def listing(top: Descriptor, data: bytes, config: bytes = b"") -> Listing:
    """Read an index, or a manifest; `config` tells the platform of the latter.

    Raises:
        ImageError: it is neither.
    """
    document = doc.decode(data, top.digest)
    if "manifests" in document:
        return Listing(top, data, tuple(doc.objects(document, "manifests", top.digest)))
    item = doc.descriptor_document(Descriptor(top.media_type, top.digest, top.size))
    with suppress(ImageError):
        platform = doc.parse_platform(doc.decode(config, top.digest), top.digest)
        if platform.architecture:
            item["platform"] = doc.platform_document(platform)
    return Listing(top, data, (item,))


def config_of(top: Descriptor, data: bytes) -> Descriptor | None:
    """The configuration of a manifest; None for an index."""
    document = doc.decode(data, top.digest)
    return None if "manifests" in document else doc.parse_manifest(document, top.digest)[0]


def listed(top: Descriptor, read: Reader) -> Listing:
    """`listing` of what `read` gives."""
    data = read(top, doc.MAX_MANIFEST)
    config = config_of(top, data)
    return listing(top, data, read(config, doc.MAX_CONFIG) if config else b"")


def combine(local: Sequence[Item], remote: Sequence[Item]) -> list[Item]:
    """The items of both: ours first; the registry's for other platforms; attestations of what is left."""
    mine = {_platform(item) for item in local if _attested(item) is None}
    known = {item.get("digest") for item in local}
    others = [item for item in remote if item.get("digest") not in known
              and (_attested(item) is not None or _platform(item) not in mine)]  # fmt: skip
    kept = {item.get("digest") for item in (*local, *others) if _attested(item) is None}
    return [item for item in (*local, *others) if _attested(item) in (None, *kept)]


def compare(local: Sequence[Item], remote: Sequence[Item]) -> Literal["same", "adds", "differs"]:
    """What pushing `local` would do to `remote`: nothing, add platforms, or replace what is there."""
    theirs = {_platform(item): item.get("digest") for item in remote if _attested(item) is None}
    ours = {_platform(item): item.get("digest") for item in local if _attested(item) is None}
    if any(theirs.get(platform, digest) != digest for platform, digest in ours.items()):
        return "differs"
    return "same" if ours.keys() <= theirs.keys() else "adds"


def choose(items: Sequence[Item], platforms: Sequence[Platform], where: str) -> list[Item]:
    """The items for some platforms, with their attestations.

    Raises:
        ImageError: there is none for one of them.
    """
    listed = [doc.parse_descriptor(item, where) for item in items]
    wanted = set()
    for platform in platforms:
        found = match(listed, platform)
        if found is None:
            known = sorted({str(d.platform) for d in listed if d.platform and d.platform.architecture != "unknown"})
            raise ImageError(f"image {where} has no variant for {platform}", hint=f"it has {', '.join(known)}")
        wanted.add(found.digest)
    return [item for item in items if item.get("digest") in wanted or _attested(item) in wanted]


def index_of(items: Sequence[Item], like: Listing) -> tuple[str, bytes]:
    """(media type, bytes) of an index of these items; the bytes of `like` when it lists the same."""
    if like.is_index and [i.get("digest") for i in items] == [i.get("digest") for i in like.items]:
        return like.top.media_type, like.data
    docker = like.top.media_type == DOCKER_INDEX and all("docker" in str(i.get("mediaType")) for i in items)
    kind = DOCKER_INDEX if docker else OCI_INDEX
    return kind, doc.encode({"schemaVersion": 2, "mediaType": kind, "manifests": list(items)})


def arch_tags(items: Sequence[Item], tag: str) -> dict[str, Item]:
    """TAG-ARCH → item, as LinuxKit names them; TAG-ARCH-VARIANT where one architecture has several."""
    images = [i for i in items if _attested(i) is None and _platform(i)[1] not in ("", "unknown")]
    count: dict[str, int] = {}
    for item in images:
        count[_platform(item)[1]] = count.get(_platform(item)[1], 0) + 1
    found = {}
    for item in images:
        _, architecture, variant = _platform(item)
        several = count[architecture] > 1 and variant
        found[f"{tag}-{architecture}" + (f"-{variant}" if several else "")] = item
    return found


def is_whole(store: Store, descriptor: Descriptor, depth: int = 0) -> bool:
    """Whether a manifest or index and everything under it is in the store."""
    if not store.has_blob(descriptor) or depth > MAX_DEPTH:
        return False
    document = doc.decode(store.read_blob(descriptor, doc.MAX_MANIFEST), descriptor.digest)
    if "manifests" in document:
        items = doc.objects(document, "manifests", descriptor.digest)
        return all(is_whole(store, doc.parse_descriptor(i, descriptor.digest), depth + 1) for i in items)
    config, layers = doc.parse_manifest(document, descriptor.digest)
    return all(store.has_blob(blob) for blob in (config, *layers))


def neighbours(store: Store, registry: str, repository: str) -> dict[str, str]:
    """digest → another repository of the registry that an image of the store with this blob came from."""
    found: dict[str, str] = {}

    def walk(descriptor: Descriptor, name: str, depth: int) -> None:
        with suppress(ImageError):
            document = doc.decode(store.read_blob(descriptor, doc.MAX_MANIFEST), descriptor.digest)
            for item in doc.objects(document, "manifests", descriptor.digest) if depth < MAX_DEPTH else ():
                walk(doc.parse_descriptor(item, descriptor.digest), name, depth + 1)
            if "manifests" not in document:
                config, layers = doc.parse_manifest(document, descriptor.digest)
                found.update((blob.digest, name) for blob in (config, *layers))

    for entry in store.entries():
        name = entry.annotations.get(REF_NAME, "")
        if not name.startswith(f"{registry}/") or entry.media_type not in INDEX_TYPES | MANIFEST_TYPES:
            continue
        with suppress(InputError):
            ref = parse_reference(name)
            if ref.registry == registry and ref.repository != repository:
                walk(entry, ref.repository, 0)
    return found


def _platform(item: Item) -> tuple[str, str, str]:
    found = item.get("platform")
    found = found if isinstance(found, dict) else {}
    return str(found.get("os") or ""), str(found.get("architecture") or ""), str(found.get("variant") or "")


def _attested(item: Item) -> str | None:
    """The digest that an attestation speaks of; None for anything else."""
    annotations = item.get("annotations")
    found = annotations.get(ATTESTED) if isinstance(annotations, dict) else None
    return str(found) if found else None
