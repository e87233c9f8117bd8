"""What `linuxkit run` takes a file or a prefix for, and how it is plugged in."""

from __future__ import annotations

import os
import struct
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linuxkit.encode import fat, gpt, iso9660, mbr, pe
from linuxkit.encode.eltorito import Platform
from linuxkit.encode.pieces import Piece, hole, literal
from linuxkit.encode.tree import tree
from linuxkit.entry import Bytes, Entry, Kind
from linuxkit.errors import InputError
from linuxkit.machine.machine import Channels
from linuxkit.outputs.pieces import put
from linuxkit.platforms import accel, bootfiles, bootimage, memory, qemu
from linuxkit.platforms.bootimage import Media
from linuxkit.platforms.prepare import Request, prepare
from support.efi import program
from support.vm import initrd_of

pytestmark = pytest.mark.unit
INITRD = initrd_of(b"x" * 300_000)
X86 = (bytes(0x202) + b"HdrS").ljust(1024, b"\0")
CODE = b"\xfa" * 440
PROGRAMS = {"x86_64": ("BOOTX64.EFI", 0x8664), "aarch64": ("BOOTAA64.EFI", 0xAA64)}


def write(path: Path, pieces: list[Piece] | tuple[Piece, ...] | bytes) -> Path:
    with path.open("wb") as out:
        put([literal(pieces)] if isinstance(pieces, bytes) else pieces, out)
    return path


def uki(arch: str = "x86_64") -> list[Piece]:
    sections = [pe.Section(".cmdline", [literal(b"quiet")]), pe.Section(".initrd", [literal(INITRD)])]
    return list(pe.add_sections(program(PROGRAMS[arch][1]), sections))


def system_partition(arch: str = "x86_64", bits: int = 32) -> tuple[Piece, ...]:
    return fat.volume({f"EFI/BOOT/{PROGRAMS[arch][0]}": uki(arch)}, seed="s", bits=bits, hidden=2048).pieces


def bios_partition(bits: int = 16) -> tuple[Piece, ...]:
    held = {"ldlinux.sys": b"l" * 5000, "kernel": X86, "initrd.img": INITRD, "syslinux.cfg": b"DEFAULT linux\n"}
    return fat.volume({name: [literal(data)] for name, data in held.items()}, seed="s", bits=bits, hidden=2048).pieces


def cd(path: Path, *boot: Platform, arch: str = "x86_64", files: dict[str, bytes] | None = None) -> Path:
    """An ISO image that the given firmware can start."""
    held = {"isolinux.bin": b"\xfa" * 3000, **(files or {})}
    root = tree([Entry(name, Kind.FILE, 0o644, source=Bytes(data)) for name, data in held.items()])
    contents, entries = {}, []
    if Platform.EFI in boot:
        root = tree([*(Entry(n, Kind.FILE, 0o644, source=Bytes(d)) for n, d in held.items()),
                     Entry("boot.img", Kind.FILE, 0o644, source=Bytes(b""))])  # fmt: skip
        contents["boot.img"] = system_partition(arch, 16)
    for platform in boot:
        name = "boot.img" if platform is Platform.EFI else "isolinux.bin"
        entries.append(iso9660.Boot(platform, name, load=4 if platform is Platform.BIOS else 0))
    return write(path, iso9660.volume(root, "LinuxKit", boot=entries, contents=contents).pieces)


def found(path: Path) -> bootfiles.BootFiles:
    return bootfiles.find(str(path))


# -- images


def test_disks_say_who_starts_them(tmp_path: Path) -> None:
    uefi = write(tmp_path / "a.img", gpt.disk([gpt.Partition(system_partition(), gpt.ESP)], seed="s"))
    assert (found(uefi).uefi, found(uefi).arch, found(uefi).disk) == (True, "x86_64", uefi)
    partition = mbr.Partition(bios_partition(), mbr.FAT16, active=True)
    bios = write(tmp_path / "b.img", mbr.disk([partition], seed="s", code=CODE))
    assert (found(bios).uefi, found(bios).readonly, found(bios).media) == (False, False, Media.DISK)
    both = [gpt.Partition(bios_partition(), gpt.BIOS_BOOT), gpt.Partition(system_partition(), gpt.ESP)]
    hybrid = write(tmp_path / "c.img", gpt.disk(both, seed="s", code=CODE))
    seen = bootimage.look(hybrid)
    assert (seen.bios, seen.uefi, found(hybrid).uefi) == (True, True, False)
    parts = [gpt.Partition(system_partition("aarch64"), gpt.ESP)]
    arm = write(tmp_path / "d.img", gpt.disk(parts, seed="s", code=CODE))
    assert (found(arm).uefi, found(arm).arch) == (True, "aarch64")


@pytest.mark.parametrize("bits", [12, 16, 32])
def test_the_initrd_of_a_disk_counts_for_memory(tmp_path: Path, bits: int) -> None:
    partition = mbr.Partition(bios_partition(bits), mbr.FAT16, active=True)
    path = write(tmp_path / "b.img", mbr.disk([partition], seed="s", code=CODE))
    packed = found(path).packed
    assert packed is not None and packed.size == len(INITRD)
    assert memory.unpacked_size(*packed[:3]) == len(INITRD)


def test_a_system_partition_far_behind_is_found(tmp_path: Path) -> None:
    parts = [gpt.Partition([hole(40 << 20)], gpt.LINUX), gpt.Partition(system_partition(), gpt.ESP)]
    path = write(tmp_path / "a.img", gpt.disk(parts, seed="s"))
    packed = found(path).packed
    assert packed is not None and packed.cmdline == "quiet"


@pytest.mark.parametrize(
    ("boot", "uefi"),
    [((Platform.BIOS,), False), ((Platform.EFI,), True), ((Platform.BIOS, Platform.EFI), False)],
)
def test_a_cd_is_booted_as_its_catalogue_says(tmp_path: Path, boot: tuple[Platform, ...], uefi: bool) -> None:
    path = cd(tmp_path / "web.iso", *boot)
    seen = found(path)
    assert (seen.uefi, seen.media, seen.readonly, seen.arch) == (uefi, Media.CD, True, "x86_64")
    assert (seen.packed is not None) == (Platform.EFI in boot)
    assert Request(str(path)).state_dir == tmp_path / "web-state"


def test_a_cd_for_arm64_and_one_with_an_initrd(tmp_path: Path) -> None:
    assert found(cd(tmp_path / "a.iso", Platform.EFI, arch="aarch64")).arch == "aarch64"
    packed = found(cd(tmp_path / "b.iso", Platform.BIOS, files={"initrd.img": INITRD})).packed
    assert packed is not None and packed.size == len(INITRD)


def test_a_cd_that_nothing_starts(tmp_path: Path) -> None:
    path = cd(tmp_path / "data.iso")
    with pytest.raises(InputError, match="a CD without a boot catalogue"):
        found(path)
    (tmp_path / "data-kernel").write_bytes(X86)
    seen = found(path)
    assert (seen.kernel, seen.disk, seen.media) == (tmp_path / "data-kernel", path, Media.CD)
    assert seen.cmdline == "root=/dev/sr0"


FORMATS = {"qcow2": b"QFI\xfb", "vmdk": b"KDMV", "vhdx": b"vhdxfile", "vhd": b"conectix"}


@pytest.mark.parametrize("end", FORMATS)
def test_disk_files_are_known_by_name_and_content(tmp_path: Path, end: str) -> None:
    path = write(tmp_path / f"web.{end}", FORMATS[end] + bytes(1000))
    assert found(path).format == {"vhd": "vpc"}.get(end, end)
    assert not found(path).uefi
    assert found(path.rename(tmp_path / f"web-efi.{end}")).uefi
    odd = write(tmp_path / "odd.img", FORMATS[end] + bytes(1000))
    with pytest.raises(InputError, match="looks like") as wrong:
        found(odd)
    assert f"odd.{end}" in wrong.value.hint


def test_a_compressed_vmdk_is_only_read(tmp_path: Path) -> None:
    for flags, readonly in ((3, False), (0x30001, True)):
        path = write(tmp_path / "web.vmdk", b"KDMV" + struct.pack("<II", 3, flags) + bytes(1000))
        assert found(path).readonly == readonly


@pytest.mark.parametrize("end", ["qcow2", "vmdk", "vhdx", "vhd"])
def test_what_is_inside_a_disk_file_is_seen_with_qemu_img(
    tmp_path: Path, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [gpt.Partition(system_partition("aarch64"), gpt.ESP)]
    disk = write(tmp_path / "a.img", gpt.disk(parts, seed="s"))
    packed = tmp_path / f"a.{end}"
    form = {"vhd": "vpc"}.get(end, end)
    subprocess.run(["qemu-img", "convert", "-q", "-f", "raw", "-O", form, disk, packed], check=True, timeout=60)
    seen = found(packed)
    assert (seen.format, seen.arch, seen.uefi, seen.packed) == (form, "aarch64", True, None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert (found(packed).arch, found(packed).uefi) == ("", False)


def test_a_fixed_vhd_is_looked_into(tmp_path: Path) -> None:
    partition = mbr.Partition(bios_partition(), mbr.FAT16, active=True)
    path = write(tmp_path / "web.vhd", [*mbr.disk([partition], seed="s", code=CODE), literal(b"conectix".ljust(512))])
    assert (found(path).format, found(path).packed is not None) == ("vpc", True)


def test_a_name_that_lies(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"web.qcow2 is no qcow2 file, but vmdk") as wrong:
        found(write(tmp_path / "web.qcow2", b"KDMV" + bytes(1000)))
    assert "web.vmdk" in wrong.value.hint
    with pytest.raises(InputError, match=r"x.vmdk is no vmdk file$"):
        found(write(tmp_path / "x.vmdk", bytes(1000)))


@pytest.mark.parametrize(
    ("data", "what"),
    [(b"\x1f\x8b\x08", "gzip"), (b"(\xb5/\xfd", "zstd"), (bytes(257) + b"ustar\0", "tar archive"),
     (b"hello", "neither a disk"), (b"", "neither a disk"), (b"PK\x03\x04", "zip")],
)  # fmt: skip
def test_what_is_no_image_is_said_before_a_machine_starts(tmp_path: Path, data: bytes, what: str) -> None:
    with pytest.raises(InputError, match=what):
        found(write(tmp_path / "web.bin", data.ljust(2000, b"\0")))


def test_a_folder_and_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a folder is there"):
        found(tmp_path)
    with pytest.raises(InputError, match="cannot be booted"):
        bootfiles.find("x" * 5000)


@settings(deadline=None)
@given(st.binary(max_size=3000), st.sampled_from(["gpt", "mbr", "cd", "fat", "pe", "none"]))
def test_any_bytes_are_looked_at(tmp_path_factory: pytest.TempPathFactory, noise: bytes, kind: str) -> None:
    image = bytearray(noise.ljust(40 << 10, b"\xff"))
    if kind in ("gpt", "mbr", "fat"):
        image[510:512] = b"\x55\xaa"
    if kind == "gpt":
        image[512:520] = b"EFI PART"
    if kind == "fat":
        image[11:14] = b"\0\x02\x01"
    if kind == "cd":
        image[32769:32774] = b"CD001"
        image[17 * 2048 : 17 * 2048 + 30] = b"\0CD001\x01EL TORITO SPECIFICATION"
    if kind == "pe":
        image[:2] = b"MZ"
        image[0x3C:0x40] = (len(noise) // 2 + 64).to_bytes(4, "little")
        image[len(noise) // 2 + 64 : len(noise) // 2 + 68] = b"PE\0\0"
    path = tmp_path_factory.getbasetemp() / f"noise.{'efi' if kind == 'pe' else 'img'}"
    path.write_bytes(image)
    try:
        bootimage.look(path)
    except InputError:
        pass


# -- prefixes


def built(folder: Path, *ends: str, cmdline: str = "console=ttyS0") -> str:
    for end in ends:
        data = {"-kernel": X86, "-cmdline": cmdline.encode(), "-initrd.img": INITRD}.get(end, b"\xfa" * 2048)
        (folder / f"web{end}").write_bytes(data)
    return str(folder / "web")


@pytest.mark.parametrize("kind", ["squashfs", "erofs"])
def test_a_filesystem_is_the_first_disk(tmp_path: Path, kind: str) -> None:
    prefix = built(tmp_path, "-kernel", "-cmdline", f"-{kind}.img")
    seen = bootfiles.find(prefix)
    assert (seen.disk, seen.readonly, seen.initrd) == (tmp_path / f"web-{kind}.img", True, None)
    assert seen.cmdline == "console=ttyS0 root=/dev/vda"
    (tmp_path / "web-cmdline").write_text("root=PARTUUID=1 quiet")
    assert bootfiles.find(prefix).cmdline == "root=PARTUUID=1 quiet"
    assert bootfiles.find(prefix, bootfiles.Kind(kind)) == bootfiles.find(prefix)


def test_an_initrd_beside_a_filesystem(tmp_path: Path) -> None:
    prefix = built(tmp_path, "-kernel", "-cmdline", "-squashfs.img", "-initrd.img", ".qcow2")
    whole = bootfiles.find(prefix)
    assert (whole.disk, whole.initrd) == (None, tmp_path / "web-initrd.img")
    assert whole.others == ("--squashfs", f"{prefix}.qcow2")
    small = bootfiles.find(prefix, bootfiles.Kind.SQUASHFS)
    assert (small.disk, small.initrd) == (tmp_path / "web-squashfs.img", tmp_path / "web-initrd.img")
    (tmp_path / "web-cmdline").write_text("console=ttyS0 root=/dev/vda")
    assert bootfiles.find(prefix) == small
    assert bootfiles.find(prefix).others == ("--kernel", f"{prefix}.qcow2")


def test_a_prefix_with_images_only(tmp_path: Path) -> None:
    for name, data in (("web.qcow2", b"QFI\xfb"), ("web-bios.img", CODE.ljust(510) + b"\x55\xaa")):
        (tmp_path / name).write_bytes(data.ljust(2048))
    seen = bootfiles.find(str(tmp_path / "web"))
    assert (seen.disk, seen.others) == (tmp_path / "web-bios.img", (str(tmp_path / "web.qcow2"),))


def test_a_kernel_and_a_cd_with_its_root(tmp_path: Path) -> None:
    prefix = built(tmp_path, "-kernel", "-cmdline")
    path = cd(tmp_path / "web.iso")
    seen = bootfiles.find(prefix)
    assert (seen.disk, seen.media, seen.cmdline) == (path, Media.CD, "console=ttyS0 root=/dev/sr0")
    assert seen.others == ()
    cd(path, Platform.BIOS)  # what iso-bios writes has the same name, and needs no kernel
    assert bootfiles.find(prefix).kernel is None


@pytest.mark.parametrize("kind", ["kernel", "erofs", "iso"])
def test_what_was_chosen_and_is_not_there(tmp_path: Path, kind: str) -> None:
    prefix = built(tmp_path, "-kernel", "-squashfs.img")
    with pytest.raises(InputError, match=f"for --{kind}: looked for"):
        bootfiles.find(prefix, bootfiles.Kind(kind))


def test_one_half_in_place_of_the_prefix(tmp_path: Path) -> None:
    prefix = built(tmp_path, "-kernel", "-squashfs.img")
    with pytest.raises(InputError) as wrong:
        bootfiles.find(f"{prefix}-squashfs.img")
    assert wrong.value.hint == f"give the prefix only: linuxkit run {prefix}"
    disk = write(tmp_path / "a.img", mbr.disk([], seed="s", code=CODE))
    with pytest.raises(InputError, match="is not an ISO image"):
        bootfiles.find(str(disk), bootfiles.Kind.ISO)


# -- QEMU's command line

SPEC = qemu.MachineSpec(Path("qemu"), accel.Accel("tcg", ""), None)


def words(spec: qemu.MachineSpec) -> str:
    return " ".join(qemu.command(spec, Channels(qmp=3, console=4, report=5)))


def test_a_cd_a_stick_and_a_root_that_is_only_read() -> None:
    cd_ = qemu.Disk(Path("a.iso"), media=Media.CD, readonly=True)
    line = words(replace(SPEC, disks=(cd_, qemu.Disk(Path("d.img"))), data=Path("data.iso")))
    assert "-drive file=a.iso,format=raw,if=none,id=disk0,readonly=on,media=cdrom " in line
    assert "-device scsi-cd,drive=disk0,bus=scsi0.0,bootindex=0 " in line
    assert line.count("virtio-scsi-pci") == 1
    assert "-device virtio-blk-pci,drive=disk1,serial=disk1 " in line
    line = words(replace(SPEC, disks=(qemu.Disk(Path("a.img"), media=Media.USB),), usb=True))
    assert line.count("-device qemu-xhci,id=usb ") == 1
    assert "-device usb-storage,drive=disk0,bus=usb.0,removable=on,bootindex=0" in line
    root = qemu.Disk(Path("r.img"), readonly=True)
    line = words(replace(SPEC, kernel=Path("k"), disks=(root,)))
    assert "id=disk0,readonly=on -device virtio-blk-pci,drive=disk0,serial=disk0 " in line


def test_prepare_plugs_in_what_was_found(tmp_path: Path) -> None:
    fake = tmp_path / "qemu"
    fake.write_text("")
    fake.chmod(0o755)
    prefix = built(tmp_path, "-kernel", "-cmdline", "-squashfs.img", "-erofs.img")
    prepared = prepare(Request(prefix, qemu=fake, accel="tcg", disks=("size=1M",)))
    with prepared.lock:
        assert [(d.path.name, d.readonly) for d in prepared.spec.disks] == [("web-squashfs.img", True),
                                                                              ("disk.img", False)]  # fmt: skip
        assert prepared.notes[0] == f"booting: {prefix}-kernel with {prefix}-squashfs.img; also there: --erofs"
    image = write(tmp_path / "x.qcow2", b"QFI\xfb" + bytes(1000))
    os.truncate(image, 201 << 20)
    prepared = prepare(Request(str(image), qemu=fake, accel="tcg", media=Media.USB))
    with prepared.lock:
        assert prepared.spec.disks == (qemu.Disk(image, "qcow2", Media.USB),)
        assert prepared.spec.memory == 1792
        assert "memory: 1792 MB (guessed from the 201 MB of x.qcow2)" in prepared.notes
    with pytest.raises(InputError, match="--media usb is for an image"):
        prepare(Request(built(tmp_path, "-initrd.img"), qemu=fake, kind=bootfiles.Kind.KERNEL, media=Media.USB))
