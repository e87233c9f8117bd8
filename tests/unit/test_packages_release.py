"""The archive's signature: verified for real, by whichever verifier this machine has."""

from __future__ import annotations

import shutil
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linuxkit.errors import HostError, ImageError
from linuxkit.packages import openpgp, release
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


DAY = 24 * 3600
AFTER = datetime.fromtimestamp(Signer.BORN + 10 * DAY, UTC)


@pytest.mark.parametrize(("options", "says"), [
    ({}, ""), ({"hash": "sha512"}, ""), ({"lasts": 20 * 365 * DAY}, ""),  # the controls
    ({"hash": "sha1"}, "made with SHA-1"), ({"hash": "md5"}, "made with MD5"),
    ({"hash": "ripemd160"}, "made with RIPEMD-160"), ({"lasts": DAY}, "it has expired"),
])  # fmt: skip
def test_a_signature_that_does_not_hold(good: Signer, verifier: str, options: dict[str, Any], says: str) -> None:
    data = good.clearsign(TEXT, **options)
    if not says:
        assert release.verify(data, [key(good)], "x", now=AFTER)
        return
    with pytest.raises(ImageError, match=f"not signed by a key that we trust.*{says}"):
        release.verify(data, [key(good)], "x", now=AFTER)


def test_a_signature_expires_by_the_clock_given(good: Signer) -> None:
    data = good.clearsign(TEXT, lasts=20 * 365 * DAY)
    assert release.verify(data, [key(good)], "x", now=datetime.fromtimestamp(Signer.BORN + 19 * 365 * DAY, UTC))
    with pytest.raises(ImageError, match="it has expired"):
        release.verify(data, [key(good)], "x", now=datetime.fromtimestamp(Signer.BORN + 21 * 365 * DAY, UTC))
    with pytest.raises(ImageError, match="made in the future"):
        release.verify(data, [key(good)], "x", now=datetime.fromtimestamp(Signer.BORN - 2 * DAY, UTC))


@pytest.mark.parametrize(("options", "says"), [({"lasts": DAY}, "has expired"), ({"revoked": True}, "was revoked")])
def test_a_key_that_does_not_hold(verifier: str, options: dict[str, Any], says: str) -> None:
    """gpgv calls these signatures valid; the control is the same key with neither."""
    bad = signer("good", **options)
    assert bad.fingerprint == signer("good").fingerprint
    data = bad.clearsign(TEXT)
    assert release.verify(data, [key(signer("good"))], "x", now=AFTER)
    with pytest.raises(ImageError, match=f"its key {bad.fingerprint} {says}"):
        release.verify(data, [key(bad)], "x", now=AFTER)


def test_a_good_signature_beside_one_that_does_not_hold(good: Signer, other: Signer, verifier: str) -> None:
    expired = signer("other", lasts=DAY)
    data = good.clearsign(TEXT, expired)
    assert release.verify(data, [key(good), key(expired)], "x", now=AFTER)


def test_what_gpgv_says() -> None:
    """The control of the status lines: VALIDSIG by itself is not enough."""
    valid = "[GNUPG:] VALIDSIG AA 2023-11-14 1700000060 0 4 0 1 8 01 BB"
    for word, found in (("GOODSIG", {"BB"}), ("EXPKEYSIG", set()), ("REVKEYSIG", set()), ("EXPSIG", set())):
        assert release._gpgv_signers(f"[GNUPG:] NEWSIG\n[GNUPG:] {word} AA name\n{valid}\n") == found


def test_the_carried_keys_hold() -> None:
    known = openpgp.ring([release.dearmour(one.armour) for one in release.trusted_keys()])
    assert {one.fingerprint for one in release.trusted_keys()} <= set(known)
    assert len(known) == 5
    for fact, primary in known.values():
        assert not fact.revoked
        assert fact.made + fact.lasts > 1_900_000_000  # into 2030
        assert fact.bits == 4096 or fact.algorithm == 22
        assert primary.fingerprint in known


@given(st.binary(max_size=300))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_no_signature_or_one(data: bytes) -> None:
    for read in (lambda: list(openpgp.packets(data)), lambda: openpgp.signature(data), lambda: openpgp.keys(data)):
        with suppress(ValueError):
            read()


def release_of(date: str) -> release.Release:
    return parse(TEXT + (f"Date: {date}\n".encode() if date else b""))


def test_an_older_release_than_the_one_seen_is_refused(tmp_path: Path) -> None:
    old, new = release_of("Sun, 01 Jun 2025 10:00:00 UTC"), release_of("Mon, 02 Jun 2025 10:00:00 UTC")
    seen = release.Seen(tmp_path)
    for one in (old, old, new, new):
        seen.check("trixie", one, "x")
    seen.check("bookworm", old, "x")  # another suite
    for one in (old, release_of("")):
        with pytest.raises(release.RollbackError, match="older than the one seen before, of 2025-06-02") as caught:
            release.Seen(tmp_path).check("trixie", one, "x")
        assert "--allow-release-rollback" in caught.value.hint
    release.Seen(tmp_path, allow=True).check("trixie", old, "x")
    with pytest.raises(release.RollbackError):  # allowed once, not for ever
        seen.check("trixie", old, "x")
    seen.check("trixie", release_of("Mon, 02 Jun 2025 12:00:00 +0100"), "x")


@pytest.mark.parametrize("text", ["", "x", "2025-06-02", "\xff" * 9])
def test_a_note_that_cannot_be_read(text: str, tmp_path: Path) -> None:
    (tmp_path / "seen-trixie").write_text(text)
    release.Seen(tmp_path).check("trixie", release_of("Sun, 01 Jun 2025 10:00:00 UTC"), "x")


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
