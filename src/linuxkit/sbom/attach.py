"""Documents attached to an image in a registry, as OCI 1.1 artefacts that refer to it.

    manifest { artifactType: what it is, subject: the image, config: {}, layers: [the document] }

    SPDX            application/spdx+json
    CycloneDX       application/vnd.cyclonedx+json
    statements      application/vnd.in-toto+json                 provenance
    signed ones     application/vnd.dsse.envelope.v1+json        DSSE, https://github.com/secure-systems-lab/dsse

Attaching a document once more changes nothing: the manifest has no time in it, so it is the same. Signed ones are put
under the tag sha256-<hex>.att as well, where cosign looks for them: a manifest with a layer for each.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from linuxkit.errors import InputError
from linuxkit.oci import document as doc
from linuxkit.oci.media import OCI_CONFIG, OCI_MANIFEST, Descriptor
from linuxkit.oci.reference import Reference
from linuxkit.sbom.attested import CYCLONEDX, MAX_DOCUMENT, SPDX, shallow, small
from linuxkit.sbom.make import MEDIA_TYPES
from linuxkit.sbom.provenance import MEDIA_TYPE, PREDICATE, STATEMENT

ENVELOPE = "application/vnd.dsse.envelope.v1+json"
EMPTY = "application/vnd.oci.empty.v1+json"
_PREDICATE_TYPE = "in-toto.io/predicate-type"
_KINDS = {"spdx": "an SPDX document", "cyclonedx": "a CycloneDX document", "provenance": "SLSA provenance"}
_WANTED = {
    "provenance": ("SLSA provenance v1", "linuxkit build --provenance FILE writes provenance"),
    "sbom": ("an SPDX or CycloneDX document", "linuxkit sbom --outfile FILE writes one"),
}


class Registry(Protocol):
    """Where to: oci.registry.RegistryClient."""

    def find(self, reference: Reference) -> tuple[Descriptor, bytes] | None: ...

    def push_bytes(self, reference: Reference, data: bytes, media_type: str) -> Descriptor: ...

    def push_manifest(self, reference: Reference, media_type: str, data: bytes) -> Descriptor: ...


@dataclass(frozen=True, slots=True)
class Document:
    """A document to attach. `kind`: spdx, cyclonedx or provenance."""

    kind: str
    data: bytes
    value: Mapping[str, Any]

    @property
    def media_type(self) -> str:
        return MEDIA_TYPES.get(self.kind, MEDIA_TYPE)

    @property
    def predicate_type(self) -> str:
        return {"spdx": SPDX, "cyclonedx": CYCLONEDX}.get(self.kind) or str(self.value.get("predicateType"))

    def names(self, subject: Descriptor) -> bool:
        """Whether a statement has the image among its subjects."""
        listed = self.value.get("subject")
        wanted = subject.digest.partition(":")[2]
        return any(
            isinstance(one, dict) and isinstance(one.get("digest"), dict) and one["digest"].get("sha256") == wanted
            for one in (listed if isinstance(listed, list) else ())
        )


def read(data: bytes, name: str, wanted: str) -> Document:
    """Tell what a document is.

    Args:
        name: of its file, for messages.
        wanted: sbom or provenance.

    Raises:
        InputError: it is neither that nor JSON.
    """
    if len(data) > MAX_DOCUMENT or not small(data):
        raise InputError(f"{name} is too large: a document may have {MAX_DOCUMENT >> 20} MiB")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise InputError(f"{name} is not JSON", hint="linuxkit sbom and build --provenance write such files") from None
    kind = ""
    if isinstance(value, dict) and shallow(value):
        if isinstance(value.get("spdxVersion"), str):
            kind = "spdx"
        elif value.get("bomFormat") == "CycloneDX":
            kind = "cyclonedx"
        elif value.get("_type") == STATEMENT and value.get("predicateType") == PREDICATE:
            kind = "provenance"
    if (wanted == "provenance") != (kind == "provenance") or not kind:
        expected, hint = _WANTED[wanted]
        raise InputError(f"{name} is {_KINDS.get(kind, 'something else')}, not {expected}", hint=hint)
    return Document(kind, data, value)


def envelope(document: Document, subject: Descriptor, name: str, sign: Callable[[bytes], bytes],
             key_id: str = "") -> bytes:  # fmt: skip
    """A signed statement about the image.

    Args:
        name: of the image, for the statement.
        sign: the signature of some bytes.

    An SBOM becomes the predicate of a statement. A statement that does not name the image gets it as one more subject:
    who signs it here vouches for that.
    """
    about = {"name": name, "digest": {"sha256": subject.digest.partition(":")[2]}}
    statement: dict[str, Any]
    if document.kind == "provenance":
        statement = dict(document.value)
        if not document.names(subject):
            listed = statement.get("subject")
            statement["subject"] = [about, *(listed if isinstance(listed, list) else ())]
    else:
        statement = {"_type": STATEMENT, "subject": [about], "predicateType": document.predicate_type,
                     "predicate": dict(document.value)}  # fmt: skip
    payload = doc.encode(statement)
    signature = {"keyid": key_id, "sig": base64.b64encode(sign(encoding(MEDIA_TYPE, payload))).decode()}
    return doc.encode({"payloadType": MEDIA_TYPE, "payload": base64.b64encode(payload).decode(),
                       "signatures": [signature]})  # fmt: skip


def encoding(kind: str, payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: the bytes that are signed."""
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload)


def attach(registry: Registry, reference: Reference, subject: Descriptor, document: Document,
           signed: bytes = b"") -> Descriptor:  # fmt: skip
    """Push a document, or its signed envelope, so that it refers to an image.

    Args:
        reference: the image's repository.
        subject: its manifest or index, as the registry has it.

    Raises:
        NetworkError: the registry cannot be reached, or refuses.
    """
    repository = Reference(reference.name, reference.registry, reference.repository)
    kind = ENVELOPE if signed else document.media_type
    notes = {_PREDICATE_TYPE: document.predicate_type}
    config = registry.push_bytes(repository, b"{}", EMPTY)
    layer = registry.push_bytes(repository, signed or document.data, kind)
    manifest = {
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": kind,
        "config": doc.descriptor_document(Descriptor(EMPTY, config.digest, config.size)),
        "layers": [doc.descriptor_document(Descriptor(kind, layer.digest, layer.size, None, notes))],
        "subject": doc.descriptor_document(Descriptor(subject.media_type, subject.digest, subject.size)),
        "annotations": notes,
    }  # fmt: skip
    done = registry.push_manifest(repository, OCI_MANIFEST, doc.encode(manifest))
    if signed:
        _add_to_tag(registry, reference, subject, layer, document.predicate_type)
    return done


def _add_to_tag(registry: Registry, reference: Reference, subject: Descriptor, layer: Descriptor, kind: str) -> None:
    """Add an envelope to the manifest under sha256-<hex>.att."""
    tag = f"{subject.digest.replace(':', '-')}.att"
    place = Reference(f"{reference.name}:{tag}", reference.registry, reference.repository, tag)
    old = registry.find(place)
    layers = doc.objects(doc.decode(old[1], tag), "layers", tag) if old else []
    if any(one.get("digest") == layer.digest for one in layers):
        return
    notes = {"dev.cosignproject.cosign/signature": "", "predicateType": kind}
    layers = [*layers, doc.descriptor_document(Descriptor(ENVELOPE, layer.digest, layer.size, None, notes))]
    config = doc.encode({
        "architecture": "", "os": "", "created": "0001-01-01T00:00:00Z", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [one["digest"] for one in layers]},
    })  # fmt: skip
    pushed = registry.push_bytes(place, config, OCI_CONFIG)
    manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": doc.descriptor_document(pushed),
                "layers": layers}  # fmt: skip
    registry.push_manifest(place, OCI_MANIFEST, doc.encode(manifest))
