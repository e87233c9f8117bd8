"""The certificate of `linuxkit serve --tls`: one that is given, or one made once and kept.

A made one is for localhost, this machine's name and the address that is listened on, signs itself, and is made anew
when it has no month left or the names have changed. Clients have to be told to trust it.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from linuxkit.errors import HostError, InputError

if TYPE_CHECKING:
    from cryptography.x509 import GeneralName

DAYS = 3650
SPARE = datetime.timedelta(days=30)


def given(certificate: Path, key: Path | None) -> ssl.SSLContext:
    """A context with the user's certificate.

    Args:
        key: its private key; None when it is in the same file.

    Raises:
        InputError: they can't be read, or don't belong together.
    """
    context = _context()
    try:
        context.load_cert_chain(certificate, key, password=lambda: _no_password(key or certificate))
    except OSError as e:  # ssl.SSLError is one
        raise InputError(f"{certificate} and {key or 'the key in it'} cannot be used: {e.strerror or e}",
                         hint="both in PEM, the key without a password") from e  # fmt: skip
    return context


def _no_password(key: Path) -> str:
    raise InputError(f"the key {key} is encrypted", hint="openssl pkey -in KEY -out PLAIN decrypts it")


def made(folder: Path, names: Sequence[str], now: datetime.datetime) -> tuple[ssl.SSLContext, Path, str]:
    """A context with a certificate of our own.

    Args:
        folder: where it is kept, and its key.
        names: host names and addresses that it is for.

    Returns:
        The context, the certificate's file, and its SHA-256 in hexadecimal.

    Raises:
        HostError: the library is missing, or the folder can't be written.
    """
    certificate, key = folder / "cert.pem", folder / "key.pem"
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError:
        raise HostError("making a certificate needs the Python package cryptography",
                        hint="pip install 'linuxkit[trust]', or give --cert and --key") from None  # fmt: skip
    wanted = [_name(name) for name in dict.fromkeys(names)]
    try:
        old = x509.load_pem_x509_certificate(certificate.read_bytes())
        kept = list(old.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
        if kept == wanted and old.not_valid_after_utc - SPARE > now and key.is_file():
            return given(certificate, key), certificate, old.fingerprint(hashes.SHA256()).hex()
    except (OSError, ValueError, x509.ExtensionNotFound):
        pass
    private = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "linuxkit serve")])
    built = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=DAYS))
        .add_extension(x509.SubjectAlternativeName(wanted), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(private, hashes.SHA256())
    )  # fmt: skip
    pem = private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                serialization.NoEncryption())  # fmt: skip
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(key, pem, 0o600)
        _write(certificate, built.public_bytes(serialization.Encoding.PEM), 0o644)
    except OSError as e:
        raise HostError(f"{folder} cannot be written: {e.strerror or e}", hint="give --cert and --key") from e
    return given(certificate, key), certificate, built.fingerprint(hashes.SHA256()).hex()


def _context() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)


def _write(path: Path, data: bytes, mode: int) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as out:
        out.write(data)
    partial.replace(path)


def _name(name: str) -> GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
