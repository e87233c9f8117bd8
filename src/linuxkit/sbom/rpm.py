"""rpm's database, where it is SQLite: usr/lib/sysimage/rpm/rpmdb.sqlite or var/lib/rpm/rpmdb.sqlite.

    table Packages (hnum INTEGER, blob BLOB), each blob a header:

        u32 count, u32 length           big-endian, as all numbers here
        count times { tag, type, offset, values }   u32 each
        length bytes of values

The database comes from a stranger: it is opened from memory, read-only by nature, with small limits, and work that
does not end is stopped.
"""

from __future__ import annotations

import re
import struct
from typing import Any

from linuxkit.sbom.model import MAX_PACKAGES, MAX_TEXT, Database, Package, clean, usable

MAX_DATABASE = 256 << 20
_MAX_HEADER = 16 << 20
_MAX_ENTRIES = 65_536
_MAX_STEPS = 4000  # times 10,000 instructions of SQLite's machine
_INT32, _STRING, _ARRAY, _I18N = 4, 6, 8, 9
_NAME, _VERSION, _RELEASE, _EPOCH, _SUMMARY, _VENDOR = 1000, 1001, 1002, 1003, 1004, 1011
_LICENCE, _PACKAGER, _URL, _ARCH, _SOURCE = 1014, 1015, 1020, 1022, 1044
_WANTED = {_NAME, _VERSION, _RELEASE, _EPOCH, _SUMMARY, _VENDOR, _LICENCE, _PACKAGER, _URL, _ARCH, _SOURCE}
_SOURCE_FILE = re.compile(r"(.+)-([^-]+-[^-]+)\.(?:no)?src\.rpm")


def parse(data: bytes) -> Database:
    """The packages of an rpmdb.sqlite. Never raises: what cannot be read is said in a note."""
    import sqlite3

    if not data.startswith(b"SQLite format 3\0"):
        return Database(notes=("it is not an SQLite database",))
    packages: list[Package] = []
    odd = size = 0
    notes: list[str] = []
    try:
        connection = sqlite3.connect(":memory:")
        try:
            for row in _rows(connection, data):
                package = header(row) if isinstance(row, bytes) else None
                if package is None:
                    odd += 1
                elif package.name != "gpg-pubkey":  # keys that rpm trusts, not software
                    packages.append(package)
                size += len(row) if isinstance(row, bytes) else 0
                if len(packages) + odd >= MAX_PACKAGES:
                    notes.append(f"more than {MAX_PACKAGES} packages: the rest is left out")
                    break
                if size > len(data):  # pages that are in the tree more than once
                    raise ValueError("its records are larger than the file")
        finally:
            connection.close()
    except (sqlite3.Error, sqlite3.Warning, MemoryError, OverflowError, ValueError) as e:
        notes.append(f"it is damaged: {clean(str(e), 100)}")
    if odd:
        notes.append(f"{odd} records without a usable name and version")
    packages.sort(key=lambda p: (p.name, p.version, p.architecture))
    return Database(tuple(packages), tuple(notes))


def _rows(connection: Any, data: bytes) -> Any:
    import sqlite3

    steps = 0

    def stop() -> int:
        nonlocal steps
        steps += 1
        return steps > _MAX_STEPS

    # a database in WAL mode cannot be opened from memory: its log is a file of its own
    connection.deserialize(data[:18] + b"\1\1" + data[20:])
    connection.set_progress_handler(stop, 10_000)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_HEADER)
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    connection.enable_load_extension(False) if hasattr(connection, "enable_load_extension") else None
    for pragma in ("trusted_schema = OFF", "cell_size_check = ON", "mmap_size = 0", "query_only = ON"):
        connection.execute(f"PRAGMA {pragma}")
    kind = connection.execute("SELECT type, sql FROM sqlite_schema WHERE name = 'Packages'").fetchone()
    # nothing but a plain table: a view, a virtual table or a computed column would run what a stranger wrote
    if kind is None or kind[0] != "table" or not re.fullmatch(
        r"CREATE TABLE '?\"?Packages'?\"?\s*\(\s*hnum INTEGER PRIMARY KEY( AUTOINCREMENT)?,\s*blob BLOB NOT NULL\s*\)",
        str(kind[1]),
    ):  # fmt: skip
        raise ValueError("there is no table Packages as rpm makes it")
    for (blob,) in connection.execute("SELECT blob FROM Packages"):
        yield blob


def header(blob: bytes) -> Package | None:
    """The package of one header; None when it is no header or has no name and version."""
    if len(blob) < 8:
        return None
    count, length = struct.unpack_from(">II", blob)
    start = 8 + 16 * count
    if count > _MAX_ENTRIES or start + length > len(blob):
        return None
    fields: dict[int, str] = {}
    for tag, kind, offset, values in struct.iter_unpack(">IIII", blob[8:start]):
        if tag not in _WANTED or tag in fields or offset >= length or not values:
            continue
        at = start + offset
        if kind in (_STRING, _ARRAY, _I18N):
            end = blob.find(b"\0", at, min(start + length, at + MAX_TEXT * 4))
            if end >= 0:
                fields[tag] = blob[at:end].decode("utf-8", "replace")
        elif kind == _INT32 and offset + 4 <= length:
            fields[tag] = str(struct.unpack_from(">I", blob, at)[0])
    name, version, release = (fields.get(tag, "").strip() for tag in (_NAME, _VERSION, _RELEASE))
    full = f"{version}-{release}" if release else version
    if not version or not usable(name, full):
        return None
    source = _SOURCE_FILE.fullmatch(fields.get(_SOURCE, ""))
    epoch = fields.get(_EPOCH, "")
    return Package(
        "rpm", name, full, clean(fields.get(_ARCH, "")), epoch if epoch.isdigit() else "",
        clean(source[1]) if source else "", clean(source[2]) if source else "", clean(fields.get(_LICENCE, "")),
        clean(fields.get(_VENDOR, "") or fields.get(_PACKAGER, "")), clean(fields.get(_URL, "")),
        clean(fields.get(_SUMMARY, ""), 256),
    )  # fmt: skip
