"""`linuxkit build` as LinuxKit's own tests use it: mirrors, and --input-tar."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from linuxkit.oci.store import Store
from support.builds import YAML, files_in, linuxkit, make_cache
from support.client import fill
from support.registry import Registry

pytestmark = pytest.mark.unit
ONE = "init:\n  - ghcr.io/test/app:1\n"


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


def test_a_dead_mirror_fails_and_a_running_one_serves(work: Path, tmp_path: Path) -> None:
    cache = tmp_path / "empty"
    (work / "x.yml").write_text(ONE)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound, and not listening
        dead = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        done = linuxkit("--mirror", dead, "build", "--o", "x.tar", "x.yml", cwd=work, cache=cache, check=False)
    assert done.returncode == 1
    assert dead.removeprefix("http://") in done.stderr
    assert list(files_in(work)) == ["x.yml"]
    with Registry() as registry:
        fill(registry, tmp_path)
        alive = f"ghcr.io=http://{registry.host}"
        linuxkit("--mirror", alive, "build", "--arch", "amd64", "--o", "x.tar", "x.yml", cwd=work, cache=cache)
        assert registry.requests("manifests")
    assert (work / "x.tar").exists()
    assert Store(cache).names() == ["ghcr.io/test/app:1"]


def test_a_build_with_the_last_ones_tar_is_the_same(work: Path, tmp_path: Path) -> None:
    cache = make_cache(tmp_path)
    (work / "x.yml").write_text(YAML + "  - path: etc/linuxkit.yml\n    metadata: yaml\n")
    linuxkit("build", "--o", "one.tar", "x.yml", cwd=work, cache=cache)
    linuxkit("build", "--o", "two.tar", "--input-tar", "one.tar", "x.yml", cwd=work, cache=cache)
    assert (work / "two.tar").read_bytes() == (work / "one.tar").read_bytes()
    before = (work / "one.tar").read_bytes()
    done = linuxkit("build", "--o", "one.tar", "--input-tar", "one.tar", "x.yml", cwd=work, cache=cache, check=False)
    assert done.returncode == 2
    assert "input-tar and output file cannot be the same" in done.stderr
    assert (work / "one.tar").read_bytes() == before
