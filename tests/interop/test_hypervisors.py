"""Hypervisors' definitions and disks, judged by other programs: libvirt's schema, QEMU's readers of disk files."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from linuxkit.encode import vmdk
from linuxkit.encode.pieces import literal
from linuxkit.platforms.hypervisors import convert, libvirt
from linuxkit.platforms.hypervisors.guest import Guest
from support.hypervisors.definitions import DEFINITIONS, EVIL, disk

pytestmark = pytest.mark.interop
MIB = 1 << 20


def tool(*command: str | Path) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("name", [name for name in DEFINITIONS if name.startswith("libvirt")])
def test_libvirts_schema_takes_every_domain(name: str, tmp_path: Path) -> None:
    (tmp_path / "d.xml").write_text(DEFINITIONS[name]().files[0][1])
    tool("virt-xml-validate", tmp_path / "d.xml", "domain")


def test_libvirts_schema_takes_a_hostile_domain_and_refuses_a_broken_one(tmp_path: Path) -> None:
    guest: Guest = replace(EVIL, name="a'b\"c & <i>", data=Path("/vm/]]><x/>"))
    text = libvirt.xml(guest, networking="tap,tap0")
    (tmp_path / "d.xml").write_text(text)
    tool("virt-xml-validate", tmp_path / "d.xml", "domain")
    (tmp_path / "bad.xml").write_text(text.replace("<vcpu>", "<vcpus>").replace("</vcpu>", "</vcpus>"))
    done = subprocess.run(["virt-xml-validate", tmp_path / "bad.xml", "domain"], capture_output=True, timeout=60)
    assert done.returncode != 0


def test_libvirt_itself_reads_a_domain_as_it_was_meant(tmp_path: Path) -> None:
    """libvirt's own test driver defines it and gives it back."""
    text = libvirt.xml(replace(EVIL, name="a'b & c"), kvm=False).replace("type='qemu'>", "type='test'>", 1)
    (tmp_path / "d.xml").write_text(text)
    given = tool("virsh", "--quiet", "--connect", "test:///default", f"define --file '{tmp_path}/d.xml'; "
                 "dumpxml --domain=\"a'b & c\"")  # fmt: skip
    for wanted in ("<name>a&apos;b &amp; c</name>", "<model type='virtio'/>", "<target dev='vda' bus='virtio'/>"):
        assert wanted in given


def test_qemu_reads_what_disks_are_turned_into(tmp_path: Path) -> None:
    data = disk(tmp_path / "raw")
    convert.wrap(tmp_path / "raw", tmp_path / "flat.vmdk")
    convert.to_vhdx(tmp_path / "raw", tmp_path / "d.vhdx")
    tool("qemu-img", "compare", "-f", "raw", "-F", "vmdk", tmp_path / "raw", tmp_path / "flat.vmdk")
    tool("qemu-img", "compare", "-f", "raw", "-F", "vhdx", tmp_path / "raw", tmp_path / "d.vhdx")
    tool("qemu-img", "check", "-f", "vhdx", tmp_path / "d.vhdx")
    # what is written through the page of text is in the raw disk
    tool("qemu-io", "-f", "vmdk", "-c", "write -P 0x5a 1M 4k", tmp_path / "flat.vmdk")
    assert (tmp_path / "raw").read_bytes() == data[:MIB] + b"\x5a" * 4096 + data[MIB + 4096 :]


@pytest.mark.parametrize("form", ["vhdx", "vmdk"])
def test_empty_disks_can_be_written(form: str, tmp_path: Path) -> None:
    path = tmp_path / f"d.{form}"
    convert.blank(path, 64 * MIB, form)
    assert f"virtual size: 64 MiB ({64 * MIB} bytes)" in tool("qemu-img", "info", "-f", form, path)
    tool("qemu-io", "-f", form, "-c", "write -P 7 5M 64k", "-c", "read -P 7 5M 64k", "-c", "read -P 0 6M 64k", path)


def test_qemus_own_compressed_vmdk_is_unpacked(tmp_path: Path) -> None:
    data = disk(tmp_path / "raw")
    tool("qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", tmp_path / "raw",
         tmp_path / "q.vmdk")  # fmt: skip
    convert.unpack_stream(tmp_path / "q.vmdk", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == data
    with (tmp_path / "own.vmdk").open("wb") as out:
        out.write(vmdk.head(vmdk.virtual_size([literal(data)]), name="own.vmdk", seed="x"))
        vmdk.body([literal(data)], out)
    convert.unpack_stream(tmp_path / "own.vmdk", tmp_path / "mine")
    tool("qemu-img", "compare", "-f", "raw", "-F", "vmdk", tmp_path / "mine", tmp_path / "own.vmdk")


def test_user_data_on_a_disk_is_read_by_others(tmp_path: Path) -> None:
    convert.data_disk(tmp_path / "data.iso", b"hello\n")
    assert "Volume id: cidata" in tool("isoinfo", "-d", "-i", tmp_path / "data.iso")
    for name in ("user-data", "config"):
        assert tool("isoinfo", "-R", "-x", f"/{name}", "-i", tmp_path / "data.iso") == "hello\n"
