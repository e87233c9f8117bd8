"""cpio, tar and compressed streams, read back by other code: tarfile, the standard decompressors, a few lines here."""

from __future__ import annotations

import gzip
import io
import lzma
import struct
import tarfile
import threading

import pytest

from linuxkit.encode import cpio, tar
from linuxkit.encode.compress import Codec, Compressor, level_of
from linuxkit.entry import Bytes, Entry, Extent, Kind
from linuxkit.errors import ImageError, InputError, LinuxkitError

pytestmark = pytest.mark.unit
TREE = [
    Entry("dir", Kind.DIRECTORY, 0o755, mtime=7),
    Entry("dir/file", Kind.FILE, 0o4755, 3_000_000, 1, 1_500_000_000, source=Bytes(b"content")),
    Entry("dir/empty", Kind.FILE),
    Entry("dir/hard", Kind.HARDLINK, target="other/place"),
    Entry("dir/soft", Kind.SYMLINK, 0o777, target="../x"),
    Entry("null", Kind.CHAR, 0o666, device=(1, 3)),
    Entry("disk", Kind.BLOCK, 0o600, device=(8, 300)),
    Entry("pipe", Kind.FIFO, 0o600),
    Entry("ü" * 100, Kind.FILE, source=Bytes(b"x")),
]


def read_cpio(data: bytes) -> dict[str, tuple[list[int], bytes]]:
    found, at = {}, 0
    while True:
        assert data[at : at + 6] == b"070701"
        fields = [int(data[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        name = data[at + 110 : at + 109 + fields[11]].decode()
        start = (at + 110 + fields[11] + 3) // 4 * 4
        if name == "TRAILER!!!":
            assert not data[start:].strip(b"\0")
            return found
        found[name] = fields, data[start : start + fields[6]]
        at = (start + fields[6] + 3) // 4 * 4


def as_cpio(entries: list[Entry]) -> bytes:
    out = io.BytesIO()
    size = cpio.write(entries, out)
    assert size == len(out.getvalue())
    assert size % 512 == 0
    return out.getvalue()


def test_cpio_holds_every_kind_of_node() -> None:
    found = read_cpio(as_cpio(TREE))
    assert list(found) == [e.path for e in TREE]
    fields, data = found["dir/file"]
    assert (fields[1], fields[2], fields[3], fields[4], fields[5]) == (0o104755, 3_000_000, 1, 1, 1_500_000_000)
    assert data == b"content"
    assert found["dir"][0][1:5] == [0o040755, 0, 0, 2]
    assert found["null"][0][9:11] == [1, 3]
    assert found["disk"][0][9:11] == [8, 300]
    assert [f[0] for f, _ in found.values()] == list(range(721, 721 + len(TREE)))


def test_a_hard_link_becomes_a_relative_symlink_in_cpio() -> None:
    fields, data = read_cpio(as_cpio(TREE))["dir/hard"]
    assert fields[1] & 0o170000 == 0o120000
    assert data == b"../other/place"


def test_cpio_paths_cannot_lead_out() -> None:
    odd = [Entry(p, Kind.FILE) for p in ("../a", "b//c", "./d", ".hidden", "x/.y", "..")]
    assert list(read_cpio(as_cpio(odd))) == ["a", "b/c", "d", ".hidden", "x/.y"]


class Huge:
    size = 1 << 32

    def open(self) -> io.BytesIO:
        raise AssertionError("nothing of it may be read")


def test_cpio_refuses_what_it_cannot_say() -> None:
    with pytest.raises(LinuxkitError, match="4 GiB"):
        as_cpio([Entry("big", Kind.FILE, source=Huge())])
    with pytest.raises(LinuxkitError, match="32 bits"):
        as_cpio([Entry("f", Kind.FILE, uid=1 << 32)])


@pytest.mark.parametrize("write", [cpio.write, tar.write])
def test_a_source_that_ends_early_is_an_error(write, tmp_path) -> None:
    (tmp_path / "short").write_bytes(b"123")
    with pytest.raises(ImageError, match="shorter"):
        write([Entry("f", Kind.FILE, source=Extent(str(tmp_path / "short"), 1, 5))], io.BytesIO())


def test_tar_is_read_by_tarfile() -> None:
    long = [
        Entry("a" * 90 + "/" + "b" * 90, Kind.DIRECTORY, 0o700),
        Entry("d" * 200 + "/" + "c" * 200, Kind.FILE, mtime=-5, uid=1 << 40, source=Bytes(b"q" * 600)),
        Entry("link", Kind.SYMLINK, 0o777, target="t" * 300),
        Entry("caps", Kind.FILE, xattrs=(("security.capability", b"\1\0\n="),), origin=("docker.io/x:1", "init[0]")),
        Entry("raw\udcff", Kind.FILE),
    ]
    out = io.BytesIO()
    assert tar.write([*TREE, *long], out) == len(out.getvalue())
    out.write(tar.END)
    out.seek(0)
    with tarfile.open(fileobj=out) as archive:
        found = {m.name: m for m in archive}
        assert archive.extractfile("dir/file").read() == b"content"
    assert [m.removesuffix("/") for m in found] == [e.path for e in [*TREE, *long]]
    assert found["dir/file"].uid == 3_000_000
    assert found["dir/hard"].linkname == "other/place"
    assert (found["disk"].devmajor, found["disk"].devminor) == (8, 300)
    assert found["link"].linkname == "t" * 300
    deep = found["d" * 200 + "/" + "c" * 200]
    assert (deep.uid, deep.mtime, deep.size) == (1 << 40, -5, 600)
    pax = found["caps"].pax_headers
    assert pax["SCHILY.xattr.security.capability"] == "\1\0\n="
    assert (pax["LINUXKIT.source"], pax["LINUXKIT.location"]) == ("docker.io/x:1", "init[0]")


def unpack(codec: Codec, data: bytes) -> bytes:
    if codec is Codec.GZIP:
        return gzip.decompress(data)
    if codec is Codec.XZ:
        return lzma.decompress(data)
    if codec is Codec.ZSTD:
        try:
            from compression import zstd
        except ImportError:
            from backports import zstd
        return zstd.decompress(data)
    if codec is Codec.LZ4:
        block = pytest.importorskip("lz4.block", reason="the lz4 package is an extra")
        assert data[:4] == b"\x02\x21\x4c\x18"
        at, plain = 4, b""
        while at < len(data):
            (size,) = struct.unpack_from("<I", data, at)
            plain += block.decompress(data[at + 4 : at + 4 + size], uncompressed_size=8 << 20)
            at += 4 + size
        return plain
    return data


@pytest.mark.parametrize("codec", list(Codec))
def test_every_codec_can_be_read_back_and_repeats(codec: Codec) -> None:
    if codec is Codec.LZ4:
        pytest.importorskip("lz4.block", reason="the lz4 package is an extra")
    plain = (b"0123456789" * 1000 + bytes(5000)) * 700  # over one block of lz4
    made = []
    for step, workers in ((len(plain), 1), (70_001, 1), (1 << 20, 3)):
        out = io.BytesIO()
        with Compressor(out, codec, workers=workers) as packed:
            for at in range(0, len(plain), step):
                packed.write(plain[at : at + step])
        made.append(out.getvalue())
    assert unpack(codec, made[0]) == plain
    assert made[0] == made[1] == made[2]


def test_xz_has_what_linux_asks_for() -> None:
    out = io.BytesIO()
    with Compressor(out, Codec.XZ) as packed:
        packed.write(b"x" * 1000)
    assert out.getvalue()[7] == lzma.CHECK_CRC32


def test_levels_are_checked() -> None:
    assert level_of(Codec.ZSTD, None) == 3
    with pytest.raises(InputError, match="no level 20"):
        level_of(Codec.ZSTD, 20)


def test_compressing_in_threads_gives_the_same_bytes() -> None:
    plain = bytes(range(256)) * 40_000
    made: list[bytes] = []

    def work() -> None:
        out = io.BytesIO()
        with Compressor(out, Codec.ZSTD) as packed:
            packed.write(plain)
        made.append(out.getvalue())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 1
