"""The other transport: apt-get, unprivileged, with its own state, against the mirror on loopback."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from linuxkit.errors import ImageError, LinuxkitError, NetworkError
from linuxkit.oci.media import Platform
from linuxkit.packages.kit import Kit
from support.debs import signer
from support.mirror import Mirror, kit, mirror

__all__ = ["kit", "mirror"]  # fixtures
pytestmark = pytest.mark.interop
AMD64 = Platform("linux", "amd64")


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def test_both_transports_give_the_same_image(mirror: Mirror, kit: Callable[..., Kit]) -> None:
    by_http = kit("a").resolve("tool", AMD64)
    fetched = len(mirror.asked)
    by_apt = kit("b", apt=True).resolve("tool", AMD64)
    assert len(mirror.asked) > fetched
    assert by_apt.digest == by_http.digest
    assert by_apt.config.labels["org.linuxkit.debian.packages"] == "libc6=1.0 libtool1=1.0 tool=1.0"


def test_what_is_here_is_not_fetched_again(mirror: Mirror, kit: Callable[..., Kit]) -> None:
    first = kit(apt=True).resolve("tool", AMD64)
    mirror.asked.clear()
    mirror.stop()
    (again,) = kit(apt=True).ensure(["tool"], AMD64, again=True)
    assert again.image.digest == first.digest
    assert mirror.asked == []


def test_the_machines_own_apt_is_left_alone(tmp_path: Path, kit: Callable[..., Kit]) -> None:
    before = {p: p.stat().st_mtime_ns for p in Path("/var/lib/apt/lists").glob("*") if p.is_file()}
    kit(apt=True).resolve("tool", AMD64)
    assert {p: p.stat().st_mtime_ns for p in Path("/var/lib/apt/lists").glob("*") if p.is_file()} == before
    assert list((tmp_path / "a/kit/debian").rglob("*InRelease"))


@pytest.mark.parametrize("what", ["signer", "list", "package"])
def test_a_changed_archive_is_refused(mirror: Mirror, kit: Callable[..., Kit], what: str) -> None:
    if what == "signer":
        mirror.archive.signer = signer("other")
        mirror.archive.write()
    elif what == "list":
        for path in (mirror.archive.root / "debian/dists/trixie").rglob("*"):
            if path.is_file() and path.name != "InRelease":
                data = bytearray(path.read_bytes())
                data[len(data) // 2] ^= 1
                path.write_bytes(data)
    else:
        path = mirror.path("libtool1_1.0_amd64.deb")
        path.write_bytes(path.read_bytes()[:-9] + bytes(9))
    with pytest.raises(LinuxkitError) as caught:
        kit(apt=True).resolve("tool", AMD64)
    assert isinstance(caught.value, NetworkError | ImageError)
    assert kit(apt=True, offline=True).find("tool", AMD64) is None


def test_what_apt_accepted_is_judged_again(tmp_path: Path, mirror: Mirror, kit: Callable[..., Kit]) -> None:
    """Lists that were changed after apt had verified them."""
    kit(apt=True).resolve("tool", AMD64)
    (listing,) = (p for p in (tmp_path / "a").rglob("*trixie_main_binary-amd64_Packages"))
    stat = listing.stat()
    listing.write_bytes(listing.read_bytes().replace(b"Version: 1.0", b"Version: 1.1"))
    os.utime(listing, (stat.st_atime, stat.st_mtime))
    with pytest.raises(ImageError, match="not the one that was signed"):
        kit(apt=True).ensure(["tool"], AMD64, again=True)


def test_a_mirror_that_does_not_answer_is_a_network_error(mirror: Mirror, kit: Callable[..., Kit]) -> None:
    mirror.stop()
    with pytest.raises(NetworkError, match="could not be fetched") as caught:
        kit(apt=True).resolve("tool", AMD64)
    assert "--debian-mirror" in caught.value.hint
