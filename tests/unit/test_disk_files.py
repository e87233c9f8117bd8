"""Disk files: what is in their headers, which blocks they leave out, and what they can't hold."""

from __future__ import annotations

import gzip
import hashlib
import io
import itertools
import os
import struct
import tarfile
import zlib
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linuxkit.encode import gcp, gzip_pieces, ovf, qcow2, vhd, vhdx, vmdk
from linuxkit.encode.crc32c import crc32c
from linuxkit.encode.pieces import Piece, hole, literal, read, size_of
from linuxkit.encode.sparse import Run, runs
from linuxkit.errors import InputError

pytestmark = pytest.mark.unit
KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40


def content(pieces: list[Piece]) -> bytes:
    return b"".join(read(pieces))


def sample() -> list[Piece]:
    """8 MiB and a bit: data at the front, in the middle, at the end."""
    return [literal(b"front" * 1000), hole(4 * MIB), literal(bytes(range(256)) * 1000), hole(4 * MIB), literal(b"end")]


# -- runs


def test_runs() -> None:
    assert runs([], 10) == runs([hole(100)], 10) == []
    assert runs([literal(b"a" * 25)], 10) == [Run(0, 3, [literal(b"a" * 25), hole(5)])]
    assert runs([hole(12), literal(b"a"), hole(3), literal(b"b")], 10) == [
        Run(1, 1, [hole(2), literal(b"a"), hole(3), literal(b"b"), hole(3)])
    ]
    # a hole that covers no whole block stays in; one that does divides
    assert [(r.first, r.blocks) for r in runs([literal(b"a"), hole(18), literal(b"b")], 10)] == [(0, 2)]
    assert [(r.first, r.blocks) for r in runs([literal(b"a"), hole(19), literal(b"b")], 10)] == [(0, 1), (2, 1)]
    assert [(r.first, r.blocks) for r in runs([Piece(10, "f"), Piece(10, "f"), hole(10)], 10)] == [(0, 2)]


PARTS = st.lists(st.tuples(st.booleans(), st.integers(0, 70)), max_size=20)


@given(PARTS, st.integers(1, 33))
def test_runs_hold_all_data_and_no_block_without(parts: list[tuple[bool, int]], block: int) -> None:
    pieces = [literal(b"x" * n) if data else hole(n) for data, n in parts]
    whole = content(pieces)
    found = runs(pieces, block)
    rebuilt = bytearray(-(-len(whole) // block) * block)
    for before, after in itertools.pairwise(found):
        assert before.first + before.blocks < after.first
    for run in found:
        data = content(run.pieces)
        assert len(data) == run.blocks * block
        assert all(any(data[at : at + block]) for at in range(0, len(data), block))
        rebuilt[run.first * block : run.first * block + len(data)] = data
    assert rebuilt[: len(whole)] == whole and not any(rebuilt[len(whole) :])


# -- all of them


def written(write: object, *arguments: object, **options: object) -> bytes:
    out = io.BytesIO()
    write(*arguments[:1], out, **options)  # type: ignore[operator]
    return out.getvalue()


COMPRESSED = {
    "qcow2 zlib": lambda p, n: written(qcow2.compress, p, kind="zlib", threads=n),
    "qcow2 zstd": lambda p, n: written(qcow2.compress, p, kind="zstd", threads=n),
    "vmdk": lambda p, n: written(vmdk.body, p, threads=n),
    "gcp": lambda p, n: written(gcp.write, p, threads=n),
}
PLAIN = {
    "qcow2": lambda p, seed: qcow2.image(p),
    "vhd": lambda p, seed: vhd.fixed(p, seed=seed),
    "dynamic-vhd": lambda p, seed: vhd.dynamic(p, seed=seed),
    "vhdx": lambda p, seed: vhdx.image(p, seed=seed),
}


@pytest.mark.parametrize("name", COMPRESSED)
def test_threads_do_not_matter(name: str, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"text " * 300_000 + os.urandom(2 * MIB) + bytes(MIB))
    pieces = [*sample(), Piece(4 * MIB + 5000, str(tmp_path / "data"), 7), hole(MIB)]
    one, many = (COMPRESSED[name](pieces, n) for n in (1, 3))
    assert one == many


@pytest.mark.parametrize("name", PLAIN)
def test_nothing_is_copied(name: str) -> None:
    data = Piece(3 * MIB, "some file", 500)
    made = PLAIN[name]([literal(b"x"), hole(4 * MIB - 1), data, hole(GIB)], "s")
    assert sum(p.size for p in made if p.path) == 3 * MIB
    assert {p.path for p in made} == {"", "some file"}
    assert sum(len(p.data) for p in made) < MIB


@pytest.mark.parametrize("name", [n for n in PLAIN if n != "qcow2"])
def test_identifiers_come_from_the_seed(name: str) -> None:
    one, same, other = (content(PLAIN[name](sample(), seed)) for seed in ("a", "a", "b"))
    assert one == same != other


@pytest.mark.parametrize(("name", "least"), [("qcow2", 64 * TIB), ("vhd", 2040 * GIB), ("dynamic-vhd", 2040 * GIB),
                                             ("vhdx", 64 * TIB)])  # fmt: skip
def test_too_large(name: str, least: int) -> None:
    PLAIN[name]([hole(least)], "s")
    with pytest.raises(InputError, match="can't hold a disk of"):
        PLAIN[name]([hole(least + 1)], "s")
    with pytest.raises(InputError, match="can't hold a disk of"):
        vmdk.virtual_size([hole(2 * TIB)])
    assert vmdk.virtual_size([hole(2 * TIB - 64 * KIB)]) == 2 * TIB - 64 * KIB


# -- qcow2


def test_qcow2_layout() -> None:
    made = content(qcow2.image([literal(b"a" * 70_000), hole(600 * MIB), literal(b"b")]))
    magic, version, backing, _, bits, size, crypt, l1, l1_at, counts_at, count_clusters = struct.unpack_from(
        ">4sIQIIQIIQQI", made
    )
    assert (magic, version, backing, bits, crypt) == (b"QFI\xfb", 3, 0, 16, 0)
    assert size == -(-(600 * MIB + 70_001) // 512) * 512
    assert (l1, count_clusters) == (2, 1)
    first, second = struct.unpack_from(">2Q", made, l1_at)
    assert first >> 63 == second >> 63 == 1
    entries = struct.unpack_from(">8192Q", made, first & ~(1 << 63))
    assert [n for n, e in enumerate(entries) if e] == [0, 1]
    at = entries[0] & ~(1 << 63)
    assert made[at : at + 70_001] == b"a" * 70_000 + b"\0"
    block_at = struct.unpack_from(">Q", made, counts_at)[0]
    counts = struct.unpack_from(">32768H", made, block_at)
    assert counts[: len(made) >> 16] == (1,) * (len(made) >> 16) and not any(counts[len(made) >> 16 :])


def test_qcow2_tells_how_it_is_compressed() -> None:
    zlib_, zstd = (COMPRESSED[f"qcow2 {kind}"](sample(), 1) for kind in ("zlib", "zstd"))
    assert struct.unpack_from(">Q", zlib_, 72)[0] == 0 and zlib_[104] == 0
    assert struct.unpack_from(">Q", zstd, 72)[0] == 8 and zstd[104] == 1


# -- VHD


def test_geometry() -> None:
    for mebibytes in (1, 10, 128, 504, 4096, 34 * 1024, 127 * 1024, 2000 * 1024):
        cylinders, heads, sectors = vhd.geometry(mebibytes * 2048)
        covered = cylinders * heads * sectors
        assert cylinders <= 65535 and 4 <= heads <= 16 and sectors in (17, 31, 63, 255)
        assert covered <= mebibytes * 2048
        if mebibytes <= 127 * 1024:
            assert mebibytes * 2048 - covered < heads * sectors
    assert vhd.geometry(2048) == (30, 4, 17)
    assert vhd.geometry(20480) == (301, 4, 17)
    assert vhd.geometry(1 << 40) == (65535, 16, 255)


def footer_of(data: bytes) -> tuple:
    assert len(data) == 512
    fields = struct.unpack(">8sIIQI4sI4sQQHBBII16sB427x", data)
    assert fields[14] == ~(sum(data) - sum(data[64:68])) & 0xFFFFFFFF
    return fields


@pytest.mark.parametrize(("size", "whole"), [(1, MIB), (MIB, MIB), (MIB + 1, 2 * MIB), (34 * MIB, 34 * MIB)])
def test_a_fixed_vhd_is_whole_mebibytes_and_a_footer(size: int, whole: int) -> None:
    data = content(vhd.fixed([literal(b"x"), hole(size - 1)], seed="s"))
    assert len(data) == whole + 512
    footer = footer_of(data[-512:])
    assert footer[0] == b"conectix" and footer[3] == (1 << 64) - 1
    assert footer[8] == footer[9] == whole
    assert footer[10:13] == vhd.geometry(whole // 512)
    assert footer[13] == 2
    assert footer[4] == 1492533000 - 946684800  # seconds since 2000


def test_a_dynamic_vhd_leaves_blocks_out() -> None:
    data = content(vhd.dynamic([hole(5 * MIB), literal(b"here"), hole(3 * MIB - 4)], seed="s"))
    footer_of(data[:512])
    assert data[:512] == data[-512:]
    header = data[512:1536]
    assert header[:8] == b"cxsparse"
    assert struct.unpack_from(">I", header, 36)[0] == ~(sum(header) - sum(header[36:40])) & 0xFFFFFFFF
    assert struct.unpack_from(">II", header, 28) == (4, 2 * MIB)
    table = struct.unpack_from(">4I", data, 1536)
    assert [n for n, at in enumerate(table) if at != 0xFFFFFFFF] == [2]
    block = data[table[2] * 512 :]
    assert block[:512] == b"\xff" * 512 and block[512 + MIB :][:4] == b"here"
    assert len(data) == 1536 + 512 + 512 + 2 * MIB + 512


# -- VHDX


def test_vhdx_structures() -> None:
    data = content(vhdx.image(sample(), seed="s"))
    assert data[:8] == b"vhdxfile" and len(data) % MIB == 0

    def checked(at: int, size: int) -> bytes:
        part = data[at : at + size]
        assert struct.unpack_from("<I", part, 4)[0] == crc32c(part[:4] + bytes(4) + part[8:])
        return part

    assert [checked(at, 4096)[:16] for at in (64 * KIB, 128 * KIB)] != [b"", b""]
    assert [struct.unpack_from("<Q", data, at + 8)[0] for at in (64 * KIB, 128 * KIB)] == [0, 1]
    assert checked(192 * KIB, 64 * KIB) == checked(256 * KIB, 64 * KIB)
    assert data[2 * MIB : 2 * MIB + 8] == b"metadata"
    entries = struct.unpack_from("<9Q", data, 3 * MIB)
    assert [e & 7 for e in entries] == [6, 2, 2, 2, 6, 2, 2, 2, 6]
    assert data[entries[8] >> 20 << 20 :][:MIB].strip(b"\0").endswith(b"end")


@pytest.mark.parametrize(("size", "block"), [(GIB, MIB), (64 * GIB, MIB), (64 * GIB + 512, 2 * MIB),
                                             (64 * TIB, 256 * MIB)])  # fmt: skip
def test_vhdx_blocks_grow_with_the_disk(size: int, block: int) -> None:
    pieces = vhdx.image([hole(size)], seed="s")
    head = content([p for p in pieces if p.size < 100 * MIB])
    assert struct.unpack_from("<I", head, 2 * MIB + 64 * KIB)[0] == block


# -- VMDK, OVF


def test_vmdk_markers() -> None:
    data = vmdk.head(vmdk.virtual_size(sample()), name="x.vmdk", seed="s") + COMPRESSED["vmdk"](sample(), 1)
    assert data[:4] == b"KDMV" and len(data) % 512 == 0
    assert b'createType="streamOptimized"' in data[512:] and b'"pvscsi"' in data and b'SPARSE "x.vmdk"' in data
    assert data[-512:] == bytes(512)  # end of stream
    footer = data[-1024:-512]
    assert footer[:56] == data[:56]
    directory_at = struct.unpack_from("<Q", footer, 56)[0]
    (table_at,) = struct.unpack_from("<I", data, directory_at * 512)
    table = struct.unpack_from("<512I", data, table_at * 512)
    used = {n: at for n, at in enumerate(table) if at}
    assert [n for n in used if n < 64] == [0] and max(used) == (size_of(sample()) - 1) // (64 * KIB)
    sector, size = struct.unpack_from("<QI", data, used[0] * 512)
    assert sector == 0
    assert zlib.decompress(data[used[0] * 512 + 12 :][:size])[:5000] == b"front" * 1000


def test_a_name_that_is_too_long_for_a_vmdk() -> None:
    with pytest.raises(InputError, match="too long"):
        vmdk.head(MIB, name="n" * 20_000, seed="s")


@pytest.mark.parametrize("name", ["system", "a<b>&\"c'", "grün"])
def test_ovf_is_xml_of_the_right_names(name: str) -> None:
    root = ElementTree.fromstring(ovf.descriptor(ovf.Machine(name, f"{name}.vmdk", 34 * MIB, 5000, 768, "efi")))
    env = "{http://schemas.dmtf.org/ovf/envelope/1}"
    rasd = "{http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData}"
    assert root.tag == f"{env}Envelope"
    file = root.find(f"{env}References/{env}File")
    disk = root.find(f"{env}DiskSection/{env}Disk")
    assert file is not None and disk is not None
    assert file.get(f"{env}href") == f"{name}.vmdk" and file.get(f"{env}size") == "5000"
    assert disk.get(f"{env}capacity") == str(34 * MIB) and disk.get(f"{env}fileRef") == file.get(f"{env}id")
    items = root.findall(f".//{env}Item")
    kinds = [item.findtext(f"{rasd}ResourceType") for item in items]
    assert kinds == ["3", "4", "6", "17", "10"]
    for item in items:
        assert [e.tag for e in item] == sorted(e.tag for e in item)  # the schema's order
    config = root.find(".//{http://www.vmware.com/schema/ovf}Config")
    assert config is not None and config.get("{http://www.vmware.com/schema/ovf}value") == "efi"


def test_ova_is_a_tar_that_begins_with_the_description() -> None:
    members = [("x.ovf", b"<xml/>"), ("x.vmdk", b"disk" * 1000)]
    manifest = ovf.manifest([(n, hashlib.sha256(d).hexdigest()) for n, d in members])
    made = content(ovf.package([(n, [literal(d)]) for n, d in (members[0], ("x.mf", manifest), members[1])]))
    assert made[257:265] == b"ustar\x0000"
    with tarfile.open(fileobj=io.BytesIO(made)) as archive:
        assert archive.getnames() == ["x.ovf", "x.mf", "x.vmdk"]
        found = {n: archive.extractfile(n).read() for n in archive.getnames()}  # type: ignore[union-attr]
    for line in found["x.mf"].decode().splitlines():
        name, digest = line.removeprefix("SHA256(").split(")= ")
        assert hashlib.sha256(found[name]).hexdigest() == digest


# -- gzip, Google's archive


@pytest.mark.parametrize("pieces", [
    [], [literal(b"x")], [hole(MIB)], [hole(MIB - 1)], [hole(5 * MIB + 1), literal(b"y" * (MIB - 1))], sample(),
    [literal(b"a" * MIB), hole(MIB), literal(b"b" * 3 * MIB), hole(70 * MIB)],
])  # fmt: skip
def test_gzip_pieces(pieces: list[Piece]) -> None:
    made = written(gzip_pieces.write, pieces)
    assert gzip.decompress(made) == content(pieces)
    assert made[4:8] == bytes(4)  # no time


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_joined_checksums(first: bytes, second: bytes) -> None:
    joined = gzip_pieces._joined(zlib.crc32(first), zlib.crc32(second), len(second))
    assert joined == zlib.crc32(first + second)


@pytest.mark.parametrize(("size", "want"), [(1, GIB), (GIB, GIB), (GIB + 1, 2 * GIB), (8 * GIB, 8 * GIB)])
def test_googles_archive(size: int, want: int) -> None:
    made = written(gcp.write, [literal(b"x"), hole(size - 1)])
    unpack = zlib.decompressobj(31)
    header = unpack.decompress(made, 512)
    assert header[257:265] == b"ustar  \0"  # the old GNU format
    info = tarfile.TarInfo.frombuf(header, "utf-8", "strict")
    assert (info.name, info.size, info.type) == ("disk.raw", want, tarfile.REGTYPE)
    assert made[-4:] == struct.pack("<I", -(-(want + 1536) // 10240) * 10240 & 0xFFFFFFFF)
