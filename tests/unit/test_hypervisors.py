"""Hypervisors' definitions, word for word; hostile names; kernels unpacked and disks converted without any helper."""

from __future__ import annotations

import base64
import bz2
import gzip
import json
import lzma
import os
import re
import shlex
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from linuxkit.encode import vmdk
from linuxkit.encode.pieces import hole, literal
from linuxkit.errors import InputError
from linuxkit.hypervisors import (
    cloudhypervisor,
    convert,
    drives,
    firecracker,
    hyperv,
    libvirt,
    vbox,
    virtualization,
    vmware,
)
from linuxkit.hypervisors.guest import Definition, Drive, check_name
from linuxkit.oci.unpack import zstd_module
from linuxkit.places.table import PLACES, default_place
from linuxkit.platforms import bootfiles, vmlinux
from linuxkit.platforms.qemu import Port
from support.hypervisors.definitions import (
    DEFINITIONS,
    DISK,
    EVIL,
    HOSTILE,
    KERNEL,
    UUID,
    define_hyperkit,
    define_libvirt,
    disk,
    wrapped,
)
from support.kernels import arm64_image, bzimage, zboot

pytestmark = pytest.mark.unit
GOLDEN = Path(__file__).parent / "golden_hypervisors"


def text_of(definition: Definition) -> str:
    """A definition as a page to read."""
    lines = []
    for path, text in definition.files:
        lines += [f"== {path}", text.rstrip("\n")]
    for name in ("taken", "make", "start", "machine", "running", "stop", "kill", "remove"):
        value = getattr(definition, name)
        if value is None:
            continue
        if name == "running":
            value = (value[0], f"matches {value[1]}")
        steps = value if isinstance(value, tuple) else (value,)
        lines += [f"== {name}", *(str(step) for step in steps)] if steps else []
    lines += [f"== console {definition.socket}"] if definition.socket else []
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("name", DEFINITIONS)
def test_a_definition_word_for_word(name: str) -> None:
    path, text = GOLDEN / f"{name}.txt", text_of(DEFINITIONS[name]())
    if os.environ.get("LINUXKIT_WRITE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()


def test_every_hypervisor_is_in_the_table_and_golden() -> None:
    local = {name for name, place in PLACES.items() if place.local}
    assert local == {"cloud-hypervisor", "firecracker", "hyperkit", "hyperv", "libvirt", "vbox", "virtualization",
                     "vmware"}  # fmt: skip
    assert {name for name in local if any(n.startswith(name) for n in DEFINITIONS)} == local
    assert {p.stem for p in GOLDEN.glob("*.txt")} == set(DEFINITIONS)


# -- what is hostile


def test_xml_gives_back_every_text() -> None:
    root = ElementTree.fromstring(libvirt.xml(replace(EVIL, name="a'b\"c\u2019d $(id) & <i>")))
    assert root.findtext("name") == "a'b\"c\u2019d $(id) & <i>"
    assert root.findtext("os/kernel") == str(EVIL.kernel)
    assert root.findtext("os/cmdline") == EVIL.cmdline
    source = root.find("devices/disk/source")
    assert source is not None
    assert source.get("file") == str(EVIL.drives[0].path)
    for bad in ("a\x00b", "a\x1bb", "a\ud800b"):
        with pytest.raises(InputError, match="which XML cannot"):
            libvirt.xml(replace(KERNEL, cmdline=bad))


def test_vmx_gives_back_every_text() -> None:
    at, text = vmware.define(wrapped(EVIL, "vmdk"), vmrun="vmrun", product="ws").files[0]
    assert at.name == "linuxkit.vmx"
    values = {}
    for line in text.splitlines():
        found = re.fullmatch(r'([A-Za-z0-9.:_]+) = "([^"]*)"', line)  # a quote inside would end it
        assert found, line
        assert found[1] not in values
        values[found[1]] = re.sub(r"\|([0-9A-F]{2})", lambda m: chr(int(m[1], 16)), found[2])
    assert values["displayName"] == HOSTILE
    assert values["scsi0:0.fileName"] == str(EVIL.drives[0].path.with_suffix(".vmdk"))
    assert values["serial0.fileName"] == str(EVIL.state / "console")
    with pytest.raises(InputError, match="contains '%'"):
        vmware.define(replace(DISK, name="%PATH%"), vmrun="vmrun", product="ws")
    newline = vmware.quoted('x"\nisolation.tools.hgfs.disable = "FALSE')
    assert newline == '"x|22|0Aisolation.tools.hgfs.disable = |22FALSE"'


def literals(script: str) -> list[str]:
    """The single-quoted texts of a PowerShell script; what is outside of them has no quote at all."""
    quotes = "'\u2018\u2019\u201a\u201b"
    found, at = [], 0
    while at < len(script):
        if script[at] not in quotes:
            at += 1
            continue
        text, at = "", at + 1
        while script[at] not in quotes or (script[at + 1 : at + 2] in quotes and script[at + 1 : at + 2]):
            text += script[at]
            at += 2 if script[at] in quotes else 1
        found.append(text)
        at += 1
    return found


def test_powershell_gives_back_every_text() -> None:
    name = "a'b\u2019c\u201bd $(id) $x & ; | Remove-Item"
    drive = Drive(Path("/vm/x'; rm $y.vhdx"), "vhdx")
    guest = replace(DISK, name=name.replace("|", "!"), state=Path("/vm/a'b\u2018"), drives=(drive,))
    definition = hyperv.define(guest, powershell="powershell", switch="it's")
    (make,) = definition.make
    assert make.arguments[:4] == ("powershell", "-NoProfile", "-NonInteractive", "-EncodedCommand")
    script = base64.b64decode(make.arguments[4]).decode("utf-16-le")
    assert script == make.shown
    texts = literals(script)
    assert texts.count(guest.name) == 1  # New-VM; then it is $vm, and no name is looked for again
    assert {"it's", "/vm/a'b\u2018", "/vm/x'; rm $y.vhdx", rf"\\.\pipe\{guest.name}-com1"} <= set(texts)
    for command in (*definition.stop, *definition.kill, *definition.remove):  # type: ignore[assignment]
        assert literals(str(command))[-1] == guest.name
    for pattern in ("we*", "w?b", "[w]eb", "we`b"):
        with pytest.raises(InputError, match="cannot be a machine's name"):
            hyperv.define(replace(guest, name=pattern), powershell="powershell")
        with pytest.raises(InputError, match="is a pattern"):
            hyperv.define(guest, powershell="powershell", switch=pattern)


def test_json_gives_back_every_text() -> None:
    (_, text), *_ = firecracker.define(EVIL, firecracker="firecracker").files
    value = json.loads(text)
    assert value["boot-source"]["kernel_image_path"] == str(EVIL.kernel)
    assert value["boot-source"]["boot_args"].startswith(EVIL.cmdline)
    assert value["drives"][0]["path_on_host"] == str(EVIL.drives[0].path)


def test_what_cannot_be_quoted_is_refused() -> None:
    comma = replace(KERNEL, drives=(Drive(Path("/vm/a,b.img")),))
    for make in (lambda: define_hyperkit(comma), lambda: virtualization.define(comma, vfkit="vfkit"),
                 lambda: define_hyperkit(replace(KERNEL, kernel=Path("/vm/a,b")))):  # fmt: skip
        with pytest.raises(InputError, match="cannot take a path that contains ','"):
            make()
    with pytest.raises(InputError, match="cannot take a path"):
        cloudhypervisor.define(replace(KERNEL, drives=(Drive(Path('/vm/a"b')),)), program="x")
    with pytest.raises(InputError, match="can't name a file"):
        convert.vmdk_flat.descriptor(512, extent='a"\nRW 1 FLAT "/etc/shadow', seed="")


@pytest.mark.parametrize(
    "name", ["", " a", "a ", "-a", ".a", "a/b", "a\\b", "a\nb", "a\0b", "a\ud800", "x" * 81, "\u2028"]
)
def test_names_that_no_machine_has(name: str) -> None:
    with pytest.raises(InputError, match="name"):
        check_name(name)


def test_names_that_are_taken_for_something_else() -> None:
    for name in ("42", UUID, UUID.replace("-", "")):
        with pytest.raises(InputError, match="takes it for an id"):
            libvirt.machine_name(name)
    with pytest.raises(InputError, match="takes it for an id"):
        vbox.machine_name(f"{{{UUID}}}")


def test_a_port_where_none_can_be_published_is_refused() -> None:
    guest = replace(KERNEL, ports=(Port(8080, 80),))
    for make in (
        lambda: define_libvirt(guest, networking="bridge,br0"), lambda: define_hyperkit(guest),
        lambda: vbox.define(guest, vboxmanage="v", networking=("intnet",)),
        lambda: vmware.define(guest, vmrun="v", product="ws"), lambda: hyperv.define(guest, powershell="p"),
        lambda: virtualization.define(guest, vfkit="v"), lambda: firecracker.define(guest, firecracker="f"),
        lambda: cloudhypervisor.define(guest, program="c"),
    ):  # fmt: skip
        with pytest.raises(InputError, match="--publish"):
            make()


def test_networks_that_make_no_sense() -> None:
    for text in ("tap", "bridge", "user,x", "vmnet", "network,a<b", "tap,a b\n"):
        with pytest.raises(InputError, match="--networking"):
            define_libvirt(KERNEL, networking=text)
    for text in ("bridged", "nat,adapter=x", "type=", "x=y", "natnetwork", "type=nat,more=1"):
        with pytest.raises(InputError, match="--networking"):
            vbox.parse_network(text)
    for text in ("vpnkit", "vpnkit,a,b", "vmnet,x", "bridge,x"):
        with pytest.raises(InputError, match="--networking"):
            define_hyperkit(KERNEL, networking=text)


def test_virtualbox_never_deletes_a_disk() -> None:
    remove = [c.arguments for c in DEFINITIONS["vbox-disk"]().remove]
    assert remove[-1] == ("VBoxManage", "unregistervm", "web", "--delete")  # with it go the disks that are attached
    taken_off = {c[4:8:2] + c[9:] for c in remove[:-1] if "none" in c}
    attached = [c.arguments for c in DEFINITIONS["vbox-disk"]().make if "--medium" in c.arguments]
    assert len(attached) == len(taken_off) == 3
    assert not any("--delete" in c for c in remove[:-1])


@pytest.mark.parametrize(
    ("system", "there", "wanted"),
    [
        ("linux", (), "qemu"), ("linux", ("vfkit",), "qemu"), ("freebsd14", (), "qemu"),
        ("darwin", ("vfkit", "qemu-system-x86_64"), "virtualization"), ("darwin", ("qemu-system-aarch64",), "qemu"),
        ("darwin", (), "virtualization"), ("win32", ("vmms",), "hyperv"), ("win32", ("qemu-system-x86_64",), "qemu"),
        ("win32", (), "hyperv"),
    ],
)  # fmt: skip
def test_where_a_bare_run_runs(system: str, there: tuple[str, ...], wanted: str) -> None:
    assert default_place(system, lambda program: program in there) == wanted


# -- kernels


def elf(*notes: tuple[bytes, int, bytes], size: int = 3 << 20) -> bytes:
    """An ELF file for x86-64 with one segment of notes and some noise."""
    body = b"".join(
        struct.pack("<III", len(name), len(data), kind) + name.ljust(-(-len(name) // 4) * 4, b"\0")
        + data.ljust(-(-len(data) // 4) * 4, b"\0") for name, kind, data in notes
    )  # fmt: skip
    head = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    head += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0x1000000, 64, 0, 0, 64, 56, 1, 64, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 4, 4, 120, 0, 0, len(body), len(body), 4)
    return (head + segment + body).ljust(size, b"k")


PVH = (b"Xen\0", 18, struct.pack("<Q", 0x1000B20))


def lz4_legacy(data: bytes) -> bytes:
    block = pytest.importorskip("lz4.block", reason="Python's lz4 is an extra")
    out = b"\x02\x21\x4c\x18"
    for at in range(0, len(data), 8 << 20):
        packed = block.compress(data[at : at + (8 << 20)], store_size=False)
        out += struct.pack("<I", len(packed)) + packed
    return out


PACK: dict[str, Callable[[bytes], bytes]] = {
    "none": lambda data: data, "gzip": lambda data: gzip.compress(data, 1), "bzip2": lambda data: bz2.compress(data, 1),
    "xz": lambda data: lzma.compress(data, preset=0, check=lzma.CHECK_CRC32),
    "lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE, preset=0),
    "zstd": lambda data: bytes(zstd_module().compress(data)), "lz4": lz4_legacy,
}  # fmt: skip


@pytest.mark.parametrize("name", PACK)
def test_a_kernel_is_unpacked_to_the_byte(name: str, tmp_path: Path) -> None:
    inside = elf(PVH, size=9 << 20 if name == "lz4" else 3 << 20)
    # as in a kernel: the length behind it
    (tmp_path / "k").write_bytes(bzimage(PACK[name](inside) + struct.pack("<I", len(inside)) * (name != "none")))
    vmlinux.extract(tmp_path / "k", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == inside
    assert vmlinux.pvh_entry(tmp_path / "out") == 0x1000B20


def test_kernels_for_arm64_and_kernels_that_need_no_unpacking(tmp_path: Path) -> None:
    image = arm64_image(b"x" * 70_000)
    for packed in (gzip.compress(image), zboot(gzip.compress(image)), zboot(PACK["zstd"](image))):
        (tmp_path / "k").write_bytes(packed)
        vmlinux.extract(tmp_path / "k", tmp_path / "out")
        assert (tmp_path / "out").read_bytes() == image
    for plain in (image, elf(PVH)):
        (tmp_path / "k").write_bytes(plain)
        assert vmlinux.payload(tmp_path / "k") == (0, 0)


def test_kernels_that_are_none(tmp_path: Path) -> None:
    good = bzimage(gzip.compress(elf()))
    late = bytearray(good)
    struct.pack_into("<I", late, 0x24C, 1 << 30)
    cases = {
        "is no kernel": b"x" * 5000, "is no kernel that can be unpacked": bytes(late),
        "is damaged": good[:4200] + b"\xff" * (len(good) - 4200), "neither an ELF": bzimage(gzip.compress(b"x" * 999)),
        "in a way that is not known": bzimage(b"\x89LZO" + bytes(99)), "does not say": bzimage(b"x", version=0x207),
        "unpacks to nothing": bzimage(gzip.compress(b"")), "ends too early": bzimage(gzip.compress(elf())[:-2000]),
    }  # fmt: skip
    for words, data in cases.items():
        (tmp_path / "k").write_bytes(data)
        with pytest.raises(InputError, match=words):
            vmlinux.extract(tmp_path / "k", tmp_path / "out")
        assert sorted(p.name for p in tmp_path.iterdir()) == ["k"]


def test_a_kernel_that_unpacks_to_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vmlinux, "MOST", 2 << 20)
    (tmp_path / "k").write_bytes(bzimage(gzip.compress(elf())))
    with pytest.raises(InputError, match="unpacks to more than 2 MB"):
        vmlinux.extract(tmp_path / "k", tmp_path / "out")


def test_an_elf_file_without_the_entry(tmp_path: Path) -> None:
    for notes in ((), ((b"Xen\0", 17, b"12345678"),), ((b"Yen\0", 18, b"12345678"),)):
        (tmp_path / "k").write_bytes(elf(*notes))
        assert vmlinux.pvh_entry(tmp_path / "k") == 0
    (tmp_path / "k").write_bytes(elf(PVH)[:100])
    assert vmlinux.pvh_entry(tmp_path / "k") == 0
    (tmp_path / "k").write_bytes(elf((b"Linux\0", 257, b"\1" * 7), PVH))
    assert vmlinux.pvh_entry(tmp_path / "k") == 0x1000B20


# -- disks


def test_a_compressed_vmdk_is_unpacked_to_the_byte(tmp_path: Path) -> None:
    data = disk(tmp_path / "raw")
    pieces = [literal(data[: 2 << 20]), hole(1 << 20), literal(data[3 << 20 :])]
    with (tmp_path / "d.vmdk").open("wb") as out:
        out.write(vmdk.head(vmdk.virtual_size(pieces), name="d.vmdk", seed="x"))
        vmdk.body(pieces, out)
    assert convert.is_stream(tmp_path / "d.vmdk")
    convert.unpack_stream(tmp_path / "d.vmdk", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == data
    whole = (tmp_path / "d.vmdk").read_bytes()
    for at, bytes_ in ((512 * 128, b"\xff" * 8), (512 * 128 + 8, struct.pack("<I", 1 << 30)), (20, bytes(8)),
                       (512 * 128 + 20, b"\xff" * 64)):  # fmt: skip
        broken = whole[:at] + bytes_ + whole[at + len(bytes_) :]
        (tmp_path / "b.vmdk").write_bytes(broken)
        with pytest.raises(InputError, match="is damaged"):
            convert.unpack_stream(tmp_path / "b.vmdk", tmp_path / "b")
    (tmp_path / "b.vmdk").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="is damaged"):
        convert.unpack_stream(tmp_path / "b.vmdk", tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_a_grain_that_unpacks_to_more_than_a_grain(tmp_path: Path) -> None:
    head = bytearray(vmdk.head(1 << 20, name="x", seed="x"))
    bomb = zlib.compress(bytes(1 << 20))
    grain = (struct.pack("<QI", 0, len(bomb)) + bomb).ljust(-(-(12 + len(bomb)) // 512) * 512, b"\0")
    (tmp_path / "d.vmdk").write_bytes(bytes(head) + grain + bytes(512))
    with pytest.raises(InputError, match="a grain is too large"):
        convert.unpack_stream(tmp_path / "d.vmdk", tmp_path / "out")


def test_a_raw_disk_keeps_its_holes(tmp_path: Path) -> None:
    data = disk(tmp_path / "raw")
    pieces = convert.pieces_of(tmp_path / "raw")
    assert sum(p.size for p in pieces) == len(data)
    convert.write(pieces, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == data
    assert (tmp_path / "copy").stat().st_blocks <= (tmp_path / "raw").stat().st_blocks + 8


def test_a_disk_that_is_no_whole_number_of_sectors(tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(b"x" * 700)
    with pytest.raises(InputError, match="not whole sectors"):
        convert.wrap(tmp_path / "raw", tmp_path / "d.vmdk")


def test_commands_can_be_pasted_into_a_shell() -> None:
    for definition in (vbox.define(wrapped(EVIL, "vmdk"), vboxmanage="VBoxManage"), define_libvirt(EVIL)):
        for command in (*definition.make, *definition.remove):
            assert shlex.split(str(command)) == list(command.arguments)


def stream(path: Path, content: bytes) -> None:
    with path.open("wb") as out:
        out.write(vmdk.head(vmdk.virtual_size([literal(content)]), name=path.name, seed="x"))
        vmdk.body([literal(content)], out)


def test_a_disk_that_was_built_anew_is_brought_into_form_anew(tmp_path: Path) -> None:
    """From a compressed VMDK over a raw disk to a VHDX, all or nothing of it."""
    state, source = tmp_path / "state", tmp_path / "web.vmdk"
    state.mkdir()
    files = bootfiles.BootFiles(None, None, "", "", source, format="vmdk", readonly=True)
    takes = drives.Takes(formats=("vhdx",), wrap="vhdx")

    def made() -> tuple[int, bytes]:
        tasks: list[drives.Task] = []
        drive = drives.boot_drive(files, takes, state, tasks, "It")
        assert drive == Drive(state / "boot.vhdx", "vhdx")
        for task in tasks:
            task.work()
        return len(tasks), drive.path.read_bytes()

    stream(source, b"\1" * 4096)
    os.utime(source, (1, 1))
    first = made()
    assert first[0] == 2
    assert made() == (0, first[1])  # what is there, and what a guest wrote on it, stays
    stream(source, b"\2" * 4096)
    os.utime(source, (2_000_000_000, 2_000_000_000))
    again = made()
    assert again[0] == 2
    assert again[1] != first[1]


def test_a_disk_whose_page_of_text_was_lost_is_not_emptied(tmp_path: Path) -> None:
    path = tmp_path / "d.vmdk"
    convert.blank(path, 1 << 20, "vmdk")
    (tmp_path / "d-flat.img").write_bytes(b"precious".ljust(1 << 20, b"\0"))
    page = path.read_bytes()
    path.unlink()
    convert.blank(path, 1 << 20, "vmdk")
    assert path.read_bytes() == page
    assert (tmp_path / "d-flat.img").read_bytes().startswith(b"precious")
