"""Debian packages, ELF files, kernel modules and a signed archive, made here from their specifications."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import lzma
import struct
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from support.images import directory, member, tar_of

# -- packages (deb(5))


def ar_of(*members: tuple[str, bytes]) -> bytes:
    out = b"!<arch>\n"
    for name, data in members:
        out += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode() + data + b"\n" * (len(data) % 2)
    return out


def packed(data: bytes, ending: str) -> bytes:
    if ending == ".xz":
        return lzma.compress(data)
    if ending == ".gz":
        return gzip.compress(data, mtime=0)
    if ending == ".zst":
        try:
            from compression import zstd
        except ImportError:
            from backports import zstd
        return zstd.compress(data)
    return data


def deb_of(*members: tuple[tarfile.TarInfo, bytes], ending: str = ".xz") -> bytes:
    """A package whose data tar has these members, as dpkg writes them: `./` in front."""
    for info, _ in members:
        info.name = f"./{info.name}"
    return ar_of(
        ("debian-binary", b"2.0\n"),
        (f"control.tar{ending}", packed(tar_of(member("./control", b"Package: x\n")), ending)),
        (f"data.tar{ending}", packed(tar_of(*members, format=tarfile.GNU_FORMAT), ending)),
    )


# -- ELF


def elf_of(
    *, interpreter: str = "", needed: Sequence[str] = (), soname: str = "", runpath: str = "", machine: int = 62,
    wide: bool = True, big: bool = False, symbols: Sequence[str] = (),
) -> bytes:  # fmt: skip
    """A program or library with nothing in it but what it asks for."""
    order = ">" if big else "<"
    strings = b"\0"
    tags = []
    wanted = [*((1, name) for name in needed), *((tag, text) for tag, text in ((14, soname), (29, runpath)) if text)]
    for tag, text in wanted:
        tags.append((tag, len(strings)))
        strings += text.encode() + b"\0"
    strings += b"".join(name.encode() + b"\0" for name in symbols)
    head, entry = (64, 56) if wide else (52, 32)
    pair = struct.Struct(order + ("qQ" if wide else "iI"))
    count = 3 if interpreter else 2
    at = head + entry * count
    inner = interpreter.encode() + b"\0"
    strings_at = at + len(inner)
    dynamic_at = strings_at + len(strings)
    base = 0x10000  # the string table is named by address, not by offset
    tags += [(5, base + strings_at), (10, len(strings)), (0, 0)]
    dynamic = b"".join(pair.pack(*tag) for tag in tags)
    total = dynamic_at + len(dynamic)

    def header(kind: int, offset: int, size: int) -> bytes:
        if wide:
            return struct.pack(order + "IIQQQQQQ", kind, 4, offset, base + offset, 0, size, size, 1)
        return struct.pack(order + "IIIIIIII", kind, offset, base + offset, 0, size, size, 4, 1)

    ident = b"\x7fELF" + bytes([2 if wide else 1, 2 if big else 1, 1]) + bytes(9)
    fields = (3, machine, 1, 0, head, 0, 0, head, entry, count, 0, 0, 0)
    out = ident + struct.pack(order + ("HHIQQQIHHHHHH" if wide else "HHIIIIIHHHHHH"), *fields)
    out += header(1, 0, total) + header(2, dynamic_at, len(dynamic))
    if interpreter:
        out += header(3, at, len(inner))
    return out + inner + strings + dynamic


def module_of(*, depends: str = "", alias: Sequence[str] = (), softdep: Sequence[str] = ()) -> bytes:
    """A kernel module that is nothing but its .modinfo."""
    texts = ["license=GPL", *(f"alias={a}" for a in alias), f"depends={depends}", *(f"softdep={s}" for s in softdep)]
    info = b"".join(text.encode() + b"\0" for text in texts)
    names = b"\0.modinfo\0.shstrtab\0"
    info_at, names_at = 64, 64 + len(info)
    table_at = names_at + len(names)

    def section(name: int, kind: int, offset: int, size: int) -> bytes:
        return struct.pack("<IIQQQQIIQQ", name, kind, 0, 0, offset, size, 0, 0, 1, 0)

    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    head = ident + struct.pack("<HHIQQQIHHHHHH", 1, 62, 1, 0, 0, table_at, 0, 64, 0, 0, 64, 3, 2)
    table = section(0, 0, 0, 0) + section(1, 1, info_at, len(info)) + section(10, 3, names_at, len(names))
    return head + info + names + table


# -- OpenPGP signatures (RFC 9580), version 4, RSA


def _prime(seed: bytes) -> int:
    """The first probable prime above a 1024-bit number made from a seed. Fit for tests and for nothing else."""
    drawn = b"".join(hashlib.sha512(seed + bytes([i])).digest() for i in range(2))
    candidate = int.from_bytes(drawn, "big") | 1 | 3 << 1022
    while any(candidate % p == 0 for p in (3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)) or any(
        pow(base, candidate - 1, candidate) != 1 for base in (2, 3)
    ):
        candidate += 2
    return candidate


def _packet(tag: int, body: bytes) -> bytes:
    return bytes([0xC0 | tag, 0xFF]) + len(body).to_bytes(4, "big") + body


def _mpi(value: int) -> bytes:
    return value.bit_length().to_bytes(2, "big") + value.to_bytes((value.bit_length() + 7) // 8, "big")


def _sub(kind: int, body: bytes) -> bytes:
    return bytes([len(body) + 1, kind]) + body


def armour(kind: str, data: bytes) -> bytes:
    text = base64.encodebytes(data).decode()
    return f"-----BEGIN PGP {kind}-----\n\n{text}-----END PGP {kind}-----\n".encode()


#: Name → number in OpenPGP, and what stands before a digest in a signature (PKCS #1).
_HASHES = {
    "sha256": (8, "3031300d060960864801650304020105000420"), "sha1": (2, "3021300906052b0e03021a05000414"),
    "md5": (1, "3020300c06082a864886f70d020505000410"), "ripemd160": (3, "3021300906052b2403020105000414"),
    "sha512": (10, "3051300d060960864801650304020305000440"),
}  # fmt: skip


class Signer:
    """A key that signs. The same seed is the same key."""

    BORN = 1_700_000_000

    def __init__(self, seed: str, *, lasts: int = 0, revoked: bool = False) -> None:
        self._lasts, self._revoked = lasts, revoked
        p, q = _prime(seed.encode() + b"p"), _prime(seed.encode() + b"q")
        self._n, self._e = p * q, 65537
        self._d = pow(self._e, -1, (p - 1) * (q - 1))
        self._body = b"\x04" + self.BORN.to_bytes(4, "big") + b"\x01" + _mpi(self._n) + _mpi(self._e)
        self._framed = b"\x99" + len(self._body).to_bytes(2, "big") + self._body
        self._id = hashlib.sha1(self._framed).digest()
        self.fingerprint = self._id.hex().upper()

    def _signature(self, kind: int, signed: bytes, when: int, *, hash: str = "sha256", lasts: int = 0) -> bytes:
        hashed = _sub(2, when.to_bytes(4, "big")) + _sub(33, b"\x04" + self._id)
        if kind == 0x13:
            hashed += _sub(27, b"\x03")
            if self._lasts:
                hashed += _sub(9, self._lasts.to_bytes(4, "big"))
        if lasts:
            hashed += _sub(3, lasts.to_bytes(4, "big"))
        number, prefix = _HASHES[hash]
        head = bytes([4, kind, 1, number]) + len(hashed).to_bytes(2, "big") + hashed
        digest = hashlib.new(hash, signed + head + b"\x04\xff" + len(head).to_bytes(4, "big")).digest()
        size = (self._n.bit_length() + 7) // 8
        info = bytes.fromhex(prefix) + digest
        block = b"\x00\x01" + b"\xff" * (size - len(info) - 3) + b"\x00" + info
        value = pow(int.from_bytes(block, "big"), self._d, self._n)
        loose = _sub(16, self._id[-8:])
        return _packet(2, head + len(loose).to_bytes(2, "big") + loose + digest[:2] + _mpi(value))

    def public_key(self) -> bytes:
        name = b"Test archive <test@example.invalid>"
        bound = self._framed + b"\xb4" + len(name).to_bytes(4, "big") + name
        revoked = self._signature(0x20, self._framed, self.BORN + 1) if self._revoked else b""
        return armour("PUBLIC KEY BLOCK", _packet(6, self._body) + revoked + _packet(13, name)
                      + self._signature(0x13, bound, self.BORN))  # fmt: skip

    def clearsign(self, text: bytes, *others: Signer, **options: Any) -> bytes:
        """`text` as an InRelease file is: in the clear, with the signatures behind it, those of `others` first.

        Args:
            options: of our own signature: `hash` and, in seconds, `lasts`.
        """
        text = text.rstrip(b"\n")
        signed = text.replace(b"\n", b"\r\n")
        signature = b"".join(one._signature(1, signed, self.BORN + 60) for one in others)
        signature += self._signature(1, signed, self.BORN + 60, **options)
        escaped = b"\n".join(b"- " + line if line.startswith(b"-") else line for line in text.split(b"\n"))
        head = b"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n"
        return head + escaped + b"\n" + armour("SIGNATURE", signature)


@cache
def signer(seed: str, **options: Any) -> Signer:
    """A key, made once: looking for primes takes a second. `lasts`: seconds of its life; `revoked`."""
    return Signer(seed, **options)


# -- an archive


@dataclass
class FakeArchive:
    """A Debian archive in a folder, the way mirrors lay it out."""

    root: Path
    signer: Signer
    component: str = "main"
    until: str = ""  # Valid-Until
    date: str = "Tue, 14 Nov 2023 22:13:20 UTC"
    by_hash: bool = True
    packages: dict[str, list[tuple[dict[str, str], bytes]]] = field(default_factory=dict)  # suite → (fields, file)

    def add(self, name: str, data: bytes, *, suite: str = "trixie", version: str = "1.0", arch: str = "amd64",
            section: str = "admin", **fields: str) -> None:  # fmt: skip
        path = f"pool/main/{name[0]}/{name}/{name}_{version.replace(':', '%3a')}_{arch}.deb"
        stanza = {
            "Package": name, "Version": version, "Architecture": arch, "Section": section,
            **{k.replace("_", "-"): v for k, v in fields.items()},
            "Filename": path, "Size": str(len(data)), "SHA256": hashlib.sha256(data).hexdigest(),
        }  # fmt: skip
        self.packages.setdefault(suite, []).append((stanza, data))
        target = self.root / "debian" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)

    def write(self, arch: str = "amd64") -> None:
        """Write the indexes and sign them."""
        for base, suite in (("debian", "trixie"), ("debian", "trixie-updates"), ("debian-security", "trixie-security")):
            text = "\n".join(
                "".join(f"{k}: {v}\n" for k, v in stanza.items()) for stanza, _ in self.packages.get(suite, [])
            ).encode()
            dists = self.root / base / "dists" / suite
            lists = dists / f"{self.component}/binary-{arch}"
            lists.mkdir(parents=True, exist_ok=True)
            squeezed = lzma.compress(text)
            (lists / "Packages.xz").write_bytes(squeezed)
            hashed = lists / "by-hash/SHA256" / hashlib.sha256(squeezed).hexdigest()
            hashed.parent.mkdir(parents=True, exist_ok=True)
            hashed.write_bytes(squeezed)
            (dists / "InRelease").write_bytes(self.signer.clearsign(self.release(suite, arch, text, squeezed)))

    def release(self, suite: str, arch: str, text: bytes, squeezed: bytes) -> bytes:
        rows = "".join(
            f" {hashlib.sha256(data).hexdigest()} {len(data)} {self.component}/binary-{arch}/{name}\n"
            for name, data in (("Packages", text), ("Packages.xz", squeezed))
        )
        head = f"Origin: Test\nSuite: stable\nCodename: {suite}\n"
        head += f"Date: {self.date}\n" if self.date else ""
        head += f"Valid-Until: {self.until}\n" if self.until else ""
        head += "Acquire-By-Hash: yes\n" if self.by_hash else ""
        return f"{head}Components: {self.component}\nArchitectures: {arch}\nSHA256:\n{rows}".encode()


def program_deb(name: str, files: Mapping[str, bytes]) -> bytes:
    """A package with some programs and its copyright file."""
    members = [directory("usr"), *(member(path, data, mode=0o755) for path, data in files.items())]
    members.append(member(f"usr/share/doc/{name}/copyright", f"Copyright of {name}\n".encode()))
    members.append(member(f"usr/share/man/man1/{name}.1", b"a manual page\n"))
    return deb_of(*members)


def read_tar(data: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {m.name: m for m in tar.getmembers()}


def unzstd(data: bytes) -> bytes:
    try:
        from compression import zstd
    except ImportError:
        from backports import zstd
    return zstd.decompress(data)
