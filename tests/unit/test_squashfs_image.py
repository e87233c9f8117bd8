"""squashfs: what can be told without another program's help."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path

import pytest

from linuxkit.encode import squashfs
from linuxkit.encode.compress import Codec
from linuxkit.encode.pieces import Piece, read
from linuxkit.encode.squashfs_data import Memory, Packed
from linuxkit.encode.tree import tree
from linuxkit.entry import Bytes, Entry, Extent, Kind, Source
from linuxkit.errors import ImageError, InputError
from support.trees import CASES, Islands, file, noise, text

pytestmark = pytest.mark.unit
CODECS = [Codec.NONE, Codec.GZIP, Codec.ZSTD, Codec.LZ4, Codec.XZ]


def made(entries: list[Entry], how: squashfs.Options | None = None, **more: object) -> bytes:
    return b"".join(read(squashfs.image(tree(entries), how or squashfs.Options(), **more)))  # type: ignore[arg-type]


def superblock(image: bytes) -> tuple[int, ...]:
    """magic, inodes, time, block size, fragments, codec, log, flags, ids, major, minor, root, bytes, tables…"""
    return struct.unpack_from("<IIIIIHHHHHH8Q", image)


@pytest.mark.parametrize("codec", CODECS)
def test_the_superblock(codec: Codec) -> None:
    image = made([file("a", text(300000)), file("b")], squashfs.Options(codec))
    magic, inodes, time, block, fragments, number, log, flags, ids, major, minor, _, used, *tables = superblock(image)
    assert (magic, inodes, time, block, fragments, log, ids) == (0x73717368, 3, 1492533000, 131072, 1, 17, 1)
    assert (major, minor) == (4, 0)
    assert number == {"none": 1, "gzip": 1, "zstd": 6, "lz4": 5, "xz": 4}[codec]
    assert len(image) % 4096 == 0
    assert 0 <= len(image) - used < 4096
    export, xattrs = tables[6 - 1], tables[1]
    assert xattrs == (1 << 64) - 1
    assert tables[2] < tables[3] < tables[4] < export < tables[0] < used
    assert bool(flags & 0x400) == (codec in (Codec.GZIP, Codec.ZSTD, Codec.LZ4))


@pytest.mark.parametrize(
    ("codec", "block_size"), [*((codec, 131072) for codec in CODECS), (Codec.ZSTD, 4096), (Codec.LZ4, 1 << 20)]
)
def test_the_same_with_any_number_of_threads(codec: Codec, block_size: int) -> None:
    entries = [*CASES["sizes"], file("big", noise(3 << 20)), *(file(f"small/{n}", noise(9000, n)) for n in range(99))]
    how = squashfs.Options(codec, 0 if codec is Codec.XZ else None, block_size)
    images = {made(entries, how, threads=n) for n in (1, 2)}
    assert len(images) == 1


def test_the_order_of_entries_does_not_matter() -> None:
    entries = list(CASES["sizes"])
    assert made(entries) == made(entries[::-1])


def test_levels() -> None:
    entries = [file("a", text(300000))]
    sizes = [len(made(entries, squashfs.Options(Codec.ZSTD, level))) for level in (1, 19)]
    assert sizes[0] > sizes[1]
    with pytest.raises(InputError, match="zstd has no level 23"):
        made(entries, squashfs.Options(Codec.ZSTD, 23))


@pytest.mark.parametrize("size", [0, 2048, 5000, 2 << 20])
def test_no_such_block_size(size: int) -> None:
    with pytest.raises(ValueError, match="block"):
        made([], squashfs.Options(block_size=size))


@pytest.mark.parametrize("size", [500, 131072, 300000, 5 << 20])
def test_a_file_that_comes_again_costs_nothing(size: int) -> None:
    once = made([file("a", noise(size)), *(file(f"x{n}") for n in range(9))])
    again = made([file("a", noise(size)), *(file(f"x{n}", noise(size)) for n in range(9))])
    assert len(again) - len(once) <= 4096


def test_zeros_cost_nothing() -> None:
    image = made([Entry("big", Kind.FILE, source=Islands(64 << 20)), file("small", bytes(200000))])
    assert len(image) == 4096
    assert superblock(image)[4] == 0  # and there is no fragment


def test_small_files_share_a_block() -> None:
    image = made([file(f"{n}", noise(1000, n)) for n in range(100)])
    assert superblock(image)[4] == 1
    assert len(image) < 110_000


def test_what_does_not_get_smaller_is_stored() -> None:
    image = made([file("a", noise(400000))])
    assert noise(400000)[:131072] in image
    assert len(image) <= 400000 + 4096


# -- names, links and numbers


def test_a_name_that_is_too_long() -> None:
    made([file("a/" + "n" * 256)])
    with pytest.raises(InputError, match=r"a/nnn.*257 bytes") as e:
        made([file("a/" + "n" * 257)])
    assert e.value.exit_code == 2
    with pytest.raises(InputError, match="258 bytes"):
        made([file("ä" * 129)])


def test_a_link_that_is_too_long() -> None:
    made([Entry("a", Kind.SYMLINK, target="t" * 4095)])
    with pytest.raises(InputError, match="a is a link with 4096 bytes"):
        made([Entry("a", Kind.SYMLINK, target="t" * 4096)])


@pytest.mark.parametrize("device", [(4096, 0), (0, 1 << 20), (-1, 0)])
def test_a_device_that_linux_has_not(device: tuple[int, int]) -> None:
    with pytest.raises(InputError, match="dev/x: Linux has no device"):
        made([Entry("dev/x", Kind.CHAR, device=device)])


@pytest.mark.parametrize(
    ("xattr", "says"),
    [
        (("system.posix_acl_access", b"x"), "system.posix_acl_access"),
        (("user", b"x"), "attribute user"),
        (("user." + "n" * 251, b"x"), "longer"),
        (("user.a", bytes(65537)), "longer"),
    ],
)
def test_an_attribute_that_cannot_be_held(xattr: tuple[str, bytes], says: str) -> None:
    with pytest.raises(InputError, match=f"etc/f: .*{says}"):
        made([file("etc/f", xattrs=(xattr,))])


def test_too_many_owners() -> None:
    entries = [file(f"{n:05}", uid=2 * n, gid=2 * n + 1) for n in range(32768)]
    with pytest.raises(InputError, match="32767: squashfs holds 65535 different owners"):
        made(entries)


@pytest.mark.parametrize("owner", [{"uid": 1 << 32}, {"gid": 1 << 40}, {"gid": -1}])
def test_an_owner_that_cannot_be_held(owner: dict[str, int]) -> None:
    with pytest.raises(InputError, match="etc/f: the owner or group"):
        made([file("etc/f", **owner)])


def test_times_outside_of_the_format() -> None:
    clamped = made([file("a", mtime=0), file("b", mtime=2**32 - 1)])
    assert made([file("a", mtime=-5), file("b", mtime=1 << 40)]) == clamped


# -- where contents come from, and the shelf


class Kept(Memory):
    """A Shelf in a file, which remembers."""

    def __init__(self, path: Path) -> None:
        self.path, self.known = path, dict[tuple[str, str], Packed]()
        self.hits = self.added = 0
        path.touch()

    def get(self, group: str, key: str) -> Packed | None:
        found = self.known.get((group, key))
        self.hits += found is not None
        return found

    def add(self, data: bytes) -> Piece:
        with open(self.path, "ab") as out:
            out.write(data)
            self.added += len(data)
            return Piece(len(data), str(self.path), out.tell() - len(data))

    def note(self, group: str, key: str, packed: Packed) -> None:
        self.known[group, key] = packed


def archive(path: Path, contents: list[bytes]) -> list[Source]:
    """A file with some contents in it, 512 bytes apart, as an archive has them."""
    found: list[Source] = []
    with open(path, "wb") as out:
        for content in contents:
            out.write(bytes(512))
            found.append(Extent(str(path), out.tell(), len(content)))
            out.write(content)
    return found


def system(folder: Path) -> list[Entry]:
    bodies = [text(n, n) for n in (10, 5000, 131072, 131073, 400000, 3 << 20, 70000)] + [bytes(200000), noise(300000)]
    small = [text(90, n) for n in range(500)]
    sources = archive(folder / "one", bodies) + archive(folder / "two", [*bodies[:3], *small])
    entries = [Entry(f"d{n % 7}/{n}", Kind.FILE, source=s) for n, s in enumerate(sources)]
    return [*entries, Entry("twin", Kind.FILE, source=sources[4]), file("config", b"made by the builder")]


def test_the_shelf_changes_no_byte(tmp_path: Path) -> None:
    entries, shelf = system(tmp_path), Kept(tmp_path / "blocks")
    plain = made(entries)
    assert made(entries, shelf=shelf) == plain
    assert shelf.hits == 0
    first = shelf.added
    assert made(entries, shelf=shelf) == plain
    assert shelf.hits > 500
    assert shelf.added - first < 100  # what is no run of a file
    for forgotten in list(shelf.known)[::3]:  # fragments among them
        del shelf.known[forgotten]
    assert made(entries, shelf=shelf, threads=1) == plain


def test_a_change_in_one_archive_moves_nothing_of_another(tmp_path: Path) -> None:
    entries, shelf = system(tmp_path), Kept(tmp_path / "blocks")
    made(entries, shelf=shelf)
    first = shelf.added
    changed = [e for e in entries if not (isinstance(e.source, Extent) and e.source.file.endswith("/two"))]
    changed += [Entry("new", Kind.FILE, source=s) for s in archive(tmp_path / "three", [b"new" * 99])]
    assert made(changed, shelf=shelf) == made(changed)
    assert shelf.added - first < 400


def test_a_large_file_is_never_whole_in_memory(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(noise(96 << 20))
    entries = [Entry("a", Kind.FILE, source=Extent(str(tmp_path / "a"), 0, 96 << 20))]
    tracemalloc.start()
    try:
        squashfs.image(tree(entries), squashfs.Options(Codec.LZ4), shelf=Kept(tmp_path / "blocks"))
        assert tracemalloc.get_traced_memory()[1] < 40 << 20
    finally:
        tracemalloc.stop()


def test_a_fragment_of_known_contents_is_read_again(tmp_path: Path) -> None:
    entries, shelf = system(tmp_path), Kept(tmp_path / "blocks")
    made(entries, shelf=shelf)
    fewer = [e for e in entries if e.path != "d3/10"]
    assert made(fewer, shelf=shelf) == made(fewer)


def test_a_content_that_ends_early(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(10) + noise(100))
    for size in (500, 2_000_000):
        with pytest.raises(ImageError, match="became shorter"):
            made([Entry("f", Kind.FILE, source=Extent(str(tmp_path / "a"), 0, size))])

    class Liar(Bytes):
        @property
        def size(self) -> int:
            return 5000

        def open(self):  # type: ignore[no-untyped-def]
            return Bytes(b"few").open()

    class Stream:
        size = 5000
        open = Liar(b"few").open

    with pytest.raises(ImageError, match="became shorter"):
        made([Entry("f", Kind.FILE, source=Stream())])


def test_literal_pieces_only_where_nothing_is_kept(tmp_path: Path) -> None:
    shelf = Kept(tmp_path / "blocks")
    pieces = squashfs.image(tree(system(tmp_path)), squashfs.Options(), shelf=shelf)
    assert sum(len(p.data) for p in pieces) < 20_000
    assert len(pieces) < 60
