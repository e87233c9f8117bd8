"""What `linuxkit run` finds out, makes and refuses before QEMU starts."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linuxkit.encode import config_iso, cpio
from linuxkit.entry import Bytes, Entry, Kind
from linuxkit.errors import HostError, InputError
from linuxkit.oci.unpack import zstd_module
from linuxkit.platforms import bootfiles, memory
from linuxkit.platforms.disks import make_disks, parse_disk, parse_size
from linuxkit.platforms.ports import claim
from linuxkit.platforms.prepare import Request, StateLock, mac_address, make_state, prepare
from linuxkit.platforms.qemu import Disk, Port
from support.vm import initrd_of

pytestmark = pytest.mark.unit
MIB = 1 << 20


def zstd(data: bytes) -> bytes:
    compressed: bytes = zstd_module().compress(data)
    return compressed


# -- memory

ONE = initrd_of(b"x" * 300_000)
PACKERS = {"none": bytes, "gzip": gzip.compress, "zstd": zstd, "xz": lzma.compress}


@pytest.mark.parametrize("name", PACKERS)
@pytest.mark.parametrize("count", [1, 3])
def test_the_unpacked_size_of_archives_end_to_end(tmp_path: Path, name: str, count: int) -> None:
    image = tmp_path / "i"
    image.write_bytes(PACKERS[name](ONE) * count)
    assert memory.unpacked_size(image) == len(ONE) * count


def test_archives_of_several_kinds_with_padding_between(tmp_path: Path) -> None:
    image = tmp_path / "i"
    image.write_bytes(ONE + bytes(512) + gzip.compress(ONE) + zstd(ONE) + lzma.compress(ONE))
    assert memory.unpacked_size(image) == 4 * len(ONE)


def test_zstd_that_does_not_say_its_size_is_counted(tmp_path: Path) -> None:
    """As this project's own initrds are; with many small blocks, whose number says little."""
    packer = zstd_module().ZstdCompressor()
    parts = [packer.compress(ONE[at : at + 1000], packer.FLUSH_BLOCK) for at in range(0, len(ONE), 1000)]
    whole = b"".join(parts) + packer.flush()
    image = tmp_path / "i"
    image.write_bytes(whole * 2 + ONE)
    assert memory.unpacked_size(image) == 3 * len(ONE)
    image.write_bytes(whole[:40] + b"\xff" * 20 + whole[60:])  # damaged: as much as it may be
    assert memory.unpacked_size(image) >= len(whole)


def test_lz4_as_the_kernel_has_it_is_an_upper_bound(tmp_path: Path) -> None:
    block = bytes(100_000)
    image = tmp_path / "i"
    image.write_bytes((0x184C2102).to_bytes(4, "little") + 2 * (len(block).to_bytes(4, "little") + block) + ONE)
    assert memory.unpacked_size(image) == 2 * 8 * MIB + len(ONE)


MAGICS = [b"", b"\x1f\x8b", b"\xfd7zXZ\0", b"(\xb5/\xfd", b"070701", b"\x02!L\x18"]


@given(st.binary(max_size=2000), st.sampled_from(MAGICS))
def test_any_bytes_have_a_size(tmp_path_factory: pytest.TempPathFactory, noise: bytes, head: bytes) -> None:
    image = tmp_path_factory.getbasetemp() / "noise"
    image.write_bytes(head + noise)
    assert memory.unpacked_size(image) >= 0


def test_a_truncated_archive_counts_generously(tmp_path: Path) -> None:
    image = tmp_path / "i"
    packed = gzip.compress(os.urandom(50_000))
    image.write_bytes(packed[:-20])
    assert memory.unpacked_size(image) == 4 * (len(packed) - 20)


def sparse_cpio(path: Path, size: int) -> Path:
    """An archive with one large file, without writing it."""
    archive = initrd_of(b"")
    name = b"070701" + b"".join(b"%08x" % n for n in (1, 0o100644, 0, 0, 1, 0, size, 0, 0, 0, 0, 4, 0)) + b"big\0"
    with path.open("wb") as f:
        f.write(name + b"\0" * (-len(name) % 4))
        f.seek(size + -size % 4, 1)
        f.write(archive)
    return path


def test_memory_is_what_the_image_needs_and_never_less_than_the_usual(tmp_path: Path) -> None:
    small = sparse_cpio(tmp_path / "a", 10 * MIB)
    large = sparse_cpio(tmp_path / "b", 800 * MIB)
    assert memory.memory_for(small, "").mib == 1024
    given = memory.memory_for(large, "")
    assert given.mib >= 3 * 800 + 256  # it is not compressed
    assert "unpacks to 801 MB" in given.why
    assert memory.memory_for(large, "", 2600).mib == 2600


def test_the_least_memory_holds_the_image_twice_and_packed(tmp_path: Path) -> None:
    """Half of what is left beside the packed initrd has to hold it: 200 MB of noise were damaged with 704 MB."""
    size = 217 * MIB
    assert 704 * MIB < memory.least_for(size, size, "") < 832 * MIB
    assert memory.least_for(size, size, "rootfstype=ramfs") < 560 * MIB


@pytest.mark.parametrize("packer", [bytes, gzip.compress, zstd], ids=["plain", "gzip", "zstd"])
def test_small_files_fill_whole_pages(tmp_path: Path, packer: Callable[[bytes], bytes]) -> None:
    entries = [Entry(f"f{n}", Kind.FILE, source=Bytes(b"x" * (n % 7))) for n in range(5000)]
    entries.append(Entry("link", Kind.SYMLINK, target="f1"))
    out = io.BytesIO()
    cpio.write(entries[:3000], out)
    cpio.write(entries[3000:], out)
    image = tmp_path / "i"
    image.write_bytes(packer(out.getvalue()))
    used = sum(entry.size > 0 for entry in entries) * 4096
    assert memory.held_size(image) == cpio.memory(entries) == used > 2 * memory.unpacked_size(image)


def test_memory_that_cannot_hold_the_image_is_refused_with_the_reason(tmp_path: Path) -> None:
    large = sparse_cpio(tmp_path / "b", 800 * MIB)
    with pytest.raises(InputError, match=r"1024 MB of memory cannot hold this image: .* 801 MB, .* half") as refused:
        memory.memory_for(large, "", 1024)
    enough = int(refused.value.hint.split("--mem ")[1].split()[0])
    assert memory.memory_for(large, "", enough).mib == enough


# -- disks


@pytest.mark.parametrize(
    ("text", "size"), [("1", 1 << 30), ("10G", 10 << 30), ("5M", 5 * MIB), ("5m", 5 * MIB), ("2GB", 2 << 30)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text, "G") == size


@pytest.mark.parametrize("text", ["", "0", "x", "-1", "1.5G", "1T", "9999999999", "G"])
def test_bad_sizes(text: str) -> None:
    with pytest.raises(ValueError):
        parse_size(text, "G")


@pytest.mark.parametrize(
    ("text", "message"),
    [("sise=1G", "unknown disk config: sise"), ("format=raw", "no size or name"), ("size=abc", "not a size"),
     ("", "empty path"), ("file=,size=1", "empty path")],
)  # fmt: skip
def test_bad_disks(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_disk(text)


def test_disks_are_made_sparse_and_kept(tmp_path: Path) -> None:
    wanted = [parse_disk("size=1G"), parse_disk("size=5M"), parse_disk(f"file={tmp_path}/x,size=1M")]
    made = make_disks(wanted, tmp_path)
    assert made == (Disk(tmp_path / "disk.img"), Disk(tmp_path / "disk1.img"), Disk(tmp_path / "x"))
    assert (tmp_path / "disk.img").stat().st_size == 1 << 30
    assert (tmp_path / "disk.img").stat().st_blocks < 100
    (tmp_path / "x").write_bytes(b"mine")
    assert make_disks(wanted, tmp_path) == made
    assert (tmp_path / "x").read_bytes() == b"mine"


def test_a_disk_that_is_not_there_needs_a_size(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        make_disks([parse_disk(str(tmp_path / "no.img"))], tmp_path)


def test_a_disk_is_never_probed_for_its_format(tmp_path: Path) -> None:
    (tmp_path / "d.img").write_bytes(b"QFI\xfb" + bytes(1000))
    with pytest.raises(InputError, match="looks like qcow2"):
        make_disks([parse_disk(str(tmp_path / "d.img"))], tmp_path)
    assert make_disks([parse_disk(f"{tmp_path}/d.img,format=raw")], tmp_path) == (Disk(tmp_path / "d.img"),)


def test_other_formats_need_qemu_img(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError, match="qemu-img is needed") as missing:
        make_disks([parse_disk("size=1M,format=qcow2")], tmp_path)
    assert "qemu-utils" in missing.value.hint
    assert list(tmp_path.iterdir()) == []


# -- ports


def test_a_port_in_use_is_named_with_the_ways_out() -> None:
    with socket.socket() as used:
        used.bind(("127.0.0.1", 0))
        used.listen()
        number = used.getsockname()[1]
        with pytest.raises(HostError, match=f"port 127.0.0.1:{number}/tcp is in use") as refused:
            claim([Port(number, 80, "tcp", "127.0.0.1")])
        assert "0:80" in refused.value.hint
        with pytest.raises(HostError, match=f"port {number}/tcp is in use"):
            claim([Port(number, 80)])


def test_a_udp_port_in_use() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as used:
        used.bind(("127.0.0.1", 0))
        with pytest.raises(HostError, match="in use"):
            claim([Port(used.getsockname()[1], 53, "udp", "127.0.0.1")])


def test_port_0_is_a_free_one_and_never_the_same_twice() -> None:
    first, second = claim([Port(0, 80, "tcp", "127.0.0.1"), Port(0, 81, "tcp", "127.0.0.1")])
    assert first.host
    assert second.host
    assert first.host != second.host


def test_a_port_published_twice() -> None:
    (free,) = claim([Port(0, 80)])
    with pytest.raises(InputError, match="published twice"):
        claim([free, free])


def test_an_address_of_another_machine() -> None:
    with pytest.raises(HostError, match="cannot be published"):
        claim([Port(0, 80, "tcp", "192.0.2.1")])


# -- what to boot


X86 = bytes(0x202) + b"HdrS"


def files(folder: Path, name: str = "web", kernel: bytes = X86, cmdline: str = "console=ttyS0\n") -> str:
    prefix = str(folder / name)
    Path(f"{prefix}-kernel").write_bytes(kernel.ljust(1024, b"\0"))
    Path(f"{prefix}-initrd.img").write_bytes(ONE)
    Path(f"{prefix}-cmdline").write_text(cmdline)
    return prefix


def test_the_files_of_a_prefix(tmp_path: Path) -> None:
    found = bootfiles.find(files(tmp_path))
    assert found == bootfiles.BootFiles(tmp_path / "web-kernel", tmp_path / "web-initrd.img", "console=ttyS0", "x86_64")
    assert bootfiles.find(files(tmp_path, "arm", bytes(0x38) + b"ARM\x64")).arch == "aarch64"
    assert bootfiles.find(files(tmp_path, "odd", b"")).arch == ""


def test_what_was_looked_for_is_listed_and_a_near_name_offered(tmp_path: Path) -> None:
    prefix = files(tmp_path)
    with pytest.raises(InputError, match=r"wbe-kernel and .*wbe-initrd\.img") as typo:
        bootfiles.find(str(tmp_path / "wbe"))
    assert typo.value.hint == f"did you mean linuxkit run {prefix}?"
    Path(f"{prefix}-initrd.img").unlink()
    with pytest.raises(InputError, match=r"web-initrd\.img is missing"):
        bootfiles.find(prefix)


@pytest.mark.parametrize("end", ["-kernel", "-initrd.img", ".yml"])
def test_one_of_the_files_in_place_of_the_prefix(tmp_path: Path, end: str) -> None:
    prefix = files(tmp_path)
    with pytest.raises(InputError) as wrong:
        bootfiles.find(prefix + end)
    assert wrong.value.hint == f"give the prefix only: linuxkit run {prefix}"


def test_yaml_that_was_not_built(tmp_path: Path) -> None:
    (tmp_path / "web.yml").write_text("")
    for name in ("web", "web.yml"):
        with pytest.raises(InputError) as wrong:
            bootfiles.find(str(tmp_path / name))
        assert f"linuxkit build {tmp_path}/web.yml" in wrong.value.hint


# -- the state folder


def test_the_card_keeps_its_address(tmp_path: Path) -> None:
    address = mac_address(tmp_path)
    assert mac_address(tmp_path) == address
    assert int(address[:2], 16) & 3 == 2
    assert (tmp_path / "mac-addr").read_text() == address
    assert (tmp_path / "mac-addr").stat().st_mode & 0o777 == 0o640 & ~_umask()
    (tmp_path / "mac-addr").write_text("garbage")
    assert mac_address(tmp_path) != "garbage"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_two_machines_do_not_share_a_folder(tmp_path: Path) -> None:
    with StateLock(tmp_path), pytest.raises(HostError, match="is running with"):
        StateLock(tmp_path)
    StateLock(tmp_path).close()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HostError, match="cannot be made"):
        make_state(tmp_path / "file" / "state")


def test_prepare_says_what_it_chose(tmp_path: Path) -> None:
    fake = tmp_path / "qemu"
    fake.write_text("")
    fake.chmod(0o755)
    prepared = prepare(Request(files(tmp_path, cmdline="quiet"), publish=("127.0.0.1:0:80",), qemu=fake, accel="tcg"))
    with prepared.lock:
        port = prepared.spec.ports[0].host
        assert prepared.notes == (
            "acceleration: tcg,thread=single (as asked)",
            "memory: 1024 MB (the image unpacks to 1 MB)",
            f"published: 127.0.0.1:{port} -> port 80/tcp of the machine",
            "note: the kernel command line has no console=ttyS0, so the console stays empty",
        )
        assert prepared.state == tmp_path / "web-state"


def test_nothing_is_written_for_a_request_that_is_refused(tmp_path: Path) -> None:
    prefix = files(tmp_path)
    before = sorted(tmp_path.iterdir())
    for bad in (
        Request(prefix, publish=("x",)), Request(prefix, disks=("size=x",)), Request(prefix, memory=64),
        Request(prefix, arch="arm64"), Request(prefix, networking="none", publish=("0:80",)),
    ):  # fmt: skip
        with pytest.raises(InputError):
            prepare(bad)
    assert sorted(tmp_path.iterdir()) == before


# -- the data CD


def test_the_data_image_has_the_layout_of_linuxkits() -> None:
    image = config_iso.config_image(b"hello")
    assert len(image) == 22 * 2048
    assert image[16 * 2048 : 16 * 2048 + 6] == b"\x01CD001"
    assert image[17 * 2048 : 17 * 2048 + 6] == b"\xffCD001"
    assert image[16 * 2048 + 40 : 16 * 2048 + 72] == b"config".ljust(32)
    assert image[21 * 2048 :] == b"hello".ljust(2048, b"\0")
    assert b"config" in image[20 * 2048 : 21 * 2048]
    assert b";1" not in image[20 * 2048 : 21 * 2048]
    assert image == config_iso.config_image(b"hello")
