"""Layouts and images that other tools write: platforms side by side, labels that are wrong, names as uname has them."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from linuxkit.cli.main import cli
from linuxkit.errors import ImageError, InputError
from linuxkit.oci import document as doc
from linuxkit.oci.archive import import_archive, open_archive
from linuxkit.oci.container import Archive
from linuxkit.oci.media import OCI_INDEX, OCI_MANIFEST, Platform, go_architecture
from linuxkit.oci.store import Store
from linuxkit.oci.unpack import Bounds, unpack
from support.builds import linuxkit
from support.images import ARM64, make_image, member, tar_of

pytestmark = pytest.mark.unit
AMD64 = Platform("linux", "amd64")
REF = "org.opencontainers.image.ref.name"


def manifest(layout: Path, made_for: Platform, content: bytes, architecture: str = "", **more: Any) -> dict[str, Any]:
    """An image in a layout; its descriptor."""
    store = Store(layout)
    image = make_image(store, "docker.io/t/x:1", tar_of(member("a", content)), platform=made_for)
    data = json.loads(store.blob_path(image.digest).read_bytes())
    if architecture:
        whole = json.loads(store.blob_path(data["config"]["digest"]).read_bytes()) | {"architecture": architecture}
        kept = store.put_blob(json.dumps(whole).encode(), data["config"]["mediaType"])
        data["config"] = doc.descriptor_document(kept)
    kept = store.put_blob(json.dumps(data).encode(), OCI_MANIFEST)
    return doc.descriptor_document(kept) | more


def listed(layout: Path, *descriptors: dict[str, Any]) -> Path:
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": list(descriptors)}))
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return layout


def platforms(layout: Path, name: str = "", spelled: tuple[str, str] = ("amd64", "arm64")) -> Path:
    """The layout as apko and paketo write it."""
    more = {"annotations": {REF: name}} if name else {}
    return listed(layout, *(
        manifest(layout, platform, word.encode(), platform={"os": "linux", "architecture": word}, **more)
        for platform, word in zip((AMD64, ARM64), spelled, strict=True)
    ))  # fmt: skip


@pytest.mark.parametrize("spelled", [("amd64", "arm64"), ("x86_64", "aarch64")])
def test_an_index_that_lists_platforms_is_one_image(tmp_path: Path, spelled: tuple[str, str]) -> None:
    layout, store = platforms(tmp_path / "layout", spelled=spelled), Store(tmp_path / "cache")
    digests = set()
    for platform in (AMD64, ARM64):
        image = open_archive(store, "oci", str(layout), platform)
        assert image.platform == platform and all(store.has_blob(layer) for layer in image.layers)
        digests.add(image.digest)
    assert len(digests) == 2
    with pytest.raises(ImageError, match="no variant for linux/riscv64"):
        open_archive(store, "oci", str(layout), Platform("linux", "riscv64"))


@pytest.mark.parametrize("name", ["", "docker.io/t/app:1"])
def test_it_is_imported_as_one(tmp_path: Path, name: str) -> None:
    layout, store = platforms(tmp_path / "layout", name), Store(tmp_path / "cache")
    names = import_archive(store, layout, "" if name else "t/app:1")
    assert names == ["docker.io/t/app:1"]
    top = store.find("docker.io/t/app:1")
    assert top is not None and top.media_type == OCI_INDEX
    assert {store.image(top, "x", p).digest for p in (AMD64, ARM64)} == {
        d["digest"] for d in json.loads((layout / "index.json").read_text())["manifests"]
    }  # fmt: skip


def attestation(layout: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """What BuildKit hangs on a manifest, as far as an index says it."""
    data = Store(layout).put_blob(b'{"schemaVersion": 2, "layers": []}', OCI_MANIFEST)
    return doc.descriptor_document(data) | {"platform": {"os": "unknown", "architecture": "unknown"},
                                            "annotations": {"vnd.docker.reference.digest": manifest["digest"]}}


@pytest.mark.parametrize("name", ["", "docker.io/t/app:1"])
def test_platforms_may_be_left_to_the_configurations(tmp_path: Path, name: str) -> None:
    layout, store = tmp_path / "layout", Store(tmp_path / "cache")
    more = {"annotations": {REF: name}} if name else {}
    listed(layout, *(manifest(layout, p, p.architecture.encode(), **more) for p in (AMD64, ARM64)))
    for platform in (AMD64, ARM64):
        assert open_archive(store, "oci", str(layout), platform).platform == platform
    assert import_archive(store, layout, "" if name else "t/app:1") == ["docker.io/t/app:1"]
    top = store.find("docker.io/t/app:1")
    assert top is not None and store.image(top, "x", ARM64).platform == ARM64


@pytest.mark.parametrize("made_for", [[AMD64], [AMD64, ARM64]])
def test_attestations_beside_the_platforms(tmp_path: Path, made_for: list[Platform]) -> None:
    layout, store = tmp_path / "layout", Store(tmp_path / "cache")
    images = [manifest(layout, p, p.architecture.encode(), platform={"os": "linux", "architecture": p.architecture})
              for p in made_for]  # fmt: skip
    listed(layout, *images, *(attestation(layout, image) for image in images))
    for platform, image in zip(made_for, images, strict=True):
        assert open_archive(store, "oci", str(layout), platform).digest == image["digest"]


def test_different_images_are_still_several(tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    two = [manifest(layout, AMD64, word, platform={"os": "linux", "architecture": "amd64"}) for word in (b"1", b"2")]
    for those in (two, [{k: v for k, v in d.items() if k != "platform"} for d in two]):
        listed(layout, *those)
        with pytest.raises(InputError, match="it holds 2 images"):
            open_archive(Store(tmp_path / "cache"), "oci", str(layout), AMD64)
    with pytest.raises(InputError, match="it holds 2 images"):
        open_archive(Store(tmp_path / "cache"), "oci", str(layout), AMD64)
    listed(layout, *(d | {"annotations": {REF: "docker.io/t/app:1"}} for d in two))
    store = Store(tmp_path / "cache")
    assert import_archive(store, layout) == ["docker.io/t/app:1"]  # of one name the first counts, as in LinuxKit
    top = store.find("docker.io/t/app:1")
    assert top is not None and top.digest == two[0]["digest"]


@pytest.mark.parametrize(("spelled", "go"), [("x86_64", "amd64"), ("aarch64", "arm64"), ("AArch64", "arm64"),
                                             ("armv7l", "arm"), ("i686", "386"), ("amd64", "amd64"), ("s390x", "s390x"),
                                             ("", ""), ("sparc64", "sparc64")])  # fmt: skip
def test_spellings_of_architectures(spelled: str, go: str) -> None:
    assert go_architecture(spelled) == go


@pytest.mark.parametrize("architecture", ["x86_64", "amd64"])
def test_a_configuration_may_spell_it_as_uname_does(tmp_path: Path, architecture: str) -> None:
    layout = tmp_path / "layout"
    listed(layout, manifest(layout, AMD64, b"x", architecture))
    store = Store(tmp_path / "cache")
    assert open_archive(store, "oci", str(layout), AMD64).config.architecture == "amd64"
    with pytest.raises(ImageError, match="is for linux/amd64, not for linux/arm64"):
        open_archive(store, "oci", str(layout), ARM64)


def test_a_manifest_that_is_called_an_index_is_a_manifest(tmp_path: Path) -> None:
    """As LinuxKit's own `cache export --format oci` labels it; a build from what was imported goes through."""
    layout, cache = tmp_path / "layout", tmp_path / "cache"
    wrong = manifest(layout, AMD64, b"hello", mediaType=OCI_INDEX, annotations={REF: "docker.io/t/app:1"})
    listed(layout, wrong)
    done = linuxkit("cache", "import", str(layout), cwd=tmp_path, cache=cache)
    assert done.returncode == 0
    top = Store(cache).find("docker.io/t/app:1")
    assert top is not None and top.media_type == OCI_MANIFEST
    (tmp_path / "a.yml").write_text("init: [t/app:1]\n")
    linuxkit("build", "--offline", "--arch", "amd64", "--format", "tar", "--o", "a.tar", "a.yml", cwd=tmp_path,
             cache=cache)  # fmt: skip
    assert b"hello" in (tmp_path / "a.tar").read_bytes()
    assert open_archive(Store(tmp_path / "other"), "oci", str(layout), AMD64).digest == wrong["digest"]
    index = listed(layout, doc.descriptor_document(Store(layout).put_blob(
        doc.encode({"schemaVersion": 2, "manifests": [wrong]}), OCI_INDEX)))  # fmt: skip
    assert open_archive(Store(tmp_path / "other"), "oci", str(index), AMD64).digest == wrong["digest"]


def test_layers_of_zeros(tmp_path: Path) -> None:
    """By ratio and by size; and what is known is let in by its size."""
    packed = gzip.compress(bytes(20 << 20), 9)

    def size(bounds: Bounds) -> int:
        return sum(map(len, unpack(io.BytesIO(packed), len(packed), "x", bounds)))

    assert size(Bounds()) == size(Bounds(20 << 20, 20 << 20)) == size(Bounds(free=0, ratio=2000)) == 20 << 20
    for bounds in (Bounds((20 << 20) - 1, 20 << 20), Bounds(free=19 << 20, ratio=200)):
        with pytest.raises(ImageError, match="decompresses to more than") as caught:
            size(bounds)
        assert "--max-layer SIZE" in caught.value.hint


def test_max_layer_of_archives_and_exports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compressed archive is held to the same; what it is let in with is a flag of that command."""
    cache, layout = tmp_path / "cache", tmp_path / "layout"
    make_image(Store(layout), "docker.io/t/zeros:1", tar_of(member("zeros", bytes(3 << 20))))
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        for name in ("oci-layout", "index.json", "blobs"):
            tar.add(layout / name, name)
        zeros = tarfile.TarInfo("zeros")
        zeros.size = 2 << 20
        tar.addfile(zeros, io.BytesIO(bytes(zeros.size)))
    call = partial(linuxkit, cwd=tmp_path, cache=cache, check=False)
    with pytest.raises(ImageError, match="decompresses to more than 1048576") as caught:
        Archive(tmp_path / "a.tar.gz", tmp_path, Bounds(1 << 20, 1 << 20))
    assert "--max-layer SIZE" in caught.value.hint
    with Archive(tmp_path / "a.tar.gz", tmp_path, Bounds(1 << 20, 1 << 20).widened(9 << 20)) as archive:
        assert archive.has("index.json")
    assert call("cache", "import", "a.tar.gz").returncode == 0
    export = ["cache", "export", "t/zeros:1", "--platform", "linux/amd64", "--format", "filesystem", "--outfile", "x"]
    done = call(*export, "--max-layer", "2M")
    assert done.returncode == 1 and "more than 2097152 bytes" in done.stderr
    assert call(*export, "--max-layer", "4M").returncode == 0
    assert (tmp_path / "x").stat().st_size > 3 << 20
    monkeypatch.setattr("linuxkit.oci.archive.BOUNDS", Bounds(1 << 20, 1 << 20))
    (tmp_path / "a.yml").write_text(f"init: ['oci-archive:{tmp_path}/a.tar.gz']\n")
    build = ["build", "--offline", "--arch", "amd64", "--format", "tar", "--o", f"{tmp_path}/a.tar"]
    for words in (["cache", "import", f"{tmp_path}/a.tar.gz"], [*build, f"{tmp_path}/a.yml"]):
        for size, good in (("", False), ("9M", True)):
            flag = ["--max-layer", size] if size else []
            done = CliRunner().invoke(cli, ["--cache", str(cache), *words, *flag])
            assert (done.exit_code == 0) is good, done.exception
            assert good or "decompresses to more than" in str(done.exception)


def test_max_layer_of_build(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    make_image(Store(cache), "docker.io/t/zeros:1", tar_of(member("zeros", bytes(3 << 20))))
    (tmp_path / "a.yml").write_text("init: [t/zeros:1]\n")
    args = ["build", "--offline", "--arch", "amd64", "--format", "tar", "--o", "a.tar", "a.yml", "--max-layer"]
    done = linuxkit(*args, "2M", cwd=tmp_path, cache=cache, check=False)
    assert done.returncode == 1 and "more than 2097152 bytes" in done.stderr
    done = linuxkit(*args, "lots", cwd=tmp_path, cache=cache, check=False)
    assert done.returncode == 2 and "is not a size" in done.stderr
    linuxkit(*args, "20G", cwd=tmp_path, cache=cache)


def test_of_two_entries_with_one_name_the_first_counts(tmp_path: Path) -> None:
    store = Store(tmp_path / "cache")
    one, two = (make_image(store, f"docker.io/t/{n}:1", tar_of(member("a", n.encode()))) for n in ("one", "two"))
    index = json.loads((store.root / "index.json").read_text())
    for entry in index["manifests"]:
        entry["annotations"][REF] = "docker.io/t/same:1"
    (store.root / "index.json").write_text(json.dumps(index))
    found = Store(store.root).find("docker.io/t/same:1")
    assert found is not None and found.digest == index["manifests"][0]["digest"]
    assert one.digest != two.digest


def test_options_in_front_of_the_command_of_pkg_builder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "docker").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/said\n')
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    for words in (["--builder-name", "mine", "du"], ["du", "--builder-name", "mine"]):
        linuxkit("pkg", "builder", "--engine", "buildx", *words, cwd=tmp_path, cache=tmp_path / "cache")
    one, two = [line for line in (tmp_path / "said").read_text().splitlines() if "du" in line.split()]
    assert one == two and "mine" in one


def test_microcode_that_is_not_there(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    make_image(Store(cache), "docker.io/t/kernel:1", tar_of(member("kernel", b"k")))
    (tmp_path / "a.yml").write_text("kernel: {image: t/kernel:1, tar: none, ucode: gone.cpio}\n")
    done = linuxkit("build", "--offline", "--no-preflight", "a.yml", cwd=tmp_path, cache=cache, check=False)
    assert done.returncode != 0 and "gone.cpio" in done.stderr and "microcode" in done.stderr
