"""Packages by Debian's Buildah, on base images from our cache; indexes pushed to Debian's docker-registry, read by
skopeo."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from linuxkit.oci.archive import open_archive
from linuxkit.oci.derived import Derived
from linuxkit.oci.layer import LayerCache
from linuxkit.oci.media import Image
from linuxkit.oci.merge import merge_layers
from linuxkit.oci.store import Store
from support.images import AMD64, make_image, member, tar_of
from support.packages import Repository, files, git, image
from support.packages import repository as repository
from support.peers import docker_registry, skopeo, tool
from support.system import image_cache, linuxkit

pytestmark = pytest.mark.interop
BUILDAH = ("--engine", "buildah")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with docker_registry(tmp_path_factory.mktemp("registry")) as host:
        yield host


@pytest.fixture
def buildah(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Buildah with a storage of its own, that needs no OCI runtime."""
    tool("buildah")
    conf = tmp_path / "storage.conf"
    conf.write_text(f'[storage]\ndriver = "vfs"\ngraphroot = "{tmp_path}/graph"\nrunroot = "{tmp_path}/run"\n')
    monkeypatch.setenv("CONTAINERS_STORAGE_CONF", str(conf))
    monkeypatch.setenv("BUILDAH_ISOLATION", "chroot")


@pytest.fixture(scope="session")
def shell() -> str:
    """The store's name of an image with a shell: the kit's busybox."""
    done = linuxkit("kit", "build", "busybox", "--arch", "amd64")
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[-1].partition("@")[0]


def test_files_copied_by_buildah_for_two_architectures(repository: Repository, registry: str, buildah: None) -> None:
    org = f"{registry}/copies"
    repository.put({
        "lib/x.h": "header\n", "tool/in.txt": "in\n", "tool/Dockerfile": "FROM scratch\nCOPY in.txt lib/x.h /etc/\n",
        "tool/build.yml": f"image: tool\norg: {org}\narches: [amd64, arm64]\nextra-sources: ['../lib:lib']\n"
                          "config: {capabilities: [CAP_CHOWN]}\n",
    })  # fmt: skip
    done = repository.pkg("build", "--push", "tool", *BUILDAH)
    name = done.stdout.partition("@")[0]
    for arch in ("amd64", "arm64"):
        made = image(repository, name, arch)
        assert files(repository, made) == {"etc/in.txt": b"in\n", "etc/x.h": b"header\n"}
        assert made.config.labels["org.mobyproject.config"] == '{"capabilities":["CAP_CHOWN"]}'
        assert made.config.labels["org.opencontainers.image.revision"] == git(repository.root, "rev-parse", "HEAD")
        there = json.loads(skopeo("inspect", "--tls-verify=false", "--config", f"docker://{name}-{arch}"))
        assert (there["architecture"], there["os"]) == (arch, "linux")
    index = json.loads(skopeo("inspect", "--tls-verify=false", "--raw", f"docker://{name}"))
    assert [m["platform"]["architecture"] for m in index["manifests"]] == ["amd64", "arm64"]
    again = repository.pkg("build", "--push", "tool", *BUILDAH)
    assert "building" not in again.stderr


def test_steps_run_by_buildah_on_images_of_the_cache(
    repository: Repository, registry: str, buildah: None, shell: str, tmp_path: Path
) -> None:
    store = Store(repository.cache)
    base = open_archive(store, "oci", f"{image_cache()}:{shell}", AMD64)
    found = store.find(f"me/base@{base.digest}")
    assert found is not None
    store.put_name("docker.io/me/base:1-amd64", replace(found, annotations={}))
    if why := _no_steps(repository.cache, base, tmp_path):
        pytest.skip(f"this machine lets no RUN step isolate itself: {why}")
    org = f"{registry}/steps"
    repository.put({
        "pkg/low/Dockerfile": "FROM me/base:1\nARG V\nRUN --mount=type=secret,id=s cat /run/secrets/s > /secret; "
                              "echo $V > /v; chmod 4755 /v; ln -s v /link\n",
        "pkg/low/build.yml": f"image: low\norg: {org}\narches: [amd64]\nbuildArgs: [V=five]\n",
        "pkg/top/Dockerfile": "ARG LOW\nFROM $LOW AS low\nFROM scratch\nCOPY --from=low /secret /v /\n",
        "pkg/top/build.yml": f"image: top\norg: {org}\narches: [amd64]\nbuildArgs: ['LOW=@lkt:pkg:../low']\n",
        "secret": "hush",
    })  # fmt: skip
    done = repository.pkg("build", "pkg/top", *BUILDAH, "--secret", "id=s,src=secret")
    assert files(repository, image(repository, done.stdout.partition("@")[0])) == {"secret": b"hush", "v": b"five\n"}
    assert done.stderr.index(f"built {org}/low") < done.stderr.index(f"building {org}/top")
    low = image(repository, f"{org}/low:{repository.tag('pkg/low')}")
    layers = LayerCache(store, Derived(store.root / "derived"))
    nodes = {e.path: e for e in merge_layers(layers.image_entries(low), where="test")}
    assert (nodes["v"].mode & 0o7777, nodes["link"].target) == (0o4755, "v")
    repository.put({"pkg/low/Dockerfile": "FROM me/base:1\nRUN exit 3\n"})
    failed = repository.pkg("build", "pkg/low", *BUILDAH, status=1)
    assert "buildah failed with exit status" in failed.stderr
    assert Store(repository.cache).find(f"{org}/low:{repository.tag('pkg/low')}") is None


def _no_steps(cache: Path, base: Image, folder: Path) -> str:
    """Why RUN steps cannot be isolated here; "" when they can."""
    layout = folder / "probe-layout"
    layout.mkdir()
    (layout / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (layout / "blobs").symlink_to(cache / "blobs")
    size = (cache / "blobs/sha256" / base.digest[7:]).stat().st_size
    kind = "application/vnd.oci.image.manifest.v1+json"
    (layout / "index.json").write_text(json.dumps(
        {"schemaVersion": 2, "manifests": [{"mediaType": kind, "digest": base.digest, "size": size}]}))  # fmt: skip
    (folder / "Probe").write_text("FROM probe\nRUN true\n")
    done = subprocess.run(
        ["buildah", "build", "--build-context", "probe=docker-image://oci:probe-layout", "--file", "Probe", "."],
        capture_output=True, text=True, cwd=folder, timeout=120,
    )  # fmt: skip
    return "" if done.returncode == 0 else done.stderr.strip().splitlines()[-1]


def test_images_that_a_build_finds_among_its_files(
    repository: Repository, registry: str, buildah: None, tmp_path: Path
) -> None:
    store = Store(repository.cache)
    pinned = []
    for name in ("one", "two"):
        dep = make_image(store, f"me/{name}:1", tar_of(member(name, name.encode())), tar_of(member("both")))
        assert dep.index is not None
        pinned.append(f"me/{name}@{dep.index.digest}")
    repository.put({
        "a/Dockerfile": "FROM scratch\nCOPY got/all.tar /\n",
        "a/list": f"# images\n{pinned[0]}\n\n{pinned[1]} # second\n",
        "a/build.yml": f"image: a\norg: {registry}/x\narches: [amd64]\n"
                       "depends: {docker-images: {target: got/all.tar, from-file: list}}\n",
        "b/Dockerfile": "FROM scratch\nCOPY got /got\n",
        "b/build.yml": f"image: b\norg: {registry}/x\narches: [amd64]\n"
                       f"depends: {{docker-images: {{target-dir: got, list: ['{pinned[1]}']}}}}\n",
    })  # fmt: skip
    done = repository.pkg("build", "a", "b", *BUILDAH, "--jobs", "1")
    a, b = (image(repository, line.partition("@")[0]) for line in done.stdout.splitlines())
    (tmp_path / "all.tar").write_bytes(files(repository, a)["all.tar"])
    ((path, data),) = files(repository, b).items()
    assert path == f"got/two@{pinned[1].partition('@')[2]}.tar"
    (tmp_path / "two.tar").write_bytes(data)
    for archive, number in (("all.tar", 0), ("all.tar", 1), ("two.tar", 0)):
        config = json.loads(skopeo("inspect", "--config", f"docker-archive:{tmp_path}/{archive}:@{number}"))
        assert config["config"] == {"Cmd": ["/bin/app"]}
    skopeo("copy", f"docker-archive:{tmp_path}/all.tar:@1", f"oci:{tmp_path}/out:x")  # its layers are whole
    assert not (repository.root / "a/got").exists()
    (repository.root / "a/list").write_text("me/one:1\n")
    wrong = repository.pkg("build", "a", *BUILDAH, status=2)
    assert "list:1:1: image 'me/one:1' lacks a digest" in wrong.stderr


def test_what_builders_keep_is_told_and_dropped(repository: Repository, registry: str, buildah: None) -> None:
    repository.put({"a/Dockerfile": "FROM scratch\nCOPY x /\n", "a/x": "x",
                    "a/build.yml": f"image: kept\norg: {registry}/x\narches: [amd64]\n"})  # fmt: skip
    repository.pkg("build", "a", *BUILDAH)
    assert f"{registry}/x/kept" in repository.pkg("builder", "du", *BUILDAH).stdout
    repository.pkg("builder", "prune", *BUILDAH)


def test_images_are_handed_to_docker(repository: Repository, registry: str, tmp_path: Path,
                                     monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    programs = tmp_path / "bin"
    programs.mkdir()
    script = f'#!/bin/sh\necho "$@" >> {tmp_path}/told\n[ "$1" != load ] || cp "$3" {tmp_path}/loaded.tar\n'
    (programs / "docker").write_text(script)
    (programs / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    text = f"image: a\norg: {registry}/x\narches: [amd64]\nfiles: [{{path: x, contents: y}}]\n"
    repository.put({"a/build.yml": text})
    repository.pkg("build", "--docker", "a")
    name = f"{registry}/x/a:{repository.tag('a')}"
    load, tag = (tmp_path / "told").read_text().splitlines()
    assert load.startswith("load --input /")
    assert tag == f"tag {name}-amd64 {name}"
    loaded = json.loads(skopeo("inspect", f"docker-archive:{tmp_path}/loaded.tar:{name}-amd64"))
    assert loaded["Architecture"] == "amd64"
