"""Rock Ridge: the POSIX side of a directory record on an ISO 9660 volume.

Specifications: IEEE P1281 (SUSP 1.12), IEEE P1282 (RRIP 1.12).

    record = directory record, then in its system use field     SP   only in the root's own record: the protocol is used
             entries of: signature(2) length(1) version(1) …     ER   the same: which extension
                                                                 PX   mode, links, owner, inode
                                                                 TF   times        PN  device number
                                                                 NM   name         SL  symlink
                                                                 CE   the rest is elsewhere

A record has room for 255 bytes, so long names and links go on in a continuation area. An entry has at most 255 bytes
and is never split; a name or a link is split over several entries.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import lru_cache

from linuxkit.encode import fields
from linuxkit.entry import Entry, Kind
from linuxkit.errors import FieldError

CE_SIZE = 28
_NAME_MAX, _LINK_MAX = 250, 250  # of one entry
_TYPES = {
    Kind.FILE: 0o100000, Kind.DIRECTORY: 0o040000, Kind.SYMLINK: 0o120000, Kind.CHAR: 0o020000,
    Kind.BLOCK: 0o060000, Kind.FIFO: 0o010000,
}  # fmt: skip
_EXTENSION = (
    b"IEEE_1282", b"THE IEEE 1282 PROTOCOL PROVIDES SUPPORT FOR POSIX FILE SYSTEM SEMANTICS",
    b"PLEASE CONTACT THE IEEE STANDARDS DEPARTMENT, PISCATAWAY, NJ, USA FOR THE 1282 SPECIFICATION",
)  # fmt: skip


def both16(value: int) -> bytes:
    """A number in both byte orders (ECMA-119, 7.2.3)."""
    return fields.pack("<H", value) + fields.pack(">H", value)


def both32(value: int) -> bytes:
    """A number in both byte orders (ECMA-119, 7.3.3)."""
    return fields.pack("<I", value) + fields.pack(">I", value)


@lru_cache(4096)
def stamp(mtime: int) -> bytes:
    """The seven bytes of a recording date (ECMA-119, 9.1.5), in UTC; from 1970 to 2155."""
    t = time.gmtime(min(max(mtime, 0), 5869583999))
    return bytes([t.tm_year - 1900, t.tm_mon, t.tm_mday, t.tm_hour, t.tm_min, t.tm_sec, 0])


def protocol() -> list[bytes]:
    """SP: what the root's own record starts with."""
    return [b"SP\x07\x01\xbe\xef\x00"]


def extension() -> list[bytes]:
    """ER: what it ends with."""
    name, text, source = _EXTENSION
    sizes = bytes([8 + sum(map(len, _EXTENSION)), 1, len(name), len(text), len(source), 1])
    return [b"ER" + sizes + name + text + source]


def attributes(entry: Entry, links: int, inode: int) -> list[bytes]:
    """PX, TF and for a device PN.

    Raises:
        FieldError: a device number that PN has no way to say.
    """
    mode = _TYPES[entry.kind] | entry.mode & 0o7777
    numbers = (mode, links, entry.uid, entry.gid, inode)
    made = [b"PX\x2c\x01" + b"".join(map(both32, numbers)), b"TF\x0c\x01\x02" + stamp(entry.mtime)]
    if entry.kind in (Kind.CHAR, Kind.BLOCK):
        major, minor = entry.device
        # an old dev_t in the low half; or, where it is too small, major and minor: Linux reads both
        if not major and minor > 255:  # Linux takes a low half over 255 without a high one for an old dev_t
            raise FieldError(f"{entry.path[:200]!r}: an ISO volume has no way to write the device {major}:{minor}")
        high, low = (0, major << 8 | minor) if major < 256 and minor < 256 else (major, minor)
        made.append(b"PN\x14\x01" + both32(high) + both32(low))
    return made


def name(text: bytes) -> list[bytes]:
    """NM, one or several."""
    parts = [text[i : i + _NAME_MAX] for i in range(0, len(text), _NAME_MAX)] or [b""]
    last = len(parts) - 1
    return [b"NM" + bytes([5 + len(part), 1, n != last]) + part for n, part in enumerate(parts)]


def link(target: bytes) -> list[bytes]:
    """SL, one or several. An entry ends within a name where it can: between two entries libarchive puts no slash."""
    made, current = [], b"\x08\0" if target.startswith(b"/") else b""
    for part in filter(None, target.split(b"/")):
        rest = part
        while rest:
            room = _LINK_MAX - len(current) - 2
            if room < 1:
                made.append(current)
                current = b""
            elif rest is part and part in (b".", b".."):
                current, rest = current + bytes([2 * len(part), 0]), b""
            elif len(rest) <= room - 4 or len(rest) == 1:
                current, rest = current + bytes([0, len(rest)]) + rest, b""
            else:
                here, rest = rest[: min(len(rest) - 1, room)], rest[min(len(rest) - 1, room) :]
                made.append(current + bytes([1, len(here)]) + here)
                current = b""
    made.append(current)
    last = len(made) - 1
    return [b"SL" + bytes([5 + len(part), 1, n != last]) + part for n, part in enumerate(made)]


def fit(entries: Sequence[bytes], room: int) -> tuple[list[bytes], list[bytes]]:
    """Split entries into those for the record and those for a continuation area.

    Args:
        room: bytes of the record's system use field. With a rest, CE_SIZE of them are kept for the CE entry.
    """
    if sum(map(len, entries)) <= room:
        return list(entries), []
    here: list[bytes] = []
    left = room - CE_SIZE
    for n, entry in enumerate(entries):
        if len(entry) > left:
            return here, list(entries[n:])
        here.append(entry)
        left -= len(entry)
    return here, []


def continuation(sector: int, offset: int, size: int) -> bytes:
    """CE: the rest of the entries is in another sector."""
    return b"CE\x1c\x01" + both32(sector) + both32(offset) + both32(size)
