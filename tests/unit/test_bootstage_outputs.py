"""Roots on devices: which modules a boot initrd has, what is on the command line, hash trees, root partitions."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest

from linuxkit.encode import gpt, verity
from linuxkit.encode.pieces import literal
from linuxkit.entry import Bytes, Entry, Kind
from linuxkit.errors import ImageError
from linuxkit.oci.store import Store
from linuxkit.outputs.modules import modules_in
from support.bios import add_bios
from support.builds import YAML, files_in, linuxkit, make_cache
from support.efi import add_efi, content, program, sections
from support.fatread import read_volume
from support.images import make_image, member, tar_of

pytestmark = pytest.mark.unit
DEP = """\
kernel/fs/squashfs/squashfs.ko:
kernel/fs/isofs/isofs.ko: kernel/drivers/cdrom/cdrom.ko
kernel/drivers/cdrom/cdrom.ko:
kernel/drivers/scsi/sr-mod.ko.xz: kernel/drivers/cdrom/cdrom.ko kernel/drivers/scsi/scsi_mod.ko
kernel/drivers/scsi/scsi_mod.ko:
kernel/drivers/block/virtio_blk.ko:
kernel/drivers/md/dm-verity.ko: kernel/drivers/md/dm-mod.ko kernel/drivers/md/dm-bufio.ko
kernel/drivers/md/dm-mod.ko:
kernel/drivers/md/dm-bufio.ko: kernel/drivers/md/dm-mod.ko
kernel/arch/x86/crypto/sha256-ssse3.ko:
kernel/net/other.ko:
kernel/fs/erofs/erofs.ko:
"""
ALIAS = "# from depmod\nalias virtio:d00000002v* virtio_blk\nalias crypto-x sha256_ssse3\nalias net-pf-1 other\n"
SOFT = "softdep dm_verity pre: crypto-x missing\nsoftdep other pre: squashfs\n"
BUILTIN = "kernel/fs/ext4/ext4.ko\n"
ALL_BUILTIN = "kernel/fs/squashfs/squashfs.ko\nkernel/drivers/md/dm-mod.ko\nkernel/drivers/md/dm-verity.ko\n"


def kernel_tar(dep: str = DEP, builtin: str | None = BUILTIN, release: str = "6.1-a") -> bytes:
    folder = f"lib/modules/{release}"
    members = [member(f"{folder}/{line.split(':')[0]}", line.encode()) for line in dep.splitlines()]
    indexes = {"modules.dep": dep, "modules.alias": ALIAS, "modules.softdep": SOFT, "modules.builtin": builtin}
    members += [member(f"{folder}/{name}", text.encode()) for name, text in indexes.items() if text is not None]
    return tar_of(*members)


def add_kernel(cache: Path, **tars: bytes) -> None:
    members = [member(f"{name.replace('_', '-')}.tar", data) for name, data in tars.items()]
    kernel = program(0x8664, b"kernel" * 5000)
    make_image(Store(cache), "docker.io/t/kernel:1", tar_of(member("kernel", kernel, mode=0o644), *members))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    root = make_cache(tmp_path)
    add_efi(Store(root))
    add_kernel(root, kernel=kernel_tar())
    return root


def build(folder: Path, cache: Path, *flags: str, text: str = YAML, check: bool = True) -> dict[str, bytes]:
    (folder / "x.yml").write_text(text)
    linuxkit("build", "--arch", "amd64", "--compress", "none", "-f", *flags, "x.yml", cwd=folder, cache=cache)
    return {name: data for name, data in files_in(folder).items() if "/" not in name}


def refused(folder: Path, cache: Path, *flags: str, text: str = YAML) -> str:
    (folder / "x.yml").write_text(text)
    done = linuxkit("build", "--arch", "amd64", "-f", *flags, "x.yml", cwd=folder, cache=cache, check=False)
    assert done.returncode in (1, 2) and not list(folder.glob("x-*"))
    return done.stderr


def refused_beside(folder: Path, cache: Path, *flags: str) -> str:
    """Refused, with what another build made left as it is."""
    before = {p: p.read_bytes() for p in folder.glob("x*")}
    done = linuxkit("build", "--arch", "amd64", "-f", *flags, "x.yml", cwd=folder, cache=cache, check=False)
    assert done.returncode == 2 and {p: p.read_bytes() for p in folder.glob("x*")} == before
    return done.stderr


def listed(initrd: bytes) -> dict[str, bytes]:
    """The files of an initrd, by cpio(1) and by path."""
    names = subprocess.run(["cpio", "-it", "--quiet"], input=initrd, capture_output=True, check=True).stdout
    found = {}
    for name in names.decode().split():
        found[name] = subprocess.run(["cpio", "-i", "--quiet", "--to-stdout", name], input=initrd, capture_output=True,
                                     check=True).stdout  # fmt: skip
    return found


# -- modules


def entries(dep: str = DEP, folder: str = "lib/modules/1") -> list[Entry]:
    files = {**{line.split(":")[0]: line for line in dep.splitlines()}, "modules.dep": dep, "modules.alias": ALIAS,
             "modules.softdep": SOFT, "modules.builtin": BUILTIN}  # fmt: skip
    return [Entry(f"{folder}/{path}", Kind.FILE, source=Bytes(text.encode())) for path, text in files.items()]


def test_a_closure_has_what_is_needed_and_asked_for_softly() -> None:
    modules = modules_in(entries(), "t")
    assert modules.closure(["dm_verity", "nowhere"]) == [
        "kernel/arch/x86/crypto/sha256-ssse3.ko", "kernel/drivers/md/dm-bufio.ko", "kernel/drivers/md/dm-mod.ko",
        "kernel/drivers/md/dm-verity.ko",
    ]  # fmt: skip
    assert not modules.lacks("ext4") and not modules.lacks("sr_mod") and modules.lacks("btrfs")


def test_a_subset_knows_of_nothing_else() -> None:
    modules = modules_in(entries(folder="usr/lib/modules/1"), "t")
    found = {e.path: e.source.open().read().decode() for e in modules.subset(modules.closure(["sr_mod"])) if e.source}
    assert found == {
        "lib/modules/1/kernel/drivers/cdrom/cdrom.ko": "kernel/drivers/cdrom/cdrom.ko:",
        "lib/modules/1/kernel/drivers/scsi/scsi_mod.ko": "kernel/drivers/scsi/scsi_mod.ko:",
        "lib/modules/1/kernel/drivers/scsi/sr-mod.ko.xz": DEP.splitlines()[3],
        "lib/modules/1/modules.dep": "kernel/drivers/cdrom/cdrom.ko:\nkernel/drivers/scsi/scsi_mod.ko:\n"
                                     f"{DEP.splitlines()[3]}\n",
        "lib/modules/1/modules.builtin": BUILTIN, "lib/modules/1/modules.alias": "",
        "lib/modules/1/modules.softdep": "",
    }  # fmt: skip


def test_modules_that_cannot_be_used_are_refused() -> None:
    with pytest.raises(ImageError, match=r"no modules\.dep"):
        modules_in([e for e in entries() if not e.path.endswith(".dep")], "t").closure(["squashfs"])
    with pytest.raises(ImageError, match="of 2 kernels"):
        modules_in([*entries(), *entries(folder="lib/modules/2")], "t")
    assert modules_in([], "t").closure(["squashfs"]) == [] and not modules_in([], "t").lacks("squashfs")


# -- the boot initrd


def test_a_squashfs_has_a_boot_initrd(tmp_path: Path, cache: Path) -> None:
    made = build(tmp_path, cache, "kernel+squashfs")
    assert sorted(made) == ["x-cmdline", "x-initrd.img", "x-kernel", "x-squashfs.img", "x.yml"]
    assert made["x-cmdline"] == b"console=ttyS0 root=/dev/vda"
    files = listed(made["x-initrd.img"])
    assert files["init"] == b"stage" * 50
    folder = "lib/modules/6.1-a"
    modules = {name.removeprefix(f"{folder}/kernel/") for name in files if ".ko" in name}
    assert modules == {"fs/squashfs/squashfs.ko", "fs/erofs/erofs.ko", "fs/isofs/isofs.ko",
                       "drivers/block/virtio_blk.ko",
                       "drivers/scsi/sr-mod.ko.xz", "drivers/cdrom/cdrom.ko", "drivers/scsi/scsi_mod.ko"}  # fmt: skip
    assert files[f"{folder}/modules.alias"] == b"alias virtio:d00000002v* virtio_blk\n"
    assert "sysroot" in files and f"{folder}/kernel/fs" in files


def test_formats_of_one_device_share_what_starts_them(tmp_path: Path, cache: Path) -> None:
    both = build(tmp_path, cache, "kernel+squashfs,kernel+erofs")
    assert {"x-squashfs.img", "x-erofs.img", "x-initrd.img"} <= set(both)
    said = refused_beside(tmp_path, cache, "kernel+squashfs,kernel+iso")
    assert "kernel+squashfs and kernel+iso both write x-cmdline" in said


def test_a_root_that_the_command_line_has_stays(tmp_path: Path, cache: Path) -> None:
    text = YAML.replace("console=ttyS0", "root=/dev/sda1 console=ttyS0")
    assert build(tmp_path, cache, "kernel+squashfs", text=text)["x-cmdline"] == b"root=/dev/sda1 console=ttyS0"


def test_a_cd_is_found_by_its_label(tmp_path: Path, cache: Path) -> None:
    made = build(tmp_path, cache, "kernel+iso")
    assert made["x-cmdline"] == b"console=ttyS0 root=LABEL=LinuxKit"
    assert "lib/modules/6.1-a/kernel/fs/isofs/isofs.ko" in listed(made["x-initrd.img"])


@pytest.mark.parametrize("tar", [tar_of(), kernel_tar("kernel/net/other.ko:\n", ALL_BUILTIN),
                                 kernel_tar("kernel/net/other.ko:\n", None)])  # fmt: skip
def test_a_kernel_that_has_all_built_in_needs_none(tmp_path: Path, cache: Path, tar: bytes) -> None:
    add_kernel(cache, kernel=tar)
    made = build(tmp_path, cache, "kernel+squashfs")
    assert "x-initrd.img" not in made and made["x-cmdline"] == b"console=ttyS0 root=/dev/vda"
    made = build(tmp_path, cache, "kernel+squashfs", "--verity")  # the kernel can't do that by itself
    assert [name for name in listed(made["x-initrd.img"]) if ".ko" in name] == []
    (tmp_path / "x-initrd.img").unlink()
    text = YAML.replace("console=ttyS0", "console=ttyS0 root=LABEL=x")
    assert listed(build(tmp_path, cache, "kernel+squashfs", text=text)["x-initrd.img"])["init"]


def test_the_fullest_tar_is_looked_into(tmp_path: Path, cache: Path) -> None:
    small = kernel_tar("kernel/drivers/block/virtio_blk.ko:\n")
    add_kernel(cache, kernel=kernel_tar(), kernel_min=small, kernel_all=kernel_tar())
    text = YAML.replace("  cmdline", "  tar: kernel-min.tar\n  cmdline")
    made = build(tmp_path, cache, "kernel+squashfs", text=text)
    assert "lib/modules/6.1-a/kernel/fs/squashfs/squashfs.ko" in listed(made["x-initrd.img"])
    add_kernel(cache, kernel=kernel_tar(), kernel_min=small)
    for name in ("x-initrd.img", "x-cmdline", "x-kernel", "x-squashfs.img"):
        (tmp_path / name).unlink()
    said = refused(tmp_path, cache, "kernel+squashfs", text=text)
    assert "kernel-min.tar of docker.io/t/kernel:1 has no module squashfs" in said and "tar:" in said


def test_microcode_stands_in_front(tmp_path: Path, cache: Path) -> None:
    members = member("kernel", b"k" * 900), member("kernel.tar", kernel_tar()), member("u", b"u" * 99)
    make_image(Store(cache), "docker.io/t/kernel:1", tar_of(*members))
    made = build(tmp_path, cache, "kernel+squashfs", text=YAML.replace("  cmdline", "  ucode: u\n  cmdline"))
    assert made["x-initrd.img"].startswith(b"u" * 99 + b"\0" + b"070701")


def test_a_filesystem_without_a_kernel_is_only_that(tmp_path: Path, cache: Path) -> None:
    made = build(tmp_path, cache, "kernel+squashfs", text="init:\n  - t/init:1\n")
    assert sorted(made) == ["x-squashfs.img", "x.yml"]


# -- verity


def word_of(cmdline: bytes) -> tuple[int, int, bytes, str]:
    (word,) = (w for w in cmdline.decode().split() if w.startswith("linuxkit.verity="))
    version, blocks, start, salt, root_hash = word.partition("=")[2].split(":")
    assert version == "1"
    return int(blocks), int(start), bytes.fromhex(salt), root_hash


def check(device: bytes, cmdline: bytes) -> None:
    """The tree on a device is that of its data, and the word has its root."""
    blocks, start, salt, root_hash = word_of(cmdline)
    made = verity.tree([literal(device[: blocks * 4096])], salt)
    assert made.root_hash.hex() == root_hash and made.blocks == blocks == start
    tree = b"".join(made.levels)
    assert tree and device[start * 4096 : start * 4096 + len(tree)] == tree


def test_verity_adds_a_tree_and_a_word(tmp_path: Path, cache: Path) -> None:
    plain = build(tmp_path, cache, "kernel+squashfs")["x-squashfs.img"]
    made = build(tmp_path, cache, "kernel+squashfs", "--verity")
    assert made["x-squashfs.img"].startswith(plain)
    check(made["x-squashfs.img"], made["x-cmdline"])
    (tmp_path / "x-squashfs.img").unlink()
    again = build(tmp_path, cache, "kernel+squashfs", "--verity")  # from the cache
    assert again == made
    modules = {name.rpartition("/")[2] for name in listed(made["x-initrd.img"]) if ".ko" in name}
    assert modules >= {"dm-verity.ko", "dm-mod.ko", "dm-bufio.ko", "sha256-ssse3.ko"}


def test_verity_needs_a_kernel_that_can(tmp_path: Path, cache: Path) -> None:
    add_kernel(cache, kernel=kernel_tar("".join(line + "\n" for line in DEP.splitlines() if "dm-" not in line)))
    said = refused(tmp_path, cache, "kernel+squashfs", "--verity")
    assert "has no module dm_mod" in said and "--verity" in said
    text = YAML.replace("console=ttyS0", "linuxkit.verity=1:2:3")
    add_kernel(cache, kernel=kernel_tar())
    assert "only the builder knows" in refused(tmp_path, cache, "kernel+squashfs", "--verity", text=text)


# -- disks


def partitions(disk: bytes) -> list[tuple[bytes, str, bytes]]:
    """(type, attributes in hex, content) of each."""
    found = []
    for at in range(1024, 1024 + 128 * 128, 128):
        kind, first, last, attributes = disk[at : at + 16], *struct.unpack_from("<QQQ", disk, at + 32)
        if any(kind):
            found.append((kind, f"{attributes:x}", disk[first * 512 : (last + 1) * 512]))
    return found


@pytest.mark.parametrize("flags", [("--root", "squashfs"), ("--verity",), ("--verity", "--root", "squashfs")])
def test_a_disk_has_a_root_partition(tmp_path: Path, cache: Path, flags: tuple[str, ...]) -> None:
    disk = build(tmp_path, cache, "raw-efi", *flags)["x-efi.img"]
    (_, _, esp), (kind, attributes, root) = partitions(disk)
    assert kind == gpt.guid_bytes(gpt.ROOT["amd64"]) and attributes == "1000000000000000"
    assert root[:4] == b"hsqs"
    (uki,) = read_volume(esp).files.values()
    cmdline = content(uki, ".cmdline")
    guid = disk[1024 + 128 + 16 : 1024 + 128 + 32]
    (spec,) = (w for w in cmdline.decode().split() if w.startswith("root="))
    assert gpt.guid_bytes(spec.removeprefix("root=PARTUUID=")) == guid
    assert listed(content(uki, ".initrd"))["init"] == b"stage" * 50
    if "--verity" in flags:
        check(root, cmdline)
    else:
        assert b"verity" not in cmdline


def test_a_disk_for_a_bios_has_one_too(tmp_path: Path, cache: Path) -> None:
    add_bios(Store(cache))
    disk = build(tmp_path, cache, "raw-bios", "--verity")["x-bios.img"]
    status, kind, first, count = struct.unpack_from("<B3xB3xII", disk, 446 + 16)
    assert (status, kind) == (0, 0x83)
    root = disk[first * 512 : (first + count) * 512]
    signature = struct.unpack_from("<I", disk, 440)[0]
    size = struct.unpack_from("<I", disk, 446 + 12)[0] * 512
    files = {name.lower(): data for name, data in read_volume(disk[1 << 20 : (1 << 20) + size]).files.items()}
    assert listed(files["initrd.img"])["init"] == b"stage" * 50
    (line,) = (line.strip() for line in files["syslinux.cfg"].splitlines() if b"APPEND" in line)
    assert f" root=PARTUUID={signature:08x}-02 ".encode() in line
    check(root, line)

    disk = build(tmp_path, cache, "raw", "--root", "erofs")["x.img"]
    (_, _, esp), (kind, _, root) = partitions(disk)
    assert kind == gpt.guid_bytes(gpt.ROOT["amd64"]) and root[1024:1028] == b"\xe2\xe1\xf5\xe0"
    files = {name.lower(): data for name, data in read_volume(esp).files.items()}
    assert content(files["efi/boot/bootx64.efi"], ".cmdline") in files["syslinux.cfg"]
    assert "initrd.img" not in files and b"INITRD" not in files["syslinux.cfg"]  # this kernel needs none
    assert ".initrd" not in sections(files["efi/boot/bootx64.efi"])


def test_a_disk_without_says_the_same_as_before(tmp_path: Path, cache: Path) -> None:
    plain = build(tmp_path, cache, "raw-efi")["x-efi.img"]
    assert len(partitions(plain)) == 1
    assert build(tmp_path, cache, "raw-efi", "--root", "initrd")["x-efi.img"] == plain


def test_the_plan_has_the_boot_stage_where_it_is_needed(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "x.yml").write_text(YAML)
    for flags, there in ((("raw-efi",), False), (("raw-efi", "--verity"), True), (("kernel+iso",), True)):
        done = linuxkit("build", "--arch", "amd64", "--plan", "-f", *flags, "x.yml", cwd=tmp_path, cache=cache)
        assert ('"bootstage"' in done.stdout) == there


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("kernel+initrd", "--verity"), "the root filesystem is in memory"),
        (("raw-efi", "--verity", "--root", "initrd"), "the root filesystem is in memory"),
        (("kernel+squashfs", "--root", "squashfs"), "there is no choice"),
        (("uki", "--root", "squashfs"), "there is no choice"),
        (("raw-efi", "--root", "iso9660"), "there is no such root"),
        (("raw-efi", "--root", "btrfs"), "there is no such root"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, cache: Path, flags: tuple[str, ...], said: str) -> None:
    assert said in refused(tmp_path, cache, *flags)
