"""The tar reader against the standard library's writer, and against archives that nobody honest writes."""

from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from linuxkit.errors import ImageError
from linuxkit.oci.tarread import Limits, Row, read_tar
from support.images import directory, hardlink, member, symlink, tar_of

pytestmark = pytest.mark.unit
DEFAULTS = Limits()
FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
LETTERS = {tarfile.REGTYPE: "f", tarfile.DIRTYPE: "d", tarfile.SYMTYPE: "l", tarfile.LNKTYPE: "h",
           tarfile.CHRTYPE: "c", tarfile.BLKTYPE: "b", tarfile.FIFOTYPE: "p"}  # fmt: skip


def rows(data: bytes, limits: Limits = DEFAULTS) -> list[Row]:
    return read_tar(memoryview(data), "layer x", limits)


def refused(data: bytes, limits: Limits = DEFAULTS) -> str:
    with pytest.raises(ImageError) as caught:
        rows(data, limits)
    assert caught.value.message.startswith("layer x: ")
    return caught.value.message


_text = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=40).filter(
    lambda s: s not in (".", "..") and len(s.encode()) <= 120
)
_ascii = st.text("abcXYZ019 .-_~", min_size=1, max_size=60).filter(lambda s: s not in (".", ".."))


def _paths(part: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(part, min_size=1, max_size=5).map("/".join)


@st.composite
def _members(draw: st.DrawFn, part: st.SearchStrategy[str], small: bool) -> list[tuple[tarfile.TarInfo, bytes]]:
    found = []
    big = 2097151 if small else 2**32 - 1
    for path in draw(st.lists(_paths(part), unique=True, max_size=6)):
        kind = draw(st.sampled_from(list(LETTERS)))
        data = draw(st.binary(max_size=1200)) if kind == tarfile.REGTYPE else b""
        link = draw(_paths(part)) if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
        if kind == tarfile.LNKTYPE and link == path:
            link += "x"
        found.append(member(
            path, data, type=kind, linkname=link, mode=draw(st.integers(0, 0o7777)), uid=draw(st.integers(0, big)),
            gid=draw(st.integers(0, big)), mtime=draw(st.integers(0, 2**33 - 1 if small else 2**40)),
            devmajor=draw(st.integers(0, 4095)), devminor=draw(st.integers(0, 1048575)),
        ))  # fmt: skip
    return found


@settings(max_examples=120, deadline=None, derandomize=True, database=None,
          suppress_health_check=[HealthCheck.too_slow])  # fmt: skip
@given(st.data(), st.sampled_from(FORMATS))
def test_what_tarfile_writes_we_read_the_same(data: st.DataObject, format: int) -> None:
    plain = format == tarfile.USTAR_FORMAT
    members = data.draw(_members(_ascii if plain else _text, plain))
    if plain:
        members = [m for m in members if len(m[0].name) <= 100 and len(m[0].linkname) <= 100]
    archive = tar_of(*members, format=format)
    with tarfile.open(fileobj=io.BytesIO(archive)) as oracle:
        want = oracle.getmembers()
    got = rows(archive)
    assert len(got) == len(want)
    for row, info in zip(got, want, strict=True):
        assert (row.path, row.kind, row.mode) == (info.name, LETTERS[info.type], info.mode)
        assert (row.uid, row.gid) == (info.uid, info.gid)
        assert row.mtime == int(info.mtime)
        assert row.target == info.linkname
        if row.kind in "cb":
            assert (row.major, row.minor) == (info.devmajor, info.devminor)
        if row.kind == "f":
            assert (row.offset, row.size) == (info.offset_data, info.size)


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(st.data())
def test_a_changed_byte_never_crashes_the_reader(data: st.DataObject) -> None:
    archive = bytearray(tar_of(member("a/b", b"x" * 700, pax_headers={"SCHILY.xattr.user.a": "b"}), symlink("l", "a/b"),
                               hardlink("h", "a/b"), member("n" * 150, b"")))  # fmt: skip
    for _ in range(data.draw(st.integers(1, 6))):
        archive[data.draw(st.integers(0, len(archive) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = rows(bytes(archive[: data.draw(st.integers(0, len(archive)))]))
    except ImageError:
        return
    assert all(r.path and ".." not in r.path.split("/") for r in found)


@pytest.mark.parametrize("format", FORMATS)
def test_names_are_normalised(format: int) -> None:
    archive = tar_of(
        directory("./"), directory("./a/"), member("./a//b", b"1"), member("/etc/x", b"2"), member("a/./c"),
        member("a/../d"), member(".hidden"), member("a/.wh.z"), hardlink("./h", "./a/b"), format=format,
    )  # fmt: skip
    assert [r.path for r in rows(archive)] == ["a", "a/b", "etc/x", "a/c", "d", ".hidden", "a/.wh.z", "h"]
    assert rows(archive)[-1].target == "a/b"


def test_pax_records() -> None:
    archive = tar_of(member("x", b"1", pax_headers={
        "SCHILY.xattr.user.z": "2", "SCHILY.xattr.security.capability": "\x01\udcff", "mtime": "1700000000.75",
        "uid": "3000000", "comment": "no matter", "LIBARCHIVE.creationtime": "1"}))  # fmt: skip
    row = rows(archive)[0]
    assert row.xattrs == (("security.capability", b"\x01\xff"), ("user.z", b"2"))
    assert (row.mtime, row.uid) == (1700000000, 3000000)


def test_time_before_the_epoch_rounds_down() -> None:
    assert rows(tar_of(member("x", pax_headers={"mtime": "-1.5"})))[0].mtime == -2


def test_global_pax_records_hold_until_overridden() -> None:
    one = tar_of(member("a"), member("b", pax_headers={"uid": "7"}))
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"uid": "5000000"}):
        pass
    head = out.getvalue()[:1024]  # the global header and its block
    assert [r.uid for r in rows(head + one)] == [5000000, 7]


def test_bytes_that_are_no_utf8_survive() -> None:
    archive = tar_of(member("caf\udce9", b"1"), format=tarfile.GNU_FORMAT)
    assert rows(archive)[0].path.encode("utf-8", "surrogateescape") == b"caf\xe9"


def test_an_empty_archive_has_nothing() -> None:
    assert rows(b"") == rows(bytes(1024)) == rows(tar_of()) == []


# -- hostile


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/../x", "..", "a/b/../../../c"])
def test_a_name_outside_the_root(name: str) -> None:
    assert "outside the root" in refused(tar_of(member(name)))


@pytest.mark.parametrize("name", [".", "/", "./", "./.", "a/.."])
def test_a_link_or_file_named_as_the_root(name: str) -> None:
    for info in (symlink(name, "/etc"), hardlink(name, "etc"), member(name, type=tarfile.FIFOTYPE)):
        assert "root" in refused(_raw_name(info, name))


def _raw_name(item: tuple[tarfile.TarInfo, bytes], name: str) -> bytes:
    """tarfile would strip slashes: write the name into the header by hand."""
    block = bytearray(tar_of(item, format=tarfile.USTAR_FORMAT))
    block[:100] = name.encode().ljust(100, b"\0")
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block[:512])
    return bytes(block)


@pytest.mark.parametrize("target", ["../../etc/passwd", "..", "/../etc/passwd"])
def test_a_hard_link_outside_the_root(target: str) -> None:
    assert "outside the root" in refused(tar_of(hardlink("x", target)))


def test_a_hard_link_to_itself_or_to_the_root() -> None:
    assert "points at" in refused(tar_of(hardlink("x", "./x")))
    assert "points at" in refused(tar_of(hardlink("x", "/")))


def test_a_nul_in_a_name() -> None:
    assert "NUL" in refused(tar_of(member("a", pax_headers={"path": "a\0b"})))


def test_names_that_no_file_system_takes() -> None:
    assert "too long" in refused(tar_of(member("a" * 256)))
    assert "too long" in refused(tar_of(member("/".join(["d" * 200] * 30))))
    assert rows(tar_of(member("a" * 255)))[0].path == "a" * 255


def test_a_symlink_without_or_with_too_much_target() -> None:
    assert "target" in refused(tar_of(symlink("x", "")))
    assert "target" in refused(tar_of(symlink("x", "t" * 5000)))


@pytest.mark.parametrize("body", [
    b"", b"x", b"99 a=b\n", b"6 a=b", b"5 a=\n\n", b"-3 a=b\n", b"0 a=b\n", b"6 abcd\n", b"999999999999 a=b\n",
    b"\xb2 a=b\n",
])  # fmt: skip
def test_pax_records_of_a_wrong_length(body: bytes) -> None:
    archive = tar_of(member("x", body, type=b"x"), member("y"))
    if body:
        assert "PAX record" in refused(archive)
    else:
        assert [r.path for r in rows(archive)] == ["y"]


def test_an_attribute_that_is_too_large_or_nameless() -> None:
    assert "attribute" in refused(tar_of(member("x", pax_headers={"SCHILY.xattr.user.a": "v" * 70000})))
    assert "attribute" in refused(tar_of(member("x", pax_headers={"SCHILY.xattr.": "v"})))
    many = {f"SCHILY.xattr.user.{n}": "v" for n in range(200)}
    assert "more than 128" in refused(tar_of(member("x", pax_headers=many)))


def test_a_header_extension_without_end() -> None:
    assert "over the limit" in refused(tar_of(member("x", b"A" * (2 << 20), type=tarfile.GNUTYPE_LONGNAME)))


def test_more_members_than_allowed() -> None:
    archive = tar_of(*(member(f"f{n}") for n in range(11)))
    assert "more than 10 members" in refused(archive, Limits(entries=10))
    assert len(rows(archive, Limits(entries=11))) == 11


def test_sparse_and_unknown_types() -> None:
    assert "unsupported type" in refused(tar_of(member("x", type=tarfile.GNUTYPE_SPARSE)))
    assert "unsupported type" in refused(tar_of(member("x", pax_headers={"GNU.sparse.major": "1"})))
    assert "unsupported type" in refused(tar_of(member("x", type=b"V")))


def test_cut_short() -> None:
    archive = tar_of(member("x", b"y" * 2000))
    assert "cut short" in refused(archive[:1000])
    assert "cut short" in refused(archive[:700])
    assert "cut short" in refused(archive[:300])
    assert "cut short" in refused(tar_of(member("n" * 300))[:1024])


def test_a_number_that_is_none() -> None:
    block = bytearray(tar_of(member("x"), format=tarfile.USTAR_FORMAT))
    block[124:136] = b"zzzzzzzzzzz\0"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block[:512])
    assert "not a number" in refused(bytes(block))
    block[124:136] = b"\xff" * 12
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block[:512])
    assert "out of range" in refused(bytes(block))


def test_a_wrong_checksum() -> None:
    block = bytearray(tar_of(member("x", b"1")))
    block[0] ^= 1
    assert "checksum" in refused(bytes(block))
