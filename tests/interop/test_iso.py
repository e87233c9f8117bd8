"""ISO 9660 volumes, read by xorriso, bsdtar and isoinfo."""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from linuxkit.encode import eltorito, iso9660
from linuxkit.encode.pieces import Piece, hole, literal
from linuxkit.encode.tree import tree, walk
from linuxkit.entry import Bytes, Entry, Kind
from linuxkit.errors import InputError
from linuxkit.outputs.pieces import put

pytestmark = pytest.mark.interop

TYPES = {Kind.FILE: tarfile.REGTYPE, Kind.SYMLINK: tarfile.SYMTYPE, Kind.DIRECTORY: tarfile.DIRTYPE,
         Kind.CHAR: tarfile.CHRTYPE, Kind.BLOCK: tarfile.BLKTYPE, Kind.FIFO: tarfile.FIFOTYPE}  # fmt: skip


def image(path: Path, entries: Sequence[Entry], **options: object) -> Path:
    made = iso9660.volume(tree(entries), "LinuxKit", **options)
    with open(path, "wb") as out:
        put(made.pieces, out)
    return path


def members(iso: Path) -> dict[str, tuple[tarfile.TarInfo, bytes]]:
    """What bsdtar reads by Rock Ridge."""
    made = subprocess.run(["bsdtar", "-cf", "-", "--format=pax", f"@{iso}"], capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(made)) as archive:
        found = {}
        for member in archive:
            stream = archive.extractfile(member) if member.isreg() else None
            found[member.name] = (member, stream.read() if stream else b"")
        return found


def xorriso(iso: Path, *args: str) -> str:
    done = subprocess.run(["xorriso", "-indev", iso, *args], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "FAILURE" not in done.stderr, done.stderr
    assert "SORRY" not in done.stderr, done.stderr
    return done.stdout + done.stderr


def check(iso: Path, entries: Sequence[Entry]) -> None:
    got = members(iso)
    got.pop(".", None)
    want = {path: node for path, node in walk(tree(entries)) if path}
    assert set(got) == set(want)
    first: dict[int, str] = {}
    for path, node in want.items():
        member, content = got[path]
        entry = node.entry
        assert (member.mode, member.uid, member.gid, member.mtime) == (entry.mode, entry.uid, entry.gid, entry.mtime), (
            path
        )
        if member.islnk():
            assert want[member.linkname] is node
            continue
        assert member.type == TYPES[entry.kind], path
        first.setdefault(id(node), path)
        if entry.kind is Kind.SYMLINK:
            assert member.linkname == entry.target
        elif entry.kind in (Kind.CHAR, Kind.BLOCK):
            assert (member.devmajor, member.devminor) == entry.device
        elif entry.source is not None:
            with entry.source.open() as stream:
                assert content == stream.read(), path


ENTRIES = [
    Entry("etc/passwd", Kind.FILE, 0o640, 1, 2, 1500000000, source=Bytes(b"root\n")),
    Entry("etc", Kind.DIRECTORY, 0o751, 3, 4, 1600000000),
    Entry("etc/" + "n" * 255, Kind.FILE, 0o4755, source=Bytes(b"x" * 5000)),
    Entry("dev/null", Kind.CHAR, 0o666, device=(1, 3)),
    Entry("dev/sda", Kind.BLOCK, 0o660, 0, 6, device=(8, 0)),
    Entry("link", Kind.SYMLINK, 0o777, target="/etc/./../" + "y" * 200 + "/" + "z" * 255),
    Entry("long", Kind.SYMLINK, 0o777, target="/".join(["abcdefghij" * 12] * 8)),
    *(Entry(f"link{n}", Kind.SYMLINK, 0o777, target="u" * n + "/vw/xyz/" + "y" * 300) for n in range(236, 254)),
    Entry("dot", Kind.SYMLINK, 0o777, target=".."),
    Entry("root", Kind.SYMLINK, 0o777, target="/"),
    Entry("hard", Kind.HARDLINK, target="etc/passwd"),
    Entry("fifo", Kind.FIFO, 0o600, 4294967294, 65534),
    Entry("ünïcode 😀.txt", Kind.FILE, source=Bytes(b"")),
    *(Entry(f"many/file{n:04}.with.a.longer.name.text", Kind.FILE, source=Bytes(b"%d" % n)) for n in range(500)),
    Entry("/".join(f"d{n}" for n in range(30)) + "/deep", Kind.FILE, source=Bytes(b"deep")),
]


def test_a_tree_is_read_back(tmp_path):
    iso = image(tmp_path / "x.iso", ENTRIES)
    check(iso, ENTRIES)
    assert "Volume id    : 'LinuxKit'" in xorriso(iso, "-find", "/", "-exec", "lsdl")
    told = subprocess.run(["isoinfo", "-d", "-i", iso], capture_output=True, text=True, check=True).stdout
    assert "Joliet with UCS level 3 found" in told
    assert "Rock Ridge signatures version 1 found" in told
    assert f"Volume size is: {iso.stat().st_size // 2048}\n" in told


def test_joliet_and_plain_names(tmp_path):
    names = ["README", "read.me", "READ.ME", "a:b", "ünïcode.text", "x" * 120 + ".conf", ".hidden", "two.dots.gz"]
    iso = image(tmp_path / "x.iso", [Entry(name, Kind.FILE, source=Bytes(name.encode())) for name in names])
    joliet = subprocess.run(["isoinfo", "-J", "-f", "-i", iso], capture_output=True, check=True).stdout
    told = joliet.decode("latin-1").replace(";1\n", "\n").split("\n")
    assert {"/README", "/a_b", "/ünïcode.text", "/" + "x" * 98 + ".conf", "/.hidden", "/two.dots.gz"} <= set(told)
    assert len({line.lower() for line in told if line}) == len(names)
    plain = subprocess.run(["isoinfo", "-f", "-i", iso], capture_output=True, text=True, check=True).stdout.split()
    assert len(set(plain)) == len(names)
    assert all(len(name) <= 34 and name == name.upper() and name.endswith(";1") for name in plain), plain
    content = subprocess.run(["isoinfo", "-J", "-x", "/a_b;1", "-i", iso], capture_output=True, check=True).stdout
    assert content == b"a:b"


def test_files_of_pieces_and_over_four_gigabytes(tmp_path):
    size = (4 << 30) + 5
    (tmp_path / "in").write_bytes(b"0123456789")
    contents = {
        "huge": [literal(b"start"), hole(size - 8), literal(b"end")],
        "part": [Piece(4, str(tmp_path / "in"), 3), literal(b"!")],
    }
    entries = [Entry(path, Kind.FILE) for path in contents]
    iso = image(tmp_path / "x.iso", entries, contents=contents)
    assert iso.stat().st_blocks * 512 < 1 << 20
    listed = subprocess.run(["bsdtar", "-tvf", iso], capture_output=True, text=True, check=True).stdout
    assert str(size) in listed
    part = subprocess.run(["bsdtar", "-xOf", iso, "part"], capture_output=True, check=True).stdout
    assert part == b"3456!"
    end = subprocess.run(f"bsdtar -xOf {iso} huge | tail -c 6", shell=True, capture_output=True, check=True).stdout
    assert end == b"\0\0\0end"


def test_boot_entries(tmp_path):
    program = bytes(range(256)) * 16
    entries = [Entry("isolinux/isolinux.bin", Kind.FILE, source=Bytes(program)),
               Entry("efi.img", Kind.FILE, source=Bytes(b"fat" * 10000))]  # fmt: skip
    boot = [iso9660.Boot(eltorito.Platform.BIOS, "isolinux/isolinux.bin", load=4, info=True),
            iso9660.Boot(eltorito.Platform.EFI, "efi.img")]  # fmt: skip
    made = iso9660.volume(tree(entries), "LinuxKit", boot=boot)
    iso = image(tmp_path / "x.iso", entries, boot=boot)
    told = xorriso(iso, "-report_el_torito", "plain")
    sector = made.runs["isolinux/isolinux.bin"][0]
    assert f"El Torito boot img :   1  BIOS  y   none  0x0000  0x00      4{sector:12}" in told, told
    assert f"El Torito boot img :   2  UEFI  y   none  0x0000  0x00     59{made.runs['efi.img'][0]:12}" in told, told
    assert "El Torito img opts :   1  boot-info-table" in told, told
    with pytest.raises(InputError, match=r"no boot\.bin"):
        iso9660.volume(tree(entries), "LinuxKit", boot=[iso9660.Boot(eltorito.Platform.BIOS, "boot.bin")])


NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=60).filter(
    lambda n: n not in (".", "..") and len(n.encode()) <= 255
)
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(PATHS, st.binary(max_size=3000), max_size=15))
def test_any_tree(tmp_path, files):
    entries = []
    for path, content in files.items():
        if not any(other.startswith(path + "/") for other in files):
            entries.append(Entry(path, Kind.FILE, source=Bytes(content)))
    iso = image(tmp_path / "x.iso", entries)
    check(iso, entries)
    xorriso(iso, "-find", "/", "-exec", "lsdl")
