"""Decompressing a layer as it streams: gzip, zstd or nothing, found by the first bytes, bounded in size.

Media types are not believed: registries and converters mislabel layers, and the digests decide what is right.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from linuxkit.errors import ImageError

CHUNK = 256 << 10
GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_OTHERS = {b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x04\x22\x4d\x18": "lz4"}


@dataclass(frozen=True, slots=True)
class Bounds:
    """How large a decompressed layer may be: never over `size`, and over `free` at most `ratio` times its blob."""

    size: int = 16 << 30
    free: int = 1 << 30
    ratio: int = 200

    @classmethod
    def of(cls, size: int) -> Bounds:
        """`size` bytes, however small what came is; 0: the usual ones."""
        return cls(size, size) if size else cls()

    def widened(self, size: int) -> Bounds:
        """These, and in any case `size` bytes; 0: just these."""
        return Bounds(max(self.size, size), max(self.free, size), self.ratio) if size else self


class _Gzip:
    def __init__(self) -> None:
        self._z = zlib.decompressobj(31)

    @property
    def eof(self) -> bool:
        return self._z.eof

    @property
    def unused_data(self) -> bytes:
        return self._z.unused_data

    def feed(self, data: bytes) -> Iterator[bytes]:
        while data:
            out = self._z.decompress(data, 4 * CHUNK)
            if out:
                yield out
            data = self._z.unconsumed_tail
            if not out and not data:
                return


class _Zstd:
    def __init__(self) -> None:
        self._z: Any = zstd_module().ZstdDecompressor()

    @property
    def eof(self) -> bool:
        return bool(self._z.eof)

    @property
    def unused_data(self) -> bytes:
        return bytes(self._z.unused_data)

    def feed(self, data: bytes) -> Iterator[bytes]:
        while True:
            out = self._z.decompress(data, 4 * CHUNK)
            if out:
                yield out
            data = b""
            if self._z.eof or self._z.needs_input:
                return


def zstd_module() -> Any:
    """`compression.zstd` of Python 3.14, or its backport."""
    try:
        from compression import zstd
    except ImportError:
        from backports import zstd
    return zstd


def unpack(stream: BinaryIO, size: int, where: str, bounds: Bounds = Bounds()) -> Iterator[bytes]:
    """The decompressed bytes of a blob of `size` bytes, in pieces of at most 1 MiB.

    Several members or frames end to end are one stream; anything else after the end is an error.

    Raises:
        ImageError: the blob is damaged, cut short, in an unknown format, over a bound, or has bytes after its end.
    """
    most = min(bounds.size, max(bounds.free, bounds.ratio * size))
    total = 0
    for piece in _pieces(stream, where):
        total += len(piece)
        if total > most:
            raise ImageError(f"{where}: it decompresses to more than {most} bytes from {size}",
                             hint="no honest layer does; if you know this one: --max-layer SIZE")  # fmt: skip
        yield piece


def _pieces(stream: BinaryIO, where: str) -> Iterator[bytes]:
    data = stream.read(CHUNK)
    kind = _kind(data)
    if kind is None:
        other = next((name for magic, name in _OTHERS.items() if data.startswith(magic)), "")
        if other:
            raise ImageError(f"{where}: layers compressed with {other} are not supported", hint="use gzip or zstd")
        while data:
            yield data
            data = stream.read(CHUNK)
        return
    errors = (zlib.error, EOFError) if kind is _Gzip else (zstd_module().ZstdError, EOFError)
    try:
        yield from _members(kind, data, stream, where)
    except errors as e:
        raise ImageError(f"{where}: the compressed data are damaged: {str(e)[:120]}") from e


def _members(kind: type[_Gzip] | type[_Zstd], data: bytes, stream: BinaryIO, where: str) -> Iterator[bytes]:
    one: _Gzip | _Zstd = kind()
    while data:
        yield from one.feed(data)
        if not one.eof:
            data = stream.read(CHUNK)
            continue
        data = one.unused_data or stream.read(CHUNK)
        if not data:
            return
        if len(data) < 4:
            data += stream.read(CHUNK)
        if _kind(data) is not kind:
            raise ImageError(f"{where}: there are bytes after the end of the compressed data")
        one = kind()
    raise ImageError(f"{where}: the compressed data are cut short")


def _kind(data: bytes) -> type[_Gzip] | type[_Zstd] | None:
    if data.startswith(GZIP):
        return _Gzip
    skippable = len(data) >= 4 and data[1:4] == b"\x2a\x4d\x18" and 0x50 <= data[0] <= 0x5F
    return _Zstd if data.startswith(ZSTD) or skippable else None
