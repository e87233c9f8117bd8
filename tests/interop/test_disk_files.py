"""Disk files, judged by qemu-img: clean, the same content as the raw disk, and the same again when converted back."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from linuxkit.encode import gcp, gpt, qcow2, vhd, vhdx, vmdk
from linuxkit.encode.pieces import Piece, hole, literal, size_of
from linuxkit.outputs.pieces import put

pytestmark = pytest.mark.interop
KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
#: name → (what QEMU calls it, what writes it, whether `qemu-img check` knows it)
Writer = Callable[[list[Piece], Path], None]


def tool(*command: str | Path) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def save(pieces: list[Piece], path: Path) -> None:
    path.unlink(missing_ok=True)
    with path.open("wb") as out:
        put(pieces, out)


def qcow2_packed(kind: str) -> Writer:
    def write(pieces: list[Piece], path: Path) -> None:
        path.unlink(missing_ok=True)
        with path.open("wb") as out:
            qcow2.compress(pieces, out, kind=kind)

    return write


def write_vmdk(pieces: list[Piece], path: Path) -> None:
    path.unlink(missing_ok=True)
    with path.open("wb") as out:
        out.write(vmdk.head(vmdk.virtual_size(pieces), name=path.name, seed="s"))
        vmdk.body(pieces, out)


FORMATS: dict[str, tuple[str, Writer, bool]] = {
    "qcow2": ("qcow2", lambda p, f: save(qcow2.image(p), f), True),
    "qcow2-zlib": ("qcow2", qcow2_packed("zlib"), True),
    "qcow2-zstd": ("qcow2", qcow2_packed("zstd"), True),
    "vhd": ("vpc", lambda p, f: save(vhd.fixed(p, seed="s"), f), False),
    "dynamic-vhd": ("vpc", lambda p, f: save(vhd.dynamic(p, seed="s"), f), False),
    "vhdx": ("vhdx", lambda p, f: save(vhdx.image(p, seed="s"), f), True),
    "vmdk": ("vmdk", write_vmdk, True),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that compresses in some places, not in others, and is zero in one."""
    path = tmp_path_factory.mktemp("data") / "data"
    path.write_bytes(os.urandom(3 * MIB) + b"text " * 300_000 + bytes(MIB) + os.urandom(700_001))
    return path


def disks(data: Path) -> dict[str, list[Piece]]:
    size = data.stat().st_size
    return {
        "empty": [hole(MIB)],
        "one sector": [literal(b"s" * 512)],
        "small": [literal(b"boot" * 128), hole(5 * MIB), Piece(size, str(data)), hole(123_456),
                  Piece(5000, str(data), 7)],
        "large and sparse": [Piece(size, str(data)), hole(4 * GIB), Piece(900_000, str(data), 7), hole(GIB - 5),
                             literal(b"end")],
    }  # fmt: skip


@pytest.mark.parametrize("disk", ["empty", "one sector", "small", "large and sparse"])
@pytest.mark.parametrize("name", FORMATS)
def test_it_is_the_same_disk(tmp_path: Path, data: Path, name: str, disk: str) -> None:
    kind, write, check = FORMATS[name]
    if (name, disk) == ("vhdx", "large and sparse"):
        disk = "small"  # QEMU reads every zero of a VHDX, which takes a while; the next test looks into a large one
    pieces = disks(data)[disk]
    raw, made = tmp_path / "disk.raw", tmp_path / "made"
    save(pieces, raw)
    os.truncate(raw, -(-size_of(pieces) // 512) * 512)
    write(pieces, made)
    if check:
        assert "No errors were found" in tool("qemu-img", "check", "-f", kind, made)
    info = json.loads(tool("qemu-img", "info", "--output=json", "-f", kind, made))
    size = raw.stat().st_size
    unit = {"vpc": MIB, "vmdk": 64 * KIB}.get(kind, 512)
    assert (info["format"], info["virtual-size"]) == (kind, -(-size // unit) * unit)
    assert "identical" in tool("qemu-img", "compare", "-f", "raw", "-F", kind, raw, made)
    assert made.stat().st_blocks * 512 < 16 * MIB  # the holes are none of the file's


@pytest.mark.parametrize("name", FORMATS)
def test_nearly_two_tebibytes(tmp_path: Path, name: str) -> None:
    kind, write, check = FORMATS[name]
    at, end = 1500 * GIB + 3 * MIB, 2040 * GIB
    pieces = [literal(b"a" * 512), hole(at - 512), literal(b"m" * MIB), hole(end - at - MIB - 512), literal(b"z" * 512)]
    made = tmp_path / "made"
    write(pieces, made)
    assert made.stat().st_blocks * 512 < 20 * MIB
    if check:
        assert "No errors were found" in tool("qemu-img", "check", "-f", kind, made)
    assert json.loads(tool("qemu-img", "info", "--output=json", "-f", kind, made))["virtual-size"] == end
    reads = [("0x61", 0, 512), ("0", 512, 4 * MIB), ("0x6d", at, MIB), ("0", at + MIB, MIB), ("0x7a", end - 512, 512)]
    commands = [part for what, where, size in reads for part in ("-c", f"read -P {what} {where} {size}")]
    said = tool("qemu-io", "-f", kind, "-r", *commands, made)
    assert said.count("bytes at offset") == len(reads) and "failed" not in said


@pytest.mark.parametrize("name", FORMATS)
def test_another_disk_is_noticed(tmp_path: Path, data: Path, name: str) -> None:
    """The canary for the comparison: one byte."""
    kind, write, _ = FORMATS[name]
    pieces = disks(data)["small"]
    save([*pieces[:-1], literal(b"other")], tmp_path / "disk.raw")
    write(pieces, tmp_path / "made")
    done = subprocess.run(["qemu-img", "compare", "-f", "raw", "-F", kind, tmp_path / "disk.raw", tmp_path / "made"],
                          capture_output=True, timeout=60)  # fmt: skip
    assert done.returncode == 1


@pytest.mark.parametrize("name", FORMATS)
def test_converted_back(tmp_path: Path, data: Path, name: str) -> None:
    kind, write, _ = FORMATS[name]
    pieces = disks(data)["small"]
    write(pieces, tmp_path / "made")
    tool("qemu-img", "convert", "-f", kind, "-O", "raw", tmp_path / "made", tmp_path / "back")
    save(pieces, tmp_path / "disk.raw")
    want = (tmp_path / "disk.raw").read_bytes()
    back = (tmp_path / "back").read_bytes()
    assert back[: len(want)] == want and not any(back[len(want) :])


def test_what_qemu_says_about_them(tmp_path: Path, data: Path) -> None:
    found = {}
    for name, (kind, write, _) in FORMATS.items():
        write(disks(data)["small"], tmp_path / name)
        info = json.loads(tool("qemu-img", "info", "--output=json", "-f", kind, tmp_path / name))
        found[name] = info.get("format-specific", {}).get("data", {})
    assert found["qcow2"]["compat"] == "1.1" and not found["qcow2"]["corrupt"]
    assert found["qcow2-zlib"]["compression-type"] == "zlib"
    assert found["qcow2-zstd"]["compression-type"] == "zstd"
    assert found["vmdk"]["create-type"] == "streamOptimized"
    assert found["vmdk"]["extents"][0]["compressed"]
    sizes = {name: (tmp_path / name).stat().st_size for name in FORMATS}
    assert max(sizes["qcow2-zlib"], sizes["qcow2-zstd"], sizes["vmdk"]) < sizes["qcow2"]


PARTS = st.lists(
    st.tuples(st.sampled_from(["hole", "text", "file"]), st.integers(1, 3 * MIB)), min_size=1, max_size=8
)  # fmt: skip


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(PARTS)
def test_random_disks(tmp_path_factory: pytest.TempPathFactory, data: Path, parts: list[tuple[str, int]]) -> None:
    folder = tmp_path_factory.mktemp("random")
    pieces = [
        {"hole": hole(9 * n), "text": literal(b"t" * (n // 9 + 1)), "file": Piece(n, str(data), n % 999)}[kind]
        for kind, n in parts
    ]
    save(pieces, folder / "raw")
    os.truncate(folder / "raw", -(-size_of(pieces) // 512) * 512)
    for name, (kind, write, check) in FORMATS.items():
        write(pieces, folder / name)
        if check:
            tool("qemu-img", "check", "-f", kind, folder / name)
        tool("qemu-img", "compare", "-f", "raw", "-F", kind, folder / "raw", folder / name)


def test_googles_archive(tmp_path: Path, data: Path) -> None:
    part = gpt.Partition(disks(data)["small"], gpt.LINUX, "data")
    pieces = gpt.disk([part], seed="s", unit=gcp.GIB)
    archive = tmp_path / "disk.tar.gz"
    with archive.open("wb") as out:
        gcp.write(pieces, out)
    assert archive.stat().st_size < 8 * MIB
    listed = tool("tar", "-xvvSzf", archive, "-C", tmp_path)
    assert f" {GIB} " in listed and listed.endswith(" disk.raw\n") and listed.count("\n") == 1
    save(pieces, tmp_path / "raw")
    assert "identical" in tool("qemu-img", "compare", "-f", "raw", "-F", "raw", tmp_path / "raw", tmp_path / "disk.raw")
    assert "No problems found" in tool("/usr/sbin/sgdisk", "-v", tmp_path / "disk.raw")
