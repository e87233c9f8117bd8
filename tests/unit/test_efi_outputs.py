"""The formats for UEFI: what is in the files that a build writes, and what it refuses."""

from __future__ import annotations

import gzip
import json
import struct
from pathlib import Path

import pytest

from linuxkit.encode import gpt
from linuxkit.oci.store import Store
from support.builds import YAML, build, files_in, linuxkit, make_cache
from support.efi import add_efi, content, program, sections
from support.fatread import read_volume
from support.images import make_image, member, tar_of

pytestmark = pytest.mark.unit
MIB = 1 << 20


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_cache(tmp_path_factory.mktemp("efi"))
    add_efi(Store(root))
    return root


def esp(disk: bytes) -> bytes:
    first, last = struct.unpack_from("<QQ", disk, 1024 + 32)
    return disk[first * 512 : (last + 1) * 512]


def test_the_uki_holds_what_the_other_formats_have_in_files(tmp_path: Path, cache: Path) -> None:
    build(tmp_path, cache, "-f", "uki,raw-efi,kernel+initrd")
    made = files_in(tmp_path)
    uki = made["x.efi"]
    assert list(sections(uki)) == [".text", ".data", ".osrel", ".cmdline", ".initrd", ".linux"]
    assert content(uki, ".cmdline") == b"console=ttyS0" == made["x-cmdline"]
    assert content(uki, ".linux") == made["x-kernel"]
    assert content(uki, ".initrd") == made["x-initrd.img"]
    assert b"ID=linuxkit\n" in content(uki, ".osrel")

    disk = made["x-efi.img"]
    assert len(disk) % MIB == 0
    assert struct.unpack_from("<Q", disk, 1024 + 32)[0] == 2048
    assert disk[1024 : 1024 + 16] == gpt.guid_bytes(gpt.ESP)
    volume = read_volume(esp(disk))
    assert volume.bits == 32
    assert volume.files == {"EFI/BOOT/BOOTX64.EFI": uki}


def test_microcode_has_a_section_of_its_own(tmp_path: Path, cache: Path) -> None:
    build(tmp_path, cache, "-f", "uki", text=YAML.replace("  cmdline", "  ucode: ucode.cpio\n  cmdline"))
    assert content(files_in(tmp_path)["x.efi"], ".ucode") == b"u" * 99


def test_a_format_does_not_depend_on_the_others(tmp_path: Path, cache: Path) -> None:
    together, alone = tmp_path / "a", tmp_path / "b"
    for folder, formats in ((together, "raw-efi,uki,kernel+initrd"), (alone, "raw-efi")):
        folder.mkdir()
        build(folder, cache, "-f", formats)
    assert files_in(together)["x-efi.img"] == files_in(alone)["x-efi.img"]
    changed = tmp_path / "c"
    changed.mkdir()
    build(changed, cache, "-f", "raw-efi", text=YAML.replace("hello", "good-bye"))
    first, second = (files_in(f)["x-efi.img"][512 + 56 : 512 + 72] for f in (alone, changed))
    assert first != second  # another system is another disk


def test_arm64(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    add_efi(Store(cache), "arm64")
    (tmp_path / "x.yml").write_text("kernel:\n  image: t/kernel:1\n")
    linuxkit("build", "--arch", "arm64", "--offline", "-f", "raw-efi", "x.yml", cwd=tmp_path, cache=cache)
    volume = read_volume(esp((tmp_path / "x-efi.img").read_bytes()))
    assert list(volume.files) == ["EFI/BOOT/BOOTAA64.EFI"]
    assert content(volume.files["EFI/BOOT/BOOTAA64.EFI"], ".linux") == program(0xAA64, b"kernel" * 5000)


def test_a_size_is_more_and_never_less(tmp_path: Path, cache: Path) -> None:
    build(tmp_path, cache, "-f", "raw-efi", "--size", "100M")
    disk = (tmp_path / "x-efi.img").read_bytes()
    assert len(disk) == 100 * MIB and disk[-512:-504] == b"EFI PART"
    refused = build(tmp_path, cache, "-f", "raw-efi", "--size", "20M", check=False)
    assert refused.returncode == 2
    assert "its content needs" in refused.stderr and "--size 34M, or more" in refused.stderr
    assert (tmp_path / "x-efi.img").stat().st_size == 100 * MIB
    assert build(tmp_path, cache, "-f", "raw-efi", "--size", "much", check=False).returncode == 2


def test_the_shortcut_repeats_it(tmp_path: Path, cache: Path) -> None:
    build(tmp_path, cache, "-f", "raw-efi")
    first = (tmp_path / "x-efi.img").read_bytes()
    build(tmp_path, cache, "-f", "raw-efi")
    assert (tmp_path / "x-efi.img").read_bytes() == first


def test_the_plan_names_the_loaders(tmp_path: Path, cache: Path) -> None:
    plans = {}
    for formats in ("raw-efi", "kernel+initrd"):
        plans[formats] = json.loads(build(tmp_path, cache, "-f", formats, "--plan").stdout)
    ((name, image),) = plans["raw-efi"]["loaders"]
    assert name == "efi-boot" and image["digest"].startswith("sha256:")
    assert plans["kernel+initrd"]["loaders"] == []
    assert plans["raw-efi"]["digest"] != plans["kernel+initrd"]["digest"]


KERNELS = {
    "gzip": (gzip.compress(b"kernel"), "compressed with gzip", "--decompress-kernel"),
    "no program": (b"vmlinuz" * 300, "is not an EFI program", "CONFIG_EFI_STUB"),
    "of arm64": (program(0xAA64), "is for arm64", "--arch"),
}


@pytest.mark.parametrize("case", KERNELS)
def test_kernels_that_firmware_cannot_start(tmp_path: Path, cache: Path, case: str) -> None:
    data, message, hint = KERNELS[case]
    make_image(Store(cache), f"docker.io/t/bad-{len(case)}:1", tar_of(member("kernel", data)))
    text = f"kernel:\n  image: t/bad-{len(case)}:1\n  tar: none\n"
    refused = build(tmp_path, cache, "-f", "uki", text=text, check=False)
    assert refused.returncode == 1
    assert message in refused.stderr and hint in refused.stderr
    assert not (tmp_path / "x.efi").exists()


def test_without_a_kernel_there_is_nothing_to_start(tmp_path: Path, cache: Path) -> None:
    refused = build(tmp_path, cache, "-f", "uki", text="init:\n  - t/init:1\n", check=False)
    assert refused.returncode == 1
    assert "needs a kernel" in refused.stderr


def test_provenance_names_the_loaders(tmp_path: Path, cache: Path) -> None:
    build(tmp_path, cache, "-f", "uki", "--provenance", "statement.json")
    statement = json.loads((tmp_path / "statement.json").read_text())
    inputs = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert [i for i in inputs if i.get("annotations", {}).get("usedAs") == ["boot loader"]]
    assert [s["name"] for s in statement["subject"]] == ["x.efi"]
