"""A cache with a small kernel, init and application, and the command line run on it as a user would."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from linuxkit.oci.store import Store
from linuxkit.packages.kit import Kit
from support.images import directory, hardlink, make_image, member, symlink, tar_of

YAML = """\
kernel:
  image: t/kernel:1
  cmdline: console=ttyS0
init:
  - t/init:1
onboot:
  - name: first
    image: t/app:1
services:
  - name: app
    image: t/app:1
  - name: closed
    image: t/tool:1
    readonly: true
volumes:
  - name: data
files:
  - path: etc/motd
    contents: hello
    mode: "0644"
"""


def make_cache(root: Path) -> Path:
    """A store with everything that YAML names, in `root`/cache."""
    store = Store(root / "cache")
    modules = tar_of(
        directory("./lib"), directory("./lib/modules"), member("./lib/modules/a.ko", b"module" * 500, mode=0o644)
    )
    make_image(store, "docker.io/t/kernel:1",
               tar_of(member("kernel", b"vmlinuz" * 300, mode=0o644), member("kernel.tar", modules)))  # fmt: skip
    make_image(store, "docker.io/t/init:1", tar_of(
        directory("bin"), member("bin/sh", b"shell" * 100, mode=0o755), member("init", b"#!/bin/sh\n", mode=0o755),
        directory("etc"), member("etc/hostname", b"lost\n"),
    ))  # fmt: skip
    make_image(store, "docker.io/t/app:1", tar_of(
        directory("bin"), member("bin/app", b"app" * 90_000, mode=0o755), hardlink("bin/two", "bin/app"),
        symlink("bin/link", "app"), member("caps", b"c", pax_headers={"SCHILY.xattr.user.x": "y"}),
    ))  # fmt: skip
    make_image(store, "docker.io/t/tool:1", tar_of(directory("bin"), member("bin/tool", b"tool", mode=0o4755)))
    stage = tar_of(member("init", b"stage" * 50, mode=0o755), directory("sysroot"))
    make_image(store, Kit(store, store.root / "kit").reference("bootstage"), stage)
    return store.root


def linuxkit(
    *args: str | Path, cwd: Path, cache: Path, check: bool = True, preexec_fn: object = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the program; its environment is fixed but for the keywords."""
    base = {k: v for k, v in os.environ.items() if k in ("PATH", "PYTHONPATH", "LANG", "VIRTUAL_ENV")}
    done = subprocess.run(
        [sys.executable, "-m", "linuxkit", *map(os.fspath, args)], cwd=cwd, capture_output=True, text=True, timeout=120,
        env=base | {"LINUXKIT_CACHE": os.fspath(cache), "HOME": os.fspath(cwd)} | environment
        | ({"PYTHONDONTWRITEBYTECODE": "1"} if preexec_fn else {}),  # limits would cut short what Python keeps
        preexec_fn=preexec_fn,  # type: ignore[arg-type]
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    if check:
        assert done.returncode == 0, done.stderr
    return done


def files_in(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def build(
    folder: Path, cache: Path, *arguments: str, text: str = YAML, check: bool = True, arch: str = "amd64"
) -> subprocess.CompletedProcess[str]:
    """Build YAML text in a folder, as x, from nothing but a cache."""
    (folder / "x.yml").write_text(text)
    return linuxkit("build", "--arch", arch, "--offline", *arguments, "x.yml", cwd=folder, cache=cache, check=check)
