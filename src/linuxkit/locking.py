"""Making and renewing locks: what every image that a configuration asks for is now.

A lock takes what a build would take: the cache first, then the registry. An update asks the registries and the Debian
archive. Of images in registries only manifests are read; kit packages are built, since only then it is known which
Debian packages they are made of.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from linuxkit.config.model import Config
from linuxkit.errors import ImageError, InputError
from linuxkit.oci import document as doc
from linuxkit.oci.media import Descriptor, Image, Platform
from linuxkit.oci.reference import Reference, parse_reference
from linuxkit.oci.resolve import Pin, pin_of
from linuxkit.oci.select import select
from linuxkit.packages.kit import PREFIX, pins_of
from linuxkit.packages.toolchain import tools
from linuxkit.plan.asked import ARCHIVES, KIT, LOADER, LOADER_FORMATS, Asked, asked, name_of, parse_platform
from linuxkit.plan.lock import Debs, Lock, LockedImage, LockedPackage, disagreements
from linuxkit.sources import Sources


def digests(documents: Iterable[tuple[str, bytes]]) -> dict[str, str]:
    """What a lock says of YAML that was fetched: address → digest. Files of this machine are not in it."""
    from linuxkit.config.load import is_url
    from linuxkit.oci.transport import redact

    return {redact(name): f"sha256:{hashlib.sha256(data).hexdigest()}" for name, data in documents if is_url(name)}


def check_documents(lock: Lock, documents: Iterable[tuple[str, bytes]]) -> None:
    """Raises: InputError, when YAML that was fetched is not what the lock says."""
    for name, digest in digests(documents).items():
        locked = lock.documents.get(name, "")
        if locked != digest:
            what = f"documents '{name}' in {lock.where} has {locked}" if locked else f"it is not in {lock.where}"
            raise InputError(f"{name} has the digest {digest}, and {what}",
                             hint="renew the lock: linuxkit update FILE; or build without it: --no-lock")  # fmt: skip


def _compressors(lock: Lock, sources: Sources) -> None:
    """Name compressors of other versions than the lock's: what they make may have other bytes."""
    here = tools(compiles=False)
    for name, version in sorted(lock.tools.items()):
        if here.get(name, version) != version:
            sources.log(f"warning: {lock.where} was made with {name} {version}, and here is {here[name]}: outputs may "
                        "have other bytes; linuxkit update renews the lock")  # fmt: skip


def agree(places: Sequence[Asked], sources: Sources, lock: Lock) -> None:
    """Raises: InputError, for everything that the YAML has otherwise than the lock."""
    problems = disagreements(lock, places, None if sources.bundle is not None else sources.kit.hash)
    if problems:
        files = dict.fromkeys(p.position.file for p in places if p.position.file)
        wanted = dict.fromkeys(p.architecture for place in places for p in place.platforms)
        more = "".join(f" --arch {a}" for a in wanted if f"linux/{a}" not in lock.platforms())
        more += "".join(f" --format {LOADER_FORMATS[n]}" for n in _loaders(places) if n not in lock.kit)
        hint = f"renew it: linuxkit update{more} {' '.join(files)}; or build without it: --no-lock"
        if sources.bundle is not None:
            hint = f"make the bundle anew: linuxkit bundle{more} {' '.join(files)} -o FILE"
        raise InputError(f"{lock.where} does not fit the YAML", problems=problems, hint=hint)
    _compressors(lock, sources)


def _loaders(places: Sequence[Asked]) -> list[str]:
    """The boot loaders that the output formats ask for."""
    return [place.text.removeprefix(KIT) for place in places if place.path == LOADER]


def pinned_image(text: str, platform: Platform, sources: Sources, lock: Lock) -> Image:
    """The image that the lock has for what stands in the YAML; `agree` has found nothing wrong.

    Raises:
        LinuxkitError: of any kind.
    """
    if not text.startswith(KIT):
        return sources.resolver.resolve(text, platform, lock.pin(text, platform))
    name = text.removeprefix(KIT)
    debs = pins_for(lock, platform)
    wanted = lock.kit[name].images.get(str(platform), "")
    if sources.opened is None:
        return _made(name, platform, sources, lock, debs, wanted)
    if not wanted:
        raise ImageError(f"{lock.where} does not say which image {text} is for {platform}, and in a bundle nothing "
                         "else does", hint="make the bundle anew with this linuxkit")  # fmt: skip
    reference = f"{PREFIX}/{name}:{lock.kit[name].recipe}"
    found = sources.store.find(reference)
    if found is None:
        raise ImageError(f"{text} ({reference}) is not in {sources.opened.where}", hint="make the bundle anew")
    image = sources.store.image(found, reference, platform)
    if image.digest != wanted:
        raise ImageError(f"{text} in {sources.opened.where} is {image.digest}, and {lock.where} has {wanted}",
                         hint="make the bundle anew")  # fmt: skip
    return image


def _made(name: str, platform: Platform, sources: Sources, lock: Lock, debs: Mapping[str, Debs], wanted: str) -> Image:
    """A kit package as the lock has it: the one in the cache, or one that is built now by the same compiler."""
    from linuxkit.packages.toolchain import COMPILER, identity

    kit, then, here = sources.kit, lock.tools.get("ziglang", ""), identity()
    found = kit.find(name, platform, debs.get(name))
    if found is not None and wanted in ("", found.digest):
        return found
    compiled = bool(kit.recipe(name).programs)
    if compiled and then and here and here != f"ziglang {then}":
        raise InputError(
            f"{KIT}{name} is compiled: {lock.where} was made with ziglang {then}, and here is {here}",
            hint=f"pip install ziglang=={then}; or renew the lock: linuxkit update",
        )
    other = found is not None and compiled and found.config.labels.get(COMPILER, "") != here
    image = kit.ensure([name], platform, pins=debs, again=other)[0].image
    if wanted and image.digest != wanted:
        raise InputError(
            f"{KIT}{name} for {platform} is {image.digest} here, and {lock.where} has {wanted}: recipe and Debian "
            "packages are the same, what compiles or compresses is not",
            hint="use the linuxkit that made the lock; or renew it: linuxkit update",
        )
    return image


def pins_for(lock: Lock, platform: Platform) -> dict[str, Debs]:
    """The .debs of each kit package that is locked for a platform."""
    return {name: p.platforms[str(platform)] for name, p in lock.kit.items() if str(platform) in p.platforms}


def make_lock(config: Config, sources: Sources, platforms: Sequence[Platform], *, loaders: Sequence[str] = (),
              documents: Iterable[tuple[str, bytes]] = ()) -> Lock:  # fmt: skip
    """What a build would take now.

    Args:
        platforms: to lock for.
        loaders: kit packages that the output formats need.
        documents: YAML by the name that it was given by.

    Raises:
        LinuxkitError: of any kind.
    """
    return _Maker(sources).lock(config, platforms, loaders, digests(documents))


def renew(lock: Lock, config: Config, sources: Sources, *, platforms: Sequence[Platform] = (),
          loaders: Sequence[str] = (), only: Sequence[str] = (), build: bool = True,
          documents: Iterable[tuple[str, bytes]] = ()) -> Lock:  # fmt: skip
    """The lock as it should be: what is new in the registries, without what is not asked for any more.

    Args:
        platforms: to lock for beside those of the lock.
        loaders: kit packages that the output formats need; those in the lock stay.
        only: images to renew, as the YAML has them; the others stay. All of them when empty.
        build: kit packages of which Debian has newer parts. Without it, the result tells that they are outdated, but
            not exactly what they will be.

    Raises:
        InputError: `only` names something else. LinuxkitError: of any kind.
    """
    both = dict.fromkeys([*map(parse_platform, lock.platforms()), *platforms])
    from linuxkit.outputs.table import FORMATS
    from linuxkit.outputs.table import loaders as all_loaders

    kept = [name for name in all_loaders(FORMATS.values(), rooted=True) if name in lock.kit]
    maker = _Maker(sources, lock, {_named(name) for name in only}, build=build)
    made = maker.lock(config, list(both), sorted({*loaders, *kept}), digests(documents))
    return Lock(made.images, made.kit, made.documents, made.tools, lock.where)


def _named(text: str) -> str:
    return text if text.startswith(KIT) else name_of(text)


@dataclass
class _Maker:
    """Collects a lock. With `old`, registries and the archive are asked for what is in `only`, or for everything."""

    sources: Sources
    old: Lock | None = None
    only: set[str] = field(default_factory=set)
    build: bool = True
    tops: dict[str, str] = field(default_factory=dict)  # name → digest, so that all platforms have the same
    images: dict[str, dict[str, str]] = field(default_factory=dict)
    kit: dict[str, dict[str, Debs]] = field(default_factory=dict)
    made: dict[str, dict[str, str]] = field(default_factory=dict)  # kit package → platform → its image's digest

    def lock(self, config: Config, platforms: Sequence[Platform], loaders: Sequence[str], documents: Mapping[str, str],
             ) -> Lock:  # fmt: skip
        wanted: dict[tuple[str, Platform], Asked] = {}
        for one in platforms:
            for place in asked(config, one, loaders):
                for platform in place.platforms:
                    wanted.setdefault((_named(place.text), platform), place)
        unknown = sorted(self.only - {name for name, _ in wanted})
        if unknown:
            raise InputError(f"the YAML asks for no image {unknown[0]}",
                             hint=f"it asks for {', '.join(sorted({n for n, _ in wanted})[:8])}")  # fmt: skip
        for platform in platforms:
            self._kit([n.removeprefix(KIT) for n, p in wanted if p == platform and n.startswith(KIT)], platform)
        for (name, platform), place in wanted.items():
            if not name.startswith(KIT):
                top, manifest = self._image(name, place.text, platform)
                self.tops[name] = top
                self.images.setdefault(name, {})[str(platform)] = manifest
        return Lock(
            {name: LockedImage(self.tops[name], found) for name, found in self.images.items()},
            {name: LockedPackage(self.sources.kit.hash(name), found, self.made.get(name, {}))
             for name, found in self.kit.items()},
            documents, tools(compiles=any(self.sources.kit.recipe(name).programs for name in self.kit)),
        )

    # -- images

    def _image(self, name: str, text: str, platform: Platform) -> Pin:
        old = self.old.images.get(name) if self.old is not None else None
        if old is not None and self.only and name not in self.only:
            if str(platform) in old.platforms:
                return old.digest, old.platforms[str(platform)]
            self.tops[name] = old.digest
        if text.partition(":")[0] in ARCHIVES:
            return pin_of(self.sources.resolver.resolve(text, platform))
        reference = parse_reference(text)
        if name in self.tops:  # of another platform
            exact = f"{reference.tagged.partition('@')[0]}@{self.tops[name]}"
            return self._allowed(text, self._found(parse_reference(exact), platform, renew=False))
        return self._allowed(text, self._found(reference, platform, renew=self.old is not None))

    def _allowed(self, text: str, image: Image) -> Pin:
        self.sources.guard.check(text, image)
        return pin_of(image)

    def _found(self, reference: Reference, platform: Platform, *, renew: bool) -> Image:
        store = self.sources.store
        here = store.find_reference(reference)
        damaged: ImageError | None = None
        own = reference.text in self.sources.packages  # built here: no registry has a newer one
        if here is not None and (own or not (renew and not reference.digest)):
            try:
                return store.image(here, reference.tagged, platform)
            except ImageError as e:  # another platform was pulled before
                damaged = e
        if own and here is None:
            folder = self.sources.packages[reference.text]
            raise ImageError(f"the package {folder} ({reference.text}) is not built",
                             hint=f"build it: linuxkit pkg build {folder}")  # fmt: skip
        if self.sources.offline:
            raise damaged or ImageError(f"image {reference.text} is not in the cache {store.root} and --offline keeps "
                                        "the network out", hint="linuxkit cache pull brings it in")  # fmt: skip
        registry = self.sources.registry
        found = registry.find(reference)
        if found is None and here is not None and damaged is None:
            self.sources.log(f"{reference.tagged}: its registry does not have it; the cache does")
            return store.image(here, reference.tagged, platform)
        if found is None:
            raise ImageError(f"image {reference.text} is neither in the cache {store.root} nor in its registry",
                             hint="check its name and tag")  # fmt: skip
        top, data = found

        def read(descriptor: Descriptor, limit: int) -> bytes:
            if descriptor.digest == top.digest:
                return data
            return registry.read(reference, descriptor, min(limit, doc.MAX_CONFIG))

        return select(read, top, reference.tagged, platform)

    # -- kit packages

    def _kit(self, names: Sequence[str], platform: Platform) -> None:
        kit = self.sources.kit
        for name in names:
            kit.hash(name)  # an unknown one is reported before anything is built
        known = {name: self._known(name, platform) for name in names}
        asked_for = [n for n in names if self.old is not None and (not self.only or f"{KIT}{n}" in self.only)]
        newest = kit.newest(asked_for, platform) if asked_for else {}
        anew: list[str] = []
        for name in names:
            debs = known[name]
            if debs is None or (name in newest and not _fits(debs, newest[name])):
                image = kit.find(name, platform)
                there = pins_of(image) if image is not None else None
                if image is not None and there is not None and (name not in newest or _fits(there, newest[name])):
                    debs = there
                    self.made.setdefault(name, {})[str(platform)] = image.digest
                elif debs is not None and not self.build:
                    debs = {n: newest[name].get(n, old) for n, old in debs.items()}
                elif not self.build:
                    debs = newest.get(name, {})
                else:
                    anew.append(name)
                    continue
            else:
                self._keep(name, platform, debs)
            self.kit.setdefault(name, {})[str(platform)] = debs
        if anew:
            missing = [name for name in anew if kit.find(name, platform) is None]
            outdated = [name for name in anew if name not in missing]
            for built in (*kit.ensure(missing, platform), *kit.ensure(outdated, platform, again=True)):
                self.kit.setdefault(built.name, {})[str(platform)] = pins_of(built.image)
                self.made.setdefault(built.name, {})[str(platform)] = built.image.digest

    def _keep(self, name: str, platform: Platform, debs: Debs) -> None:
        """A package stays as it is locked; a lock that lacks its digest gets it."""
        locked = self.old.kit[name].images.get(str(platform), "") if self.old is not None else ""
        if not locked and self.build:
            locked = self.sources.kit.ensure([name], platform, pins={name: debs})[0].image.digest
        if locked:
            self.made.setdefault(name, {})[str(platform)] = locked

    def _known(self, name: str, platform: Platform) -> Debs | None:
        package = self.old.kit.get(name) if self.old is not None else None
        if self.old is None or package is None or package.recipe != self.sources.kit.hash(name):
            return None
        if not self.only and self.sources.kit.recipe(name).programs and (
            self.old.tools.get("ziglang") != tools(compiles=True).get("ziglang")
        ):
            return None  # another compiler makes other programs
        return package.platforms.get(str(platform))


def _fits(debs: Debs, newest: Debs) -> bool:
    return all(newest.get(name) == value for name, value in debs.items())
