"""dm-verity hash trees, against a plain reading of the specification."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linuxkit.encode import verity
from linuxkit.encode.pieces import Piece, hole, literal, read
from linuxkit.errors import ImageError

pytestmark = pytest.mark.unit

SALT = bytes(range(32))


def by_the_book(data: bytes, salt: bytes) -> tuple[list[bytes], bytes]:
    level, levels = data + bytes(-len(data) % 4096), []
    while True:
        level = b"".join(hashlib.sha256(salt + level[i : i + 4096]).digest() for i in range(0, len(level), 4096))
        if len(level) == 32:
            return levels, level
        level += bytes(-len(level) % 4096)
        levels.insert(0, level)


def content(blocks: int) -> bytes:
    return b"".join(n.to_bytes(4, "big") * 1024 for n in range(blocks))


@pytest.mark.parametrize("size", [1, 4095, 4096, 4097, 127 * 4096, 128 * 4096, 129 * 4096 + 1, 300 * 4096])
def test_levels_and_root_hash(size):
    data = content(size // 4096 + 1)[:size]
    made = verity.tree([literal(data)], SALT)
    levels, root = by_the_book(data, SALT)
    assert list(made.levels) == levels
    assert made.root_hash == root
    assert made.blocks == -(-size // 4096)
    assert made.size == sum(map(len, levels)) == sum(piece.size for piece in made.pieces)


PARTS = st.lists(
    st.binary(max_size=50).map(literal) | st.integers(0, 20000).map(hole) | st.just(hole(256 * 4096 + 4096)), max_size=6
)


@given(PARTS, st.binary(max_size=40))
def test_any_pieces_are_their_bytes(parts, salt):
    pieces = [literal(b"!"), *parts]
    data = b"".join(read(pieces))
    made = verity.tree(pieces, salt)
    assert made == verity.tree([literal(data)], salt)
    assert len(data) + sum(p.size for p in verity.padding(pieces)) == made.blocks * 4096


def test_runs_of_files(tmp_path):
    (tmp_path / "a").write_bytes(content(700))
    (tmp_path / "b").write_bytes(b"b" * 10000)
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    pieces = [Piece(5000, a, 3), Piece(7000, b, 1), hole(90), Piece(2000000, a, 100), Piece(1, b, 9999)]
    assert verity.tree(pieces, SALT) == verity.tree([literal(b"".join(read(pieces)))], SALT)
    with pytest.raises(ImageError, match="became shorter"):
        verity.tree([Piece(5000, b, 9000)], SALT)


def test_the_argument_of_the_kernel():
    made = verity.tree([literal(content(3))], SALT)
    assert made.argument() == f"1:3:3:{SALT.hex()}:{made.root_hash.hex()}"
    assert made.argument(8).startswith("1:3:8:")
    assert verity.tree([literal(b"x")], b"").argument().startswith("1:1:1:-:")


def test_what_cannot_be():
    with pytest.raises(ValueError, match="no data"):
        verity.tree([], SALT)
    with pytest.raises(ValueError, match="salt"):
        verity.tree([literal(b"x")], bytes(257))


def test_a_large_hole_costs_little_time():
    made = verity.tree([literal(content(1)), hole((8 << 30) - 4096)], SALT)
    assert made.blocks == 2 << 20
    assert [len(level) // 4096 for level in made.levels] == [1, 128, 16384]
