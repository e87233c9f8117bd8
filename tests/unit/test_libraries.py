"""One implementation of each compressor, and what it makes, byte by byte."""

from __future__ import annotations

import ast
import hashlib
import io
import lzma
import tomllib
import zlib
from importlib.metadata import version
from pathlib import Path

import pytest

import linuxkit
from linuxkit.encode import compress, gzip_pieces, libraries, qcow2, squashfs_codec
from linuxkit.encode.compress import LEVELS, Codec, Compressor
from linuxkit.encode.pieces import literal

pytestmark = pytest.mark.unit
ROOT = Path(linuxkit.__file__).parent
SAMPLE = b"".join(b"%d %x\n" % (n, n * n * 7919) for n in range(30000)) + bytes(200_000) + bytes(range(256)) * 300


def made() -> dict[str, str]:
    """Digests of everything that is compressed in one way or another, at each default level."""
    out = {}
    for codec in (Codec.GZIP, Codec.ZSTD, Codec.LZ4):
        stream = io.BytesIO()
        with Compressor(stream, codec) as packed:
            packed.write(SAMPLE)
        out[f"stream {codec}"] = stream.getvalue()
        level = LEVELS[codec][2]
        out[f"block {codec}"] = squashfs_codec.packer(codec, level, 131072)(SAMPLE[:131072])
    stream = io.BytesIO()
    gzip_pieces.write([literal(SAMPLE)], stream)
    out["pieces"] = stream.getvalue()
    for kind in ("zlib", "zstd"):
        out[f"qcow2 {kind}"] = qcow2._compressor(kind)(SAMPLE[:65536])
    return {name: hashlib.sha256(data).hexdigest()[:16] for name, data in out.items()}


#: A change here is a change of images: it needs other versions in pyproject.toml and a word in the CHANGELOG.
CANARY = {
    "stream gzip": "84449aad8909bd0f",
    "block gzip": "371a75b4eda22ed4",
    "stream zstd": "3c6cf251e54d84a6",
    "block zstd": "24319873828c8f87",
    "stream lz4": "de2a767cbaf44b77",
    "block lz4": "4bcd100e7efdeae0",
    "pieces": "1ea8445fca91e288",
    "qcow2 zlib": "aa76a58e21197a4d",
    "qcow2 zstd": "bd1a492d63965846",
}


def test_the_canary() -> None:
    assert made() == CANARY


def test_another_implementation_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: with Python's own zlib behind it, the canary is another one."""
    monkeypatch.setattr(libraries, "_deflater", lambda level, wbits, memory: zlib.compressobj(
        level, zlib.DEFLATED, wbits, memory))  # fmt: skip
    found = made()
    changed = {name for name in CANARY if found[name] != CANARY[name]}
    assert changed == {"stream gzip", "block gzip", "pieces", "qcow2 zlib"}


def test_the_versions_are_those_of_the_wheels() -> None:
    project = tomllib.loads((ROOT.parents[1] / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    exact = dict(line.split("==") for line in lines if "==" in line)
    assert {"zlib-ng", "zstandard", "lz4", "ziglang"} <= set(exact)
    assert all(version(name) == wanted for name, wanted in exact.items())
    found = libraries.versions()
    assert found["deflate"].startswith("zlib-ng ") and found["zstd"].startswith("libzstd ")
    assert found["lz4"].startswith("liblz4 ") and found["xz"].startswith("liblzma ")


def test_keys_have_the_version(monkeypatch: pytest.MonkeyPatch) -> None:
    for codec, name in ((Codec.GZIP, "deflate"), (Codec.ZSTD, "zstd"), (Codec.LZ4, "lz4"), (Codec.XZ, "xz")):
        assert compress.library(codec) == libraries.version(name)
    monkeypatch.setattr(libraries, "version", lambda name: "other")
    assert compress.library(Codec.GZIP) == qcow2.library("zlib") == "other"
    assert compress.library(Codec.NONE) == ""


@pytest.mark.parametrize("size", [1000, 65537, 300_000, len(SAMPLE)])
@pytest.mark.parametrize("codec", [c for c in Codec if c is not Codec.NONE])
def test_how_the_input_is_cut_does_not_matter(codec: Codec, size: int) -> None:
    one, other = io.BytesIO(), io.BytesIO()
    with Compressor(one, codec) as packed:
        packed.write(SAMPLE)
    with Compressor(other, codec) as packed:
        for at in range(0, len(SAMPLE), size):
            packed.write(SAMPLE[at : at + size])
    assert one.getvalue() == other.getvalue()


def test_what_is_made_reads_back() -> None:
    for bits in (15, 31, -15, -12):
        data = libraries.deflate_block(6, bits)(SAMPLE)
        assert zlib.decompress(data, bits) == SAMPLE
    assert lzma.decompress(libraries.xz_block(6, 1 << 20)(SAMPLE)) == SAMPLE


#: Calls that make a compressor, wherever they come from.
MAKERS = {"compressobj", "compress", "ZstdCompressor", "LZMACompressor", "BZ2Compressor", "GzipFile", "ZstdFile"}


def users(folder: Path) -> set[str]:
    """Modules that make one of a library that they import themselves."""
    found = set()
    for path in folder.rglob("*.py"):
        tree = ast.parse(path.read_text())
        names = {"zlib", "gzip", "lzma", "bz2", "zstd", "zstandard", "zlib_ng", "lz4", "zstd_module"}
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr in MAKERS:
                root: ast.expr = node.value
                while isinstance(root, ast.Attribute | ast.Call):
                    root = root.value if isinstance(root, ast.Attribute) else root.func
                if isinstance(root, ast.Name) and root.id in names:
                    found.add(path.relative_to(folder).as_posix())
    return found


def test_only_one_module_makes_compressors(tmp_path: Path) -> None:
    assert users(ROOT) == {"encode/libraries.py", "places/ssh.py"}  # ssh packs what it sends, nothing that is kept
    (tmp_path / "a.py").write_text("import zlib\nx = zlib.compress(b'')\n")
    (tmp_path / "b.py").write_text("y = zstd_module().ZstdCompressor()\n")
    assert users(tmp_path) == {"a.py", "b.py"}
