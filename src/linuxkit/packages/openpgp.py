"""What an OpenPGP signature and a key say of themselves: how they were made, until when they hold. RFC 9580, RFC 4880.

Verifiers differ in what they take: gpgv calls a signature by an expired key valid, others go by a policy of their own.
So the rules are here, the same for all, and are apt's: no MD5, SHA-1 or RIPEMD-160, no signature and no key that has
expired, no key that was revoked, no RSA below 2048 bits and no DSA. Whether a signature is genuine is the verifier's to
say; only what the signer has signed (the hashed area) counts here.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

#: Hash algorithms that nothing is believed by (section 9.5).
WEAK = {1: "MD5", 2: "SHA-1", 3: "RIPEMD-160"}
STRONG = {8, 9, 10, 11, 12, 14}  # SHA-256, -384, -512, -224, SHA3-256, -512
RSA, ECC = {1, 3}, {19, 22, 27, 28}
MIN_RSA = 2048
MAX_PACKETS = 10_000
_SKEW = 24 * 3600  # seconds that a signer's clock may be ahead of ours
SIGNATURE, PUBLIC_KEY, SUBKEY = 2, 6, 14
DOCUMENT = {0, 1}  # types of signatures of data
SELF = {0x10, 0x11, 0x12, 0x13, 0x1F}  # of a key about itself
DIRECT, BINDING, REVOKED, SUBKEY_REVOKED = 0x1F, 0x18, 0x20, 0x28


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature packet. Times are seconds since 1970; `lasts` and `key_lasts` since the start, 0 for ever."""

    kind: int
    key_algorithm: int
    hash_algorithm: int
    made: int
    lasts: int = 0
    key_lasts: int = 0
    issuers: tuple[str, ...] = ()  # fingerprints or key ids, hex, upper case


@dataclass(slots=True)
class Facts:
    """A primary key or subkey: its fingerprint, and what it says of itself."""

    fingerprint: str
    algorithm: int
    bits: int
    made: int
    lasts: int = 0
    latest: int = -1  # when the self-signature was made that `lasts` is from
    revoked: bool = False


def packets(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """(tag, content, the whole packet) of each packet. Raises ValueError: it is damaged."""
    at = count = 0
    while at < len(data):
        start, head = at, data[at]
        count += 1
        if not head & 0x80 or count > MAX_PACKETS:
            raise ValueError("no packet")
        if head & 0x40:
            tag, first = head & 0x3F, _byte(data, at + 1)
            if first < 192:
                size, at = first, at + 2
            elif first < 224:
                size, at = ((first - 192) << 8) + _byte(data, at + 2) + 192, at + 3
            elif first == 255:
                size, at = int.from_bytes(_take(data, at + 2, 4), "big"), at + 6
            else:
                raise ValueError("a packet in parts")
        else:
            tag, kind = head >> 2 & 15, head & 3
            if kind == 3:
                raise ValueError("a packet without an end")
            wide = 1 << kind
            size, at = int.from_bytes(_take(data, at + 1, wide), "big"), at + 1 + wide
        content = _take(data, at, size)
        at += size
        yield tag, content, data[start:at]


def signature(body: bytes) -> Signature:
    """Read a signature packet of version 4 or 6. Raises ValueError: another one, or damaged."""
    version = _byte(body, 0)
    if version not in (4, 6):
        raise ValueError(f"a signature of version {version}")
    wide = 2 if version == 4 else 4
    size = int.from_bytes(_take(body, 4, wide), "big")
    made = lasts = key_lasts = -1
    issuers: list[str] = []
    for kind, value in _subpackets(_take(body, 4 + wide, size)):
        if kind in (2, 3, 9) and len(value) != 4:
            raise ValueError("a time of another size")
        number = int.from_bytes(value, "big")
        if kind == 2:
            made = number
        elif kind == 3:
            lasts = number if lasts <= 0 else min(lasts, number or lasts)
        elif kind == 9:
            key_lasts = number
        elif kind == 33:
            issuers.append(value[1:].hex().upper())
        elif kind == 16:
            issuers.append(value.hex().upper())
    if made < 0:
        raise ValueError("a signature without a time")
    rest = 4 + wide + size
    loose = int.from_bytes(_take(body, rest, wide), "big")
    for kind, value in _subpackets(_take(body, rest + wide, loose)):  # a hint only: it was not signed
        if kind in (16, 33):
            issuers.append(value[kind == 33 :].hex().upper())
    return Signature(body[1], body[2], body[3], made, max(lasts, 0), max(key_lasts, 0), tuple(issuers))


def keys(data: bytes) -> list[Facts]:
    """The keys in binary key material, with what they say of themselves. Raises ValueError: it is damaged."""
    import hashlib

    found: list[Facts] = []
    primary: Facts | None = None
    for tag, body, _ in packets(data):
        if tag in (PUBLIC_KEY, SUBKEY):
            if _byte(body, 0) != 4:
                raise ValueError("a key of another version than 4")
            name = hashlib.sha1(b"\x99" + len(body).to_bytes(2, "big") + body, usedforsecurity=False).hexdigest()
            bits = int.from_bytes(_take(body, 6, 2), "big") if body[5] in RSA else 0
            found.append(Facts(name.upper(), _byte(body, 5), bits, int.from_bytes(body[1:5], "big")))
            primary = found[-1] if tag == PUBLIC_KEY else primary
        elif tag == SIGNATURE and found and primary is not None:
            try:
                one = signature(body)
            except ValueError:
                continue
            _note(one, primary, found[-1])
    return found


def _note(one: Signature, primary: Facts, last: Facts) -> None:
    own = not one.issuers or any(primary.fingerprint.endswith(name) for name in one.issuers)
    if not own:
        return  # somebody else's, about the key
    if one.kind in (REVOKED, SUBKEY_REVOKED):
        (primary if one.kind == REVOKED else last).revoked = True
    if one.kind == DIRECT and not one.key_lasts:
        return  # about something else, such as who may revoke the key
    target = primary if one.kind in SELF and last is primary else last if one.kind == BINDING else None
    if target is not None and one.made > target.latest:
        target.latest, target.lasts = one.made, one.key_lasts


def judge(one: Signature, known: Mapping[str, tuple[Facts, Facts]], now: datetime) -> str:
    """Why a signature of data does not count, whoever made it; empty when that is the verifier's to say.

    Args:
        known: fingerprint → (key, its primary key) of the keys that are trusted.
    """
    seconds = now.timestamp()
    if one.kind not in DOCUMENT:
        return "it is no signature of a file"
    if one.hash_algorithm not in STRONG:
        return f"made with {WEAK.get(one.hash_algorithm, f'the hash algorithm {one.hash_algorithm}')}"
    if one.made > seconds + _SKEW:
        return "made in the future: is this machine's clock right?"
    if one.lasts and one.made + one.lasts <= seconds:
        return "it has expired"
    made_by = [pair for name, pair in known.items() if any(name.endswith(i) for i in one.issuers)]
    if not made_by:
        return "made by a key that we do not know"
    for key, primary in made_by:
        for part in dict.fromkeys((key.fingerprint, primary.fingerprint)):
            which = key if part == key.fingerprint else primary
            if fault := _key_fault(which, seconds):
                return f"its key {which.fingerprint} {fault}"
    return ""


def _key_fault(key: Facts, seconds: float) -> str:
    if key.revoked:
        return "was revoked"
    if key.lasts and key.made + key.lasts <= seconds:
        return "has expired"
    if key.algorithm in RSA and key.bits < MIN_RSA:
        return f"has {key.bits} bits"
    return "" if key.algorithm in RSA | ECC else f"is of a kind that is not trusted ({key.algorithm})"


def ring(materials: Sequence[bytes]) -> dict[str, tuple[Facts, Facts]]:
    """Fingerprint → (key, its primary key) of all keys and subkeys. Raises ValueError: one is damaged."""
    found = {}
    for data in materials:
        primary: Facts | None = None
        tags = [tag for tag, _, _ in packets(data) if tag in (PUBLIC_KEY, SUBKEY)]
        for tag, key in zip(tags, keys(data), strict=True):
            primary = key if tag == PUBLIC_KEY or primary is None else primary
            found[key.fingerprint] = key, primary
    return found


def armour(kind: str, data: bytes) -> bytes:
    """The ASCII form, without the checksum, which is optional (section 6.1)."""
    text = base64.b64encode(data)
    lines = b"\n".join(text[n : n + 64] for n in range(0, len(text), 64))
    return b"-----BEGIN PGP %b-----\n\n%b\n-----END PGP %b-----\n" % (kind.encode(), lines, kind.encode())


def _subpackets(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(data):
        first = data[at]
        if first < 192:
            size, at = first, at + 1
        elif first < 255:
            size, at = ((first - 192) << 8) + _byte(data, at + 1) + 192, at + 2
        else:
            size, at = int.from_bytes(_take(data, at + 1, 4), "big"), at + 5
        content = _take(data, at, size)
        if not content:
            raise ValueError("an empty subpacket")
        yield content[0] & 0x7F, content[1:]
        at += size


def _byte(data: bytes, at: int) -> int:
    return _take(data, at, 1)[0]


def _take(data: bytes, at: int, size: int) -> bytes:
    found = data[at : at + size]
    if len(found) != size:
        raise ValueError("it ends early")
    return found
