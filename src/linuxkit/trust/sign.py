"""Making signatures: a payload about a digest, signed, in a manifest beside the image.

The manifest is what cosign writes: one layer for each signature, with the signature in its annotations, and as
configuration an image's, so that tools that copy images copy it too. Nothing in it depends on the clock.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from linuxkit.errors import ImageError, InputError
from linuxkit.oci import document as doc
from linuxkit.oci.media import OCI_CONFIG, OCI_INDEX, OCI_MANIFEST, Descriptor
from linuxkit.oci.reference import Reference, parse_reference
from linuxkit.oci.store import Store
from linuxkit.trust.keys import PrivateKey
from linuxkit.trust.payload import decode64, simple_payload
from linuxkit.trust.source import ARTIFACT, SIGNATURE, SIMPLE, Registry, referrers_name, signature_name


class Writer(Registry, Protocol):
    """What oci.registry.RegistryClient does besides reading."""

    def push_manifest(self, reference: Reference, media_type: str, data: bytes) -> Descriptor: ...
    def push_bytes(self, reference: Reference, data: bytes, media_type: str) -> Descriptor: ...


@dataclass(frozen=True, slots=True)
class Made:
    """A manifest with a new signature, and the two blobs that nobody has yet."""

    manifest: bytes
    config: bytes
    payload: bytes

    @property
    def config_type(self) -> str:
        kind = doc.decode(self.manifest, "signature")["config"]["mediaType"]
        assert isinstance(kind, str)
        return kind


def make(key: PrivateKey, name: str, digest: str, annotations: Mapping[str, str], old: bytes | None,
         subject: Descriptor | None = None) -> Made | None:  # fmt: skip
    """Sign an image.

    Args:
        name: that the image is signed as, REGISTRY/REPOSITORY.
        digest: of its manifest or index.
        annotations: to sign with it.
        old: the manifest with the signatures that it has; they are kept.
        subject: for a manifest that refers to the image instead of being found by a tag.

    Returns:
        None when the key has signed the same before.
    """
    payload = simple_payload(name, digest, annotations)
    blob = f"sha256:{hashlib.sha256(payload).hexdigest()}"
    layers = doc.objects(doc.decode(old, "signatures"), "layers", "signatures") if old else []
    for layer in layers:
        said = doc.strings(layer, "annotations", "signatures").get(SIGNATURE)
        if layer.get("digest") == blob and _made_by(key, said, payload):
            return None
    signature = base64.b64encode(key.sign(payload)).decode()
    layer = {"mediaType": SIMPLE, "digest": blob, "size": len(payload), "annotations": {SIGNATURE: signature}}
    layers = [*layers, layer]
    config = doc.encode({
        "architecture": "", "os": "", "created": "0001-01-01T00:00:00Z", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [item["digest"] for item in layers]},
    })  # fmt: skip
    kind = OCI_CONFIG if subject is None else ARTIFACT
    manifest: dict[str, Any] = {
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": layers,
        "config": {"mediaType": kind, "digest": f"sha256:{hashlib.sha256(config).hexdigest()}", "size": len(config)},
    }  # fmt: skip
    if subject is not None:
        plain = Descriptor(subject.media_type, subject.digest, subject.size)
        manifest |= {"artifactType": ARTIFACT, "subject": doc.descriptor_document(plain)}
    return Made(doc.encode(manifest), config, payload)


def _made_by(key: PrivateKey, signature: str | None, payload: bytes) -> bool:
    try:
        return key.public.verifies(decode64(signature, "signature"), payload)
    except ImageError:
        return False


def sign_pushed(registry: Writer, reference: Reference, key: PrivateKey, annotations: Mapping[str, str], *,
                refer: bool = False) -> tuple[str, bool]:  # fmt: skip
    """Sign what a name points at in the registry, and push the signature.

    Args:
        refer: as a manifest that refers to the image (OCI 1.1) instead of under the tag sha256-<hex>.sig.

    Returns:
        the digest that was signed, and whether that is new.

    Raises:
        ImageError: there is no such image.
    """
    found = registry.find(reference)
    if found is None:
        raise ImageError(f"image {reference.tagged} is not in the registry",
                         hint="push it first (linuxkit cache push), or sign the cache's with --cache-only")  # fmt: skip
    digest = found[0].digest
    place = parse_reference(reference.name if refer else signature_name(reference, digest))
    old = None if refer else registry.find(place)
    made = make(key, reference.name, digest, annotations, old[1] if old else None, found[0] if refer else None)
    if refer and made is not None:
        listed = {d.digest for d in registry.referrers(reference, digest, ARTIFACT)}
        if f"sha256:{hashlib.sha256(made.manifest).hexdigest()}" in listed:  # signing gives the same bytes again
            made = None
    if made is None:
        return digest, False
    registry.push_bytes(place, made.payload, SIMPLE)
    registry.push_bytes(place, made.config, made.config_type)
    registry.push_manifest(place, OCI_MANIFEST, made.manifest)
    return digest, True


def sign_stored(store: Store, reference: Reference, key: PrivateKey, annotations: Mapping[str, str], *,
                refer: bool = False) -> tuple[str, bool]:  # fmt: skip
    """Sign what a name points at in the store, and keep the signature there. As `sign_pushed`."""
    found = store.find_reference(reference)
    if found is None:
        raise ImageError(f"image {reference.tagged} is not in the cache {store.root}",
                         hint="bring it in with linuxkit cache pull or import")  # fmt: skip
    name = (referrers_name if refer else signature_name)(reference, found.digest)
    before = store.find(name)
    old = store.read_blob(before, doc.MAX_MANIFEST) if before else None
    made = make(key, reference.name, found.digest, annotations, None if refer else old, found if refer else None)
    if made is None:
        return found.digest, False
    store.put_blob(made.payload, SIMPLE)
    store.put_blob(made.config, made.config_type)
    manifest = store.put_blob(made.manifest, OCI_MANIFEST)
    if refer:
        listed = doc.objects(doc.decode(old, name), "manifests", name) if old else []
        if any(item.get("digest") == manifest.digest for item in listed):
            return found.digest, False
        entry = Descriptor(manifest.media_type, manifest.digest, manifest.size, artifact_type=ARTIFACT)
        data = doc.encode({"schemaVersion": 2, "mediaType": OCI_INDEX,
                           "manifests": [*listed, doc.descriptor_document(entry)]})  # fmt: skip
        manifest = store.put_blob(data, OCI_INDEX)
    store.put_name(name, manifest)
    return found.digest, True


def parse_annotations(pairs: tuple[str, ...]) -> dict[str, str]:
    """KEY=VALUE.

    Raises:
        InputError: one is not of that form.
    """
    found = {}
    for pair in pairs:
        key, mark, value = pair.partition("=")
        if not mark or not key:
            raise InputError(f"the annotation '{pair}' is not KEY=VALUE", hint="for example -a commit=4f2a91c")
        found[key] = value
    return found
