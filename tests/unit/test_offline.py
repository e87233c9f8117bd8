"""--offline and --bundle open no socket: the kernel kills a build that tries."""

from __future__ import annotations

import platform
import signal
from functools import partial
from pathlib import Path

import pytest

from support.builds import YAML, files_in, linuxkit, make_cache
from support.registry import Registry
from support.sandbox import no_network

pytestmark = [
    pytest.mark.unit,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the filter has the numbers of x86-64's system calls"),
]
killed = partial(no_network, kill=True)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return make_cache(tmp_path)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "web.yml").write_text(YAML + "  - {path: etc/s, source: s}\n")
    (folder / "s").write_text("a file of this machine")
    return folder


def outputs(folder: Path) -> dict[str, bytes]:
    return {name: data for name, data in files_in(folder).items() if name.startswith("web-")}


def test_the_filter_catches_a_build_that_goes_to_the_network(work: Path, cache: Path) -> None:
    """The negative control: without it, the tests below would prove nothing."""
    with Registry() as registry:
        (work / "web.yml").write_text(f"init: ['{registry.host}/x/y:1']\n")
        done = linuxkit("build", "web.yml", cwd=work, cache=cache, check=False, preexec_fn=killed)
        assert done.returncode == -signal.SIGSYS
        done = linuxkit("build", "web.yml", cwd=work, cache=cache, check=False, preexec_fn=no_network)
        assert done.returncode == 1
        assert registry.seen == []
        linuxkit("build", "web.yml", cwd=work, cache=cache, check=False)
        assert registry.seen  # and without the filter it gets there


def test_what_is_in_the_cache_builds_without_a_socket(work: Path, cache: Path) -> None:
    linuxkit("build", "web.yml", cwd=work, cache=cache)
    first = outputs(work)
    for arguments in (["--offline"], ["--offline", "--no-sbom", "--name", "other"]):
        linuxkit("build", *arguments, "web.yml", cwd=work, cache=cache, preexec_fn=killed)
    assert outputs(work) == first
    linuxkit("lock", "--offline", "web.yml", cwd=work, cache=cache, preexec_fn=killed)
    linuxkit("build", "--offline", "web.yml", cwd=work, cache=cache, preexec_fn=killed)
    assert outputs(work) == first


def test_a_bundle_builds_elsewhere_without_a_socket(tmp_path: Path, work: Path, cache: Path) -> None:
    linuxkit("build", "web.yml", cwd=work, cache=cache)
    linuxkit("bundle", "--offline", "-o", tmp_path / "web.tar", "web.yml", cwd=work, cache=cache, preexec_fn=killed)
    there = tmp_path / "there"
    there.mkdir()
    linuxkit("build", "--offline", "--bundle", tmp_path / "web.tar", cwd=there, cache=tmp_path / "empty",
             preexec_fn=killed)  # fmt: skip
    assert outputs(there) == outputs(work)


def test_the_environment_can_say_it(work: Path, cache: Path) -> None:
    (work / "web.yml").write_text("init: ['registry.example/none:1']\n")
    done = linuxkit("build", "web.yml", cwd=work, cache=cache, check=False, preexec_fn=killed, LINUXKIT_OFFLINE="1")
    assert done.returncode == 1
    assert "--offline keeps the network out" in done.stderr


def test_all_that_is_missing_is_said_at_once(work: Path, cache: Path) -> None:
    (work / "web.yml").write_text(
        "kernel:\n  image: t/kernel:1\ninit: ['registry.example/a:1', kit://crun, t/init:1]\n"
        "services:\n  - {name: b, image: registry.example/b}\n"
    )
    done = linuxkit("build", "--offline", "web.yml", cwd=work, cache=cache, check=False, preexec_fn=killed)
    assert done.returncode == 1
    assert "3 images are not in the cache" in done.stderr
    for line in ("web.yml:3:8: init[0]: registry.example/a:1", "init[1]: kit://crun",
                 "services[0].image: registry.example/b:latest"):  # fmt: skip
        assert line in done.stderr
    assert "linuxkit cache pull registry.example/a:1 registry.example/b:latest; linuxkit kit build crun" in done.stderr
    assert "linuxkit bundle web.yml -o FILE" in done.stderr
    assert "t/kernel" not in done.stderr
