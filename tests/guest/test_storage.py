"""The storage packages' parts under the sanitizers: what is on a disk, partition tables, which disk, command lines."""

from __future__ import annotations

import os
import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from linuxkit.encode import mbr

pytestmark = pytest.mark.guest
FEW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
MIB = 1 << 20
UUID = "6d0e1f6a-7b1c-4e55-9f3e-0a1b2c3d4e5f"
GUEST = Path(__file__).resolve().parents[2] / "guest"
Run = Callable[..., "subprocess.CompletedProcess[str]"]
TOOLS = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}


@pytest.fixture(scope="module")
def program_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("storage")
    made = subprocess.run(["make", "-s", "-C", GUEST, f"OUT={out}", "test-storage"], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    return out


class Machine:
    """A /sys and a /dev of folders and files, and test-storage in it."""

    def __init__(self, program: Path, folder: Path) -> None:
        self.program, self.sys, self.dev = program / "test-storage", folder / "sys", folder / "dev"
        (self.sys / "class/block").mkdir(parents=True)
        self.dev.mkdir()
        self._number = 0

    def __call__(self, *args: str | Path, status: int | None = 0) -> subprocess.CompletedProcess[str]:
        options = {"ASAN_OPTIONS": "detect_leaks=1:exitcode=99", "UBSAN_OPTIONS": "halt_on_error=1:exitcode=99"}
        command, env = [self.program, self.sys, self.dev, *args], os.environ | options
        done = subprocess.run(command, capture_output=True, text=True, env=env, errors="replace", timeout=60)
        assert "Sanitizer" not in done.stderr and "runtime error" not in done.stderr, done.stderr
        assert status is None or done.returncode == status, (done.returncode, done.stdout, done.stderr)
        return done

    def add(
        self, name: str, content: Path | None, parent: str = "", number: int = 0, start: int = 0, ro: int = 0
    ) -> None:
        place = self.sys / "class/block" / name
        real = self.sys / "class/block" / parent / name
        real.mkdir()
        if parent:
            place.symlink_to(real)
            (real / "partition").write_text(f"{number}\n")
            (real / "start").write_text(f"{start}\n")
        self._number += 1
        (place / "dev").write_text(f"254:{self._number}\n")
        (place / "ro").write_text(f"{ro}\n")
        (place / "size").write_text(f"{(content.stat().st_size if content else 0) // 512}\n")
        if content:
            path = self.dev / name.replace("!", "/")
            path.parent.mkdir(exist_ok=True)
            path.symlink_to(content)


@pytest.fixture
def machine(program_folder: Path, tmp_path: Path) -> Machine:
    return Machine(program_folder, tmp_path)


def blank(path: Path, size: int, data: bytes = b"", at: int = 0) -> Path:
    with path.open("wb") as out:
        out.truncate(size)
        out.seek(at)
        out.write(data)
    return path


def run(*command: str | Path) -> None:
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=60, env=TOOLS)
    assert done.returncode == 0, (command, done.stderr)


# -- what is on a device


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One of each, made by the established tools."""
    folder = tmp_path_factory.mktemp("images")
    names = ("ext4", "ext2", "small", "vfat", "swap", "luks1", "luks2")
    made = {name: blank(folder / name, 24 * MIB) for name in names}
    made |= {"xfs": blank(folder / "xfs", 300 * MIB), "btrfs": blank(folder / "btrfs", 120 * MIB)}
    run("mke2fs", "-q", "-F", "-t", "ext4", "-U", UUID, "-L", "ext4-label", made["ext4"])
    run("mke2fs", "-q", "-F", "-t", "ext2", "-b", "4096", "-L", "old", "-U", UUID, made["ext2"], "4096")
    run("mke2fs", "-q", "-F", "-O", "journal_dev", "-U", UUID, made["small"])
    run("mkfs.xfs", "-q", "-L", "xfs label", "-m", f"uuid={UUID}", made["xfs"])
    run("mkfs.btrfs", "-q", "-L", "btrfs label", "-U", UUID, made["btrfs"])
    run("mkfs.fat", "-n", "FATTY", "-i", "1234abcd", made["vfat"])
    run("mkswap", "-q", "-L", "swapper", "-U", UUID, made["swap"])
    key = folder / "key"
    key.write_text("secret")
    for kind, extra in (("luks1", []), ("luks2", ["--label", "locked"])):
        run("cryptsetup", "-q", "luksFormat", "--type", kind, "--uuid", UUID, "--pbkdf", "pbkdf2",
            "--pbkdf-force-iterations", "1000", "--key-file", key, *extra, made[kind])  # fmt: skip
    return made


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("ext4", f"ext4 [ext4-label] [{UUID}] {24 * MIB}"),
        ("ext2", f"ext4 [old] [{UUID}] {16 * MIB}"),
        ("small", f"jbd* [] [{UUID}] {24 * MIB}"),
        ("xfs", f"xfs [xfs label] [{UUID}] {300 * MIB}"),
        ("btrfs", f"btrfs [btrfs label] [{UUID}] {120 * MIB}"),
        ("vfat", "vfat [FATTY] [1234-ABCD] 0"),
        ("swap", f"swap* [swapper] [{UUID}] 0"),
        ("luks1", f"crypto_LUKS* [] [{UUID}] 0"),
        ("luks2", f"crypto_LUKS* [locked] [{UUID}] 0"),
    ],
)
def test_filesystems_and_others_are_known(machine, images, name, line):
    assert machine("content", images[name]).stdout == line + "\n"


@pytest.mark.parametrize(
    ("size", "data", "at", "words"),
    [
        (8 * MIB, b"", 0, "nothing, blank 1"),
        (512, b"", 0, "nothing, blank 1"),
        (8 * MIB, b"x", 0, "nothing, blank 0"),
        (8 * MIB, b"x", MIB - 1, "nothing, blank 0"),
        (8 * MIB, b"x", 8 * MIB - 1, "nothing, blank 0"),
        (64 * MIB, b"x" * 4096, 32 * MIB, "nothing, blank 0"),  # a sample
        (8 * MIB, b"LABELONE", 512, "LVM2_member* [] [] 0"),
        (8 * MIB, bytes.fromhex("fc4e2ba9"), 4096, "linux_raid_member* [] [00000000-0000-0000-0000-000000000000] 0"),
        (8 * MIB, bytes.fromhex("fc4e2ba9"), 8 * MIB - 8192, "linux_raid_member* [] [] 0"),
        (8 * MIB, bytes.fromhex("fc4e2ba9"), 8 * MIB - 65536, "linux_raid_member* [] [] 0"),
        (8 * MIB, b"SKUL\xba\xbe", 16384, "crypto_LUKS* [] [] 0"),
        (8 * MIB, b"NTFS    ", 3, "ntfs [] [] 0"),
        (64 * MIB, b"-FVE-FS-", 3, "BitLocker* [] [] 0"),
        (8 * MIB, b"\x0c\xb1\xba" + bytes(5), 135168, "zfs_member* [] [] 0"),
        (8 * MIB, b"hsqs" + bytes(24) + b"\4\0", 0, "squashfs [] [] 0"),
        (70 * MIB, b"_BHRfS_M", 65600, "btrfs [] [00000000-0000-0000-0000-000000000000] 0"),
    ],
)  # fmt: skip
def test_what_lies_on_a_disk_makes_it_not_empty(machine, tmp_path, size, data, at, words):
    assert machine("content", blank(tmp_path / "disk", size, data, at)).stdout == words + "\n"


@pytest.mark.parametrize("length", [0, 1, 100, 1023, 1100, 4096, 65600, 65900])
def test_a_device_that_is_cut_off_is_read_as_far_as_it_goes(machine, images, tmp_path, length):
    for name in ("ext4", "xfs", "btrfs", "luks2", "swap", "vfat"):
        with images[name].open("rb") as whole:
            (tmp_path / "cut").write_bytes(whole.read(length))
        assert machine("content", tmp_path / "cut").stdout


@FEW
@given(st.sampled_from(["ext4", "xfs", "btrfs", "luks2", "swap", "vfat"]),
       st.lists(st.tuples(st.sampled_from([0, 512, 1024, 4096, 65536]), st.integers(0, 511), st.integers(0, 255)),
                min_size=1, max_size=40))  # fmt: skip
def test_no_superblock_upsets_it(machine, images, tmp_path, name, changes):
    with images[name].open("rb") as stream:
        data = bytearray(stream.read(128 * 1024))
    for start, at, value in changes:
        data[start + at] = value
    (tmp_path / "odd").write_bytes(data)
    machine("content", tmp_path / "odd")


# -- partition tables


@pytest.mark.parametrize("sector", [512, 4096])
@pytest.mark.parametrize("kind", ["dos", "gpt"])
def test_a_table_that_we_made_is_what_others_read(machine, tmp_path, kind, sector):
    disk = blank(tmp_path / "disk", 64 * MIB + 3 * 4096)
    machine("make", disk, str(sector), kind, "finished")
    last = (64 if kind == "dos" else 63) * MIB // sector - 1
    assert machine("table", disk, str(sector)).stdout == f"{kind}\n1 {MIB // sector} {last} linux\n"
    if sector == 512:
        check = ["sfdisk", "--verify"] if kind == "dos" else ["sgdisk", "-v"]
        done = subprocess.run([*check, disk], capture_output=True, text=True, env=TOOLS)
        assert "No errors detected" in done.stdout or "No problems found" in done.stdout, done.stdout + done.stderr
        dump = subprocess.run(["sfdisk", "-d", disk], capture_output=True, text=True, env=TOOLS, check=True).stdout
        assert f"start=        2048, size=      {(last - 2047):6d}" in dump
        assert ("type=83" if kind == "dos" else "type=0FC63DAF-8483-4772-8E79-3D69D8477DE4") in dump


def test_an_unfinished_table_is_known_until_it_is_finished(machine, tmp_path):
    for kind in ("dos", "gpt"):
        disk = blank(tmp_path / kind, 16 * MIB)
        machine("make", disk, "512", kind, "unfinished")
        assert machine("table", disk, "512").stdout.startswith(f"{kind} unfinished\n")


@pytest.mark.parametrize(("kind", "size"), [("dos", MIB), ("gpt", 2 * MIB), ("dos", 512), ("gpt", 0)])
def test_a_disk_that_is_too_small_gets_no_table(machine, tmp_path, kind, size):
    disk = blank(tmp_path / "disk", size)
    assert machine("make", disk, "512", kind, "finished", status=1).stdout == "it is too small\n"


def test_a_large_disk_needs_a_gpt(machine, tmp_path):
    disk = blank(tmp_path / "disk", 3 << 40)
    assert "2 TiB" in machine("make", disk, "512", "dos", "finished", status=1).stdout
    machine("make", disk, "512", "gpt", "finished")
    assert machine("table", disk, "512").stdout == f"gpt\n1 2048 {((3 << 40) - MIB) // 512 - 1} linux\n"


@pytest.mark.parametrize("kind", ["dos", "gpt"])
def test_a_partition_grows_with_its_disk(machine, tmp_path, kind):
    disk = blank(tmp_path / "disk", 16 * MIB)
    machine("make", disk, "512", kind, "finished")
    machine("grow", disk, "512", "1", status=2)  # there is no room
    before = disk.read_bytes()[: 16 * MIB]
    os.truncate(disk, 40 * MIB)
    machine("grow", disk, "512", "1")
    last = (40 if kind == "dos" else 39) * MIB // 512 - 1
    assert machine("table", disk, "512").stdout == f"{kind}\n1 2048 {last} linux\n"
    assert disk.read_bytes()[MIB : 15 * MIB] == before[MIB : 15 * MIB]
    if kind == "gpt":
        done = subprocess.run(["sgdisk", "-v", disk], capture_output=True, text=True, env=TOOLS)
        assert "No problems found" in done.stdout, done.stdout


def test_only_the_last_partition_grows_and_the_others_stay(machine, tmp_path):
    disk = blank(tmp_path / "disk", 32 * MIB)
    run("sgdisk", "-n", "1:2048:+4M", "-t", "1:EF00", "-n", "2:0:+8M", "-c", "2:mine", disk)
    os.truncate(disk, 64 * MIB)
    machine("grow", disk, "512", "1", status=2)
    machine("grow", disk, "512", "2")
    done = subprocess.run(["sgdisk", "-v", "-p", "-i", "2", disk], capture_output=True, text=True, env=TOOLS)
    assert "No problems found" in done.stdout and "name: 'mine'" in done.stdout, done.stdout
    assert machine("table", disk, "512").stdout == f"gpt\n1 2048 10239\n2 10240 {63 * MIB // 512 - 1} linux\n"


def test_tables_of_others(machine, tmp_path):
    record = mbr.record([mbr.Slot(2048, 2048, 0x83), mbr.Slot(8192, 809, 0x0C)], 7, b"")
    disk = blank(tmp_path / "disk", 16 * MIB, record)
    assert machine("table", disk, "512").stdout == "dos\n1 2048 4095 linux\n2 8192 9000\n"
    disk = blank(tmp_path / "empty", MIB, b"\x55\xaa", 510)
    assert machine("table", disk, "512").stdout == "dos\n"  # a table without partitions is one all the same
    assert machine("table", blank(tmp_path / "none", MIB), "512").stdout == "none\n"
    boot_sector = blank(tmp_path / "code", MIB, b"\xeb\x58\x90".ljust(510, b"x") + b"\x55\xaa")
    assert machine("table", boot_sector, "512").stdout == "none\n"


@pytest.mark.parametrize(
    "slots",
    [
        [(2048, 1 << 30)], [(2048, 4095), (4095, 8191)], [(2048, 8191), (4096, 5000)], [(0, 4095)],
    ],
)  # fmt: skip
def test_a_table_that_lies_is_damaged(machine, tmp_path, slots):
    record = mbr.record([], 7, b"").ljust(512, b"\0")[:446]
    for first, last in slots:
        record += struct.pack("<B3sB3sII", 0, b"\0" * 3, 0x83, b"\0" * 3, first, last - first + 1)
    disk = blank(tmp_path / "disk", 8 * MIB, record.ljust(510, b"\0") + b"\x55\xaa")
    assert machine("table", disk, "512").stdout.startswith("damaged\n")
    machine("grow", disk, "512", "1", status=2)


def gpt_disk(path: Path) -> Path:
    blank(path, 8 * MIB)
    run("sgdisk", "-n", "1:2048:+4M", path)
    return path


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return gpt_disk(tmp_path_factory.mktemp("gpt") / "disk").read_bytes()[:-MIB]


def test_a_gpt_is_read_from_its_twin_when_the_first_is_damaged(machine, tmp_path):
    disk = gpt_disk(tmp_path / "disk")
    data = bytearray(disk.read_bytes())
    data[512:600] = bytes(88)
    disk.write_bytes(data)
    assert machine("table", disk, "512").stdout == "gpt\n1 2048 10239 linux\n"
    data[-512:] = bytes(512)
    disk.write_bytes(data)
    assert machine("table", disk, "512").stdout == "damaged\n"
    data = bytearray(gpt_disk(tmp_path / "other").read_bytes())
    data[:512] = bytes(512)  # without its MBR: nothing may be made of it, and nothing in its place
    disk.write_bytes(data)
    assert machine("table", disk, "512").stdout.startswith("damaged\n")


@FEW
@given(st.lists(st.tuples(st.integers(446, 1400), st.integers(0, 255)), min_size=1, max_size=30), st.booleans())
def test_no_table_upsets_it(machine, tmp_path, source, changes, mend):
    disk = tmp_path / "hostile"
    data = bytearray(source)
    for at, value in changes:
        data[at] = value
    if mend:  # all but the checksum's own error
        size = min(struct.unpack_from("<I", data, 524)[0], 4096)
        struct.pack_into("<I", data, 528, 0)
        struct.pack_into("<I", data, 528, zlib.crc32(data[512 : 512 + size]))
    disk.write_bytes(data)
    machine("table", disk, "512")
    machine("grow", disk, "512", "1", status=None)


# -- which disk


@pytest.fixture
def full(machine: Machine, images: dict[str, Path], tmp_path: Path) -> Machine:
    for name in ("vdb", "vda", "vdaa", "sda", "nvme10n1", "nvme2n1", "sr0", "loop0", "dm-0", "md0", "ram0", "zram0"):
        machine.add(name, blank(tmp_path / name, 2 * MIB))
    machine.add("vdc", blank(tmp_path / "vdc", 2 * MIB), ro=1)
    machine.add("sdb", None)
    machine.add("vda1", images["ext4"], "vda", 1, 2048)
    machine.add("vdb1", images["xfs"], "vdb", 1, 2048)
    machine.add("cciss!c0d0", images["btrfs"])
    return machine


def test_disks_come_in_their_order(full):
    names = [line.split()[0] for line in full("disks").stdout.splitlines()]
    assert names == ["cciss/c0d0", "nvme2n1", "nvme10n1", "sda", "vda", "vdb", "vdc", "vdaa"]
    assert "vdc 254:13 2097152 512 ro" in full("disks").stdout
    devices = [line.split()[0] for line in full("devices").stdout.splitlines()]
    assert {"vda1", "sr0", "dm-0", "loop0"} <= set(devices) and "ram0" not in devices


def test_a_filesystem_is_found_by_its_name(full):
    assert full("with", "label", "ext4-label").stdout == "vda1\n"
    assert full("with", "label", "xfs label").stdout == "vdb1\n"
    assert full("with", "label", "btrfs label").stdout == "cciss!c0d0\n"
    assert full("with", "label", "ext4").stdout == "-\n"
    assert full("with", "uuid", UUID.upper()).stdout == "several\n"  # three have it here
    assert full("with", "uuid", UUID[:-1]).stdout == "-\n"


def _twins(machine: Machine, content: Path, *names: str) -> Machine:
    for name in names:
        machine.add(name, content)
        (machine.sys / "class/block" / name / "serial").write_text(f"S-{name}\n")
    return machine


@pytest.mark.parametrize("command", [
    ["mount", "-label", "ext4-label", "/var/x"], ["mount", "LABEL=ext4-label", "/var/x"],
    ["mount", "-uuid", UUID, "/var/x"], ["mount", f"UUID={UUID}", "/var/x"],
    ["mount", "/dev/disk/by-label/ext4-label", "/var/x"], ["mount", f"/dev/disk/by-uuid/{UUID}", "/var/x"],
    ["format", "/dev/disk/by-label/ext4-label"], ["extend", "LABEL=ext4-label"],
    ["crypt", "-k", "/dev/null", "name", "/dev/disk/by-label/ext4\\x2dlabel"],
])  # fmt: skip
def test_two_disks_with_one_label_are_named_and_none_is_taken(machine, images, command):
    said = _twins(machine, images["ext4"], "vda", "vdb")(*command, status=1).stderr
    for name in ("vda", "vdb"):
        assert f"{machine.dev}/{name} (ext4, LABEL=ext4-label, UUID={UUID}, serial number S-{name})" in said
    assert "name the device" in said and "there is no" not in said and "has no" not in said


def test_one_label_on_two_disks_is_no_link_and_one_is(machine, images, tmp_path):
    """by-label has what `mount` would take, and nothing where `mount` would not choose."""
    _twins(machine, images["ext4"], "vda", "vdb")
    machine.add("vdc", images["vfat"])
    said = machine("mount", "-device", "/dev/vdc", str(tmp_path / "at"), status=1).stderr  # nobody may mount here
    links = machine.dev / "disk"
    assert [link.name for link in (links / "by-label").iterdir()] == ["FATTY"]
    assert (links / "by-label/FATTY").readlink().name == "vdc"
    assert "LABEL=ext4-label is on " in said and "serial number S-vdb" in said
    assert machine("with", "label", "FATTY").stdout == "vdc\n"
    said = machine("format", "-label", "ext4-label").stderr  # it is there, more than once
    assert "serial number S-vda" in said


def test_what_belongs_together_is_no_twin(machine, images):
    """A disk that begins with its partition; what lies below a device of device-mapper."""
    machine.add("sda", images["ext4"])
    machine.add("sda1", images["ext4"], "sda", 1, 0)
    machine.add("dm-0", images["ext4"])
    (machine.sys / "class/block/sda/holders/dm-0").mkdir(parents=True)
    (machine.sys / "class/block/sda/sda1/holders/dm-0").mkdir(parents=True)
    assert machine("with", "label", "ext4-label").stdout == "dm-0\n"
    (machine.sys / "class/block/sda/holders/dm-0").rmdir()
    (machine.sys / "class/block/sda/sda1/holders/dm-0").rmdir()
    (machine.sys / "class/block/dm-0/size").write_text("0\n")
    assert machine("with", "label", "ext4-label").stdout == "sda\n"


def test_format_takes_no_disk_with_data(machine, images, tmp_path):
    run("sgdisk", "-n", "1:2048:+4M", blank(tmp_path / "parted", 8 * MIB))
    contents = {"vda": images["ext4"], "vdb": images["luks2"], "vdc": tmp_path / "parted"}
    contents["vdd"] = blank(tmp_path / "unknown", 8 * MIB, b"data", 4 * MIB // 16 * 4)
    contents["vde"] = blank(tmp_path / "code", 8 * MIB, b"\x55\xaa", 510)
    before = {name: path.read_bytes() for name, path in contents.items()}
    for name, path in contents.items():
        machine.add(name, path)
    done = machine("format", status=1)
    assert "No eligible disks found" in done.stderr and "data of an unknown kind" in done.stderr
    assert "crypto_LUKS (LABEL=locked)" in done.stderr and "GPT) with 1 partition" in done.stderr
    for name in contents:
        done = machine("format", str(machine.dev / name), status=1)
        assert "is left alone" in done.stderr and "-force" in done.stderr
    assert "-force is for a disk that is named" in machine("format", "-force", status=1).stderr
    assert {name: path.read_bytes() for name, path in contents.items()} == before


def test_format_has_nothing_to_do_when_it_was_done(machine, images, tmp_path):
    disk = blank(tmp_path / "disk", 32 * MIB)
    machine("make", disk, "512", "dos", "finished")
    machine.add("vda", disk)
    machine.add("vda1", images["ext4"], "vda", 1, 2048)
    assert "is there already" in machine("format", "-label", "ext4-label").stderr
    assert "1 is formatted already" in machine("format").stderr
    assert "is formatted already" in machine("format", "-label=ext4-label", str(machine.dev / "vda")).stderr
    for wrong in (["-label", "other"], ["-type", "xfs"]):
        assert "is left alone" in machine("format", *wrong, str(machine.dev / "vda"), status=1).stderr


def test_format_begins_with_an_empty_disk_of_the_size(machine, tmp_path):
    """Files are no disks: here it ends where the kernel is asked whether it would look for partitions, unwritten."""
    for name, size in (("vda", 8), ("vdb", 16), ("vdc", 24)):
        machine.add(name, blank(tmp_path / name, size * MIB))
    done = machine("format", "-min-size", "10M", "-max-size", "16M", status=1)
    assert f"{machine.dev}/vdb (16 MiB): MBR, ext4" in done.stderr and "would not look for partitions" in done.stderr
    for name, size in (("vda", 8), ("vdb", 16), ("vdc", 24)):
        assert (tmp_path / name).read_bytes() == bytes(size * MIB)
    machine("make", tmp_path / "vdc", "512", "dos", "unfinished")
    done = machine("format", "-type=xfs", "--label", "x", "-partition", "gpt", "-min-size=20M", status=1)
    assert f"{machine.dev}/vdc (24 MiB): GPT, xfs, LABEL=x" in done.stderr  # what was not finished is begun anew


def test_format_takes_no_partition(machine, images):
    machine.add("vda", images["small"])
    machine.add("vda1", images["ext4"], "vda", 1, 2048)
    assert "is a partition: name the disk" in machine("format", "-force", str(machine.dev / "vda1"), status=1).stderr


# -- command lines


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["format", "-type", "ntfs"], "-type is ext4, btrfs or xfs, not ntfs"),
        (["format", "-partition", "mbr"], "-partition is dos or gpt"),
        (["format", "-label", "x" * 17], "ext4 takes 16 bytes"),
        (["format", "-type", "xfs", "-label", "x" * 13], "xfs takes 12 bytes"),
        (["format", "-label", "a/b"], "holds a /"),
        (["format", "-lable", "x"], "-lable is not an option"),
        (["format", "-label"], "-label needs a value"),
        (["format", "-force=perhaps"], "true or false"),
        (["format", "-min-size", "1X"], "-min-size and -max-size"),
        (["format", "a", "b"], "one device at most"),
        (["mount"], "where shall it be mounted?"),
        (["mount", "a", "b", "c"], "where shall it be mounted?"),
        (["mount", "-label", "a", "-uuid", "b", "/x"], "one of"),
        (["mount", "-label", "a", "x"], "not an absolute path"),
        (["extend", "-type", "vfat"], "-type is"),
        (["swap", "--path", "/var/x"], "are needed"),
        (["swap", "--path", "/tmp/x", "--size", "1G"], "below /var/"),
        (["swap", "--path", "/var/../x", "--size", "1G"], "below /var/"),
        (["swap", "--path", "/var/x", "--size", "lots"], "--size is a number"),
        (["swap", "--path", "/var/x", "--size", "1G", "--condition", "part"], "--condition is"),
        (["swap", "--path", "/var/x", "--size", "1G", "--condition", "part:/var:perhaps"], "--condition is"),
        (["swap", "--path", "/var/x", "--size", "1G", "--condition", "partsize:/var:x"], "--condition is"),
        (["swap", "--path", "/var/x", "--size", "1G", "--condition", "partsize:/var"], "--condition is"),
        (["losetup"], "one file"),
        (["losetup", "-s", "0", "x"], "-s is a number"),
        (["crypt", "a"], "a name and a device"),
        (["crypt", "a/b", "c"], "cannot be a name"),
        (["snapshot"], "which volume?"),
        (["snapshot", "-keep", "0", "/x"], "-keep is"),
        (["snapshot", "-folder", "..", "/x"], "-folder is"),
    ],
)
def test_a_command_line_that_makes_no_sense_is_refused(machine, args, words):
    done = machine(*args, status=2)
    assert words in done.stderr and "usage: " in done.stderr


def test_errors_say_what_is_missing(machine, tmp_path):
    assert "-c makes it" in machine("losetup", str(tmp_path / "none"), status=2).stderr
    assert "is not a file" in machine("losetup", str(tmp_path), status=1).stderr
    assert "there is no key" in machine("crypt", "-k", str(tmp_path / "none"), "a", "/dev/x", status=1).stderr
    done = machine("swap", "--path", "/var/x", "--size", "1M", "--condition", f"part:{tmp_path}:true", status=1)
    assert "no disk is mounted" in done.stderr
    machine("swap", "--path", "/var/x", "--size", "1M", "--condition", f"part:{tmp_path}")
    assert "not a btrfs volume" in machine("snapshot", str(tmp_path), status=1).stderr


@pytest.mark.parametrize(
    ("text", "unit", "size"),
    [
        ("10", 1, 10), ("10", MIB, 10 * MIB), ("3k", 1, 3072), ("4M", 1, 4 * MIB), ("2G", 1, 2 << 30),
        ("1T", 1, 1 << 40), ("", 1, -1), ("-1", 1, -1), ("1X", 1, -1), ("1MB", 1, -1), (" 1", 1, -1),
        ("99999999999999999999", 1, -1), ("9999999999T", 1, -1),
    ],
)  # fmt: skip
def test_sizes(machine, text, unit, size):
    assert machine("size", text, str(unit)).stdout == f"{size}\n"


def test_blocks_of_the_builders_own_disks_are_read(machine, tmp_path):
    """The data partition that `build --data-partition` makes is one that extend may grow."""
    layout = mbr.record([mbr.Slot(2048, 2048, 0x0C), mbr.Slot(4096, 4096, 0x83)], 7, b"")
    disk = blank(tmp_path / "disk", 8 * MIB, layout)
    machine("grow", disk, "512", "2")
    assert machine("table", disk, "512").stdout == f"dos\n1 2048 4095\n2 4096 {8 * MIB // 512 - 1} linux\n"
