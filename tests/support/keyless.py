"""A certificate authority, a certificate log and a transparency log in a few lines, and the bundles they vouch for.

Made from the descriptions of the formats (RFC 6962, Rekor's API, sigstore/protobuf-specs), with `cryptography` alone,
so that the library which verifies is not its own judge. Every part can be spoiled.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ISSUER = "https://issuer.example"
IDENTITY = "release@team.example"
SIGNED = "https://sigstore.dev/cosign/sign/v1"


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def spki(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def key_id(key: ec.EllipticCurvePrivateKey) -> bytes:
    return hashlib.sha256(spki(key)).digest()


def sign(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    return key.sign(data, ec.ECDSA(SHA256()))


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def der(tag: int, data: bytes) -> bytes:
    length = bytes([len(data)]) if len(data) < 128 else b"\x82" + struct.pack(">H", len(data))
    return bytes([tag]) + length + data


def canonical(document: Any) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


@dataclass
class World:
    """What is trusted, and who makes certificates and log entries."""

    ca: ec.EllipticCurvePrivateKey = field(default_factory=new_key)
    ct: ec.EllipticCurvePrivateKey = field(default_factory=new_key)
    rekor: ec.EllipticCurvePrivateKey = field(default_factory=new_key)

    def __post_init__(self) -> None:
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "authority of the tests")])
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        self.root = (
            x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(self.ca.public_key())
            .serial_number(1).not_valid_before(NOW - timedelta(days=365)).not_valid_after(NOW + timedelta(days=3650))
            .add_extension(x509.BasicConstraints(True, 1), True).add_extension(usage, True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self.ca.public_key()), False)
            .sign(self.ca, SHA256())
        )  # fmt: skip

    def trusted_root(self) -> bytes:
        def log(key: ec.EllipticCurvePrivateKey, name: str) -> dict[str, Any]:
            public = {"rawBytes": b64(spki(key)), "keyDetails": "PKIX_ECDSA_P256_SHA_256",
                      "validFor": {"start": "2025-06-01T00:00:00Z"}}  # fmt: skip
            return {"baseUrl": f"https://{name}.example", "hashAlgorithm": "SHA2_256", "publicKey": public,
                    "logId": {"keyId": b64(key_id(key))}}  # fmt: skip

        return json.dumps({
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [log(self.rekor, "rekor")], "ctlogs": [log(self.ct, "ct")], "timestampAuthorities": [],
            "certificateAuthorities": [{
                "subject": {"organization": "tests", "commonName": "authority"}, "uri": "https://ca.example",
                "certChain": {"certificates": [{"rawBytes": b64(self.root.public_bytes(Encoding.DER))}]},
                "validFor": {"start": "2025-06-01T00:00:00Z"},
            }],
        }).encode()  # fmt: skip

    def certificate(self, key: ec.EllipticCurvePrivateKey, identity: str = IDENTITY, issuer: str = ISSUER,
                    at: datetime = NOW) -> x509.Certificate:  # fmt: skip
        said: x509.GeneralName = x509.RFC822Name(identity)
        if "://" in identity:
            said = x509.UniformResourceIdentifier(identity)
        usage = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
        builder = (
            x509.CertificateBuilder().subject_name(x509.Name([])).issuer_name(self.root.subject)
            .public_key(key.public_key()).serial_number(4711)
            .not_valid_before(at - timedelta(minutes=1)).not_valid_after(at + timedelta(minutes=9))
            .add_extension(usage, True)
            .add_extension(x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.CODE_SIGNING]), False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.ca.public_key()), False)
            .add_extension(x509.SubjectAlternativeName([said]), True)
            .add_extension(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.8"),
                                                      der(0x0C, issuer.encode())), False)
        )  # fmt: skip
        tbs = builder.sign(self.ca, SHA256()).tbs_certificate_bytes
        ms = int(NOW.timestamp()) * 1000
        entry = hashlib.sha256(spki(self.ca)).digest() + len(tbs).to_bytes(3, "big") + tbs
        signature = sign(self.ct, struct.pack(">BBQH", 0, 0, ms, 1) + entry + b"\0\0")
        sct = b"\0" + key_id(self.ct) + struct.pack(">QHBBH", ms, 0, 4, 3, len(signature)) + signature
        listed = struct.pack(">HH", len(sct) + 2, len(sct)) + sct
        oid = x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")
        builder = builder.add_extension(x509.UnrecognizedExtension(oid, der(0x04, listed)), False)
        return builder.sign(self.ca, SHA256())

    def entry(self, kind: str, body: bytes) -> dict[str, Any]:
        """The second leaf of a log of two."""
        first, leaf = (hashlib.sha256(b"\0" + data).digest() for data in (b"somebody else's", body))
        root = hashlib.sha256(b"\1" + first + leaf).digest()
        note = f"rekor.example - 1\n2\n{b64(root)}\n"
        signed = b64(key_id(self.rekor)[:4] + sign(self.rekor, note.encode()))
        seconds = int(NOW.timestamp())
        promise = canonical({"body": b64(body), "integratedTime": seconds, "logID": key_id(self.rekor).hex(),
                             "logIndex": 1})  # fmt: skip
        return {
            "logIndex": "1", "logId": {"keyId": b64(key_id(self.rekor))}, "integratedTime": str(seconds),
            "kindVersion": {"kind": kind, "version": "0.0.1"}, "canonicalizedBody": b64(body),
            "inclusionPromise": {"signedEntryTimestamp": b64(sign(self.rekor, promise))},
            "inclusionProof": {"logIndex": "1", "treeSize": "2", "rootHash": b64(root), "hashes": [b64(first)],
                               "checkpoint": {"envelope": f"{note}\n\u2014 rekor.example {signed}\n"}},
        }  # fmt: skip

    def statement_bundle(self, digest: str, *, predicate: str = SIGNED, **who: Any) -> dict[str, Any]:
        """A bundle as `cosign sign` attaches it: an in-toto statement in an envelope."""
        key = new_key()
        certificate = self.certificate(key, **who)
        envelope = statement_envelope(digest, lambda data: sign(key, data), predicate)
        pem = b64(certificate.public_bytes(Encoding.PEM))
        payload = base64.b64decode(envelope["payload"])
        body = canonical({"apiVersion": "0.0.1", "kind": "dsse", "spec": {
            "envelopeHash": {"algorithm": "sha256", "value": hashlib.sha256(canonical(envelope)).hexdigest()},
            "payloadHash": {"algorithm": "sha256", "value": hashlib.sha256(payload).hexdigest()},
            "signatures": [{"signature": envelope["signatures"][0]["sig"], "verifier": pem}],
        }})  # fmt: skip
        return self._bundle(certificate, self.entry("dsse", body)) | {"dsseEnvelope": envelope}

    def message_bundle(self, data: bytes, **who: Any) -> dict[str, Any]:
        """A bundle with the signature of a manifest's bytes."""
        key = new_key()
        certificate, signature = self.certificate(key, **who), sign(key, data)
        pem = b64(certificate.public_bytes(Encoding.PEM))
        digest = hashlib.sha256(data)
        body = canonical({"apiVersion": "0.0.1", "kind": "hashedrekord", "spec": {
            "data": {"hash": {"algorithm": "sha256", "value": digest.hexdigest()}},
            "signature": {"content": b64(signature), "publicKey": {"content": pem}},
        }})  # fmt: skip
        message = {"messageDigest": {"algorithm": "SHA2_256", "digest": b64(digest.digest())},
                   "signature": b64(signature)}  # fmt: skip
        return self._bundle(certificate, self.entry("hashedrekord", body)) | {"messageSignature": message}

    def _bundle(self, certificate: x509.Certificate, entry: dict[str, Any]) -> dict[str, Any]:
        return {
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": {"certificate": {"rawBytes": b64(certificate.public_bytes(Encoding.DER))},
                                     "tlogEntries": [entry]},
        }  # fmt: skip


def statement_envelope(digest: str, signer: Any, predicate: str = SIGNED, name: str = "") -> dict[str, Any]:
    """A DSSE envelope with an in-toto statement about an image. `signer` gives the signature of bytes."""
    kind = "application/vnd.in-toto+json"
    subject = {"digest": {"sha256": digest.removeprefix("sha256:")}} | ({"name": name} if name else {})
    payload = canonical({"_type": "https://in-toto.io/Statement/v1", "subject": [subject], "predicateType": predicate,
                         "predicate": {}})  # fmt: skip
    signed = b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload)
    return {"payload": b64(payload), "payloadType": kind, "signatures": [{"sig": b64(signer(signed)), "keyid": ""}]}
