"""A Debian archive's signed list of its indexes (InRelease): who signed it, whether it is still good, what it lists.

InRelease is a cleartext signature (RFC 9580 section 7): the text and a detached signature in one file. We take the two
apart ourselves and have a verifier check one against the other, so that the bytes that we parse are the bytes that
were signed; one that takes the whole must have found the same text. Verifier: gpgv, else sqv, else pysequoia.
"""

from __future__ import annotations

import base64
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

from linuxkit.errors import HostError, ImageError
from linuxkit.foreign import number
from linuxkit.oci.files import replacing
from linuxkit.packages import openpgp

_BEGIN = b"-----BEGIN PGP SIGNED MESSAGE-----"
_SIGNATURE = b"-----BEGIN PGP SIGNATURE-----"
_END = b"-----END PGP SIGNATURE-----"


@dataclass(frozen=True, slots=True)
class Key:
    """An archive key: its fingerprint (hex, upper case) and the public key, ASCII-armoured."""

    fingerprint: str
    armour: bytes


@dataclass(frozen=True, slots=True)
class Release:
    suite: str
    codename: str
    by_hash: bool
    files: Mapping[str, tuple[str, int]]  # path below dists/SUITE → (hex SHA-256, size)
    date: datetime | None = None  # when it was made


def trusted_keys(folder: Path | None = None) -> list[Key]:
    """The keys that the project carries: files NAME-FINGERPRINT.asc."""
    folder = folder or Path(__file__).parent / "keys"
    return [Key(p.stem.rpartition("-")[2], p.read_bytes()) for p in sorted(folder.glob("*.asc"))]


def split(data: bytes, where: str) -> tuple[bytes, bytes]:
    """(signed text, armoured signature) of a cleartext-signed file.

    Raises:
        ImageError: it is not exactly one such message.
    """
    lines = data.replace(b"\r\n", b"\n").split(b"\n")
    try:
        if lines[0] != _BEGIN:
            raise ValueError
        start = lines.index(b"", 1) + 1
        if any(not line.startswith(b"Hash: ") for line in lines[1 : start - 1]):
            raise ValueError
        middle = lines.index(_SIGNATURE, start)
        end = lines.index(_END, middle)
        if any(lines[end + 1 :]):
            raise ValueError
    except (ValueError, IndexError):
        raise ImageError(f"{where}: not a signed release file") from None
    text = [line[2:] if line.startswith(b"- ") else line for line in lines[start:middle]]
    return b"\n".join(text), b"\n".join(lines[middle : end + 1]) + b"\n"


def verify(data: bytes, keys: Sequence[Key], where: str, *, now: datetime | None = None) -> bytes:
    """The text of an InRelease file that one of `keys` has signed.

    Args:
        now: the time to judge signatures and keys by; this machine's when not given.

    Raises:
        ImageError: nobody we trust signed it, it has been changed, or what signed it does not hold (any more).
        HostError: this machine has nothing that verifies OpenPGP signatures.
    """
    text, signature = split(data, where)
    good, faults = _judged(signature, keys, now or datetime.now(UTC), where)
    signers: set[str] = set()
    if good:  # the verifier sees these only, in both forms
        armoured = openpgp.armour("SIGNATURE", b"".join(good))
        whole = data.replace(b"\r\n", b"\n").partition(_SIGNATURE)[0] + armoured
        signers = _signers(whole, text, armoured, keys)
    if not good or not signers & {key.fingerprint for key in keys}:
        why = f": {'; '.join(faults)}" if faults else ""
        raise ImageError(
            f"{where}: not signed by a key that we trust, or changed after signing{why}",
            hint="another mirror may help; the keys are in docs/kit.md",
        )
    return text


def _judged(armoured: bytes, keys: Sequence[Key], now: datetime, where: str) -> tuple[list[bytes], list[str]]:
    """The signatures that may count, as packets, and why the others don't."""
    good: list[bytes] = []
    faults: list[str] = []
    try:
        known = openpgp.ring([dearmour(key.armour) for key in keys])
        for tag, body, whole in openpgp.packets(dearmour(armoured, b"SIGNATURE")):
            if tag != openpgp.SIGNATURE:
                raise ValueError("something that is no signature")
            try:
                fault = openpgp.judge(openpgp.signature(body), known, now)
            except ValueError as e:
                fault = str(e)
            if fault:
                faults.append(fault)
            else:
                good.append(whole)
    except ValueError as e:  # binascii.Error is one
        raise ImageError(f"{where}: not a signed release file: {e}") from None
    return good, list(dict.fromkeys(faults))[:4]


def _signers(data: bytes, text: bytes, signature: bytes, keys: Sequence[Key]) -> set[str]:
    """Fingerprints of the keys that have signed `text`, as the first verifier at hand says."""
    from linuxkit import host

    with tempfile.TemporaryDirectory(prefix="linuxkit-") as folder:
        names = {name: Path(folder) / name for name in ("text", "sig", "ring.gpg", "ring.asc")}
        names["text"].write_bytes(text)
        names["sig"].write_bytes(signature)
        names["ring.gpg"].write_bytes(b"".join(dearmour(key.armour) for key in keys))
        names["ring.asc"].write_bytes(b"\n".join(key.armour for key in keys))
        try:
            gpgv = host.find_tool("gpgv", why="to check the archive's signature")
        except HostError:
            gpgv = None
        if gpgv is not None:
            done = host.run(
                [gpgv, "--status-fd", "1", "--homedir", folder, "--keyring", names["ring.gpg"], names["sig"],
                 names["text"]], check=False, timeout=60,
            )  # fmt: skip
            # a release has several signatures, and gpgv fails when it lacks the key of one: its status lines decide
            return _gpgv_signers(done.stdout.decode("ascii", "replace"))
        try:
            sqv = host.find_tool("sqv", why="to check the archive's signature")
        except HostError:
            return _pysequoia(data, text, keys)
        done = host.run([sqv, "--keyring", names["ring.asc"], names["sig"], names["text"]], check=False, timeout=60)
        return set(done.stdout.decode("ascii", "replace").split()) if done.returncode == 0 else set()


def _gpgv_signers(said: str) -> set[str]:
    """Fingerprints of the signers that gpgv calls good. By an expired key it says VALIDSIG too, no GOODSIG."""
    found: set[str] = set()
    good = False
    for line in said.splitlines():
        words = line.removeprefix("[GNUPG:] ").split()
        if words[:1] == ["NEWSIG"] or (words and words[0] in ("BADSIG", "ERRSIG", "EXPSIG", "EXPKEYSIG", "REVKEYSIG")):
            good = False
        elif words[:1] == ["GOODSIG"]:
            good = True
        elif words[:1] == ["VALIDSIG"] and good:
            found.add(words[-1])
    return found


def _pysequoia(data: bytes, text: bytes, keys: Sequence[Key]) -> set[str]:
    try:
        import pysequoia
    except ImportError:
        raise HostError(
            "nothing here can check the archive's signature",
            hint="install gpgv or sqv, or: pip install 'linuxkit[deb]'",
        ) from None
    certs = [pysequoia.Cert.from_bytes(key.armour) for key in keys]
    try:  # the whole message: handed a detached signature, it looks at the first of several only
        done = pysequoia.verify(bytes=data, store=lambda _: certs)
    except Exception:  # its error classes are not exported: any failure is "not verified"
        return set()
    if done.bytes != text:  # what it verified must be what we read
        return set()
    return {str(valid.certificate).upper() for valid in done.valid_sigs}


def dearmour(data: bytes, kind: bytes = b"PUBLIC KEY BLOCK") -> bytes:
    """The binary form of what is ASCII-armoured (RFC 9580 section 6.2)."""
    body = data.split(b"-----BEGIN PGP " + kind + b"-----", 1)[-1].split(b"-----END PGP", 1)[0]
    lines = body.strip(b"\n").split(b"\n")
    if b"" in lines:
        lines = lines[lines.index(b"") + 1 :]
    return base64.b64decode(b"".join(line for line in lines if not line.startswith(b"=") and b":" not in line))


def parse(text: bytes, *, codename: str, now: datetime, where: str) -> Release:
    """Read a verified release file.

    Args:
        codename: the suite that was asked for; a mirror must not answer with another.
        now: the time to judge Valid-Until by.

    Raises:
        ImageError: another suite, outdated, or damaged.
    """
    field: dict[str, str] = {}
    files: dict[str, tuple[str, int]] = {}
    key = ""
    for line in text.decode("utf-8", "replace").split("\n"):
        if not line.startswith(" "):
            key, _, value = line.partition(":")
            field[key] = value.strip()
        elif key == "SHA256" and (m := re.fullmatch(r" ([0-9a-f]{64}) +([0-9]{1,18}) (\S+)", line)):
            files[m[3]] = (m[1], number(m[2]))
    if codename not in (field.get("Codename"), field.get("Suite")):
        raise ImageError(f"{where}: the mirror answered with suite {field.get('Codename', '?')!r}, not {codename!r}")
    limit = _time(field.get("Valid-Until", ""), "Valid-Until", where)
    if limit is not None and now > limit:
        raise ImageError(f"{where}: out of date since {field['Valid-Until']}",
                         hint="use a mirror that is kept up to date")  # fmt: skip
    return Release(field.get("Suite", ""), field.get("Codename", ""), field.get("Acquire-By-Hash") == "yes", files,
                   _time(field.get("Date", ""), "Date", where))  # fmt: skip


def _time(text: str, name: str, where: str) -> datetime | None:
    if not text:
        return None
    try:
        found = parsedate_to_datetime(text.replace("UTC", "GMT"))
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError) as e:
        raise ImageError(f"{where}: damaged {name} {text[:60]!r}") from e


class RollbackError(ImageError):
    """A release file that is older than one that was seen before."""


class Seen:
    """The newest release file of each suite that this cache has seen, so that no mirror can go back behind a fix.

    Args:
        folder: where that is noted, a file for each suite: the date, ISO 8601.
        allow: take an older one all the same; what is noted stays.
    """

    def __init__(self, folder: Path, *, allow: bool = False) -> None:
        self._folder, self._allow = folder, allow

    def check(self, suite: str, found: Release, where: str) -> None:
        """Note a verified release file.

        Raises:
            RollbackError: a newer one was seen.
        """
        path = self._folder / f"seen-{suite.replace('/', '_')}"
        try:
            before = datetime.fromisoformat(path.read_text().strip())
        except (OSError, ValueError):
            before = None
        if before is not None and before.tzinfo is None:
            before = None
        if before is not None and (found.date is None or found.date < before):
            if self._allow:
                return
            now = f"of {found.date:%Y-%m-%d %H:%M}" if found.date else "without a date"
            raise RollbackError(
                f"{where}: the mirror's list is {now}, older than the one seen before, of {before:%Y-%m-%d %H:%M} UTC",
                hint="use a mirror that is kept up to date; an old one on purpose: --allow-release-rollback",
            )
        if found.date is not None and found.date != before:
            self._folder.mkdir(parents=True, exist_ok=True)
            with replacing(path) as out:
                out.write(found.date.isoformat().encode() + b"\n")
