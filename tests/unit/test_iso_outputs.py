"""Bootable CDs: what is on them, how both kinds of firmware find it, and the disk that each is as well."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import pytest

from linuxkit.encode import gpt, iso9660, isohybrid
from linuxkit.encode.eltorito import BootImage, Platform, catalogue
from linuxkit.encode.pieces import Piece, read
from linuxkit.encode.tree import tree
from linuxkit.entry import Bytes, Entry, Kind
from linuxkit.errors import ImageError
from linuxkit.oci.media import Platform as OciPlatform
from linuxkit.oci.store import Store
from linuxkit.packages.kit import Kit
from support.builds import YAML, build, files_in
from support.efi import add_efi, content
from support.fatread import read_volume
from support.formats import cache_for_all
from support.images import make_image, member, tar_of

pytestmark = pytest.mark.unit
MIB = 1 << 20


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cache_for_all(tmp_path_factory.mktemp("iso"))


def boot_images(cd: bytes) -> dict[int, tuple[int, int]]:
    """What the boot catalogue names: platform → (sector, 512-byte sectors loaded)."""
    assert cd[17 * 2048 + 1 : 17 * 2048 + 6] == b"CD001" and cd[17 * 2048 + 7 :].startswith(b"EL TORITO")
    at = struct.unpack_from("<I", cd, 17 * 2048 + 71)[0] * 2048
    assert sum(struct.unpack_from("<16H", cd, at)) & 0xFFFF == 0
    platform, rows = cd[at + 1], [at + 32]
    while cd[rows[-1] + 32] in (0x90, 0x91):
        rows.append(rows[-1] + 64)
    found = {}
    for row in rows:
        platform = platform if row == rows[0] else cd[row - 31]
        load, sector = struct.unpack_from("<HI", cd, row + 6)
        assert cd[row] == 0x88
        found[platform] = (sector, load)
    return found


def slots(disk: bytes) -> list[tuple[int, int, int, int]]:
    found = [struct.unpack_from("<B3xB3xII", disk, 446 + 16 * n) for n in range(4)]
    return [slot for slot in found if slot[3]]


def files(cd: bytes) -> dict[str, bytes]:
    """The files of the volume, by the plain names of ISO 9660."""
    found: dict[str, bytes] = {}

    def walk(sector: int, size: int, where: str) -> None:
        data, at = cd[sector * 2048 : sector * 2048 + size], 0
        while at < len(data):
            if not data[at]:
                at += 2048 - at % 2048
                continue
            first, length = struct.unpack_from("<I4xI", data, at + 2)
            name = data[at + 33 : at + 33 + data[at + 32]]
            if name not in (b"\0", b"\1"):
                path = f"{where}/{name.decode().split(';')[0].rstrip('.').lower()}".lstrip("/")
                if data[at + 25] & 2:
                    walk(first, length, path)
                else:
                    found[path] = cd[first * 2048 : first * 2048 + length]
            at += data[at]

    walk(*struct.unpack_from("<I4xI", cd, 16 * 2048 + 156 + 2), "")
    return found


def check_gpt(disk: bytes, image: tuple[int, int]) -> None:
    """One partition: the EFI image. Both tables say so."""
    assert disk[512:520] == b"EFI PART" == disk[-512:-504]
    for at in (512, len(disk) - 512):
        head = disk[at : at + 92]
        assert struct.unpack_from("<I", head, 16)[0] == zlib.crc32(head[:16] + bytes(4) + head[20:])
        here, there, first, last = struct.unpack_from("<QQQQ", head, 24)
        assert (here, there) in ((1, len(disk) // 512 - 1), (len(disk) // 512 - 1, 1))
        table = struct.unpack_from("<Q", head, 72)[0] * 512
        rows = [disk[n : n + 128] for n in range(table, table + 128 * 128, 128)]
        (row,) = [row for row in rows if any(row)]
        assert row[:16] == gpt.guid_bytes(gpt.ESP)
        start, end = struct.unpack_from("<QQ", row, 32)
        assert first <= start == image[0] * 4 and end <= last
        assert image[1] in (0, end - start + 1)


def test_one_cd_for_both(tmp_path: Path, cache: Path) -> None:
    build(tmp_path, cache, "-f", "iso,uki,kernel+initrd")
    made = files_in(tmp_path)
    cd = made["x.iso"]
    assert len(cd) % MIB == 0
    images, there = boot_images(cd), files(cd)
    assert list(images) == [Platform.BIOS, Platform.EFI]
    assert set(there) == {"boot/efi.img", "kernel", "initrd.img", "isolinux/isolinux.bin", "isolinux/ldlinux.c32",
                          "isolinux/isolinux.cfg"}  # fmt: skip
    assert (there["kernel"], there["initrd.img"]) == (made["x-kernel"], made["x-initrd.img"])
    assert b"LINUX /kernel\n  INITRD /initrd.img\n  APPEND console=ttyS0\n" in there["isolinux/isolinux.cfg"]
    volume = read_volume(there["boot/efi.img"][: struct.unpack_from("<H", there["boot/efi.img"], 19)[0] * 512])
    assert volume.files == {"EFI/BOOT/BOOTX64.EFI": made["x.efi"]}

    sector, load = images[Platform.BIOS]
    program = there["isolinux/isolinux.bin"]
    assert load == 4 and cd[sector * 2048 :].startswith(program)
    assert struct.unpack_from("<III", program, 8) == (16, sector, len(program))
    assert cd[:440] == b"isohybrid".ljust(432, b".") + struct.pack("<Q", sector * 4)
    assert slots(cd) == [(0, 0xEE, 1, len(cd) // 512 - 1), (0x80, 0, 0, 1)]
    check_gpt(cd, images[Platform.EFI])


def test_a_cd_for_uefi_alone(tmp_path: Path, cache: Path) -> None:
    build(tmp_path, cache, "-f", "iso-efi-initrd,uki")
    made = files_in(tmp_path)
    cd = made["x-efi-initrd.iso"]
    images, there = boot_images(cd), files(cd)
    assert (list(images), set(there)) == ([Platform.EFI], {"boot/efi.img"})
    assert not any(cd[:440])
    assert slots(cd) == [(0, 0xEE, 1, len(cd) // 512 - 1)]
    check_gpt(cd, images[Platform.EFI])
    assert made["x.efi"] in there["boot/efi.img"]


def test_arm64(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    add_efi(Store(cache), "arm64")
    build(tmp_path, cache, "-f", "iso,iso-efi-initrd", text="kernel:\n  image: t/kernel:1\n", arch="arm64")
    made = files_in(tmp_path)
    assert made["x.iso"] == made["x-efi-initrd.iso"]
    assert b"BOOTAA64EFI" in files(made["x.iso"])["boot/efi.img"]


def test_two_formats_that_make_the_same_name(tmp_path: Path, cache: Path) -> None:
    refused = build(tmp_path, cache, "-f", "iso,kernel+iso", check=False)
    assert refused.returncode == 2
    assert "x.iso" in refused.stderr and not (tmp_path / "x.iso").exists()


# -- the catalogue and the disk


@pytest.mark.parametrize(("sectors", "listed"), [(0xFFFF, 0xFFFF), (0x10000, 0)])
def test_a_large_image_reaches_to_the_end(sectors: int, listed: int) -> None:
    """The number has 16 bits; UEFI takes 0 for the rest of the CD."""
    made = catalogue([BootImage(Platform.EFI, 40, sectors)])
    assert struct.unpack_from("<HI", made, 32 + 6) == (listed, 40)


def volume(loader: bytes, size: int = 5000) -> iso9660.Volume:
    entries = [
        Entry("isolinux.bin", Kind.FILE, source=Bytes(loader)), Entry("efi.img", Kind.FILE, source=Bytes(b"e" * size)),
    ]  # fmt: skip
    return iso9660.volume(tree(entries), "X")


LOADER = bytes(64) + isohybrid.SIGNATURE + b"l" * 3000


def test_for_a_bios_alone_the_whole_is_one_partition() -> None:
    made = volume(LOADER)
    pieces = isohybrid.hybrid(made, seed="s", code=b"c" * 432, loader="isolinux.bin")
    disk = b"".join(read(pieces))
    assert slots(disk) == [(0x80, 0x17, 0, len(disk) // 512)]
    assert struct.unpack_from("<Q", disk, 432)[0] == made.runs["isolinux.bin"][0] * 4
    assert disk[512:32768] == bytes(32256)
    assert disk[32768:].startswith(b"".join(read(made.pieces))[32768:])


@pytest.mark.parametrize("size", [1, 2048, MIB - 20000, MIB, 3 * MIB + 5])
def test_the_volume_is_as_it_was(size: int) -> None:
    made = volume(LOADER, size)
    plain = b"".join(read(made.pieces))
    disk = b"".join(read(isohybrid.hybrid(made, seed="s", esp="efi.img")))
    assert len(disk) % MIB == 0 and len(disk) - len(plain) < MIB + 34 * 512
    assert disk[32768 : len(plain)] == plain[32768:]
    first, length = made.runs["efi.img"]
    assert struct.unpack_from("<QQ", disk, 1024 + 32) == (first * 4, first * 4 + -(-length // 512) - 1)


def test_the_seed_makes_the_names() -> None:
    one, two = (b"".join(read(isohybrid.hybrid(volume(LOADER), seed=s, esp="efi.img"))) for s in ("a", "b"))
    assert one[512 + 56 : 512 + 72] != two[512 + 56 : 512 + 72]


@pytest.mark.parametrize("loader", [b"", bytes(2048), LOADER[:66]])
def test_what_a_disk_cannot_start(loader: bytes) -> None:
    with pytest.raises(ImageError, match=r"isolinux\.bin can't be started from a disk"):
        isohybrid.hybrid(volume(loader), seed="s", code=b"c" * 432, loader="isolinux.bin")


def test_boot_code_of_another_size() -> None:
    with pytest.raises(ImageError, match="can't be started from a disk"):
        isohybrid.hybrid(volume(LOADER), seed="s", code=b"c" * 440, loader="isolinux.bin")


def test_nothing_is_copied() -> None:
    """A CD is tables around the runs of what is on it."""
    image = Piece(3 << 30, "/somewhere", 0)
    cd = iso9660.volume(tree([Entry("efi.img", Kind.FILE)]), "X", contents={"efi.img": [image]})
    made = isohybrid.hybrid(cd, seed="s", esp="efi.img")
    assert image in made
    assert sum(len(p.data) for p in made) < 1 << 18


# -- the CD as the root filesystem


def test_a_cd_that_is_the_root(tmp_path: Path, cache: Path) -> None:
    build(tmp_path, cache, "-f", "iso-bios,iso-efi,kernel+initrd")
    made = files_in(tmp_path)
    bios, uefi = made["x.iso"], made["x-efi.iso"]
    there = files(bios)
    assert there["etc/motd"] == b"hello" == files(uefi)["etc/motd"]
    assert there["boot/kernel"] == made["x-kernel"]
    assert there["boot/initrd.img"] != made["x-initrd.img"]  # only what finds the CD
    lines = there["isolinux/isolinux.cfg"].decode().splitlines()
    assert "  LINUX /boot/kernel" in lines and "  INITRD /boot/initrd.img" in lines
    assert "  APPEND console=ttyS0 root=LABEL=LinuxKit" in lines
    assert list(boot_images(bios)) == [Platform.BIOS]
    assert slots(bios) == [(0x80, 0x17, 0, len(bios) // 512)]
    image = files(uefi)["boot/efi.img"]
    volume = read_volume(image[: struct.unpack_from("<H", image, 19)[0] * 512])
    program = volume.files["EFI/BOOT/BOOTX64.EFI"]
    assert content(program, ".cmdline") == b"console=ttyS0 root=LABEL=LinuxKit"
    assert content(program, ".initrd") == there["boot/initrd.img"]
    assert list(boot_images(uefi)) == [Platform.EFI]
    check_gpt(uefi, boot_images(uefi)[Platform.EFI])
    assert not {"boot/kernel", "isolinux/isolinux.bin"} & set(files(uefi))


def test_a_root_of_the_command_line_stays(tmp_path: Path, cache: Path) -> None:
    build(tmp_path, cache, "-f", "iso-bios", text=YAML.replace("console=ttyS0", "root=/dev/sr0"))
    assert b"APPEND root=/dev/sr0\n" in files((tmp_path / "x.iso").read_bytes())["isolinux/isolinux.cfg"]


def test_files_of_the_image_make_room_for_the_loader(tmp_path: Path, cache: Path) -> None:
    text = YAML + "  - {path: isolinux/isolinux.cfg, contents: other}\n  - {path: boot/kernel, contents: other}\n"
    build(tmp_path, cache, "-f", "iso-bios", text=text)
    there = files((tmp_path / "x.iso").read_bytes())
    assert b"DEFAULT linux" in there["isolinux/isolinux.cfg"] and there["boot/kernel"] != b"other"


@pytest.mark.parametrize("name", ["iso-bios", "iso-efi"])
def test_a_cd_cannot_hold_its_own_hash(tmp_path: Path, cache: Path, name: str) -> None:
    refused = build(tmp_path, cache, "-f", name, "--verity", "--no-preflight", check=False)
    assert refused.returncode == 2
    assert "would have to hold the hash of the CD" in refused.stderr and "kernel+iso" in refused.stderr


def test_there_is_no_bios_elsewhere(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    add_efi(Store(cache), "arm64")
    stage = Kit(Store(cache), cache / "kit").reference("bootstage")
    make_image(Store(cache), stage, tar_of(member("init", b"stage")), platform=OciPlatform("linux", "arm64"))
    text = "kernel:\n  image: t/kernel:1\n"
    refused = build(tmp_path, cache, "-f", "iso-bios", "--no-preflight", text=text, arch="arm64", check=False)
    assert refused.returncode != 0 and "there is no BIOS boot for arm64" in refused.stderr
