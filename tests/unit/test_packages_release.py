"""The archive's signature: verified for real, by whichever verifier this machine has."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from linuxkit.errors import HostError, ImageError
from linuxkit.packages import release
from linuxkit.packages.release import Key
from support.debs import Signer, signer

pytestmark = pytest.mark.unit
NOW = datetime(2026, 1, 1, tzinfo=UTC)
TEXT = b"""Origin: Test
Suite: stable
Codename: trixie
- a line that starts with a dash
SHA256:
 %b 12 main/binary-amd64/Packages
""" % (b"0" * 64)


@pytest.fixture(scope="module")
def good() -> Signer:
    return signer("good")


@pytest.fixture(scope="module")
def other() -> Signer:
    return signer("other")


def key(signer: Signer) -> Key:
    return Key(signer.fingerprint, signer.public_key())


def verifiers() -> list[str]:
    found = [name for name in ("gpgv", "sqv") if shutil.which(name)]
    try:
        import pysequoia  # noqa: F401

        found.append("pysequoia")
    except ImportError:
        pass
    return found or ["none"]


@pytest.fixture(params=verifiers())
def verifier(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Each verifier of this machine in turn, alone on the search path."""
    name: str = request.param
    assert name != "none", "no OpenPGP verifier here: apt-get install gpgv"
    tool = shutil.which(name)
    if tool:
        (tmp_path / name).symlink_to(tool)
    monkeypatch.setenv("PATH", str(tmp_path))
    return name


def test_a_good_signature_gives_the_signed_text(good: Signer, verifier: str) -> None:
    assert release.verify(good.clearsign(TEXT), [key(good)], "x") == TEXT.rstrip(b"\n")


@pytest.mark.parametrize(("old", "new"), [(b"0" * 64, b"1" * 64), (b"trixie", b"trixia"), (b"Test\n", b"Test\n\n")])
def test_a_changed_text_is_refused(good: Signer, verifier: str, old: bytes, new: bytes) -> None:
    data = good.clearsign(TEXT)
    assert old in data
    with pytest.raises(ImageError, match="not signed by a key that we trust"):
        release.verify(data.replace(old, new, 1), [key(good)], "x")


def test_a_signature_of_another_key_is_refused(good: Signer, other: Signer, verifier: str) -> None:
    with pytest.raises(ImageError, match="not signed by a key that we trust"):
        release.verify(other.clearsign(TEXT), [key(good)], "x")


def test_a_key_that_is_not_the_one_of_its_fingerprint_is_refused(good: Signer, other: Signer, verifier: str) -> None:
    with pytest.raises(ImageError, match="not signed by a key that we trust"):
        release.verify(other.clearsign(TEXT), [Key(good.fingerprint, other.public_key())], "x")


def test_one_trusted_signature_of_several_is_enough(good: Signer, other: Signer, verifier: str) -> None:
    assert release.verify(good.clearsign(TEXT, other), [key(good)], "x") == TEXT.rstrip(b"\n")
    assert release.verify(other.clearsign(TEXT, good), [key(good)], "x") == TEXT.rstrip(b"\n")


def test_one_of_several_trusted_keys_is_enough(good: Signer, other: Signer, verifier: str) -> None:
    assert release.verify(other.clearsign(TEXT), [key(good), key(other)], "x")


def test_without_a_verifier_the_way_out_is_told(good: Signer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import sys

    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "pysequoia", None)
    with pytest.raises(HostError) as caught:
        release.verify(good.clearsign(TEXT), [key(good)], "x")
    assert "linuxkit[deb]" in caught.value.hint


@pytest.mark.parametrize("data", [
    b"", b"Origin: Test\n", b"-----BEGIN PGP SIGNED MESSAGE-----\n", TEXT,
    (b"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\nCodename: evil\n\nx\n-----BEGIN PGP SIGNATURE-----\n"
     b"-----END PGP SIGNATURE-----\n"),
])  # fmt: skip
def test_what_is_not_one_signed_message_is_refused(data: bytes) -> None:
    with pytest.raises(ImageError, match="not a signed release file"):
        release.split(data, "x")


def test_text_around_the_signed_message_is_refused(good: Signer) -> None:
    data = good.clearsign(TEXT)
    for wrong in (b"Codename: evil\n" + data, data + b"Codename: evil\n"):
        with pytest.raises(ImageError, match="not a signed release file"):
            release.split(wrong, "x")


def parse(text: bytes, codename: str = "trixie") -> release.Release:
    return release.parse(text, codename=codename, now=NOW, where="x")


def test_parse_reads_the_files_and_their_digests() -> None:
    assert parse(TEXT).files == {"main/binary-amd64/Packages": ("0" * 64, 12)}


def test_another_suite_than_the_one_asked_for_is_refused() -> None:
    with pytest.raises(ImageError, match="answered with suite 'trixie', not 'bookworm'"):
        parse(TEXT, "bookworm")


@pytest.mark.parametrize(("until", "old"), [
    ("Wed, 31 Dec 2025 23:59:59 UTC", True), ("Thu, 01 Jan 2026 00:00:01 UTC", False),
])  # fmt: skip
def test_valid_until_is_judged_by_the_clock_given(until: str, old: bool) -> None:
    text = TEXT + f"Valid-Until: {until}\n".encode()
    if old:
        with pytest.raises(ImageError, match="out of date since"):
            parse(text)
    else:
        assert parse(text).codename == "trixie"


def test_the_carried_keys_are_those_of_the_docs() -> None:
    docs = (Path(__file__).resolve().parents[2] / "docs/kit.md").read_text()
    keys = release.trusted_keys()
    assert len(keys) == 3
    for one in keys:
        spaced = " ".join(one.fingerprint[i : i + 4] for i in range(0, 40, 4))
        assert spaced in docs
        body = release.dearmour(one.armour)
        assert fingerprint(body) == one.fingerprint


def fingerprint(packets: bytes) -> str:
    """Of the first packet, a version 4 public key: SHA-1 over 99, its length, and itself."""
    import hashlib

    assert packets[0] in (0x98, 0x99)  # an old-format header, length of one or two bytes
    width = 1 if packets[0] == 0x98 else 2
    size = int.from_bytes(packets[1 : 1 + width], "big")
    body = packets[1 + width : 1 + width + size]
    return hashlib.sha1(b"\x99" + size.to_bytes(2, "big") + body).hexdigest().upper()
