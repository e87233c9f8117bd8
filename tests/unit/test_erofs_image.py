"""EROFS volumes: what stands where, what is shared, what can't be held. What readers make of them: tests/interop."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linuxkit.encode import erofs, erofs_data
from linuxkit.encode.compress import Codec
from linuxkit.encode.erofs_data import UNIT, chunked, content
from linuxkit.encode.erofs_place import Places
from linuxkit.encode.pieces import Piece, hole, read, size_of
from linuxkit.encode.tree import tree
from linuxkit.entry import Bytes, Entry, Extent, Kind
from linuxkit.errors import ImageError, InputError
from support.erofsread import Volume, listing_of
from support.trees import Islands, differences, every_case, file, listing, noise, text, trees

pytestmark = pytest.mark.unit


def volume(entries: list[Entry], **more: object) -> list[Piece]:
    return list(erofs.volume(tree(entries), **{"seed": "seed", **more}))


def written(entries: list[Entry], **more: object) -> bytes:
    return b"".join(read(volume(entries, **more)))


def test_the_superblock():
    made = written([file("a", b"x", mtime=7), file("b", b"y", mtime=7), file("c", mtime=8)], label="linuxkit")
    magic, _, compat, bits, slots, root, inodes, time = struct.unpack_from("<IIIBBHQq", made, 1024)
    assert (magic, compat, bits, slots, root, inodes, time) == (0xE0F5E1E2, 3, 12, 0, 128, 4, 7)
    assert struct.unpack_from("<I", made, 1024 + 36)[0] == len(made) // 4096
    assert made[1024 + 64 : 1024 + 80] == b"linuxkit".ljust(16, b"\0")
    assert made[1024 + 48 : 1024 + 64] == erofs.uuid_of("seed") != erofs.uuid_of("other")


def test_the_same_tree_is_the_same_volume():
    entries = every_case()
    assert written(entries) == written(entries[::-1][::-1])
    assert written([file("a", b"x")]) != written([file("a", b"x")], seed="other")


def test_the_order_of_entries_does_not_matter():
    entries = [file(f"d{n % 7}/{n}", noise(n * 10, n)) for n in range(100)]
    assert written(entries) == written(entries[::-1])


@pytest.mark.parametrize("codec", [Codec.NONE, Codec.LZ4, Codec.GZIP, Codec.ZSTD])
def test_a_tree_is_read_back(codec: Codec):
    entries = [*every_case(), file("large", text(1 << 20) + noise(300_000) + bytes(500_000)),
               *(file(f"ends/{n}", text(131072 * (n % 3) + 700 * n, n)) for n in range(60))]  # fmt: skip
    one = volume(entries, how=erofs.Options(codec), threads=1)
    assert one == volume(entries, how=erofs.Options(codec), threads=3)
    assert not differences(listing(tree(entries)), listing_of(b"".join(read(one))))


@settings(max_examples=60, deadline=None)
@given(trees(), st.sampled_from([Codec.NONE, Codec.LZ4, Codec.GZIP, Codec.ZSTD]))
def test_any_tree_is_read_back(entries, codec):
    assert not differences(listing(tree(entries)), listing_of(written(entries, how=erofs.Options(codec))))


def test_a_codec_that_linux_cannot_read():
    with pytest.raises(InputError, match="can't be compressed with xz"):
        volume([file("a", text(1000))], how=erofs.Options(Codec.XZ))


def test_what_does_not_become_smaller_is_stored():
    made = Volume(written([file("a", noise(300_000))], how=erofs.Options(Codec.ZSTD)))
    assert len(made.data) < 300_000 + 65536
    assert made.listing()["a"].size == 300_000


def test_what_is_packed_needs_less_room():
    entries = [file(f"{n}", text(131072 * 2 + 5000, n)) for n in range(20)]
    sizes = [len(written(entries, how=erofs.Options(codec))) for codec in (Codec.NONE, Codec.LZ4, Codec.ZSTD)]
    assert sizes == sorted(sizes, reverse=True)
    again = [*entries, *(file(f"again{n}", text(131072 * 2 + 5000, n)) for n in range(20))]
    assert len(written(again, how=erofs.Options(Codec.ZSTD))) < sizes[2] + 8 * 4096  # nothing but inodes


def test_data_stays_in_its_file(tmp_path: Path):
    data = noise(3 << 20)
    (tmp_path / "layer").write_bytes(data)
    layer = str(tmp_path / "layer")
    made = volume([Entry("a", Kind.FILE, source=Extent(layer, 100, 100000)),
                   Entry("b", Kind.FILE, source=Extent(layer, 5, 2 << 20)),
                   Entry("c", Kind.FILE, source=Extent(layer, 1, 50))])  # fmt: skip
    assert {p for p in made if p.path} == {
        Piece(98304, layer, 100), Piece(100000 - 98304, layer, 100 + 98304), Piece(2 << 20, layer, 5),
        Piece(50, layer, 1),
    }  # fmt: skip
    assert sum(len(p.data) for p in made) < 3 * 4096


def test_the_same_content_is_stored_once(tmp_path: Path):
    data = noise(100000)
    (tmp_path / "layer").write_bytes(data + data)
    layer = str(tmp_path / "layer")
    extents = [Extent(layer, 0, 100000), Extent(layer, 0, 100000), Extent(layer, 100000, 100000)]
    entries = [Entry(str(n), Kind.FILE, source=s) for n, s in enumerate(extents)]
    one = size_of(volume(entries[:1]))
    assert size_of(volume([*entries, file("4", data)])) == one + 4096  # the ends of three more
    assert size_of(volume([*entries[:1], Entry("x", Kind.FILE, source=Extent(layer, 50000, 100000))])) > one + 90000


def test_attributes_that_are_alike_are_stored_once():
    value = b"system_u:object_r:etc_t:s0"
    entries = [file(f"{n:03}", xattrs=(("security.selinux", value),)) for n in range(300)]
    assert written(entries).count(value) == 1
    assert written([*entries[:1], file("x", xattrs=(("security.selinux", b"other"),))]).count(value) == 1


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (file("d/" + "n" * 256), "a name of 256 bytes"),
        (Entry("l", Kind.SYMLINK, target="t" * 4096), "a link of 4096 bytes"),
        (Entry("c", Kind.CHAR, device=(4096, 0)), "device 4096"),
        (Entry("c", Kind.CHAR, device=(0, 1 << 20)), "device 1048576"),
        (file("f", uid=1 << 32), "owner 4294967296"),
        (file("f", mtime=1 << 63), "time"),
        (file("f", xattrs=(("com.apple.x", b""),)), "attribute com.apple.x"),
        (file("f", xattrs=(("user." + "n" * 256, b""),)), "too long"),
        (file("f", xattrs=(("user.v", bytes(65536)),)), "too long"),
        (file("f", xattrs=tuple((f"user.{n}", noise(60000, n)) for n in range(5))), "too many"),
    ],
)
def test_what_it_cannot_hold(entry, message):
    with pytest.raises(InputError, match=message) as caught:
        volume([entry])
    assert caught.value.message.startswith(entry.path[:50])


def test_a_label_that_is_too_long():
    with pytest.raises(ValueError, match="16 bytes"):
        volume([], label="x" * 17)


def test_a_source_that_became_shorter(tmp_path: Path):
    (tmp_path / "layer").write_bytes(bytes(1000))
    for size in (5000, 2 << 20):
        with pytest.raises(ImageError, match="became shorter"):
            written([Entry("a", Kind.FILE, source=Extent(str(tmp_path / "layer"), 0, size))])


# -- zeros


def sparse(path: Path, size: int, islands: dict[int, bytes], *, before: int = 0) -> Extent:
    with open(path, "wb") as out:
        out.write(b"b" * before)
        for at, data in islands.items():
            out.seek(before + at)
            out.write(data)
        out.truncate(before + size + 10)
    return Extent(str(path), before, size)


ISLANDS = {0: b"start", 700001: noise(200), 2 << 20: bytes(UNIT) + b"x", (5 << 20) - 1: b"e"}


@pytest.mark.parametrize("before", [0, 513])
def test_zeros_are_found_whatever_the_source(tmp_path: Path, before):
    size = (5 << 20) + 77
    holes = content(sparse(tmp_path / "sparse", size, ISLANDS, before=before))
    data = b"".join(read(holes))
    (tmp_path / "full").write_bytes(b"b" * before + data)
    full = content(Extent(str(tmp_path / "full"), before, size))
    for other in (full, content(Bytes(data)), content(Islands(size, ISLANDS))):
        assert b"".join(read(other)) == data
        assert [(p.size, p.is_hole) for p in merged(other)] == [(p.size, p.is_hole) for p in merged(holes)]
    assert sum(p.size for p in holes if not p.is_hole) == 5 * UNIT - UNIT


def merged(pieces: list[Piece]) -> list[Piece]:
    made: list[Piece] = []
    for piece in pieces:
        if made and made[-1].is_hole == piece.is_hole:
            piece = Piece(made.pop().size + piece.size, data=b"" if piece.is_hole else b"x")
        made.append(piece)
    return made


def test_without_a_way_to_ask_for_holes(tmp_path: Path, monkeypatch):
    source = sparse(tmp_path / "sparse", 3 << 20, ISLANDS)
    usual = content(source)
    monkeypatch.delattr(os, "SEEK_DATA")
    assert content(source) == usual


def test_small_and_dense_files_are_not_cut():
    assert chunked(content(Bytes(bytes(15 * UNIT))), 15 * UNIT) is None
    assert chunked(content(Bytes(noise(17 * UNIT))), 17 * UNIT) is None


@given(st.lists(st.booleans(), min_size=16, max_size=80), st.integers(1, UNIT))
def test_chunks_hold_the_content(units, rest):
    size = (len(units) - 1) * UNIT + rest
    pieces = [hole(min(UNIT, size - n * UNIT)) if zero else Piece(min(UNIT, size - n * UNIT), "file", n * UNIT)
              for n, zero in enumerate(units)]  # fmt: skip
    made = chunked(pieces, size)
    if not any(units):
        assert made is None
        return
    width = 4096 << made.format
    assert len(made.starts) == -(-size // width)
    assert size_of(made.run.pieces) <= made.run.blocks * 4096 < size_of(made.run.pieces) + 4096
    found = [p for p in made.run.pieces if not p.is_hole]
    assert found == [p for p in pieces if not p.is_hole]
    at = 0  # each stored chunk begins where its pieces do
    places = {}
    for piece in made.run.pieces:
        if not piece.is_hole:
            places[piece.offset] = at
        at += piece.size
    for offset, at in places.items():
        start = made.starts[offset // width]
        assert start is not None
        assert start * 4096 + offset % width == at


def test_a_large_file_of_little_has_large_chunks():
    pieces = [Piece(UNIT, "file"), hole((64 << 30) - UNIT)]
    made = chunked(pieces, 64 << 30)
    assert 4 * len(made.starts) + made.run.blocks * 4096 < 9 << 20
    assert 4096 << made.format > erofs_data.UNIT


@given(st.lists(st.integers(1, 300) | st.integers(1, 9000), max_size=200))
def test_places_do_not_overlap(sizes):
    places = Places()
    found = sorted((places.place(size), size) for size in sizes)
    at = 4096
    for start, size in found:
        assert start >= at
        assert start % 32 == 0
        assert start % 4096 + size <= 4096 or start % 4096 == 0
        at = start + size
    assert at <= places.end
    assert places.end % 4096 == 0
