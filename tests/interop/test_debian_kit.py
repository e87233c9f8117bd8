"""The kit from the real archive, judged by others: dpkg-deb, the dynamic linker, busybox's depmod."""

from __future__ import annotations

import io
import json
import platform
import subprocess
import tarfile
from pathlib import Path

import pytest

from linuxkit.entry import Kind, read_all
from linuxkit.oci.media import Image, Platform
from linuxkit.oci.store import Store
from linuxkit.packages import apt, deb, sources
from linuxkit.packages.debian import Debian
from linuxkit.packages.kit import Kit
from support.debs import unzstd
from support.system import image_cache, linuxkit

pytestmark = pytest.mark.interop
AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")
KEYS = sorted((Path(apt.__file__).parent / "keys").glob("*.asc"))


def make(store: Path) -> Kit:
    return Kit(Store(store), image_cache() / "kit")


def layer(store: Path, image: Image) -> tarfile.TarFile:
    data = (store / "blobs/sha256" / image.layers[0].digest[7:]).read_bytes()
    return tarfile.open(fileobj=io.BytesIO(unzstd(data)))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[tuple[str, str], Image]]:
    """Some packages for two architectures, made anew."""
    store = tmp_path_factory.mktemp("store")
    names = ["busybox", "crun", "nginx", "ca-certificates"]
    return store, {
        (one.name, where.architecture): one.image
        for where in (AMD64, ARM64) for one in make(store).ensure(names, where)
    }  # fmt: skip


def test_another_store_gets_the_same_images(tmp_path: Path, built: tuple[Path, dict[tuple[str, str], Image]]) -> None:
    for (name, where), image in built[1].items():
        assert make(tmp_path).resolve(name, Platform("linux", where)).digest == image.digest


@pytest.mark.parametrize("name", ["crun", "nginx"])
def test_the_dynamic_linker_finds_every_library(
    tmp_path: Path, built: tuple[Path, dict[tuple[str, str], Image]], name: str
) -> None:
    where = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
    store, images = built
    with layer(store, images[name, where]) as tar:
        tar.extractall(tmp_path, filter="tar")
    (linker,) = [*tmp_path.glob("lib64/ld-*"), *tmp_path.glob("lib/ld-*")]
    (program,) = [*tmp_path.glob(f"usr/bin/{name}"), *tmp_path.glob(f"usr/sbin/{name}")]
    libraries = ":".join(str(p) for p in tmp_path.glob("usr/lib/*-linux-gnu"))
    done = subprocess.run([linker, "--library-path", libraries, "--list", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = [line.split("=>")[1].split()[0] for line in done.stdout.splitlines() if "=>" in line]
    outside = [path for path in found if not path.startswith(str(tmp_path)) and "ld-linux" not in path]
    assert "not found" not in done.stdout
    assert found
    assert not outside


def test_programs_are_for_the_architecture_asked_for(built: tuple[Path, dict[tuple[str, str], Image]]) -> None:
    store, images = built
    for (name, where), path, interpreter in (
        (("crun", "amd64"), "usr/bin/crun", "lib64/ld-linux-x86-64.so.2"),
        (("crun", "arm64"), "usr/bin/crun", "lib/ld-linux-aarch64.so.1"),
    ):
        with layer(store, images[name, where]) as tar:
            stream = tar.extractfile(path)
            assert stream is not None
            assert int.from_bytes(stream.read(20)[18:], "little") == {"amd64": 62, "arm64": 183}[where]
            assert tar.getmember(interpreter).isfile()


def test_every_image_has_its_licences_and_no_documentation(built: tuple[Path, dict[tuple[str, str], Image]]) -> None:
    store, images = built
    for image in images.values():
        packages = [p.partition("=")[0] for p in image.config.labels["org.linuxkit.debian.packages"].split()]
        with layer(store, image) as tar:
            names = [m.name for m in tar.getmembers() if not m.isdir()]
        docs = {n for n in names if n.startswith("usr/share/doc/")}
        assert docs == {f"usr/share/doc/{p}/copyright" for p in packages}
        assert not [n for n in names if n.startswith(("usr/share/man", "usr/share/locale", "usr/share/info"))]


def test_the_certificates_are_those_of_the_package(built: tuple[Path, dict[tuple[str, str], Image]]) -> None:
    import ssl

    store, images = built
    with layer(store, images["ca-certificates", "amd64"]) as tar:
        stream = tar.extractfile("etc/ssl/certs/ca-certificates.crt")
        assert stream is not None
        bundle = stream.read().decode()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=bundle)
    assert len(context.get_ca_certs()) == bundle.count("BEGIN CERTIFICATE") > 100


def test_packages_are_read_as_dpkg_reads_them(tmp_path: Path) -> None:
    root = image_cache() / "kit/debian"
    transport = apt.Apt(root / "interop-amd64", sources.of_host(), "trixie", "amd64", KEYS)
    debian = Debian(root, transport, architecture="amd64")
    names = ["base-files", "libc6", "busybox-static", "perl-base"]  # links, hard links, set-user-id, odd modes
    packages = [p for p in debian.closure(names) if p.name in names]
    for name, path in debian.fetch(packages).items():
        ours = deb.unpack(path, tmp_path / name)
        theirs = subprocess.run(["dpkg-deb", "--fsys-tarfile", path], capture_output=True, check=True).stdout
        with tarfile.open(fileobj=io.BytesIO(theirs)) as tar:
            members = {m.name.removeprefix("./").rstrip("/"): m for m in tar if m.name not in (".", "./")}
            assert set(members) == set(ours)
            for where, member in members.items():
                node = ours[where]
                assert (node.mode, node.uid, node.gid, node.size) == (
                    member.mode, member.uid, member.gid, member.size if member.isreg() else 0
                )  # fmt: skip
                if node.kind is Kind.SYMLINK:
                    assert node.target == member.linkname
                stream = tar.extractfile(member) if member.isreg() else None
                if stream is not None:
                    assert read_all(node.source, 1 << 30) == stream.read()


def test_the_module_index_is_what_depmod_makes(tmp_path: Path) -> None:
    """busybox's depmod, out of the kit itself."""
    store = image_cache()
    kernel, busybox = (one.image for one in Kit(Store(store), store / "kit").ensure(["kernel", "busybox"], AMD64))
    with layer(store, busybox) as tar:
        tar.extract("bin/busybox", tmp_path, filter="tar")
    with layer(store, kernel) as tar:
        stream = tar.extractfile("kernel.tar")
        assert stream is not None
        with tarfile.open(fileobj=stream) as modules:
            modules.extractall(tmp_path, filter="tar")
    version = kernel.config.labels["org.linuxkit.kernel.version"]
    folder = tmp_path / "lib/modules" / version
    ours = {name: (folder / name).read_text() for name in ("modules.dep", "modules.alias")}
    subprocess.run([tmp_path / "bin/busybox", "depmod", "-b", tmp_path, version], check=True, capture_output=True)
    theirs = {name: (folder / name).read_text() for name in ours}

    def needs(text: str) -> dict[str, set[str]]:
        out = {}
        for line in text.splitlines():
            path, _, rest = line.partition(":")
            out[path.rpartition("/")[2]] = {p.rpartition("/")[2] for p in rest.split()}
        return out

    assert len(needs(ours["modules.dep"])) > 500
    assert needs(ours["modules.dep"]) == needs(theirs["modules.dep"])

    def aliases(text: str) -> set[tuple[str, str]]:
        return {(pattern, name.replace("-", "_")) for kind, pattern, name in map(str.split, text.splitlines())
                if kind == "alias"}  # fmt: skip

    assert aliases(ours["modules.alias"]) == aliases(theirs["modules.alias"])


def test_the_bill_of_materials_of_a_disk_has_its_boot_loader_and_the_c_library(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text("kernel: {image: kit://kernel}\ninit: [kit://init]\n")
    made = json.loads(linuxkit("sbom", "--for", "raw-efi", "--arch", "amd64", "a.yml", cwd=tmp_path).stdout)
    found = {p["name"]: p for p in made["packages"]}
    assert {"musl", "systemd-boot-efi", "ziglang"} <= set(found)
    bare = json.loads(linuxkit("sbom", "--arch", "amd64", "a.yml", cwd=tmp_path).stdout)
    assert "systemd-boot-efi" not in {p["name"] for p in bare["packages"]}
    texts = [i["extractedText"] for i in made["hasExtractedLicensingInfos"]]
    assert any("\n" in text and len(text) > 300 for text in texts)
