"""FAT volumes: names, geometry, limits, and a second reader that was written from the specification alone."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linuxkit.encode import fat, fat_names
from linuxkit.encode.pieces import Piece, literal, read, size_of
from linuxkit.errors import ImageError, InputError
from support.fatread import read_volume

pytestmark = pytest.mark.unit

SEED = "sha256:seed"


def whole(volume: fat.Volume) -> bytes:
    data = b"".join(read(volume.pieces))
    assert len(data) == volume.size
    return data


def make(files: dict[str, bytes], **more) -> fat.Volume:
    return fat.volume({k: [literal(v)] if v else [] for k, v in files.items()}, seed=SEED, **more)


@pytest.mark.parametrize("bits", [12, 16, 32])
def test_a_tree_is_read_back(bits):
    files = {
        "KERNEL": b"k" * 70_000,
        "EFI/BOOT/BOOTX64.EFI": b"MZ" * 4000,
        "EFI/Linux/linuxkit.efi": bytes(range(256)) * 333,
        "loader/loader.conf": b"timeout 0\n",
        "a rather long name.tar.gz": b"x",
        "empty": b"",
        "Ünïcødé 😀.txt": b"u",
    }
    volume = make(files, bits=bits, label="ESP")
    assert volume.bits == bits
    found = read_volume(whole(volume))
    assert found.bits == bits
    assert found.files == files
    assert found.label == "ESP"
    for path, data in files.items():
        sectors = volume.sectors(path)
        got = whole(volume)[sectors.start * 512 : sectors.stop * 512]
        assert got.startswith(data) and len(sectors) == -(-len(data) // 512)


NAME = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters='"*/:<>?\\|'), min_size=1, max_size=40)
PATH = st.lists(NAME.filter(lambda n: n[-1] not in ". "), min_size=1, max_size=3).map("/".join)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(PATH, st.binary(max_size=3000), max_size=12), st.sampled_from([0, 12, 16]))
def test_any_tree_is_read_back_or_refused(files, bits):
    try:
        volume = make(files, bits=bits)
    except ImageError as e:
        assert "differ in case" in e.message or "folder" in e.message or "longer" in e.message
        return
    assert read_volume(whole(volume)).files == files


def test_many_long_names_get_short_ones_that_differ():
    names = [f"a long name number {n}.service" for n in range(1500)] + ["ALONGN~7.SER"]
    volume = make({f"units/{n}": n.encode() for n in names})
    found = read_volume(whole(volume))
    assert found.files == {f"units/{n}": n.encode() for n in names}
    assert len(set(found.short["units"])) == len(names)


@pytest.mark.parametrize("path", ["a:b", "x/..", "a//b", "dot.", "space ", "n" * 256, "\udcff", "tab\t"])
def test_what_fat_cannot_hold_is_named(path):
    with pytest.raises(ImageError) as caught:
        make({path: b"x"})
    assert (path.split("/")[0] or path) in caught.value.message or repr(path) in caught.value.message


def test_the_longest_name_fits():
    files = {"n" * 255: b"1", "ü" * 255: b"2"}
    assert read_volume(whole(make(files))).files == files


def test_clashes():
    with pytest.raises(ImageError, match="ReadMe and README differ in case"):
        make({"README": b"", "ReadMe": b""})
    with pytest.raises(ImageError, match="efi and EFI differ"):
        make({"EFI/a": b"", "efi/x": b""})
    with pytest.raises(ImageError, match="folder"):
        make({"a": b"", "a/b": b""})


def test_four_gibibytes():
    big = Piece((1 << 32) - 1, path="/nowhere")
    volume = fat.volume({"big": [big]}, seed=SEED)
    assert volume.bits == 32 and volume.size > 1 << 32
    assert sum(len(p.data) for p in volume.pieces) < 10 << 20
    with pytest.raises(ImageError, match=r"huge.*4 GiB"):
        fat.volume({"huge": [big, literal(b"x")]}, seed=SEED)


@pytest.mark.parametrize(("mib", "bits"), [(1, 12), (15, 12), (100, 16), (600, 32), (40 << 10, 32)])
def test_a_size_that_is_asked_for(mib, bits):
    size = mib << 20
    volume = make({"a": b"x"}, size=size)
    assert (volume.size, volume.bits) == (size, bits)
    head = next(read(volume.pieces))
    total = struct.unpack_from("<H", head, 19)[0] or struct.unpack_from("<I", head, 32)[0]
    assert total * 512 == size


def test_too_small():
    with pytest.raises(InputError, match="don't fit into"):
        make({"a": b"x" * 2_000_000}, size=1 << 20)


def test_free_room_and_minimum():
    small = make({"a": b"x"}, bits=32)
    assert 32 << 20 < small.size < 34 << 20
    assert read_volume(whole(small)).clusters >= 65525
    assert make({"a": b"x"}, free=5 << 20).size >= 5 << 20


def test_first_comes_first_and_the_boot_sector_is_taken():
    code = bytes(range(256)) * 2
    for bits, start in ((16, 62), (32, 90)):
        volume = make({"a": b"1" * 5000, "z/ldlinux.sys": b"2" * 5000}, bits=bits, first=["z/ldlinux.sys"],
                      boot_sector=code, hidden=2048)  # fmt: skip
        assert volume.sectors("z/ldlinux.sys").start < volume.sectors("a").start
        data = whole(volume)
        assert data[:11] == code[:11] and data[start:510] == code[start:510] and data[510:512] == b"\x55\xaa"
        assert struct.unpack_from("<I", data, 28)[0] == 2048
        if bits == 32:
            assert data[6 * 512 : 8 * 512] == data[: 2 * 512]


def test_the_seed_alone_gives_the_serial():
    one, two = (fat.volume({"a": [literal(b"x")]}, seed=s) for s in ("1", "2"))
    assert one == fat.volume({"a": [literal(b"x")]}, seed="1")
    a, b = whole(one), whole(two)
    assert [i for i in range(len(a)) if a[i] != b[i]] and a[:39] + a[43:] == b[:39] + b[43:]


def test_label_and_times():
    with pytest.raises(ImageError, match="label"):
        make({}, label="much too long")
    assert fat_names.dos_time(0) == fat_names.dos_time(315532800)
    assert fat_names.dos_time(1492533000) == (37 << 9 | 4 << 5 | 18, 16 << 11 | 30 << 5)


def test_content_stays_where_it_is():
    volume = fat.volume({"a": [Piece(1 << 30, path="/cache/x", offset=7)]}, seed=SEED)
    assert Piece(1 << 30, path="/cache/x", offset=7) in volume.pieces
    assert size_of(p for p in volume.pieces if p.data) < 4 << 20
