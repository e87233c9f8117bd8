"""Packages of an Alpine branch for one architecture: index and files, both verified, both cached.

    <root>/BRANCH-ARCH-TAG/REPOSITORY.tar.gz    indexes as they were signed; `updated` says when
    <root>/apks/<SHA-1 of its metadata>.apk     packages

A mirror is laid out as MIRROR/BRANCH/REPOSITORY/ARCH/{APKINDEX.tar.gz,NAME-VERSION.apk}. What comes from it is worth
what its signatures say: of the index, and of each package, by keys that the user gives. Alpine's indexes do not expire,
so a mirror that stands still is not noticed.
"""

from __future__ import annotations

import base64
import hashlib
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

from linuxkit.config.convert import did_you_mean
from linuxkit.entry import FIXED_MTIME, Bytes, Entry, Kind
from linuxkit.errors import HostError, ImageError, InputError, LinuxkitError
from linuxkit.oci.workspace import workspace
from linuxkit.packages import apk
from linuxkit.packages.apkindex import ApkIndex, Package, Relation
from linuxkit.packages.archive import Fetch, read_whole
from linuxkit.packages.origin import Pins
from linuxkit.packages.rsa import PublicKey, parse_key
from linuxkit.packages.slice import Tree

#: Alpine's names of the architectures, by Go's names.
ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64", "riscv64": "riscv64"}
#: How old indexes may be before they are asked for again.
FRESH = timedelta(hours=6)
INSTALLED = "lib/apk/db/installed"
_MOST_INDEX = 16 << 20
_BRANCH = re.compile(r"edge|latest-stable|v[0-9]+\.[0-9]+")


class Alpine:
    """A branch for one architecture.

    Args:
        root: the cache folder for all of Alpine.
        mirror: base URL, without a final slash.
        branch: `v3.22`, `edge`.
        repositories: `main`, `community`.
        architecture: in Go's names.
        keys: whom to trust, by the names of the keys' files.
        fetch: how a URL is read.
        now: the clock, for freshness.
        say: told what is going on, a line at a time.
    """

    kind = "alpine"
    inherent = "libc.musl-"  # musl's dynamic linker is the C library

    def __init__(
        self, root: Path, mirror: str, branch: str, repositories: Iterable[str], architecture: str,
        keys: Mapping[str, PublicKey], fetch: Fetch, *, now: Callable[[], datetime] = lambda: datetime.now(UTC),
        say: Callable[[str], None] = lambda _: None,
    ) -> None:  # fmt: skip
        if architecture not in ARCHITECTURES:
            raise InputError(f"Alpine's packages for {architecture} are not known",
                             hint=f"there are {', '.join(ARCHITECTURES)}")  # fmt: skip
        arch = ARCHITECTURES[architecture]
        self._urls = {name: f"{mirror}/{branch}/{name}/{arch}" for name in repositories}
        tag = hashlib.sha256(mirror.encode()).hexdigest()[:8]
        self._lists, self._apks = root / f"{branch}-{arch}-{tag}", root / "apks"
        self._keys, self._fetch, self._now, self._say = keys, fetch, now, say
        self.spelled = {"{arch}": arch, "{triplet}": f"{arch}-alpine-linux-musl"}
        self._lock = threading.RLock()
        self._index: ApkIndex | None = None

    # -- the index

    def index(self, *, renew: bool = False) -> ApkIndex:
        """The verified index; lists are fetched when there are none or they are old.

        Raises:
            NetworkError: the mirror is out of reach and there are no lists from before.
            ImageError: the mirror's data is not what was signed.
        """
        with self._lock:
            if self._index is None or renew:
                here = all(self._list(name).is_file() for name in self._urls)
                if renew or not here or self._old():
                    self._say("fetching Alpine's package lists")
                    try:
                        self._update()
                    except LinuxkitError as e:
                        if not here or renew:
                            raise
                        self._say(f"using the package lists from before: {e.message}")
                self._index = ApkIndex(
                    (url, apk.read_index(self._list(name).read_bytes(), self._keys, f"{url}/APKINDEX.tar.gz"))
                    for name, url in self._urls.items()
                )
            return self._index

    def renew(self) -> None:
        """See origin.Origin."""
        self.index(renew=True)

    def _list(self, name: str) -> Path:
        return self._lists / f"{name}.tar.gz"

    def _old(self) -> bool:
        note = self._lists / "updated"
        at = note.stat().st_mtime if note.exists() else 0
        return self._now() - datetime.fromtimestamp(at, UTC) > FRESH

    def _update(self) -> None:
        self._lists.mkdir(parents=True, exist_ok=True)
        for name, url in self._urls.items():
            data = read_whole(self._fetch, f"{url}/APKINDEX.tar.gz", _MOST_INDEX)
            apk.read_index(data, self._keys, f"{url}/APKINDEX.tar.gz")  # what is kept has been checked
            temporary = self._lists / f".tmp-{name}"
            temporary.write_bytes(data)
            temporary.replace(self._list(name))
        (self._lists / "updated").write_bytes(b"")

    def closure(self, names: Iterable[str], without: Iterable[str] = ()) -> list[Package]:
        """See origin.Origin. A name may also be what a package provides: `cmd:nft`, `so:libz.so.1`, `pc:zlib`."""
        index = self.index()
        skip = set(without)
        queue: list[Package] = []
        for name in names:
            package = index.best(Relation(name))
            if package is None:
                raise InputError(f"Alpine has no package {name!r}", hint=did_you_mean(name, index.names()))
            queue.append(package)
        found: dict[str, Package] = {}
        while queue:
            package = queue.pop(0)
            if package.name in found:
                continue
            found[package.name] = package
            for relation in package.depends:
                best = None if relation.forbids else index.best(relation)
                if best is not None and best.name not in skip and (relation.name.startswith("so:") or best.is_library):
                    queue.append(best)
        return list(found.values())

    def pinned(self, pins: Pins, what: str) -> list[Package]:
        """See origin.Origin."""
        found: list[Package] = []
        gone: list[str] = []
        for name, (version, digest) in sorted(pins.items()):
            offers = self.index().versions(name)
            match = next((p for p in offers if (p.version, p.digest) == (version, digest)), None)
            if match is not None:
                found.append(match)
            else:
                gone.append(f"{name} {version} ({f'it has {offers[0].version}' if offers else 'it has none now'})")
        if gone:
            raise ImageError(
                f"{what}: the Alpine mirror no longer has what the lock names: {', '.join(gone)}",
                hint="renew the lock: linuxkit pkg lock",
            )
        return found

    # -- packages

    def fetch(self, packages: Iterable[Package]) -> dict[str, Path]:
        """See origin.Origin.

        Raises:
            NetworkError: the mirror is out of reach. ImageError: a file is not what the index says, or not signed.
        """
        wanted = list(packages)
        with self._lock:
            self._apks.mkdir(parents=True, exist_ok=True)
            missing = [p for p in wanted if not self._good(p)]
            if missing:
                total = sum(p.size for p in missing) / 1e6
                self._say(f"downloading {len(missing)} package{'s' if len(missing) != 1 else ''}, {total:.1f} MB")
                with workspace(self._apks) as folder, \
                        ThreadPoolExecutor(4) as pool:  # fmt: skip
                    for _ in pool.map(lambda p: self._download(p, folder), missing):
                        pass
            return {p.name: self._file(p) for p in wanted}

    def _file(self, package: Package) -> Path:
        return self._apks / f"{base64.b64decode(package.digest[2:]).hex()}.apk"

    def _good(self, package: Package) -> bool:
        file = self._file(package)
        try:
            self._check(file, package)
        except (ImageError, OSError):
            file.unlink(missing_ok=True)
            return False
        return True

    def _check(self, file: Path, package: Package) -> None:
        info = apk.check(file, package.digest, self._keys)
        if (info["pkgname"], info["pkgver"]) != (package.name, package.version):
            says = f"{info['pkgname']} {info['pkgver']}"
            raise ImageError(f"{package.filename}: it is {says}, and the index says {package}")

    def _download(self, package: Package, folder: Path) -> None:
        url, count = f"{package.repository}/{package.filename}", 0
        path = folder / package.filename
        with self._fetch(url) as body, path.open("wb") as out:
            for piece in body:
                count += len(piece)
                if count > package.size:
                    raise ImageError(f"{url}: larger than the {package.size} bytes that the index says")
                out.write(piece)
        self._check(path, package)
        path.replace(self._file(package))

    def unpack(self, package: Package, file: Path, spool: Path) -> dict[str, Entry]:
        """See origin.Origin."""
        return apk.unpack(file, spool)

    def records(self, tree: Tree, used: Iterable[Package]) -> dict[str, Entry]:
        """The database of installed packages, with their licences, as apk has it: for whoever lists what is inside."""
        text = "".join(f"{p.record}\n\n" for p in sorted(used, key=lambda p: p.name))
        source = Bytes(text.encode())
        return {INSTALLED: Entry(INSTALLED, Kind.FILE, 0o644, mtime=FIXED_MTIME, source=source)} if text else {}


def check_branch(text: str) -> str:
    """Raise InputError for what cannot be a branch's name."""
    if not _BRANCH.fullmatch(text):
        raise InputError(f"{text!r} is not a branch of Alpine", hint="write v3.22, or edge")
    return text


def find_mirror(given: str, root: Path = Path("/etc/apk")) -> str:
    """The mirror: the one that is given, else this machine's own.

    Raises:
        InputError: not a URL. HostError: there is none.
    """
    if given:
        if not re.match(r"^https?://[^\s\[\]]+$", given):
            raise InputError(f"{given!r} is not the URL of an Alpine mirror",
                             hint="give --alpine-mirror http://HOST/alpine")  # fmt: skip
        return given.rstrip("/")
    try:
        lines = (root / "repositories").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        match = re.match(r"^(?:@\S+\s+)?(https?://\S+?)/(?:edge|latest-stable|v[0-9.]+)/[a-z]+/?\s*$", line)
        if match:
            return match[1]
    raise HostError("a recipe takes files from Alpine, and nothing says where a mirror is",
                    hint="give one: --alpine-mirror http://HOST/alpine, or LINUXKIT_ALPINE_MIRROR")  # fmt: skip


def find_keys(given: Path | None, root: Path = Path("/etc/apk")) -> dict[str, PublicKey]:
    """The keys to trust, by the names of their files: those of a folder, else this machine's own.

    Raises:
        InputError: there are none, or one is no key.
    """
    folder = given or root / "keys"
    files = sorted(folder.glob("*.rsa.pub")) if folder.is_dir() else []
    if not files:
        raise InputError(f"{folder} has no key of Alpine's (*.rsa.pub)",
                         hint="give the folder: --alpine-keys DIR, or LINUXKIT_ALPINE_KEYS")  # fmt: skip
    return {path.name: parse_key(path.read_bytes(), str(path)) for path in files}
