"""How squashfs compresses a block: the codecs, and what the kernel asks of each.

    gzip   a zlib stream                            lz4    one raw block, no frame
    xz     an .xz stream: CRC32, no BCJ filter,     zstd   one frame, its size in its header
           a dictionary of one block                none   every block as it is, under gzip's name

A block that would not become smaller is stored as it is.
"""

from __future__ import annotations

from linuxkit.encode import fields, libraries
from linuxkit.encode.compress import Codec
from linuxkit.encode.libraries import Pack as Pack

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
        return libraries.deflate_block(level)
    if codec is Codec.XZ:
        return libraries.xz_block(level, block_size)
    return libraries.lz4_block(level) if codec is Codec.LZ4 else libraries.zstd_block(level)
