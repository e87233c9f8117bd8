"""EFI programs: sections that are added, read back from the bytes; what isn't a program is refused."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linuxkit.encode import pe
from linuxkit.encode.pieces import Piece, literal, read, size_of
from linuxkit.errors import ImageError
from support.efi import program, sections

pytestmark = pytest.mark.unit


@given(st.lists(st.binary(min_size=1, max_size=9000), min_size=1, max_size=6))
def test_sections_are_added(contents):
    stub = program()
    names = [f".s{n}" for n in range(len(contents))]
    added = [pe.Section(n, [literal(c)]) for n, c in zip(names, contents, strict=True)]
    data = b"".join(read(pe.add_sections(stub, added)))
    found = sections(data)
    assert list(found) == [".text", ".data", *names]
    end = 0x3000
    for name, content in zip(names, contents, strict=True):
        size, address, raw, at, flags = found[name]
        assert (size, flags) == (len(content), 0x40000040)
        assert data[at : at + raw] == content.ljust(raw, b"\0") and raw % 512 == 0 == at % 512 and raw - size < 512
        assert address % 4096 == 0 and address == end
        end = -(-(address + size) // 4096) * 4096
    start = struct.unpack_from("<I", data, 0x3C)[0] + 24
    assert struct.unpack_from("<I", data, start + 56)[0] == end
    before = struct.unpack_from("<I", stub, start + 8)[0]
    assert struct.unpack_from("<I", data, start + 8)[0] == before + sum(found[n][2] for n in names)
    assert struct.unpack_from("<I", data, start + 64)[0] == 0
    for name in (".text", ".data"):
        assert found[name] == sections(stub)[name]
    assert data[0x400 : len(stub)] == stub[0x400:]


def test_content_stays_where_it_is_and_empty_sections_are_left_out():
    kernel = Piece(1 << 30, path="/cache/kernel")
    made = pe.add_sections(program(), [pe.Section(".ucode", []), pe.Section(".linux", [kernel])])
    assert kernel in made
    assert list(sections(made[0].data)) == [".text", ".data", ".linux"]
    assert size_of(made) == len(program()) + (1 << 30)


def test_what_does_not_work_is_refused():
    one = [pe.Section(".a", [literal(b"x")])]
    for bad in (b"", b"MZ", b"MZ" + bytes(2000), b"\x7fELF" + bytes(2000), program()[:0x90]):
        with pytest.raises(ImageError, match="the EFI stub is not an EFI program"):
            pe.add_sections(bad, one)
    with pytest.raises(ImageError, match="no room for 20 more"):
        pe.add_sections(program(), one * 20)
    with pytest.raises(ImageError, match="4 GiB"):
        pe.add_sections(program(), [pe.Section(".initrd", [Piece(1 << 32)])])
    signed = bytearray(program())
    struct.pack_into("<II", signed, pe.header(program(), "it").certificates, 4096, 8)
    with pytest.raises(ImageError, match="signed"):
        pe.add_sections(bytes(signed), one)


def test_architectures():
    assert pe.header(program(), "it").architecture == "amd64"
    assert pe.header(program(0xAA64), "it").architecture == "arm64"
    assert pe.header(program(0x14C), "it").architecture == ""
