"""The disk archive that Google's cloud imports: NAME.tar.gz with the one member disk.raw.

    gzip( header | disk, a whole number of GiB | zeros )

The tar is in GNU's old format, as `tar --format=oldgnu` writes it: magic "ustar  ", and a size of 8 GiB and more in
base 256. That, the name and the whole GiB are what Google's documentation on importing disks asks for.
"""

from __future__ import annotations

from collections.abc import Sequence

from linuxkit.encode import fields, gzip_pieces
from linuxkit.encode.content import Sink
from linuxkit.encode.pieces import Piece, literal, padded, size_of
from linuxkit.entry import FIXED_MTIME

#: Goes into cache keys: raise it when the bytes written for the same input change.
VERSION = gzip_pieces.VERSION
GIB = 1 << 30
MEMBER = b"disk.raw"
#: tar writes in records of this size.
_RECORD = 10240


def write(pieces: Sequence[Piece], out: Sink, *, threads: int = 2) -> None:
    """Write the archive of a disk.

    Args:
        threads: on which the bytes don't depend.

    Raises:
        ImageError: a cached file became shorter.
    """
    size = max(GIB, -(-size_of(pieces) // GIB) * GIB)
    whole = -(-(size + 3 * 512) // _RECORD) * _RECORD
    gzip_pieces.write(padded([literal(_header(size)), *padded(pieces, size)], whole), out, threads=threads)


def _header(size: int) -> bytes:
    length = fields.octal(size, 11) + b"\0" if size < 1 << 33 else b"\x80" + fields.big_endian(size, 11)
    block = fields.pack(
        "<100s8s8s8s12s12s8sc100s8s32s32s", MEMBER, b"0000644", b"0000000", b"0000000", length,
        b"%011o" % FIXED_MTIME, b" " * 8, b"0", b"", b"ustar  ", b"root", b"root",
    ).ljust(512, b"\0")  # fmt: skip
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]
