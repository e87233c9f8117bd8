"""Packages by Debian's Buildah, on base images from our cache; indexes pushed to Debian's docker-registry, read by
skopeo."""

from __future__ import annotations

import json
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
from support.images import AMD64
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
