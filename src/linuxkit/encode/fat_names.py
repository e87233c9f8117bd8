"""Names in a FAT directory: the short name every entry has (8.3) and the entries of a long one (VFAT).

    long entry N | … | long entry 1 | short entry        32 bytes each, read backwards
    short entry:  name[11] attr nt tenths ctime cdate adate cluster.hi mtime mdate cluster.lo size
    long entry:   ordinal name[5] 0x0F 0 checksum name[6] 0 0 name[2]        13 UTF-16 units each

Microsoft FAT specification 1.03, and its supplement on long names. A name that is a plain upper-case 8.3 name needs no
long entry. Every other one has it, so that its case survives, too.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable

from linuxkit.encode import fields
from linuxkit.errors import ImageError

READ_ONLY, VOLUME, DIRECTORY, ARCHIVE, LONG = 0x01, 0x08, 0x10, 0x20, 0x0F
ENTRY = 32
#: UTF-16 units in one long entry, and in the longest name.
UNITS, LONGEST = 13, 255
_SHORT = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'()-@^_`{}~")
_NEVER = frozenset('"*/:<>?\\|') | {chr(c) for c in range(32)} | {"\x7f"}


def check(name: str, path: str) -> None:
    """That a name can stand in a FAT directory.

    Raises:
        ImageError: it can't; the message names `path`.
    """
    bad = sorted(_NEVER & set(name))
    if not name or name in (".", ".."):
        raise ImageError(f"{path}: '{name}' cannot be a name in a FAT file system")
    if bad:
        raise ImageError(f"{path}: a FAT file system can't hold {bad[0]!r} in a name", hint="rename the file")
    if name[-1] in ". ":
        raise ImageError(f"{path}: in a FAT file system no name ends with a dot or a space",
                         hint="rename the file")  # fmt: skip
    try:
        units = len(name.encode("utf-16-le")) // 2
    except UnicodeEncodeError:
        raise ImageError(f"{path!r}: the name is not UTF-8; FAT holds only Unicode", hint="rename the file") from None
    if units > LONGEST:
        raise ImageError(f"{path}: the name is longer than FAT's {LONGEST} characters", hint="rename the file")


def label(text: str) -> bytes:
    """A volume's label as its 11 bytes; empty for none.

    Raises:
        ImageError: it has other characters than a short name and spaces, or too many.
    """
    name = text.upper()
    if len(name) > 11 or not set(name) <= _SHORT | {" "} or name != name.strip():
        raise ImageError(f"'{text}' cannot be the label of a FAT file system",
                         hint="at most 11 letters, digits and spaces")  # fmt: skip
    return name.encode().ljust(11) if name else b""


def folded(name: str) -> str:
    """What names that FAT takes for the same have in common."""
    return "".join(up if len(up := c.upper()) == 1 else c for c in name)


def short_names(names: Iterable[str]) -> dict[str, bytes]:
    """The 11-byte short name of each name of a directory. The names are checked and differ when folded."""
    given = list(names)
    chosen: dict[str, bytes] = {}
    for name in given:
        if (plain := _plain(name)) is not None:
            chosen[name] = plain
    taken, count = set(chosen.values()), dict[tuple[bytes, bytes], int]()
    for name in given:
        if name in chosen:
            continue
        base, extension = _basis(name)
        key = base[:6], extension
        while True:
            count[key] = number = count.get(key, 0) + 1
            tail = b"~%d" % number
            short = (base[: 8 - len(tail)] + tail).ljust(8) + extension.ljust(3)
            if short not in taken:
                break
        taken.add(short)
        chosen[name] = short
    return chosen


def _plain(name: str) -> bytes | None:
    """The short name, when it differs from the name in case only."""
    base, dot, extension = name.upper().partition(".")
    if not 1 <= len(base) <= 8 or len(extension) > 3 or (dot and not extension):
        return None
    if not name.isascii() or not set(base + extension) <= _SHORT:
        return None
    return base.encode().ljust(8) + extension.encode().ljust(3)


def _basis(name: str) -> tuple[bytes, bytes]:
    """What a numbered short name is made from: at most 8 and 3 characters."""
    stem, dot, extension = name.replace(" ", "").lstrip(".").rpartition(".")
    if not dot:
        stem, extension = extension, ""
    parts = ("".join(c if c in _SHORT else "_" for c in part.upper() if c != ".") for part in (stem, extension))
    base, ending = (part.encode() for part in parts)
    return base[:8] or b"_", ending[:3]


def entries(name: str, short: bytes, attributes: int, cluster: int, size: int, stamp: tuple[int, int]) -> bytes:
    """The entries of one name: long ones where they are needed, and the short one."""
    made = short_entry(short, attributes, cluster, size, stamp)
    base, extension = short[:8].rstrip().decode(), short[8:].rstrip().decode()
    if name == (f"{base}.{extension}" if extension else base):
        return made
    text = name.encode("utf-16-le")
    count = -(-len(text) // (2 * UNITS))
    if len(text) % (2 * UNITS):
        text = (text + b"\0\0").ljust(count * 2 * UNITS, b"\xff")
    total = _checksum(short)
    long = []
    for number in range(count, 0, -1):
        part = text[(number - 1) * 2 * UNITS : number * 2 * UNITS]
        ordinal = number | (0x40 if number == count else 0)
        long.append(fields.pack("<B10sBBB12sH4s", ordinal, part[:10], LONG, 0, total, part[10:22], 0, part[22:]))
    return b"".join(long) + made


def length(name: str, short: bytes) -> int:
    """Bytes of the entries of one name."""
    return len(entries(name, short, 0, 0, 0, (0, 0)))


def short_entry(short: bytes, attributes: int, cluster: int, size: int, stamp: tuple[int, int]) -> bytes:
    """The short entry. `stamp`: date and time, of `dos_time`."""
    date, time = stamp
    return fields.pack(
        "<11sBBBHHHHHHHI", short, attributes, 0, 0, time, date, date, cluster >> 16, time, date, cluster & 0xFFFF, size
    )


def _checksum(short: bytes) -> int:
    total = 0
    for byte in short:
        total = ((total >> 1) + ((total & 1) << 7) + byte) & 0xFF
    return total


def dos_time(seconds: int) -> tuple[int, int]:
    """Date and time (UTC, even seconds) as FAT writes them; times it can't hold become the nearest it can."""
    low, high = 315532800, 4354819198  # 1980-01-01 and the end of 2107
    when = datetime.datetime.fromtimestamp(min(max(seconds, low), high), datetime.UTC)
    return (when.year - 1980) << 9 | when.month << 5 | when.day, when.hour << 11 | when.minute << 5 | when.second // 2
