"""The boot stage's parts under the sanitizers: command lines, superblocks, partition tables, devices."""

from __future__ import annotations

import os
import struct
import subprocess
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from linuxkit.encode import gpt, mbr, verity
from linuxkit.encode.pieces import Piece, literal, read

pytestmark = pytest.mark.guest
FEW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
HASH, SALT = "0123456789abcdef" * 4, "ab" * 32
UUID = "6d0e1f6a-7b1c-4e55-9f3e-0a1b2c3d4e5f"
MIB = 1 << 20


def write(path: Path, pieces: list[Piece]) -> Path:
    with path.open("wb") as stream:
        for data in read(pieces):
            stream.write(data)
    return path


# -- the command line


@pytest.mark.parametrize(
    ("cmdline", "found"),
    [
        ("console=ttyS0 root=/dev/vda", "root=/dev/vda types=- flags=- init=- ro delay=0 wait=30"),
        ("root=/dev/sda root=LABEL=x ro rw", "root=LABEL=x types=- flags=- init=- rw delay=0 wait=30"),
        ("root=PARTUUID=1-2 rootfstype=erofs,ext4 rootflags=a=b,c init=/x/y rootdelay=2 rootwait",
         "root=PARTUUID=1-2 types=erofs,ext4 flags=a=b,c init=/x/y ro delay=2 wait=-1"),
        ("root=UUID=a rootwait=7 rw -- ro root=/dev/b init=/z", "root=UUID=a types=- flags=- init=- rw delay=0 wait=7"),
        ("nroot=1 root=PARTLABEL=a rootx=/dev/q", "root=PARTLABEL=a types=- flags=- init=- ro delay=0 wait=30"),
    ],
)  # fmt: skip
def test_the_command_line_is_read_as_the_kernel_reads_it(parts, cmdline, found):
    assert parts("root", cmdline).stdout == found + "\n"


def test_the_word_for_verity_becomes_a_table(parts):
    made = verity.tree([literal(bytes(9000))], bytes.fromhex(SALT))
    (line,) = parts("root", f"root=/dev/vda linuxkit.verity={made.argument()}").stdout.splitlines()[1:]
    assert line == f"1 254:1 254:1 4096 4096 3 3 sha256 {made.root_hash.hex()} {SALT}"
    (line,) = parts("root", f"root=/dev/vda linuxkit.verity=1:8:9:-:{HASH.upper()}").stdout.splitlines()[1:]
    assert line == f"1 254:1 254:1 4096 4096 8 9 sha256 {HASH} -"
    # wherever it stands, it counts
    assert len(parts("root", f"root=/dev/vda -- linuxkit.verity=1:8:9:-:{HASH}").stdout.splitlines()) == 2


@pytest.mark.parametrize(
    "value",
    [
        "", "1", f"2:8:8:-:{HASH}", f"1:0:8:-:{HASH}", f"1:9:8:-:{HASH}", f"1:8:8:abc:{HASH}", f"1:8:8:xy:{HASH}",
        f"1:8:8::{HASH}", f"1:8:8:-:{HASH[:-1]}", f"1:8:8:-:{HASH[:-2]}", f"1:8:8:-:{HASH}00", f"1:8:8:-:{HASH}:",
        f"1:-8:8:-:{HASH}", f"1:8:99999999999999999999999:-:{HASH}", f"1:8:8:{'a' * 514}:{HASH}", f"1 :8:8:-:{HASH}",
        f"1:8:8:-:{'g' * 64}",
    ],
)  # fmt: skip
def test_a_word_for_verity_that_is_not_understood_is_refused(parts, value):
    assert "linuxkit.verity= must be" in parts("root", f"root=/dev/vda linuxkit.verity={value}", status=1).stdout


@pytest.mark.parametrize(
    ("cmdline", "reason"),
    [
        ("", "no root="),
        ("root=", "no root="),
        ("root=/dev/", "only /dev/NAME"),
        ("root=fe00", "only /dev/NAME"),
        ("root=nfs", "only /dev/NAME"),
        ("root=LABEL=", "only /dev/NAME"),
        ("-- root=/dev/vda", "no root="),
        ("root=/dev/vda init=sh", "not an absolute path"),
        ("root=/dev/vda rootdelay=soon", "not a number"),
        ("root=/dev/vda rootwait=99999999999999999999", "not a number"),
        ("root=/dev/vda linuxkit.verity", "must be"),
        (f"root=/dev/vda linuxkit.verity=1:8:8:-:{HASH} linuxkit.verity=1:8:8:-:{HASH}", "given twice"),
        (f"root=/dev/vda linuxkit.verity=1:8:8:-:{HASH} -- linuxkit.verity=1:8:8:-:{'0' * 64}", "given twice"),
    ],
)
def test_a_command_line_without_a_root_is_refused(parts, cmdline, reason):
    assert reason in parts("root", cmdline, status=1).stdout


@FEW
@given(st.lists(st.sampled_from(
    ["root=", "root", "=", "linuxkit.verity=", "1:", "8:", ":", "-", HASH, "/dev/a", " ", "rootwait=", "9", "--", "ro",
     "init=/"]
), max_size=30))  # fmt: skip
def test_no_command_line_upsets_it(parts, words):
    assert parts("root", "".join(words), status=None).returncode in (0, 1)


# -- superblocks


def run(*command: str | Path) -> None:
    subprocess.run([str(c) for c in command], check=True, capture_output=True, timeout=60)


@pytest.fixture(scope="module")
def filesystems(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One of each, made by the established tools."""
    folder = tmp_path_factory.mktemp("filesystems")
    tree = folder / "tree"
    tree.mkdir()
    (tree / "file").write_text("hello")
    made = {name: folder / name for name in ("squashfs", "erofs", "ext4", "iso9660")}
    run("mksquashfs", tree, made["squashfs"], "-quiet", "-all-root")
    run("mkfs.erofs", "-Enosbcrc", f"-U{UUID}", made["erofs"], tree)
    with made["erofs"].open("r+b") as stream:  # old ones can't set a label
        stream.seek(1024 + 64)
        stream.write(b"erofs-label")
    run("mke2fs", "-q", "-t", "ext4", "-L", "ext4-label-16chr", "-U", UUID, made["ext4"], "1M")
    run("xorriso", "-as", "mkisofs", "-quiet", "-R", "-J", "-V", "An Iso", "--modification-date=2024010203040506",
        "-o", made["iso9660"], tree)  # fmt: skip
    return made


@pytest.mark.parametrize(
    ("name", "label", "uuid"),
    [
        ("squashfs", "", ""),
        ("erofs", "erofs-label", UUID),
        ("ext4", "ext4-label-16chr", UUID),
        ("iso9660", "An Iso", "2024-01-02-03-04-05-06"),
    ],
)
def test_filesystems_say_what_they_are(parts, filesystems, name, label, uuid):
    assert parts("super", filesystems[name]).stdout == f"{name} [{label}] [{uuid}]\n"
    shown = subprocess.run(["blkid", "-p", "-o", "export", filesystems[name]], capture_output=True, text=True).stdout
    known = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
    if known:  # libblkid agrees
        assert (known["TYPE"], known.get("LABEL", "").replace("\\", ""), known.get("UUID", "")) == (name, label, uuid)


@pytest.mark.parametrize("name", ["squashfs", "erofs", "ext4", "iso9660"])
def test_a_filesystem_that_is_cut_off_is_none(parts, filesystems, tmp_path, name):
    for size in (0, 1, 511, 1024, 1100, 2047, 32768, 34815):
        if name == "iso9660" or size < 2048:
            (tmp_path / "cut").write_bytes(filesystems[name].read_bytes()[:size])
            parts("super", tmp_path / "cut", status=1)


@FEW
@given(st.sampled_from(["squashfs", "erofs", "ext4", "iso9660"]), st.data())
def test_no_superblock_upsets_it(parts, filesystems, tmp_path, name, data):
    image = bytearray(filesystems[name].read_bytes()[: 64 << 10])
    start = {"squashfs": 0, "iso9660": 32768}.get(name, 1024)
    for _ in range(data.draw(st.integers(1, 60))):
        at = start + data.draw(st.integers(0, 900))
        if at < len(image):
            image[at] = data.draw(st.integers(0, 255))
    (tmp_path / "x").write_bytes(image[: data.draw(st.integers(0, len(image)))])
    assert parts("super", tmp_path / "x", status=None).returncode in (0, 1)


def test_labels_without_an_end_are_cut(parts, tmp_path):
    image = bytearray(4096)
    struct.pack_into("<I", image, 1024, 0xE0F5E1E2)
    image[1024 + 64 : 1024 + 80] = b"A" * 16
    image[1024 + 80 : 1024 + 300] = b"B" * 220
    (tmp_path / "x").write_bytes(image)
    assert parts("super", tmp_path / "x").stdout == f"erofs [{'A' * 16}] []\n"


# -- partition tables


def disk(tmp_path: Path, sector: int = 512) -> tuple[Path, list[str]]:
    contents = [gpt.Partition([literal(b"one" * 100)], gpt.ESP, "EFI System"),
                gpt.Partition([literal(b"two" * 100)], gpt.ROOT["amd64"], "Wurzel ä€")]  # fmt: skip
    path = write(tmp_path / "disk", gpt.disk(contents, seed="s", sector=sector))
    return path, [gpt.partition_guid("s", n) for n in (1, 2)]


@pytest.mark.parametrize("sector", [512, 4096])
def test_a_gpt_is_read(parts, tmp_path, sector):
    path, (one, two) = disk(tmp_path, sector)
    first = MIB // sector
    good = f"00000000\n1 {first} {one} [EFI System]\n2 {2 * first} {two} [Wurzel ä€]\n"
    assert parts("parts", path, str(sector)).stdout == good
    data = bytearray(path.read_bytes())
    data[sector + 20] ^= 1  # the header: the other one counts
    path.write_bytes(data)
    assert parts("parts", path, str(sector)).stdout == good
    data[-sector + 20] ^= 1
    path.write_bytes(data)
    assert parts("parts", path, str(sector)).stdout == "00000000\n"


@pytest.mark.parametrize(
    ("offset", "form", "value"),
    [
        (12, "I", 91), (12, "I", 513), (12, "I", 0xFFFFFFFF), (72, "Q", 0xFFFFFFFFFFFFFFFF), (72, "Q", 1 << 50),
        (80, "I", 0), (80, "I", 0xFFFFFFFF), (80, "I", 1 << 20), (84, "I", 0), (84, "I", 127), (84, "I", 0xFFFFFFF8),
        (24, "Q", 2),
    ],
)  # fmt: skip
def test_a_gpt_that_lies_is_no_gpt(parts, tmp_path, offset, form, value):
    path, _ = disk(tmp_path)
    data = bytearray(path.read_bytes()[:-512])  # without the second header
    struct.pack_into(f"<{form}", data, 512 + offset, value)
    size = struct.unpack_from("<I", data, 524)[0]
    struct.pack_into("<I", data, 528, 0)
    struct.pack_into("<I", data, 528, zlib.crc32(data[512 : 512 + min(size, 4096)]))  # all but this is right
    path.write_bytes(data)
    assert parts("parts", path, "512").stdout == "00000000\n"


def test_an_mbr_has_a_signature_and_no_names(parts, tmp_path):
    record = mbr.record([mbr.Slot(2048, 4095, 0x83)], 0x1234ABCD, b"")
    (tmp_path / "disk").write_bytes(record.ljust(MIB, b"\0"))
    assert parts("parts", tmp_path / "disk", "512").stdout == "1234abcd\n"
    (tmp_path / "disk").write_bytes(bytes(MIB))
    assert parts("parts", tmp_path / "disk", "512").stdout == "00000000\n"
    (tmp_path / "disk").write_bytes(record[:511])
    assert parts("parts", tmp_path / "disk", "512").stdout == "00000000\n"


@FEW
@given(st.lists(st.tuples(st.integers(0, 1400), st.integers(0, 255)), min_size=1, max_size=40), st.integers(0, MIB))
def test_no_partition_table_upsets_it(parts, tmp_path, changes, size):
    path, _ = disk(tmp_path)
    data = bytearray(path.read_bytes())
    for at, value in changes:
        data[at] = value
    path.write_bytes(data[:size])
    parts("parts", path, "512")


# -- devices


class Machine:
    """A /sys and a /dev of folders and files."""

    def __init__(self, folder: Path) -> None:
        self.sys, self.dev = folder / "sys", folder / "dev"
        (self.sys / "class/block").mkdir(parents=True)
        self.dev.mkdir()
        self._number = 0

    def add(self, name: str, content: Path | None, parent: str = "", number: int = 0, start: int = 0) -> None:
        place = self.sys / "class/block" / name
        if parent:
            real = self.sys / "class/block" / parent / name
            real.mkdir()
            place.symlink_to(real)
            (real / "partition").write_text(f"{number}\n")
            (real / "start").write_text(f"{start}\n")
        else:
            place.mkdir()
        self._number += 1
        (place / "dev").write_text(f"254:{self._number}\n")
        (place / "size").write_text(f"{(content.stat().st_size if content else 0) // 512}\n")
        if content:
            path = self.dev / name.replace("!", "/")
            path.parent.mkdir(exist_ok=True)
            path.symlink_to(content)


@pytest.fixture
def machine(tmp_path: Path, filesystems: dict[str, Path]) -> Machine:
    made = Machine(tmp_path)
    path, _ = disk(tmp_path)
    made.add("vda", path)
    made.add("vda1", filesystems["squashfs"], "vda", 1, 2048)
    made.add("vda2", filesystems["erofs"], "vda", 2, 4096)
    other = tmp_path / "mbr"
    other.write_bytes(mbr.record([mbr.Slot(2048, 4095, 0x83)], 0x1234ABCD, b"").ljust(MIB, b"\0"))
    made.add("sda", other)
    made.add("sda1", filesystems["ext4"], "sda", 1, 2048)
    made.add("sr0", filesystems["iso9660"])
    made.add("sr1", None)
    made.add("loop0", filesystems["iso9660"])
    made.add("cciss!c0d0", filesystems["squashfs"])
    return made


GUID = gpt.partition_guid("s", 2)


def test_a_root_that_two_disks_have_is_not_guessed(parts, machine, filesystems, tmp_path):
    """A clone, a second stick: both are named, with what tells them apart."""
    said = parts("find", machine.sys, machine.dev, f"UUID={UUID}", status=3).stdout
    assert "is on 2 disks" in said
    made = Machine(tmp_path / "two")
    for name, serial in (("vda", "one"), ("vdb", "two\x1b[m")):
        made.add(name, filesystems["ext4"])
        (made.sys / "class/block" / name / "serial").write_text(f"{serial}\n")
    assert parts("find", made.sys, made.dev, "/dev/vdb").stdout.startswith(f"{made.dev}/vdb ")
    for spec in ("LABEL=ext4-label-16chr", f"UUID={UUID}"):
        said = parts("find", made.sys, made.dev, spec, status=3).stdout
        assert said.startswith(f"root={spec} is on 2 disks: {made.dev}/vda (LABEL=ext4-label-16chr, UUID={UUID}, ")
        assert "serial number one) and " in said and "two?[m" in said
    table, _ = disk(tmp_path / "two")
    twins = Machine(tmp_path / "twins")
    for name in ("vda", "vdb"):
        twins.add(name, table)
        twins.add(f"{name}1", filesystems["squashfs"], name, 1, 2048)
        twins.add(f"{name}2", filesystems["erofs"], name, 2, 4096)
    for spec in (f"PARTUUID={GUID}", "PARTLABEL=Wurzel\\x20ä€"):
        said = parts("find", twins.sys, twins.dev, spec, status=3).stdout
        assert f"{twins.dev}/vda2 (PARTLABEL=" in said and f"{twins.dev}/vdb2 (PARTLABEL=" in said


def test_a_disk_that_begins_with_its_first_partition_is_one(parts, filesystems, tmp_path):
    """A hybrid ISO on a stick: the disk and its partition at sector 0 hold the same."""
    made = Machine(tmp_path)
    made.add("sda", filesystems["iso9660"])
    made.add("sda1", filesystems["iso9660"], "sda", 1, 0)
    assert parts("find", made.sys, made.dev, "LABEL=An\\x20Iso").stdout.startswith(f"{made.dev}/sda ")


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("/dev/vda", "vda"), ("/dev/vda2", "vda2"), ("/dev/sr0", "sr0"), ("/dev/cciss/c0d0", "cciss/c0d0"),
        (f"PARTUUID={GUID}", "vda2"), (f"PARTUUID={GUID.upper()}", "vda2"), ("PARTLABEL=EFI\\x20System", "vda1"),
        ("PARTLABEL=Wurzel\\x20ä€", "vda2"), ("PARTUUID=1234abcd-01", "sda1"), ("PARTUUID=1234ABCD-01", "sda1"),
        ("LABEL=An\\x20Iso", "sr0"), ("LABEL=erofs-label", "vda2"), ("UUID=2024-01-02-03-04-05-06", "sr0"),
        ("LABEL=ext4-label-16chr", "sda1"),
    ],
)  # fmt: skip
def test_a_device_is_found(parts, machine, spec, name):
    assert parts("find", machine.sys, machine.dev, spec).stdout.startswith(f"{machine.dev / name} 254:")


@pytest.mark.parametrize(
    "spec",
    [
        "/dev/vdb", "/dev/sr1", "/dev/../mbr", "/dev/vda3", "PARTUUID=1234abcd-02", "PARTUUID=00000000-01",
        "PARTUUID=1234abcd-01x", "PARTUUID=1234abcd", f"PARTUUID={gpt.partition_guid('s', 3)}", "LABEL=an iso",
        "LABEL=An", "UUID=6d0e1f6a", "PARTLABEL=EFI", "LABEL=\\x", "LABEL=\\x00",
    ],
)  # fmt: skip
def test_what_is_not_there_is_not_found(parts, machine, spec):
    lines = parts("find", machine.sys, machine.dev, spec, status=1).stdout.splitlines()
    assert "/dev/sr1: no medium" in lines
    assert "/dev/sr0: 0 MiB, iso9660, LABEL=An Iso, UUID=2024-01-02-03-04-05-06" in lines
    assert not any("loop0" in line for line in lines) and len(lines) == 8


def test_a_partition_that_the_kernel_has_elsewhere_is_not_taken(parts, tmp_path, filesystems):
    made = Machine(tmp_path)
    made.add("vda", disk(tmp_path)[0])
    made.add("vda2", filesystems["erofs"], "vda", 2, 4095)
    parts("find", made.sys, made.dev, f"PARTUUID={GUID}", status=1)


def test_a_machine_without_devices_says_nothing(parts, tmp_path):
    assert parts("find", tmp_path / "sys", tmp_path / "dev", "/dev/vda", status=1).stdout == ""


# -- /var


@pytest.mark.parametrize("way", ["move", "keep"])
def test_a_folder_is_copied_as_it_is(parts, tmp_path, way):
    old, new = tmp_path / "old", tmp_path / "new"
    (old / "lib/deep").mkdir(parents=True)
    new.mkdir()
    (old / "lib/deep/file").write_bytes(b"x" * 200_000)
    (old / "lib/link").symlink_to("deep/file")
    os.mkfifo(old / "pipe")
    (old / "lib/deep/file").chmod(0o4711)
    (old / "lib/deep").chmod(0o1750)
    os.utime(old / "lib/deep/file", (1000, 2000))
    parts("copy", old, new, way)
    assert (new / "lib/deep/file").read_bytes() == b"x" * 200_000
    assert (new / "lib/deep/file").stat().st_mode & 0o7777 == 0o4711
    assert (new / "lib/deep/file").stat().st_mtime == 2000
    assert (new / "lib/deep").stat().st_mode & 0o7777 == 0o1750
    assert (new / "lib/link").readlink() == Path("deep/file")
    assert (new / "pipe").is_fifo()
    assert sorted(p.name for p in old.iterdir()) == ([] if way == "move" else ["lib", "pipe"])
