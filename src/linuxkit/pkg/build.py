"""Building packages: what is cached or published is left alone, the rest is built in order, side by side, and pushed.

    Request, packages ─► jobs.py: Jobs ─► states ─► natively or by an engine ─► index in the store ─► registry
                         one for each package         one for each architecture

In the store, as LinuxKit has it: TAG-ARCH is one architecture's image, TAG the index of all.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Protocol

from linuxkit.errors import ImageError, InputError, NetworkError
from linuxkit.oci import publish as indexes
from linuxkit.oci.media import INDEX_TYPES, Descriptor, Image, Platform
from linuxkit.oci.reference import parse_reference
from linuxkit.oci.registry import RegistryClient
from linuxkit.oci.resolve import Resolver
from linuxkit.oci.store import Store
from linuxkit.packages.build import Builder
from linuxkit.packages.kit import Kit
from linuxkit.pkg import lockfile, publish
from linuxkit.pkg.context import build_files
from linuxkit.pkg.git import Git
from linuxkit.pkg.model import Package
from linuxkit.pkg.naming import Name
from linuxkit.pkg.order import in_order
from linuxkit.pkg.request import Done, Job, Request, State


class Dockerfiles(Protocol):
    """What builds Dockerfiles."""

    def build(self, job: Job, platform: Platform, labels: Mapping[str, str]) -> Descriptor:
        """Build for one platform; what came out is in the store, without a name.

        Raises:
            HostError: there is no engine, or it failed. ImageError: what it made is not what was asked for.
        """

    def load(self, image: Image, names: Sequence[str]) -> None:
        """Hand an image of the store to Docker."""


class Builds:
    """One build of some packages.

    Args:
        store, kit, resolver: where images are, come from and go to.
        registry: makes the client of registries, when it is needed.
        engines: what builds Dockerfiles.
        version: of this program, for a label.
        say: told what is going on, a line at a time, from several threads.
    """

    def __init__(
        self, store: Store, kit: Kit, resolver: Resolver, registry: Callable[[], RegistryClient], engines: Dockerfiles,
        *, version: str, say: Callable[[str], None] = lambda _: None,
    ) -> None:  # fmt: skip
        self._store, self._kit, self._resolver, self._engines = store, kit, resolver, engines
        self._registry, self._version, self._say = registry, version, say
        self._states: dict[tuple[str, str], State] = {}
        self._seconds: dict[str, float] = {}
        self._unreachable: set[str] = set()
        self._there: dict[str, Mapping[str, str]] = {}  # what registries have
        self._lock = threading.Lock()

    def run(self, jobs: Sequence[Job], request: Request) -> list[Done]:
        """Do it; what came of each package, in the order of `jobs`.

        Raises:
            LinuxkitError: of any kind. What is whole by then stays in the store.
        """
        by_name = {job.name.full: job for job in jobs}
        if len(by_name) < len(jobs):
            raise InputError("two of the packages have the same name", hint="give each an image name of its own")
        for job in jobs:
            for arch in job.arches:
                self._states[job.name.full, arch] = self._state(job, Platform("linux", arch), request)
        missing = [] if request.nobuild and request.push else [
            (job, arch) for job in jobs for arch in job.arches if self._states[job.name.full, arch] is State.MISSING
        ]  # fmt: skip
        for job, arch in missing:  # before the workshop is ours: kit packages are built in it, too
            if job.package.recipe is not None and job.package.recipe.base.startswith("kit://"):
                self._resolver.resolve(job.package.recipe.base, Platform("linux", arch))
        needs: dict[str, set[str]] = {name: set() for name in by_name}
        parts = {f"{job.name.full}-{arch}": (job, arch) for job, arch in missing}
        for part, (job, arch) in parts.items():
            needs[part] = {f"{name}-{arch}" for name in job.needs} & parts.keys()
            needs[job.name.full].add(part)
        with ExitStack() as stack:
            workshop = _Workshop(self._kit, stack)

            def work(key: str) -> None:
                if key in parts:
                    self._build(*parts[key], workshop)
                else:
                    self._finish(by_name[key], request)

            in_order(needs, work, request.jobs)
        return [self._done(job) for job in jobs]

    # -- what there is

    def _state(self, job: Job, platform: Platform, request: Request) -> State:
        name = job.name.full
        if request.force or (job.name.moving and not request.nobuild):
            return State.MISSING
        if self._cached(name, platform) is not None:
            return State.CACHED
        if request.pull and not job.name.dirty and self._pull(name, platform):
            return State.PULLED
        if request.published and not job.name.dirty and platform.architecture in self._published(name):
            return State.PUBLISHED
        return State.MISSING

    def _cached(self, name: str, platform: Platform) -> Image | None:
        found = self._store.find(name)
        if found is None:
            return None
        try:
            image = self._store.image(found, name, platform)
        except ImageError:  # not for this platform, or damaged: it can be built
            return None
        return image if all(self._store.has_blob(layer) for layer in image.layers) else None

    def _pull(self, name: str, platform: Platform) -> bool:
        try:
            self._registry().pull_all(parse_reference(name), [platform])
        except ImageError:
            return False
        except NetworkError as e:
            self._cannot_ask(name, e)
            return False
        return True

    def _published(self, name: str) -> Mapping[str, str]:
        reference = parse_reference(name)
        if reference.registry in self._unreachable:
            return {}
        try:
            if name not in self._there:
                self._there[name] = publish.published(self._registry(), reference)
            return self._there[name]
        except (NetworkError, ImageError) as e:
            self._cannot_ask(name, e)
            return {}

    def _cannot_ask(self, name: str, error: ImageError | NetworkError) -> None:
        registry = parse_reference(name).registry
        if registry not in self._unreachable:
            self._unreachable.add(registry)
            self._say(f"{registry} does not say whether it has {name}: {error.message}")

    # -- building

    def _build(self, job: Job, arch: str, workshop: _Workshop) -> None:
        start = time.monotonic()
        platform, name = Platform("linux", arch), job.name.full
        self._say(f"building {job.name.text} for {arch}")
        labels = labels_of(job.package, job.name, self._version)
        if job.package.recipe is not None:
            found = self._native(job, platform, labels, workshop.builder(arch))
        else:
            found = self._engines.build(job, platform, labels)
        items = self._items(found, platform)
        self._store.put_name(f"{name}-{arch}", found)
        self._store.merge_name(name, lambda listed: _merged(items, listed))
        seconds = time.monotonic() - start
        self._say(f"built {job.name.text} for {arch} in {seconds:.1f} s")
        with self._lock:
            self._seconds[name] = self._seconds.get(name, 0.0) + seconds

    def _native(self, job: Job, platform: Platform, labels: Mapping[str, str], builder: Builder) -> Descriptor:
        package, recipe = job.package, job.package.recipe
        assert recipe is not None
        base = self._resolver.resolve(job.base, platform) if job.base else None
        with build_files(package, _no_images) as folder:
            made = replace(recipe, folder=folder, labels={**labels, **recipe.labels})
            pins = lockfile.read(package, platform.architecture)
            image = builder.build(made, f"{job.name.full}-{platform.architecture}", pins, base=base, sources=folder)
        found = self._store.find(f"{job.name.full}@{image.digest}")
        assert found is not None
        return replace(found, platform=platform)

    def _items(self, found: Descriptor, platform: Platform) -> list[indexes.Item]:
        """One platform's entries of the index: the image's, and attestations."""
        from linuxkit.oci import document as doc

        if found.media_type not in INDEX_TYPES:
            return [doc.descriptor_document(replace(found, platform=platform, annotations={}))]
        listed = indexes.listing(found, self._store.read_blob(found, doc.MAX_MANIFEST))
        return list(listed.items)

    # -- afterwards

    def _finish(self, job: Job, request: Request) -> None:
        name = job.name.full
        if request.docker and job.asked:
            for platform in job.platforms():
                image = self._cached(name, platform)
                if image is not None:
                    self._engines.load(image, [f"{job.name.text}-{platform.architecture}", job.name.text])
        if not request.push or not job.asked:
            return
        if job.name.dirty:
            raise publish.refuse_dirty(job.name.text, "build complete")
        states = {self._states[name, arch] for arch in job.arches}
        pushed = publish.push(self._registry(), self._store, name, request.arch_tags, self._say)
        if pushed is None and not states & {State.PUBLISHED}:
            raise ImageError(f"{job.name.text} is not in the cache, and --nobuild says not to build it",
                             hint="leave out --nobuild")  # fmt: skip
        self._say("No new platforms to push, skipping." if pushed is None else f"pushed {name}@{pushed.digest}")
        release = request.release or (Git(job.package.directory).tag_at_head() if job.name.in_git else "")
        if release:
            self._release(job, release, request)

    def _release(self, job: Job, release: str, request: Request) -> None:
        try:
            target = publish.release_reference(job.name.full, release)
        except InputError as e:
            if request.release:
                raise
            self._say(f"the git tag {release} is no image tag: {e.message}")
            return
        source = parse_reference(job.name.full)
        publish.tag_again(self._registry(), source, target, request.arch_tags, self._say)

    def _done(self, job: Job) -> Done:
        found = self._store.find(job.name.full)
        states = {arch: self._states[job.name.full, arch] for arch in job.arches}
        return Done(job, states, found.digest if found else "", self._seconds.get(job.name.full, 0.0))


def labels_of(package: Package, name: Name, version: str) -> dict[str, str]:
    """The labels that every package gets.

    Args:
        version: of this program.
    """
    labels = {"org.mobyproject.linuxkit.version": version, "org.mobyproject.linuxkit.revision": "unknown"}
    if name.in_git:
        labels["org.opencontainers.image.source"] = package.git_repo
        if not name.dirty:
            labels["org.opencontainers.image.revision"] = Git(package.directory).head()
    if package.config and package.recipe is None:
        labels["org.mobyproject.config"] = package.config
    return labels


def _merged(ours: Sequence[indexes.Item], listed: Sequence[indexes.Item]) -> list[dict[str, Any]]:
    """The items of an index with ours among them, in an order that does not depend on who was built first."""
    found = [dict(item) for item in indexes.combine(ours, listed)]
    return sorted(found, key=lambda item: json.dumps(item.get("platform"), sort_keys=True))


class _Workshop:
    """The kit's workshop, entered when the first native package is built."""

    def __init__(self, kit: Kit, stack: ExitStack) -> None:
        self._kit, self._stack, self._lock = kit, stack, threading.Lock()
        self._make: Callable[[str], Builder] | None = None

    def builder(self, arch: str) -> Builder:
        with self._lock:
            if self._make is None:
                self._make = self._stack.enter_context(self._kit.workshop())
            return self._make(arch)


def _no_images(package: Package, root: object) -> None:
    raise AssertionError(f"{package.file}: a native recipe has no images to add")
