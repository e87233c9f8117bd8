"""Whole systems for boot tests: YAML in, what `linuxkit build` writes out.

The image cache is kept between test runs (LINUXKIT_TEST_CACHE), so that the kit's packages are cut once.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from linuxkit.oci.store import Store
from support.images import directory, make_image, member, symlink, tar_of
from support.vm import cache_dir

Build = Callable[..., str]

#: what every system here begins with
HEAD = """\
kernel:
  image: kit://kernel
  cmdline: "console=ttyS0"
init:
  - kit://init
"""
CRUN = HEAD + "  - kit://crun\n"
CONTAINERD = HEAD + "  - kit://runc\n  - kit://containerd\n"


def image_cache() -> Path:
    return cache_dir() / "images"


def linuxkit(*arguments: str, cwd: Path | None = None, timeout: float = 600) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "linuxkit", "--cache", str(image_cache()), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, cwd=cwd, stdin=subprocess.DEVNULL)


def build_in(directory: Path, text: str, *flags: str, name: str = "system") -> str:
    """Build a system from YAML text in a folder; the prefix for `run`."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{name}.yml").write_text(text)
    done = linuxkit("build", *flags, f"{name}.yml", cwd=directory)
    assert done.returncode == 0, done.stderr
    return str(directory / name)


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """build(yaml, *flags, name=…) -> prefix"""

    def make(text: str, *flags: str, name: str = "system") -> str:
        return build_in(tmp_path, text, *flags, name=name)

    return make


def merged_usr(folder: Path) -> str:
    """An init image as distributions with a merged /usr have it, in a layout: a line for `init:`."""
    store = Store(folder / "merged-usr")
    make_image(store, "test/merged:1", tar_of(
        directory("usr"), directory("usr/lib"), symlink("lib", "usr/lib"), member("usr/lib/brought", b"by the image\n"),
    ))  # fmt: skip
    return f"  - oci:{store.root}:docker.io/test/merged:1\n"
