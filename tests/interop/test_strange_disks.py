"""Disks of strangers that lead to files of this machine: refused by run and push, opened if nobody looks."""

from __future__ import annotations

import contextlib
import json
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from linuxkit.errors import InputError
from linuxkit.hypervisors import convert
from linuxkit.hypervisors.drives import Takes, more_drives
from linuxkit.platforms import bootfiles, bootimage, disks, otherfiles, qemu

pytestmark = pytest.mark.interop
SECRET = b"the host's secret".ljust(1 << 16, b".")


def img(*command: str | Path) -> str:
    done = subprocess.run(["qemu-img", *map(str, command)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _backing(folder: Path, secret: Path) -> Path:
    img("create", "-q", "-f", "qcow2", "-F", "raw", "-b", secret, folder / "d.qcow2")
    return folder / "d.qcow2"


def _data_file(folder: Path, secret: Path) -> Path:
    img("create", "-q", "-f", "qcow2", "-o", f"data_file={secret},data_file_raw=on", folder / "d.qcow2", str(1 << 16))
    secret.write_bytes(SECRET)  # which was made empty
    return folder / "d.qcow2"


def _descriptor(extent: str, more: str = "") -> str:
    return ('# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType="monolithicFlat"\n'
            f"{extent}\n{more}\n")  # fmt: skip


def _flat(folder: Path, secret: Path) -> Path:
    (folder / "d.vmdk").write_text(_descriptor(f'RW 128 FLAT "{secret}" 0'))
    return folder / "d.vmdk"


def _upward(folder: Path, secret: Path) -> Path:
    (folder / "d.vmdk").write_text(_descriptor(f'RW 128 FLAT "../{secret.relative_to(folder.parent)}" 0'))
    return folder / "d.vmdk"


def _neighbour(folder: Path, secret: Path) -> Path:
    (folder / "id_rsa").symlink_to(secret)
    (folder / "d.vmdk").write_text(_descriptor('RW 128 FLAT "id_rsa" 0'))
    return folder / "d.vmdk"


def _linked_extent(folder: Path, secret: Path) -> Path:
    (folder / "d-flat.vmdk").symlink_to(secret)
    (folder / "d.vmdk").write_text(_descriptor('RW 128 FLAT "d-flat.vmdk" 0'))
    return folder / "d.vmdk"


def _embedded(folder: Path, secret: Path) -> Path:
    """A sparse file of no capacity: a descriptor in a coat."""
    head = struct.pack("<4sIIQQQQIQQQB4sH", b"KDMV", 1, 3, 0, 128, 1, 20, 512, 0, 0, 21, 0, b"\n \r\n", 0)
    text = _descriptor(f'RW 128 FLAT "{secret}" 0').encode()
    (folder / "d.vmdk").write_bytes(head.ljust(512, b"\0") + text.ljust(20 * 512, b"\0"))
    return folder / "d.vmdk"


def _odd_blanks(folder: Path, secret: Path) -> Path:
    (folder / "d.vmdk").write_text(_descriptor(f'RW\v128\fFLAT\v"{secret}" 0'))
    return folder / "d.vmdk"


def _parent(folder: Path, secret: Path) -> Path:
    """A sparse file with a parent, which QEMU opens as what it finds it to be."""
    img("convert", "-q", "-f", "raw", "-O", "vmdk", secret, folder / "base.vmdk")
    img("create", "-q", "-f", "vmdk", "-F", "vmdk", "-b", folder / "base.vmdk", folder / "d.vmdk")
    return folder / "d.vmdk"


MADE: dict[str, Callable[[Path, Path], Path]] = {
    f.__name__[1:]: f
    for f in (_backing, _data_file, _flat, _upward, _neighbour, _linked_extent, _embedded, _odd_blanks, _parent)
}


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "host" / "shadow"
    path.parent.mkdir()
    path.write_bytes(SECRET)
    return path


@pytest.mark.parametrize("case", MADE)
def test_a_disk_that_leads_to_another_file(tmp_path: Path, secret: Path, case: str) -> None:
    folder = tmp_path / "downloads"
    folder.mkdir()
    disk = MADE[case](folder, secret)
    form = bootimage.SUFFIXES[disk.suffix]
    # negative control: who does not look gives the guest what the host has
    img("convert", "-q", "-f", form, "-O", "raw", disk, tmp_path / "out")
    assert (tmp_path / "out").read_bytes().startswith(SECRET[:17])
    wanted = disks.parse_disk(f"file={disk},format={form}")
    for run in (
        lambda: bootfiles.find(str(disk)), lambda: bootimage.look(disk), lambda: disks.make_disks([wanted], tmp_path),
        lambda: more_drives([wanted], Takes(formats=("raw", "qcow2", "vmdk")), tmp_path, [], "libvirt"),
        lambda: bootfiles.find(str(disk.with_suffix(""))),
    ):  # fmt: skip
        with pytest.raises(InputError, match=r"is not whole: it (has|keeps)") as caught:
            run()
        assert "--trust-disk" in caught.value.hint
    assert bootfiles.find(str(disk), trust=True).format == form
    assert disks.make_disks([wanted], tmp_path, trust=True)[0].path == disk


@pytest.mark.parametrize("form", ["qcow2", "vmdk", "vhdx", "vpc", "vdi"])
def test_whole_disks_pass(tmp_path: Path, form: str) -> None:
    img("create", "-q", "-f", form, tmp_path / "d", "16M")
    otherfiles.refuse(tmp_path / "d", form)
    if form == "vmdk":
        for kind in ("monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat", "streamOptimized"):
            disk = tmp_path / f"{kind}.vmdk"
            img("create", "-q", "-f", form, "-o", f"subformat={kind}", disk, "16M")
            otherfiles.refuse(disk, form)
    convert.blank(tmp_path / "own.vmdk", 1 << 20, "vmdk")
    otherfiles.refuse(tmp_path / "own.vmdk", "vmdk")


def test_differencing_disks_of_the_others(tmp_path: Path) -> None:
    img("create", "-q", "-f", "vpc", tmp_path / "d.vhd", "16M")
    data = bytearray((tmp_path / "d.vhd").read_bytes())
    data[60:64] = data[-512 + 60 : -512 + 64] = struct.pack(">I", 4)
    (tmp_path / "d.vhd").write_bytes(data)
    img("create", "-q", "-f", "vdi", tmp_path / "d.vdi", "16M")
    data = bytearray((tmp_path / "d.vdi").read_bytes())
    data[0x4C:0x50] = struct.pack("<I", 4)
    (tmp_path / "d.vdi").write_bytes(data)
    img("create", "-q", "-f", "vhdx", tmp_path / "d.vhdx", "16M")
    data = bytearray((tmp_path / "d.vhdx").read_bytes())
    item = data.index(bytes.fromhex("3767a1ca36fa434db3b633f0aa44e76b"))
    table = data.rindex(b"metadata", 0, item)
    flags = table + struct.unpack_from("<I", data, item + 16)[0] + 4
    assert not data[flags] & 2
    data[flags] |= 2
    (tmp_path / "d.vhdx").write_bytes(data)
    for form, name in (("vpc", "d.vhd"), ("vdi", "d.vdi"), ("vhdx", "d.vhdx")):
        with pytest.raises(InputError, match="differencing"):
            otherfiles.refuse(tmp_path / name, form)


def test_a_raw_disk_that_begins_as_another_kind_stays_raw(tmp_path: Path, secret: Path) -> None:
    """A guest can write what it likes on its disk: QEMU is always told the format, and never asked to find it."""
    disk = _backing(tmp_path, secret).rename(tmp_path / "d.img")
    assert json.loads(img("info", "--output=json", disk))["format"] == "qcow2"  # what it finds when it is asked
    with pytest.raises(InputError, match="looks like qcow2"):
        bootfiles.find(str(disk))
    with pytest.raises(InputError, match="looks like qcow2"):
        disks.make_disks([disks.parse_disk(str(disk))], tmp_path)
    (made,) = disks.make_disks([disks.parse_disk(f"file={disk},format=raw")], tmp_path)
    assert made.format == "raw"


def test_a_relative_name_is_no_protocol() -> None:
    assert str(qemu._file(Path("fat:rw:x"))).startswith("/")
    assert qemu._file(Path("web.img")) == Path("web.img")


def test_a_descriptor_is_read_in_no_time(tmp_path: Path) -> None:
    for filler in (b"\n", b" ", b"\0", b"RW 1 ", b'RW 1 FLAT "', b"parentFileNameHint ", b"\t\n"):
        (tmp_path / "d.vmdk").write_bytes(b"# Disk DescriptorFile\n" + filler * (950_000 // len(filler)))
        began = time.process_time()
        with contextlib.suppress(InputError):
            otherfiles.refuse(tmp_path / "d.vmdk", "vmdk")
        assert time.process_time() - began < 5, filler
