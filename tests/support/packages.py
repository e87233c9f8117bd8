"""Git repositories with packages, for tests of `linuxkit pkg`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from linuxkit.oci.derived import Derived
from linuxkit.oci.layer import LayerCache
from linuxkit.oci.media import Image, Platform
from linuxkit.oci.merge import merge_layers
from linuxkit.oci.store import Store

_WHO = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main")


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *_WHO, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


class Repository:
    """A git repository, and `linuxkit pkg` run in it with a cache of its own."""

    def __init__(self, root: Path) -> None:
        self.root, self.cache = root / "repo", root / "cache"
        self.home = root / "home"
        for folder in (self.root, self.home):
            folder.mkdir()
        git(self.root, "init", "-q")

    def put(self, files: Mapping[str, str]) -> None:
        """Files by path, committed."""
        for path, text in files.items():
            place = self.root / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)
        git(self.root, "add", ".")
        git(self.root, "commit", "-q", "-m", "next")

    def pkg(
        self, *words: str, status: int = 0, seconds: float = 120, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """`linuxkit pkg WORDS`; fails when the exit status is another one."""
        own = {k: v for k, v in os.environ.items() if not k.startswith(("LINUXKIT_", "BUILDKIT_"))}
        done = subprocess.run(
            [sys.executable, "-m", "linuxkit", "--cache", str(self.cache), "pkg", *words], capture_output=True,
            text=True, cwd=self.root, timeout=seconds, stdin=subprocess.DEVNULL,
            env=own | {"HOME": str(self.home), "no_proxy": "127.0.0.1"} | environment,
        )  # fmt: skip
        assert done.returncode == status, done.stdout + done.stderr
        return done

    def tag(self, directory: str) -> str:
        """The git tree id of a package."""
        return git(self.root, "rev-parse", f"HEAD:{directory}")


def image(repository: Repository, name: str, arch: str = "amd64") -> Image:
    """An image of the repository's cache."""
    store = Store(repository.cache)
    found = store.find(name)
    assert found is not None, store.names()
    return store.image(found, name, Platform("linux", arch))


def files(repository: Repository, made: Image) -> dict[str, bytes]:
    """The files of an image: path → content."""
    layers = LayerCache(Store(repository.cache), Derived(repository.cache / "derived"))
    found = {}
    for entry in merge_layers(layers.image_entries(made), where="test"):
        if entry.source is not None:
            with entry.source.open() as stream:
                found[entry.path] = stream.read()
    return found


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)
