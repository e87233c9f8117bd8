"""JSON Web Tokens signed with RS256, which Google's and other logins exchange for a token of their own.

    token     = base64url(header) . base64url(claims) . base64url(signature)
    signature = RSASSA-PKCS1-v1_5 with SHA-256 (RFC 8017 section 8.2.1) over the first two parts

Specifications: RFC 7515 (JWS), 7519 (JWT), 7518 section 3.3 (RS256). Keys are PEM, as PKCS #8 (RFC 5958) or PKCS #1
(RFC 8017 A.1.2). Signing takes one exponentiation, so no library is needed for it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from linuxkit.errors import InputError
from linuxkit.packages.rsa import MAX_BITS, MIN_BITS, PublicKey, element, padded_digest


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """A private key: modulus, both exponents, the two primes."""

    n: int
    e: int
    d: int
    p: int
    q: int

    def __repr__(self) -> str:
        return f"PrivateKey({self.n.bit_length()} bits)"

    def sign(self, message: bytes) -> bytes:
        """The signature of a message, with SHA-256.

        Raises:
            InputError: the key's numbers don't belong together.
        """
        size = (self.n.bit_length() + 7) // 8
        digest = hashlib.sha256(message).digest()
        block = int.from_bytes(padded_digest("sha256", digest, size), "big")
        # by the remainders of both primes: four times as fast (RFC 8017 section 5.1.2)
        one, two = pow(block, self.d % (self.p - 1), self.p), pow(block, self.d % (self.q - 1), self.q)
        signature = (two + self.q * ((one - two) * pow(self.q, -1, self.p) % self.p)).to_bytes(size, "big")
        if not PublicKey(self.n, self.e).verify("sha256", digest, signature):  # a wrong one would give the key away
            raise InputError("the private key is damaged: its numbers don't belong together")
        return signature


def parse_private_key(text: bytes, name: str) -> PrivateKey:
    """A private key in PEM.

    Args:
        name: where it comes from, for messages.

    Raises:
        InputError: it is none, is encrypted, or a weak one.
    """
    lines = [line.strip() for line in text.strip().splitlines()]
    if b"ENCRYPTED" in b"".join(lines[:3]):
        raise InputError(f"{name}: the private key is encrypted", hint="give one without a password")
    try:
        if len(lines) < 3 or not lines[0].startswith(b"-----BEGIN ") or not lines[-1].startswith(b"-----END "):
            raise ValueError("no PEM")
        body = element(base64.b64decode(b"".join(lines[1:-1]), validate=True), 0x30)[0]
        body = element(body, 0x02)[1]  # the version
        if b"RSA PRIVATE KEY" not in lines[0]:
            body = element(element(element(body, 0x30)[1], 0x04)[0], 0x30)[0]
            body = element(body, 0x02)[1]
        numbers = []
        for _ in range(5):
            number, body = element(body, 0x02)
            numbers.append(int.from_bytes(number, "big"))
        key = PrivateKey(*numbers)
        if key.p * key.q != key.n or key.p < 3 or key.q < 3 or key.p == key.q:
            raise ValueError("no RSA key")
    except (ValueError, IndexError, binascii.Error):
        raise InputError(f"{name} is not an RSA private key in PEM") from None
    if not MIN_BITS <= key.n.bit_length() <= MAX_BITS:
        raise InputError(f"{name}: an RSA key of {key.n.bit_length()} bits is not used",
                         hint=f"it needs at least {MIN_BITS} bits")  # fmt: skip
    return key


def encode(claims: Mapping[str, Any], key: PrivateKey, headers: Mapping[str, Any] | None = None) -> str:
    """A signed token.

    Args:
        headers: beside alg and typ, such as kid.
    """
    parts = [{"alg": "RS256", "typ": "JWT", **(headers or {})}, claims]
    text = ".".join(base64url(json.dumps(part, separators=(",", ":")).encode()) for part in parts)
    return f"{text}.{base64url(key.sign(text.encode()))}"


def base64url(data: bytes) -> str:
    """RFC 7515 section 2: without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
