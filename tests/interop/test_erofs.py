"""EROFS volumes, read back by fsck.erofs and by the host's kernel: every name with all that belongs to it."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from linuxkit.encode import erofs
from linuxkit.encode.compress import Codec
from linuxkit.encode.pieces import size_of
from linuxkit.encode.tree import tree
from linuxkit.entry import Entry, Extent, Kind
from linuxkit.errors import InputError
from linuxkit.outputs.pieces import put
from support.mount import mounted
from support.trees import CASES, differences, every_case, file, listing, on_disk, trees

pytestmark = pytest.mark.interop


def image(path: Path, entries: Sequence[Entry], codec: Codec = Codec.NONE, level: int | None = None) -> Path:
    pieces = erofs.volume(tree(entries), erofs.Options(codec, level), seed="seed", label="linuxkit")
    assert size_of(pieces) % 4096 == 0
    with open(path, "wb") as out:
        put(pieces, out)
    return path


def fsck(volume: Path, *options: str) -> None:
    done = subprocess.run(["fsck.erofs", *options, volume], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr


def check(volume: Path, entries: Sequence[Entry]) -> None:
    out = volume.with_name("out")
    fsck(volume, "--preserve", f"--extract={out}")
    # version 1.5 leaves the root, attributes, set-user-ID bits and holes alone, and makes several files of hard links
    want, got = listing(tree(entries)), on_disk(out)
    want |= {path: got[path] for path in want if not path or path.endswith(("sparse", "hole"))}
    assert not differences(want, got, without={"xattrs", "first", "mode"})
    shutil.rmtree(out)
    with mounted(volume) as where:
        assert not differences(listing(tree(entries)), on_disk(where))


@pytest.mark.parametrize(
    ("codec", "level"), [(Codec.ZSTD, None), (Codec.GZIP, None), (Codec.LZ4, None), (Codec.LZ4, 12)]
)
def test_compressed(tmp_path: Path, codec: Codec, level: int | None) -> None:
    """Judged by Linux alone: Debian's fsck.erofs knows neither zstd nor the ends of files packed together."""
    noise = random.Random(1).randbytes(1 << 20)
    text = b"".join(b"line %d of a text\n" % n for n in range(40_000))
    entries = [
        *every_case(), file("z/noise", noise), file("z/text", text), file("z/again", text),
        file("z/both", noise + text), file("z/zeros", bytes(300_000)),
        *(file(f"z/end{n}", text[: 131_072 + n * 1000]) for n in range(30)),
        *(file(f"z/small{n}", text[n : n + 65 + 97 * n]) for n in range(200)),
    ]  # fmt: skip
    volume = image(tmp_path / "x", entries, codec, level)
    assert volume.stat().st_size < image(tmp_path / "plain", entries).stat().st_size - 1_000_000
    with mounted(volume) as where:
        assert not differences(listing(tree(entries)), on_disk(where))


@given(entries=trees())
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_tree_compressed(tmp_path: Path, entries: list[Entry]) -> None:
    with mounted(image(tmp_path / "x", entries, Codec.ZSTD)) as where:
        assert not differences(listing(tree(entries)), on_disk(where))


def test_a_codec_that_it_has_not_got(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="can't be compressed with xz"):
        image(tmp_path / "x", [file("a", b"x" * 1000)], Codec.XZ)


@pytest.mark.parametrize("case", CASES)
def test_a_tree(tmp_path: Path, case: str) -> None:
    check(image(tmp_path / "x", CASES[case]), CASES[case])


def test_all_at_once(tmp_path: Path) -> None:
    entries = [*every_case(), *(file(f"huge/name-{n:06}") for n in range(3000))]
    check(image(tmp_path / "x", entries), entries)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(trees())
def test_any_tree(tmp_path: Path, entries: list[Entry]) -> None:
    check(image(tmp_path / "x", entries), entries)


def test_a_sparse_file_over_four_gigabytes(tmp_path: Path) -> None:
    size = (4 << 30) + 4097
    islands = {0: b"start", (4 << 30) - 2: b"middle", size - 3: b"end"}
    with open(tmp_path / "layer", "wb") as out:
        for offset, data in islands.items():
            out.seek(offset + 7)
            out.write(data)
    entries = [Entry("huge", Kind.FILE, source=Extent(str(tmp_path / "layer"), 7, size)), file("after", b"x")]
    made = image(tmp_path / "x", entries)
    assert made.stat().st_size < 1 << 20
    fsck(made)
    with mounted(made) as where:
        huge = where / "huge"
        assert huge.stat().st_size == size
        with open(huge, "rb") as stream:
            for offset in (0, 4096, 65536, 2 << 30, (4 << 30) - 65536, (4 << 30) - 4096, 4 << 30):
                stream.seek(offset)
                want = bytearray(min(8192, size - offset))
                for at, data in islands.items():
                    for n, byte in enumerate(data):
                        if 0 <= at + n - offset < len(want):
                            want[at + n - offset] = byte
                assert stream.read(8192) == want, offset
        assert (where / "after").read_bytes() == b"x"


def test_what_the_volume_says_of_itself(tmp_path: Path) -> None:
    made = image(tmp_path / "x", [file("a", b"x", mtime=1500000000), file("b", mtime=1500000000)])
    told = subprocess.run(
        ["dump.erofs", "-s", made], capture_output=True, text=True, check=True, env={**os.environ, "TZ": "UTC"}
    ).stdout
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(": ") for line in told.splitlines())}
    assert fields["Filesystem inode count"] == "3"
    assert fields["Filesystem root nid"] == "128"
    assert fields["Filesystem created"] == "Fri Jul 14 02:40:00 2017"
    assert fields["Filesystem UUID"].replace("-", "") == erofs.uuid_of("seed").hex()
    label = subprocess.run(["blkid", "-o", "value", "-s", "LABEL", "-p", made], capture_output=True, text=True)
    assert label.stdout == "linuxkit\n"


def test_a_damaged_superblock_is_refused(tmp_path: Path) -> None:
    made = image(tmp_path / "x", CASES["kinds"])
    with open(made, "r+b") as out:
        out.seek(2000)
        out.write(b"x")
    assert "failed to verify superblock checksum" in subprocess.run(["fsck.erofs", made], capture_output=True,
                                                                     text=True).stderr  # fmt: skip
