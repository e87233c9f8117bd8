"""Partition tables: MBR and GPT, read back field by field."""

from __future__ import annotations

import struct
import uuid
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linuxkit.encode import gpt, mbr
from linuxkit.encode.pieces import Piece, literal, read, size_of
from linuxkit.errors import InputError

pytestmark = pytest.mark.unit
MIB = 1 << 20


def slots(sector: bytes) -> list[tuple[int, bytes, int, bytes, int, int]]:
    assert len(sector) == 512 and sector[510:] == b"\x55\xaa"
    return [struct.unpack_from("<B3sB3sII", sector, 446 + 16 * n) for n in range(4)]


def test_mbr_disk():
    one, two = [literal(b"A" * 1000)], [literal(b"B" * MIB)]
    parts = [mbr.Partition(one, mbr.FAT32, active=True), mbr.Partition(two, mbr.LINUX)]
    data = b"".join(read(mbr.disk(parts, seed="s", code=b"\x90" * 440)))
    assert len(data) == 3 * MIB and data[:440] == b"\x90" * 440
    assert data[MIB : MIB + 1000] == b"A" * 1000 and data[2 * MIB :] == b"B" * MIB
    first, second, third, fourth = slots(data[:512])
    assert first == (0x80, bytes([32, 33, 0]), 0x0C, bytes([32, 34, 0]), 2048, 2)
    assert second[0] == 0 and second[2] == 0x83 and second[4:] == (4096, 2048)
    assert third[2] == fourth[2] == 0
    assert struct.unpack_from("<I", data, 440)[0] == mbr.signature("s") != mbr.signature("t")


@given(st.integers(0, 1024 * 255 * 63 - 1))
def test_chs_is_lba(sector):
    head, number, cylinder = slots(mbr.record([mbr.Slot(sector, 1, 1)], 1))[0][1]
    cylinder |= (number & 0xC0) << 2
    assert (cylinder * 255 + head) * 63 + (number & 63) - 1 == sector


def test_mbr_limits():
    assert slots(mbr.record([mbr.Slot(1024 * 255 * 63, 1, 1)], 1))[0][1] == b"\xfe\xff\xff"
    with pytest.raises(InputError, match="an MBR can't describe"):
        mbr.disk([mbr.Partition([Piece(3 << 40)], mbr.LINUX)], seed="s")
    with pytest.raises(InputError, match="needs 2097152") as caught:
        mbr.disk([mbr.Partition([Piece(10)], mbr.LINUX)], seed="s", size=MIB)
    assert "--size 2M" in caught.value.hint
    with pytest.raises(ValueError, match="don't fit"):
        mbr.record([], 1, b"x" * 441)


@pytest.mark.parametrize("sector", [512, 4096])
def test_gpt_disk(sector):
    esp, root = [literal(b"E" * (MIB + 5))], [literal(b"R" * 8192)]
    pieces = gpt.disk(
        [gpt.Partition(esp, gpt.ESP, "EFI System", gpt.LEGACY_BOOT), gpt.Partition(root, gpt.ROOT["amd64"], "röot")],
        seed="s", code=b"code", sector=sector,
    )  # fmt: skip
    data = b"".join(read(pieces))
    assert len(data) == 4 * MIB and data.startswith(b"code")
    last = len(data) // sector - 1
    assert slots(data[:512])[0] == (0, b"\x00\x02\x00", 0xEE, b"\xff\xff\xff", 1, last)
    assert struct.unpack_from("<I", data, 440)[0] == 0

    for here, there in ((1, last), (last, 1)):
        head = data[here * sector : (here + 1) * sector]
        magic, revision, size, crc, zero, me, other, first, end, guid, at, count, each, table_crc = struct.unpack_from(
            "<8sIIIIQQQQ16sQIII", head
        )
        assert (magic, revision, size, zero, me, other, count, each) == (
            b"EFI PART", 0x10000, 92, 0, here, there, 128, 128)  # fmt: skip
        assert crc == zlib.crc32(head[:16] + bytes(4) + head[20:92]) and not head[92:].strip(b"\0")
        table = data[at * sector : at * sector + 128 * 128]
        assert table_crc == zlib.crc32(table)
        assert first == 2 + 16384 // sector and end == last - 16384 // sector - 1
        assert str(uuid.UUID(bytes_le=guid)) == gpt.disk_guid("s")

    found = [struct.unpack_from("<16s16sQQQ72s", table, 128 * n) for n in range(3)]
    assert str(uuid.UUID(bytes_le=found[0][0])) == gpt.ESP
    assert str(uuid.UUID(bytes_le=found[0][1])) == gpt.partition_guid("s", 1)
    assert found[0][4] == 4 and found[1][5].decode("utf-16-le").rstrip("\0") == "röot"
    assert data[found[0][2] * sector :].startswith(b"E" * (MIB + 5)) and found[0][2] * sector == MIB
    assert found[0][3] == (MIB + MIB + 5 + sector - 1) // sector - 1
    assert data[found[1][2] * sector : (found[1][3] + 1) * sector] == b"R" * 8192
    assert not found[2][0].strip(b"\0")


def test_gpt_guids_are_guids_and_differ():
    guids = {gpt.partition_guid(seed, n) for seed in ("a", "b") for n in range(5)}
    assert len(guids) == 10
    assert all(str(uuid.UUID(g)) == g and uuid.UUID(g).version == 8 for g in guids)
    assert all(uuid.UUID(g).variant == uuid.RFC_4122 for g in guids)


def test_gpt_size_and_hybrid():
    part = gpt.Partition([Piece(MIB, path="/x")], gpt.ESP)
    assert size_of(gpt.disk([part], seed="s")) == 3 * MIB
    assert size_of(gpt.disk([part], seed="s", size=5 * MIB + 512)) == 5 * MIB + 512
    with pytest.raises(InputError):
        gpt.disk([part], seed="s", size=2 * MIB)
    show = mbr.Slot(2048, 2048, mbr.FAT32, active=True)
    first = slots(gpt.disk([part], seed="s", hybrid=[show])[0].data[:512])
    assert first[0][0] == 0x80 and first[0][4:] == (2048, 2048) and first[1][2] == 0xEE and first[1][4:] == (1, 2047)
    with pytest.raises(ValueError, match="too long"):
        gpt.disk([part._replace(name="x" * 37)], seed="s")
