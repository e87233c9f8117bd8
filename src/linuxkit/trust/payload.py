"""What is signed: cosign's payload about an image, DSSE envelopes, in-toto statements. Pure.

    { "critical": { "identity": { "docker-reference": "registry.example/team/app" },
                    "image": { "docker-manifest-digest": "sha256:…" },
                    "type": "cosign container image signature" },
      "optional": null or an object of annotations }

is the "simple signing" form that cosign writes (its SIGNATURE_SPEC.md, after containers/image's
containers-signature.5). A bundle holds an in-toto statement in a DSSE envelope instead, whose subject is the image.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from linuxkit.errors import ImageError
from linuxkit.oci import document as doc
from linuxkit.oci.reference import is_digest

TYPE = "cosign container image signature"
STATEMENT = "application/vnd.in-toto+json"
SIGNED = "https://sigstore.dev/cosign/sign/v1"  # the predicate type of a signature; others attest something else
MAX_PAYLOAD = 256 << 10


@dataclass(frozen=True, slots=True)
class Claim:
    """What a signature says.

    digests      of the manifests or indexes that it is about.
    name         of the image as it was signed, REGISTRY/REPOSITORY; empty when it says none.
    nameless     this kind of signature need not say a name.
    annotations  that were signed with it.
    """

    digests: tuple[str, ...]
    name: str = ""
    nameless: bool = False
    annotations: Mapping[str, str] = field(default_factory=dict)


def simple_payload(name: str, digest: str, annotations: Mapping[str, str] | None = None) -> bytes:
    """The bytes to sign for an image; the same each time."""
    critical = {
        "identity": {"docker-reference": name}, "image": {"docker-manifest-digest": digest}, "type": TYPE,
    }  # fmt: skip
    return doc.encode({"critical": critical, "optional": dict(annotations) if annotations else None})


def parse_simple(data: bytes) -> Claim:
    """Read such a payload.

    Raises:
        ImageError: it is not one.
    """
    where = "signed payload"
    if len(data) > MAX_PAYLOAD:
        raise ImageError(f"{where}: larger than {MAX_PAYLOAD} bytes")
    document = doc.decode(data, where)
    critical = doc.mapping(document, "critical", where)
    kind = doc.text(critical, "type", where)
    if kind != TYPE:
        raise ImageError(f"{where}: '{kind[:80]}' is not a signature of an image")
    digest = doc.text(doc.mapping(critical, "image", where), "docker-manifest-digest", where)
    if not is_digest(digest):
        raise ImageError(f"{where}: '{digest[:100]}' is not a digest")
    name = doc.text(doc.mapping(critical, "identity", where), "docker-reference", where)
    optional = doc.mapping(document, "optional", where)
    return Claim((digest,), name, False, {k: v for k, v in optional.items() if isinstance(v, str)})


def parse_statement(kind: str, data: bytes) -> Claim:
    """Read what a DSSE envelope holds: an in-toto statement that says an image is signed.

    Raises:
        ImageError: it is another kind of statement, such as an SBOM: that is no signature of the image.
    """
    where = "signed statement"
    if kind != STATEMENT:
        raise ImageError(f"{where}: '{kind[:80]}' is not an in-toto statement")
    if len(data) > MAX_PAYLOAD:
        raise ImageError(f"{where}: larger than {MAX_PAYLOAD} bytes")
    document = doc.decode(data, where)
    predicate = doc.text(document, "predicateType", where)
    if predicate != SIGNED:
        raise ImageError(f"{where}: an attestation ({predicate[:80]}), not a signature")
    digests, names = [], []
    for subject in doc.objects(document, "subject", where):
        value = doc.text(doc.mapping(subject, "digest", where), "sha256", where)
        if not is_digest(f"sha256:{value}"):
            raise ImageError(f"{where}: a subject without a sha256 digest")
        digests.append(f"sha256:{value}")
        names.append(doc.text(subject, "name", where))
    return Claim(tuple(digests), names[0] if len(set(names)) == 1 else "", True)


def envelope_bytes(kind: str, payload: bytes) -> bytes:
    """What the signature of a DSSE envelope is over (DSSE v1.0.2, PAE)."""
    return b"DSSEv1 %d %s %d %s" % (len(kind.encode()), kind.encode(), len(payload), payload)


def decode64(value: Any, where: str) -> bytes:
    """Strict base64.

    Raises:
        ImageError: it is none.
    """
    try:
        if not isinstance(value, str):
            raise ValueError
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise ImageError(f"{where}: not base64") from None
