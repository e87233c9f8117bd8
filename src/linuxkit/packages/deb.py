"""Debian binary packages (deb(5)), read without dpkg and without running anything from them.

    "!<arch>\\n" ┬ 60-byte header "debian-binary"          "2.0\\n"
                ├ 60-byte header "control.tar[.xz|.gz|.zst]"
                └ 60-byte header "data.tar[.xz|.gz|.zst]"   the files, one tar

The data tar is decompressed once into a spool file; the nodes that come out point into it.
"""

from __future__ import annotations

import hashlib
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from linuxkit.entry import Entry, Extent, Kind
from linuxkit.errors import ImageError
from linuxkit.foreign import number
from linuxkit.oci.tarread import FileBytes, Limits, read_tar

#: Most bytes that one package may unpack to. Debian's largest kernels are under 1 GiB.
LIMIT = 4 << 30
_CHUNK = 1 << 18
_KINDS = (Kind.FILE, Kind.DIRECTORY, Kind.SYMLINK, Kind.HARDLINK)


def unpack(deb: Path, spool: Path, *, limit: int = LIMIT) -> dict[str, Entry]:
    """The nodes of a package by path, their content in `spool`, which is written as a plain tar.

    Args:
        deb: the package file; its digest has been checked.
        spool: where the decompressed data goes; must stay as long as the entries are used.
        limit: most bytes of decompressed data.

    Raises:
        ImageError: not a package, damaged, too large, or a name that leaves its root.
    """
    with deb.open("rb") as stream:
        name, size = _data_member(stream, deb.name)
        with spool.open("wb") as out:
            written = 0
            for block in _decompressed(stream, size, name, deb.name):
                written += len(block)
                if written > limit:
                    raise ImageError(f"{deb.name}: unpacks to more than {limit} bytes")
                out.write(block)
    return nodes(spool, deb.name)


def _data_member(stream: BinaryIO, where: str) -> tuple[str, int]:
    """Leave `stream` at the start of the data tar; its name and size."""
    if stream.read(8) != b"!<arch>\n":
        raise ImageError(f"{where}: not a Debian package (no ar archive)")
    while True:
        header = stream.read(60)
        if len(header) < 60 or header[58:] != b"`\n":
            raise ImageError(f"{where}: truncated or damaged package")
        name = header[:16].decode("ascii", "replace").strip().rstrip("/")
        digits = header[48:58].strip()
        try:
            size = number(digits)
        except ValueError:
            raise ImageError(f"{where}: damaged package (size of member {name!r})") from None
        if name.startswith("data.tar"):
            return name, size
        stream.seek(size + size % 2, 1)


def _decompressed(stream: BinaryIO, size: int, name: str, where: str) -> Iterator[bytes]:
    decoder: Any
    match name.removeprefix("data.tar"):
        case ".xz":
            decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=256 << 20)
        case ".zst":
            decoder = _zstd()
        case ".gz":
            decoder = _Gzip()
        case "":
            decoder = _Plain()
        case other:
            raise ImageError(f"{where}: compression {other!r} is not known")
    left = size
    try:
        while not decoder.eof:
            block = b""
            if decoder.needs_input:
                block = stream.read(min(_CHUNK, left))
                left -= len(block)
                if not block:
                    if isinstance(decoder, _Plain) and left == 0:
                        return
                    raise ImageError(f"{where}: truncated package")
            yield decoder.decompress(block, _CHUNK * 4)
    except (lzma.LZMAError, zlib.error, EOFError, ValueError) as e:
        raise ImageError(f"{where}: damaged package: {e}") from e
    except ImageError:
        raise
    except Exception as e:  # ZstdError has no common base with the others
        if type(e).__name__ != "ZstdError":
            raise
        raise ImageError(f"{where}: damaged package: {e}") from e


def _zstd() -> Any:
    try:
        from compression import zstd
    except ImportError:
        from backports import zstd
    return zstd.ZstdDecompressor()


class _Gzip:
    """zlib's decompressor with the manners of the other two."""

    def __init__(self) -> None:
        self._z = zlib.decompressobj(31)

    @property
    def eof(self) -> bool:
        return self._z.eof

    @property
    def needs_input(self) -> bool:
        return not self._z.unconsumed_tail

    def decompress(self, data: bytes, limit: int) -> bytes:
        return self._z.decompress(self._z.unconsumed_tail + data, limit)


class _Plain:
    eof = False
    needs_input = True

    def decompress(self, data: bytes, limit: int) -> bytes:
        return data


def nodes(spool: Path, where: str) -> dict[str, Entry]:
    """The nodes of a plain tar by path, their content in it.

    Raises:
        ImageError: damaged, of a kind that no package has, or a name that leaves its root.
    """
    found: dict[str, Entry] = {}
    with spool.open("rb") as tar:
        rows = read_tar(FileBytes(tar.fileno()), where, Limits(strict=True))
    for row in rows:
        kind = Kind(row.kind)
        if kind not in _KINDS:
            raise ImageError(f"{where}: {row.path}: a member of type {kind.name.lower()} has no place in a package")
        found[row.path] = Entry(
            row.path, kind, row.mode, row.uid, row.gid, row.mtime, row.target,
            source=Extent(str(spool), row.offset, row.size) if kind is Kind.FILE else None,
        )  # fmt: skip
    for path, entry in found.items():
        if entry.kind is Kind.HARDLINK and entry.target not in found:
            raise ImageError(f"{where}: {path} is a hard link to {entry.target}, which the package does not have")
    return found


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
