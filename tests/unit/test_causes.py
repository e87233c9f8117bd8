"""Errors give the right cause and a cure that works, each once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from linuxkit.cli.main import main
from linuxkit.errors import ImageError, InputError, Problem
from linuxkit.oci.media import OCI_CONFIG, OCI_LAYER_GZIP, OCI_MANIFEST, Descriptor, Platform
from linuxkit.oci.select import read_image
from linuxkit.oci.store import Store
from support.builds import build, linuxkit, make_cache
from support.images import digest, make_image, member, symlink, tar_of

pytestmark = pytest.mark.unit
ARTIFACTS = "application/vnd.cncf.helm.config.v1+json", "application/vnd.oci.empty.v1+json"
NYDUS = {"containerd.io/snapshot/nydus-blob": "true"}


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return make_cache(tmp_path)


# -- packages of one's own


def test_a_package_that_is_not_built_is_named_with_the_command(tmp_path: Path, cache: Path) -> None:
    for name in ("app", "web"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "build.yml").write_text(f"image: {name}\ndebian: {{packages: [x], keep: [y]}}\n")
    (tmp_path / "x.yml").write_text('init: ["@pkg:./app"]\n')
    for flags in (("--offline",), ("--mirror", "docker.io=http://127.0.0.1:9")):
        done = linuxkit("build", *flags, "x.yml", cwd=tmp_path, cache=cache, check=False)
        assert done.returncode == 1
        assert "x.yml:1:8: init[0]: the package app is not built" in done.stderr
        assert done.stderr.splitlines()[-1] == "hint: build it: linuxkit pkg build app"
    done = build(tmp_path, cache, text='init: ["@pkg:./app", "@pkg:./web"]\n', check=False)
    assert done.stderr.splitlines()[-1] == "hint: build them: linuxkit pkg build app web"


def test_update_keeps_packages_that_only_this_machine_has(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app/build.yml").write_text("image: app\ndebian: {packages: [x], keep: [y]}\n")
    (tmp_path / "x.yml").write_text('init: ["@pkg:./app"]\n')
    done = linuxkit("lock", "x.yml", cwd=tmp_path, cache=cache, check=False)
    assert "the package app (docker.io/linuxkit/app:latest) is not built" in done.stderr
    make_image(Store(cache), "docker.io/linuxkit/app:latest", tar_of(member("init", b"1", mode=0o755)))
    linuxkit("lock", "--arch", "amd64", "x.yml", cwd=tmp_path, cache=cache)
    first = (tmp_path / "x.lock").read_bytes()
    nobody = ("--mirror", "docker.io=http://127.0.0.1:9")
    linuxkit(*nobody, "update", "x.yml", cwd=tmp_path, cache=cache)
    assert (tmp_path / "x.lock").read_bytes() == first
    make_image(Store(cache), "docker.io/linuxkit/app:latest", tar_of(member("init", b"2", mode=0o755)))
    assert "->" in linuxkit(*nobody, "update", "x.yml", cwd=tmp_path, cache=cache).stdout


# -- what is no image


def judged(config: str, *layers: Descriptor, artifact: str = "") -> str:
    blobs = {}

    def put(document: object) -> str:
        data = json.dumps(document).encode()
        blobs[digest(data)] = data
        return digest(data)

    inside = {"architecture": "amd64", "rootfs": {"diff_ids": ["sha256:" + "ab" * 32] * len(layers)}}
    manifest = {"schemaVersion": 2, "config": {"mediaType": config, "digest": put(inside), "size": 9},
                "layers": [{"mediaType": one.media_type, "digest": one.digest, "size": one.size,
                            "annotations": dict(one.annotations)} for one in layers]}  # fmt: skip
    top = Descriptor(OCI_MANIFEST, put(manifest | ({"artifactType": artifact} if artifact else {})), 9)
    try:
        read_image(lambda one, limit: blobs[one.digest], top, "example.com/x:1", Platform(), None)
    except ImageError as e:
        return e.message
    return ""


def layer(kind: str, **annotations: str) -> Descriptor:
    return Descriptor(kind, "sha256:" + "cd" * 32, 5, annotations=annotations)


def test_what_only_looks_like_an_image_is_called_what_it_is() -> None:
    assert judged(OCI_CONFIG, layer(OCI_LAYER_GZIP)) == ""
    for config in ARTIFACTS:
        assert f"is an artifact ({config}), not a container image" in judged(config, layer("text/plain"))
    assert "is an artifact (a/b)" in judged(ARTIFACTS[1], artifact="a/b")
    assert "is a nydus image" in judged(OCI_CONFIG, layer(OCI_LAYER_GZIP, **NYDUS))
    for kind in ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
                 "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"):  # fmt: skip
        assert "is a foreign (non-distributable) layer" in judged(OCI_CONFIG, layer(kind))
    assert "is encrypted" in judged(OCI_CONFIG, layer(OCI_LAYER_GZIP + "+encrypted"))
    assert "is not a container image" in judged(OCI_CONFIG, layer("application/vnd.dev.cosign.simplesigning.v1+json"))


def test_a_kernel_behind_a_link_is_found(tmp_path: Path, cache: Path) -> None:
    file = member("boot/vmlinuz-1", b"vmlinuz" * 300, mode=0o644)
    yaml = "kernel: {image: t/k:1}\ninit: [t/init:1]\n"
    for target in ("boot/vmlinuz-1", "/boot/vmlinuz-1", "boot/../boot/now"):
        links = (symlink("kernel", target), symlink("boot/now", "vmlinuz-1"))
        make_image(Store(cache), "docker.io/t/k:1", tar_of(file, *links, member("kernel.tar", tar_of())))
        build(tmp_path, cache, "--no-preflight", text=yaml)
        assert (tmp_path / "x-kernel").read_bytes() == b"vmlinuz" * 300
    for target in ("gone", "kernel", "boot"):
        make_image(Store(cache), "docker.io/t/k:1", tar_of(file, symlink("kernel", target)))
        done = build(tmp_path, cache, "--no-preflight", text=yaml, check=False)
        assert f"'kernel' in kernel image docker.io/t/k:1 is a link to {target}, which is no file" in done.stderr


# -- hints


def test_a_hint_that_many_have_stands_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    faults = [Problem(f"fault {n}", "a.yml", n, 1, hint="do this") for n in range(1, 15)]
    faults.append(Problem("other", "a.yml", 99, 1, hint="do that"))

    def fail(*args: object, **more: object) -> None:
        raise InputError("a.yml is wrong", problems=faults)

    monkeypatch.setattr("linuxkit.cli.main.cli.main", fail)
    with pytest.raises(SystemExit):
        main()
    said = capsys.readouterr().err
    assert said.count("do this") == 1
    assert said.count("do that") == 1
    assert "a.yml:99:1: other (do that)" in said


def test_the_hint_of_a_lock_ends_what_it_is_about(tmp_path: Path, cache: Path) -> None:
    """`lock`, then `build --format raw`: the command of the hint names a format that brings the boot loaders."""
    from linuxkit.outputs.table import FORMATS, loaders
    from linuxkit.plan.asked import LOADER_FORMATS

    assert set(LOADER_FORMATS) == set(loaders(FORMATS.values(), rooted=True))
    assert all(name in loaders([FORMATS[made]], rooted=True) for name, made in LOADER_FORMATS.items())
    (tmp_path / "x.yml").write_text("init: [t/init:1]\nkernel: {image: t/kernel:1}\n")
    linuxkit("lock", "--offline", "--arch", "amd64", "x.yml", cwd=tmp_path, cache=cache)
    done = linuxkit("build", "--offline", "--arch", "amd64", "--format", "raw", "x.yml", cwd=tmp_path, cache=cache,
                    check=False)  # fmt: skip
    assert done.returncode == 2
    assert "linuxkit update --format raw-efi --format raw-bios x.yml" in done.stderr
    linuxkit("bundle", "--offline", "--arch", "amd64", "-o", "b.tar", "x.yml", cwd=tmp_path, cache=cache)
    done = linuxkit("build", "--arch", "amd64", "--format", "raw-bios", "--bundle", "b.tar", cwd=tmp_path, cache=cache,
                    check=False)  # fmt: skip
    assert "linuxkit bundle --format raw-bios x.yml -o FILE" in done.stderr
