"""CRC-32C against known values and against the plain way of computing it."""

from __future__ import annotations

import os
import random

import pytest

from linuxkit.encode.crc32c import _CHUNK, _LENGTHS, crc32c

pytestmark = pytest.mark.unit


def plain(data: bytes, value: int = 0) -> int:
    """Bit by bit, as the definition has it."""
    register = value ^ 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


def test_known_values() -> None:
    # RFC 3720, B.4, and the catalogue's check value
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E
    assert crc32c(b"") == 0


LENGTHS = [*range(1, 9), 63, 256, 4092, 4096, *(n + d for n in _LENGTHS[:8] for d in (-1, 0, 1))]


@pytest.mark.parametrize("length", LENGTHS)
def test_every_way_of_folding(length: int) -> None:
    value = random.getrandbits(32)
    for data in (os.urandom(length), bytes(length), bytes(length - 1) + b"\1"):
        assert crc32c(data, value) == plain(data, value)
        assert crc32c(memoryview(data)) == crc32c(bytearray(data)) == plain(data)


@pytest.mark.parametrize("length", [_CHUNK - 1, _CHUNK, _CHUNK + 1, 2 * _CHUNK, 3 * _CHUNK + 5000])
def test_long_ones_are_the_same_in_parts(length: int) -> None:
    data, value = os.urandom(length), 0
    for at in range(0, length, 3001):
        value = crc32c(data[at : at + 3001], value)
    assert crc32c(data) == value
