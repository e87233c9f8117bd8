"""Every option with every format: it changes the bytes, or is refused with a reason. And an initrd as one archive."""

from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
import zlib
from pathlib import Path
from typing import Any

import pytest

from linuxkit import api
from linuxkit.encode.authenticode import Signer
from linuxkit.encode.gzip_pieces import Run, member
from linuxkit.encode.pieces import literal, read
from linuxkit.errors import InputError
from linuxkit.outputs.build import DataPartition
from linuxkit.outputs.table import DISK, FORMATS, check_options
from linuxkit.plan.model import Options
from support.builds import YAML, linuxkit
from support.formats import BOARD, cache_for_all

pytestmark = pytest.mark.unit
MIB = 1 << 20
OPTIONS: dict[str, dict[str, Any]] = {
    "--compress gzip": {"compress": "gzip"}, "--level 5": {"level": 5}, "--size 2G": {"size": 2 << 30},
    "--root squashfs": {"root": "squashfs"}, "--verity": {"verity": True}, "--qcow2-compress zlib": {"qcow2": "zlib"},
    "--data-partition 8M": {"data": DataPartition(8 * MIB, "data")}, "--initrd-archives one": {"one_archive": True},
    "--sign-key": {"signer": Signer(b"certificate", b"issuer", 1, lambda data: bytes(256))},
}  # fmt: skip


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cache_for_all(tmp_path_factory.mktemp("options"))


@pytest.fixture(scope="module")
def plain() -> dict[str, str]:
    """By format: what it writes without options."""
    return {}


def made(cache: Path, folder: Path, name: str, **options: Any) -> str:
    """What a build of one format consists of."""
    board = "rpi-boot" in FORMATS[name].loaders
    (folder / "x.yml").write_text(BOARD if board else YAML)
    sources = api.Sources(cache, offline=True)
    config = api.load(folder / "x.yml", sources=sources)
    artifact = api.build(config, name="x", sources=sources, directory=folder, formats=[name], preflight=False,
                         options=Options("arm64" if board else "amd64"), **options)  # fmt: skip
    root = str(cache)
    listed = [(f.name, [(p.size, p.path.removeprefix(root), p.offset, p.data) for p in f.pieces])
              for f in artifact.record.files]  # fmt: skip
    for file in artifact.files:
        file.path.unlink()
    return hashlib.sha256(repr(listed).encode()).hexdigest()


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("name", FORMATS)
def test_an_option_changes_the_bytes_or_is_refused(
    cache: Path, plain: dict[str, str], tmp_path: Path, name: str, option: str
) -> None:
    if name not in plain:
        plain[name] = made(cache, tmp_path, name)
    try:
        found = made(cache, tmp_path, name, **OPTIONS[option])
    except InputError as e:
        assert e.message.startswith(option.split()[0])
        assert e.hint
        of_disks = ("--size", "--root", "--data-partition", "--verity")
        assert not (FORMATS[name].root == DISK and option.split()[0] in of_disks)
        return
    assert found != plain[name]


def test_the_comparison_would_see_an_option_that_does_nothing(cache: Path, tmp_path: Path) -> None:
    assert made(cache, tmp_path, "raw") == made(cache, tmp_path, "raw", compress="zstd", level=3)


@pytest.mark.parametrize("name", FORMATS)
def test_memory_is_asked_for_where_the_root_is_in_memory(name: str) -> None:
    one = FORMATS[name]
    for root in ("", "squashfs"):
        if one.in_memory(root):
            check_options([one], memory=MIB, root=root)
        else:
            with pytest.raises(InputError, match=r"^--mem: in these formats the root filesystem is not in memory"):
                check_options([one], memory=MIB, root=root)


def test_a_kernel_is_unpacked_only_where_there_is_one() -> None:
    with pytest.raises(InputError, match="--decompress-kernel: in this format there is no kernel"):
        check_options([FORMATS["oci"]], decompress=True)
    check_options([FORMATS["tar"]], decompress=True)


def test_an_option_for_one_of_several_formats_is_taken(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "x.yml").write_text(YAML)
    linuxkit("build", "--offline", "--no-preflight", "--format", "raw,kernel+initrd", "--size", "100M", "x.yml",
             cwd=tmp_path, cache=cache)  # fmt: skip


# -- an initrd as one archive


@pytest.mark.parametrize(("flags", "command"), [
    (["--compress", "gzip"], "gzip -dc x-initrd.img | cpio -it --quiet"),
    (["--compress", "gzip", "--level", "9", "--initrd-archives", "one"], "gzip -dc x-initrd.img | cpio -it --quiet"),
    (["--compress", "none", "--initrd-archives", "one"], "cpio -it --quiet < x-initrd.img"),
    (["--compress", "xz", "--initrd-archives", "one"], "xz -dc x-initrd.img | cpio -it --quiet"),
    (["--initrd-archives", "one"], "zstd -dc x-initrd.img | cpio -it --quiet"),
])  # fmt: skip
def test_one_archive_has_everything(cache: Path, tmp_path: Path, flags: list[str], command: str) -> None:
    for tool in ("cpio", command.split()[0]):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    for text in (YAML, YAML.replace("hello", "other")):  # from nothing, and with most of it from the cache
        (tmp_path / "x.yml").write_text(text)
        done = linuxkit("build", "--offline", "--no-preflight", *flags, "x.yml", cwd=tmp_path, cache=cache)
        if "other" in text and "one" not in flags:
            assert "5 of 5 segments from the cache" in done.stderr
        listed = subprocess.run(["bash", "-o", "pipefail", "-c", command], cwd=tmp_path, capture_output=True, text=True)
        assert listed.returncode == 0, listed.stderr
        names = listed.stdout.split()
        trees = {"containers/onboot/000-first/lower/bin/app", "containers/services/closed/rootfs/bin/tool"}
        small = {"boot", "bin/sh", "etc/motd", "sbom.spdx.json", "containers/services/app/config.json"}
        assert trees | small <= set(names)
    first = (tmp_path / "x-initrd.img").read_bytes()
    linuxkit("build", "--offline", "--no-preflight", *flags, "x.yml", cwd=tmp_path, cache=cache)
    assert (tmp_path / "x-initrd.img").read_bytes() == first


def test_many_archives_are_the_default_and_contradict_gzip(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "x.yml").write_text(YAML)
    linuxkit("build", "--offline", "--no-preflight", "--compress", "none", "x.yml", cwd=tmp_path, cache=cache)
    assert (tmp_path / "x-initrd.img").read_bytes().count(b"TRAILER!!!") > 5
    done = linuxkit("build", "--compress", "gzip", "--initrd-archives", "many", "x.yml", cwd=tmp_path, cache=cache,
                    check=False)  # fmt: skip
    assert done.returncode == 2
    assert "with gzip an initrd is always one archive" in done.stderr


def test_deflated_runs_make_one_gzip_member() -> None:
    runs, contents = [], [b"", b"one" * 5000, bytes(range(256)) * 999, b"x"]
    for data in contents:
        out = io.BytesIO()
        run = Run(out, 9)
        run.write(data[:7])
        run.write(data[7:])
        run.close()
        runs.append(literal(out.getvalue()))
    whole = b"".join(read(member(runs, lambda size: b"end%d" % size)))
    content = b"".join(contents)
    unpack = zlib.decompressobj(31)
    assert unpack.decompress(whole) == content + b"end%d" % len(content)
    assert unpack.eof and not unpack.unused_data
