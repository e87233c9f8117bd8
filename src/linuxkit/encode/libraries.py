"""The compressors that decide bytes which we write: one implementation of each, the same on every host.

    deflate   zlib-ng   from the wheel zlib-ng, which has it inside; Python's own zlib is the host's choice
    zstd      libzstd   from the wheel zstandard, likewise; the standard library's is the host's choice
    lz4       liblz4    from the wheel lz4, likewise
    xz        liblzma   Python's own: no wheel brings one. Told by what it makes of a fixed text, as it tells no version

No other module makes a compressor; reading may use any library. What writes keeps `version` in its cache keys.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cache
from typing import Any, Protocol

from linuxkit.errors import HostError

Pack = Callable[[bytes | memoryview], bytes]
CODECS = ("deflate", "zstd", "lz4", "xz")
_PIECE = 256 << 10  # bytes
_SAMPLE = b"".join(b"%d squared is %d\n" % (n, n * n) for n in range(4096))


class Stream(Protocol):
    """What compresses as it goes."""

    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self) -> bytes: ...


class Deflate:
    """A stream with zlib's interface. `wbits`: 15 for zlib, 31 for gzip without name and time, below 0 for neither.

    zlib-ng looks at all that it is given at once, so what it makes depends on how its input is cut: here always alike.
    """

    def __init__(self, level: int, wbits: int = 15, memory: int = 8) -> None:
        self._worker, self._pending = _deflater(level, wbits, memory), bytearray()

    def compress(self, data: bytes | memoryview, /) -> bytes:
        self._pending += data
        whole = len(self._pending) // _PIECE * _PIECE
        if not whole:
            return b""
        view = memoryview(bytes(self._pending[:whole]))
        del self._pending[:whole]
        return b"".join(self._worker.compress(view[at : at + _PIECE]) for at in range(0, whole, _PIECE))

    def flush(self, mode: int = 4) -> bytes:
        """The rest; `mode` as zlib has it: 4 ends the stream, 3 ends a part of it at a byte (Z_FULL_FLUSH)."""
        rest = bytes(self._pending)
        self._pending.clear()
        made: bytes = self._worker.compress(rest) + self._worker.flush(mode)
        return made


def _deflater(level: int, wbits: int, memory: int) -> Any:
    from zlib_ng import zlib_ng

    return zlib_ng.compressobj(level, zlib_ng.DEFLATED, wbits, memory)


def deflate_block(level: int, wbits: int = 15, memory: int = 8) -> Pack:
    """What compresses one block to a stream of its own."""

    def pack(data: bytes | memoryview) -> bytes:
        worker = Deflate(level, wbits, memory)
        return worker.compress(data) + worker.flush()

    return pack


def zstd(level: int, **options: int) -> Stream:
    """One frame. `options` as zstandard.ZstdCompressionParameters has them: threads, job_size, write_checksum."""
    import zstandard

    how = zstandard.ZstdCompressionParameters(compression_level=level, **options)
    made: Stream = zstandard.ZstdCompressor(compression_params=how).compressobj()
    return made


def zstd_block(level: int) -> Pack:
    """What compresses one block to a frame with its size in the header; each thread has a compressor of its own."""
    import zstandard

    own = threading.local()

    def pack(data: bytes | memoryview) -> bytes:
        try:
            compressor = own.compressor
        except AttributeError:
            compressor = own.compressor = zstandard.ZstdCompressor(level=level)
        made: bytes = compressor.compress(data)
        return made

    return pack


def lz4_block(level: int) -> Pack:
    """What compresses one raw block; level 0 is the quick way, above it the high compression.

    Raises:
        HostError: the Python package is not installed.
    """
    lz4 = _lz4()
    more: dict[str, Any] = {"mode": "high_compression", "compression": level} if level else {}

    def pack(data: bytes | memoryview) -> bytes:
        made: bytes = lz4.block.compress(data, store_size=False, **more)
        return made

    return pack


def xz(level: int, dictionary: int) -> Stream:
    """An .xz stream with CRC32, which is what Linux reads; `dictionary` in bytes."""
    import lzma

    filters = [{"id": lzma.FILTER_LZMA2, "preset": level, "dict_size": dictionary}]
    return lzma.LZMACompressor(lzma.FORMAT_XZ, lzma.CHECK_CRC32, filters=filters)


def xz_block(level: int, dictionary: int) -> Pack:
    """What compresses one block to such a stream."""

    def pack(data: bytes | memoryview) -> bytes:
        worker = xz(level, dictionary)
        return worker.compress(bytes(data)) + worker.flush()

    return pack


@cache
def version(codec: str) -> str:
    """What a codec's bytes depend on, beside its level: `zlib-ng 2.3.3`. Codecs are spelled as in CODECS.

    Raises:
        HostError: the Python package is not installed.
    """
    if codec == "deflate":
        from zlib_ng import zlib_ng

        return f"zlib-ng {zlib_ng.ZLIBNG_VERSION}"
    if codec == "zstd":
        import zstandard

        return "libzstd " + ".".join(map(str, zstandard.ZSTD_VERSION))
    if codec == "lz4":
        return f"liblz4 {_lz4().library_version_string()}"
    import hashlib

    return f"liblzma {hashlib.sha256(xz_block(6, 1 << 20)(_SAMPLE)).hexdigest()[:8]}"


def versions() -> dict[str, str]:
    """`version` of each codec that can be used here."""
    found = {}
    for codec in CODECS:
        try:
            found[codec] = version(codec)
        except HostError:
            continue
    return found


def _lz4() -> Any:
    try:
        import lz4
        import lz4.block
    except ImportError as e:
        raise HostError("lz4 compression needs a Python package that is not installed",
                        hint="pip install 'linuxkit[lz4]', or use --compress zstd") from e  # fmt: skip
    return lz4
