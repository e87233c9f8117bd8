"""The parts of a root filesystem as one tree: every format comes to the same, and Linux unpacks it so."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linuxkit.encode import cpio
from linuxkit.encode.tree import tree, walk
from linuxkit.entry import Bytes, Entry, Kind, read_all
from linuxkit.errors import ImageError
from linuxkit.oci.derived import Derived
from linuxkit.oci.store import Store
from linuxkit.rootfs.content import Content
from linuxkit.rootfs.join import Joined, join
from linuxkit.rootfs.segment import Segment

pytestmark = pytest.mark.unit


def d(path: str, mode: int = 0o755) -> Entry:
    return Entry(path, Kind.DIRECTORY, mode)


def f(path: str, text: str = "x") -> Entry:
    return Entry(path, Kind.FILE, source=Bytes(text.encode()))


def s(path: str, target: str) -> Entry:
    return Entry(path, Kind.SYMLINK, 0o777, target=target)


def h(path: str, target: str) -> Entry:
    return Entry(path, Kind.HARDLINK, target=target)


def part(number: int, entries: Sequence[Entry], prefix: str = "") -> Segment:
    return Segment(f"part{number}", f"sha256:{number}", lambda: entries, prefix=prefix)


def joined(tmp_path: Path, *parts: Sequence[Entry] | Segment) -> Joined:
    store = Store(tmp_path / "cache")
    content = Content(store, Derived(store.root / "derived"))
    return join([p if isinstance(p, Segment) else part(n, p) for n, p in enumerate(parts)], content)


Seen = dict[str, tuple[str, str]]


def as_tree(segments: Sequence[Segment]) -> Seen:
    """As a file system has it: hard links as files."""
    found = {}
    for path, node in walk(tree(e for one in segments for e in one.entries())):
        entry = node.entry
        text = entry.target if entry.kind is Kind.SYMLINK else read_all(entry.source, 999).decode()
        found[path] = str(entry.kind), text
    del found[""]
    return found


def by_linux(segments: Sequence[Segment]) -> Seen:
    """As init/initramfs.c unpacks an initrd: no parents are made, links on the way are followed, types are replaced.
    What hard links became is read through."""
    found: Seen = {}
    for one in segments:
        archive: list[Entry] = list(one.entries())
        for entry in archive:
            assert entry.path == entry.path.strip("/")
            kind, text = str(entry.kind), entry.target
            if entry.kind is Kind.HARDLINK:
                kind, text = "l", cpio.relative(entry.path, entry.target)
            above = entry.path.rpartition("/")[0]
            assert not above or found.get(above, ("",))[0] == "d", f"{entry.path} would be lost, or go through a link"
            there = found.get(entry.path)
            if there is not None and (there[0] != kind or kind == "l"):
                assert there[0] != "d" or not any(p.startswith(f"{entry.path}/") for p in found), "not empty"
            found[entry.path] = kind, read_all(entry.source, 999).decode() if kind == "f" else text
    hard = {e.path for one in segments for e in one.entries() if e.kind is Kind.HARDLINK}
    for path in hard:
        kind, text = found[path]
        if kind == "l":
            import posixpath

            found[path] = found[posixpath.normpath(posixpath.join("/", posixpath.dirname(path), text)).lstrip("/")]
    return found


def both(made: Joined) -> Seen:
    """What every format makes of it."""
    found = as_tree(made.segments)
    assert by_linux(made.segments) == found
    return found


MERGED = [d("usr"), d("usr/lib"), f("usr/lib/ld.so"), s("lib", "usr/lib")]
MODULES = [d("lib"), d("lib/modules"), f("lib/modules/a.ko", "module")]


def test_parts_that_do_not_meet_stay_as_they_are(tmp_path: Path) -> None:
    parts = [part(0, MODULES), part(1, [d("lib"), f("lib/x"), s("link", "lib")]), part(2, [f("lib/x", "new")])]
    made = joined(tmp_path, *parts)
    assert all(one is other for one, other in zip(made.segments, parts, strict=True))
    assert both(made)["lib/x"] == ("f", "new")


@pytest.mark.parametrize("order", [(MODULES, MERGED), (MERGED, MODULES)], ids=["link after", "link before"])
def test_the_link_of_a_merged_usr_stays_and_modules_go_where_it_leads(tmp_path: Path, order: tuple) -> None:
    made = joined(tmp_path, *order)
    assert both(made) == {
        "lib": ("l", "usr/lib"), "usr": ("d", ""), "usr/lib": ("d", ""), "usr/lib/ld.so": ("f", "x"),
        "usr/lib/modules": ("d", ""), "usr/lib/modules/a.ko": ("f", "module"),
    }  # fmt: skip


@pytest.mark.parametrize("target", ["/usr/lib", "../../usr/./lib", "a", "nowhere/yet"])
def test_wherever_a_link_leads_inside_the_root(tmp_path: Path, target: str) -> None:
    place = {"a": "c", "nowhere/yet": "nowhere/yet"}.get(target, "usr/lib")
    for order in (0, 1):
        parts = [[d("usr"), d("usr/lib"), s("a", "b"), s("b", "/c"), s("lib", target)], MODULES]
        found = both(joined(tmp_path, *(parts if order else parts[::-1])))
        assert (found["lib"], found[f"{place}/modules/a.ko"]) == (("l", target), ("f", "module"))


def test_files_section_goes_through_links_of_images_and_its_own(tmp_path: Path) -> None:
    files = [d("lib", 0o700), d("lib/firmware", 0o700), f("lib/firmware/x"), s("o", "lib"), f("o/y")]
    made = joined(tmp_path, MERGED, files)
    assert {"usr/lib/firmware/x", "usr/lib/y"} <= set(both(made))
    assert made.changes == []


def test_a_later_file_replaces_what_a_link_leads_to(tmp_path: Path) -> None:
    assert both(joined(tmp_path, MERGED, [f("lib/ld.so", "new")]))["usr/lib/ld.so"] == ("f", "new")
    older = [d("lib"), f("lib/ld.so", "older"), f("lib/own", "own"), d("usr"), d("usr/lib"), f("usr/lib/own", "theirs")]
    found = both(joined(tmp_path, MODULES, older, MERGED))
    assert (found["usr/lib/ld.so"][1], found["usr/lib/own"][1]) == ("x", "theirs")


def test_shadowed_entries_move_too(tmp_path: Path) -> None:
    assert both(joined(tmp_path, MODULES, [d("lib"), d("lib/modules"), f("lib/modules/a.ko", "2")], MERGED))[
        "usr/lib/modules/a.ko"] == ("f", "2")  # fmt: skip


@pytest.mark.parametrize(("parts", "words"), [
    (([f("a")], [f("a/x")]), "part1: a/x lies below a"),
    (([s("a", "b"), s("b", "a")], [f("a/x")]), "circle"),
    (([f("f"), s("a", "f")], [f("a/x")]), "lies below f"),
    ((MODULES, [s("lib", "lib/modules")]), "leads to no directory"),
    ((MODULES, [f("x"), s("lib", "x")]), "leads to no directory"),
    ((MODULES, [s("lib", "lib")]), "leads to no directory"),
])  # fmt: skip
def test_what_makes_no_tree(tmp_path: Path, parts: tuple, words: str) -> None:
    with pytest.raises(ImageError, match=words):
        joined(tmp_path, *parts)


def test_other_kinds_replace_each_other(tmp_path: Path) -> None:
    first, second = [d("a"), d("a/b"), f("a/b/c"), f("x"), d("e")], [f("a"), d("x"), f("x/y"), s("e", "x")]
    found = both(joined(tmp_path, first, second))
    assert found == {"a": ("f", "x"), "x": ("d", ""), "x/y": ("f", "x"), "e": ("l", "x")}


def test_a_link_to_no_directory_gives_way_to_a_directory(tmp_path: Path) -> None:
    for first in ([f("f"), s("a", "f")], [s("a", "a")]):
        assert both(joined(tmp_path, first, [d("a"), f("a/x")]))["a/x"] == ("f", "x")


def test_a_hard_link_keeps_its_content_when_a_later_part_replaces_its_target(tmp_path: Path) -> None:
    first = [d("t"), f("t/a", "old"), h("t/b", "t/a"), h("t/c", "t/a")]
    for later in ([f("t/a", "new")], [d("t/a")], [s("t/a", "x")], [f("t/a", "1"), f("t/a", "2")]):
        made = joined(tmp_path, first, later)
        found = both(made)
        assert (found["t/b"], found["t/c"]) == (("f", "old"), ("f", "old"))
        assert [e.path for e in made.segments[0].entries() if e.kind is Kind.HARDLINK] == ["t/c"]  # still one inode
    found = both(joined(tmp_path, first, [f("t/a", "new"), f("t/b", "newer")]))
    assert [found[p][1] for p in ("t/a", "t/b", "t/c")] == ["new", "newer", "old"]


def test_hard_links_move_with_their_target(tmp_path: Path) -> None:
    found = both(joined(tmp_path, [d("lib"), f("lib/a", "1"), h("lib/b", "lib/a"), h("c", "lib/a")], MERGED))
    assert [found[p] for p in ("usr/lib/b", "c")] == [("f", "1")] * 2


def test_directories_that_nobody_names_are_made(tmp_path: Path) -> None:
    made = joined(tmp_path, [f("a/b/c")], [f("a/d/e")])
    assert {"a/b/c", "a/d/e"} <= set(both(made))
    assert [e.path for e in made.segments[1].entries() if e.implied] == ["a/d"]


def test_directories_that_files_changes_are_told(tmp_path: Path) -> None:
    made = joined(tmp_path, [d("etc"), d("var")], [d("etc", 0o700), f("etc/x"), d("var")])
    assert [(c.path, c.owner, c.before, c.after) for c in made.changes] == [
        ("etc", "part0", (0o755, 0, 0), (0o700, 0, 0))]  # fmt: skip


ROOT = "containers/services/x/lower"
TREE = [d("containers"), d("containers/services"), d("containers/services/x"), d(ROOT), s(f"{ROOT}/lib", "/usr/lib"),
        s(f"{ROOT}/up", "../../../../../../etc"), f(f"{ROOT}/a", "1"), h(f"{ROOT}/b", f"{ROOT}/a")]  # fmt: skip


def test_a_container_is_looked_into_only_when_something_goes_there(tmp_path: Path) -> None:
    looked = []

    def entries() -> list[Entry]:
        looked.append(1)
        return TREE

    segment = Segment("x", "sha256:x", entries, prefix=ROOT)
    made = joined(tmp_path, MERGED, segment, [f("containers/services/x/config.json")])
    assert (made.segments[1], looked) == (segment, [])
    joined(tmp_path, MERGED, segment, [f(f"{ROOT}/n")])
    assert looked


def test_links_of_a_container_lead_nowhere_out_of_it(tmp_path: Path) -> None:
    """Else an image could say where a file of the machine goes."""
    tree_ = part(1, TREE, ROOT)
    found = both(joined(tmp_path, MERGED, tree_, [f(f"{ROOT}/lib/x"), f(f"{ROOT}/up/y"), f(f"{ROOT}/a", "new")]))
    assert {f"{ROOT}/usr/lib/x", f"{ROOT}/etc/y"} <= set(found)
    assert not {"usr/lib/x", "etc/y"} & set(found)
    assert found[f"{ROOT}/b"] == ("f", "1")


def test_a_container_below_a_link(tmp_path: Path) -> None:
    around = [d("containers"), f("containers/f")]
    found = both(joined(tmp_path, [s("containers", "mnt/c")], part(1, TREE, ROOT), around))
    assert found["containers"] == ("l", "mnt/c")
    assert {"mnt/c/services/x/lower/b", "mnt/c/f"} <= set(found)


NAMES = st.sampled_from(["a", "b", "c", "a/a", "a/b", "b/a", "b/c", "a/b/c", "c/a/b"])
TARGETS = st.sampled_from(["a", "b", "c", "/b", "../a", "b/c", "/x/y"])
ENTRIES = st.one_of(
    st.builds(d, NAMES, st.sampled_from([0o755, 0o700])), st.builds(f, NAMES, st.sampled_from(["1", "2"])),
    st.builds(s, NAMES, TARGETS),
)  # fmt: skip
PARTS = st.lists(st.lists(ENTRIES, max_size=5), min_size=1, max_size=4)


@settings(max_examples=300, deadline=None)
@given(PARTS)
def test_any_parts_come_to_the_same_in_every_format(tmp_path_factory: pytest.TempPathFactory, parts: list) -> None:
    where = tmp_path_factory.mktemp("join")
    try:
        made = joined(where, *parts)
    except ImageError:
        return
    both(made)


def test_cpio_unpacks_them_one_over_the_other(tmp_path: Path) -> None:
    """The program, as whoever repacks an initrd does it."""
    made = joined(tmp_path, MODULES, MERGED, [f("lib/firmware/x", "f")])
    out = tmp_path / "out"
    out.mkdir()
    for one in made.segments:
        archive = io.BytesIO()
        cpio.write(one.entries(), archive)
        subprocess.run(["cpio", "-idmu", "--quiet"], input=archive.getvalue(), cwd=out, check=True)
    assert (out / "lib").is_symlink()
    assert (out / "usr/lib/firmware/x").read_text() == "f"
    assert (out / "usr/lib/modules/a.ko").read_text() == "module"
