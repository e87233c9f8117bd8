"""Reading a layer's tar archive: headers to rows, fast, and suspicious of every field.

    0   name  100 | mode 8 | uid 8 | gid 8 | size 12 | mtime 12 | checksum 8 | type 1 | link name 100 |
    257 magic 6 | version 2 | user 32 | group 32 | device major 8 | minor 8 | prefix 155 | 12 unused      = 512 bytes

then the content in blocks of 512; two zero blocks end the archive. Formats: v7, POSIX ustar, PAX (POSIX.1-2001, `x` and
`g` records) and GNU (`L`/`K` long names, base-256 numbers). GNU sparse members are refused: no builder writes them.
"""

from __future__ import annotations

import os
import re
import struct
from dataclasses import dataclass
from typing import NamedTuple

from linuxkit import entry
from linuxkit.errors import ImageError

XATTR = "SCHILY.xattr."


@dataclass(frozen=True, slots=True)
class Limits:
    """What a layer may hold, and the layers of one image; far above anything honest, far below what hurts."""

    entries: int = 250_000
    image: int = 500_000  # members of all layers of an image
    name: int = entry.MAX_PATH  # bytes of a path or link target (PATH_MAX without its NUL)
    part: int = entry.MAX_NAME  # bytes between two slashes (NAME_MAX)
    pax: int = 1 << 20  # bytes of one PAX or long-name record block
    xattr: int = entry.MAX_XATTR  # bytes of one extended attribute, as in Linux (XATTR_SIZE_MAX)
    xattrs: int = entry.MAX_XATTRS  # attributes of one member
    names: int = 64 << 20  # bytes of names and targets of all members
    attributes: int = 8 << 20  # bytes of attributes of all members
    strict: bool = False  # refuse absolute names and `..`, which packages have no need of


class Row(NamedTuple):
    """One member. `kind` is a letter of entry.Kind; `offset` and `size` are where a file's content is."""

    path: str
    kind: str
    mode: int
    uid: int
    gid: int
    mtime: int
    target: str
    major: int
    minor: int
    xattrs: tuple[tuple[str, bytes], ...]
    offset: int
    size: int


class FileBytes:
    """The bytes of an open file, read where they are asked for. A mapping would count as memory in use."""

    def __init__(self, fd: int) -> None:
        self._fd, self._size = fd, os.fstat(fd).st_size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice) -> bytes:
        start, stop, _ = part.indices(self._size)
        return os.pread(self._fd, max(stop - start, 0), start)


_KINDS = {b"0": "f", b"\0": "f", b"7": "f", b"5": "d", b"2": "l", b"1": "h", b"3": "c", b"4": "b", b"6": "p"}
_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s8s64s8s8s155s12x")
_ZERO = bytes(512)
#: PAX records that are looked at; a header may be a mebibyte of others, for each of its members.
_KEYS = frozenset({"path", "linkpath", "size", "uid", "gid", "mtime"})
_PREFIXES = (XATTR, "GNU.sparse.")
_PLAIN = re.compile(r"(?![./])(?:[^/\0]+/)*[^/\0]+(?<!/)", re.DOTALL)


def read_tar(data: memoryview | FileBytes, where: str, limits: Limits = Limits()) -> list[Row]:
    """The members of an archive, in its order; members that name the root directory itself are left out.

    Args:
        data: the whole archive.
        where: the layer, for messages.

    Raises:
        ImageError: the archive is damaged, cut short, over a limit, or a member tries to leave the root.
    """
    return _Reader(data, where, limits).read()


class _Reader:
    def __init__(self, data: memoryview | FileBytes, where: str, limits: Limits) -> None:
        self._data, self._where, self._limits = data, where, limits
        self._named = self._attributed = 0

    def read(self) -> list[Row]:
        data, end, at = self._data, len(self._data), 0
        rows: list[Row] = []
        shared: dict[str, str] = {}  # records of `g` headers
        pax: dict[str, str] = {}
        long_name = long_link = b""
        count = 0
        while at < end:
            header = bytes(data[at : at + 512])
            if len(header) < 512:
                raise self._error(at, "the archive is cut short in a header")
            if header == _ZERO:
                break
            fields = _HEADER.unpack(header)
            if fields[6].strip(b" \0") and not _checksum_ok(header, fields[6]):
                raise self._error(at, "a header has a wrong checksum: damaged, or not a tar archive")
            kind = fields[7]
            size = self._number(fields[4], at)
            start = at + 512
            if kind in b"xgLK":
                if size > self._limits.pax:
                    raise self._error(at, f"a header extension of {size} bytes is over the limit of {self._limits.pax}")
                if start + size > end:
                    raise self._error(at, "the archive is cut short in a header extension")
                body = bytes(data[start : start + size])
                if kind == b"x":
                    pax = self._pax(body, at)
                elif kind == b"g":
                    shared |= self._pax(body, at)
                    if sum(len(key) + len(value) for key, value in shared.items()) > self._limits.pax:
                        raise self._error(at, f"the global header extensions have over {self._limits.pax} bytes")
                elif kind == b"L":
                    long_name = body.split(b"\0", 1)[0]
                else:
                    long_link = body.split(b"\0", 1)[0]
                at = start + (size + 511) // 512 * 512
                continue
            count += 1
            if count > self._limits.entries:
                raise ImageError(f"{self._where}: more than {self._limits.entries} members")
            records = shared if not pax else {**shared, **pax} if shared else pax
            row, size = self._member(fields, records, long_name, long_link, start, size, at)
            if row is not None:
                rows.append(row)
                self._count(row)
            if size and start + size > end:
                name = row.path if row else "a member"
                raise self._error(at, f"the archive is cut short in '{name[:200]}'")
            at = start + (size + 511) // 512 * 512
            pax, long_name, long_link = {}, b"", b""
        else:
            if pax or long_name or long_link:
                raise self._error(at, "the archive is cut short after a header extension")
        return rows

    def _member(
        self, fields: tuple[bytes, ...], pax: dict[str, str], long_name: bytes, long_link: bytes,
        start: int, size: int, at: int,
    ) -> tuple[Row | None, int]:  # fmt: skip
        kind = _KINDS.get(fields[7])
        raw = long_name or fields[0].split(b"\0", 1)[0]
        if not long_name and fields[9] == b"ustar\x0000" and fields[13][0]:
            raw = fields[13].split(b"\0", 1)[0] + b"/" + raw
        name = raw.decode("utf-8", "surrogateescape")
        target = (long_link or fields[8].split(b"\0", 1)[0]).decode("utf-8", "surrogateescape")
        uid, gid = self._number(fields[2], at), self._number(fields[3], at)
        mtime = self._number(fields[5], at, signed=True)
        xattrs: tuple[tuple[str, bytes], ...] = ()
        if pax:
            name, target = pax.get("path", name), pax.get("linkpath", target)
            size = self._decimal(pax, "size", size, at)
            uid, gid = self._decimal(pax, "uid", uid, at), self._decimal(pax, "gid", gid, at)
            mtime = self._seconds(pax, mtime, at)
            xattrs = self._xattrs(pax, name)
            if any(key.startswith("GNU.sparse.") for key in pax):
                kind = None
        if kind is None:
            letter = "S (sparse)" if pax or fields[7] == b"S" else repr(fields[7].decode("latin-1"))
            raise self._error(at, f"'{name[:200]}' is of the unsupported type {letter}")
        if kind == "f" and name.endswith("/"):  # how v7 archives write a directory
            kind = "d"
        path = self._path(name, "member")
        if not path:
            if kind == "d":
                return None, 0
            raise ImageError(f"{self._where}: a member that is not a directory has the name '{name}' of the root")
        if kind == "h":
            linked = self._path(target, f"hard link '{path}' to")
            if not linked or linked == path:
                raise ImageError(f"{self._where}: hard link '{path}' points at '{target}'")
            target = linked
        elif kind == "l":
            if not target or "\0" in target or len(target.encode("utf-8", "surrogateescape")) > self._limits.name:
                raise ImageError(f"{self._where}: symbolic link '{path}' has an empty, over-long or broken target")
        else:
            target = ""
        if kind != "f":
            size = 0  # only files have content, whatever the header says
        device = kind in "cb"
        major = self._number(fields[11], at) if device else 0
        minor = self._number(fields[12], at) if device else 0
        if major > entry.MAX_MAJOR or minor > entry.MAX_MINOR:
            raise self._error(at, f"'{path[:200]}' is a device {major}:{minor}, and Linux has none over "
                                  f"{entry.MAX_MAJOR}:{entry.MAX_MINOR}")  # fmt: skip
        if max(uid, gid) > entry.MAX_ID:
            raise self._error(at, f"'{path[:200]}' belongs to user {uid}, group {gid}: more than 32 bits")
        if not -entry.MAX_TIME <= mtime <= entry.MAX_TIME:
            raise self._error(at, f"'{path[:200]}' is dated {mtime} seconds from 1970: {entry.MAX_TIME} is the most")
        mode = self._number(fields[1], at) & entry.MAX_MODE
        return Row(path, kind, mode, uid, gid, mtime, target, major, minor, xattrs, start, size), size

    def _count(self, row: Row) -> None:
        self._named += len(row.path) + len(row.target)
        if self._named > self._limits.names:
            raise ImageError(f"{self._where}: the names in it have more than {self._limits.names} bytes")
        if row.xattrs:
            self._attributed += sum(len(name) + len(value) for name, value in row.xattrs)
            if self._attributed > self._limits.attributes:
                raise ImageError(f"{self._where}: extended attributes of more than {self._limits.attributes} bytes")

    def _path(self, name: str, what: str) -> str:
        """Normalised and relative; empty for the root. A leading slash is dropped, as tar does."""
        path = name
        if not _PLAIN.fullmatch(path) or "/." in path:
            if "\0" in path:
                raise ImageError(f"{self._where}: {what} {name[:200]!r} contains a NUL byte")
            if self._limits.strict and (path.startswith("/") or ".." in path.split("/")):
                raise ImageError(f"{self._where}: the name {name[:200]!r} leaves the package's root")
            parts: list[str] = []
            for part in path.split("/"):
                if part == "..":
                    if not parts:
                        raise ImageError(f"{self._where}: {what} '{name[:200]}' points outside the root")
                    parts.pop()
                elif part not in ("", "."):
                    parts.append(part)
            path = "/".join(parts)
        if len(path) > 60:  # shorter ones cannot be over a limit, at four bytes a character
            longest = max(len(p.encode("utf-8", "surrogateescape")) for p in path.split("/"))
            if longest > self._limits.part or len(path.encode("utf-8", "surrogateescape")) > self._limits.name:
                raise ImageError(
                    f"{self._where}: {what} '{path[:60]}…' is too long: "
                    f"{self._limits.name} bytes in all and {self._limits.part} in each part are the most"
                )
        return path

    def _pax(self, body: bytes, at: int) -> dict[str, str]:
        """`LENGTH KEY=VALUE\\n` records, of keys that mean anything here. An empty value is that of the header."""
        records: dict[str, str] = {}
        position = 0
        while position < len(body) and body[position]:
            blank = body.find(b" ", position, position + 12)
            digits = body[position:blank]
            if blank < 0 or not digits.isdigit():
                raise self._error(at, "a PAX record has no length")
            stop = position + int(digits)
            equals = body.find(b"=", blank, stop)
            if stop > len(body) or stop <= blank + 1 or equals < 0 or body[stop - 1] != 0x0A:
                raise self._error(at, "a PAX record has a wrong length")
            position = stop
            key = body[blank + 1 : equals].decode("utf-8", "surrogateescape")
            if key in _KEYS or key.startswith(_PREFIXES):
                records[key] = body[equals + 1 : stop - 1].decode("utf-8", "surrogateescape")
                if len(records) > self._limits.xattrs + len(_KEYS) + 1:
                    raise self._error(at, f"more than {self._limits.xattrs} extended attributes")
        return records

    def _xattrs(self, pax: dict[str, str], name: str) -> tuple[tuple[str, bytes], ...]:
        found = []
        for key, value in pax.items():
            if key.startswith(XATTR):
                attribute, content = key[len(XATTR) :], value.encode("utf-8", "surrogateescape")
                size = len(attribute.encode("utf-8", "surrogateescape"))
                if not 0 < size <= entry.MAX_XATTR_NAME or "\0" in attribute or len(content) > self._limits.xattr:
                    raise ImageError(f"{self._where}: '{name[:200]}' has an extended attribute of a wrong size")
                found.append((attribute, content))
        if len(found) > self._limits.xattrs:
            raise ImageError(f"{self._where}: '{name[:200]}' has more than {self._limits.xattrs} extended attributes")
        return tuple(sorted(found))

    def _number(self, field: bytes, at: int, signed: bool = False) -> int:
        """Octal text, or base 256 with the top bit set (GNU)."""
        first = field[0]
        if first & 0x80:
            value = int.from_bytes(field, "big", signed=False)
            bits = 8 * len(field)
            if first & 0x40:
                value -= 1 << bits
            else:
                value &= (1 << (bits - 1)) - 1
        else:
            value = _octal(field)
            if value < 0:
                raise self._error(at, "a header field is not a number")
        if (value < 0 and not signed) or not -(1 << 62) < value < 1 << 62:
            raise self._error(at, "a header field is out of range")
        return value

    def _decimal(self, pax: dict[str, str], key: str, default: int, at: int) -> int:
        text = pax.get(key, "")
        if not text:
            return default
        if not (text.isascii() and text.isdigit()) or len(text) > 18:
            raise self._error(at, f"the PAX record {key} is not a number")
        return int(text)

    def _seconds(self, pax: dict[str, str], default: int, at: int) -> int:
        text = pax.get("mtime", "")
        if not text:
            return default
        if not re.fullmatch(r"-?[0-9]{1,18}(\.[0-9]*)?", text, re.ASCII):
            raise self._error(at, "the PAX record mtime is not a time")
        whole, _, fraction = text.partition(".")
        return int(whole) - (1 if whole.startswith("-") and fraction.strip("0") else 0)

    def _error(self, at: int, text: str) -> ImageError:
        return ImageError(f"{self._where}: {text} (at byte {at})")


def _octal(field: bytes) -> int:
    """The number of octal digits, which blanks may surround and a NUL or a blank ends; -1 when it is none."""
    digits = field.split(b"\0", 1)[0].strip(b" ")
    if digits.translate(None, b"01234567"):
        return -1
    return int(digits, 8) if digits else 0


def _checksum_ok(header: bytes, field: bytes) -> bool:
    """The sum of the header's bytes with the checksum itself as blanks; old writers summed signed bytes."""
    want = _octal(field)
    total = sum(header) - sum(field) + 8 * 32
    if want == total:
        return True
    high = sum(b > 127 for b in header) - sum(b > 127 for b in field)
    return want == total - 256 * high


