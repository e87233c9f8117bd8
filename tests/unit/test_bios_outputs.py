"""The formats for BIOS: what is in the disks that a build writes, and what it refuses."""

from __future__ import annotations

import gzip
import json
import struct
from pathlib import Path

import pytest

from linuxkit.config.model import Config
from linuxkit.encode import gpt
from linuxkit.encode.pieces import literal
from linuxkit.errors import InputError
from linuxkit.oci.media import Platform
from linuxkit.oci.store import Store
from linuxkit.outputs import archive, table
from linuxkit.outputs.bios import configuration
from linuxkit.outputs.pieces import OutputFile
from linuxkit.packages.kit import Kit
from linuxkit.plan.asked import asked, loaders_for
from support.bios import add_bios, boot_sector, kernel
from support.builds import YAML, build, files_in
from support.efi import add_efi, content
from support.fatread import read_volume
from support.formats import cache_for_all
from support.images import make_image, member, tar_of

pytestmark = pytest.mark.unit
MIB = 1 << 20
PARTS = {"kernel", "initrd.img", "syslinux.cfg", "ldlinux.sys", "ldlinux.c32"}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cache_for_all(tmp_path_factory.mktemp("bios"))


def mbr_slots(disk: bytes) -> list[tuple[int, int, int, int]]:
    """(active, type, first sector, sectors) of the partitions in an MBR."""
    found = [struct.unpack_from("<B3xB3xII", disk, 446 + 16 * n) for n in range(4)]
    return [slot for slot in found if slot[1]]


def check_syslinux(volume: bytes, first: int) -> None:
    """That the boot sector leads to ldlinux.sys, and that to itself."""
    per, reserved = volume[13], struct.unpack_from("<H", volume, 14)[0]
    assert struct.unpack_from("<I", volume, 28)[0] == first
    assert volume[:11] == boot_sector()[:11] and volume[90:282] == boot_sector()[90:282]
    start = struct.unpack_from("<I", volume, 282)[0]
    system = read_volume(volume).files["ldlinux.sys"]
    assert start > reserved and volume[start * 512 : start * 512 + len(system)] == system
    (rest, count), (advs,) = struct.unpack_from("<QH", system, 512), struct.unpack_from("<Q", system, 1600)
    assert (rest, rest + count) == (start + 1, advs)
    assert volume[advs * 512 : advs * 512 + 1024] == system[-1024:]
    if struct.unpack_from("<H", volume, 22)[0] == 0:  # FAT32 has a copy
        assert volume[:512] == volume[6 * 512 : 7 * 512] and per


def test_a_disk_for_a_bios(tmp_path: Path, cache: Path) -> None:
    build(tmp_path, cache, "-f", "raw-bios,kernel+initrd")
    made = files_in(tmp_path)
    disk = made["x-bios.img"]
    assert len(disk) % MIB == 0 and disk[:440] == b"mbr".ljust(440, b".")
    ((active, kind, first, sectors),) = mbr_slots(disk)
    assert (active, kind, first) == (0x80, 0x01, 2048)
    data = disk[first * 512 : (first + sectors) * 512]
    volume = read_volume(data)
    assert (volume.bits, volume.label) == (12, "LINUXKIT")
    assert set(volume.files) == PARTS
    assert volume.files["kernel"] == made["x-kernel"]
    assert volume.files["initrd.img"] == made["x-initrd.img"]
    assert volume.files["syslinux.cfg"].decode().split() == [
        "DEFAULT", "linux", "PROMPT", "0", "NOESCAPE", "1", "LABEL", "linux", "LINUX", "/kernel",
        "INITRD", "/initrd.img", "APPEND", "console=ttyS0",
    ]  # fmt: skip
    check_syslinux(data, 2048)


def test_larger_content_has_a_larger_table(tmp_path: Path, cache: Path) -> None:
    """The type of the partition is that of the FAT, which follows from the number of clusters."""
    add_bios(Store(cache), 20 << 20)
    build(tmp_path, cache, "-f", "raw-bios")
    add_bios(Store(cache))
    disk = (tmp_path / "x-bios.img").read_bytes()
    ((_, kind, first, sectors),) = mbr_slots(disk)
    data = disk[first * 512 : (first + sectors) * 512]
    bits = read_volume(data).bits
    assert (bits, kind) == (16, 0x0E)
    check_syslinux(data, first)


def test_a_disk_for_both(tmp_path: Path, cache: Path) -> None:
    build(tmp_path, cache, "-f", "raw,uki,raw-bios")
    made = files_in(tmp_path)
    disk = made["x.img"]
    assert disk[:440] == b"gptmbr".ljust(440, b".")
    assert mbr_slots(disk) == [(0, 0xEE, 1, len(disk) // 512 - 1)]
    assert disk[1024 : 1024 + 16] == gpt.guid_bytes(gpt.ESP)
    first, last, attributes = struct.unpack_from("<QQQ", disk, 1024 + 32)
    assert first == 2048 and attributes & gpt.LEGACY_BOOT
    data = disk[first * 512 : (last + 1) * 512]
    volume = read_volume(data)
    assert volume.bits == 32
    assert set(volume.files) == {*PARTS, "EFI/BOOT/BOOTX64.EFI"}
    assert volume.files["EFI/BOOT/BOOTX64.EFI"] == made["x.efi"]
    assert content(made["x.efi"], ".initrd") == volume.files["initrd.img"]
    check_syslinux(data, first)


def test_microcode_stands_before_the_initrd(tmp_path: Path, cache: Path) -> None:
    text = YAML.replace("  cmdline", "  ucode: ucode.cpio\n  cmdline")
    build(tmp_path, cache, "-f", "raw-bios,kernel+initrd", text=text)
    made = files_in(tmp_path)
    assert made["x-initrd.img"][:100] == b"u" * 99 + b"\0"
    disk = made["x-bios.img"]
    _, _, first, sectors = mbr_slots(disk)[0]
    assert read_volume(disk[first * 512 : (first + sectors) * 512]).files["initrd.img"] == made["x-initrd.img"]


def test_elsewhere_there_is_no_bios(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    add_efi(Store(cache), "arm64")
    text = "kernel:\n  image: t/kernel:1\n"
    build(tmp_path, cache, "-f", "raw,raw-efi", text=text, arch="arm64")
    assert (tmp_path / "x.img").read_bytes() == (tmp_path / "x-efi.img").read_bytes()
    refused = build(tmp_path, cache, "-f", "raw-bios", text=text, arch="arm64", check=False)
    assert refused.returncode == 2
    assert "there is no BIOS boot for arm64" in refused.stderr and "raw-efi" in refused.stderr


def test_a_size_is_more_and_never_less(tmp_path: Path, cache: Path) -> None:
    build(tmp_path, cache, "-f", "raw-bios,raw", "--size", "100M")
    assert {(tmp_path / name).stat().st_size for name in ("x-bios.img", "x.img")} == {100 * MIB}
    refused = build(tmp_path, cache, "-f", "raw-bios", "--size", "1M", check=False)
    assert refused.returncode == 2 and "--size 2M, or more" in refused.stderr


def test_loaders_are_asked_for_where_they_exist() -> None:
    """So that a lock or a bundle for both architectures doesn't ask for a BIOS' loader on arm64."""
    names = ("syslinux", "efi-boot", "rpi-boot")
    assert loaders_for(names, "amd64") == ["efi-boot", "syslinux"]
    assert loaders_for(names, "arm64") == ["efi-boot", "rpi-boot"]
    found = asked(Config(), Platform("linux", "arm64"), names)
    assert [place.text for place in found] == ["kit://efi-boot", "kit://rpi-boot"]


def test_the_plan_names_the_loaders(tmp_path: Path, cache: Path) -> None:
    plan = json.loads(build(tmp_path, cache, "-f", "raw", "--plan").stdout)
    assert [name for name, _ in plan["loaders"]] == ["efi-boot", "syslinux"]


KERNELS = {
    "gzip": (gzip.compress(kernel()), "compressed with gzip", "--decompress-kernel"),
    "other": (b"vmlinuz" * 300, "is not a Linux kernel for a PC", "kit://kernel"),
}


@pytest.mark.parametrize("case", KERNELS)
def test_kernels_that_syslinux_cannot_load(tmp_path: Path, cache: Path, case: str) -> None:
    data, message, hint = KERNELS[case]
    make_image(Store(cache), f"docker.io/t/no-{case}:1", tar_of(member("kernel", data)))
    text = f"kernel:\n  image: t/no-{case}:1\n  tar: none\n"
    refused = build(tmp_path, cache, "-f", "raw-bios", text=text, check=False)
    assert refused.returncode == 1
    assert message in refused.stderr and hint in refused.stderr
    assert not (tmp_path / "x-bios.img").exists()


def test_without_a_kernel_there_is_nothing_to_start(tmp_path: Path, cache: Path) -> None:
    refused = build(tmp_path, cache, "-f", "raw-bios", text="init:\n  - t/init:1\n", check=False)
    assert refused.returncode == 1 and "needs a kernel" in refused.stderr


def test_a_loader_that_is_none(tmp_path: Path) -> None:
    store = Store(tmp_path / "cache")
    add_bios(store)
    loader = Kit(store, store.root / "kit").reference("syslinux")
    for name, message in (
        ("usr/bin/other", "kit://syslinux has no usr/bin/syslinux for amd64"),
        ("usr/bin/syslinux", "usr/bin/syslinux of kit://syslinux: there is no syslinux 6 in it"),
    ):
        make_image(store, loader, tar_of(member(name, bytes(440))), platform=Platform("linux", "amd64"))
        refused = build(tmp_path, store.root, "-f", "raw-bios", text="kernel:\n  image: t/kernel:1\n", check=False)
        assert refused.returncode == 1 and message in refused.stderr


# -- the command line


def test_the_longest_command_line() -> None:
    longest = b"x" * (2047 - len(b"BOOT_IMAGE=/kernel initrd=/initrd.img "))
    assert configuration(longest, "/kernel", "/initrd.img").endswith(b"APPEND " + longest + b"\n")
    with pytest.raises(InputError, match="has 2010 bytes, and syslinux can hand on 2009"):
        configuration(longest + b"x", "/kernel", "/initrd.img")


@pytest.mark.parametrize(("cmdline", "message"), [
    (b"a\nLABEL b", "the character 0x0a"),
    (b"a\0b", "the character 0x00"),
    (b"console=ttyS0 initrd=/other", "initrd= in the kernel command line"),
])  # fmt: skip
def test_command_lines_that_syslinux_would_not_hand_on(cmdline: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        configuration(cmdline, "/kernel", "/initrd.img")


def test_no_command_line() -> None:
    assert b"APPEND" not in configuration(b"", "/kernel", "/initrd.img")
    assert b"INITRD" not in configuration(b"root=/dev/sda", "/kernel")


def test_two_formats_with_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Different files are refused; the same file is made once."""

    def of(name: str, content: bytes) -> table.Format:
        monkeypatch.setattr(archive, name, lambda _, base: [OutputFile(f"{base}.iso", name, (literal(content),))],
                            raising=False)  # fmt: skip
        return table.Format(name, "", f"archive:{name}")

    def made(*formats: table.Format) -> list[OutputFile]:
        return table.make(None, table.Target(formats, name="x"))  # type: ignore[arg-type]

    assert [f.format for f in made(of("one", b"a"), of("two", b"a"))] == ["one"]
    with pytest.raises(InputError, match=r"one and two both write x\.iso"):
        made(of("one", b"a"), of("two", b"b"))
