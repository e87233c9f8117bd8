"""Entries → tree."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linuxkit.encode.tree import MAX_DEPTH, Node, tree, walk
from linuxkit.entry import Bytes, Entry, Kind
from linuxkit.errors import ImageError

pytestmark = pytest.mark.unit


def file(path: str, content: bytes = b"") -> Entry:
    return Entry(path, Kind.FILE, source=Bytes(content))


def paths(root: Node) -> list[str]:
    return [path for path, _ in walk(root)]


def at(root: Node, path: str) -> Node:
    return dict(walk(root))[path]


def test_parents_are_made_and_named():
    root = tree([file("usr/bin/sh")])
    assert paths(root) == ["", "usr", "usr/bin", "usr/bin/sh"]
    made = at(root, "usr/bin").entry
    assert (made.path, made.kind, made.mode) == ("usr/bin", Kind.DIRECTORY, 0o755)


@pytest.mark.parametrize("path", ["", ".", "/"])
def test_the_root_itself(path):
    root = tree([Entry(path, Kind.DIRECTORY, 0o1777), file("a")])
    assert paths(root) == ["", "a"]
    assert (root.entry.path, root.entry.mode) == ("", 0o1777)


def test_a_later_entry_replaces_an_earlier_one():
    root = tree([file("a", b"1"), Entry("d", Kind.DIRECTORY, 0o700), file("d/x"), Entry("d", Kind.DIRECTORY, 0o711),
                 file("a", b"22"), Entry("d/x", Kind.SYMLINK, target="../a")])  # fmt: skip
    assert at(root, "a").entry.size == 2
    assert at(root, "d").entry.mode == 0o711
    assert at(root, "d/x").entry.kind is Kind.SYMLINK


def test_a_directory_in_place_of_a_link_and_a_file_in_place_of_a_directory():
    root = tree(
        [Entry("bin", Kind.SYMLINK, target="usr"), Entry("bin", Kind.DIRECTORY), file("bin/x"), file("d/y"), file("d")]
    )
    assert paths(root) == ["", "bin", "bin/x", "d"]


def test_a_hard_link_is_the_same_node():
    root = tree([file("b"), Entry("a", Kind.HARDLINK, target="b"), Entry("c/d", Kind.HARDLINK, target="/a")])
    assert at(root, "a") is at(root, "b") is at(root, "c/d")
    assert at(root, "b").links == 3


@pytest.mark.parametrize("target", ["missing", "d", "x/y"])
def test_a_hard_link_to_nothing(target):
    with pytest.raises(ImageError, match="hard link"):
        tree([Entry("d", Kind.DIRECTORY), Entry("a", Kind.HARDLINK, target=target)])


@pytest.mark.parametrize("target", ["usr/bin", "/usr/bin", "./usr//bin/", "usr/lib/../bin", "/../usr/bin", "up/bin"])
def test_a_path_through_a_link_stays_inside(target):
    links = [Entry("bin", Kind.SYMLINK, target=target), Entry("up", Kind.SYMLINK, target="../../usr")]
    root = tree([Entry("usr/bin", Kind.DIRECTORY), Entry("usr/lib", Kind.DIRECTORY), *links, file("bin/sh")])
    assert at(root, "usr/bin/sh").entry.path == "bin/sh"
    assert at(root, "bin").entry.kind is Kind.SYMLINK


def test_a_link_that_leads_nowhere_yet_gets_its_directory():
    assert "run/lock/x" in paths(tree([Entry("lock", Kind.SYMLINK, target="/run/lock"), file("lock/x")]))


def test_links_in_a_circle_end():
    with pytest.raises(ImageError, match="below"):
        tree([Entry("a", Kind.SYMLINK, target="b"), Entry("b", Kind.SYMLINK, target="a"), file("a/x")])


def test_below_a_file():
    with pytest.raises(ImageError, match="a/b lies below a"):
        tree([file("a"), file("a/b")])


def test_too_deep():
    with pytest.raises(ImageError, match="directories deep"):
        tree([file("d/" * (MAX_DEPTH + 1) + "x")])


def test_links_and_numbers():
    root = tree([file("b/x"), Entry("b/c", Kind.DIRECTORY), Entry("a", Kind.DIRECTORY)])
    assert (root.links, at(root, "b").links, at(root, "a").links, at(root, "b/x").links) == (4, 3, 2, 1)
    assert [node.inode for _, node in walk(root)] == [1, 2, 3, 4, 5]


NAMES = st.sampled_from(["a", "b", "ä", "z\udcff", "c.d"])


@given(
    st.dictionaries(st.lists(NAMES, min_size=1, max_size=3).map("/".join), st.integers(0, 9), max_size=12), st.randoms()
)
def test_the_order_of_entries_does_not_matter(modes, random):
    entries = [Entry(path, Kind.DIRECTORY, mode) for path, mode in modes.items()]
    shuffled = random.sample(entries, len(entries))
    one, other = tree(entries), tree(shuffled)
    assert [(p, n.entry, n.inode, n.links) for p, n in walk(one)] == [
        (p, n.entry, n.inode, n.links) for p, n in walk(other)
    ]
    ordered = [p.encode("utf-8", "surrogateescape").split(b"/") for p in paths(one)]
    assert ordered == sorted(ordered)
