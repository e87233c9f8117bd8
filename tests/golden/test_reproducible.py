"""The same bytes whatever the circumstances: place, time zone, umask, hash seed, locale, number of threads, order."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from linuxkit import Sources, build, load
from linuxkit.oci.store import Store
from support.builds import YAML, files_in, linuxkit, make_cache
from support.efi import add_efi

pytestmark = pytest.mark.golden


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    """A cache, and what a plain build writes."""
    root = tmp_path_factory.mktemp("made")
    cache = make_cache(root)
    add_efi(Store(cache))
    work = root / "work"
    work.mkdir()
    (work / "x.yml").write_text(YAML)
    for args in (["--format", "kernel+initrd,tar-kernel-initrd,uki,raw-efi"], ["--format", "tar"],
                 ["--format", "docker"], ["--format", "kernel+squashfs,kernel+iso,kernel+erofs"]):  # fmt: skip
        linuxkit("build", *args, "x.yml", cwd=work, cache=cache)
    shutil.rmtree(cache / "derived")
    found = files_in(work)
    assert len(found) == 12
    return cache, found


CIRCUMSTANCES = {
    "again": {},
    "time zone": {"TZ": "Asia/Kathmandu"},
    "hash seed": {"PYTHONHASHSEED": "7"},
    "locale": {"LC_ALL": "C", "LANG": "C"},
    "utf-8 mode off": {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"},
    "source date": {"SOURCE_DATE_EPOCH": "1"},
}


@pytest.mark.parametrize("circumstance", CIRCUMSTANCES)
def test_circumstances_do_not_matter(made, tmp_path: Path, circumstance: str) -> None:
    cache, want = made
    own = tmp_path / "some other place" / "cache"
    shutil.copytree(cache, own, ignore=shutil.ignore_patterns("derived"))
    work = tmp_path / "elsewhere"
    work.mkdir()
    (work / "x.yml").write_text(YAML)
    before = os.umask(0o077)
    try:
        for args in (["--format", "raw-efi,tar-kernel-initrd,kernel+initrd"], ["--format", "docker"],
                     ["--format", "tar"], ["--format", "uki"], ["--format", "kernel+iso"],
                     ["--format", "kernel+squashfs"], ["--format", "kernel+erofs"]):  # fmt: skip
            linuxkit("build", *args, "x.yml", cwd=work, cache=own, **CIRCUMSTANCES[circumstance])
    finally:
        os.umask(before)
    assert files_in(work) == want


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_do_not_matter(made, tmp_path: Path, threads: int) -> None:
    cache, want = made
    own = tmp_path / "cache"
    shutil.copytree(cache, own, ignore=shutil.ignore_patterns("derived"))
    (tmp_path / "x.yml").write_text(YAML)
    out = tmp_path / "out"
    out.mkdir()
    build(load(tmp_path / "x.yml"), name="x", directory=out, sources=Sources(own), threads=threads,
          formats=["kernel+initrd,uki,raw-efi,kernel+squashfs,kernel+erofs"])  # fmt: skip
    for name, data in files_in(out).items():
        assert data == want[name], name


def test_the_comparison_notices_a_clock(made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The canary: with the time of day in a generated file's date these tests have to fail."""
    import time

    from linuxkit.rootfs import assemble

    cache, want = made
    own = tmp_path / "cache"
    shutil.copytree(cache, own, ignore=shutil.ignore_patterns("derived"))
    monkeypatch.setattr(assemble, "FIXED_MTIME", int(time.time()))
    (tmp_path / "x.yml").write_text(YAML)
    out = tmp_path / "out"
    out.mkdir()
    build(load(tmp_path / "x.yml"), name="x", directory=out, sources=Sources(own),
          formats=["kernel+initrd,raw-efi,kernel+squashfs,kernel+iso,kernel+erofs"])  # fmt: skip
    for name in ("x-initrd.img", "x-efi.img", "x-squashfs.img", "x.iso", "x-erofs.img"):
        assert files_in(out)[name] != want[name]
