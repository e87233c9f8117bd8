"""ext4, judged by e2fsck, read back by debugfs and by the host's kernel, and grown by resize2fs."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from linuxkit.encode import ext4
from linuxkit.encode.tree import tree
from linuxkit.entry import Entry, Extent, Kind
from linuxkit.outputs.pieces import put
from support.trees import CASES, differences, every_case, file, listing, noise, on_disk, trees

pytestmark = pytest.mark.interop
NUMBER = itertools.count()
MIB = 1 << 20
#: What `debugfs rdump` does not bring back.
NOT_DUMPED = {"xattrs", "first", "mode", "mtime", "uid", "gid"}


def tool(*command: str | Path) -> str:
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    done = subprocess.run([*map(str, command)], capture_output=True, timeout=120, env={"PATH": path, "LC_ALL": "C"})
    said = (done.stdout + done.stderr).decode(errors="replace")
    assert done.returncode == 0, f"{command}: {said}"
    return said


def image(path: Path, entries: Sequence[Entry], **how: object) -> Path:
    """A clean file system in a file."""
    path.unlink(missing_ok=True)
    with open(path, "wb") as out:
        put(ext4.filesystem(tree(entries), seed="seed", **how), out)  # type: ignore[arg-type]
    assert "Pass 5" in tool("e2fsck", "-fn", path)
    return path


@contextmanager
def mounted(made: Path, where: Path, options: str = "loop,ro") -> Iterator[Path]:
    where.mkdir(exist_ok=True)
    done = subprocess.run(["mount", "-o", options, made, where], capture_output=True, text=True)
    if done.returncode and ("must be superuser" in done.stderr or "unknown filesystem" in done.stderr
                            or "failed to setup loop device" in done.stderr):  # fmt: skip
        pytest.skip(f"this machine can't mount an ext4: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    try:
        yield where
    finally:
        subprocess.run(["umount", where], check=True)


def check_dump(folder: Path, entries: Sequence[Entry], **how: object) -> None:
    """Every name and content, by debugfs; of files and directories owner and mode, too."""
    where = folder / f"{next(NUMBER)}"
    where.mkdir()
    (where / "root").mkdir()
    made = image(where / "x.img", entries, **how)
    assert not re.search("error|while", tool("debugfs", "-R", f"rdump / {where}/root", made))
    got, want = on_disk(where / "root"), listing(tree(entries))
    assert want.get("lost+found") or got.pop("lost+found").mode == 0o700
    files = {Kind.FILE, Kind.DIRECTORY}
    want = {path: seen for path, seen in want.items() if seen.kind in {*files, Kind.SYMLINK}}
    assert not differences(want, got, without=NOT_DUMPED)
    want = {path: seen._replace(mode=seen.mode & 0o777) for path, seen in want.items() if seen.kind in files}
    got = {path: got[path]._replace(mode=got[path].mode & 0o777) for path in want}
    assert not differences(want, got, without=NOT_DUMPED - {"mode", "uid", "gid"})
    shutil.rmtree(where)


@pytest.mark.parametrize("case", CASES)
def test_a_tree(tmp_path: Path, case: str) -> None:
    check_dump(tmp_path, CASES[case], writable=case in ("kinds", "many", "sizes"))


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(trees())
def test_any_tree(tmp_path: Path, entries: list[Entry]) -> None:
    check_dump(tmp_path, entries)


@pytest.mark.parametrize("writable", [False, True])
def test_everything_is_there_for_linux(tmp_path: Path, writable: bool) -> None:
    acl = bytes.fromhex("0200000001000700ffffffff02000600e803000004000500ffffffff10000700ffffffff20000000ffffffff")
    entries = [*every_case(), file("acl", b"x", 0o770, xattrs=(("system.posix_acl_access", acl),)),
               *(file(f"dated/{t}", mtime=t) for t in (-1, 2**31, 2**33, 15032385535))]  # fmt: skip
    made = image(tmp_path / "x", entries, writable=writable)
    with mounted(made, tmp_path / "root") as root:
        got, want = on_disk(root), listing(tree(entries))
        assert got.pop("lost+found")
        assert not differences(want, got)
        assert (root / "content/sparse").stat().st_blocks * 512 == 3 * (64 << 10)


def test_attributes_for_debugfs(tmp_path: Path) -> None:
    made = image(tmp_path / "x", CASES["xattrs"])
    for path, name, value in (
        ("all", "user.b", bytes(range(256))), ("ping", "security.capability", CASES["xattrs"][0].xattrs[0][1]),
        ("dir", "trusted.overlay.opaque", b"y"), ("each/17", "user.n", b"17"), ("large", "user.large", noise(1500)),
    ):  # fmt: skip
        tool("debugfs", "-R", f"ea_get -f {tmp_path}/value {path} {name}", made)
        assert (tmp_path / "value").read_bytes() == value


def test_a_sparse_file_over_four_gigabytes(tmp_path: Path) -> None:
    size = (4 << 30) + 4097
    islands = {0: b"start", (4 << 30) - 2: b"middle", size - 3: b"end"}
    with open(tmp_path / "huge", "wb") as out:
        out.truncate(size)
        for offset, data in islands.items():
            os.pwrite(out.fileno(), data, offset)
    source = Extent(os.fspath(tmp_path / "huge"), 0, size)
    made = image(tmp_path / "x", [Entry("huge", Kind.FILE, source=source), file("after", b"x")])
    assert made.stat().st_size < MIB
    assert f"Size: {size}\n" in tool("debugfs", "-R", "stat huge", made)
    for offset, data in islands.items():
        told = tool("debugfs", "-R", f"bmap huge {offset // 4096}", made)
        where = int(re.findall(r"^(\d+)$", told, re.M)[0]) * 4096 + offset % 4096
        with open(made, "rb") as stream:
            stream.seek(where)
            assert stream.read(len(data)) == data
    assert re.findall(r"^(\d+)$", tool("debugfs", "-R", "bmap huge 5000", made), re.M) == ["0"]


def test_many_holes_make_a_tree_of_extents(tmp_path: Path) -> None:
    count = 3000
    with open(tmp_path / "in", "wb") as out:
        out.truncate(count * (128 << 10))
        for n in range(count):
            os.pwrite(out.fileno(), b"%d" % n, n * (128 << 10) + 5)
    source = Extent(os.fspath(tmp_path / "in"), 0, count * (128 << 10))
    made = image(tmp_path / "x", [Entry("f", Kind.FILE, source=source)])
    said = tool("debugfs", "-R", "dump_extents f", made)
    assert " 2/ 2 281/281 95968 - 95983" in said
    tool("debugfs", "-R", f"dump f {tmp_path}/out", made)
    tool("cmp", tmp_path / "in", tmp_path / "out")


def test_files_on_both_sides_of_copies_of_the_superblock(tmp_path: Path) -> None:
    """Larger than a group, and than an extent can be."""
    size = 330 * MIB
    with open(tmp_path / "in", "wb") as out:
        for at in range(0, size, 64 << 10):  # so that nothing is a hole
            os.pwrite(out.fileno(), b"%9d" % at, at)
        out.truncate(size)
    source = Extent(os.fspath(tmp_path / "in"), 0, size)
    made = image(tmp_path / "x", [Entry("a", Kind.FILE, source=source), file("b", b"after")])
    assert tool("debugfs", "-R", "cat b", made).startswith("after")
    tool("debugfs", "-R", f"dump a {tmp_path}/out", made)
    tool("cmp", tmp_path / "in", tmp_path / "out")


def test_what_tune2fs_says(tmp_path: Path) -> None:
    made = image(tmp_path / "x", [], size=600 * MIB, writable=True, label="data")
    facts = dict(re.findall(r"^([^:\n]+): +(.*)$", tool("tune2fs", "-l", made), re.M))
    assert facts["Filesystem volume name"] == "data"
    assert facts["Filesystem UUID"] == ext4.uuid("seed")
    assert facts["Filesystem state"] == "clean"
    assert facts["Reserved block count"] == "0"
    assert facts["Block count"] == "153600"
    assert facts["Lifetime writes"] == "0 kB" if "Lifetime writes" in facts else True
    features = facts["Filesystem features"].split()
    assert {"has_journal", "resize_inode", "64bit", "flex_bg", "metadata_csum", "extent"} <= set(features)
    assert "Total journal size:       16M" in tool("dumpe2fs", "-h", made)
    assert "has_journal" not in tool("tune2fs", "-l", image(tmp_path / "y", []))


@pytest.mark.parametrize("size", [9 * MIB, 200 * MIB, 3 << 30])
def test_it_grows(tmp_path: Path, size: int) -> None:
    made = image(tmp_path / "x", CASES["kinds"], size=size, writable=True)
    with open(made, "r+b") as out:
        out.truncate(20 << 30)
    tool("resize2fs", made)
    tool("e2fsck", "-fn", made)
    assert "Block count:              5242880" in tool("dumpe2fs", "-h", made)
    assert tool("debugfs", "-R", "cat etc/passwd", made).startswith("root\n")


def test_linux_writes_to_it(tmp_path: Path) -> None:
    made = image(tmp_path / "x", CASES["kinds"], size=100 * MIB, writable=True)
    with mounted(made, tmp_path / "root", "loop") as root:
        (root / "new").write_bytes(b"x" * 70_000_000)
        (root / "lost+found" / "x").mkdir()
        for n in range(1000):
            (root / "nothing" / f"a name {n}").touch()
    tool("e2fsck", "-fn", made)
    with mounted(made, tmp_path / "root") as root:
        assert len(list((root / "nothing").iterdir())) == 1000
        assert (root / "new").stat().st_size == 70_000_000


def test_it_grows_while_it_is_mounted(tmp_path: Path) -> None:
    made = image(tmp_path / "x", CASES["kinds"], size=100 * MIB, writable=True)
    with open(made, "r+b") as out:
        out.truncate(12 << 30)
    effective = int(re.findall(r"CapEff:\t(\w+)", Path("/proc/self/status").read_text())[0], 16)
    with mounted(made, tmp_path / "root", "loop") as root:
        if not effective >> 24 & 1:
            pytest.skip("Linux lets nobody resize without CAP_SYS_RESOURCE, and this machine gives it to nobody")
        tool("resize2fs", tool("findmnt", "-n", "-o", "SOURCE", root).strip())
        (root / "more").write_bytes(b"y" * 130_000_000)
    tool("e2fsck", "-fn", made)
    assert "Block count:              3145728" in tool("dumpe2fs", "-h", made)


@pytest.mark.parametrize("size", [100 << 30, (1 << 40) + 129 * MIB + 4096])
def test_large_empty_ones_are_clean(tmp_path: Path, size: int) -> None:
    made = image(tmp_path / "x", [], size=size, writable=True)
    assert made.stat().st_blocks * 512 < (4 if size < 1 << 40 else 64) * MIB
