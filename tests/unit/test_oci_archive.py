"""Layouts and `docker save` archives as sources, the resolver, and `linuxkit cache`."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from linuxkit.errors import ImageError, InputError
from linuxkit.oci.archive import import_archive, split_path
from linuxkit.oci.derived import Derived
from linuxkit.oci.export import export_image
from linuxkit.oci.layer import LayerCache
from linuxkit.oci.media import OCI_INDEX, OCI_MANIFEST, Image, Platform
from linuxkit.oci.resolve import Resolver
from linuxkit.oci.store import Store
from support.images import AMD64, ARM64, digest, directory, hardlink, make_image, member, symlink, tar_of, write_layout

pytestmark = pytest.mark.unit
TAR = tar_of(directory("bin"), member("bin/app", b"app", mode=0o755))
UPPER = tar_of(member("bin/.wh.app"), member("bin/new", b"new"), hardlink("bin/also", "bin/new"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    """A layout of two images, one of them for two platforms."""
    other = Store(tmp_path / "layout")
    make_image(other, "test/one:1", TAR, platform=ARM64)
    make_image(other, "test/one:1", TAR, UPPER)
    make_image(other, "test/two:1", TAR, config={"Cmd": ["two"]})
    return other.root


def tar_directory(root: Path, target: Path) -> Path:
    with tarfile.open(target, "w") as archive:
        archive.add(root, ".")
    return target


def saved(target: Path, *, repo_tags: list[str] | None, tars: tuple[bytes, ...] = (TAR, UPPER), links: bool = False,
          **changes: object) -> Path:  # fmt: skip
    """What `docker save` writes."""
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {"Cmd": ["x"]},
                         "rootfs": {"type": "layers", "diff_ids": [digest(t) for t in tars]}}).encode()  # fmt: skip
    name = hashlib.sha256(config).hexdigest() + ".json"
    names = [f"{n}/layer.tar" for n in range(len(tars))]
    entry = {"Config": name, "RepoTags": repo_tags, "Layers": names} | changes
    files = [(member(n, t)) for n, t in zip(names, tars, strict=True)]
    if links:  # a layer that is there twice, as old versions wrote it
        files[0] = symlink(names[0], "../real/layer.tar")
        files.append(member("real/layer.tar", tars[0]))
    target.write_bytes(tar_of(member(name, config), *files, member("manifest.json", json.dumps([entry]).encode())))
    return target


def resolve(store: Store, text: str, platform: Platform = AMD64) -> Image:
    return Resolver(store).resolve(text, platform)


def paths(store: Store, image: Image) -> list[str]:
    layers = LayerCache(store, Derived(store.root / "derived"))
    return [e.path for layer in layers.image_entries(image) for e in layer]


# -- sources in YAML


def test_a_layout_directory_or_archive(store: Store, layout: Path, tmp_path: Path) -> None:
    archive = tar_directory(layout, tmp_path / "layout.tar")
    (tmp_path / "layout.tgz").write_bytes(gzip.compress(archive.read_bytes()))
    for source in (f"oci:{layout}", f"oci-archive:{archive}", f"oci-archive:{tmp_path}/layout.tgz"):
        image = resolve(store, f"{source}:docker.io/test/one:1")
        assert image.reference == f"{source}:docker.io/test/one:1"
        assert paths(store, image) == ["bin", "bin/app", "bin/.wh.app", "bin/new", "bin/also"]
        assert resolve(store, f"{source}:test/one:1", ARM64).platform == ARM64
        assert resolve(store, f"{source}:test/two:1").config.cmd == ("two",)
        with pytest.raises(InputError, match="it holds 2 images") as caught:
            resolve(store, source)
        assert "docker.io/test/two:1" in caught.value.hint
        with pytest.raises(InputError, match="no image 'nope'"):
            resolve(store, f"{source}:nope")
    assert store.names() == []


def test_paths_with_colons(tmp_path: Path) -> None:
    (tmp_path / "a:b").mkdir()
    assert split_path(f"{tmp_path}/a:b") == (tmp_path / "a:b", "")
    assert split_path(f"{tmp_path}/a:b:docker.io/x/y:1") == (tmp_path / "a:b", "docker.io/x/y:1")
    for missing in ("", f"{tmp_path}/c:1"):
        with pytest.raises(InputError):
            split_path(missing)


@pytest.mark.parametrize("links", [False, True])
def test_docker_save(store: Store, tmp_path: Path, links: bool) -> None:
    path = saved(tmp_path / "x.tar", repo_tags=["app:1", "app:2"], links=links)
    for text in (f"docker-archive:{path}", f"docker-archive:{path}:app:2"):
        image = resolve(store, text)
        assert paths(store, image) == ["bin", "bin/app", "bin/.wh.app", "bin/new", "bin/also"]
        assert image.config.cmd == ("x",)
    with pytest.raises(InputError, match="no image 'app:3'"):
        resolve(store, f"docker-archive:{path}:app:3")
    with pytest.raises(ImageError, match="is for linux/amd64"):
        resolve(store, f"docker-archive:{path}", ARM64)


@pytest.mark.parametrize(("change", "words"), [
    ({"Config": "../../etc/passwd"}, "no file"), ({"Config": 5}, "string"), ({"Layers": ["0/layer.tar"]}, "do not fit"),
    ({"Layers": ["0/layer.tar", "nope"]}, "no file"), ({"Layers": ["1/layer.tar", "0/layer.tar"]}, "damaged"),
    ({"Layers": ["/etc/passwd", "/etc/passwd"]}, "no file"), ({"RepoTags": "A B"}, "invalid image name"),
])  # fmt: skip
def test_docker_save_that_lies(store: Store, tmp_path: Path, change: dict[str, object], words: str) -> None:
    path = saved(tmp_path / "x.tar", repo_tags=["app:1"], **change)
    with pytest.raises((ImageError, InputError), match=words):
        resolve(store, f"docker-archive:{path}:app:1")


def test_a_layout_that_lies(store: Store, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b'{"schemaVersion": 2}')
    fake = {"mediaType": OCI_MANIFEST, "digest": digest(b'{"schemaVersion": 2}'), "size": 20}
    write_layout(tmp_path / "evil", [], {"manifests": [fake]})
    blob = tmp_path / "evil" / "blobs" / "sha256" / str(fake["digest"])[7:]
    blob.symlink_to(tmp_path / "secret")
    with pytest.raises(ImageError, match="cannot read"):
        resolve(store, f"oci:{tmp_path}/evil")
    blob.unlink()
    blob.write_bytes(b"something else here!")
    with pytest.raises(ImageError, match="damaged"):
        resolve(store, f"oci:{tmp_path}/evil")
    archive = tar_of(symlink("index.json", "/etc/passwd"), symlink("oci-layout", "../../x"))
    (tmp_path / "evil.tar").write_bytes(archive)
    with pytest.raises(ImageError, match=r"no file index\.json"):
        resolve(store, f"oci-archive:{tmp_path}/evil.tar")


def test_an_archive_of_which_a_layer_is_damaged(store: Store, layout: Path, tmp_path: Path) -> None:
    image = resolve(Store(layout), "test/two:1")
    path = Store(layout).blob_path(image.layers[0].digest)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    archive = tar_directory(layout, tmp_path / "x.tar")
    for source in (f"oci:{layout}", f"oci-archive:{archive}"):
        with pytest.raises(ImageError, match="damaged"):
            resolve(store, f"{source}:test/two:1")
    with pytest.raises(ImageError, match="damaged"):
        import_archive(store, archive)
    assert not store.blob_path(image.layers[0].digest).exists()
    archive.write_bytes(archive.read_bytes()[:-9000])
    with pytest.raises(ImageError, match="cut short"):
        import_archive(store, archive)


@pytest.mark.parametrize("scheme", ["oci", "oci-archive", "docker-archive"])
def test_something_that_is_no_image(store: Store, tmp_path: Path, scheme: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").write_text("hello " * 200)
    os.mkfifo(tmp_path / "pipe")
    for name in ("empty", "text", "pipe", "missing"):
        with pytest.raises((InputError, ImageError), match=name):
            resolve(store, f"{scheme}:{tmp_path}/{name}")


# -- the resolver


class Kit:
    """A source of its own."""

    def __init__(self, store: Store) -> None:
        self.store, self.asked = store, list[str]()

    def resolve(self, rest: str, platform: Platform) -> Image:
        self.asked.append(rest)
        return make_image(self.store, f"linuxkit.kit/{rest}:abc", TAR, platform=platform)


def test_a_scheme_goes_to_its_source_once(store: Store) -> None:
    kit = Kit(store)
    resolver = Resolver(store, {"kit": kit})
    assert resolver.resolve("kit://sshd", AMD64) == resolver.resolve("kit://sshd", AMD64)
    assert kit.asked == ["sshd"]
    with pytest.raises(InputError, match="'https://'") as caught:
        resolver.resolve("https://ghcr.io/a", AMD64)
    assert "kit://" in caught.value.hint


def test_what_is_missing_is_explained(store: Store) -> None:
    make_image(store, "nginx:1.27", TAR)
    for text, near in (("nginx:1.26", "nginx:1.27"), ("nignx:1.27", "nginx:1.27"), ("redis", "cache import")):
        with pytest.raises(ImageError, match=str(store.root)) as caught:
            Resolver(store).resolve(text, AMD64)
        assert near in caught.value.hint
    with pytest.raises(ImageError, match="--offline"):
        Resolver(store, offline=True).resolve("redis", AMD64)


# -- import and export


def test_import_takes_names_from_containerd_and_full_ones(store: Store, layout: Path, tmp_path: Path) -> None:
    archive = tar_directory(layout, tmp_path / "x.tar")
    assert import_archive(store, archive) == ["docker.io/test/one:1", "docker.io/test/two:1"]
    assert resolve(store, "test/one:1", ARM64).platform == ARM64
    index = json.loads((layout / "index.json").read_text())
    index["manifests"] = [index["manifests"][1] | {"annotations": {
        "io.containerd.image.name": "ghcr.io/x/y:7", "org.opencontainers.image.ref.name": "7"}}]  # fmt: skip
    (layout / "index.json").write_text(json.dumps(index))
    assert import_archive(store, layout) == ["ghcr.io/x/y:7"]
    index["manifests"][0]["annotations"].pop("io.containerd.image.name")
    (layout / "index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="has a name") as caught:
        import_archive(store, layout)
    assert "--name" in caught.value.hint
    assert import_archive(store, layout, "mine") == ["docker.io/library/mine:latest"]
    with tar_directory(layout, archive).open("rb") as stream:
        assert import_archive(store, stream, "piped:1") == ["docker.io/library/piped:1"]
    assert resolve(store, "piped:1").config.cmd == ("two",)


def test_import_of_an_index_of_which_only_one_platform_is_there(store: Store, layout: Path) -> None:
    """As docker save of a multi-platform image on one machine."""
    image = resolve(Store(layout), "test/one:1", ARM64)
    Store(layout).blob_path(image.digest).unlink()
    assert "docker.io/test/one:1" in import_archive(store, layout)
    assert paths(store, resolve(store, "test/one:1"))
    with pytest.raises(ImageError):
        resolve(store, "test/one:1", ARM64)


def test_import_of_docker_save(store: Store, tmp_path: Path) -> None:
    path = saved(tmp_path / "x.tar", repo_tags=["app:1", "localhost:5000/app:2"])
    assert import_archive(store, path) == ["docker.io/library/app:1", "localhost:5000/app:2"]
    assert paths(store, resolve(store, "app:1"))
    unnamed = saved(tmp_path / "y.tar", repo_tags=None)
    with pytest.raises(InputError, match="has a name"):
        import_archive(store, unnamed)
    assert import_archive(store, unnamed, "z:1") == ["docker.io/library/z:1"]


@pytest.mark.parametrize("kind", ["oci", "docker"])
def test_what_is_exported_can_be_imported(store: Store, layout: Path, tmp_path: Path, kind: str) -> None:
    source = Store(layout)
    image = resolve(source, "test/one:1")
    outs = []
    for _ in range(2):
        out = io.BytesIO()
        export_image(source, LayerCache(source, Derived(tmp_path / "d")), image, out, kind, "new/name:3")
        outs.append(out.getvalue())
    assert outs[0] == outs[1]
    assert import_archive(store, io.BytesIO(outs[0])) == ["docker.io/new/name:3"]
    again = resolve(store, "new/name:3")
    assert paths(store, again) == paths(source, image)
    assert again.digest == image.digest or kind == "docker"


def test_export_of_the_filesystem(layout: Path, tmp_path: Path) -> None:
    source = Store(layout)
    out = io.BytesIO()
    image = resolve(source, "test/one:1")
    export_image(source, LayerCache(source, Derived(tmp_path / "d")), image, out, "filesystem", "x")
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as archive:
        assert archive.getnames() == ["bin", "bin/new", "bin/also"]
        also = archive.extractfile("bin/also")
        assert also is not None
        assert also.read() == b"new"


def test_export_notices_damage(layout: Path, tmp_path: Path) -> None:
    source = Store(layout)
    image = resolve(source, "test/two:1")
    path = source.blob_path(image.layers[0].digest)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    for kind in ("oci", "docker", "filesystem"):
        with pytest.raises(ImageError, match="damaged"):
            export_image(source, LayerCache(source, Derived(tmp_path / "d")), image, io.BytesIO(), kind, "x")


def test_a_manifest_with_foreign_layers_is_kept_as_it_is(store: Store, tmp_path: Path) -> None:
    """Attestations are manifests too; they are imported with the image that they belong to."""
    layer = b'{"predicate": {}}'
    config = json.dumps({"architecture": "unknown", "rootfs": {"diff_ids": [digest(layer)]}}).encode()
    manifest = json.dumps({"schemaVersion": 2, "config": {"digest": digest(config), "size": len(config)}, "layers": [
        {"mediaType": "application/vnd.in-toto+json", "digest": digest(layer), "size": len(layer)},
    ]}).encode()  # fmt: skip
    item = {"mediaType": OCI_MANIFEST, "digest": digest(manifest), "size": len(manifest),
            "platform": {"os": "unknown", "architecture": "unknown"}}  # fmt: skip
    index = json.dumps({"schemaVersion": 2, "manifests": [item]}).encode()
    top = {"mediaType": OCI_INDEX, "digest": digest(index), "size": len(index)}
    write_layout(tmp_path / "l", [layer, config, manifest, index], {"manifests": [top]})
    import_archive(store, tmp_path / "l", "a:1")
    assert store.blob_path(digest(layer)).read_bytes() == layer
    with pytest.raises(ImageError, match="no variant for linux/amd64"):
        resolve(store, "a:1")


# -- the command


def run(*args: str, stdin: bytes = b"") -> tuple[int, bytes, str]:
    """(exit status, standard output, standard error) of linuxkit in a process of its own."""
    import subprocess
    import sys

    done = subprocess.run([sys.executable, "-m", "linuxkit", *args], input=stdin, capture_output=True, timeout=60)
    assert b"Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr.decode()


def test_the_cache_command(layout: Path, tmp_path: Path) -> None:
    cache = ("--cache", str(tmp_path / "cache"), "cache")
    assert run(*cache, "ls") == (0, b"", "")
    archive = tar_directory(layout, tmp_path / "x.tar")
    both = b"docker.io/test/one:1\ndocker.io/test/two:1\n"
    assert run(*cache, "import", "-", stdin=archive.read_bytes())[:2] == (0, both)
    status, out, _ = run(*cache, "ls")
    assert status == 0
    names, digests = zip(*(line.split("\t") for line in out.decode().splitlines()), strict=True)
    assert names == ("docker.io/test/one:1", "docker.io/test/two:1")
    assert all(d.startswith("sha256:") for d in digests)
    target = tmp_path / "fs.tar"
    assert run(*cache, "export", "--platform", "linux/arm64", "--format", "filesystem", "--outfile", str(target),
               "test/one:1")[0] == 0  # fmt: skip
    with tarfile.open(target) as written:
        assert written.getnames() == ["bin", "bin/app"]
    status, out, _ = run(*cache, "export", "--platform", "linux/amd64", "--outfile", "-", "--name", "n:1", "test/one:1")
    assert run("--cache", str(tmp_path / "c2"), "cache", "import", "-", stdin=out)[1] == b"docker.io/library/n:1\n"
    where = ("--outfile", str(tmp_path / "no"))
    status, _, text = run(*cache, "export", "--platform", "linux/s390x", *where, "test/one:1")
    assert (status, "linux/amd64, linux/arm64" in text, (tmp_path / "no").exists()) == (1, True, False)
    assert run(*cache, "export", "--platform", "linux", "--outfile", "-", "test/one:1")[0] == 2
    assert run(*cache, "rm", "test/nope:1")[0] == 2
    assert run(*cache, "rm", "test/two:1")[0] == 0
    assert run(*cache, "ls")[1].count(b"\n") == 1
    assert run(*cache, "import", str(tmp_path / "missing"))[0] == 2
    assert run(*cache, "clean")[0] == 0
    assert not (tmp_path / "cache").exists()


