"""Pieces: cutting, padding, reading, and holes that stay holes in the file that is written."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linuxkit.encode.pieces import Piece, cut, hole, literal, padded, read, size_of
from linuxkit.errors import ImageError
from linuxkit.outputs.pieces import put

pytestmark = pytest.mark.unit

PARTS = st.lists(st.binary(max_size=20).map(literal) | st.integers(0, 40).map(hole), max_size=8)


@given(PARTS, st.integers(0, 120), st.integers(0, 120))
def test_cut_is_a_slice(pieces, start, size):
    whole = b"".join(read(pieces))
    assert len(whole) == size_of(pieces)
    assert b"".join(read(cut(pieces, start, size))) == whole[start : start + size]


@given(PARTS)
def test_put_writes_what_read_reads(tmp_path_factory, pieces):
    path = tmp_path_factory.mktemp("put") / "out"
    with open(path, "wb") as out:
        assert put(pieces, out) == size_of(pieces)
    memory = io.BytesIO()
    put(pieces, memory)
    assert path.read_bytes() == memory.getvalue() == b"".join(read(pieces, chunk=7))


def test_cut_of_a_file(tmp_path):
    (tmp_path / "in").write_bytes(bytes(range(100)))
    pieces = [hole(10), Piece(50, str(tmp_path / "in"), 20), literal(b"end")]
    assert b"".join(read(cut(pieces, 8, 5))) == b"\0\0" + bytes(range(20, 23))
    assert b"".join(read(cut(pieces, 58, 99), chunk=1)) == bytes([68, 69]) + b"end"


def test_padded():
    assert padded([literal(b"ab")], 4) == [literal(b"ab"), hole(2)]
    assert padded([literal(b"ab")], 2) == [literal(b"ab")]
    with pytest.raises(ValueError, match="3 bytes don't fit into 2"):
        padded([literal(b"abc")], 2)


def sparse_file(path: Path) -> bytes:
    with open(path, "wb") as f:
        f.seek(4 << 20)
        f.write(b"middle")
        f.truncate(12 << 20)
    return path.read_bytes()


def test_holes_take_no_room(tmp_path):
    data = sparse_file(tmp_path / "in")
    with open(tmp_path / "out", "wb") as out:
        out.write(b"start")
        put([hole((8 << 20) - 5), Piece(len(data), str(tmp_path / "in")), literal(b"x"), hole(8 << 20)], out)
        assert out.tell() == (28 << 20) + 1
    assert (tmp_path / "out").read_bytes() == b"start".ljust(8 << 20, b"\0") + data + b"x" + bytes(8 << 20)
    assert (tmp_path / "out").stat().st_blocks * 512 < 1 << 20


def test_a_file_that_is_appended_to_gets_its_zeros(tmp_path):
    (tmp_path / "out").write_bytes(b"before")
    with open(tmp_path / "out", "ab") as out:
        put([hole(3), literal(b"x"), hole(2)], out)
    assert (tmp_path / "out").read_bytes() == b"before\0\0\0x\0\0"


def test_old_content_does_not_show_in_a_hole(tmp_path):
    (tmp_path / "out").write_bytes(b"before")
    with open(tmp_path / "out", "r+b") as out:
        put([hole(3), literal(b"x")], out)
    assert (tmp_path / "out").read_bytes() == b"\0\0\0xre"


def test_a_pipe_gets_its_zeros():
    reader, writer = os.pipe()
    with open(writer, "wb") as out:
        put([literal(b"a"), hole(3), literal(b"b"), hole(1)], out)
    with open(reader, "rb") as got:
        assert got.read() == b"a\0\0\0b\0"


@pytest.mark.parametrize("end", [b"", b"more"])
def test_a_file_that_became_shorter(tmp_path, end):
    (tmp_path / "in").write_bytes(b"short")
    pieces = [Piece(9, str(tmp_path / "in")), literal(end)]
    with open(tmp_path / "out", "wb") as out, pytest.raises(ImageError, match="shorter"):
        put(pieces, out)
    with pytest.raises(ImageError, match="shorter"):
        list(read(pieces))
