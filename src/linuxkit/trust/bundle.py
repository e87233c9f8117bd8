"""Sigstore bundles: one JSON document with a signature and what it takes to check it.

    { "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
      "verificationMaterial": { "publicKey": { "hint": … }        made with a key
                              | "certificate": { "rawBytes": … }  made with an identity
                              | "x509CertificateChain": … },
      "dsseEnvelope": { "payload": base64, "payloadType": …, "signatures": [ { "sig": base64 } ] }
    | "messageSignature": { "messageDigest": { "algorithm": "SHA2_256", "digest": base64 }, "signature": base64 } }

https://github.com/sigstore/protobuf-specs. A message signature is over the bytes of the image's manifest. What was
made with a key is checked here, what was made with an identity in `keyless`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from linuxkit.errors import ImageError
from linuxkit.oci import document as doc
from linuxkit.trust.keys import PublicKey
from linuxkit.trust.payload import Claim, decode64, envelope_bytes, parse_statement

MEDIA_TYPES = "application/vnd.dev.sigstore.bundle"
MAX_ENVELOPE = 8  # signatures of one envelope


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle, read but not verified.

    certificate  whether it was made with an identity instead of a key.
    statement    whether it holds an envelope; otherwise the signature of a message.
    kind, data   of the envelope's payload; or empty and the SHA-256 of the message.
    """

    certificate: bool
    statement: bool
    kind: str
    data: bytes
    signatures: tuple[bytes, ...]

    def claim(self, key: PublicKey, digests: Sequence[str]) -> Claim | None:
        """What the bundle says when it was signed by `key`; None when it wasn't.

        Raises:
            ImageError: it was, and says nothing about an image.
        """
        signed = envelope_bytes(self.kind, self.data) if self.statement else self.data
        if not any(key.verifies(s, signed, hashed=not self.statement) for s in self.signatures):
            return None
        if self.statement:
            return parse_statement(self.kind, self.data)
        return Claim((f"sha256:{self.data.hex()}",), nameless=True)


def open_bundle(data: bytes) -> Bundle:
    """Read a bundle.

    Raises:
        ImageError: it is none.
    """
    where = "bundle"
    document = doc.decode(data, where)
    kind = doc.text(document, "mediaType", where)
    if not kind.startswith(MEDIA_TYPES):
        raise ImageError(f"{where}: '{kind[:80]}' is not a Sigstore bundle")
    material = doc.mapping(document, "verificationMaterial", where)
    certificate = "certificate" in material or "x509CertificateChain" in material
    if "dsseEnvelope" in document:
        envelope = doc.mapping(document, "dsseEnvelope", where)
        signed = tuple(
            decode64(s.get("sig"), where) for s in doc.objects(envelope, "signatures", where)[:MAX_ENVELOPE]
        )  # fmt: skip
        payload = decode64(envelope.get("payload"), where)
        return Bundle(certificate, True, doc.text(envelope, "payloadType", where), payload, signed)
    message = doc.mapping(document, "messageSignature", where)
    digest = doc.mapping(message, "messageDigest", where)
    if digest.get("algorithm") != "SHA2_256" or len(value := decode64(digest.get("digest"), where)) != 32:
        raise ImageError(f"{where}: neither an envelope nor the signature of a SHA-256 digest")
    return Bundle(certificate, False, "", value, (decode64(message.get("signature"), where),))
