"""One gzip member, made of blocks that are deflated side by side; a hole costs nothing.

    header | { deflate blocks of 1 MiB, ended by a full flush } | the last block, empty | CRC-32 | length

RFC 1952 and 1951. Each MiB is deflated on its own and ends at a byte, so they can be made in any order and put end to
end; a MiB of zeros is made once. Checksums are joined: that of A and B is that of A times x^(8 |B|), plus that of B,
modulo the polynomial.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from functools import cache

from linuxkit.encode import fields
from linuxkit.encode.content import Sink
from linuxkit.encode.pieces import Piece, cut, read, size_of
from linuxkit.encode.sparse import compressed, runs

#: Goes into cache keys: raise it when the bytes written for the same input change.
VERSION = 1
BLOCK = 1 << 20
LEVEL = 6


def write(pieces: Sequence[Piece], out: Sink, *, threads: int = 2) -> None:
    """Write the pieces, compressed. The header has no name and no time.

    Args:
        threads: on which the bytes don't depend.

    Raises:
        ImageError: a cached file became shorter.
    """
    size = size_of(pieces)
    whole = size // BLOCK
    out.write(b"\x1f\x8b\x08\0\0\0\0\0\0\xff")
    zeros, zeros_sum = _deflated(bytes(BLOCK))
    checksum = at = 0

    def skip(to: int) -> None:
        nonlocal checksum, at
        if to > at:
            checksum = _joined(checksum, _zeros_sum(to - at), (to - at) * BLOCK)
            for _ in range(to - at):
                out.write(zeros)
            at = to

    for number, made in compressed(runs(cut(pieces, 0, whole * BLOCK), BLOCK), BLOCK, _deflated, threads):
        skip(number)
        data, its_sum = made or (zeros, zeros_sum)
        out.write(data)
        checksum = _joined(checksum, its_sum, BLOCK)
        at += 1
    skip(whole)
    data, its_sum = _deflated(b"".join(read(cut(pieces, whole * BLOCK, BLOCK))))
    out.write(data)
    checksum = _joined(checksum, its_sum, size % BLOCK)
    out.write(b"\x03\0" + fields.pack("<II", checksum, size & 0xFFFFFFFF))


def _deflated(data: bytes) -> tuple[bytes, int]:
    worker = zlib.compressobj(LEVEL, zlib.DEFLATED, -15)
    return worker.compress(data) + worker.flush(zlib.Z_FULL_FLUSH), zlib.crc32(data)


def _joined(first: int, second: int, length: int) -> int:
    """The checksum of two runs of bytes end to end, the second one of `length` bytes."""
    return _times(first, _power(length)) ^ second


def _zeros_sum(blocks: int) -> int:
    """The checksum of some blocks of zeros."""
    size = blocks * BLOCK
    # a register that began with ones, moved on by that many zeros, and inverted
    return _times(0xFFFFFFFF, _power(size)) ^ 0xFFFFFFFF


@cache
def _power(length: int) -> int:
    """x^(8 length) modulo the polynomial; bit 31 is x^0."""
    power, square = 1 << 31, 1 << 23
    while length:
        if length & 1:
            power = _times(power, square)
        square = _times(square, square)
        length >>= 1
    return power


def _times(a: int, b: int) -> int:
    product = 0
    for bit in range(31, -1, -1):
        if a >> bit & 1:
            product ^= b
        b = b >> 1 ^ (0xEDB88320 if b & 1 else 0)
    return product
