"""One gzip member, made of blocks that are deflated side by side; a hole costs nothing.

    header | { deflate blocks of 1 MiB, ended by a full flush } | the last block, empty | CRC-32 | length

RFC 1952 and 1951. Each MiB is deflated on its own and ends at a byte, so they can be made in any order and put end to
end; a MiB of zeros is made once. Checksums are joined: that of A and B is that of A times x^(8 |B|), plus that of B,
modulo the polynomial.
"""

from __future__ import annotations

import zlib  # for its checksum
from collections.abc import Callable, Sequence
from functools import cache

from linuxkit.encode import fields, libraries
from linuxkit.encode.content import Sink
from linuxkit.encode.pieces import Piece, cut, literal, read, size_of
from linuxkit.encode.sparse import compressed, runs

#: Goes into cache keys: raise it when the bytes written for the same input change.
VERSION = 1
BLOCK = 1 << 20
LEVEL = 6
_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"  # no name, no time


def write(pieces: Sequence[Piece], out: Sink, *, threads: int = 2) -> None:
    """Write the pieces, compressed. The header has no name and no time.

    Args:
        threads: on which the bytes don't depend.

    Raises:
        ImageError: a cached file became shorter.
    """
    size = size_of(pieces)
    whole = size // BLOCK
    out.write(_HEADER)
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


_FOOT = 12  # a checksum in 4 bytes, a length in 8


class Run:
    """A Sink: deflates into another one what is to stand in a gzip member with other runs; `close` ends it at a byte,
    and adds a foot with its checksum and length for `member`."""

    def __init__(self, out: Sink, level: int) -> None:
        self._out, self._worker = out, libraries.Deflate(level, -15)
        self._sum = self._size = 0

    def write(self, data: bytes, /) -> int:
        self._sum, self._size = zlib.crc32(data, self._sum), self._size + len(data)
        if made := self._worker.compress(data):
            self._out.write(made)
        return len(data)

    def close(self) -> None:
        foot = self._sum.to_bytes(4, "little") + self._size.to_bytes(8, "little")
        self._out.write(self._worker.flush(zlib.Z_FULL_FLUSH) + foot)


def member(runs: Sequence[Piece], ending: Callable[[int], bytes]) -> list[Piece]:
    """One gzip member of what `Run` wrote.

    Args:
        ending: what its content ends with, given the length of all before it.

    Raises:
        ImageError: a cached file became shorter.
    """
    made, checksum, size = [literal(_HEADER)], 0, 0
    for run in runs:
        foot = b"".join(read(cut([run], run.size - _FOOT, _FOOT)))
        its_sum, its_size = int.from_bytes(foot[:4], "little"), int.from_bytes(foot[4:], "little")
        made += cut([run], 0, run.size - _FOOT)
        checksum, size = _joined(checksum, its_sum, its_size), size + its_size
    last = ending(size)
    packer = libraries.Deflate(LEVEL, -15)
    checksum, size = zlib.crc32(last, checksum), size + len(last)
    made.append(literal(packer.compress(last) + packer.flush() + checksum.to_bytes(4, "little")
                        + (size & 0xFFFFFFFF).to_bytes(4, "little")))  # fmt: skip
    return made


def _deflated(data: bytes) -> tuple[bytes, int]:
    worker = libraries.Deflate(LEVEL, -15)
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
