from __future__ import annotations

from pathlib import Path

import pytest

from linuxkit.entry import Kind
from linuxkit.errors import ImageError, InputError
from linuxkit.packages import deb, slice
from support.debs import deb_of, elf_of
from support.images import directory, hardlink, member, symlink

pytestmark = pytest.mark.unit
LD = "lib64/ld-linux-x86-64.so.2"
TRIPLET = "x86_64-linux-gnu"


def tree_of(tmp_path: Path, **packages: list[object]) -> slice.Tree:
    found = []
    for name, members in packages.items():
        path = tmp_path / f"{name}.deb"
        path.write_bytes(deb_of(*members))  # type: ignore[arg-type]
        found.append((name, deb.unpack(path, tmp_path / f"{name}.spool")))
    return slice.merge(found)


@pytest.mark.parametrize(("pattern", "path", "hit"), [
    ("usr/bin/*", "usr/bin/x", True), ("usr/bin/*", "usr/bin/x/y", False), ("usr/**", "usr/bin/x/y", True),
    ("**/x", "x", True), ("**/x", "a/b/x", True), ("usr/**/x", "usr/x", True), ("a?c", "abc", True),
    ("a?c", "a/c", False),
    ("a.c", "abc", False), ("{a,b/c}", "b/c", True), ("{a,b}*", "bx", True), ("{a,b}", "c", False),
    ("a,b", "a,b", True),
    ("[", "[", True), ("usr/bin/x", "usr/bin/x\n", False),
])  # fmt: skip
def test_globs(pattern: str, path: str, hit: bool) -> None:
    assert bool(slice.glob(pattern).match(path)) is hit


def test_the_first_folder_is_below_usr(tmp_path: Path) -> None:
    old, new = [member("bin/a", b"1"), member("lib/x/liba.so", b"2")], [member("usr/bin/a", b"3")]
    tree = tree_of(tmp_path, old=old, new=new)
    assert set(tree.entries) == {"usr/bin/a", "usr/lib/x/liba.so"}
    assert tree.owner["usr/bin/a"] == "old"
    assert set(slice.keep(tree, ["bin/*"], {})) == {"usr/bin/a"}


def test_links_bring_what_they_lead_to_and_hard_links_become_files(tmp_path: Path) -> None:
    tree = tree_of(tmp_path, a=[
        member("usr/lib/real", b"x"), symlink("usr/bin/one", "../lib/two"), symlink("usr/lib/two", "/usr/lib/real"),
        hardlink("usr/bin/hard", "usr/lib/real"), symlink("usr/bin/out", "/etc/alternatives/x"),
    ])  # fmt: skip
    kept = slice.keep(tree, ["usr/bin/*"], {})
    assert set(kept) == {"usr/bin/one", "usr/bin/hard", "usr/bin/out", "usr/lib/real"}
    assert kept["usr/bin/hard"].kind is Kind.FILE


def test_links_in_a_circle_and_out_of_the_root_lead_nowhere(tmp_path: Path) -> None:
    links = [symlink("x", "y"), symlink("y", "x"), symlink("z", "../../../etc/passwd"), symlink("s", "s/s")]
    tree = tree_of(tmp_path, a=links)
    assert [slice.resolve(tree, p) for p in ("x", "y", "z", "s", "none")] == [None] * 5


def test_a_moved_file_is_at_its_new_place_only(tmp_path: Path) -> None:
    tree = tree_of(tmp_path, a=[member("usr/sbin/x", b"1")])
    kept = slice.keep(tree, [], {"sbin/x": "usr/bin/x"})
    assert set(kept) == {"usr/bin/x"}
    assert kept["usr/bin/x"].path == "usr/bin/x"


def test_a_glob_that_names_nothing_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    tree = tree_of(tmp_path, a=[member("usr/sbin/x", b"1")])
    with pytest.raises(InputError) as caught:
        slice.keep(tree, ["usr/bin/x"], {})
    assert "usr/sbin/x" in caught.value.hint


def libraries() -> list[object]:
    return [
        member(f"usr/lib/{TRIPLET}/ld-2.so", elf_of(soname="ld-linux-x86-64.so.2")),
        symlink(f"usr/{LD}", f"../lib/{TRIPLET}/ld-2.so"),
        member(f"usr/lib/{TRIPLET}/libc.so.6", elf_of(soname="libc.so.6", needed=["ld-linux-x86-64.so.2"])),
        member(f"usr/lib/{TRIPLET}/libm.so.6", elf_of(needed=["libc.so.6"])),
        member(f"usr/lib/{TRIPLET}/libunused.so.1", elf_of()),
    ]


def test_the_closure_is_the_interpreter_and_the_libraries_and_theirs(tmp_path: Path) -> None:
    program = elf_of(interpreter=f"/{LD}", needed=["libfoo.so.1"])
    tree = tree_of(tmp_path, app=[member("usr/bin/app", program), member("usr/bin/script", b"#!/bin/sh\n" * 9)], foo=[
        member(f"usr/lib/{TRIPLET}/libfoo.so.1.2.3", elf_of(needed=["libm.so.6"])),
        symlink(f"usr/lib/{TRIPLET}/libfoo.so.1", "libfoo.so.1.2.3"), directory("usr/lib"),
    ], libc=libraries())  # fmt: skip
    found = slice.closure(tree, slice.keep(tree, ["usr/bin/*"], {}), TRIPLET, "amd64")
    assert set(found) == {LD, *(f"usr/lib/{TRIPLET}/{n}" for n in ("libfoo.so.1", "libm.so.6", "libc.so.6"))}
    assert all(entry.kind is Kind.FILE and entry.path == path for path, (entry, _) in found.items())
    assert {package for _, package in found.values()} == {"foo", "libc"}


def test_a_runpath_is_looked_at_first(tmp_path: Path) -> None:
    program = elf_of(needed=["libp.so"], runpath="$ORIGIN/../lib/app")
    tree = tree_of(tmp_path, app=[member("usr/bin/app", program), member("usr/lib/app/libp.so", elf_of())],
                   libp=[member(f"usr/lib/{TRIPLET}/libp.so", elf_of())])  # fmt: skip
    assert set(slice.closure(tree, slice.keep(tree, ["usr/bin/app"], {}), TRIPLET, "amd64")) == {"usr/lib/app/libp.so"}


@pytest.mark.parametrize("symbol", ["pthread_exit", "pthread_cancel", "my_pthread_exit", "pthread_exit_hard"])
def test_who_ends_threads_gets_what_glibc_loads_for_that(tmp_path: Path, symbol: str) -> None:
    libgcc = [member(f"usr/lib/{TRIPLET}/libgcc_s.so.1", elf_of(needed=["libc.so.6"]))]
    program = elf_of(interpreter=f"/{LD}", needed=["libc.so.6"], symbols=["printf", symbol])
    tree = tree_of(tmp_path, app=[member("usr/bin/app", program)], libc=libraries(), libgcc=libgcc)
    found = slice.closure(tree, slice.keep(tree, ["usr/bin/*"], {}), TRIPLET, "amd64")
    assert (f"usr/lib/{TRIPLET}/libgcc_s.so.1" in found) is (symbol in ("pthread_exit", "pthread_cancel"))


def test_a_missing_library_is_told_with_who_needs_it(tmp_path: Path) -> None:
    tree = tree_of(tmp_path, app=[member("usr/bin/app", elf_of(needed=["libgone.so.3"]))])
    with pytest.raises(ImageError, match=r"usr/bin/app needs libgone\.so\.3, which none of the packages has"):
        slice.closure(tree, slice.keep(tree, ["**"], {}), TRIPLET, "amd64")


def test_a_program_for_another_machine_is_refused(tmp_path: Path) -> None:
    tree = tree_of(tmp_path, app=[member("usr/bin/app", elf_of(machine=183))])
    with pytest.raises(ImageError, match="for another machine than amd64"):
        slice.closure(tree, slice.keep(tree, ["**"], {}), TRIPLET, "amd64")


def test_licences_go_with_the_files_also_through_a_linked_folder(tmp_path: Path) -> None:
    base, lib = [member("usr/share/doc/base/copyright", b"(c)")], [symlink("usr/share/doc/lib", "base")]
    tree = tree_of(tmp_path, base=base, lib=lib)
    found = slice.licences(tree, {"lib", "base"})
    assert set(found) == {"usr/share/doc/lib/copyright", "usr/share/doc/base/copyright"}
    with pytest.raises(ImageError, match="package none has no copyright file"):
        slice.licences(tree, {"none"})
