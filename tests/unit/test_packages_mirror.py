"""From a recipe to an image, through our own HTTP client, against a mirror on loopback that is made here."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from linuxkit.errors import ImageError, InputError, LinuxkitError, NetworkError
from linuxkit.oci.media import Image, Platform
from linuxkit.oci.store import Store
from linuxkit.packages.kit import Kit
from support.debs import elf_of, program_deb, read_tar, signer, unzstd
from support.mirror import LD, LIB, RECIPE, Mirror, kit, mirror

__all__ = ["kit", "mirror"]  # fixtures
pytestmark = pytest.mark.unit
AMD64 = Platform("linux", "amd64")


def layer(store: Path, image: Image) -> dict[str, Any]:
    return read_tar(unzstd((store / "blobs/sha256" / image.layers[0].digest[7:]).read_bytes()))


def test_an_image_has_what_the_recipe_names_and_what_that_needs(tmp_path: Path, kit: Callable[..., Kit]) -> None:
    image = kit().resolve("tool", AMD64)
    found = layer(tmp_path / "a", image)
    files = {name for name, info in found.items() if not info.isdir()}
    assert files == {
        "bin/t", "etc/tool.conf", LD, "usr/bin/tool", f"{LIB}/libtool.so.1", f"{LIB}/libc.so.6",
        "usr/share/doc/tool/copyright", "usr/share/doc/libtool1/copyright", "usr/share/doc/libc6/copyright",
    }  # fmt: skip
    assert list(found) == sorted(found, key=lambda n: n.split("/"))
    assert {info.mtime for info in found.values()} == {1492533000}
    assert {(info.uid, info.gid) for info in found.values()} == {(0, 0)}
    assert found["usr/bin/tool"].mode == 0o755
    config = image.config
    assert (config.entrypoint, config.cmd, config.env, config.working_dir) == (
        ("/usr/bin/tool",), ("--help",), ("A=b",), "/tmp"
    )  # fmt: skip
    assert json.loads(config.labels["org.mobyproject.config"]) == {"capabilities": ["CAP_CHOWN"]}
    assert config.labels["org.example.x"] == "1"
    assert config.labels["org.linuxkit.debian.packages"] == "libc6=1.0 libtool1=1.0 tool=1.0"
    assert image.reference.startswith("linuxkit.kit/tool:")


def test_data_is_kept_without_what_it_would_need(tmp_path: Path, kit: Callable[..., Kit]) -> None:
    recipe = tmp_path / "kit/tool/build.yml"
    recipe.write_text(RECIPE.replace("keep: [usr/bin/tool]", "data: [usr/bin/*]"))
    image = kit().resolve("tool", AMD64)
    files = {name for name, info in layer(tmp_path / "a", image).items() if not info.isdir()}
    assert files == {"bin/t", "etc/tool.conf", "usr/bin/tool", "usr/bin/other", "usr/share/doc/tool/copyright"}
    assert image.config.labels["org.linuxkit.debian.packages"] == "tool=1.0"


def test_another_component_of_the_archive(tmp_path: Path, mirror: Mirror, kit: Callable[..., Kit]) -> None:
    recipe = tmp_path / "kit/tool/build.yml"
    recipe.write_text(RECIPE.replace("debian:", "debian:\n  suite: trixie/non-free-firmware").replace("keep", "data"))
    with pytest.raises(ImageError, match="no packages for amd64"):
        kit().resolve("tool", AMD64)
    mirror.archive.component = "non-free-firmware"
    mirror.archive.write()
    config = kit().resolve("tool", AMD64).config
    assert config.labels["org.linuxkit.debian.packages"] == "tool=1.0"
    assert config.labels["org.linuxkit.debian.suite"] == "trixie"


def test_two_stores_get_the_same_image(kit: Callable[..., Kit]) -> None:
    assert kit("a").resolve("tool", AMD64).digest == kit("b").resolve("tool", AMD64).digest


def test_only_what_is_needed_is_fetched_and_only_once(mirror: Mirror, kit: Callable[..., Kit]) -> None:
    first = kit().resolve("tool", AMD64)
    pool = sorted(path.rpartition("/")[2] for path in mirror.asked if "/pool/" in path)
    assert pool == ["libc6_1.0_amd64.deb", "libtool1_1.0_amd64.deb", "tool_1.0_amd64.deb"]
    assert sum("by-hash" in path for path in mirror.asked) == 3
    mirror.asked.clear()
    mirror.stop()
    assert kit().resolve("tool", AMD64).digest == first.digest  # it is in the store
    (again,) = kit().ensure(["tool"], AMD64, again=True)  # made anew from what was fetched
    assert again.image.digest == first.digest
    assert mirror.asked == []


def test_a_newer_package_in_the_security_archive_is_taken(mirror: Mirror, kit: Callable[..., Kit]) -> None:
    mirror.archive.add("tool", program_deb("tool", {"usr/bin/tool": b"#!/new\n"}), version="1.0+deb13u1",
                       suite="trixie-security")  # fmt: skip
    mirror.archive.root.joinpath("debian-security").mkdir(exist_ok=True)
    pool = mirror.archive.root / "debian/pool"
    (mirror.archive.root / "debian-security/pool").symlink_to(pool)
    mirror.archive.write()
    assert "tool=1.0+deb13u1" in kit().resolve("tool", AMD64).config.labels["org.linuxkit.debian.packages"]


def nothing_was_made(tmp_path: Path) -> None:
    assert Store(tmp_path / "a").names() == []
    debs = tmp_path / "a/kit/debian/debs"
    assert not list(debs.glob(".tmp-*"))


@pytest.mark.parametrize("how", ["changed", "shorter", "longer", "gone"])
def test_a_package_that_is_not_what_the_index_says_is_refused(
    tmp_path: Path, mirror: Mirror, kit: Callable[..., Kit], how: str
) -> None:
    path = mirror.path("libtool1_1.0_amd64.deb")
    data = path.read_bytes()
    changed = {"changed": data[:-9] + bytes(9), "shorter": data[:-1], "longer": data + b"x"}
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(changed[how])
    with pytest.raises(NetworkError if how == "gone" else ImageError) as caught:
        kit().resolve("tool", AMD64)
    assert "libtool1" in caught.value.message
    nothing_was_made(tmp_path)
    path.write_bytes(data)  # and the cache is still good
    assert kit().resolve("tool", AMD64)


def test_a_package_list_that_was_not_signed_is_refused(
    tmp_path: Path, mirror: Mirror, kit: Callable[..., Kit]
) -> None:
    for path in (mirror.archive.root / "debian/dists/trixie").rglob("*"):
        if path.is_file() and path.name != "InRelease":
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 1
            path.write_bytes(data)
    with pytest.raises(ImageError, match=r"damaged|not the list that was signed"):
        kit().resolve("tool", AMD64)
    nothing_was_made(tmp_path)


@pytest.mark.parametrize("suite", ["trixie", "trixie-updates", "trixie-security"])
def test_a_release_by_someone_else_is_refused(
    tmp_path: Path, mirror: Mirror, kit: Callable[..., Kit], suite: str
) -> None:
    mirror.archive.signer = signer("other")
    good = {p: p.read_bytes() for p in mirror.archive.root.rglob("InRelease") if p.parent.name != suite}
    mirror.archive.write()
    for path, data in good.items():
        path.write_bytes(data)
    with pytest.raises(ImageError, match=rf"^{suite}/InRelease: not signed by a key that we trust"):
        kit().resolve("tool", AMD64)
    assert not any("/pool/" in path for path in mirror.asked)
    nothing_was_made(tmp_path)


def test_an_outdated_release_is_refused(mirror: Mirror, kit: Callable[..., Kit]) -> None:
    mirror.archive.until = "Wed, 15 Nov 2023 22:13:20 UTC"
    mirror.archive.write()
    with pytest.raises(ImageError, match="out of date since"):
        kit().resolve("tool", AMD64)


def test_a_mirror_that_goes_back_is_refused(tmp_path: Path, mirror: Mirror, kit: Callable[..., Kit]) -> None:
    here = kit()
    old, new = mirror.archive.date, "Wed, 15 Nov 2023 22:13:20 UTC"
    mirror.archive.date = new
    mirror.archive.write()
    here.newest(["tool"], AMD64)
    mirror.archive.date = old
    mirror.archive.write()
    with pytest.raises(ImageError, match="older than the one seen before, of 2023-11-15"):
        here.newest(["tool"], AMD64)
    assert kit(rollback=True).newest(["tool"], AMD64)  # the flag, and the control: nothing else is wrong with it
    mirror.archive.date = new
    mirror.archive.write()
    assert kit().newest(["tool"], AMD64)


def test_a_release_of_another_suite_is_refused(mirror: Mirror, kit: Callable[..., Kit]) -> None:
    root = mirror.archive.root / "debian/dists"
    (root / "trixie/InRelease").write_bytes((root / "trixie-updates/InRelease").read_bytes())
    with pytest.raises(ImageError, match="answered with suite 'trixie-updates', not 'trixie'"):
        kit().resolve("tool", AMD64)


def test_a_list_larger_than_it_says_stops_there(mirror: Mirror, kit: Callable[..., Kit]) -> None:
    for path in (mirror.archive.root / "debian/dists/trixie").rglob("*"):
        if path.is_file() and path.name != "InRelease":
            path.write_bytes(path.read_bytes() + bytes(1 << 20))
    with pytest.raises(ImageError, match="larger than the"):
        kit().resolve("tool", AMD64)


def test_a_mirror_that_is_down_is_a_network_error_and_old_lists_do(mirror: Mirror, kit: Callable[..., Kit],
                                                                    tmp_path: Path) -> None:  # fmt: skip
    import os

    said: list[str] = []
    first = kit(say=said.append).resolve("tool", AMD64)
    for path in (tmp_path / "a/kit/debian").rglob("updated"):
        os.utime(path, (0, 0))
    mirror.stop()
    (again,) = kit(say=said.append).ensure(["tool"], AMD64, again=True)
    assert again.image.digest == first.digest
    assert any("package lists from before" in line for line in said)
    with pytest.raises(NetworkError):
        kit("b").resolve("tool", AMD64)


def test_offline_builds_nothing(kit: Callable[..., Kit]) -> None:
    with pytest.raises(ImageError, match="--offline"):
        kit(offline=True).resolve("tool", AMD64)


def test_a_damaged_package_in_the_cache_is_fetched_again(
    tmp_path: Path, mirror: Mirror, kit: Callable[..., Kit]
) -> None:
    first = kit().resolve("tool", AMD64)
    for path in (tmp_path / "a/kit/debian/debs").glob("*.deb"):
        path.write_bytes(b"damaged")
    (again,) = kit().ensure(["tool"], AMD64, again=True)
    assert again.image.digest == first.digest


@pytest.mark.parametrize(("old", "new", "error", "words"), [
    ("packages: [tool]", "packages: [tols]", InputError, "Debian has no package 'tols'"),
    ("usr/bin/tool]", "usr/bin/toll]", InputError, "no file of the packages is called 'usr/bin/toll'"),
    ("description: a test", "description: a test\narches: [arm64]", InputError, "is not made for amd64"),
    ("packages: [tool]", "packages: [tool]\n  without: [libtool1]", ImageError, "needs libtool.so.1"),
])  # fmt: skip
def test_a_recipe_that_does_not_fit_is_told_so(
    tmp_path: Path, kit: Callable[..., Kit], old: str, new: str, error: type[LinuxkitError], words: str
) -> None:
    path = tmp_path / "kit/tool/build.yml"
    assert old in RECIPE
    path.write_text(RECIPE.replace(old, new))
    with pytest.raises(error, match=words):
        kit().resolve("tool", AMD64)
    nothing_was_made(tmp_path)


def test_another_architecture_hangs_under_the_same_name(mirror: Mirror, kit: Callable[..., Kit]) -> None:
    for suite in mirror.archive.packages:
        mirror.archive.packages[suite] = []
    mirror.archive.add("tool", program_deb("tool", {"usr/bin/tool": elf_of(machine=183)}), arch="arm64")
    amd64 = kit().resolve("tool", AMD64)
    mirror.archive.write("arm64")
    arm64 = kit().resolve("tool", Platform("linux", "arm64"))
    assert arm64.reference == amd64.reference
    assert (arm64.platform.architecture, arm64.config.architecture) == ("arm64", "arm64")
    at = kit(offline=True)
    assert (at.resolve("tool", AMD64).digest, at.resolve("tool", arm64.platform).digest) == (amd64.digest, arm64.digest)


def test_an_architecture_that_nobody_makes_is_refused(kit: Callable[..., Kit]) -> None:
    with pytest.raises(InputError, match="not made for s390x"):
        kit().resolve("tool", Platform("linux", "s390x"))
