"""Compressed streams that Linux can unpack as part of an initramfs: none, gzip, zstd, lz4, xz. Written, not read.

What the kernel asks for, beyond the usual tools' output (lib/decompress_*.c):

    lz4   the legacy frame: 02 21 4C 18, then blocks of 8 MiB, each after its length (4 bytes, little endian)
    xz    CRC32 as the integrity check, not CRC64; a dictionary of 1 MiB, which a small machine has room for
    zstd  any frame with a window of at most 128 MiB

The same bytes come out whatever the number of processors: zstd always works in its multi-threaded mode, in which how
the input is split into jobs doesn't depend on how many workers there are.
"""

from __future__ import annotations

from enum import StrEnum
from types import TracebackType
from typing import Any, Self

from linuxkit.encode import fields, libraries
from linuxkit.encode.content import Sink
from linuxkit.errors import InputError

#: Goes into cache keys: raise it when the bytes written for the same input change.
VERSION = 1


class Codec(StrEnum):
    NONE = "none"
    GZIP = "gzip"
    ZSTD = "zstd"
    LZ4 = "lz4"
    XZ = "xz"


#: codec → (lowest level, highest, default)
LEVELS = {
    Codec.NONE: (0, 0, 0), Codec.GZIP: (1, 9, 6), Codec.ZSTD: (1, 19, 3), Codec.LZ4: (0, 12, 0), Codec.XZ: (0, 9, 6),
}  # fmt: skip
_LZ4_BLOCK = 8 << 20
_XZ_DICTIONARY = 1 << 20


def level_of(codec: Codec, level: int | None) -> int:
    """The level to use: the one given, checked, or the codec's default.

    Raises:
        InputError: the codec has no such level.
    """
    low, high, default = LEVELS[codec]
    if level is None:
        return default
    if not low <= level <= high:
        raise InputError(f"{codec} has no level {level}", hint=f"give one from {low} to {high}")
    return level


class Compressor:
    """A Sink that compresses into another one. A context manager: leaving it without an error finishes the stream.

    Raises:
        HostError: the codec needs a Python package that is not installed.
    """

    def __init__(self, out: Sink, codec: Codec, level: int | None = None, *, workers: int = 1) -> None:
        level = level_of(codec, level)
        self._out = out
        self._encoder: Any = None
        if codec is Codec.GZIP:
            self._encoder = libraries.Deflate(level, 31)
        elif codec is Codec.ZSTD:
            # jobs of that size keep several streams at once within a modest memory
            self._encoder = libraries.zstd(level, threads=max(1, workers), job_size=4 << 20, write_checksum=True)
        elif codec is Codec.LZ4:
            self._encoder = _Lz4(level)
        elif codec is Codec.XZ:
            self._encoder = libraries.xz(level, _XZ_DICTIONARY)

    def write(self, data: bytes, /) -> int:
        if self._encoder is None:
            self._out.write(data)
        elif made := self._encoder.compress(data):
            self._out.write(made)
        return len(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._encoder is not None and kind is None:
            self._out.write(self._encoder.flush())


def library(codec: Codec) -> str:
    """What the bytes depend on beside codec and level, for cache keys; empty for none."""
    return "" if codec is Codec.NONE else libraries.version({"gzip": "deflate"}.get(codec, codec.value))


class _Lz4:
    """The legacy frame. Blocks are cut at exactly 8 MiB, as the kernel expects of all but the last."""

    def __init__(self, level: int) -> None:
        self._compress = libraries.lz4_block(level)
        self._pending = bytearray()
        self._started = False

    def compress(self, data: bytes) -> bytes:
        self._pending += data
        made = b""
        while len(self._pending) >= _LZ4_BLOCK:
            made += self._block(bytes(self._pending[:_LZ4_BLOCK]))
            del self._pending[:_LZ4_BLOCK]
        return made

    def flush(self) -> bytes:
        made = self._block(bytes(self._pending)) if self._pending else b""
        return made or (b"" if self._started else b"\x02\x21\x4c\x18")

    def _block(self, data: bytes) -> bytes:
        start, self._started = (b"" if self._started else b"\x02\x21\x4c\x18"), True
        packed = self._compress(data)
        return start + fields.pack("<I", len(packed)) + packed
