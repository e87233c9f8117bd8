"""Reading .deb files: the three compressions, and everything a hostile or damaged one can try."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from linuxkit.entry import Entry, Kind, read_all
from linuxkit.errors import ImageError
from linuxkit.packages import deb
from support.debs import ar_of, deb_of, packed
from support.images import directory, hardlink, member, symlink, tar_of

pytestmark = pytest.mark.unit


def unpack(tmp_path: Path, data: bytes, **options: int) -> dict[str, Entry]:
    path = tmp_path / "x.deb"
    path.write_bytes(data)
    return deb.unpack(path, tmp_path / "spool", **options)


@pytest.mark.parametrize("ending", [".xz", ".gz", ".zst", ""])
def test_the_nodes_of_a_package(tmp_path: Path, ending: str) -> None:
    big = bytes(range(256)) * 5000
    found = unpack(tmp_path, deb_of(
        directory("usr"), member("usr/run", big, mode=0o4755, uid=3, gid=4, mtime=77), symlink("usr/link", "run"),
        hardlink("usr/hard", "./usr/run"), ending=ending,
    ))  # fmt: skip
    assert list(found) == ["usr", "usr/run", "usr/link", "usr/hard"]
    run = found["usr/run"]
    assert (run.kind, run.mode, run.uid, run.gid, run.mtime) == (Kind.FILE, 0o4755, 3, 4, 77)
    assert read_all(run.source, 1 << 30) == big
    assert found["usr/link"].target == "run"
    assert (found["usr/hard"].kind, found["usr/hard"].target) == (Kind.HARDLINK, "usr/run")


@pytest.mark.parametrize("name", ["/etc/passwd", "../../etc/passwd", "a/../../b"])
def test_a_name_outside_the_root_is_refused(tmp_path: Path, name: str) -> None:
    data = packed(tar_of(member(name, b"x")), ".xz")
    with pytest.raises(ImageError, match="leaves the package's root"):
        unpack(tmp_path, ar_of(("debian-binary", b"2.0\n"), ("data.tar.xz", data)))


def test_a_hard_link_to_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="hard link to usr/none"):
        unpack(tmp_path, deb_of(hardlink("a", "usr/none")))


def test_a_device_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="has no place in a package"):
        unpack(tmp_path, deb_of(member("dev/sda", type=tarfile.BLKTYPE)))


@pytest.mark.parametrize("ending", [".xz", ".gz", ".zst", ""])
def test_more_than_the_limit_is_refused(tmp_path: Path, ending: str) -> None:
    data = deb_of(member("zeros", bytes(8 << 20)), ending=ending)
    with pytest.raises(ImageError, match="unpacks to more than 1000000 bytes"):
        unpack(tmp_path, data, limit=1_000_000)
    assert (tmp_path / "spool").stat().st_size <= 1_000_000


@pytest.mark.parametrize("ending", [".xz", ".gz", ".zst"])
@pytest.mark.parametrize("cut", [1, 30, 300])
def test_a_truncated_package_is_refused(tmp_path: Path, ending: str, cut: int) -> None:
    data = deb_of(member("a", bytes(range(256)) * 20), ending=ending)
    with pytest.raises(ImageError, match=r"truncated|damaged"):
        unpack(tmp_path, data[:-cut] if len(data) % 2 else data[: -cut - 1])


@pytest.mark.parametrize("ending", [".xz", ".gz", ".zst"])
def test_a_damaged_package_is_refused(tmp_path: Path, ending: str) -> None:
    data = bytearray(deb_of(member("a", bytes(range(256)) * 200), ending=ending))
    for at in range(len(data) - 60, len(data) - 30):
        data[at] ^= 0xFF
    with pytest.raises(ImageError):
        unpack(tmp_path, bytes(data))


@pytest.mark.parametrize("data", [
    b"", b"PK\x03\x04", b"!<arch>\n", b"!<arch>\nshort", ar_of(("debian-binary", b"2.0\n")),
    ar_of(("data.tar.lzma", b"x")), ar_of(("data.tar.xz", b"x")).replace(b"1         `", b"-1        `"),
    ar_of(("data.tar.xz", packed(b"not a tar" * 100, ".xz"))),
])  # fmt: skip
def test_what_is_no_package_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(ImageError):
        unpack(tmp_path, data)
