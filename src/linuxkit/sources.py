"""Where the images and files of a build come from: the cache, the kit, registries, addresses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from linuxkit.errors import ImageError, NetworkError
from linuxkit.oci.media import Descriptor, Image, Platform

if TYPE_CHECKING:
    from linuxkit.oci.auth import Credentials
    from linuxkit.oci.bundle import Bundle
    from linuxkit.oci.reference import Reference
    from linuxkit.oci.registry import RegistryClient
    from linuxkit.oci.resolve import Resolver
    from linuxkit.oci.store import Store
    from linuxkit.oci.transport import Transport
    from linuxkit.packages.kit import Kit
    from linuxkit.trust.policy import Policy
    from linuxkit.trust.verify import Guard


@dataclass(frozen=True)
class Sources:
    """Where images and files from elsewhere come from. Nothing of the network is imported before it is used.

    cache        LinuxKit's cache directory: an OCI layout, with the derived cache inside.
    mirrors      registry mirrors, `[REGISTRY=]URL`.
    cert_files   PEM files of authorities to trust beside the system's.
    offline      never use the network.
    bundle       a file that `linuxkit bundle` made: all images are in it; goes with `offline`.
    pull         fetch images from the registry even when the cache has them.
    debian       the Debian mirror that kit packages are made from; "" takes the one of this machine's apt.
    environment  where proxies and Docker's configuration are looked up.
    log          takes a line about something that takes a while.
    progress     told about blobs on their way: (digest, bytes so far, bytes in all), from several threads.
    policy       which images have to be signed; None: none.
    logins       of registries, in front of those of Docker's configuration.
    own_lock     with `bundle`: the lock is the user's own, not the one that came in the bundle.
    own_yaml     with `bundle`: the YAML is the user's own, and may name files of this machine.
    rollback     take lists of the Debian archive that are older than those seen before.
    local_files  YAML that is fetched may name files of this machine.
    alpine       the Alpine mirror of native recipes, and `alpine_keys` the folder of its keys; empty: this machine's.
    max_layer    bytes that a layer may have, unpacked, however small it came; 0: as oci.unpack.Bounds has it.
    packages     image name → folder of what @pkg: stands for; filled as YAML is read.
    """

    cache: Path
    mirrors: tuple[str, ...] = ()
    cert_files: tuple[Path, ...] = ()
    offline: bool = False
    pull: bool = False
    debian: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    log: Callable[[str], None] = lambda line: None
    progress: Callable[[str, int, int], None] | None = None
    bundle: Path | None = None
    policy: Policy | None = None
    logins: Mapping[str, Credentials] = field(default_factory=dict)
    alpine: str = ""
    alpine_keys: Path | None = None
    own_lock: bool = False
    own_yaml: bool = False
    rollback: bool = False
    local_files: bool = False
    max_layer: int = 0
    packages: dict[str, str] = field(default_factory=dict, compare=False)

    @cached_property
    def store(self) -> Store:
        """The cache directory; or the bundle, in front of it."""
        from linuxkit.oci.store import Store

        if self.opened is None:
            return Store(self.cache)
        from linuxkit.oci.bundle import BundleStore

        return BundleStore(self.cache, self.opened)

    @cached_property
    def opened(self) -> Bundle | None:
        """The bundle, open.

        Raises:
            InputError: it is none. ImageError: it is damaged.
        """
        if self.bundle is None:
            return None
        from linuxkit.oci.bundle import Bundle

        return Bundle(self.bundle, self.cache)

    @cached_property
    def transport(self) -> Transport:
        """HTTP.

        Raises:
            NetworkError: with `offline`.
        """
        if self.offline:
            raise NetworkError("--offline keeps the network out", hint="leave it out")
        from linuxkit.oci.transport import Transport

        return Transport(cert_files=self.cert_files, environment=self.environment)

    @cached_property
    def registry(self) -> RegistryClient:
        """Registries, with the logins of Docker's configuration.

        Raises:
            NetworkError: with `offline`. InputError: a mirror that is none.
        """
        from linuxkit.oci.registry import connect

        return connect(self.store, self.transport, environment=self.environment, mirrors=self.mirrors, say=self.log,
                       progress=self.progress, logins=self.logins)  # fmt: skip

    @cached_property
    def kit(self) -> Kit:
        """The packages behind kit://."""
        from linuxkit.packages.kit import Kit

        compiler = self.environment.get("ZIG_GLOBAL_CACHE_DIR")
        return Kit(self.store, self.cache / "kit", mirror=self.debian, fetch=self.fetch, offline=self.offline,
                   compiler_cache=Path(compiler) if compiler else None, say=self.log, alpine_mirror=self.alpine,
                   alpine_keys=self.alpine_keys, rollback=self.rollback)  # fmt: skip

    @cached_property
    def resolver(self) -> Resolver:
        """Finds images: in the store, the kit, archives and, unless offline, registries; with a policy, only those
        that it allows."""
        from linuxkit.oci.resolve import Resolver

        registry = None if self.offline else _Registry(self)
        kind = Resolver
        if self.policy is not None:
            from linuxkit.trust.verify import guarded

            kind = guarded(self.guard)
        return kind(self.store, {"kit": self.kit}, registry, offline=self.offline, pull=self.pull,
                        closed=self.bundle is not None, log=self.log, max_layer=self.max_layer)  # fmt: skip

    def heal(self, layer: Descriptor, error: ImageError) -> None:
        """Bring a layer of an image that was resolved here back into the store: see oci.heal.Healer."""
        from linuxkit.oci.heal import Healer

        def again(text: str, platform: Platform, image: Image) -> None:
            scheme, mark, rest = text.partition("://")
            if mark and scheme == "kit":
                from linuxkit.packages.kit import pins_of

                pins = pins_of(image)
                self.kit.ensure([rest], platform, again=True, pins={rest: pins} if pins else None)
            else:
                self.resolver.afresh(text, platform)

        registry = None if self.offline else lambda: self.registry
        Healer(self.store, self.resolver.images, registry, again, self.log)(layer, error)

    @cached_property
    def guard(self) -> Guard:
        """Applies the policy to images."""
        from linuxkit.trust.verify import Guard

        return Guard(self.policy, self.store, lambda: None if self.offline else self.registry,
                     strange_kit=self.bundle is not None and not self.own_lock)  # fmt: skip

    def unsigned(self, image: Image) -> str:
        """Why what is attested about an image in its index does not count under the policy; empty when it does."""
        from linuxkit.sbom.attested import present

        why = self.guard.unsigned(image) if present(image, self.store) else ""
        if why:
            self.log(f"warning: SBOMs that are attached to {image.reference} are left out: {why}")
        return why

    @contextmanager
    def fetch(self, url: str) -> Iterator[Iterator[bytes]]:
        """The body behind a URL, in pieces.

        Raises:
            NetworkError: it cannot be had.
        """
        from linuxkit.oci.transport import redact

        with self.transport.get(url) as response:
            if response.status != 200:
                raise NetworkError(f"{redact(url)}: the server answers {response.status}")
            yield response.pieces()


class _Registry:
    """The registry client, made when the first image is missing."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def pull(self, reference: Reference, platform: Platform) -> Image:
        return self._sources.registry.pull(reference, platform)

    def mend(self, reference: Reference, top: Descriptor, platform: Platform) -> Image:
        return self._sources.registry.mend(reference, top, platform)


def host_path(text: str, sources: Sources) -> Path:
    """Where the file of a `source:` is on this machine."""
    if text.startswith("~/"):
        return Path(sources.environment.get("HOME") or Path.home(), text[2:])
    return Path(text)
