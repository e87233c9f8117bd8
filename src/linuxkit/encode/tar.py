"""tar archives in the POSIX pax format. Written, not read.

Specification: POSIX.1-2008, pax(1), "pax Interchange Format" and "ustar Interchange Format".

    archive = { [ header 'x', records ] header, data } two zero blocks        blocks of 512 bytes
    record  = length " " keyword "=" value "\\n"

A *run* of members carries no closing zeros, so that runs can stand end to end. The records LINUXKIT.source and
LINUXKIT.location say which input a member came from; SCHILY.xattr.* are its extended attributes, as GNU tar, bsdtar and
Go read them.
"""

from __future__ import annotations

from collections.abc import Iterable

from linuxkit.encode import fields
from linuxkit.encode.content import CHUNK, Reader, Sink
from linuxkit.entry import Entry, Kind
from linuxkit.errors import ImageError

#: Goes into cache keys: raise it when the bytes written for the same entries change.
VERSION = 1
#: What closes an archive.
END = bytes(1024)
_TYPES = {
    Kind.FILE: b"0", Kind.HARDLINK: b"1", Kind.SYMLINK: b"2", Kind.CHAR: b"3", Kind.BLOCK: b"4", Kind.DIRECTORY: b"5",
    Kind.FIFO: b"6",
}  # fmt: skip
_ZEROS = bytes(512)
_MAX_ID = 0o7777777
_MAX_OWNER = (1 << 62) - 1  # by a pax record; Linux itself has 32 bits
_MAX_OCTAL = 0o77777777777  # 11 digits: sizes and times


def write(entries: Iterable[Entry], out: Sink) -> int:
    """Write a run of members, without the closing zeros, and return its length in bytes. Implied ones are left out.

    Raises:
        ImageError: a source ended early, or an entry that Linux, or the format, can't have.
    """
    pending = bytearray()
    total = 0
    extended: dict[bytes, bytes] = {}  # pax records → the blocks that carry them: most members share theirs
    with Reader() as reader:
        for entry in entries:
            if entry.implied:
                continue
            pending += _member(entry, extended)
            if entry.kind is Kind.FILE and entry.source is not None:
                for piece in reader.pieces(entry.source):
                    pending += piece
                    if len(pending) >= CHUNK:
                        out.write(bytes(pending))
                        total += len(pending)
                        pending.clear()
                pending += _ZEROS[: -(total + len(pending)) % 512]
    out.write(bytes(pending))
    return total + len(pending)


def member_header(entry: Entry) -> bytes:
    """The blocks that stand before a member's data."""
    return _member(entry, {})


def _member(entry: Entry, extended: dict[bytes, bytes]) -> bytes:
    fields.checked(entry, _MAX_OWNER)
    records: list[tuple[bytes, bytes]] = []
    path = entry.path + "/" if entry.kind is Kind.DIRECTORY else entry.path
    target = entry.target if entry.kind in (Kind.SYMLINK, Kind.HARDLINK) else ""
    prefix, name = _place(path, b"path", records)
    link = _text(target, 100, b"linkpath", records)
    uid, gid = (_number(n, _MAX_ID, key, records) for n, key in ((entry.uid, b"uid"), (entry.gid, b"gid")))
    size = _number(entry.size, _MAX_OCTAL, b"size", records)
    mtime = _number(entry.mtime, _MAX_OCTAL, b"mtime", records)
    source, location = entry.origin
    for key, value in ((b"LINUXKIT.location", location), (b"LINUXKIT.source", source)):
        if value:
            records.append((key, value.encode("utf-8", "surrogateescape")))
    if any("=" in name for name, _ in entry.xattrs):
        raise ImageError(f"{entry.path[:200]!r}: a tar can't hold an attribute with an equals sign in its name")
    records += [(b"SCHILY.xattr." + n.encode("utf-8", "surrogateescape"), v) for n, v in entry.xattrs]
    major, minor = entry.device
    header = _ustar(name, entry.mode & 0o7777, uid, gid, size, mtime, _TYPES[entry.kind], link, major, minor, prefix)
    if not records:
        return header
    body = b"".join(_record(key, value) for key, value in sorted(records))
    blocks = extended.get(body)
    if blocks is None:
        blocks = _ustar(b"PaxHeaders.0/member", 0o644, 0, 0, len(body), 0, b"x", b"", 0, 0, b"")
        blocks += body + _ZEROS[: -len(body) % 512]
        if len(extended) < 1000:
            extended[body] = blocks
    return blocks + header


def _place(path: str, key: bytes, records: list[tuple[bytes, bytes]]) -> tuple[bytes, bytes]:
    """A path as ustar's (prefix, name), with a pax record where it doesn't fit."""
    raw = path.encode("utf-8", "surrogateescape")
    if len(raw) <= 100 and raw.isascii():
        return b"", raw
    if raw.isascii() and len(raw) <= 256:
        cut = raw.rfind(b"/", 0, 156)
        while cut > 0:
            if len(raw) - cut - 1 > 100:
                break
            if cut <= 155 and raw[cut + 1 :]:
                return raw[:cut], raw[cut + 1 :]
            cut = raw.rfind(b"/", 0, cut)
    return b"", _text(path, 100, key, records)


def _text(text: str, limit: int, key: bytes, records: list[tuple[bytes, bytes]]) -> bytes:
    """A text for a header field of `limit` bytes; the whole of it as a pax record when it is long or not ASCII."""
    raw = text.encode("utf-8", "surrogateescape")
    if len(raw) <= limit and raw.isascii():
        return raw
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        if len(raw) <= limit:
            return raw  # bytes as they are: readers take a header field for what it holds
        records.append((b"hdrcharset", b"BINARY"))
    records.append((key, raw))
    return raw[:limit]


def _number(value: int, limit: int, key: bytes, records: list[tuple[bytes, bytes]]) -> int:
    if 0 <= value <= limit:
        return value
    records.append((key, b"%d" % value))
    return 0


def _record(key: bytes, value: bytes) -> bytes:
    """`length key=value`, where the length counts its own digits."""
    bare = len(key) + len(value) + 3  # blank, equals sign, newline
    length = bare + len(str(bare))
    length = bare + len(str(length))
    return b"%d %b=%b\n" % (length, key, value)


def _ustar(
    name: bytes, mode: int, uid: int, gid: int, size: int, mtime: int, kind: bytes, link: bytes, major: int, minor: int,
    prefix: bytes,
) -> bytes:  # fmt: skip
    for value in (mode, uid, gid, major, minor):  # `%07o` widens for what is larger, and shifts all behind it
        fields.number(value, 21)
    block = b"%b%07o\0%07o\0%07o\0%011o\0%011o\0        %b%bustar\00000%b%07o\0%07o\0%b" % (
        fields.text(name, 100), mode, uid, gid, fields.number(size, 33), fields.number(mtime, 33), kind,
        fields.text(link, 100), _ZEROS[:64], major, minor, fields.text(prefix, 155) + _ZEROS[:12],
    )  # fmt: skip
    return b"%b%06o\0 %b" % (block[:148], sum(block), block[156:])
