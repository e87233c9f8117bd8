"""The transport on machines without apt: lists and packages over HTTP, read the way the archive is laid out.

    MIRROR/dists/SUITE/InRelease
    MIRROR/dists/SUITE/COMPONENT/binary-ARCH/Packages.xz        or by-hash/SHA256/… beside it
    MIRROR/pool/…/NAME_VERSION_ARCH.deb

The release file is verified before anything that it lists is fetched, and what it lists is bounded by the sizes in it.
"""

from __future__ import annotations

import hashlib
import lzma
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path

from linuxkit.errors import ImageError
from linuxkit.packages import release
from linuxkit.packages.debian import Listing
from linuxkit.packages.index import Package
from linuxkit.packages.sources import Mirror

#: Opens a URL: a context manager that yields the body in pieces. Raises NetworkError.
Fetch = Callable[[str], AbstractContextManager[Iterator[bytes]]]
_MOST_RELEASE = 8 << 20
_MOST_PACKAGES = 512 << 20


class Archive:
    """Our own client of a Debian mirror.

    Args:
        folder: where its lists are kept; one per suite and architecture.
        fetch: how a URL is read.
        keys, now, seen: as for Debian, which checks again.
        component: the one of the archive that is looked into.
    """

    def __init__(self, folder: Path, mirror: Mirror, suite: str, architecture: str, fetch: Fetch, *,
                 keys: Sequence[release.Key] | None = None, component: str = "main",
                 now: Callable[[], datetime] = lambda: datetime.now(UTC), seen: release.Seen | None = None,
                 ) -> None:  # fmt: skip
        self._folder, self._fetch, self._architecture = folder, fetch, architecture
        self._component = component
        self._suites = mirror.suites(suite)
        self._keys = list(keys) if keys is not None else release.trusted_keys()
        self._now, self._seen = now, seen

    def update(self) -> None:
        """Raises: NetworkError, ImageError."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(len(self._suites)) as pool:
            for _ in pool.map(lambda pair: self._update(*pair), self._suites):
                pass
        (self._folder / "updated").write_bytes(b"")

    def _update(self, mirror: str, suite: str) -> None:
        where = f"{suite}/InRelease"
        base = f"{mirror}/dists/{suite}"
        data = read_whole(self._fetch, f"{base}/InRelease", _MOST_RELEASE)
        now = self._now()
        signed = release.parse(release.verify(data, self._keys, where, now=now), codename=suite, now=now, where=where)
        if self._seen is not None:
            self._seen.check(suite, signed, where)  # before the lists from before are replaced
        folder = f"{self._component}/binary-{self._architecture}"
        plain, packed = f"{folder}/Packages", f"{folder}/Packages.xz"
        if plain not in signed.files or packed not in signed.files:
            raise ImageError(f"{where}: the archive has no packages for {self._architecture}")
        digest, size = signed.files[packed]
        want, length = signed.files[plain]
        if length > _MOST_PACKAGES or size > _MOST_PACKAGES:
            raise ImageError(f"{where}: a package list of {max(size, length)} bytes")
        target = self._folder / f"{suite}_Packages"
        if not target.is_file() or target.stat().st_size != length or _hash(target) != want:
            name = f"{folder}/by-hash/SHA256/{digest}" if signed.by_hash else packed
            self._list(f"{base}/{name}", target, (digest, size), (want, length))
        _replace(self._folder / f"{suite}_InRelease", data)

    def _list(self, url: str, target: Path, packed: tuple[str, int], plain: tuple[str, int]) -> None:
        """Fetch a package list and unpack it, checking both digests on the way."""
        outer, inner = hashlib.sha256(), hashlib.sha256()
        got = made = 0
        decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=256 << 20)
        temporary = target.with_name(f".tmp-{target.name}")
        try:
            with self._fetch(url) as body, temporary.open("wb") as out:
                for piece in body:
                    got += len(piece)
                    if got > packed[1]:
                        raise ImageError(f"{url}: larger than the {packed[1]} bytes that the release file says")
                    outer.update(piece)
                    while piece or (not decoder.needs_input and not decoder.eof):
                        text = decoder.decompress(piece, 1 << 20)
                        piece = b""
                        made += len(text)
                        if made > plain[1]:
                            raise ImageError(f"{url}: unpacks to more than the {plain[1]} bytes it should")
                        inner.update(text)
                        out.write(text)
            if (outer.hexdigest(), inner.hexdigest()) != (packed[0], plain[0]):
                raise ImageError(f"{url}: not the list that was signed",
                                 hint="try again; a mirror in the middle of an update can answer so")  # fmt: skip
            temporary.replace(target)
        except (lzma.LZMAError, EOFError) as e:
            raise ImageError(f"{url}: damaged: {e}") from e
        finally:
            temporary.unlink(missing_ok=True)

    def listings(self) -> list[Listing]:
        found = [
            Listing(mirror, suite, self._folder / f"{suite}_InRelease", self._folder / f"{suite}_Packages")
            for mirror, suite in self._suites
        ]
        complete = all(one.release.is_file() and one.packages and one.packages.is_file() for one in found)
        return found if complete and (self._folder / "updated").exists() else []

    def download(self, packages: Sequence[Package], folder: Path) -> None:
        """Raises: NetworkError, ImageError."""
        with ThreadPoolExecutor(4) as pool:
            for _ in pool.map(lambda package: self._package(package, folder), packages):
                pass

    def _package(self, package: Package, folder: Path) -> None:
        count = 0
        url = f"{package.mirror}/{package.filename}"
        with self._fetch(url) as body, (folder / f"{package.sha256}.deb").open("wb") as out:
            for piece in body:
                count += len(piece)
                if count > package.size:
                    raise ImageError(f"{url}: larger than the {package.size} bytes that the index says")
                out.write(piece)


def read_whole(fetch: Fetch, url: str, limit: int) -> bytes:
    """What is behind a URL.

    Raises:
        ImageError: it is larger than `limit` bytes.
    """
    out = bytearray()
    with fetch(url) as body:
        for piece in body:
            out += piece
            if len(out) > limit:
                raise ImageError(f"{url}: larger than {limit} bytes")
    return bytes(out)


def _hash(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".tmp-{path.name}")
    temporary.write_bytes(data)
    temporary.replace(path)
