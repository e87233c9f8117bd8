"""--sign-key and --sign-cert: who signs EFI programs. The library `cryptography` does the arithmetic."""

from __future__ import annotations

from pathlib import Path

from linuxkit.encode.authenticode import Signer
from linuxkit.errors import HostError, InputError

MAX_PEM = 1 << 16


def load_signer(key_file: Path, certificate_file: Path) -> Signer:
    """A key and its certificate, both in PEM; of several certificates the first.

    Raises:
        InputError: they cannot be read, don't belong together, or are nothing that firmware takes.
        HostError: the library is not installed.
    """
    key_text, certificate_text = _read(key_file, "--sign-key"), _read(certificate_file, "--sign-cert")
    try:
        from cryptography.hazmat.primitives.asymmetric import padding, rsa
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
        from cryptography.x509 import load_pem_x509_certificate
    except ImportError:
        raise HostError("signing needs the Python package cryptography",
                        hint="pip install 'linuxkit[trust]'") from None  # fmt: skip
    try:
        key = load_pem_private_key(key_text, None)
    except TypeError:
        raise InputError(f"--sign-key {key_file}: the key is encrypted with a passphrase",
                         hint="openssl pkey -in KEY -out PLAIN writes it without one") from None  # fmt: skip
    except ValueError:
        raise InputError(f"--sign-key {key_file}: not a private key in PEM form") from None
    try:
        certificate = load_pem_x509_certificate(certificate_text)
        public = certificate.public_key()
    except ValueError:
        raise InputError(f"--sign-cert {certificate_file}: not a certificate in PEM form",
                         hint="openssl x509 -inform der -in FILE turns DER into PEM") from None  # fmt: skip
    if not isinstance(key, rsa.RSAPrivateKey) or not isinstance(public, rsa.RSAPublicKey):
        raise InputError("UEFI firmware takes signatures by RSA keys only, and this is another kind of key",
                         hint="openssl req -new -x509 -newkey rsa:2048 -nodes -keyout KEY -out CERT -subj /CN=me")
    if key.public_key().public_numbers() != public.public_numbers():
        raise InputError(f"the key {key_file} does not belong to the certificate {certificate_file}",
                         hint="give the certificate that was made for this key")  # fmt: skip
    return Signer(
        certificate.public_bytes(Encoding.DER), certificate.issuer.public_bytes(), certificate.serial_number,
        lambda data: key.sign(data, padding.PKCS1v15(), SHA256()),
    )  # fmt: skip


def _read(path: Path, flag: str) -> bytes:
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_PEM + 1)
    except OSError as e:
        raise InputError(f"{flag} {path}: {(e.strerror or str(e)).lower()}") from e
    if len(data) > MAX_PEM:
        raise InputError(f"{flag} {path} has more than {MAX_PEM} bytes")
    return data
