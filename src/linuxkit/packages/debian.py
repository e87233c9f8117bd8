"""Packages of a Debian suite for one architecture: the index and the files, both verified, both cached.

    <root>/SUITE-ARCH/…            lists as the transport keeps them
    <root>/debs/<sha256>.deb       packages by digest: downloaded once for all recipes
    <root>/debs/<sha256>.name      NAME VERSION, as the index had it

How the bytes come here is the transport's business (apt.py, archive.py). What they are worth is decided here, the same
way for both: the release file's signature against the keys that the project carries, the index's digest against the
release file, each package's digest against the index.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

from linuxkit import room
from linuxkit.entry import Entry
from linuxkit.errors import ImageError, InputError, LinuxkitError, NetworkError
from linuxkit.oci.workspace import workspace
from linuxkit.packages import deb, release
from linuxkit.packages.index import Index, Package, Relation
from linuxkit.packages.origin import Pins as Pins
from linuxkit.packages.slice import Tree, licences

#: Debian's names of the architectures, and the GNU triplets of its library folders, by Go's names.
ARCHITECTURES = {
    "amd64": ("amd64", "x86_64-linux-gnu"),
    "arm64": ("arm64", "aarch64-linux-gnu"),
    "riscv64": ("riscv64", "riscv64-linux-gnu"),
}
#: Where Debian builds a kernel for clouds.
CLOUD_FLAVOURS = frozenset({"amd64", "arm64"})
#: Sections whose packages are followed as dependencies. Programs that a package needs are named by the recipe.
LIBRARIES = frozenset({"libs", "oldlibs"})
#: How old lists may be before they are asked for again.
FRESH = timedelta(hours=6)


@dataclass(frozen=True, slots=True)
class Listing:
    """One suite as it lies on this machine: where it came from, its release file and its index."""

    mirror: str
    suite: str
    release: Path
    packages: Path | None  # None where it is empty


class Transport(Protocol):
    """Brings lists and packages to this machine. Checks nothing that Debian does not check again."""

    def update(self) -> None:
        """Fetch the lists anew."""

    def listings(self) -> Sequence[Listing]:
        """The suites whose lists are here; empty when there are none yet."""

    def download(self, packages: Sequence[Package], folder: Path) -> None:
        """Put each package into `folder`, under any name that ends in `.deb`."""


class Debian:
    """A suite for one architecture.

    Args:
        root: the cache folder for all of Debian.
        transport: how to reach the archive.
        architecture: in Debian's spelling.
        component: the one of the archive that the transport looks into.
        keys: whom to trust.
        now: the clock, for freshness and Valid-Until.
        say: told what is going on, a line at a time.
        seen: of which release files have been seen; noted in `root` when not given.
    """

    kind = "debian"
    inherent = ""

    def __init__(
        self, root: Path, transport: Transport, *, architecture: str, component: str = "main",
        keys: Sequence[release.Key] | None = None, now: Callable[[], datetime] = lambda: datetime.now(UTC),
        say: Callable[[str], None] = lambda _: None, seen: release.Seen | None = None,
    ) -> None:  # fmt: skip
        self._debs = root / "debs"
        triplet = next((long for short, long in ARCHITECTURES.values() if short == architecture), "")
        cloud = f"cloud-{architecture}" if architecture in CLOUD_FLAVOURS else architecture
        self.spelled = {"{arch}": architecture, "{triplet}": triplet, "{cloud}": cloud}
        self._transport, self.architecture, self._component = transport, architecture, component
        self._keys = list(keys) if keys is not None else release.trusted_keys()
        self._now, self._say = now, say
        self._seen = seen or release.Seen(root)
        self._lock = threading.RLock()
        self._index: Index | None = None

    def index(self, *, renew: bool = False) -> Index:
        """The verified index; lists are fetched when there are none or they are old.

        Raises:
            NetworkError, HostError: the archive is out of reach and there are no lists from before.
            ImageError: the archive's data is not what was signed.
        """
        with self._lock:
            if self._index is None or renew:
                listings = self._transport.listings()
                if renew or not listings or self._old(listings):
                    self._say("fetching the package lists")
                    try:
                        self._transport.update()
                    except LinuxkitError as e:
                        if not listings or renew:
                            raise
                        self._say(f"using the package lists from before: {e.message}")
                listings = self._transport.listings()
                if not listings:
                    raise NetworkError("the mirror has no complete package lists", hint="try another mirror")
                checked = [(one.mirror, self._checked(one)) for one in listings]
                self._index = Index([(mirror, path) for mirror, path in checked if path is not None])
            return self._index

    def renew(self) -> None:
        """See origin.Origin."""
        self.index(renew=True)

    def unpack(self, package: Package, file: Path, spool: Path) -> dict[str, Entry]:
        """See origin.Origin."""
        return deb.unpack(file, spool)

    def records(self, tree: Tree, used: Iterable[Package]) -> dict[str, Entry]:
        """The copyright files."""
        return licences(tree, (package.name for package in used))

    def _old(self, listings: Sequence[Listing]) -> bool:
        oldest = min(one.release.parent.joinpath("updated").stat().st_mtime if
                     one.release.parent.joinpath("updated").exists() else 0 for one in listings)  # fmt: skip
        return self._now() - datetime.fromtimestamp(oldest, UTC) > FRESH

    def _checked(self, one: Listing) -> Path | None:
        where = f"{one.suite}/InRelease"
        now = self._now()
        text = release.verify(one.release.read_bytes(), self._keys, where, now=now)
        signed = release.parse(text, codename=one.suite, now=now, where=where)
        try:
            self._seen.check(one.suite, signed, where)
        except release.RollbackError:
            one.release.with_name("updated").unlink(missing_ok=True)  # the next time, the mirror is asked again
            raise
        name = f"{self._component}/binary-{self.architecture}/Packages"
        if name not in signed.files:
            raise ImageError(f"{where}: the archive has no packages for {self.architecture}")
        if one.packages is None and signed.files[name][1] == 0:
            return None
        if one.packages is None or deb.sha256(one.packages) != signed.files[name][0]:
            raise ImageError(f"{one.suite}: the package list is not the one that was signed",
                             hint="try again; a mirror in the middle of an update can answer so")  # fmt: skip
        return one.packages

    def closure(self, names: Iterable[str], without: Iterable[str] = ()) -> list[Package]:
        """The newest version of each named package and of the libraries that they need, in a stable order.

        Raises:
            InputError: a name that the archive does not have.
        """
        index = self.index()
        skip = set(without)
        found: dict[str, Package] = {}
        queue: list[Package] = []
        for name in names:
            package = index.best(Relation(name))
            if package is None:
                import difflib

                close = difflib.get_close_matches(name, index.names(), n=1)
                raise InputError(f"Debian has no package {name!r}", hint=f"did you mean {close[0]!r}?" if close else "")
            queue.append(package)
        while queue:
            package = queue.pop(0)
            if package.name in found:
                continue
            found[package.name] = package
            for group in package.depends:
                offers = [best for relation in group if (best := index.best(relation)) is not None]
                if offers and offers[0].section.rpartition("/")[2] in LIBRARIES and offers[0].name not in skip:
                    queue.append(offers[0])
        return list(found.values())

    def pinned(self, pins: Pins, what: str) -> list[Package]:
        """Exactly these packages, sorted by name: from the cache, or while the archive has them.

        Args:
            what: is made of them; for messages.

        Raises:
            ImageError: the archive has other versions by now.
            NetworkError, HostError: as for `index`.
        """
        found: list[Package] = []
        gone: list[str] = []
        for name, (version, digest) in sorted(pins.items()):
            file = self._debs / f"{digest}.deb"
            if self._noted(digest) == f"{name} {version}" and file.is_file() and deb.sha256(file) == digest:
                found.append(Package(name, version, self.architecture, "", file.stat().st_size, digest, "", "", name))
                continue
            offers = self.index().versions(name)
            match = next((p for p in offers if (p.version, p.sha256) == (version, digest)), None)
            if match is None:
                now = f"it has {offers[0].version}" if offers else "it has no such package now"
                gone.append(f"{name} {version} ({now})")
            else:
                found.append(match)
        if gone:
            raise ImageError(
                f"{what}: the Debian archive no longer has what the lock names: {', '.join(gone)}",
                hint="take the new versions with 'linuxkit update' (of a package: 'linuxkit pkg lock'), or give a "
                     "mirror that keeps old ones: --debian-mirror",
            )  # fmt: skip
        return found

    def fetch(self, packages: Iterable[Package]) -> dict[str, Path]:
        """The files of some packages by package name, downloading those that are not here.

        Raises:
            NetworkError, HostError: the archive is out of reach.
            ImageError: a file is not what the index says.
        """
        wanted = list(packages)
        with self._lock:
            self._debs.mkdir(parents=True, exist_ok=True)
            missing = [p for p in wanted if not self._good(p)]
            if missing:
                total = sum(p.size for p in missing) / 1e6
                room.need(self._debs, sum(p.size for p in missing), "what is to be downloaded")
                self._say(f"downloading {len(missing)} package{'s' if len(missing) != 1 else ''}, {total:.1f} MB")
                with workspace(self._debs) as folder:
                    self._transport.download(missing, folder)
                    by_digest = {p.sha256: p for p in missing}
                    for file in sorted(folder.rglob("*.deb")):
                        digest = deb.sha256(file)
                        if digest in by_digest:
                            package = by_digest.pop(digest)
                            file.replace(self._file(package))
                            self._note(package)
                if by_digest:
                    names = ", ".join(str(p) for p in by_digest.values())
                    raise ImageError(f"the mirror does not have these packages as its index lists them: {names}",
                                     hint="try again in a few minutes, or give another mirror")  # fmt: skip
            return {p.name: self._file(p) for p in wanted}

    def _note(self, package: Package) -> None:
        """Write down what the index says a file is: a lock that says otherwise of the same digest is wrong."""
        (self._debs / f"{package.sha256}.name").write_text(f"{package.name} {package.version}")

    def _noted(self, digest: str) -> str:
        try:
            return (self._debs / f"{digest}.name").read_text(errors="replace")
        except OSError:
            return ""

    def _file(self, package: Package) -> Path:
        return self._debs / f"{package.sha256}.deb"

    def _good(self, package: Package) -> bool:
        """Whether the cached file is there and undamaged; one that is not is removed."""
        file = self._file(package)
        if not file.is_file():
            return False
        if file.stat().st_size == package.size and deb.sha256(file) == package.sha256:
            return True
        file.unlink(missing_ok=True)
        return False
