"""Signatures of EFI programs: the digest, the structure, and what is refused. sbverify judges them in tests/interop."""

from __future__ import annotations

import datetime
import hashlib
import struct
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    pkcs7,
)
from cryptography.x509.oid import NameOID

from linuxkit.encode import pe
from linuxkit.encode.authenticode import image_digest, signed
from linuxkit.encode.pieces import Piece, cut, literal, read, size_of
from linuxkit.errors import ImageError, InputError
from linuxkit.oci.store import Store
from linuxkit.outputs.signing import load_signer
from support.builds import YAML, linuxkit, make_cache
from support.efi import add_efi, program

pytestmark = pytest.mark.unit
KEY = rsa.generate_private_key(65537, 2048)


def certificate(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Owner of machines")])
    start = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), (1 << 100) + 7, start, start.replace(year=2049))
    return made.sign(key, SHA256()).public_bytes(Encoding.PEM)


def pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, password: bytes = b"") -> bytes:
    how = BestAvailableEncryption(password) if password else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("keys")
    (folder / "key.pem").write_bytes(pem(KEY))
    (folder / "cert.pem").write_bytes(certificate(KEY))
    return folder / "key.pem", folder / "cert.pem"


def whole(pieces: list[Piece]) -> bytes:
    return b"".join(read(pieces))


def uki(extra: bytes = b"content") -> list[Piece]:
    return pe.add_sections(program(), [pe.Section(".linux", [literal(extra)])])


def test_the_digest_leaves_out_what_signing_changes(files: tuple[Path, Path]) -> None:
    pieces = uki()
    data = bytearray(whole(pieces))
    head = pe.header(bytes(data), "it")
    plain = hashlib.sha256(
        data[: head.checksum] + data[head.checksum + 4 : head.certificates] + data[head.certificates + 8 :]
    ).digest()
    assert image_digest(pieces) == plain
    struct.pack_into("<I", data, head.checksum, 0x12345)
    assert image_digest([literal(bytes(data))]) == plain
    data[-1] ^= 1
    assert image_digest([literal(bytes(data))]) != plain
    # in whatever pieces it comes
    assert image_digest([p for n in range(0, size_of(pieces), 333) for p in cut(pieces, n, 333)]) == plain


def test_the_signature_is_one_of_the_digest_by_the_key(files: tuple[Path, Path]) -> None:
    before = uki()
    data = whole(signed(before, load_signer(*files)))
    head = pe.header(data, "it")
    at, size = struct.unpack_from("<II", data, head.certificates)
    assert at == size_of(before) and at + size == len(data) and size % 8 == 0
    length, revision, kind = struct.unpack_from("<IHH", data, at)
    assert (length, revision, kind) == (size, 0x0200, 0x0002)
    der = data[at + 8 : at + 8 + 4 + int.from_bytes(data[at + 10 : at + 12], "big")]
    assert not data[at + 8 + len(der) :].strip(b"\0")
    (found,) = pkcs7.load_der_pkcs7_certificates(der)
    assert found.serial_number == (1 << 100) + 7

    ((_, outer),) = values(der)
    _, (_, wrapped) = values(outer)
    _, _, content, _, (_, infos) = values(values(wrapped)[0][1])
    indirect = values(values(content[1])[1][1])[0][1]
    assert indirect.endswith(b"\x04\x20" + image_digest(before))
    _, _, _, (tag, attributes), _, (_, signature) = values(values(infos)[0][1])
    assert tag == 0xA0
    assert hashlib.sha256(indirect).digest() in attributes
    assert [a for _, a in values(attributes)] == sorted(a for _, a in values(attributes))
    signed_set = b"\x31" + bytes([len(attributes)]) + attributes
    KEY.public_key().verify(signature, signed_set, padding.PKCS1v15(), SHA256())


def values(der: bytes) -> list[tuple[int, bytes]]:
    """The values of which some DER consists: tag and content."""
    found, at = [], 0
    while at + 2 <= len(der) and der[at]:
        tag, size, at = der[at], der[at + 1], at + 2
        if size & 0x80:
            count = size & 0x7F
            size, at = int.from_bytes(der[at : at + count], "big"), at + count
        found.append((tag, der[at : at + size]))
        at += size
    return found


def test_signing_again_gives_the_same_and_signing_what_is_signed_is_refused(files: tuple[Path, Path]) -> None:
    signer = load_signer(*files)
    once = signed(uki(), signer)
    assert whole(once) == whole(signed(uki(), signer))
    with pytest.raises(ImageError, match="signature already"):
        signed(once, signer)
    with pytest.raises(ImageError, match="not an EFI program"):
        signed([literal(b"x" * 5000)], signer)


def test_content_stays_where_it_is(files: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "kernel").write_bytes(b"k" * 100_000)
    kernel = Piece(100_000, str(tmp_path / "kernel"))
    made = signed(pe.add_sections(program(), [pe.Section(".linux", [kernel])]), load_signer(*files))
    assert kernel in made


def test_keys_that_cannot_sign(files: tuple[Path, Path], tmp_path: Path) -> None:
    key, cert = files
    elliptic = ec.generate_private_key(ec.SECP256R1())
    texts = {
        "locked": pem(KEY, b"secret"), "ec": pem(elliptic), "ec-cert": certificate(elliptic), "noise": b"noise",
        "other": pem(rsa.generate_private_key(65537, 2048)), "huge": bytes(70_000),
    }  # fmt: skip
    for name, text in texts.items():
        (tmp_path / name).write_bytes(text)
    cases = [
        (tmp_path / "locked", cert, "passphrase"), (tmp_path / "ec", tmp_path / "ec-cert", "RSA keys only"),
        (tmp_path / "noise", cert, "not a private key"), (key, tmp_path / "noise", "not a certificate"),
        (tmp_path / "other", cert, "does not belong to the certificate"), (cert, cert, "not a private key"),
        (tmp_path / "none", cert, "no such file"), (tmp_path / "huge", cert, "more than 65536 bytes"),
    ]  # fmt: skip
    for one, two, message in cases:
        with pytest.raises(InputError, match=message):
            load_signer(one, two)


def test_build_signs(files: tuple[Path, Path], tmp_path: Path) -> None:
    cache = make_cache(tmp_path)
    add_efi(Store(cache))
    (tmp_path / "x.yml").write_text(YAML)
    command = ("build", "--arch", "amd64", "--offline", "x.yml")
    signing = ("--sign-key", files[0], "--sign-cert", files[1])
    linuxkit(*command, "-f", "uki", "--name", "plain", cwd=tmp_path, cache=cache)
    linuxkit(*command, "-f", "uki,raw-efi", *signing, cwd=tmp_path, cache=cache)
    made, plain = (tmp_path / "x.efi").read_bytes(), (tmp_path / "plain.efi").read_bytes()
    assert made == whole(signed([literal(plain)], load_signer(*files)))
    assert made in (tmp_path / "x-efi.img").read_bytes()

    for arguments, message in (
        (("-f", "uki", "--sign-key", files[0]), "belong together"),
        (("-f", "kernel+initrd", *signing), "nothing to sign"),
    ):
        refused = linuxkit(*command, *arguments, "--name", "no", cwd=tmp_path, cache=cache, check=False)
        assert refused.returncode == 2
        assert message in refused.stderr
        assert not list(tmp_path.glob("no*"))
