"""Authenticode: the signature of an EFI program, for Secure Boot.

    program | length[4] 0x0200 0x0002 | PKCS #7 SignedData, padded to 8     the header points here

    digest  = SHA-256 of the program without its checksum, that entry and the table
    content = SpcIndirectData { SpcPeImageData, digest }
    signed  = the attributes contentType and messageDigest: no time, so that signing again gives the same bytes

Microsoft's "Windows Authenticode Portable Executable Signature Format" (2008); RFC 2315. DER is written by hand: what
it takes is a dozen values, and the libraries' PKCS #7 signs mail.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from linuxkit.encode import fields, pe
from linuxkit.encode.pieces import Piece, cut, literal, padded, read, size_of
from linuxkit.errors import ImageError

_SIGNED_DATA = "1.2.840.113549.1.7.2"
_CONTENT_TYPE, _MESSAGE_DIGEST = "1.2.840.113549.1.9.3", "1.2.840.113549.1.9.4"
_RSA, _SHA256 = "1.2.840.113549.1.1.1", "2.16.840.1.101.3.4.2.1"
_INDIRECT_DATA, _IMAGE_DATA = "1.3.6.1.4.1.311.2.1.4", "1.3.6.1.4.1.311.2.1.15"
_SEQUENCE, _SET, _OCTETS, _BITS, _INTEGER, _OID, _NULL = 0x30, 0x31, 0x04, 0x03, 0x02, 0x06, b"\x05\0"


@dataclass(frozen=True)
class Signer:
    """Who signs.

    certificate  in DER.
    issuer       its issuer's name in DER, and `serial` its number.
    sign         RSA with SHA-256 and PKCS #1 v1.5 padding, of bytes.
    """

    certificate: bytes
    issuer: bytes
    serial: int
    sign: Callable[[bytes], bytes]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate."""
        return f"sha256:{hashlib.sha256(self.certificate).hexdigest()}"


def image_digest(program: Sequence[Piece]) -> bytes:
    """The SHA-256 that a signature is of.

    Raises:
        ImageError: it isn't a 64-bit EFI program, or is signed already.
    """
    digest = hashlib.sha256()
    for data in read(_covered(program, _header(program))):
        digest.update(data)
    digest.update(bytes(-size_of(program) % 8))
    return digest.digest()


def signed(program: Sequence[Piece], signer: Signer) -> list[Piece]:
    """The program with a signature.

    Raises:
        ImageError: it isn't a 64-bit EFI program, or is signed already.
    """
    head = _header(program)
    size = -(-size_of(program) // 8) * 8
    signature = _signed_data(image_digest(program), signer)
    length = -(-(8 + len(signature)) // 8) * 8
    table = (fields.pack("<IHH", length, 0x0200, 0x0002) + signature).ljust(length, b"\0")
    at = head.certificates
    entry = literal(fields.pack("<II", size, length))
    rest = cut(program, at + 8, size_of(program))
    return [*cut(program, 0, at), entry, *padded(rest, size - at - 8), literal(table)]


def _header(program: Sequence[Piece]) -> pe.Header:
    start = b"".join(read(cut(program, 0, 4096)))
    head = pe.header(start, "what is to be signed")
    if any(start[head.certificates : head.certificates + 8]):
        raise ImageError("what is to be signed has a signature already")
    return head


def _covered(program: Sequence[Piece], head: pe.Header) -> Iterator[Piece]:
    yield from cut(program, 0, head.checksum)
    yield from cut(program, head.checksum + 4, head.certificates - head.checksum - 4)
    yield from cut(program, head.certificates + 8, size_of(program))


def _signed_data(digest: bytes, signer: Signer) -> bytes:
    sha256 = _der(_SEQUENCE, _oid(_SHA256), _NULL)
    name = _der(0x80, "<<<Obsolete>>>".encode("utf-16-be"))
    image = _der(_SEQUENCE, _der(_BITS, b"\0"), _der(0xA0, _der(0xA2, name)))
    content = _der(_SEQUENCE, _oid(_IMAGE_DATA), image) + _der(_SEQUENCE, sha256, _der(_OCTETS, digest))
    attributes = sorted((
        _der(_SEQUENCE, _oid(_CONTENT_TYPE), _der(_SET, _oid(_INDIRECT_DATA))),
        _der(_SEQUENCE, _oid(_MESSAGE_DIGEST), _der(_SET, _der(_OCTETS, hashlib.sha256(content).digest()))),
    ))  # fmt: skip
    number = signer.serial.to_bytes(signer.serial.bit_length() // 8 + 1, "big")
    one = _der(_INTEGER, b"\1")
    info = _der(
        _SEQUENCE, one, _der(_SEQUENCE, signer.issuer, _der(_INTEGER, number)), sha256, _der(0xA0, *attributes),
        _der(_SEQUENCE, _oid(_RSA), _NULL), _der(_OCTETS, signer.sign(_der(_SET, *attributes))),
    )  # fmt: skip
    data = _der(
        _SEQUENCE, one, _der(_SET, sha256),
        _der(_SEQUENCE, _oid(_INDIRECT_DATA), _der(0xA0, _der(_SEQUENCE, content))),
        _der(0xA0, signer.certificate), _der(_SET, info),
    )  # fmt: skip
    return _der(_SEQUENCE, _oid(_SIGNED_DATA), _der(0xA0, data))


def _der(tag: int, *parts: bytes) -> bytes:
    """A value with its tag and length."""
    content = b"".join(parts)
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    count = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(count)]) + count + content


def _oid(text: str) -> bytes:
    first, second, *rest = (int(n) for n in text.split("."))
    out = bytearray([first * 40 + second])
    for number in rest:
        group = [number & 0x7F]
        while number := number >> 7:
            group.append(number & 0x7F | 0x80)
        out += bytes(reversed(group))
    return _der(_OID, bytes(out))
