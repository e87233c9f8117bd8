"""How squashfs compresses a block: the codecs, and what the kernel asks of each.

    gzip   a zlib stream                            lz4    one raw block, no frame
    xz     an .xz stream: CRC32, no BCJ filter,     zstd   one frame, its size in its header
           a dictionary of one block                none   every block as it is, under gzip's name

A block that would not become smaller is stored as it is.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable
from typing import Any

from linuxkit.encode import fields
from linuxkit.encode.compress import Codec
from linuxkit.errors import HostError

Pack = Callable[[bytes | memoryview], bytes]

#: The number of a codec in the superblock.
IDS = {Codec.NONE: 1, Codec.GZIP: 1, Codec.XZ: 4, Codec.LZ4: 5, Codec.ZSTD: 6}
_GZIP_DEFAULT = 9


def options(codec: Codec, level: int) -> bytes:
    """The compressor's options behind the superblock; empty where a reader needs none."""
    if codec is Codec.ZSTD:
        return fields.pack("<I", level)
    if codec is Codec.LZ4:
        return fields.pack("<II", 1, level > 0)  # LZ4_LEGACY, the only version there is; high compression
    if codec is Codec.GZIP and level != _GZIP_DEFAULT:
        return fields.pack("<iHH", level, 15, 0)
    return b""


def packer(codec: Codec, level: int, block_size: int) -> Pack:
    """What compresses one block: the same bytes on any thread; each thread has a compressor of its own.

    Raises:
        HostError: the codec needs a Python package that is not installed.
    """
    if codec is Codec.NONE:
        return bytes
    if codec is Codec.GZIP:
        return lambda data: zlib.compress(data, level)
    if codec is Codec.XZ:
        import lzma

        filters = [{"id": lzma.FILTER_LZMA2, "preset": level, "dict_size": block_size}]
        return lambda data: lzma.compress(data, lzma.FORMAT_XZ, lzma.CHECK_CRC32, filters=filters)
    if codec is Codec.LZ4:
        return _lz4(level)
    return _zstd(level)


def library(codec: Codec) -> str:
    """The version of what compresses, where it can be told: another one may give other bytes."""
    if codec is Codec.ZSTD:
        return str(_zstd_module().zstd_version)
    return zlib.ZLIB_RUNTIME_VERSION if codec is Codec.GZIP else ""


def _zstd_module() -> Any:
    try:
        from compression import zstd  # type: ignore[import-not-found,unused-ignore]  # Python 3.14
    except ImportError:
        from backports import zstd
    return zstd


def _lz4(level: int) -> Pack:
    try:
        import lz4.block
    except ImportError as e:
        raise HostError("lz4 compression needs a Python package that is not installed",
                        hint="pip install 'linuxkit[lz4]', or use --compress zstd") from e  # fmt: skip
    more: dict[str, Any] = {"mode": "high_compression", "compression": level} if level else {}

    def pack(data: bytes | memoryview) -> bytes:
        made: bytes = lz4.block.compress(data, store_size=False, **more)
        return made

    return pack


def _zstd(level: int) -> Pack:
    zstd = _zstd_module()
    own = threading.local()
    end = zstd.ZstdCompressor.FLUSH_FRAME

    def pack(data: bytes | memoryview) -> bytes:
        try:
            compressor = own.compressor
        except AttributeError:
            compressor = own.compressor = zstd.ZstdCompressor(level=level)
        made: bytes = compressor.compress(data, end)
        return made

    return pack
