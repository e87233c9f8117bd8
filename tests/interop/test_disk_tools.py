"""FAT volumes, partition tables and EFI programs, judged by the tools that everybody uses."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from linuxkit.encode import fat, gpt, mbr, pe
from linuxkit.encode.authenticode import signed
from linuxkit.encode.pieces import Piece, literal, size_of
from linuxkit.outputs.pieces import put
from linuxkit.outputs.signing import load_signer
from support.efi import program

pytestmark = pytest.mark.interop
MIB = 1 << 20


def tool(*command: str | Path) -> str:
    """What a program prints. mtools and fsck.fat show names in the locale's characters."""
    paths = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    done = subprocess.run(
        [*map(str, command)], capture_output=True, timeout=120, check=False,
        env={"PATH": paths, "LC_ALL": "C.UTF-8", "MTOOLS_SKIP_CHECK": "1"},
    )  # fmt: skip
    text = (done.stdout + done.stderr).decode(errors="replace")
    assert done.returncode == 0, f"{command}: {text}"
    return text


def write(path: Path, pieces: list[Piece] | tuple[Piece, ...]) -> Path:
    path.unlink(missing_ok=True)
    with path.open("wb") as out:
        put(pieces, out)
    return path


def copied(image: Path, folder: Path) -> dict[str, bytes]:
    """Every file of a FAT volume, as mcopy takes it out."""
    folder.mkdir()
    tool("mcopy", "-s", "-n", "-Q", "-i", image, "::*", folder)
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# what FAT can hold and mtools can take out under the same name on Linux
NAME = st.text(st.sampled_from("abcdefgXYZ0123456789 ._-+,;=[]~éñß日本"), min_size=1, max_size=60).filter(
    lambda n: n[-1] not in ". " and n[0] not in " -" and n.strip(".") != ""
)
TREES = st.dictionaries(st.lists(NAME, min_size=1, max_size=4).map("/".join), st.binary(max_size=5000), min_size=1,
                        max_size=25)  # fmt: skip


def clean(files: dict[str, bytes]) -> dict[str, bytes]:
    """Without what differs in case only or is both a file and a folder: that is refused, and tested elsewhere."""
    seen: dict[str, str] = {}
    kept = {}
    for path, data in files.items():
        parents = ["/".join(path.split("/")[: n + 1]) for n in range(path.count("/") + 1)]
        if any(seen.get(p.casefold(), p + "/") != p + "/" for p in parents[:-1]) or path.casefold() in seen:
            continue
        seen |= {p.casefold(): p + "/" for p in parents[:-1]} | {path.casefold(): path}
        kept[path] = data
    return kept


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TREES.map(clean), st.sampled_from([0, 12, 16, 32]))
def test_random_trees_are_clean_for_fsck_and_whole_for_mtools(tmp_path_factory, files, bits) -> None:
    folder = tmp_path_factory.mktemp("fat")
    volume = fat.volume({p: [literal(d)] if d else [] for p, d in files.items()}, seed="s", bits=bits, label="TEST")
    image = write(folder / "fat.img", volume.pieces)
    assert "Dirty" not in tool("fsck.fat", "-n", "-v", image)
    assert copied(image, folder / "out") == files


@pytest.mark.parametrize("bits", [12, 16, 32])
def test_a_large_tree(tmp_path: Path, bits: int) -> None:
    count = {12: 200, 16: 3000, 32: 6000}[bits]
    files = {f"folder {n % 7}/deep/file number {n}.dat": os.urandom(n % 900) for n in range(count)}
    files |= {"n" * 255: b"long", "a/" * 40 + "deep": b"deep", "KERNEL": b"k" * 1_000_000}
    files = {k: v for k, v in files.items() if len(k) < 4000}
    volume = fat.volume({p: [literal(d)] if d else [] for p, d in files.items()}, seed="s", bits=bits)
    image = write(tmp_path / "fat.img", volume.pieces)
    found = tool("fsck.fat", "-n", "-v", image)
    assert f"{bits} bit entries" in found
    assert copied(image, tmp_path / "out") == files
    assert tool("mtype", "-i", image, "::KERNEL") == "k" * 1_000_000


def test_a_sparse_file_of_nearly_four_gibibytes(tmp_path: Path) -> None:
    # (fsck.fat counts the clusters' bytes in 32 bits, so not quite the largest)
    size = (1 << 32) - 8192
    volume = fat.volume({"big": [Piece(size - 3), literal(b"end")]}, seed="s", label="BIG")
    image = write(tmp_path / "fat.img", volume.pieces)
    assert image.stat().st_blocks * 512 < 16 * MIB
    assert "2 files" in tool("fsck.fat", "-n", image)  # with the root
    assert f"{size}" in tool("mdir", "-i", image, "::")


@pytest.mark.parametrize("size", [MIB, 64 * MIB, 600 * MIB])
def test_sizes_that_are_asked_for(tmp_path: Path, size: int) -> None:
    image = write(tmp_path / "fat.img", fat.volume({"a": [literal(b"x")]}, seed="s", size=size).pieces)
    assert image.stat().st_size == size
    tool("fsck.fat", "-n", image)


def test_gpt(tmp_path: Path) -> None:
    esp = fat.volume({"EFI/BOOT/X": [literal(b"x" * 5000)]}, seed="s", bits=32, hidden=2048)
    disk = write(tmp_path / "disk", gpt.disk([
        gpt.Partition(esp.pieces, gpt.ESP, "EFI System", gpt.LEGACY_BOOT),
        gpt.Partition([Piece(5 * MIB)], gpt.ROOT["amd64"], "root"),
    ], seed="s"))  # fmt: skip
    assert "No errors detected" in tool("sfdisk", "--verify", disk)
    assert "No problems found" in tool("sgdisk", "-v", disk)
    dump = tool("sfdisk", "-d", disk)
    assert f"label-id: {gpt.disk_guid('s').upper()}" in dump
    assert f"uuid={gpt.partition_guid('s', 1).upper()}" in dump
    assert 'attrs="LegacyBIOSBootable"' in dump and 'name="EFI System"' in dump
    assert re.search(r"start=\s+2048,", dump)
    assert "X" in tool("mdir", "-i", f"{disk}@@1M", "::/EFI/BOOT")


def test_gpt_with_more_room_and_a_hybrid_record(tmp_path: Path) -> None:
    part = gpt.Partition([Piece(MIB)], gpt.ESP, "esp")
    larger = write(tmp_path / "disk", gpt.disk([part], seed="s", size=50 * MIB))
    assert "No problems found" in tool("sgdisk", "-v", larger)
    show = mbr.Slot(2048, 2048, mbr.EFI, active=True)
    hybrid = write(tmp_path / "hybrid", gpt.disk([part], seed="s", hybrid=[show]))
    found = tool("sgdisk", "-p", hybrid)
    assert "hybrid" in tool("gdisk", "-l", hybrid)
    assert "EF00" in found


def test_mbr(tmp_path: Path) -> None:
    esp = fat.volume({"KERNEL": [literal(b"x" * 5000)]}, seed="s", hidden=2048)
    disk = write(tmp_path / "disk", mbr.disk([
        mbr.Partition(esp.pieces, mbr.FAT32, active=True), mbr.Partition([Piece(3 * MIB)], mbr.LINUX),
    ], seed="s"))  # fmt: skip
    assert "No errors detected" in tool("sfdisk", "--verify", disk)
    dump = tool("sfdisk", "-d", disk)
    assert f"label-id: 0x{mbr.signature('s'):08x}" in dump
    assert re.search(r"start=\s+2048, size=\s+\d+, type=c, bootable", dump)
    assert "type=83" in dump


def test_sections_of_an_efi_program(tmp_path: Path) -> None:
    contents = {".osrel": b"ID=linuxkit\n", ".cmdline": b"console=ttyS0", ".initrd": os.urandom(70_000), ".linux": b"L"}
    pieces = pe.add_sections(program(), [pe.Section(n, [literal(c)]) for n, c in contents.items()])
    path = write(tmp_path / "x.efi", pieces)
    assert path.stat().st_size == size_of(pieces)
    listed = tool("objdump", "-h", path)
    for name, content in contents.items():
        assert re.search(rf"{re.escape(name)}\s+{len(content):08x}\s", listed)
        tool("objcopy", "-O", "binary", f"--only-section={name}", path, tmp_path / "section")
        assert (tmp_path / "section").read_bytes() == content
    assert "No signature table present" in tool("sbverify", "--list", path)


def test_a_signed_program(tmp_path: Path) -> None:
    key, certificate, other = (tmp_path / name for name in ("key.pem", "cert.pem", "other.pem"))
    for out in (certificate, other):
        tool("openssl", "req", "-new", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={out.stem}",
             "-keyout", key if out == certificate else tmp_path / "k2", "-out", out)  # fmt: skip
    pieces = signed(pe.add_sections(program(), [pe.Section(".linux", [literal(b"L" * 5000)])]),
                    load_signer(key, certificate))  # fmt: skip
    path = write(tmp_path / "signed.efi", pieces)
    assert "Signature verification OK" in tool("sbverify", "--cert", certificate, path)
    assert "/CN=cert" in tool("sbverify", "--list", path)
    with pytest.raises(AssertionError, match="verification failed"):
        tool("sbverify", "--cert", other, path)
    data = bytearray(path.read_bytes())
    data[data.index(b"LLLL")] = 0
    path.write_bytes(data)
    with pytest.raises(AssertionError, match="verification failed"):
        tool("sbverify", "--cert", certificate, path)


@pytest.mark.parametrize("bits", [12, 16, 32])
@pytest.mark.parametrize("label", ["", "BOOT"])
def test_a_directory_of_any_length_has_as_many_clusters_as_its_chain(tmp_path: Path, bits: int, label: str) -> None:
    """Sixteen entries are a sector: the root and a folder, each around that border, with a file behind them."""
    for count in (0, *range(13, 19)):
        files = {f"F{n}": b"" for n in range(count)} | {f"D/F{n}": b"" for n in range(count)} | {"D/LAST": b"last"}
        shape = fat.volume({name: [literal(data)] for name, data in files.items()}, seed="s", bits=bits, label=label)
        image = write(tmp_path / f"{count}.img", shape.pieces)
        tool("fsck.fat", "-n", image)
        assert copied(image, tmp_path / f"{count}") == files
