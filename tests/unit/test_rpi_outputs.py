"""Cards for the Raspberry Pi: what is on them, and what is refused."""

from __future__ import annotations

import io
import struct
import tarfile
from pathlib import Path

import pytest

from linuxkit.oci.media import Platform
from linuxkit.oci.store import Store
from linuxkit.packages.kit import Kit
from support.builds import linuxkit
from support.efi import program
from support.fatread import read_volume
from support.images import make_image, member, tar_of

pytestmark = pytest.mark.unit
TEXT = """\
kernel:
  image: t/kernel:1
  cmdline: console=ttyS1,115200
files: [{path: init, contents: "#!", mode: "0755"}]
"""
NOTHING = "files: [{path: a, contents: b}]\n"
ARM64 = Platform("linux", "arm64")
FIRMWARE = {"bootcode.bin", "start.elf", "fixup.dat", "start4.elf", "fixup4.dat"}
BOARDS = {"bcm2837-rpi-3-b.dtb", "bcm2711-rpi-4-b.dtb", "bcm2712-rpi-5-b.dtb"}


def kernel() -> bytes:
    made = bytearray(program(0xAA64, b"kernel" * 5000))
    made[56:60] = b"ARM\x64"
    return bytes(made)


def image(store: Store, name: str, **files: bytes) -> None:
    make_image(store, f"docker.io/t/{name}:1", tar_of(*(member(f, data) for f, data in files.items())), platform=ARM64)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = Store(tmp_path_factory.mktemp("rpi") / "cache")
    boards = {f"usr/lib/linux-image-1/broadcom/{name}": name.encode() for name in BOARDS}
    others = {"usr/lib/linux-image-1/broadcom/bcm4906-netgear-r8000p.dtb": b"?", "kernel.tar": tar_of()}
    image(store, "kernel", kernel=kernel(), **boards, **others)
    image(store, "bare", kernel=kernel(), **{"kernel.tar": tar_of()})
    image(store, "other", kernel=b"vmlinuz" * 300, **{"kernel.tar": tar_of()}, **boards)
    files = [member(f"usr/lib/raspi-firmware/{name}", name.encode()) for name in FIRMWARE]
    files.append(member("usr/share/doc/raspi-firmware/copyright", b"(c)"))
    make_image(store, Kit(store, store.root / "kit").reference("rpi-boot"), tar_of(*files), platform=ARM64)
    return store.root


def build(folder: Path, cache: Path, *arguments: str, text: str = TEXT, check: bool = True, arch: str = "arm64"):
    (folder / "x.yml").write_text(text)
    return linuxkit("build", "--arch", arch, "--offline", *arguments, "x.yml", cwd=folder, cache=cache, check=check)


def test_a_card(tmp_path: Path, cache: Path) -> None:
    build(tmp_path, cache, "-f", "rpi,rpi3,kernel+initrd")
    card = (tmp_path / "x-rpi.img").read_bytes()
    active, kind, first, sectors = struct.unpack_from("<B3xB3xII", card, 446)
    assert (active, kind, first) == (0, 0x0C, 2048)
    volume = read_volume(card[first * 512 : (first + sectors) * 512])
    assert (volume.bits, volume.label) == (32, "LINUXKIT")
    found = volume.files
    assert set(found) == FIRMWARE | BOARDS | {
        "config.txt", "cmdline.txt", "kernel8.img", "initrd.img", "firmware-copyright.txt",
    }  # fmt: skip
    assert found["kernel8.img"] == kernel()
    assert found["initrd.img"] == (tmp_path / "x-initrd.img").read_bytes()
    assert found["cmdline.txt"] == b"console=ttyS1,115200\n"
    assert {b"arm_64bit=1", b"kernel=kernel8.img", b"initramfs initrd.img followkernel"} <= {
        *found["config.txt"].splitlines()
    }
    with tarfile.open(fileobj=io.BytesIO((tmp_path / "x.tar").read_bytes())) as archive:
        assert archive.getnames() == sorted(found)
        assert {m.name: archive.extractfile(m).read() for m in archive} == found  # type: ignore[union-attr]


def test_it_repeats(tmp_path: Path, cache: Path) -> None:
    made = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        build(tmp_path / name, cache, "-f", "rpi")
        made.append((tmp_path / name / "x-rpi.img").read_bytes())
    assert made[0] == made[1]


REFUSED = {
    "amd64": ({"arch": "amd64", "text": NOTHING}, "a Raspberry Pi is an arm64 machine", "--arch arm64"),
    "no boards": ({"text": TEXT.replace("t/kernel", "t/bare")}, "no description of a Raspberry Pi", "kit://kernel-rpi"),
    "no kernel": ({"text": NOTHING}, "a card needs a kernel", "kernel:"),
    "another kernel": ({"text": TEXT.replace("t/kernel", "t/other")}, "is not a Linux kernel for arm64", "kernel-rpi"),
    "long": ({"text": TEXT.replace("console", "x" * 1600)}, "there is room for 1535", "shorten"),
    "lines": ({"text": TEXT.replace("console=ttyS1,115200", '"a\\nb"')}, "is not one line", "one line"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_no_pi_would_start(tmp_path: Path, cache: Path, case: str) -> None:
    how, message, hint = REFUSED[case]
    refused = build(tmp_path, cache, "-f", "rpi", "--no-preflight", check=False, **how)  # type: ignore[arg-type]
    assert refused.returncode in (1, 2)
    assert message in refused.stderr and hint in refused.stderr
    assert not (tmp_path / "x-rpi.img").exists()
