"""--data-partition: which disks have it, where it is, what is in it, and what is refused."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from linuxkit.encode import gpt
from linuxkit.errors import InputError
from linuxkit.oci.store import Store
from linuxkit.outputs.datapart import checked
from support.bios import add_bios
from support.builds import YAML, linuxkit, make_cache
from support.efi import add_efi

pytestmark = pytest.mark.unit
MIB = 1 << 20


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    root = make_cache(tmp_path)
    add_efi(Store(root))
    add_bios(Store(root))
    return root


def build(folder: Path, cache: Path, *flags: str) -> None:
    (folder / "x.yml").write_text(YAML)
    linuxkit("build", "--arch", "amd64", *flags, "x.yml", cwd=folder, cache=cache)


def superblock(disk: Path, at: int) -> tuple[str, int, bytes]:
    """Label, size in bytes and UUID of the ext4 at a byte of a disk."""
    with disk.open("rb") as stream:
        stream.seek(at + 1024)
        data = stream.read(1024)
    magic, blocks = struct.unpack_from("<H", data, 56)[0], struct.unpack_from("<I", data, 4)[0]
    assert magic == 0xEF53
    return data[120:136].rstrip(b"\0").decode(), blocks * 4096, data[104:120]


@pytest.mark.parametrize(("name", "ending"), [("raw-efi", "-efi.img"), ("raw", ".img")])
def test_a_disk_with_a_gpt(tmp_path: Path, cache: Path, name: str, ending: str) -> None:
    build(tmp_path, cache, "-f", name, "--data-partition", "1G:state")
    disk = tmp_path / f"x{ending}"
    with disk.open("rb") as stream:
        table = stream.read(34 * 512)[1024:]
    kind, guid, first, last, _, label = struct.unpack_from("<16s16sQQQ72s", table, 128)
    assert kind == gpt.guid_bytes(gpt.LINUX)
    assert label.decode("utf-16-le").rstrip("\0") == "state"
    assert first % 2048 == 0 and (last + 1 - first) * 512 == 1 << 30
    assert table[256:384] == bytes(128)
    named, size, uuid = superblock(disk, first * 512)
    assert (named, size) == ("state", 1 << 30)
    assert uuid != guid
    assert disk.stat().st_size > 1 << 30 > 100 * MIB > disk.stat().st_blocks * 512


def test_a_disk_with_an_mbr(tmp_path: Path, cache: Path) -> None:
    build(tmp_path, cache, "-f", "raw-bios", "--data-partition", "100M")
    disk = tmp_path / "x-bios.img"
    with disk.open("rb") as stream:
        entry = stream.read(512)[446 + 16 :][:16]
    kind, first, sectors = entry[4], *struct.unpack_from("<II", entry, 8)
    assert (kind, sectors * 512) == (0x83, 100 * MIB)
    assert superblock(disk, first * 512)[:2] == ("data", 100 * MIB)


def test_the_same_again_and_without(tmp_path: Path, cache: Path) -> None:
    build(tmp_path, cache, "-f", "raw-efi", "--data-partition", "16M", "--name", "a")
    build(tmp_path, cache, "-f", "raw-efi", "--data-partition", "16M", "--name", "b")
    build(tmp_path, cache, "-f", "raw-efi", "--name", "c")
    a, b, c = ((tmp_path / f"{name}-efi.img").read_bytes() for name in "abc")
    assert a == b
    assert 0 <= len(a) - len(c) - 16 * MIB <= MIB  # partitions begin at multiples of a MiB
    assert a[2048 * 512 :][: 30 * MIB] == c[2048 * 512 :][: 30 * MIB]


@pytest.mark.parametrize(("flags", "what"), [
    (["-f", "kernel+initrd", "--data-partition", "1G"], "--data-partition: in these formats there are no partitions"),
    (["-f", "raw-efi", "--data-partition", "much"], "--data-partition 'much': 'much' is not a size"),
    (["-f", "raw-efi", "--data-partition", "4M"], "--data-partition: 4194304 bytes are too few"),
    (["-f", "raw-efi", "--data-partition", "1G:a b"], "'a b' can't be the label of a file system"),
    (["-f", "raw-efi", "--data-partition", "1G", "--size", "500M"], "a disk of 524288000 bytes is asked for"),
])  # fmt: skip
def test_what_is_refused(tmp_path: Path, cache: Path, flags: list[str], what: str) -> None:
    (tmp_path / "x.yml").write_text(YAML)
    done = linuxkit("build", "--arch", "amd64", *flags, "x.yml", cwd=tmp_path, cache=cache, check=False)
    assert done.returncode == 2
    assert what in done.stderr
    assert not list(tmp_path.glob("x-*"))


def test_labels() -> None:
    assert checked(64 * MIB, "") == (64 * MIB, "data")
    for label in ("a" * 17, "ü", "a/b\n"):
        with pytest.raises(InputError, match="label"):
            checked(64 * MIB, label)
