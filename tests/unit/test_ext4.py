"""ext4: what it refuses, sizes, holes, checksums. That it is ext4 is judged by e2fsck, debugfs and Linux elsewhere."""

from __future__ import annotations

import itertools
import os
import random
import struct
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linuxkit.encode import ext4, ext4_inode, ext4_xattr
from linuxkit.encode.ext4_checksum import checksum, of_many
from linuxkit.encode.ext4_data import UNIT, data_runs
from linuxkit.encode.ext4_inode import extent_tree, extents, tree_blocks
from linuxkit.encode.ext4_layout import BLOCK, GROUP, Allocator, FullError, Layout, Run, has_superblock
from linuxkit.encode.pieces import Piece, cut, hole, literal, read, size_of
from linuxkit.encode.tree import tree
from linuxkit.entry import Bytes, Entry, Extent, Kind
from linuxkit.errors import ImageError, InputError
from linuxkit.outputs.pieces import put
from support.trees import CASES, file

pytestmark = pytest.mark.unit
MIB = 1 << 20


def data(pieces: list[Piece], at: int, size: int) -> bytes:
    return b"".join(read(cut(pieces, at, size)))


@given(st.integers(1, 40), st.integers(0, 70), st.randoms(use_true_random=False))
def test_many_checksums_are_those_of_each(count: int, size: int, chance: random.Random) -> None:
    messages = chance.randbytes(count * size)
    starts = [chance.getrandbits(32) for _ in range(count)]
    each = [checksum(messages[n * size : (n + 1) * size], start) for n, start in enumerate(starts)]
    assert of_many(messages, starts) == each


def test_the_checksum_is_not_inverted() -> None:
    assert checksum(b"123456789") == 0xE3069283 ^ 0xFFFFFFFF
    assert of_many(b"", []) == []
    with pytest.raises(ValueError, match="7 bytes are not 2 messages"):
        of_many(bytes(7), [0, 0])


def test_groups_with_a_copy_of_the_superblock() -> None:
    assert [g for g in range(130) if has_superblock(g)] == [0, 1, 3, 5, 7, 9, 25, 27, 49, 81, 125]


@given(st.integers(1, 40 * GROUP), st.integers(1, 2048).map(lambda n: n * 16), st.booleans())
def test_blocks_are_used_once(blocks: int, per_group: int, reserve: bool) -> None:
    layout = Layout(blocks, per_group, reserve)
    if not layout.is_sound():
        return
    free = list(layout.free())
    assert sum(run.blocks for run in free) == blocks - layout.metadata()
    assert all(a.start + a.blocks < b.start for a, b in itertools.pairwise(free))
    taken = set[int]()
    for group in range(layout.groups):
        bitmap, inodes, table = layout.places(group)
        mine = {bitmap, inodes, *range(table, table + layout.table)}
        mine |= set(range(group * GROUP, group * GROUP + layout.copies(group)))
        assert not mine & taken
        taken |= mine
    assert len(taken) == layout.metadata()
    assert not any(run.start in taken or run.start + run.blocks - 1 in taken for run in free)


def test_the_allocator_says_when_it_is_full() -> None:
    layout = Layout(3 * GROUP, 16)
    allocator = Allocator(layout)
    first = allocator.take(1)[0]
    rest = allocator.take(3 * GROUP - layout.metadata() - 1)
    assert first.start == layout.overhead(0)
    assert [run.start + run.blocks for run in rest] == [GROUP, 3 * GROUP]
    with pytest.raises(FullError):
        allocator.take(1)


@pytest.mark.parametrize(("count", "blocks"), [(0, 0), (4, 0), (5, 1), (340, 1), (341, 2), (1360, 4), (1361, 6)])
def test_trees_of_extents(count: int, blocks: int) -> None:
    assert tree_blocks(count) == blocks
    numbers = iter(range(1000, 2000))
    found = extents([Run(2 * n, 1) for n in range(count)], [Run(5000 + 3 * n, 1) for n in range(count)])
    root, made = extent_tree(found, lambda n: [Run(next(numbers), 1) for _ in range(n)], 7, 12)
    assert len(made) == blocks
    assert len(root) == 60
    leaves = [made[n] for n in sorted(made)] or [root]
    logical = []
    for leaf in leaves:
        _, entries, _, depth, _ = struct.unpack_from("<HHHHI", leaf)
        if depth == 0:
            logical += [struct.unpack_from("<I", leaf, 12 + 12 * n)[0] for n in range(entries)]
    assert logical == [2 * n for n in range(count)]


def test_an_extent_is_at_most_128_mib() -> None:
    found = extents([Run(0, 70000)], [Run(100, 50000), Run(60000, 20000)])
    assert found == [(0, 100, 32768), (32768, 32868, 17232), (50000, 60000, 20000)]


def test_more_than_65000_links_are_many_for_a_directory() -> None:
    entry = Entry("d", Kind.DIRECTORY, 0o755)
    for links, stored in ((65000, 65000), (65001, 1)):
        made = ext4_inode.record(entry, links=links, size=BLOCK, content=bytes(60), blocks=1)
        assert struct.unpack_from("<H", made, 0x1A) == (stored,)


@pytest.mark.parametrize(
    ("mtime", "low", "extra"),
    [(0, 0, 0), (2**31 - 1, 2**31 - 1, 0), (2**31, 2**31, 1), (2**33, 0, 2), (-1, 2**32 - 1, 0), (2**40, 2**31 - 1, 3)],
)
def test_times_beyond_2038(mtime: int, low: int, extra: int) -> None:
    made = ext4_inode.record(file("x", mtime=mtime), links=1, size=0, content=bytes(60), blocks=0)
    assert struct.unpack_from("<I", made, 0x10) == (low,)
    assert struct.unpack_from("<I", made, 0x88) == (extra,)


UNITS = st.lists(st.sampled_from([b"", b"\1", b"\0" * 9 + b"x"]), max_size=12)


@given(UNITS, st.integers(0, UNIT - 1), st.booleans())
def test_holes_are_told_from_the_bytes(tmp_path_factory: pytest.TempPathFactory, units, rest, in_file) -> None:
    content = b"".join(u.ljust(UNIT, b"\0") for u in units) + bytes(rest)
    pieces = [literal(content)] if content else []
    if in_file:
        path = tmp_path_factory.mktemp("holes") / "f"
        with open(path, "wb") as out:  # sparse where the host can, and not at the start
            put([literal(b"abc"), *(literal(u) if u else hole(UNIT) for u in
                                    (u.ljust(UNIT, b"\0") if u else b"" for u in units)), hole(rest)], out)  # fmt: skip
        pieces = [Piece(len(content), os.fspath(path), 3)] if content else []
    runs = data_runs(pieces)
    kept = {block for run in runs for block in range(run.start, run.start + run.blocks)}
    per = UNIT // BLOCK
    want = {n for i, u in enumerate(units) if u for n in range(i * per, (i + 1) * per)}
    last = len(units) * per
    want |= set(range(last, last + -(-rest // BLOCK)))
    assert kept == want
    assert all(a.start + a.blocks < b.start for a, b in itertools.pairwise(runs))


def test_a_source_that_became_shorter(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(bytes(100))
    with pytest.raises(ImageError, match="became shorter"):
        data_runs([Piece(UNIT, os.fspath(tmp_path / "f"))])


def test_content_is_not_copied(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x" * 300_000)
    entry = Entry("big", Kind.FILE, source=Extent(os.fspath(tmp_path / "f"), 100, 200_000))
    pieces = ext4.filesystem(tree([entry]), seed="s")
    assert [(p.size, p.offset) for p in pieces if p.path] == [(200_000, 100)]
    assert size_of(pieces) % BLOCK == 0


def test_the_same_twice_and_another_seed() -> None:
    made = [ext4.filesystem(tree(CASES["kinds"]), seed=seed, writable=True) for seed in ("a", "a", "b")]
    assert made[0] == made[1]
    assert made[0] != made[2]
    assert data(made[0], 1024 + 0x68, 16).hex() == ext4.uuid("a").replace("-", "")
    assert ext4.uuid("a") != ext4.uuid("b")
    assert ext4.uuid("a")[14] == "8"


def test_an_empty_one_of_100_gib_is_quick_and_small() -> None:
    started = time.process_time()
    pieces = ext4.filesystem(tree([]), seed="s", size=100 << 30, writable=True)
    assert time.process_time() - started < 1
    assert size_of(pieces) == 100 << 30
    assert sum(p.size for p in pieces if not p.is_hole) < 4 * MIB


@pytest.mark.parametrize("writable", [False, True])
@pytest.mark.parametrize("free", [0, MIB, 200 * MIB, 5 << 30])
def test_what_was_asked_for_is_free(free: int, writable: bool) -> None:
    pieces = ext4.filesystem(tree(CASES["sizes"]), seed="s", free=free, writable=writable)
    blocks, _, left = struct.unpack_from("<III", data(pieces, 1024, 64), 4)
    assert blocks * BLOCK == size_of(pieces)
    assert free <= left * BLOCK <= free + free // 50 + MIB


@pytest.mark.parametrize("writable", [False, True])
def test_the_computed_size_is_enough_and_a_mib_less_is_refused(writable: bool) -> None:
    root = tree([file("f", b"x" * (3 * MIB))])
    needed = size_of(ext4.filesystem(root, seed="s", writable=writable))
    again = ext4.filesystem(root, seed="s", writable=writable, size=needed)
    assert size_of(again) == needed
    with pytest.raises(InputError, match=f"is asked for, and its content needs {needed}") as e:
        ext4.filesystem(root, seed="s", writable=writable, size=needed - MIB)
    assert e.value.hint == f"give it {-(-needed // MIB)}M, or more"


def test_a_size_that_is_no_multiple_of_a_block_ends_with_a_hole() -> None:
    pieces = ext4.filesystem(tree([]), seed="s", size=64 * MIB + 777)
    assert size_of(pieces) == 64 * MIB + 777
    assert struct.unpack("<I", data(pieces, 1024 + 4, 4)) == (64 * MIB // BLOCK,)


@pytest.mark.parametrize(
    ("entries", "what"),
    [
        ([file("a/" + "n" * 256)], "a/nnn.*: the name has 256 bytes, and ext4 holds 255"),
        ([file("a/x\0y")], "the name has a zero byte"),
        ([Entry("l", Kind.SYMLINK, target="t" * 4096)], "l: a symlink on ext4 has 1 to 4095 bytes, and this has 4096"),
        ([Entry("l", Kind.SYMLINK, target="")], "l: a symlink on ext4"),
        ([file("f", xattrs=(("com.other", b"1"),))], "f: ext4 can't hold an extended attribute .* 'com.other'"),
        ([file("f", xattrs=(("user.x", bytes(4100)),))], "f: its extended attributes have 4100 bytes"),
        ([file("f", xattrs=(("user." + "n" * 256, b""),))], "f: ext4 can't hold an extended attribute"),
        ([file("f", xattrs=(("system.posix_acl_access", b"\2\0\0\0\1"),))], "f: its access control list is damaged"),
        ([file("f"), *(Entry(f"g{n}", Kind.HARDLINK, target="f") for n in range(65000))], "f has 65001 names"),
        ([file("lost+found")], "/lost\\+found is no directory"),
        ([Entry("f", Kind.FILE, source=Extent("/dev/null", 0, 1 << 44))], "f has 17592186044416 bytes"),
    ],
)  # fmt: skip
def test_what_ext4_cannot_hold_is_named(entries: list[Entry], what: str) -> None:
    with pytest.raises(InputError, match=what) as e:
        ext4.filesystem(tree(entries), seed="s")
    assert e.value.message[0] != " "


@pytest.mark.parametrize(("arguments", "what"), [
    ({"label": "seventeen letters"}, "'seventeen letters' is too long for the label"),
    ({"size": 65 << 40}, "64 TiB is the most"),
    ({"size": 8192}, "8192 bytes is asked for"),
    ({"size": 20 * BLOCK, "writable": True}, "its content needs"),
])  # fmt: skip
def test_what_cannot_be_made(arguments: dict[str, object], what: str) -> None:
    with pytest.raises(InputError, match=what):
        ext4.filesystem(tree([]), seed="s", **arguments)  # type: ignore[arg-type]


def test_access_control_lists_have_a_form_of_their_own() -> None:
    none = 0xFFFFFFFF
    entries = [(0x01, 7, none), (0x02, 6, 1000), (0x04, 5, none), (0x10, 7, none), (0x20, 0, none)]
    seen = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *e) for e in entries)
    kept = ext4_xattr.stored((("system.posix_acl_access", seen),), "f").inside
    value = struct.pack("<IHHHHIHHHHHH", 1, 1, 7, 2, 6, 1000, 4, 5, 16, 7, 32, 0)
    assert kept.endswith(value)


def test_lost_and_found_of_the_tree_is_kept() -> None:
    inodes = ext4._inodes(tree([Entry("lost+found", Kind.DIRECTORY, 0o750), file("lost+found/x")]), writable=False)
    assert [(i.number, i.entry.path, i.entry.mode) for i in inodes] == [
        (2, "", 0o755), (11, "lost+found", 0o750), (12, "lost+found/x", 0o644),
    ]  # fmt: skip


def test_bytes_in_memory_may_be_large_files_too() -> None:
    pieces = ext4.filesystem(tree([Entry("f", Kind.FILE, source=Bytes(bytes(MIB) + b"x"))]), seed="s")
    assert sum(p.size for p in pieces if not p.is_hole) < 64 << 10
