"""Where signatures are: in the store, so that they count offline and in bundles, and at the registry.

    NAME:sha256-<hex>.sig      a manifest whose layers are payloads, one for each signature (cosign's tag scheme)
    NAME:sha256-<hex>          in the store, the list of what refers to a manifest (OCI 1.1, the referrers tag schema);
                               a registry is asked by the referrers API, and by this tag where it has none

A layer of the media type `application/vnd.dev.cosign.simplesigning.v1+json` is a payload with its signature in an
annotation; `application/vnd.dev.sigstore.bundle…` is a Sigstore bundle that holds everything itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from linuxkit.errors import ImageError, InputError, NetworkError
from linuxkit.oci import document as doc
from linuxkit.oci.media import INDEX_TYPES, MANIFEST_TYPES, OCI_INDEX, Descriptor
from linuxkit.oci.reference import Reference, parse_reference
from linuxkit.oci.store import Store
from linuxkit.trust.payload import MAX_PAYLOAD, decode64

SIMPLE = "application/vnd.dev.cosign.simplesigning.v1+json"
BUNDLE = "application/vnd.dev.sigstore.bundle"
ARTIFACT = "application/vnd.dev.cosign.artifact.sig.v1+json"  # the artifact type of a .sig manifest that is attached
SIGNATURE = "dev.cosignproject.cosign/signature"
CERTIFICATE = "dev.sigstore.cosign/certificate"
MAX_BUNDLE = 1 << 20
MAX_MANIFESTS = 32  # that are attached to one image
MAX_SIGNATURES = 64  # of one image

Reader = Callable[[Descriptor, int], bytes]


class Registry(Protocol):
    """What oci.registry.RegistryClient does, as far as it is needed here."""

    def find(self, reference: Reference) -> tuple[Descriptor, bytes] | None: ...
    def read(self, reference: Reference, descriptor: Descriptor, limit: int) -> bytes: ...
    def referrers(self, reference: Reference, digest: str, artifact_type: str = "") -> tuple[Descriptor, ...]: ...


@dataclass(frozen=True, slots=True)
class Found:
    """Something that may be a signature. Nothing of it has been checked but that the bytes are those of its digest.

    data         the payload, or with `bundle` a Sigstore bundle.
    signature    of the payload; empty for a bundle.
    certificate  whether a certificate came with it instead of a key (cosign's older keyless form).
    fault        why it cannot be read at all.
    """

    data: bytes = b""
    signature: bytes = b""
    bundle: bool = False
    certificate: bool = False
    fault: str = ""


def signature_name(reference: Reference, digest: str) -> str:
    """The name of the signatures of a manifest: NAME:sha256-<hex>.sig."""
    return f"{reference.name}:{digest.replace(':', '-')}.sig"


def referrers_name(reference: Reference, digest: str) -> str:
    """The name of the list of what refers to a manifest: NAME:sha256-<hex>."""
    return f"{reference.name}:{digest.replace(':', '-')}"


def is_signature(descriptor: Descriptor) -> bool:
    """Whether an attached manifest may hold signatures."""
    return descriptor.artifact_type == ARTIFACT or descriptor.artifact_type.startswith(BUNDLE)


def stored_names(store: Store, reference: Reference, digests: Sequence[str]) -> list[str]:
    """The names in the store under which signatures of the manifests are, for what copies them."""
    names = [make(reference, d) for d in digests for make in (signature_name, referrers_name)]
    known = set(store.names())
    return [name for name in names if name in known]


def stored(store: Store, reference: Reference | None, digests: Sequence[str]) -> Iterator[Found]:
    """What the store has about the manifests; without a reference, under any name."""
    if reference is None:
        ends = tuple(f":{d.replace(':', '-')}{suffix}" for d in digests for suffix in (".sig", ""))
        names = [name for name in store.names() if name.endswith(ends)]
    else:
        names = stored_names(store, reference, digests)
    for name in names:
        try:
            top = store.find(name)
            if top is not None:
                yield from _open(top, store.read_blob, referrers=not name.endswith(".sig"))
        except (ImageError, InputError) as e:
            yield Found(fault=f"{name} in the cache: {e.message}")


def fetched(store: Store, registry: Registry, reference: Reference, digests: Sequence[str], *,
            keep: bool = True) -> Iterator[Found]:  # fmt: skip
    """What the registry has about the manifests.

    Args:
        keep: put it into the store, where `stored` finds it the next time.
    """
    for digest in digests:
        for get in (_by_tag, _by_referrers):
            try:
                yield from get(store if keep else None, registry, reference, digest)
            except (ImageError, NetworkError) as e:
                yield Found(fault=f"{reference.registry}: {e.message}")


def _by_tag(store: Store | None, registry: Registry, reference: Reference, digest: str) -> list[Found]:
    name = parse_reference(signature_name(reference, digest))
    top = registry.find(name)
    if top is None:
        return []
    read = _Remembering(registry, name, [top])
    found = list(_open(top[0], read.read))
    if store is not None:
        read.save(store)
        store.put_name(name.text, top[0])
    return found


def _by_referrers(store: Store | None, registry: Registry, reference: Reference, digest: str) -> list[Found]:
    listed = [d for d in registry.referrers(reference, digest) if is_signature(d)][:MAX_MANIFESTS]
    if not listed:
        return []
    read = _Remembering(registry, reference, [])
    found = []
    for descriptor in listed:
        found += list(_open(descriptor, read.read))
    if store is not None:
        read.save(store)
        documents = [doc.descriptor_document(d) for d in listed]
        known = {d.digest for d in listed}
        documents += [d for d in _listed(store, referrers_name(reference, digest)) if d.get("digest") not in known]
        data = doc.encode({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": documents})
        store.put_name(referrers_name(reference, digest), store.put_blob(data, OCI_INDEX))
    return found


def _listed(store: Store, name: str) -> list[dict[str, object]]:
    """What a list of referrers in the store has already."""
    try:
        top = store.find(name)
        data = store.read_blob(top, doc.MAX_MANIFEST) if top else b"{}"
        return doc.objects(doc.decode(data, name), "manifests", name)
    except ImageError:
        return []  # damaged: made anew


class _Remembering:
    """Reads from a registry and keeps what it read, to be saved when all of it is there."""

    def __init__(self, registry: Registry, reference: Reference,
                 have: list[tuple[Descriptor, bytes]]) -> None:
        self._registry, self._reference = registry, reference
        self._have = {d.digest: (d, data) for d, data in have}

    def read(self, descriptor: Descriptor, limit: int) -> bytes:
        if descriptor.digest not in self._have:
            self._have[descriptor.digest] = descriptor, self._registry.read(self._reference, descriptor, limit)
        return self._have[descriptor.digest][1]

    def save(self, store: Store) -> None:
        for descriptor, data in reversed(self._have.values()):  # blobs before the manifest that lists them
            store.put_blob(data, descriptor.media_type)


def _open(top: Descriptor, read: Reader, *, referrers: bool = False) -> Iterator[Found]:
    """The signatures of a manifest, or of those that a list of referrers has."""
    where = f"signatures {top.digest}"
    document = doc.decode(read(top, doc.MAX_MANIFEST), where)
    if referrers or top.media_type in INDEX_TYPES:
        listed = [doc.parse_descriptor(d, where) for d in doc.objects(document, "manifests", where)]
        for descriptor in [d for d in listed if is_signature(d) and d.media_type in MANIFEST_TYPES][:MAX_MANIFESTS]:
            try:
                yield from _open(descriptor, read)
            except ImageError as e:
                yield Found(fault=e.message)
        return
    for item in doc.objects(document, "layers", where)[:MAX_SIGNATURES]:
        layer = doc.parse_descriptor(item, where)
        try:
            if layer.media_type == SIMPLE:
                data = read(layer, MAX_PAYLOAD)
                signature = decode64(layer.annotations.get(SIGNATURE), f"signature of {layer.digest}")
                yield Found(data, signature, certificate=CERTIFICATE in layer.annotations)
            elif layer.media_type.startswith(BUNDLE):
                yield Found(read(layer, MAX_BUNDLE), bundle=True)
        except ImageError as e:
            yield Found(fault=e.message)
