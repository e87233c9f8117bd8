"""squashfs, read back by unsquashfs and by the host's kernel, as root: every name with all that belongs to it."""

from __future__ import annotations

import itertools
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from linuxkit.encode import squashfs
from linuxkit.encode.compress import Codec
from linuxkit.encode.tree import tree
from linuxkit.entry import Entry, Kind
from linuxkit.outputs.pieces import put
from support.trees import CASES, Islands, differences, every_case, file, listing, on_disk, text, trees

pytestmark = pytest.mark.interop
NUMBER = itertools.count()


def image(path: Path, entries: Sequence[Entry], codec: Codec = Codec.ZSTD, level: int | None = None,
          block_size: int = squashfs.BLOCK) -> Path:  # fmt: skip
    with open(path, "wb") as out:
        put(squashfs.image(tree(entries), squashfs.Options(codec, level, block_size)), out)
    return path


def unsquashfs(*arguments: str | Path) -> str:
    done = subprocess.run(["unsquashfs", *arguments], capture_output=True, timeout=60)
    said = (done.stdout + done.stderr).decode(errors="replace")
    assert done.returncode == 0, said
    assert not done.stderr, said
    return said


def check(folder: Path, entries: Sequence[Entry], *how: object) -> None:
    where = folder / f"{next(NUMBER)}"
    where.mkdir()
    made = image(where / "x.img", entries, *how)  # type: ignore[arg-type]
    unsquashfs("-no-progress", "-xattrs", "-d", where / "root", made)
    assert not differences(listing(tree(entries)), on_disk(where / "root"))
    shutil.rmtree(where)


@pytest.mark.parametrize("case", CASES)
def test_a_tree(tmp_path: Path, case: str) -> None:
    check(tmp_path, CASES[case])


@pytest.mark.parametrize(
    "how",
    [(Codec.NONE,), (Codec.GZIP,), (Codec.GZIP, 9), (Codec.LZ4,), (Codec.LZ4, 12), (Codec.XZ,), (Codec.ZSTD, 1),
     (Codec.ZSTD, 19), (Codec.ZSTD, 3, 4096), (Codec.XZ, 0, 1 << 20), (Codec.GZIP, 6, 8192)],
    ids=lambda how: "-".join(map(str, how)),
)  # fmt: skip
def test_codecs_levels_and_block_sizes(tmp_path: Path, how: tuple[object, ...]) -> None:
    check(tmp_path, [*CASES["sizes"], *CASES["kinds"], *CASES["xattrs"][:-4], *CASES["many"][::9]], *how)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(trees())
def test_any_tree(tmp_path: Path, entries: list[Entry]) -> None:
    check(tmp_path, entries)


def test_what_the_image_says_of_itself(tmp_path: Path) -> None:
    said = unsquashfs("-s", image(tmp_path / "x", [file("a", text(9000))], Codec.ZSTD, 7))
    assert "Found a valid SQUASHFS 4:0 superblock" in said
    assert "compression-level 7" in said
    assert "Filesystem is exportable via NFS" in said
    assert "Tue Apr 18" in said


@pytest.mark.parametrize("codec", Codec)
def test_mounted(tmp_path: Path, codec: Codec) -> None:
    """What unsquashfs does not look at: the index of a large directory, holes, the references for NFS."""
    many = range(20_000 if codec is Codec.ZSTD else 3000)
    entries = [*every_case(), *(file(f"huge/name-{n:06}") for n in many)]
    (tmp_path / "root").mkdir()
    made = image(tmp_path / "x", entries, codec)
    mounted = subprocess.run(["mount", "-o", "loop,ro", made, tmp_path / "root"], capture_output=True, text=True)
    if mounted.returncode and ("must be superuser" in mounted.stderr or "unknown filesystem" in mounted.stderr
                               or "failed to setup loop device" in mounted.stderr):  # fmt: skip
        pytest.skip(f"this machine can't mount a squashfs: {mounted.stderr.strip()}")
    assert mounted.returncode == 0, mounted.stderr
    try:
        assert not differences(listing(tree(entries)), on_disk(tmp_path / "root"), without={"xattrs"})
        assert (tmp_path / "root" / "huge" / "name-002999").exists()
    finally:
        subprocess.run(["umount", tmp_path / "root"], check=True)


def test_more_names_than_a_directory_has_offsets_for(tmp_path: Path) -> None:
    names = [f"name-{n:06}" for n in range(70_000)]
    made = image(tmp_path / "x", [file(f"many/{name}") for name in names])
    told = unsquashfs("-ls", "-d", "", made).split("\n")
    assert [line.removeprefix("/many/") for line in told if line.startswith("/many/")] == names


def test_a_sparse_file_over_four_gigabytes(tmp_path: Path) -> None:
    size = (4 << 30) + 4097
    islands = {0: b"start", (4 << 30) - 2: b"middle", size - 3: b"end"}
    made = image(tmp_path / "x", [Entry("huge", Kind.FILE, source=Islands(size, islands)), file("after", b"x")])
    assert made.stat().st_size < 64 << 10
    unsquashfs("-no-progress", "-d", tmp_path / "root", made)
    huge = tmp_path / "root" / "huge"
    assert huge.stat().st_size == size
    assert huge.stat().st_blocks < 4096
    with open(huge, "rb") as stream:
        for offset, data in islands.items():
            stream.seek(offset)
            assert stream.read(len(data)) == data
