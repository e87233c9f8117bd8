"""The formats that are disk files and archives: what a build writes, what it keeps, what it refuses."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import tarfile
import zlib
from pathlib import Path

import pytest

from linuxkit.encode.pieces import Piece, literal
from linuxkit.entry import Entry, Extent, Kind
from linuxkit.oci.derived import Derived
from linuxkit.oci.store import Store
from linuxkit.outputs import disks
from linuxkit.outputs.build import Build
from linuxkit.outputs.kept import key_of, sha256
from support.bios import add_bios
from support.builds import build, files_in, linuxkit, make_cache
from support.efi import add_efi

pytestmark = pytest.mark.unit
MIB, GIB = 1 << 20, 1 << 30
FILES = {
    "qcow2-bios": "x.qcow2", "qcow2-efi": "x-efi.qcow2", "aws": "x.raw", "gcp": "x.img.tar.gz", "vhd": "x.vhd",
    "vmdk": "x.vmdk", "vhdx": "x.vhdx", "ova": "x.ova", "oci": "x.oci.tar",
}  # fmt: skip


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_cache(tmp_path_factory.mktemp("disks"))
    add_efi(Store(root))
    add_bios(Store(root))
    return root


@pytest.fixture(scope="module")
def made(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one build of all of them writes, and the disks themselves."""
    folder = tmp_path_factory.mktemp("made")
    build(folder, cache, "-f", ",".join(FILES), "-f", "raw,raw-efi")
    found = files_in(folder)
    assert set(found) == {*FILES.values(), "x.img", "x-efi.img", "x.yml"}
    return found


def members(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {m.name: archive.extractfile(m).read() for m in archive if m.isfile()}  # type: ignore[union-attr]


def test_the_disk_inside_is_the_one_of_raw(made: dict[str, bytes]) -> None:
    disk = made["x.img"]
    assert made["x.raw"] == disk
    assert made["x.vhd"][:-512] == disk
    assert made["x.qcow2"] != made["x-efi.qcow2"]
    assert disk[450] == 0xEE and disk[:6] == b"gptmbr"  # BIOS code in front of a GPT
    assert made["x-efi.img"][:440] == bytes(440)


def test_google_gets_whole_gibibytes_with_the_second_table_at_the_end(made: dict[str, bytes]) -> None:
    front = zlib.decompressobj(31).decompress(made["x.img.tar.gz"], 512 + 33 * MIB)
    info = tarfile.TarInfo.frombuf(front[:512], "utf-8", "strict")
    assert (info.name, info.size) == ("disk.raw", GIB)
    disk = front[512:]
    assert disk[512:520] == b"EFI PART"
    assert struct.unpack_from("<Q", disk, 512 + 32)[0] == GIB // 512 - 1  # the place of the second one
    assert disk[MIB:] == made["x.img"][MIB : 33 * MIB]


def test_an_ova_describes_what_is_in_it(made: dict[str, bytes]) -> None:
    found = members(made["x.ova"])
    assert list(found) == ["x.ovf", "x.mf", "x.vmdk"]
    assert found["x.vmdk"] == made["x.vmdk"]
    wanted = {n: hashlib.sha256(d).hexdigest() for n, d in found.items() if n != "x.mf"}
    assert found["x.mf"].decode() == "".join(f"SHA256({n})= {d}\n" for n, d in wanted.items())
    assert f'ovf:size="{len(made["x.vmdk"])}"'.encode() in found["x.ovf"]
    assert f'ovf:capacity="{len(made["x.img"])}"'.encode() in found["x.ovf"]


def test_a_container_image(made: dict[str, bytes]) -> None:
    found = members(made["x.oci.tar"])
    for name, data in found.items():
        if name.startswith("blobs/"):
            assert name == f"blobs/sha256/{hashlib.sha256(data).hexdigest()}"
    (top,) = json.loads(found["index.json"])["manifests"]
    assert top["annotations"]["io.containerd.image.name"] == "docker.io/library/x:latest"
    assert top["platform"] == {"os": "linux", "architecture": "amd64"}

    def blob(descriptor: dict) -> bytes:
        data = found[f"blobs/sha256/{descriptor['digest'][7:]}"]
        assert len(data) == descriptor["size"]
        return data

    manifest = json.loads(blob(top))
    config = json.loads(blob(manifest["config"]))
    (layer,) = manifest["layers"]
    assert config["rootfs"] == {"type": "layers", "diff_ids": [layer["digest"]]}
    assert (config["architecture"], config["os"]) == ("amd64", "linux")
    assert config["config"]["Entrypoint"] == ["/bin/rc.init"]
    assert "etc/motd" in members(blob(layer)) and "boot/kernel" not in members(blob(layer))


def test_a_container_image_of_a_file_with_an_odd_name(tmp_path: Path, cache: Path) -> None:
    build(tmp_path, cache, "-f", "oci", "--name", "Odd Name")
    (top,) = json.loads(members((tmp_path / "Odd Name.oci.tar").read_bytes())["index.json"])["manifests"]
    assert top["annotations"] == {"org.opencontainers.image.ref.name": "latest"}


def test_the_program_reads_its_own_images(tmp_path: Path, cache: Path) -> None:
    build(tmp_path, cache, "-f", "oci")
    (tmp_path / "y.yml").write_text("init:\n  - oci-archive:x.oci.tar\n")
    linuxkit("build", "--arch", "amd64", "--offline", "--no-sbom", "--o", "y.tar", "y.yml", cwd=tmp_path, cache=cache)
    assert members((tmp_path / "y.tar").read_bytes())["etc/motd"] == b"hello"


def test_two_formats_with_one_name(tmp_path: Path, cache: Path) -> None:
    refused = build(tmp_path, cache, "-f", "vhd,dynamic-vhd", check=False)
    assert refused.returncode == 2
    assert "vhd and dynamic-vhd both write x.vhd" in refused.stderr
    assert list(files_in(tmp_path)) == ["x.yml"]


def test_a_dynamic_vhd(tmp_path: Path, cache: Path, made: dict[str, bytes]) -> None:
    build(tmp_path, cache, "-f", "dynamic-vhd")
    data = (tmp_path / "x.vhd").read_bytes()
    assert data[:8] == b"conectix" and data[512:520] == b"cxsparse"
    assert struct.unpack_from(">Q", data, 48)[0] == len(made["x.img"])


def test_what_is_compressed_is_kept(tmp_path: Path, cache: Path, made: dict[str, bytes]) -> None:
    def kept() -> dict[str, int]:
        return {p.name: p.stat().st_mtime_ns for p in (cache / "derived" / "disks").iterdir() if p.suffix != ".ok"}

    before = kept()
    for number, formats in enumerate(("vmdk", "ova", "gcp", "oci", "vmdk,ova,vhdx")):
        folder = tmp_path / str(number)
        folder.mkdir()
        build(folder, cache, "-f", formats, "--level", "3")  # (other flags: not the shortcut)
        for name, data in files_in(folder).items():
            assert data == made[name], name
    assert kept() == before
    folder = tmp_path / "another name"
    folder.mkdir()
    build(folder, cache, "-f", "vmdk,ova,gcp", "--name", "other")
    digest_of_ova = 1  # the name is in the VMDK's head, so its digest is another
    assert len(kept()) == len(before) + digest_of_ova


@pytest.mark.parametrize("kind", ["zlib", "zstd"])
def test_compressed_qcow2(tmp_path: Path, cache: Path, made: dict[str, bytes], kind: str) -> None:
    build(tmp_path, cache, "-f", "qcow2-bios,qcow2-efi", "--qcow2-compress", kind)
    data = files_in(tmp_path)
    for name in ("x.qcow2", "x-efi.qcow2"):
        assert len(data[name]) < len(made[name])
        assert data[name][104] == {"zlib": 0, "zstd": 1}[kind]
    assert build(tmp_path, cache, "-f", "qcow2-efi", "--qcow2-compress", "lzma", check=False).returncode == 2


SIZES = {"qcow2-bios": 24, "qcow2-efi": 24}  # where the header has the disk's size


@pytest.mark.parametrize("name", SIZES)
def test_a_size_that_is_asked_for(tmp_path: Path, cache: Path, name: str) -> None:
    build(tmp_path, cache, "-f", name, "--size", "3G")
    data = (tmp_path / FILES[name]).read_bytes()
    assert struct.unpack_from(">Q", data, SIZES[name])[0] == 3 * GIB
    refused = build(tmp_path, cache, "-f", name, "--size", "20M", check=False)
    assert refused.returncode == 2 and "its content needs" in refused.stderr
    assert (tmp_path / FILES[name]).read_bytes() == data


def test_google_rounds_a_size_up(tmp_path: Path, cache: Path) -> None:
    build(tmp_path, cache, "-f", "gcp", "--size", "1100M")
    with tarfile.open(tmp_path / "x.img.tar.gz") as archive:
        assert archive.next().size == 2 * GIB  # type: ignore[union-attr]


def test_arm64_has_disks_for_uefi(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    add_efi(Store(cache), "arm64")
    (tmp_path / "x.yml").write_text("kernel:\n  image: t/kernel:1\n")
    formats = "aws,raw-efi,ova,qcow2-bios,qcow2-efi"
    linuxkit("build", "--arch", "arm64", "--offline", "-f", formats, "x.yml", cwd=tmp_path, cache=cache)
    assert (tmp_path / "x.raw").read_bytes() == (tmp_path / "x-efi.img").read_bytes()
    assert (tmp_path / "x.qcow2").read_bytes() == (tmp_path / "x-efi.qcow2").read_bytes()
    assert b'vmw:key="firmware" vmw:value="efi"' in (tmp_path / "x.ova").read_bytes()


# -- keys


class Roots:
    """As much of a Build as `kept` looks at."""

    def __init__(self, root: Path) -> None:
        self.content, self.derived = self, Derived(root / "derived")
        self.store = Store(root)

    @property
    def build(self) -> Build:
        return self  # type: ignore[return-value]


def test_keys_depend_on_content_and_not_on_places(tmp_path: Path) -> None:
    one, two = Roots(tmp_path / "a").build, Roots(tmp_path / "b").build

    def piece(root: Path, at: int = 5) -> Piece:
        return Piece(10, str(root / "derived" / "segments" / "sha256-x"), at)

    keys = [key_of(b, [piece(tmp_path / n), literal(b"x")], ["f"]) for b, n in ((one, "a"), (two, "b"))]
    assert keys[0] == keys[1]
    others = [
        key_of(one, [piece(tmp_path / "a", 6), literal(b"x")], ["f"]),
        key_of(one, [piece(tmp_path / "a"), literal(b"y")], ["f"]),
        key_of(one, [piece(tmp_path / "a"), Piece(1)], ["f"]),
        key_of(one, [piece(tmp_path / "a"), literal(b"x")], ["g"]),
    ]
    assert len({keys[0], *others}) == 5


def test_a_file_from_elsewhere_is_known_by_its_content(tmp_path: Path) -> None:
    build, path = Roots(tmp_path / "a").build, tmp_path / "file"
    keys = []
    for content in (b"one", b"two", b"one"):
        path.write_bytes(content)
        keys.append(key_of(build, [Piece(3, str(path))], []))
        assert sha256(build, [Piece(3, str(path))]) == hashlib.sha256(content).hexdigest()
    assert keys[0] == keys[2] != keys[1]


@pytest.mark.parametrize(("root", "least"), [("", 1280), ("squashfs", 1024)])
def test_the_machine_of_an_ova_has_room_for_its_root(root: str, least: int) -> None:
    class Fake:
        disk_root = root
        initrd = (Piece(100 * MIB),)

        def segments(self, *, boot: bool) -> list[object]:
            return [self]

        def entries(self) -> list[Entry]:
            return [Entry("a", Kind.FILE, source=Extent("", 0, 400 * MIB - 5000))]

    assert disks._memory(Fake()) == least  # type: ignore[arg-type]
