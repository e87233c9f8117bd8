"""kernel+squashfs and kernel+iso of a whole build: what other programs find in them, against the build's own tar."""

from __future__ import annotations

import io
import json
import shutil
import stat
import subprocess
import tarfile
from pathlib import Path
from typing import NamedTuple

import pytest

from linuxkit.oci.store import Store
from support.builds import YAML, files_in, linuxkit, make_cache
from support.images import make_image, member, tar_of
from support.mount import mounted
from support.trees import noise, on_disk

pytestmark = pytest.mark.interop
CODECS = ["none", "gzip", "zstd", "lz4", "xz"]


class Work(NamedTuple):
    folder: Path
    cache: Path

    def build(self, *arguments: str, yaml: str = YAML) -> str:
        (self.folder / "web.yml").write_text(yaml)
        return linuxkit("build", *arguments, "web.yml", cwd=self.folder, cache=self.cache).stderr

    def squashfs(self, *arguments: str, yaml: str = YAML) -> bytes:
        self.build("--format", "kernel+squashfs", *arguments, yaml=yaml)
        return (self.folder / "web-squashfs.img").read_bytes()

    def unpacked(self) -> Path:
        root = self.folder / "root"
        shutil.rmtree(root, ignore_errors=True)
        image = self.folder / "web-squashfs.img"
        subprocess.run(["unsquashfs", "-no-progress", "-xattrs", "-d", root, image], check=True, capture_output=True)
        return root

    def kept(self, kind: str) -> list[Path]:
        return sorted((self.cache / "derived" / kind).iterdir())


@pytest.fixture
def work(tmp_path: Path) -> Work:
    folder = tmp_path / "work"
    folder.mkdir()
    return Work(folder, make_cache(tmp_path))


def check(work: Work, root: dict[str, tuple[object, ...]], archive: bytes) -> None:
    """Everything of the tar but what is under boot/, and nothing else."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        want = {m.name.rstrip("/"): m for m in tar if not m.name.startswith("boot/")}
        implied = {"/".join(p.split("/")[:n]) for p in want for n in range(p.count("/") + 1)}
        assert set(root) == set(want) | implied
        for path, m in want.items():
            kind, mode, uid, gid, mtime, content = root[path]
            while m.islnk():
                m = want[m.linkname]
            assert (uid, gid, mtime) == (m.uid, m.gid, m.mtime), path
            assert kind == (stat.S_IFLNK if m.issym() else stat.S_IFDIR if m.isdir() else stat.S_IFREG), path
            assert m.issym() or mode == m.mode, path
            stream = tar.extractfile(m) if m.isfile() else None
            assert content == (stream.read() if stream else m.linkname.encode()), path


def seen(folder: Path) -> dict[str, tuple[object, ...]]:
    found = {}
    for path in on_disk(folder):
        at = folder / path
        s = at.lstat()
        kind = stat.S_IFMT(s.st_mode)
        body = bytes(at.readlink()) if at.is_symlink() else at.read_bytes() if at.is_file() else b""
        found[path] = (kind, stat.S_IMODE(s.st_mode), s.st_uid, s.st_gid, int(s.st_mtime), body)
    return found


def test_squashfs_holds_the_root_filesystem(work: Work) -> None:
    work.build("--o", "web.tar")
    archive = (work.folder / "web.tar").read_bytes()
    work.build("--format", "kernel+squashfs")
    assert sorted(files_in(work.folder)) == ["web-cmdline", "web-kernel", "web-squashfs.img", "web.tar", "web.yml"]
    root = work.unpacked()
    check(work, seen(root), archive)
    bundle = root / "containers/onboot/000-first/lower"
    assert (bundle / "bin/two").stat().st_ino == (bundle / "bin/app").stat().st_ino
    assert on_disk(bundle)["caps"].xattrs == (("user.x", b"y"),)
    assert (work.folder / "web-kernel").read_bytes() == b"vmlinuz" * 300


def test_erofs_holds_the_root_filesystem(work: Work) -> None:
    work.build("--o", "web.tar")
    work.build("--format", "kernel+erofs")
    assert sorted(files_in(work.folder)) == ["web-cmdline", "web-erofs.img", "web-kernel", "web.tar", "web.yml"]
    volume = work.folder / "web-erofs.img"
    told = subprocess.run(["blkid", "-p", "-o", "export", volume], capture_output=True, text=True, check=True).stdout
    assert {"LABEL=LinuxKit", "TYPE=erofs"} <= set(told.split())
    with mounted(volume) as root:
        check(work, seen(root), (work.folder / "web.tar").read_bytes())
        bundle = root / "containers/onboot/000-first/lower"
        assert (bundle / "bin/two").stat().st_ino == (bundle / "bin/app").stat().st_ino
        assert on_disk(bundle)["caps"].xattrs == (("user.x", b"y"),)
    first = volume.read_bytes()
    for name in ("builds", "filesystems"):
        shutil.rmtree(work.cache / "derived" / name)
    work.build("--format", "kernel+erofs")
    assert volume.read_bytes() == first


def test_a_compressed_erofs(work: Work) -> None:
    work.build("--o", "web.tar")
    work.build("--format", "kernel+erofs", "--compress", "none")
    plain = (work.folder / "web-erofs.img").read_bytes()
    work.build("--format", "kernel+erofs", "--compress", "zstd")
    packed = (work.folder / "web-erofs.img").read_bytes()
    assert len(packed) < len(plain)
    with mounted(work.folder / "web-erofs.img") as root:
        check(work, seen(root), (work.folder / "web.tar").read_bytes())
    for name in ("builds", "filesystems"):
        shutil.rmtree(work.cache / "derived" / name)
    work.build("--format", "kernel+erofs", "--compress", "zstd")
    assert (work.folder / "web-erofs.img").read_bytes() == packed
    work.build("--format", "kernel+erofs")
    assert (work.folder / "web-erofs.img").read_bytes() == plain


def test_an_erofs_with_xz(work: Work) -> None:
    (work.folder / "web.yml").write_text(YAML)
    command = ["build", "--format", "kernel+erofs", "--compress", "xz", "web.yml"]
    done = linuxkit(*command, cwd=work.folder, cache=work.cache, check=False)
    assert done.returncode == 2
    assert "can't be compressed with xz" in done.stderr
    assert "use zstd, gzip, lz4 or none" in done.stderr


def test_iso_holds_the_root_filesystem(work: Work) -> None:
    work.build("--o", "web.tar")
    work.build("--format", "kernel+iso")
    assert sorted(files_in(work.folder)) == ["web-cmdline", "web-initrd.img", "web-kernel", "web.iso", "web.tar",
                                             "web.yml"]  # fmt: skip
    root = work.folder / "root"
    root.mkdir()
    subprocess.run(["bsdtar", "-xpf", "../web.iso", "--numeric-owner"], cwd=root, check=True)
    check(work, seen(root), (work.folder / "web.tar").read_bytes())
    told = subprocess.run(["isoinfo", "-d", "-i", work.folder / "web.iso"], capture_output=True, text=True, check=True)
    assert "Volume id: LinuxKit\n" in told.stdout
    for path in root.rglob("*"):
        path.chmod(0o755, follow_symlinks=False) if path.is_dir() else None


@pytest.mark.parametrize("codec", CODECS)
def test_codecs(work: Work, codec: str) -> None:
    work.squashfs("--compress", codec)
    assert (work.unpacked() / "containers/onboot/000-first/lower/bin/app").read_bytes() == b"app" * 90_000


def test_only_a_root_filesystem(work: Work) -> None:
    work.build("--format", "kernel+squashfs", yaml="init:\n  - t/init:1\n")
    assert sorted(files_in(work.folder)) == ["web-squashfs.img", "web.yml"]


# -- formats together


def test_formats_share_files_that_are_the_same(work: Work) -> None:
    yaml = YAML.replace("console=ttyS0", "console=ttyS0 root=/dev/vda")  # else their command lines differ
    said = work.build("--format", "kernel+initrd,tar-kernel-initrd,kernel+squashfs", yaml=yaml)
    assert said.count("web-kernel") == 1


# -- the cache


def test_from_the_cache_or_not_it_is_the_same(work: Work) -> None:
    first = work.squashfs()
    for kind in (["builds"], ["builds", "filesystems"], ["builds", "filesystems", "blocks"], ["layers", "builds"]):
        for name in kind:
            shutil.rmtree(work.cache / "derived" / name)
        assert work.squashfs() == first


def test_a_change_compresses_only_what_is_new(work: Work) -> None:
    make_image(Store(work.cache), "docker.io/t/big:1", tar_of(member("blob", noise(3 << 20))))
    yaml = YAML.replace("t/tool:1", "t/big:1")
    work.squashfs(yaml=yaml)
    before = {p: p.stat().st_size for p in work.kept("blocks")}
    changed = work.squashfs(yaml=yaml.replace("hello", "goodbye"))
    new = [p for p in work.kept("blocks") if p not in before and not p.name.endswith((".ok", ".json"))]
    assert len(new) == 1
    assert new[0].stat().st_size < 20_000
    shutil.rmtree(work.cache / "derived")
    assert work.squashfs(yaml=yaml.replace("hello", "goodbye")) == changed


@pytest.mark.parametrize("harm", ["short", "gone", "no index", "bad index"])
def test_a_damaged_cache(work: Work, harm: str) -> None:
    first = work.squashfs()
    shutil.rmtree(work.cache / "derived" / "builds")
    shutil.rmtree(work.cache / "derived" / "filesystems")
    for path in work.kept("blocks"):
        if path.name.endswith(".ok") or path.name.endswith(".json") != ("index" in harm):
            continue
        if harm in ("gone", "no index"):
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[:-1] if harm == "short" else b"[" + path.read_bytes()[1:])
    assert work.squashfs() == first


def test_an_index_with_strange_rows(work: Work) -> None:
    first = work.squashfs()
    shutil.rmtree(work.cache / "derived" / "builds")
    shutil.rmtree(work.cache / "derived" / "filesystems")
    for path in work.kept("blocks"):
        if path.name.endswith(".json"):
            document = json.loads(path.read_bytes())
            for number, row in enumerate(document["rows"].values()):
                row[number % 4] = [7, "x", None][number % 3]
            path.write_bytes(json.dumps(document).encode())
            Path(f"{path}.ok").write_text(str(path.stat().st_size))
    assert work.squashfs() == first


def test_a_large_file_of_the_host(work: Work) -> None:
    (work.folder / "data").write_bytes(noise(2 << 20))
    yaml = YAML + "  - path: data\n    source: data\n"
    first = work.squashfs(yaml=yaml)
    assert (work.unpacked() / "data").read_bytes() == noise(2 << 20)
    (work.folder / "data").write_bytes(noise(2 << 20, 1))
    assert work.squashfs(yaml=yaml) != first
    assert (work.unpacked() / "data").read_bytes() == noise(2 << 20, 1)


# -- bad input


def test_a_name_that_the_format_cannot_hold(work: Work) -> None:
    long = "d" * 300
    (work.folder / "web.yml").write_text(YAML + f"  - path: etc/{long}\n    contents: x\n")
    done = linuxkit("build", "--format", "kernel+squashfs", "web.yml", cwd=work.folder, cache=work.cache, check=False)
    assert done.returncode == 2
    assert "etc/dddd" in done.stderr
    assert "too long a name" in done.stderr
    assert sorted(files_in(work.folder)) == ["web.yml"]


@pytest.mark.parametrize("name", ["kernel+squashfs", "kernel+iso"])
def test_an_owner_of_more_than_32_bits(work: Work, name: str) -> None:
    make_image(Store(work.cache), "docker.io/t/tool:1", tar_of(member("f", uid=1 << 33)))
    (work.folder / "web.yml").write_text(YAML)
    done = linuxkit("build", "--format", name, "web.yml", cwd=work.folder, cache=work.cache, check=False)
    assert done.returncode == 1
    assert "t/tool:1" in done.stderr
    assert "'f' belongs to user 8589934592" in done.stderr
