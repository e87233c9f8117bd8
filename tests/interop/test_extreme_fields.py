"""Extreme values of every field of an Entry through every writer: refused, or read back equal by another project.

Each archive has a file before the extreme one and a file behind it: a byte that is shifted loses the second.
"""

from __future__ import annotations

import io
import os
import re
import struct
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from linuxkit.encode import cpio, erofs, ext4, iso9660, squashfs, tar
from linuxkit.encode.tree import tree
from linuxkit.entry import Bytes, Entry, Kind
from linuxkit.errors import ImageError, LinuxkitError
from linuxkit.oci.tarread import read_tar
from linuxkit.outputs.pieces import put

pytestmark = [pytest.mark.interop, pytest.mark.filterwarnings("ignore:Generating overly large repr")]
FIRST = Entry("aa", Kind.FILE, 0o640, source=Bytes(b"first"))
LAST = Entry("zz", Kind.FILE, 0o604, source=Bytes(b"last"))
EDGES = sorted({sign * (1 << bits) + near for bits in (0, 7, 8, 12, 16, 20, 21, 31, 32, 33, 40, 48, 62, 63, 64)
                for sign in (1, -1) for near in (-1, 0, 1)})  # fmt: skip
NUMBERS = st.sampled_from(EDGES)
NAMES = st.sampled_from([
    "x", "n" * 255, "n" * 256, "n" * 65536, "d" * 255 + "/x", "/".join(["d" * 200] * 20), "/".join(["d" * 200] * 21),
    "init\0x", "TRAILER!!!", "dir/TRAILER!!!", "\xe9", "\udcff", "-", "x ", "LONGEST.TXT", "a=b",
])  # fmt: skip
TARGETS = st.sampled_from(["t", "", "t\0u", "t" * 255, "t" * 256, "t" * 4095, "t" * 4096, "t" * 70000, "/", "\udcff"])
XATTRS = st.sampled_from([
    (), (("user.a", b""),), (("user.a", b"v" * 65535),), (("user.a", b"v" * 65537),), (("user." + "n" * 250, b"v"),),
    (("user." + "n" * 251, b"v"),), (("user.a\0b", b"v"),), (("user.a=b", b"v"),), (("", b"v"),), (("user", b"v"),),
    (("user.", b"v"),), (("other.a", b"v"),), tuple((f"user.{n:03}", b"v") for n in range(129)),
])  # fmt: skip


class Seen(NamedTuple):
    """What a tool says about the extreme entry. None is what it doesn't say."""

    mode: int
    uid: int
    gid: int
    mtime: int | None = None
    device: tuple[int, int] | None = None
    target: str | None = None
    xattrs: tuple[tuple[str, bytes], ...] | None = None


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    """One field or two are extreme, the others are what everyone has."""
    kind = draw(st.sampled_from([Kind.CHAR, Kind.BLOCK, Kind.FILE, Kind.DIRECTORY, Kind.SYMLINK, Kind.FIFO]))
    device = kind in (Kind.CHAR, Kind.BLOCK)
    made = Entry("x", kind, 0o644, target="t" if kind is Kind.SYMLINK else "", device=(1, 3) if device else (0, 0))
    for field in draw(st.lists(st.sampled_from(["mode", "uid", "gid", "mtime", "device", "path", "target", "xattrs"]),
                               min_size=1, max_size=2)):  # fmt: skip
        value: object
        if field == "device":
            value = draw(st.tuples(NUMBERS, NUMBERS)) if device else (0, 0)
        elif field == "target":
            value = draw(TARGETS) if kind is Kind.SYMLINK else ""
        else:
            value = draw({"path": NAMES, "xattrs": XATTRS}.get(field, NUMBERS))
        made = replace(made, **{field: value})
    return made


# -- writers, each with the tool that reads what it wrote


def from_bsdtar(archive: Path, entry: Entry, *, xattrs: bool) -> Seen:
    made = subprocess.run(["bsdtar", "-cf", "-", "--format=pax", f"@{archive}"], capture_output=True, timeout=60)
    assert made.returncode == 0, made.stderr
    with tarfile.open(fileobj=io.BytesIO(made.stdout), errors="surrogateescape") as back:
        found = {m.name.rstrip("/"): m for m in back}
        for sentinel, content in (("aa", b"first"), ("zz", b"last")):
            assert back.extractfile(sentinel).read() == content  # type: ignore[union-attr]
    found.pop(".", None)
    parts = entry.path.split("/")
    assert set(found) - {"/".join(parts[:n]) for n in range(1, len(parts))} == {"aa", entry.path, "zz"}
    one = found[entry.path]
    held = tuple(sorted((k.removeprefix("SCHILY.xattr."), v.encode("utf-8", "surrogateescape"))
                        for k, v in one.pax_headers.items() if k.startswith("SCHILY.xattr.")))  # fmt: skip
    return Seen(one.mode, one.uid, one.gid, int(one.mtime), (one.devmajor, one.devminor), one.linkname,
                held if xattrs else None)  # fmt: skip


def through_cpio(path: Path, entry: Entry) -> tuple[Seen, Entry]:
    with path.open("wb") as out:
        cpio.write([FIRST, entry, LAST], out)
    names = subprocess.run(["cpio", "-it", "--quiet", "-F", path], capture_output=True, timeout=60)
    assert (names.returncode, names.stderr) == (0, b"")
    assert names.stdout.startswith(b"aa\n")
    assert names.stdout.endswith(b"\nzz\n")
    return from_bsdtar(path, entry, xattrs=False), replace(entry, mtime=min(max(entry.mtime, 0), (1 << 32) - 1))


def through_tar(path: Path, entry: Entry) -> tuple[Seen, Entry]:
    with path.open("wb") as out:
        tar.write([FIRST, entry, LAST], out)
        out.write(tar.END)
    return from_bsdtar(path, entry, xattrs=True), entry


def through_iso(path: Path, entry: Entry) -> tuple[Seen, Entry]:
    with path.open("wb") as out:
        put(iso9660.volume(tree([FIRST, entry, LAST]), "LINUXKIT").pieces, out)
    seen = from_bsdtar(path, entry, xattrs=False)
    if entry.kind in (Kind.CHAR, Kind.BLOCK):  # as Linux reads it (fs/isofs/rock.c); libarchive has another way
        data = path.read_bytes()
        at = data.index(b"PN\x14\x01") + 4
        high, low = struct.unpack_from("<I4xI", data, at)
        seen = seen._replace(device=(low >> 8, low & 0xFF) if low > 255 and not high else (high, low))
    return seen, replace(entry, mtime=min(max(entry.mtime, 0), 5869583999))


def tool(*command: str | Path) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, timeout=60,
                          env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "TZ": "UTC"})  # fmt: skip
    said = (done.stderr + done.stdout).decode("utf-8", "surrogateescape")
    assert done.returncode == 0, said
    return said


def through_squashfs(path: Path, entry: Entry) -> tuple[Seen, Entry]:
    path.unlink(missing_ok=True)
    with path.open("wb") as out:
        put(squashfs.image(tree([FIRST, entry, LAST])), out)
    assert tool("unsquashfs", "-cat", path, "aa", "zz").endswith("firstlast")
    assume(entry.path == "x")
    said = tool("unsquashfs", "-lln", path)
    found = re.search(r"^(\S{10}) +(\d+)/(\d+) +\S.* squashfs-root/x(?: -> (.*))?$", said, re.M)
    assert found, said
    device = None
    if entry.kind in (Kind.CHAR, Kind.BLOCK):  # listed with eight bits for the minor number only
        tool("unsquashfs", "-f", "-d", path.with_name("out"), path, "x")
        made = path.with_name("out") / "x"
        device = (os.major(made.lstat().st_rdev), os.minor(made.lstat().st_rdev))
    return Seen(bits(found[1]), int(found[2]), int(found[3]), None, device, found[4]), entry


def bits(shown: str) -> int:
    mode = sum(1 << 8 - n for n, letter in enumerate(shown[1:]) if letter not in "-ST")
    return mode | sum(value for place, value in ((3, 0o4000), (6, 0o2000), (9, 0o1000)) if shown[place] in "sStT")


def through_ext4(path: Path, entry: Entry) -> tuple[Seen, Entry]:
    path.unlink(missing_ok=True)
    with path.open("wb") as out:
        put(ext4.filesystem(tree([FIRST, entry, LAST]), seed="s"), out)
    assert "Pass 5" in tool("e2fsck", "-fn", path)
    assert tool("debugfs", "-R", "cat /zz", path).endswith("last")
    assume(entry.path == "x")
    said = tool("debugfs", "-R", "stat /x", path)
    numbers = re.search(r"Mode: +(\d+)\s.*?User: +(-?\d+) +Group: +(-?\d+)", said, re.S)
    assert numbers, said
    time = re.search(r"mtime: 0x([0-9a-f]+):([0-9a-f]+)", said)
    assert time, said
    low = int(time[1], 16)
    seconds = low - (low >> 31 << 32) + ((int(time[2], 16) & 3) << 32)
    device = re.search(r"Device major/minor number: (\d+):(\d+)", said)
    want = replace(entry, mtime=min(max(entry.mtime, -(1 << 31)), 15032385535))
    return Seen(int(numbers[1], 8), int(numbers[2]) % (1 << 32), int(numbers[3]) % (1 << 32), seconds,
                (int(device[1]), int(device[2])) if device else None), want  # fmt: skip


def through_erofs(path: Path, entry: Entry) -> tuple[Seen, Entry]:
    with path.open("wb") as out:
        put(erofs.volume(tree([FIRST, entry, LAST]), seed="s"), out)
    tool("fsck.erofs", path)
    assume(entry.path == "x")
    said = tool("dump.erofs", "--path=/x", path)
    numbers = re.search(r"Uid: (\d+) +Gid: (\d+) +Access: (\d+)/", said)
    assert numbers, said
    # version 1.5 shows only the last nine bits of a mode, and the time in words
    return Seen(int(numbers[3], 8) & 0o777, int(numbers[1]), int(numbers[2])), replace(entry, mode=entry.mode & 0o777)


WRITERS = [through_cpio, through_tar, through_iso, through_squashfs, through_ext4, through_erofs]


@pytest.mark.parametrize("writer", WRITERS, ids=lambda w: w.__name__.removeprefix("through_"))
@settings(max_examples=40, deadline=None, derandomize=True, database=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow,
                                 HealthCheck.filter_too_much])  # fmt: skip
@given(entry=entries())
@example(Entry("x", Kind.CHAR, 0o600, device=(0xABCDEF012345, 0x123400000100)))
@example(Entry("x", Kind.BLOCK, 0o600, device=(4095, 1048575)))
@example(Entry("x", Kind.BLOCK, 0o600, device=(4096, 0)))
@example(Entry("x", Kind.BLOCK, 0o600, device=(0, 1048576)))
@example(Entry("x", Kind.CHAR, 0o600, device=(-1, 0)))
@example(Entry("x", Kind.FILE, 0o644, (1 << 32) - 1, (1 << 32) - 1))
@example(Entry("x", Kind.FILE, 0o644, 1 << 32, 0))
@example(Entry("x", Kind.FILE, 0o7777))
@example(Entry("x", Kind.FILE, 0o10000))
def test_refused_or_read_back_equal(
    tmp_path: Path, writer: Callable[[Path, Entry], tuple[Seen, Entry]], entry: Entry
) -> None:
    try:
        seen, want = writer(tmp_path / "x", entry)
    except LinuxkitError as e:
        assert e.message
        assert len(str(e)) < 1000
        return
    mode = 0o777 if entry.kind is Kind.SYMLINK else want.mode
    assert (seen.uid, seen.gid) == (want.uid, want.gid)
    if entry.kind is not Kind.SYMLINK:
        assert seen.mode == mode
    if seen.mtime is not None:
        assert seen.mtime == want.mtime
    if seen.device is not None and entry.kind in (Kind.CHAR, Kind.BLOCK):
        assert seen.device == want.device
    if seen.target is not None and entry.kind is Kind.SYMLINK:
        assert seen.target == want.target
    if seen.xattrs is not None:
        assert seen.xattrs == want.xattrs


# -- the attack that this is about

EVIL = b"#!/evil\n"


def attack(namesize: int) -> list[Entry]:
    """A device whose numbers shift the header, and a file that holds the header of another archive."""
    inner = io.BytesIO()
    cpio.write([Entry("init", Kind.FILE, 0o755, source=Bytes(EVIL))], inner)
    carrier = Entry("carrier", Kind.FILE, 0o644, source=Bytes(bytes(400) + inner.getvalue()))
    return [FIRST, Entry("dev", Kind.CHAR, 0o600, device=(0x111122223333, 0x4444 << 32 | namesize)), carrier]


def written_raw(entries: list[Entry]) -> bytes:
    """The archive as a writer makes it that does not look at its numbers."""
    out = bytearray()
    for n, e in enumerate(entries):
        name, content = e.path.encode(), e.source.open().read() if e.source else b""
        kind = 0o020000 if e.kind is Kind.CHAR else 0o100000
        out += b"070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%b\0" % (
            n + 1, kind | e.mode, 0, 0, 1, 0, len(content), 3, 1, *e.device, len(name) + 1, 0, name)  # fmt: skip
        out += bytes(-len(out) % 4) + content
        out += bytes(-len(out) % 4)
    return bytes(out) + b"070701" + b"0" * 32 + b"00000001" + b"0" * 48 + b"0000000B00000000TRAILER!!!\0\0\0\0"


def read_by_cpio(archive: bytes, folder: Path) -> dict[str, bytes]:
    folder.mkdir()
    subprocess.run(["cpio", "-idu", "--quiet", "--no-absolute-filenames"], input=archive, cwd=folder, check=False,
                   capture_output=True, timeout=60)  # fmt: skip
    return {p.name: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_numbers_of_a_device_cannot_bring_another_init(tmp_path: Path) -> None:
    # without the helper: the reader takes digits of the device for the length of a name, and goes on in the carrier
    probe = written_raw(attack(0))
    start = probe.index(b"070701", 1)
    target = probe.index(b"070701", probe.index(b"carrier") + 100)
    fooled = read_by_cpio(written_raw(attack(target - start - 110)), tmp_path / "raw")
    assert fooled["init"] == EVIL
    # with it: no archive
    entries = attack(target - start - 110)
    for write in (cpio.write, tar.write):
        with pytest.raises(ImageError, match="device"):
            write(entries, io.BytesIO())
    # and the layer that brings such numbers is not read
    device = tarfile.TarInfo("dev")
    device.type, device.mode = tarfile.CHRTYPE, 0o600
    layer = bytearray(device.tobuf(tarfile.GNU_FORMAT))
    layer[329:337] = b"\x80" + entries[1].device[0].to_bytes(7, "big")
    layer[337:345] = b"\x80" + entries[1].device[1].to_bytes(7, "big")
    layer[148:156] = b" " * 8
    layer[148:156] = b"%06o\0 " % sum(layer)
    with pytest.raises(ImageError, match="Linux has none over 4095:1048575"):
        read_tar(memoryview(bytes(layer)), "layer x")


def test_a_size_is_refused_or_said_whole() -> None:
    class Sized(NamedTuple):
        size: int

        def open(self) -> io.BytesIO:
            raise AssertionError("nothing of it may be read")

    for size in (0, (1 << 33) - 1, 1 << 33, (1 << 63) - 1):
        made = tar.member_header(Entry("x", Kind.FILE, source=Sized(size)))
        assert len(made) % 512 == 0
        with tarfile.open(fileobj=io.BytesIO(made + tar.END)) as back:
            assert back.next().size == size  # type: ignore[union-attr]
    for size in (-1, 1 << 63):
        with pytest.raises(LinuxkitError):
            tar.member_header(Entry("x", Kind.FILE, source=Sized(size)))
    for size in (-1, 1 << 32, 1 << 63):
        with pytest.raises(LinuxkitError):
            cpio.write([Entry("x", Kind.FILE, source=Sized(size))], io.BytesIO())
