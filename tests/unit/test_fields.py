"""Fields of a fixed width, and the structures of disks that are made of them: what doesn't fit is refused."""

from __future__ import annotations

import ast
import struct
from pathlib import Path

import pytest

from linuxkit.encode import (
    config_iso,
    eltorito,
    erofs,
    ext4,
    fat,
    fat_names,
    fields,
    gcp,
    gpt,
    iso9660,
    mbr,
    pe,
    qcow2,
    verity,
    vhd,
    vhdx,
    vmdk,
    vmdk_flat,
)  # fmt: skip
from linuxkit.encode.pieces import hole, literal
from linuxkit.encode.tree import tree
from linuxkit.entry import MAX_ID, MAX_MAJOR, MAX_MINOR, Entry, Kind, fault, long_name
from linuxkit.errors import FieldError, ImageError, LinuxkitError

pytestmark = pytest.mark.unit
ENCODE = Path(fields.__file__).parent
TIB = 1 << 40


@pytest.mark.parametrize(("form", "bits"), [("<B", 8), ("<H", 16), (">I", 32), ("<Q", 64), ("<4sxH", 16)])
def test_numbers_at_and_past_the_border(form: str, bits: int) -> None:
    more = (b"text",) if "s" in form else ()
    assert fields.pack(form, *more, (1 << bits) - 1) == struct.pack(form, *more, (1 << bits) - 1)
    for value in (1 << bits, -1):
        with pytest.raises(FieldError, match=f"{value} does not fit into its field of {bits} bits"):
            fields.pack(form, *more, value)


def test_texts_at_and_past_the_border() -> None:
    assert fields.pack("<4sB", b"four", 1) == b"four\1"
    with pytest.raises(FieldError, match="5 bytes and does not fit into its field of 4"):
        fields.pack("<4sB", b"fives", 1)
    assert struct.pack("<4sB", b"fives", 1) == b"five\1"  # what `struct` does: cut in silence
    assert fields.text(b"ab", 3) == b"ab\0"
    with pytest.raises(FieldError):
        fields.text(b"abcd", 3)


def test_into_a_buffer() -> None:
    buffer = bytearray(4)
    fields.pack_into("<H", buffer, 2, 7)
    assert bytes(buffer) == b"\0\0\7\0"
    with pytest.raises(FieldError):
        fields.pack_into("<H", buffer, 0, 65536)
    with pytest.raises(struct.error):
        fields.pack_into("<I", buffer, 2, 0)


def test_octal_and_wide_numbers() -> None:
    assert fields.octal(0o777, 3) == b"777"
    assert fields.big_endian(255, 2) == b"\0\xff"
    for wrong in (lambda: fields.octal(0o1000, 3), lambda: fields.octal(-1, 3), lambda: fields.big_endian(65536, 2)):
        with pytest.raises(FieldError):
            wrong()


def test_only_one_module_packs() -> None:
    """A writer that uses `struct` itself cuts texts in silence."""
    users = list[str]()
    for path in sorted(ENCODE.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "struct" \
                    and node.attr in ("pack", "pack_into", "Struct"):  # fmt: skip
                users += [path.name]
    assert set(users) == {"fields.py"}


@pytest.mark.parametrize(("entry", "said"), [
    (Entry("x", Kind.CHAR, device=(MAX_MAJOR + 1, 0)), "a device"), (Entry("x", Kind.CHAR, device=(0, -1)), "a device"),
    (Entry("x", Kind.CHAR, device=(0, MAX_MINOR + 1)), "a device"), (Entry("x", Kind.FILE, uid=MAX_ID + 1), "32 bits"),
    (Entry("x", Kind.FILE, gid=-1), "32 bits"), (Entry("x", Kind.FILE, 0o10000), "mode"),
    (Entry("x", Kind.FILE, mtime=1 << 41), "dated"), (Entry("a\0b", Kind.FILE), "NUL"),
    (Entry("x", Kind.SYMLINK, target="a\0b"), "NUL"), (Entry("x", Kind.SYMLINK), "link to nothing"),
    (Entry("x", Kind.SYMLINK, target="t" * 4096), "4095"),
    (Entry("x", Kind.FILE, xattrs=(("user.a", bytes(65537)),)), "too long"),
    (Entry("x", Kind.FILE, xattrs=(("n" * 256, b""),)), "too long"),
    (Entry("x", Kind.FILE, xattrs=tuple((f"user.{n}", b"") for n in range(129))), "129 extended"),
])  # fmt: skip
def test_what_linux_cannot_have(entry: Entry, said: str) -> None:
    assert said in fault(entry)
    with pytest.raises(ImageError):
        fields.checked(entry)


def test_what_linux_can_have() -> None:
    assert not fault(Entry("x", Kind.CHAR, 0o7777, MAX_ID, MAX_ID, device=(MAX_MAJOR, MAX_MINOR)))
    assert not fault(Entry("x", Kind.SYMLINK, target="t" * 4095, xattrs=(("n" * 255, bytes(65536)),)))
    assert not long_name("/".join(["n" * 255] * 15))
    assert "255" in long_name("n" * 256)
    assert "4095" in long_name("/".join(["n" * 100] * 41))


BIG = [hole(100 * TIB)]
TOO_MUCH = {
    "mbr": lambda: mbr.record([mbr.Slot(1 << 32, 1, mbr.LINUX)], 1),
    "mbr length": lambda: mbr.record([mbr.Slot(1, 1 << 32, mbr.LINUX)], 1),
    "mbr type": lambda: mbr.record([mbr.Slot(1, 1, 256)], 1), "mbr signature": lambda: mbr.record([], 1 << 32),
    "mbr slots": lambda: mbr.record([mbr.Slot(1, 1, 1)] * 5, 1), "mbr code": lambda: mbr.record([], 1, bytes(441)),
    "mbr disk": lambda: mbr.disk([mbr.Partition([hole(3 * TIB)], mbr.LINUX)], seed="s"),
    "gpt name": lambda: gpt.disk([gpt.Partition([hole(512)], gpt.LINUX, "n" * 37)], seed="s"),
    "gpt count": lambda: gpt.disk([gpt.Partition([hole(512)], gpt.LINUX)] * 129, seed="s"),
    "gpt attributes": lambda: gpt.disk([gpt.Partition([hole(512)], gpt.LINUX, "", 1 << 64)], seed="s"),
    "gpt guid": lambda: gpt.disk([gpt.Partition([hole(512)], gpt.LINUX, "", 0, "no guid")], seed="s"),
    "gpt type": lambda: gpt.disk([gpt.Partition([hole(512)], "00-00")], seed="s"),
    "vhd": lambda: vhd.fixed(BIG, seed="s"), "vhd dynamic": lambda: vhd.dynamic(BIG, seed="s"),
    "vhdx": lambda: vhdx.image(BIG, seed="s"), "qcow2": lambda: qcow2.image(BIG),
    "vmdk": lambda: vmdk.virtual_size(BIG),
    "vmdk name": lambda: vmdk.head(1 << 20, name='x" 0\nRW 1 FLAT "/etc/shadow', seed="s"),
    "vmdk long name": lambda: vmdk.head(1 << 20, name="n" * 20000, seed="s"),
    "flat vmdk name": lambda: vmdk_flat.descriptor(512, extent='a" 0\nRW 1 FLAT "/etc/shadow', seed="s"),
    "fat file": lambda: fat.volume({"x": [hole(1 << 32)]}, seed="s"),
    "fat hidden": lambda: fat.volume({"x": [literal(b"x")]}, seed="s", hidden=1 << 32),
    "fat label": lambda: fat.volume({}, seed="s", label="l" * 12),
    "fat size": lambda: fat.volume({}, seed="s", size=100 * TIB),
    "fat cluster": lambda: fat_names.short_entry(b"x" * 11, 0, 1 << 32, 0, (0, 0)),
    "fat name": lambda: fat_names.short_entry(b"x" * 12, 0, 0, 0, (0, 0)),
    "iso label": lambda: iso9660.volume(tree([]), "L" * 33),
    "iso file": lambda: iso9660.volume(tree([Entry("x", Kind.FILE)]), "L", contents={"x": [hole(9 * TIB)]}),
    "el torito": lambda: eltorito.boot_record(1 << 32),
    "config iso": lambda: config_iso._record(b"x", 20, 1 << 32, directory=False),
    "ext4 label": lambda: ext4.filesystem(tree([]), seed="s", label="l" * 17),
    "ext4 size": lambda: ext4.filesystem(tree([]), seed="s", size=100 * TIB),
    "erofs label": lambda: erofs.volume(tree([]), seed="s", label="l" * 17),
    "verity uuid": lambda: verity.tree([literal(bytes(9000))], b"").superblock(bytes(17)),
    "gcp": lambda: gcp._header(1 << 88),
    "pe section": lambda: pe.fields.pack("<8sIIIIIIHHI", b".too-long", 0, 0, 0, 0, 0, 0, 0, 0, 0),
}  # fmt: skip


@pytest.mark.parametrize("case", TOO_MUCH)
def test_what_a_format_cannot_say_is_our_error(case: str) -> None:
    with pytest.raises(LinuxkitError):
        TOO_MUCH[case]()
