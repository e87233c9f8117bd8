"""The kit: the packages behind kit://NAME. Finds them in the store by their recipe's hash, and builds what is missing.

    kit/NAME/build.yml ──────────────┐
    guest/ and flags, if it compiles ├─ SHA-256, 40 hex ─► linuxkit.kit/NAME:HASH in the store, one an architecture
    the recipe format's version ─────┘

Looking a package up reads a few small files and the store's index; everything heavier is imported when it is needed.
"""

from __future__ import annotations

import difflib
import fcntl
import hashlib
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from linuxkit.data import data_dir
from linuxkit.errors import ImageError, InputError, MissingError
from linuxkit.oci import kitmade
from linuxkit.oci.media import Image, Platform
from linuxkit.oci.reference import KIT_REGISTRY
from linuxkit.oci.store import Store

if TYPE_CHECKING:
    from linuxkit.packages.alpine import Alpine
    from linuxkit.packages.archive import Fetch
    from linuxkit.packages.build import Builder
    from linuxkit.packages.debian import Debian, Pins, Transport
    from linuxkit.packages.index import Package
    from linuxkit.packages.recipe import FromAlpine, Recipe

#: Raise it when the same recipe gives another image than before.
FORMAT = 4
PREFIX = KIT_REGISTRY


@dataclass(frozen=True, slots=True)
class Built:
    """A package that was asked for: what it is now, and how long making it took (0 when it was there)."""

    name: str
    image: Image
    seconds: float


class Kit:
    """The packages of a kit folder.

    Args:
        store: where images are and where built ones go.
        cache: folder for what building needs again: package lists, packages, the compiler's cache.
        folder, guest: the recipes and the C sources; the project's own when not given.
        mirror: a Debian mirror, `URL` or `URL,SECURITY-URL`; "" takes the one that this machine's apt uses.
        fetch: how to read a URL where there is no apt-get.
        apt: use apt-get when it is there.
        offline: build nothing.
        compiler_cache: where the C compiler keeps its libraries; below `cache` when not given.
        keys: folder of the archive keys to trust, as in packages/keys; the project's own when not given.
        alpine_mirror, alpine_keys: of recipes that draw on Alpine: a URL and a folder; this machine's when not given.
        rollback: take lists of the Debian archive that are older than those seen before.
        say: told what is going on, a line at a time.
    """

    def __init__(
        self, store: Store, cache: Path, *, folder: Path | None = None, guest: Path | None = None, mirror: str = "",
        fetch: Fetch | None = None, apt: bool = True, offline: bool = False,
        compiler_cache: Path | None = None, keys: Path | None = None,
        alpine_mirror: str = "", alpine_keys: Path | None = None, rollback: bool = False,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:  # fmt: skip
        self._store, self._cache, self._mirror, self._fetch = store, cache, mirror, fetch
        self._folder, self._guest = folder or data_dir("kit"), guest or data_dir("guest")
        self._apt, self._offline, self._say = apt, offline, say
        self._compiler_cache = compiler_cache or cache / "compiler"
        self._keys = keys or Path(__file__).parent / "keys"
        self._rollback = rollback
        self._alpine_mirror, self._alpine_keys = alpine_mirror, alpine_keys

    # -- what there is

    def names(self) -> list[str]:
        """The packages of the kit, sorted."""
        return sorted(p.parent.name for p in self._folder.glob("*/build.yml"))

    def recipe(self, name: str) -> Recipe:
        """Raises: InputError, for an unknown package or a faulty recipe."""
        from linuxkit.packages.recipe import load

        return load(self._path(name))

    def hash(self, name: str) -> str:
        """The first 40 hex digits of the recipe's hash.

        Raises:
            InputError: no such package.
        """
        folder = self._path(name)
        text = (folder / "build.yml").read_bytes()
        files, flags = [(p.relative_to(folder).as_posix(), p) for p in folder.rglob("*") if p.is_file()], ""
        if text.startswith(b"c:") or b"\nc:" in text:  # it compiles: its sources, the headers and the flags count
            from linuxkit.packages.toolchain import FLAGS

            files += [(f"guest/{p.relative_to(self._guest).as_posix()}", p) for p in self._compiled(text)]
            flags = " ".join(FLAGS)
        digest = hashlib.sha256(b"linuxkit kit %d %s\n" % (FORMAT, flags.encode()))
        for key, path in sorted(files):
            data = path.read_bytes()
            digest.update(b"%d %s %d\n" % (len(key), key.encode(), len(data)) + data)
        return digest.hexdigest()[:40]

    def _compiled(self, text: bytes) -> set[Path]:
        """What the compiler reads: the sources that a recipe names, headers beside them, and those of include/."""
        found = {p for p in (self._guest / "include").rglob("*") if p.is_file()}
        for pattern in re.findall(rb"[\w.*/-]+\.c\b", text):  # no YAML is read here: this is asked often
            sources = list(self._guest.glob(pattern.decode().lstrip("/")))
            found.update(sources, *(folder.glob("*.h") for folder in {p.parent for p in sources}))
        return found

    def reference(self, name: str) -> str:
        """The name of the package's image in the store."""
        return f"{PREFIX}/{name}:{self.hash(name)}"

    def find(self, name: str, platform: Platform, pins: Pins | None = None) -> Image | None:
        """The package's image, when it was made here; with `pins`, one that is made of exactly these packages.

        What the store has under the name counts only when it is what the builder noted: other programs write names.
        """
        reference, made = self.reference(name), kitmade.read(self._store.root)
        for candidate in (reference, *([_pinned_name(reference, pins)] if pins is not None else [])):
            found = self._store.find(candidate)
            if found is not None:
                with suppress(ImageError):  # not for this architecture, or damaged: it can be built
                    image = self._store.image(found, reference, platform)
                    noted = made.get(candidate, {}).get(str(platform))
                    whole = all(self._store.has_blob(layer) for layer in image.layers)
                    fits = _same_compiler(image) if pins is None else pins_of(image) == pins
                    if whole and image.digest == noted and fits:
                        return image
        return None

    def _path(self, name: str) -> Path:
        names = self.names()
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
            hint = f"did you mean kit://{close[0]}?" if close else f"there are {', '.join(names)}"
            raise InputError(f"the kit has no package {name!r}", hint=hint)
        return self._folder / name

    # -- what can be made

    def resolve(self, rest: str, platform: Platform) -> Image:
        """The image of kit://`rest`, built when the store does not have it.

        Raises:
            LinuxkitError: of any kind.
        """
        return self.ensure([rest], platform)[0].image

    def ensure(self, names: Sequence[str], platform: Platform, *, again: bool = False,
               pins: Mapping[str, Pins] | None = None) -> list[Built]:  # fmt: skip
        """The images of some packages, in the order asked for. Missing ones are built, side by side.

        Args:
            again: build also what is there.
            pins: for packages by name, the Debian packages that they have to be made of.

        Raises:
            LinuxkitError: of any kind; what has been built by then stays.
        """
        wanted = list(dict.fromkeys(names))
        pins = pins or {}
        done = {} if again else self._present(wanted, platform, pins)
        if len(done) < len(wanted):
            if self._offline:
                lacking = [n for n in wanted if n not in done]
                listed = ", ".join(f"kit://{n}" for n in lacking)
                raise MissingError(
                    f"{listed} ({platform}) must be built first and --offline keeps the network out"
                    f"{self._why(lacking)}", name=f"kit://{lacking[0]}",
                    hint=f"make it where there is one: linuxkit kit build {' '.join(lacking)}",
                )  # fmt: skip
            with self._locked():
                done = {} if again else self._present(wanted, platform, pins)  # another process may have made them
                done |= self._build([n for n in wanted if n not in done], platform, pins)
        return [done[name] for name in names]

    def _why(self, names: Sequence[str]) -> str:
        """A word about packages that are in the store, but not whole."""
        there = [n for n in names if self._store.find(self.reference(n)) is not None]
        damaged = f"; what the cache has of {', '.join(there)} is of another platform or damaged"
        return f"{damaged}: linuxkit cache verify tells" if there else ""

    def _present(self, names: Sequence[str], platform: Platform, pins: Mapping[str, Pins]) -> dict[str, Built]:
        found = {name: self.find(name, platform, pins.get(name)) for name in names}
        return {name: Built(name, image, 0.0) for name, image in found.items() if image is not None}

    def _build(self, names: Sequence[str], platform: Platform, pins: Mapping[str, Pins]) -> dict[str, Built]:
        from concurrent.futures import ThreadPoolExecutor

        recipes = [self.recipe(name) for name in names]
        self._room(recipes)
        with self._builder(platform) as (builder, debian):
            def make(recipe: Recipe) -> Built:
                start = time.monotonic()
                reference, exact = self.reference(recipe.name), pins.get(recipe.name)
                name = _pinned_name(reference, exact) if exact else reference
                image = builder.build(recipe, name, exact, kit=True)
                seconds = time.monotonic() - start
                self._say(f"built kit://{recipe.name} for {platform.architecture} in {seconds:.1f} s")
                return Built(recipe.name, replace(image, reference=reference), seconds)

            fetching = [recipe for recipe in recipes if recipe.debian.packages or recipe.kernel]
            with ThreadPoolExecutor(max_workers=2) as pool:  # decompressing leaves Python's lock alone
                # what needs nothing but the compiler need not wait for the download
                work = [pool.submit(make, recipe) for recipe in recipes if recipe not in fetching]
                try:
                    by_suite: dict[str, dict[str, Package]] = {}
                    for recipe in fetching:  # one download for all
                        found = by_suite.setdefault(recipe.debian.suite, {})
                        found.update({p.sha256: p for p in builder.packages(recipe, pins.get(recipe.name))})
                    for suite, packages in by_suite.items():
                        debian(suite).fetch(packages.values())
                    # the largest first, so that none is left to run alone at the end
                    work += [pool.submit(make, r) for r in sorted(fetching, key=lambda r: r.kernel is None)]
                    return {built.name: built for built in (task.result() for task in work)}
                except BaseException:
                    for task in work:
                        task.cancel()
                    raise

    def _room(self, recipes: Sequence[Recipe]) -> None:
        """Raises: SpaceError, when the cache's disk can't hold what is surely to come."""
        from linuxkit import room

        size = 16 << 20
        if any(recipe.programs for recipe in recipes) and not self._compiler_cache.is_dir():
            size += 64 << 20  # the C library, compiled
        if any(r.debian.packages or r.kernel for r in recipes) and not (self._cache / "debian").is_dir():
            size += 96 << 20  # the lists
        if any(recipe.kernel for recipe in recipes):
            size += 256 << 20  # the package, and its modules decompressed
        room.need(self._cache, size, "building the kit")

    def newest(self, names: Sequence[str], platform: Platform) -> dict[str, Pins]:
        """For each package the Debian packages that it would draw on if it were built now. Builds nothing.

        Raises:
            LinuxkitError: of any kind.
        """
        recipes = [self.recipe(name) for name in names]
        with self._locked(), self._builder(platform) as (builder, debian):
            for suite in {r.debian.suite for r in recipes if r.debian.packages or r.kernel}:
                debian(suite).index(renew=True)
            return {r.name: {p.name: (p.version, p.sha256) for p in builder.packages(r)} for r in recipes}

    @contextmanager
    def _builder(self, platform: Platform) -> Iterator[tuple[Builder, Callable[[str], Debian]]]:
        """What builds, and the suites that it draws on."""
        from linuxkit.packages.build import Builder
        from linuxkit.packages.debian import ARCHITECTURES

        if platform.architecture not in ARCHITECTURES:
            raise InputError(f"the kit is not made for {platform.architecture}",
                             hint=f"it is for {', '.join(ARCHITECTURES)}")  # fmt: skip
        archives: dict[str, Debian] = {}

        def debian(suite: str) -> Debian:
            if suite not in archives:
                archives[suite] = self._debian(suite, ARCHITECTURES[platform.architecture][0])
            return archives[suite]

        branches: dict[tuple[str, ...], Alpine] = {}

        def alpine(wanted: FromAlpine) -> Alpine:
            key = (wanted.branch, *wanted.repositories)
            if key not in branches:
                branches[key] = self._alpine(wanted, platform.architecture)
            return branches[key]

        with Builder(
            self._store, platform.architecture, debian, self._guest, self._compiler_cache, self._say, alpine,
            work=self._cache / "work",
        ) as found:
            yield found, debian

    def _alpine(self, wanted: FromAlpine, architecture: str) -> Alpine:
        from linuxkit.packages import alpine

        if self._fetch is None:
            raise InputError("Alpine's packages cannot be fetched here")
        mirror, keys = alpine.find_mirror(self._alpine_mirror), alpine.find_keys(self._alpine_keys)
        return alpine.Alpine(self._cache / "alpine", mirror, wanted.branch, wanted.repositories, architecture, keys,
                             self._fetch, say=self._say)  # fmt: skip

    @contextmanager
    def workshop(self) -> Iterator[Callable[[str], Builder]]:
        """What builds recipes that are not the kit's, by architecture; with the kit's archive and compiler.

        One process at a time has it, and no kit package can be built meanwhile.
        """
        made: dict[str, Builder] = {}
        guard = threading.Lock()
        with self._locked(), ExitStack() as stack:

            def builder(architecture: str) -> Builder:
                with guard:
                    if architecture not in made:
                        made[architecture] = stack.enter_context(self._builder(Platform("linux", architecture)))[0]
                    return made[architecture]

            yield builder

    def _debian(self, suite: str, architecture: str) -> Debian:
        from linuxkit.packages import sources
        from linuxkit.packages.debian import Debian
        from linuxkit.packages.release import Seen, trusted_keys

        mirror = sources.parse(self._mirror) if self._mirror else sources.of_host()
        root = self._cache / "debian"
        # lists of one mirror are not those of another
        tag = hashlib.sha256(f"{mirror.main} {mirror.security}".encode()).hexdigest()[:8]
        suite, _, component = suite.partition("/")
        component = component or "main"
        folder = root / f"{suite}-{architecture}-{tag}{'' if component == 'main' else f'-{component}'}"
        transport = self._transport(folder, mirror, suite, architecture, component)
        trusted = trusted_keys(self._keys)
        return Debian(root, transport, architecture=architecture, component=component, keys=trusted, say=self._say,
                      seen=Seen(root, allow=self._rollback))  # fmt: skip

    def _transport(self, folder: Path, mirror: object, suite: str, architecture: str, component: str) -> Transport:
        import shutil

        from linuxkit.packages.apt import Apt
        from linuxkit.packages.archive import Archive
        from linuxkit.packages.release import Seen, trusted_keys
        from linuxkit.packages.sources import Mirror

        assert isinstance(mirror, Mirror)
        if self._fetch is None or (self._apt and shutil.which("apt-get")):
            return Apt(folder, mirror, suite, architecture, sorted(self._keys.glob("*.asc")), component)
        trusted = trusted_keys(self._keys)
        return Archive(folder, mirror, suite, architecture, self._fetch, keys=trusted, component=component,
                       seen=Seen(self._cache / "debian", allow=self._rollback))  # fmt: skip

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One process at a time builds in a cache: apt and the compiler keep their state there."""
        self._cache.mkdir(parents=True, exist_ok=True)
        with (self._cache / ".kit.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._say("waiting for another linuxkit that is building the kit")
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def pins_of(image: Image) -> dict[str, tuple[str, str]]:
    """The Debian packages that a kit package was made of, as its labels say: name → (version, sha256 in hex)."""
    from linuxkit.packages.build import DIGESTS, PACKAGES

    versions, digests = (
        dict(word.split("=", 1) for word in image.config.labels.get(label, "").split() if "=" in word)
        for label in (PACKAGES, DIGESTS)
    )
    return {name: (version, digests.get(name, "")) for name, version in sorted(versions.items())}


def _same_compiler(image: Image) -> bool:
    """Whether an image's programs are what would be compiled now; True where nothing can be."""
    from linuxkit.packages.toolchain import COMPILER, identity

    label = image.config.labels.get(COMPILER, "")
    return not label or not identity() or label == identity()


def _pinned_name(reference: str, pins: Pins) -> str:
    """Where an image of pinned packages is kept: beside the one of the newest packages, not in its place."""
    text = "\n".join(f"{name} {version} {digest}" for name, (version, digest) in sorted(pins.items()))
    return f"{reference}-{hashlib.sha256(text.encode()).hexdigest()[:12]}" if pins else reference
