"""Bundles: the same build from one file, and files that are no bundle or mean harm."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from linuxkit import api
from linuxkit.bundling import make_bundle
from linuxkit.errors import ImageError
from linuxkit.locking import make_lock
from linuxkit.oci.bundle import MANIFEST, Bundle
from linuxkit.oci.media import OCI_LAYER, OCI_MANIFEST, Platform
from linuxkit.oci.store import Store
from linuxkit.packages.kit import Kit
from linuxkit.plan.model import Options
from support.builds import YAML, files_in, linuxkit, make_cache
from support.images import ARM64, digest, directory, make_image, member, put, symlink, tar_of
from support.mirror import Mirror, kit, mirror

pytestmark = pytest.mark.unit
__all__ = ["kit", "mirror"]  # fixtures
AMD64 = Platform("linux", "amd64")
MORE = """\
  - {path: etc/s, source: s}
  - {path: etc/none, source: not-there, optional: true}
"""


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return make_cache(tmp_path)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "web.yml").write_text(YAML + MORE)
    (folder / "s").write_text("a file of this machine")
    return folder


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """Another machine's folder; its cache is `cache` in it."""
    folder = tmp_path / "there"
    folder.mkdir()
    return folder


def outputs(folder: Path) -> dict[str, bytes]:
    return {name: data for name, data in files_in(folder).items() if name.startswith("web-")}


def build(there: Path, bundle: Path, *arguments: str, code: int = 0) -> str:
    done = linuxkit("build", "--offline", "--bundle", bundle, *arguments, cwd=there, cache=there / "cache", check=False)
    assert done.returncode == code, done.stderr
    return done.stderr


def members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        return {m.name: archive.extractfile(m).read() for m in archive if m.isfile()}  # type: ignore[union-attr]


def test_the_same_build_elsewhere(work: Path, cache: Path, there: Path) -> None:
    store = Store(cache)
    make_image(store, "docker.io/t/plain:1", tar_of(directory("p"), member("p/f", b"plain" * 999)))
    plain = tar_of(directory("q"), member("q/g", b"q" * 9999))
    layer = put(store, plain, OCI_LAYER)  # uncompressed: it cannot be read in place
    store.put_image("docker.io/t/raw:1", AMD64, {"rootfs": {"diff_ids": [digest(plain)]}}, [layer])
    (work / "sub").mkdir()
    linuxkit("cache", "export", "--outfile", "sub/tool.tar", "t/tool:1", cwd=work, cache=cache)
    text = YAML.replace("- name: data", "- name: data\n    image: t/plain:1\n    format: oci")
    (work / "web.yml").write_text(text.replace("t/tool:1", "oci-archive:sub/tool.tar") + MORE)
    (work / "more.yml").write_text("init: [t/raw:1]\n")
    linuxkit("build", "--name", "web", "web.yml", "more.yml", cwd=work, cache=cache)
    linuxkit("bundle", "--name", "web", "-o", "x.tar", "web.yml", "more.yml", "--offline", cwd=work, cache=cache)
    build(there, work / "x.tar")
    assert outputs(there) == outputs(work)
    assert Store(there / "cache").names() == []
    kept = [p.name for p in (there / "cache/blobs/sha256").iterdir()]
    assert layer.digest[7:] in kept
    manifest = store.find("docker.io/t/app:1")
    assert manifest is not None
    assert manifest.digest[7:] not in kept  # read in place
    first = outputs(there)
    build(there, work / "x.tar")  # from what is cached now
    assert outputs(there) == first
    linuxkit("cache", "import", work / "x.tar", cwd=there, cache=there / "other")


def test_the_bytes_repeat_and_go_to_a_pipe(work: Path, cache: Path) -> None:
    linuxkit("bundle", "--offline", "-o", "a.tar", "web.yml", cwd=work, cache=cache)
    linuxkit("build", "web.yml", cwd=work, cache=cache)  # things in the cache that do not matter
    make_image(Store(cache), "docker.io/t/other:1", tar_of(member("x")))
    piped = subprocess.run(
        [sys.executable, "-m", "linuxkit", "-q", "--cache", cache, "bundle", "--offline", "-o", "-", "web.yml"],
        cwd=work, capture_output=True, check=True,
    )  # fmt: skip
    assert piped.stdout == (work / "a.tar").read_bytes()
    assert piped.stderr == b""
    found = members(work / "a.tar")
    assert all(hashlib.sha256(data).hexdigest() == name[13:] for name, data in found.items() if name[:5] == "blobs")
    assert set(found) - {f"blobs/sha256/{hashlib.sha256(d).hexdigest()}" for d in found.values()} == {
        "oci-layout", "index.json", MANIFEST,
    }  # fmt: skip


def test_it_is_an_image_layout(work: Path, cache: Path, there: Path) -> None:
    linuxkit("bundle", "--offline", "-o", "a.tar", "web.yml", cwd=work, cache=cache)
    done = linuxkit("cache", "import", work / "a.tar", cwd=there, cache=there / "cache")
    assert "docker.io/t/app:1" in done.stdout


def test_the_lock_and_the_platforms_of_a_bundle(work: Path, cache: Path, there: Path) -> None:
    linuxkit("lock", "web.yml", cwd=work, cache=cache)
    linuxkit("build", "web.yml", cwd=work, cache=cache)
    for name in ("app", "tool", "init", "kernel"):
        content = [member("kernel", b"k"), member("kernel.tar", tar_of(member("m")))] if name == "kernel" else []
        make_image(Store(cache), f"docker.io/t/{name}:1", tar_of(member("new", b"new"), *content), platform=ARM64)
    done = linuxkit("bundle", "--offline", "-o", "a.tar", "--arch", "arm64", "web.yml", cwd=work, cache=cache,
                    check=False)  # fmt: skip
    assert done.returncode == 2
    assert "for linux/amd64 only" in done.stderr
    linuxkit("bundle", "--offline", "-o", "a.tar", "web.yml", cwd=work, cache=cache)
    build(there, work / "a.tar")
    assert outputs(there) == outputs(work)
    linuxkit("bundle", "--offline", "--no-lock", "-o", "b.tar", "--arch", "amd64", "--arch", "arm64", "web.yml",
             cwd=work, cache=cache)  # fmt: skip
    build(there, work / "b.tar", "--arch", "arm64", "--name", "arm")
    assert (there / "arm-kernel").read_bytes() == b"k"
    assert "not for linux/arm64" in build(there, work / "a.tar", "--arch", "arm64", code=2)
    assert "cannot be used together" in build(there, work / "a.tar", "--no-lock", code=2)


def test_yaml_beside_the_bundle(work: Path, cache: Path, there: Path) -> None:
    linuxkit("bundle", "--offline", "-o", "a.tar", "web.yml", cwd=work, cache=cache)
    (there / "mine.yml").write_text("init: [t/init:1]\n")
    build(there, work / "a.tar", "mine.yml")
    assert (there / "mine-initrd.img").is_file()
    (there / "mine.yml").write_text("init: [t/other:1]\n")
    assert "docker.io/t/other:1 is not in" in build(there, work / "a.tar", "mine.yml", code=2)


def test_signatures_go_along(work: Path, cache: Path) -> None:
    store = Store(cache)
    top = store.find("docker.io/t/app:1")
    assert top is not None
    tag = f"docker.io/t/app:{top.digest.replace(':', '-')}.sig"
    config, layer = put(store, b"{}", "application/x"), put(store, b"payload", "application/y")
    manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": vars_of(config), "layers": [vars_of(layer)]}
    store.put_name(tag, store.put_blob(json.dumps(manifest).encode(), OCI_MANIFEST))
    linuxkit("bundle", "--offline", "-o", "a.tar", "web.yml", cwd=work, cache=cache)
    with_signature = Bundle(work / "a.tar", work)
    assert with_signature.size(layer.digest) == layer.size
    assert tag in [d.annotations["org.opencontainers.image.ref.name"] for d in with_signature.entries()]


def vars_of(descriptor: Any) -> dict[str, Any]:
    return {"mediaType": descriptor.media_type, "digest": descriptor.digest, "size": descriptor.size}


def test_kit_packages_go_along(tmp_path: Path, mirror: Mirror, kit: Callable[..., Kit]) -> None:
    (tmp_path / "web.yml").write_text("init: [kit://tool]\n")
    config = api.load(tmp_path / "web.yml")
    here = api.Sources(tmp_path / "a")
    here.__dict__["kit"] = kit("a")
    lock = make_lock(config, here, [AMD64])
    first = api.plan(config, here, Options("amd64"), lock)
    out = io.BytesIO()
    make_bundle(out, config, here, lock, name="web", platforms=[AMD64], packages={},
                documents=[("web.yml", (tmp_path / "web.yml").read_bytes())])  # fmt: skip
    (tmp_path / "x.tar").write_bytes(out.getvalue())
    mirror.stop()
    other = api.Sources(tmp_path / "b", offline=True, bundle=tmp_path / "x.tar")  # its own kit has no such package
    assert api.plan(config, other, Options("amd64"), lock).digest == first.digest


# -- what is no bundle, or means harm


def rewrite(path: Path, out: Path, change: Callable[[dict[str, bytes]], object]) -> Path:
    """Write a bundle again with other members."""
    found = members(path)
    change(found)
    with tarfile.open(out, "w") as archive:
        for name, data in found.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out


def edit(found: dict[str, bytes], **fields: Any) -> None:
    found[MANIFEST] = json.dumps(json.loads(found[MANIFEST]) | fields).encode()


def layer_of(found: dict[str, bytes]) -> str:
    return max((n for n in found if n.startswith("blobs/") and found[n].startswith(b"\x1f\x8b")),
               key=lambda n: len(found[n]))  # fmt: skip


def flip(found: dict[str, bytes], name: str) -> None:
    data = found[name]
    found[name] = data[:20] + bytes([data[20] ^ 1]) + data[21:]


def lock_of(found: dict[str, bytes]) -> str:
    return f"blobs/sha256/{json.loads(found[MANIFEST])['lock']['digest'][7:]}"


BLOB = {"digest": f"sha256:{'0' * 64}", "size": 3}


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        (lambda f: f.pop(MANIFEST), 2, "is no bundle"),
        (lambda f: f.pop("index.json"), 2, "is no bundle"),
        (lambda f: edit(f, version=2), 2, "has version 2, and this program reads version 1"),
        (lambda f: f.update({MANIFEST: b"[]"}), 1, "a JSON object is expected"),
        (lambda f: f.update({MANIFEST: b"{" * 9999}), 1, "not valid JSON"),
        (lambda f: f.update({MANIFEST: b" " * (17 << 20)}), 1, "larger than"),
        (lambda f: edit(f, documents=[]), 1, "it has no YAML"),
        (lambda f: edit(f, documents=[{"name": "x"} | BLOB]), 1, "has no file blobs/sha256/000"),
        (lambda f: edit(f, documents=[{"name": "x", "digest": "sha256:../../x", "size": 1}]), 1, "not a sha256 digest"),
        (lambda f: edit(f, lock=BLOB | {"size": 1 << 39}), 1, "more than"),
        (lambda f: edit(f, files={"s": 3}), 1, "files is not one"),
        (lambda f: flip(f, lock_of(f)), 1, "is damaged"),
        (lambda f: f.pop(layer_of(f)), 1, "missing"),
        (lambda f: flip(f, layer_of(f)), 1, "damaged"),
        (lambda f: f.update({layer_of(f): f[layer_of(f)][:-9]}), 1, ""),
        (lambda f: f.update({"../../evil": b"x", "/etc/evil": b"x"}), 1, "points outside the root"),
        (lambda f: f.update({"other/file": b"x"}), 0, ""),
    ],
)  # fmt: skip
def test_a_bundle_that_is_damaged_or_hostile(
    work: Path, cache: Path, there: Path, change: Callable[[dict[str, bytes]], object], code: int, says: str
) -> None:
    linuxkit("bundle", "--offline", "-o", "a.tar", "web.yml", cwd=work, cache=cache)
    path = rewrite(work / "a.tar", work / "b.tar", change)
    text = build(there, path, code=code)
    assert says in text
    assert bool(outputs(there)) == (code == 0)
    assert sorted(p.name for p in there.iterdir() if not p.name.startswith("web-")) in ([], ["cache"])


def test_a_file_that_is_cut_or_something_else(work: Path, cache: Path, there: Path) -> None:
    linuxkit("bundle", "--offline", "-o", "a.tar", "web.yml", cwd=work, cache=cache)
    data = (work / "a.tar").read_bytes()
    for n in (0, 100, 700, len(data) // 2, len(data) - 3000):
        (work / "b.tar").write_bytes(data[:n])
        done = linuxkit("build", "--bundle", work / "b.tar", cwd=there, cache=there / "cache", check=False)
        assert done.returncode in (1, 2), n
        assert outputs(there) == {}
    (work / "b.tar").write_bytes(b"no tar at all" * 99)
    build(there, work / "b.tar", code=1)
    assert "cannot read" in build(there, work / "none.tar", code=2)
    assert "no bundle" in build(there, export(work, cache), code=2)


def export(work: Path, cache: Path) -> Path:
    linuxkit("cache", "export", "--outfile", "tool.tar", "t/tool:1", cwd=work, cache=cache)
    return work / "tool.tar"


def test_a_link_in_a_bundle_is_not_followed_out_of_it(work: Path, cache: Path, there: Path) -> None:
    linuxkit("bundle", "--offline", "-o", "a.tar", "web.yml", cwd=work, cache=cache)
    found = members(work / "a.tar")
    name = lock_of(found)
    (there.parent / "secret").write_bytes(found.pop(name))
    (work / "b.tar").write_bytes(tar_of(*(member(n, d) for n, d in found.items()),
                                        symlink(name, str(there.parent / "secret"))))  # fmt: skip
    build(there, work / "b.tar", code=1)


def test_a_source_file_that_vanished(work: Path, cache: Path) -> None:
    (work / "s").unlink()
    done = linuxkit("bundle", "--offline", "-o", "a.tar", "web.yml", cwd=work, cache=cache, check=False)
    assert done.returncode in (1, 2)
    assert not (work / "a.tar").exists()
    with pytest.raises(ImageError):
        Bundle(work / "web.yml", work)
