"""Alpine's packages and indexes, read without apk: gzip members end to end, of which the first is a signature.

    NAME.apk          ┌─ gzip: tar with .SIGN.RSA[256|512].KEY       over the bytes of the second member
                      ├─ gzip: tar with .PKGINFO                     has the SHA-256 of the third ("datahash")
                      └─ gzip: tar with the files
    APKINDEX.tar.gz   ┌─ gzip: tar with .SIGN.…                      over the bytes of the second member
                      └─ gzip: tar with APKINDEX                     has Q1 + base64 of the SHA-1 of a package's second

apk-package(5), apk v2 format. A signature names its key; the key's file has that name.
"""

from __future__ import annotations

import base64
import hashlib
import io
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from linuxkit.entry import Entry, Kind
from linuxkit.errors import ImageError
from linuxkit.oci.tarread import read_tar
from linuxkit.packages import deb
from linuxkit.packages.rsa import PublicKey

MAX_SIGNATURE = 1 << 20  # bytes of the tar with signatures
MAX_CONTROL = 16 << 20  # of a package's tar of metadata
MAX_INDEX = 96 << 20  # of an unpacked index
_CHUNK = 1 << 18
_SIGNS = {".SIGN.RSA.": "sha1", ".SIGN.RSA256.": "sha256", ".SIGN.RSA512.": "sha512"}

Keys = Mapping[str, PublicKey]  # by the name of the key's file


class _Members:
    """The gzip members of a stream, one after the other, with the digests of their own bytes."""

    def __init__(self, stream: BinaryIO, where: str) -> None:
        self._stream, self._where = stream, where
        self._rest = b""
        self._start = 0  # of the member that comes next

    def offset(self) -> int:
        """Where the next member starts."""
        return self._start

    def read(self, limit: int) -> tuple[bytes, bytes]:
        """(bytes of the next member, what they unpack to).

        Raises:
            ImageError: none, damaged, or more than `limit`.
        """
        decoder = zlib.decompressobj(31)
        raw, out = bytearray(), bytearray()
        try:
            while not decoder.eof:
                piece = self._rest or self._stream.read(_CHUNK)
                self._rest = b""
                if not piece:
                    raise ImageError(f"{self._where}: cut short")
                raw += piece
                while piece:
                    out += decoder.decompress(piece, _CHUNK)
                    piece = decoder.unconsumed_tail
                    if len(out) > limit or len(raw) > limit + _CHUNK:
                        raise ImageError(f"{self._where}: a part of it is larger than {limit} bytes")
        except zlib.error as e:
            raise ImageError(f"{self._where}: damaged: {e}") from e
        self._rest = decoder.unused_data
        if self._rest:
            del raw[-len(self._rest) :]
        self._start += len(raw)
        return bytes(raw), bytes(out)


def read_index(data: bytes, keys: Keys, where: str) -> bytes:
    """The text of a signed index.

    Args:
        data: APKINDEX.tar.gz.
        where: what it is, for messages.

    Raises:
        ImageError: not signed by one of the keys, damaged, or hostile.
    """
    members = _Members(io.BytesIO(data), where)
    signatures = _tar(_start(members, where)[1], where)
    signed = data[members.offset() :]
    _verify(signatures, signed, keys, where)
    _, plain = members.read(MAX_INDEX)
    found = _tar(plain, where)
    if "APKINDEX" not in found:
        raise ImageError(f"{where}: there is no APKINDEX in it")
    return found["APKINDEX"]


def check(path: Path, checksum: str, keys: Keys) -> dict[str, str]:
    """Verify a whole package: its signature, its metadata against the index, its files against its metadata.

    Args:
        checksum: what the index says: Q1 and the SHA-1 of the metadata in base64.

    Returns:
        .PKGINFO, the last of equal keys.

    Raises:
        ImageError: something does not fit; the message has both values.
    """
    where = path.name
    with path.open("rb") as stream:
        members = _Members(stream, where)
        signatures = _tar(_start(members, where)[1], where)
        raw, plain = members.read(MAX_CONTROL)
        actual = f"Q1{base64.b64encode(hashlib.sha1(raw, usedforsecurity=False).digest()).decode()}"
        if actual != checksum:
            raise ImageError(f"{where}: its metadata has the checksum {actual}, and the index says {checksum}",
                             hint="try again; a mirror in the middle of an update can answer so")  # fmt: skip
        _verify(signatures, raw, keys, where)
        info = _info(_tar(plain, where).get(".PKGINFO", b""), where)
        stream.seek(members.offset())
        digest = hashlib.file_digest(stream, "sha256").hexdigest()  # of the rest of the file
    if digest != info.get("datahash", ""):
        raise ImageError(f"{where}: its files have the digest {digest}, and its metadata says "
                         f"{info.get('datahash', 'nothing')}")  # fmt: skip
    return info


def unpack(path: Path, spool: Path, *, limit: int = deb.LIMIT) -> dict[str, Entry]:
    """The nodes of a package that `check` has passed, their content in `spool`, which is written as a plain tar.

    Raises:
        ImageError: damaged, too large, or a name that leaves its root.
    """
    with path.open("rb") as stream, spool.open("wb") as out:
        members = _Members(stream, path.name)
        members.read(MAX_SIGNATURE)
        members.read(MAX_CONTROL)
        stream.seek(members.offset())
        written = 0
        for piece in _inflated(stream, path.name):
            written += len(piece)
            if written > limit:
                raise ImageError(f"{path.name}: unpacks to more than {limit} bytes")
            out.write(piece)
    return deb.nodes(spool, path.name)


def _inflated(stream: BinaryIO, where: str) -> Iterator[bytes]:
    decoder = zlib.decompressobj(31)
    try:
        while piece := stream.read(_CHUNK):
            while piece:
                if decoder.eof:
                    decoder = zlib.decompressobj(31)
                yield decoder.decompress(piece, _CHUNK * 4)
                piece = decoder.unconsumed_tail or decoder.unused_data
    except zlib.error as e:
        raise ImageError(f"{where}: damaged: {e}") from e
    if not decoder.eof:
        raise ImageError(f"{where}: cut short")


def _start(members: _Members, where: str) -> tuple[bytes, bytes]:
    """The first member, which has to be the signature."""
    try:
        return members.read(MAX_SIGNATURE)
    except ImageError as e:
        e.hint = e.hint or "it has to be in apk's format v2, which starts with a signature"
        raise


def _tar(data: bytes, where: str) -> dict[str, bytes]:
    """The files of a small tar, which may lack its end."""
    plain = data + bytes(-len(data) % 512)
    return {row.path: data[row.offset : row.offset + row.size]
            for row in read_tar(memoryview(plain), where) if row.kind == Kind.FILE}  # fmt: skip


def _verify(signatures: Mapping[str, bytes], signed: bytes, keys: Keys, where: str) -> None:
    named = []
    for name, signature in signatures.items():
        for prefix, algorithm in _SIGNS.items():
            if name.startswith(prefix):
                key = name.removeprefix(prefix)
                named.append(key)
                digest = hashlib.new(algorithm, signed, usedforsecurity=False).digest()
                if key in keys and keys[key].verify(algorithm, digest, signature):
                    return
    if not named:
        raise ImageError(f"{where} is not signed", hint="it has to be in apk's format v2, as abuild-sign leaves it")
    known = [name for name in named if name in keys]
    if known:
        raise ImageError(f"{where}: the signature by {', '.join(known)} is not over what it holds")
    raise ImageError(f"{where} is signed by {', '.join(named)}, and trusted are {', '.join(sorted(keys)) or 'none'}",
                     hint="give the folder with the right keys: --alpine-keys DIR")  # fmt: skip


def _info(data: bytes, where: str) -> dict[str, str]:
    found = {}
    for line in data.decode("utf-8", "replace").splitlines():
        name, mark, value = line.partition("=")
        if mark and not line.startswith("#"):
            found[name.strip()] = value.strip()
    if "pkgname" not in found or "pkgver" not in found:
        raise ImageError(f"{where}: there is no .PKGINFO in it")
    return found
