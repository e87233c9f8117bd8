"""What an image becomes in the root filesystem."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import pytest

from linuxkit.entry import Bytes, Entry, Kind, read_all
from linuxkit.errors import HostError, ImageError
from linuxkit.rootfs.content import HostFile
from linuxkit.rootfs.flatten import flatten
from linuxkit.rootfs.kernel import decompress_kernel

pytestmark = pytest.mark.unit
ORIGIN = ("image", "init[0]")


def flat(*entries: Entry, prefix: str = "", bundle: bool = False) -> dict[str, Entry]:
    made = list(flatten(entries, prefix, ORIGIN, bundle=bundle))
    assert len({e.path for e in made}) == len(made)
    for n, entry in enumerate(made):
        folder = entry.path.rpartition("/")[0]
        assert not folder or folder in {e.path for e in made[:n]} or folder not in {e.path for e in made}
        if entry.kind is Kind.HARDLINK:
            assert entry.target in {e.path for e in made[:n] if e.kind is Kind.FILE}
    return {e.path: e for e in made}


def test_an_empty_image_gets_the_fixed_nodes() -> None:
    assert list(flat()) == [
        "dev", "dev/pts", "dev/shm", "etc", "etc/hosts", "etc/mtab", "etc/resolv.conf", "proc", "sys",
    ]  # fmt: skip


def test_nodes_that_the_guest_makes_are_dropped() -> None:
    lost = (".dockerenv", "Dockerfile", "dev/console", "etc/hostname")
    found = flat(*(Entry(p, Kind.FILE) for p in lost), Entry("dev/null", Kind.CHAR, device=(1, 3)))
    assert not set(lost) & set(found)
    assert found["dev/null"].device == (1, 3)


def test_resolv_conf_is_a_link_outside_of_containers_and_a_file_inside() -> None:
    own = Entry("etc/resolv.conf", Kind.FILE, source=Bytes(b"nameserver 1.1.1.1\n"))
    assert flat(own)["etc/resolv.conf"].target == "/run/resolvconf/resolv.conf"
    inside = flat(own, prefix="containers/services/x/lower", bundle=True)["containers/services/x/lower/etc/resolv.conf"]
    assert read_all(inside.source, 100) == b"\n# no resolv.conf configured\n"


def test_an_own_mtab_stays() -> None:
    assert flat(Entry("etc/mtab", Kind.FILE))["etc/mtab"].kind is Kind.FILE


def test_a_prefix_reaches_hard_links_and_brings_its_directories() -> None:
    found = flat(Entry("z", Kind.FILE), Entry("a", Kind.HARDLINK, target="z"), prefix="p/q")
    assert found["p/q/a"].target == "p/q/z"
    assert [found[p].kind for p in ("p", "p/q")] == [Kind.DIRECTORY] * 2


def test_links_to_a_dropped_file_keep_its_content() -> None:
    name = Entry("etc/hostname", Kind.FILE, 0o600, source=Bytes(b"n"))
    links = [Entry(p, Kind.HARDLINK, target="etc/hostname") for p in ("a", "b")]
    found = flat(name, *links)
    assert (found["a"].kind, read_all(found["a"].source, 9)) == (Kind.FILE, b"n")
    assert (found["b"].kind, found["b"].target) == (Kind.HARDLINK, "a")


def bzimage(payload: bytes) -> bytes:
    data = bytearray(0x400 + 512)
    data[0x1F1] = 0
    data[0x1FE:0x200], data[0x202:0x206] = b"\x55\xaa", b"HdrS"
    struct.pack_into("<II", data, 0x248, len(data) - 512, len(payload))
    return bytes(data) + payload


def test_kernels_are_decompressed() -> None:
    packed = gzip.compress(b"kernel" * 100, mtime=0)
    assert decompress_kernel(packed) == b"kernel" * 100
    assert decompress_kernel(bzimage(packed)) == b"kernel" * 100


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"plain", "no compressed kernel"),
        (bzimage(b"\xfd7zXZ\0"), "unsupported bzImage payload"),
        (gzip.compress(b"x" * 100, mtime=0)[:-12], "cut off|damaged"),
    ],
)
def test_what_cannot_be_decompressed_says_so(data: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        decompress_kernel(data)


def test_a_host_file_that_changes_under_the_build_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"before")
    source = HostFile(str(file), 6, "sha256:" + "0" * 64)
    with pytest.raises(HostError, match="changed while"), source.open() as stream:
        stream.read()


def test_directories_that_no_layer_names_are_made() -> None:
    """Linux makes none when it unpacks an initrd: the file would be lost."""
    found = flat(Entry("a/b/c", Kind.FILE), Entry("etc/d/e", Kind.FILE), prefix="p")
    assert [(found[p].kind, found[p].mode) for p in ("p/a", "p/a/b", "p/etc/d")] == [(Kind.DIRECTORY, 0o755)] * 3


@pytest.mark.parametrize(("target", "place"), [
    ("usr/etc", "usr/etc"), ("/usr/etc", "usr/etc"), ("../usr/etc", "usr/etc"), ("usr/none", "etc"), ("etc", "etc"),
    ("usr/file", "etc"),
])  # fmt: skip
def test_etc_may_be_a_link(target: str, place: str) -> None:
    usr = [Entry("usr", Kind.DIRECTORY), Entry("usr/etc", Kind.DIRECTORY), Entry("usr/file", Kind.FILE)]
    found = flat(*usr, Entry("etc", Kind.SYMLINK, target=target), Entry("usr/etc/hostname", Kind.FILE))
    assert found[f"{place}/hosts"].kind is Kind.FILE
    assert found["etc"].kind is (Kind.SYMLINK if place != "etc" else Kind.DIRECTORY)
    assert ("usr/etc/hostname" in found) is (place == "etc")
