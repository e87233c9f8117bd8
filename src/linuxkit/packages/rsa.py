"""Checking RSA signatures, PKCS #1 v1.5 (RFC 8017 section 8.2.2): what Alpine's indexes and packages are signed with.

The whole padded block is made and compared, so nothing of the signature is parsed. Keys are PEM: SubjectPublicKeyInfo
(RFC 5280) or RSAPublicKey (RFC 8017 A.1.1), in DER.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from dataclasses import dataclass

from linuxkit.errors import InputError

MIN_BITS, MAX_BITS = 2048, 16384
#: DER of the DigestInfo in front of a digest (RFC 8017 section 9.2).
_INFO = {
    "sha1": bytes.fromhex("3021300906052b0e03021a05000414"),
    "sha256": bytes.fromhex("3031300d060960864801650304020105000420"),
    "sha512": bytes.fromhex("3051300d060960864801650304020305000440"),
}
_RSA = bytes.fromhex("06092a864886f70d010101")  # the OID rsaEncryption


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key: modulus and exponent."""

    n: int
    e: int

    def verify(self, algorithm: str, digest: bytes, signature: bytes) -> bool:
        """Whether `signature` is one of this key over a digest.

        Args:
            algorithm: of the digest: sha1, sha256 or sha512.
        """
        size = (self.n.bit_length() + 7) // 8
        value = int.from_bytes(signature, "big")
        if len(signature) != size or value >= self.n:
            return False
        wanted = padded_digest(algorithm, digest, size)
        return hmac.compare_digest(pow(value, self.e, self.n).to_bytes(size, "big"), wanted)


def padded_digest(algorithm: str, digest: bytes, size: int) -> bytes:
    """The block of `size` bytes that is signed for a digest (RFC 8017 section 9.2)."""
    info = _INFO[algorithm] + digest
    return b"\0\1" + b"\xff" * (size - len(info) - 3) + b"\0" + info


def parse_key(text: bytes, name: str) -> PublicKey:
    """A public key in PEM.

    Args:
        name: of the file, for messages.

    Raises:
        InputError: it is none, or a weak one.
    """
    lines = [line.strip() for line in text.strip().splitlines()]
    try:
        if len(lines) < 3 or not lines[0].startswith(b"-----BEGIN ") or not lines[-1].startswith(b"-----END "):
            raise ValueError("no PEM")
        der = base64.b64decode(b"".join(lines[1:-1]), validate=True)
        body = element(der, 0x30)[0]
        if b"RSA PUBLIC KEY" not in lines[0]:
            algorithm, rest = element(body, 0x30)
            if not algorithm.startswith(_RSA):
                raise ValueError("no RSA key")
            bits = element(rest, 0x03)[0]
            body = element(bits[1:], 0x30)[0]
        modulus, rest = element(body, 0x02)
        exponent = element(rest, 0x02)[0]
    except (ValueError, IndexError, binascii.Error) as e:
        raise InputError(f"{name} is not an RSA public key in PEM", hint="such as /etc/apk/keys/*.rsa.pub") from e
    key = PublicKey(int.from_bytes(modulus, "big"), int.from_bytes(exponent, "big"))
    if not MIN_BITS <= key.n.bit_length() <= MAX_BITS or key.e < 3 or not key.e % 2 or key.e.bit_length() > 64:
        raise InputError(f"{name}: an RSA key of {key.n.bit_length()} bits is not trusted",
                         hint=f"it needs at least {MIN_BITS} bits")  # fmt: skip
    return key


def element(data: bytes, tag: int) -> tuple[bytes, bytes]:
    """The content of the DER element at the start, and what follows it."""
    if data[0] != tag:
        raise ValueError("another element")
    length, at = data[1], 2
    if length & 0x80:
        count = length & 0x7F
        if not 1 <= count <= 4:
            raise ValueError("a length without sense")
        length, at = int.from_bytes(data[2 : 2 + count], "big"), 2 + count
    if at + length > len(data):
        raise ValueError("cut short")
    return data[at : at + length], data[at + length :]
