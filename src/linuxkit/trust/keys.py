"""Keys: PEM files, what they verify and what they sign. ECDSA and RSA (PKCS #1 v1.5) with SHA-256, and Ed25519.

The library `cryptography` does the arithmetic; it comes with the extra `trust` and is imported when it is used.
Private keys are PKCS #8, plain or encrypted, or encrypted as cosign writes them:

    -----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----
    base64 of { "kdf": { "name": "scrypt", "params": { N, r, p }, "salt": … },
                "cipher": { "name": "nacl/secretbox", "nonce": … }, "ciphertext": … }
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from linuxkit.errors import HostError, ImageError, InputError
from linuxkit.oci import document as doc
from linuxkit.trust.payload import decode64

MAX_PEM = 64 << 10
RSA_BITS = (2048, 16384)
_EXTRA = "pip install 'linuxkit[trust]'"
_COSIGN = (b"-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----", b"-----BEGIN ENCRYPTED COSIGN PRIVATE KEY-----")


def _require() -> None:
    try:
        import cryptography  # noqa: F401
    except ImportError:
        raise HostError("signatures need the Python package cryptography", hint=_EXTRA) from None


@dataclass(frozen=True)
class PublicKey:
    """A key that signatures are checked with.

    name      for messages: the name in the policy, or the file.
    identity  the first 16 hexadecimal digits of the SHA-256 of its DER form.
    """

    name: str
    identity: str
    _key: Any = field(repr=False, compare=False)

    def verifies(self, signature: bytes, data: bytes, *, hashed: bool = False) -> bool:
        """Whether `signature` over `data` was made by this key. With `hashed`, data is the SHA-256 of what was signed:
        an Ed25519 key cannot tell then."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
        from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
        from cryptography.hazmat.primitives.hashes import SHA256

        how = Prehashed(SHA256()) if hashed else SHA256()
        try:
            if isinstance(self._key, ec.EllipticCurvePublicKey):
                self._key.verify(signature, data, ec.ECDSA(how))
            elif isinstance(self._key, rsa.RSAPublicKey):
                self._key.verify(signature, data, padding.PKCS1v15(), how)
            elif isinstance(self._key, ed25519.Ed25519PublicKey) and not hashed:
                self._key.verify(signature, data)
            else:
                return False
        except InvalidSignature:
            return False
        return True

    def pem(self) -> bytes:
        """The key as a PEM file."""
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        data = self._key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        assert isinstance(data, bytes)
        return data


@dataclass(frozen=True)
class PrivateKey:
    """A key that signs."""

    public: PublicKey
    _key: Any = field(repr=False, compare=False)

    def sign(self, data: bytes) -> bytes:
        """A signature over `data`; the same one each time where the library can do that (RFC 6979)."""
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
        from cryptography.hazmat.primitives.hashes import SHA256

        if isinstance(self._key, ec.EllipticCurvePrivateKey):
            try:
                signature = self._key.sign(data, ec.ECDSA(SHA256(), deterministic_signing=True))
            except UnsupportedAlgorithm:
                signature = self._key.sign(data, ec.ECDSA(SHA256()))
        elif isinstance(self._key, rsa.RSAPrivateKey):
            signature = self._key.sign(data, padding.PKCS1v15(), SHA256())
        else:
            signature = self._key.sign(data)
        assert isinstance(signature, bytes)
        return signature


def public_key(pem: bytes, name: str) -> PublicKey:
    """Read a public key.

    Args:
        name: for messages.

    Raises:
        InputError: it is not one that can be used. HostError: the extra is not installed.
    """
    _require()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    if len(pem) > MAX_PEM:
        raise InputError(f"{name}: larger than {MAX_PEM} bytes, not a key")
    if b"PRIVATE KEY-----" in pem:
        raise InputError(f"{name}: this is a private key", hint="give the public one; keep this one to yourself")
    if pem.count(b"-----BEGIN") > 1:
        raise InputError(f"{name}: more than one key in it", hint="give each key a file of its own")
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise InputError(f"{name}: not a public key in PEM form",
                         hint="it starts with -----BEGIN PUBLIC KEY-----") from None  # fmt: skip
    return _public(key, name)


def _public(key: Any, name: str) -> PublicKey:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    if isinstance(key, ec.EllipticCurvePublicKey):
        good = key.curve.name in ("secp256r1", "secp384r1", "secp521r1")
    elif isinstance(key, rsa.RSAPublicKey):
        good = RSA_BITS[0] <= key.key_size <= RSA_BITS[1]
    else:
        good = isinstance(key, ed25519.Ed25519PublicKey)
    if not good:
        raise InputError(f"{name}: this kind of key is not used for signatures",
                         hint="use ECDSA on P-256, Ed25519, or RSA of 2048 bits and more")  # fmt: skip
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return PublicKey(name, hashlib.sha256(der).hexdigest()[:16], key)


def read_key(path: Path) -> bytes:
    """A key file.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return stream.read(MAX_PEM + 1)
    except OSError as e:
        raise InputError(f"{path}: {e.strerror or e}", hint="give the name of a PEM file") from None


def private_key(pem: bytes, name: str, password: Callable[[], bytes]) -> PrivateKey:
    """Read a private key.

    Args:
        password: asked for when the key is encrypted.

    Raises:
        InputError: it is not one that can be used, or the password is wrong. HostError: the extra is not installed.
    """
    _require()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_der_private_key, load_pem_private_key

    if len(pem) > MAX_PEM:
        raise InputError(f"{name}: larger than {MAX_PEM} bytes, not a key")
    wrong = InputError(f"{name}: the password is wrong", hint="LINUXKIT_KEY_PASSWORD may hold it")
    secret: bytes | None = None
    try:
        if pem.lstrip().startswith(_COSIGN):
            der = _open_cosign(pem, name, password())
            if der is None:
                raise wrong
            key: Any = load_der_private_key(der, None)
        else:
            if b"ENCRYPTED" in pem:
                secret = password()
                if not secret:
                    raise wrong
            key = load_pem_private_key(pem, secret)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        if secret is not None:
            raise wrong from None
        raise InputError(f"{name}: not a private key in PEM form",
                         hint="linuxkit key generate makes a pair of keys") from None  # fmt: skip
    if not hasattr(key, "sign"):
        raise InputError(f"{name}: this kind of key cannot sign", hint="use ECDSA on P-256, Ed25519, or RSA")
    return PrivateKey(_public(key.public_key(), name), key)


def _open_cosign(pem: bytes, name: str, password: bytes) -> bytes | None:
    """The PKCS #8 form of a key that cosign encrypted; None when the password is wrong."""
    try:
        from nacl.exceptions import CryptoError
        from nacl.secret import SecretBox
    except ImportError:
        raise HostError(f"{name}: keys that cosign encrypted need the Python package pynacl", hint=_EXTRA) from None
    try:
        body = base64.b64decode(b"".join(pem.strip().splitlines()[1:-1]), validate=True)
        document = doc.decode(body, name)
        kdf, cipher = doc.mapping(document, "kdf", name), doc.mapping(document, "cipher", name)
        if (kdf.get("name"), cipher.get("name")) != ("scrypt", "nacl/secretbox"):
            raise InputError(f"{name}: encrypted in a way that is not known",
                             hint="cosign import-key-pair and openssl pkcs8 convert keys")  # fmt: skip
        n, r, p = (doc.mapping(kdf, "params", name).get(k) for k in ("N", "r", "p"))
        if not (isinstance(n, int) and isinstance(r, int) and isinstance(p, int)
                and 2 <= n <= 1 << 20 and 1 <= r <= 8 and 1 <= p <= 4):  # fmt: skip
            raise InputError(f"{name}: it asks for more work than a password is worth (scrypt {n}, {r}, {p})")
        salt, nonce = decode64(kdf.get("salt"), name), decode64(cipher.get("nonce"), name)
        sealed = decode64(document.get("ciphertext"), name)
        secret = hashlib.scrypt(password, salt=salt, n=n, r=r, p=p, maxmem=256 * n * r * p + (1 << 20), dklen=32)
        opened = SecretBox(secret).decrypt(sealed, nonce)
    except CryptoError:
        return None
    except ImageError as e:
        raise InputError(f"{name}: damaged: {e.message}") from None
    return bytes(opened)


def generate(prefix: Path, password: bytes) -> tuple[Path, Path]:
    """Make a pair of keys (ECDSA on P-256): PREFIX.key, encrypted unless the password is empty, and PREFIX.pub.

    Raises:
        InputError: one of the files exists. HostError: they cannot be written, or the extra is not installed.
    """
    _require()
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        KeySerializationEncryption,
        NoEncryption,
        PrivateFormat,
    )

    key = ec.generate_private_key(ec.SECP256R1())
    sealing: KeySerializationEncryption = BestAvailableEncryption(password) if password else NoEncryption()
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, sealing)
    private, public = prefix.with_name(prefix.name + ".key"), prefix.with_name(prefix.name + ".pub")
    if os.path.lexists(public):
        raise InputError(f"{public} exists already", hint="choose another name; a key is never overwritten")
    _write_new(private, secret, 0o600)
    try:
        _write_new(public, _public(key.public_key(), str(public)).pem(), 0o644)
    except BaseException:
        private.unlink()
        raise
    return private, public


def _write_new(path: Path, data: bytes, mode: int) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    except FileExistsError:
        raise InputError(f"{path} exists already", hint="choose another name; a key is never overwritten") from None
    except OSError as e:
        raise HostError(f"{path}: {e.strerror or e}") from None
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
