"""CRC-32C (Castagnoli): the checksum of VHDX, ext4 and EROFS, which no module of the standard library computes.

    polynomial 1EDC6F41, bits reflected, register and result inverted; crc32c(b"123456789") = E3069283

RFC 3720, B.4; Catalogue of parametrised CRC algorithms, CRC-32/ISCSI.

A table takes Python a step for each byte. Instead the message is taken as one polynomial, a big integer, and folded in
half until a few bytes are left: with M = H x^n + L and r = x^n mod P, M = H r + L (mod P), and H r is one shifted copy
of H for each term of r. The lengths n are ones for which r has few terms. So the work is shifts and exclusive ors of
long integers, in C: 100 MB/s and more.
"""

from __future__ import annotations

from functools import cache

_POLYNOMIAL = 0x11EDC6F41
#: Lengths in bytes to fold at, each less than twice the one before, with 5 to 13 terms in r.
_LENGTHS = (67, 111, 213, 350, 658, 1269, 2480, 4250, 8412, 16797, 32641, 63854)
#: What is taken at once: at most that much is in memory several times.
_CHUNK = 2 * _LENGTHS[-1] - 4


def crc32c(data: bytes | bytearray | memoryview, value: int = 0) -> int:
    """The checksum of some bytes.

    Args:
        value: the checksum of what stands before them, to go on from.
    """
    register = value ^ 0xFFFFFFFF
    if len(data) <= _CHUNK:
        return _step(register, data) ^ 0xFFFFFFFF
    view = memoryview(data)
    for at in range(0, len(view), _CHUNK):
        register = _step(register, view[at : at + _CHUNK])
    return register ^ 0xFFFFFFFF


def _step(register: int, data: bytes | bytearray | memoryview) -> int:
    """The register after some bytes, at most _CHUNK."""
    if len(data) > _LENGTHS[0]:
        # the first byte's lowest bit is the highest power
        number = int.from_bytes(data, "little") ^ register
        for bits, shifts in _plan(len(data)):
            head = number & ((1 << bits) - 1)
            number >>= bits
            for shift in shifts:
                number ^= head << shift
        data, register = number.to_bytes(_LENGTHS[0], "little"), 0
    table = _table()
    for byte in data:
        register = register >> 8 ^ table[(register ^ byte) & 255]
    return register


@cache
def _table() -> tuple[int, ...]:
    found = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        found.append(byte)
    return tuple(found)


@cache
def _terms(length: int) -> tuple[int, ...]:
    """The exponents in x^(8 length) mod P."""
    remainder = 1
    for bit in f"{8 * length:b}":
        square = sum(1 << 2 * n for n in range(32) if remainder >> n & 1) << (bit == "1")
        for n in range(63, 31, -1):
            if square >> n & 1:
                square ^= _POLYNOMIAL << (n - 32)
        remainder = square
    return tuple(n for n in range(32) if remainder >> n & 1)


@cache
def _plan(length: int) -> tuple[tuple[int, tuple[int, ...]], ...]:
    """How a message is folded to the first of _LENGTHS: for each step the bits of its head, and the head's shifts."""
    steps = []
    for at in range(len(_LENGTHS) - 1, -1, -1):
        to = _LENGTHS[at]
        if to >= length or (at and 2 * _LENGTHS[at - 1] - 4 >= length):
            continue
        head = 8 * (length - to)
        # the copy for x^e ends e bits before the end of what is left
        steps.append((head, tuple(8 * to - head - e for e in _terms(to))))
        length = to
    return tuple(steps)
