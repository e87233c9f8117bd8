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


def verify(data: bytes, keys: Sequence[Key], where: str) -> bytes:
    """The text of an InRelease file that one of `keys` has signed.

    Raises:
        ImageError: nobody we trust signed it, or it has been changed.
        HostError: this machine has nothing that verifies OpenPGP signatures.
    """
    text, signature = split(data, where)
    signers = _signers(data, text, signature, keys)
    if not signers & {key.fingerprint for key in keys}:
        raise ImageError(
            f"{where}: not signed by a key that we trust, or changed after signing",
            hint="another mirror may help; the keys are in docs/kit.md",
        )
    return text


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
            return {
                line.split()[-1] for line in done.stdout.decode("ascii", "replace").splitlines()
                if line.startswith("[GNUPG:] VALIDSIG ")
            }  # fmt: skip
        try:
            sqv = host.find_tool("sqv", why="to check the archive's signature")
        except HostError:
            return _pysequoia(data, text, keys)
        done = host.run([sqv, "--keyring", names["ring.asc"], names["sig"], names["text"]], check=False, timeout=60)
        return set(done.stdout.decode("ascii", "replace").split()) if done.returncode == 0 else set()


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


def dearmour(data: bytes) -> bytes:
    """The binary form of an ASCII-armoured key (RFC 9580 section 6.2)."""
    body = data.split(b"-----BEGIN PGP PUBLIC KEY BLOCK-----", 1)[-1].split(b"-----END PGP", 1)[0]
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
        elif key == "SHA256" and (m := re.fullmatch(r" ([0-9a-f]{64}) +(\d+) (\S+)", line)):
            files[m[3]] = (m[1], number(m[2]))
    if codename not in (field.get("Codename"), field.get("Suite")):
        raise ImageError(f"{where}: the mirror answered with suite {field.get('Codename', '?')!r}, not {codename!r}")
    until = field.get("Valid-Until")
    if until:
        try:
            limit = parsedate_to_datetime(until.replace("UTC", "GMT"))
        except ValueError as e:
            raise ImageError(f"{where}: damaged Valid-Until {until!r}") from e
        if limit.tzinfo is None:
            limit = limit.replace(tzinfo=UTC)
        if now > limit:
            raise ImageError(f"{where}: out of date since {until}", hint="use a mirror that is kept up to date")
    return Release(field.get("Suite", ""), field.get("Codename", ""), field.get("Acquire-By-Hash") == "yes", files)
