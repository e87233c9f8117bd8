"""Hypervisors' definitions and disks, judged by other programs: libvirt's schema, QEMU's readers of disk files."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
import tree_sitter
import tree_sitter_powershell

from linuxkit.encode import vmdk
from linuxkit.encode.pieces import literal
from linuxkit.hypervisors import convert, hyperv, libvirt, vmware
from linuxkit.hypervisors.guest import Drive, Guest
from support.hypervisors.definitions import DEFINITIONS, DISK, EVIL, disk, wrapped
from support.libvirtd import libvirt_uri

__all__ = ["libvirt_uri"]
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


@pytest.mark.parametrize("name", [name for name in DEFINITIONS if name.startswith("libvirt")])
def test_libvirts_qemu_driver_defines_every_domain(name: str, libvirt_uri: str, tmp_path: Path) -> None:
    """It knows the boards, the devices and the firmware, and refuses what QEMU hasn't."""
    text = DEFINITIONS[name]().files[0][1].replace("<domain type='kvm'>", "<domain type='qemu'>")
    text = text.replace("'host-passthrough'", "'maximum'")  # there need be no KVM
    text = re.sub(r"(?s)      <backend type='passt'/>\n|      <portForward.*</portForward>\n", "", text)  # nor passt
    (tmp_path / "d.xml").write_text(text)
    (tmp_path / "alone.xml").write_text(re.sub(r"(?s) *<interface.*</interface>\n", "", text))  # nor a right to a tap
    virsh = ("virsh", "--quiet", "--connect", libvirt_uri)
    tool(*virsh, "define", "--file", tmp_path / "d.xml", "--validate")
    command = tool(*virsh, "domxml-to-native", "qemu-argv", "--xml", tmp_path / "alone.xml")
    assert ("driver\":\"file\",\"filename\":\"/usr/share/OVMF/" in command) == ("firmware=" in text)
    assert ("-kernel /vm/web-kernel" in command) == ("<kernel>" in text)
    assert ("virtio-blk" in command) == ("bus='virtio'" in text)
    assert ("scsi-cd" in command) == ("device='cdrom'" in text)
    tool(*virsh, "undefine", "--domain=web", "--nvram")
    (tmp_path / "bad.xml").write_text(text.replace("machine='", "machine='no-"))
    done = subprocess.run([*virsh, "define", "--file", tmp_path / "bad.xml"], capture_output=True, timeout=60)
    assert done.returncode != 0


def vmx_as_libvirt_reads_it(text: str, folder: Path) -> ElementTree.Element:
    """libvirt has a reader of .vmx files, and uses it when it finds VMware's programs; these only say their version."""
    (folder / "linuxkit.vmx").write_text(text)
    for name, said in (("vmrun", "Total running VMs: 0"), ("vmware", "VMware Workstation 16.2.5 build-20904516")):
        (folder / name).write_text(f"#!/bin/sh\necho '{said}'\n")
        (folder / name).chmod(0o755)
    done = subprocess.run(
        ["virsh", "--quiet", "--connect", "vmwarews:///session", "domxml-from-native", "vmware-vmx",
         str(folder / "linuxkit.vmx")], capture_output=True, text=True, timeout=60,
        env=os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return ElementTree.fromstring(done.stdout)


def test_libvirt_reads_our_vmx_files_as_they_were_meant(tmp_path: Path) -> None:
    domain = vmx_as_libvirt_reads_it(DEFINITIONS["vmware-cd"]().files[0][1], tmp_path)
    assert domain.findtext("name") == "web"
    assert domain.findtext("memory") == str(2048 * 1024)
    sources = {d.get("device"): s.get("file") for d in domain.iter("disk") if (s := d.find("source")) is not None}
    assert sources == {"disk": "/vm/d.vmdk", "cdrom": "/vm/web-state/data.iso"}
    assert [c.get("model") for c in domain.iter("controller") if c.get("type") == "scsi"] == ["vmpvscsi"]
    assert [m.get("type") for m in domain.iterfind("devices/interface/model")] == ["vmxnet3"]
    evil = vmx_as_libvirt_reads_it(vmware.define(wrapped(EVIL, "vmdk"), vmrun="v", product="ws").files[0][1], tmp_path)
    assert evil.findtext("name") == EVIL.name
    source = evil.find("devices/disk/source")
    assert source is not None  # libvirt undoes |XX in names only
    found = re.sub(r"\|([0-9A-F]{2})", lambda m: chr(int(m[1], 16)), source.get("file", ""))
    assert found == str(EVIL.drives[0].path.with_suffix(".vmdk"))


def test_every_powershell_script_is_one_by_its_grammar() -> None:
    parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_powershell.language()))
    drive = Drive(Path("/x'; rm $y.vhdx"), "vhdx")
    evil = replace(DISK, name="a'b $(id) & ; #", state=Path("/vm/a'b"), drives=(drive,))
    for definition in (DEFINITIONS["hyperv-cd"](), DEFINITIONS["hyperv-disk"](),
                       hyperv.define(evil, powershell="p", switch="it's")):  # fmt: skip
        commands = [definition.taken, definition.start, *definition.make, *definition.stop, *definition.remove]
        for command in commands:
            tree = parser.parse(str(command).encode())
            assert not tree.root_node.has_error, str(command)
    script = hyperv.define(evil, powershell="p").make[0].shown
    texts, todo = set(), [parser.parse(script.encode()).root_node]
    while todo:
        node = todo.pop()
        todo += node.children
        if node.type == "verbatim_string_characters":
            texts.add((node.text or b"").decode()[1:-1].replace("''", "'"))
    assert {evil.name, "/vm/a'b", "/x'; rm $y.vhdx"} <= texts
    assert parser.parse(script.replace("''", "'").encode()).root_node.has_error  # the control


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
