"""Running an engine: its files, its base images from the cache, and what it made into the store."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from linuxkit import host
from linuxkit.errors import HostError, ImageError, InputError, ReservedNameError
from linuxkit.oci.archive import import_archive, open_archive
from linuxkit.oci.derived import Derived
from linuxkit.oci.export import export_image
from linuxkit.oci.layer import LayerCache
from linuxkit.oci.media import Descriptor, Image, Platform
from linuxkit.oci.reference import parse_reference
from linuxkit.oci.resolve import Resolver, cache_root
from linuxkit.oci.store import Store
from linuxkit.oci.unpack import Bounds
from linuxkit.oci.workspace import workspace
from linuxkit.pkg import dockerfile
from linuxkit.pkg.context import build_files
from linuxkit.pkg.depends import add_images
from linuxkit.pkg.engines import table
from linuxkit.pkg.engines.layouts import lay_out
from linuxkit.pkg.engines.model import Build, Command, Engine, Served, Settings
from linuxkit.pkg.model import Package
from linuxkit.pkg.request import Job

_PROXIES = ("http_proxy", "https_proxy", "no_proxy", "ftp_proxy", "all_proxy")
_PROBE = 15.0  # seconds that an engine may take to say that it is there


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What the flags say about engines.

    engine        its name; "" to look for one.
    builders      platform → where.
    settings      of a builder that is made.
    cached_bases  serve base images from the cache; precache: and fetch those that it lacks.
    secrets, ssh, progress, sbom   as in Build.
    show          let the engine's own words through.
    max_layer     bytes that a layer may have, unpacked; 0: as oci.unpack.Bounds has it.
    """

    engine: str = ""
    builders: Mapping[str, str] = field(default_factory=dict)
    settings: Settings = field(default_factory=Settings)
    cached_bases: bool = True
    precache: bool = False
    secrets: tuple[str, ...] = ()
    ssh: tuple[str, ...] = ()
    progress: str = "auto"
    sbom: str | None = None
    dockerfile: str = ""
    show: bool = False
    max_layer: int = 0


class Engines:
    """Builds Dockerfiles with whatever is there. Several threads may use it.

    Args:
        environment: where proxies, and engines, are looked for.
        say: told what is going on.
    """

    def __init__(self, store: Store, resolver: Resolver, options: EngineOptions, environment: Mapping[str, str],
                 say: Callable[[str], None]) -> None:  # fmt: skip
        self._store, self._resolver, self._options = store, resolver, options
        self._environment, self._say = environment, say
        self._lock = threading.Lock()
        self._chosen: dict[str, Engine] = {}

    def engine(self, platform: Platform) -> tuple[Engine, str]:
        """The engine for a platform, ready, and where it is.

        Raises:
            HostError: there is none, or it cannot be made ready.
        """
        builder = self._options.builders.get(str(platform), "")
        with self._lock:
            if builder not in self._chosen:
                found = table.choose(self._options.engine, builder, self._environment, works)
                for command in found.prepare(builder, self._options.settings, works):
                    self._run(command, None)
                self._chosen[builder] = found
                self._say(f"building with {found.name}{f' at {builder}' if builder else ''}")
            return self._chosen[builder], builder

    def build(self, job: Job, platform: Platform, labels: Mapping[str, str]) -> Descriptor:
        """See pkg.build.Dockerfiles."""
        engine, builder = self.engine(platform)
        package = job.package
        with build_files(package, lambda _, folder: self._add_images(package, folder, platform)) as files, \
                workspace(Path(tempfile.gettempdir())) as folder:  # fmt: skip
            output = folder / "image.tar"
            build = self.describe(job, platform, labels, files.absolute(), output, builder)
            served = [lay_out(self._store, image, base, folder) for base, image in self.bases(job, platform)]
            build = replace(build, bases=tuple(served))
            if note := engine.note(build):
                self._say(note)
            for command in engine.commands(build, self._options.settings):
                self._run(command, folder)
            name = f"{job.name.full}-{platform.architecture}"
            try:  # whole, and for this platform?
                open_archive(self._store, "oci-archive", str(output), platform, self._options.max_layer)
            except (ImageError, InputError) as e:
                raise ImageError(f"{engine.name} did not make an image of {package.directory} for {platform}: "
                                 f"{e.message}", hint=e.hint) from e  # fmt: skip
            import_archive(self._store, output, name, self._options.max_layer)
        found = self._store.find(name)
        assert found is not None
        return found

    def describe(self, job: Job, platform: Platform, labels: Mapping[str, str], files: Path, output: Path,
                 builder: str) -> Build:  # fmt: skip
        """What an engine is to do for one platform, without the base images that it gets."""
        package, options = job.package, self._options
        return Build(
            files, options.dockerfile or package.dockerfile, f"{job.name.full}-{platform.architecture}", platform,
            output, self._proxies() | dict(job.arguments), dict(sorted(labels.items())), package.network,
            package.disable_cache, (), options.secrets, options.ssh, options.progress, builder, options.sbom,
        )  # fmt: skip

    def dry_run(self, job: Job, platform: Platform, labels: Mapping[str, str]) -> list[Command]:
        """What an engine would be told; buildx, when there is none."""
        builder = self._options.builders.get(str(platform), "")
        try:
            engine = table.choose(self._options.engine, builder, self._environment, works)
        except HostError:
            engine = table.ENGINES["buildx"]
        files, output = job.package.directory, Path(f"{job.name.image.replace('/', '-')}-{platform.architecture}.tar")
        build = self.describe(job, platform, labels, files, output, builder)
        root = str(self._store.root)
        bases = self.bases(job, platform)
        served = tuple(Served(base.image, base.written, image.digest, root) for base, image in bases)
        return engine.commands(replace(build, bases=served), self._options.settings)

    def _proxies(self) -> dict[str, str]:
        found = {}
        for name in _PROXIES:
            for spelled in (name.upper(), name):
                if value := self._environment.get(spelled):
                    found[spelled] = value
        return found

    # -- base images

    def bases(self, job: Job, platform: Platform) -> list[tuple[dockerfile.Base, Image]]:
        """The base images of a Dockerfile that the cache has."""
        if not self._options.cached_bases:
            return []
        path = job.package.directory / (self._options.dockerfile or job.package.dockerfile)
        found = []
        for base in dockerfile.bases(dockerfile.read(path), platform, job.arguments):
            image = self._cached(base.image, base.platform)
            if image is None and self._options.precache:
                image = self._resolver.resolve(base.image, base.platform)
            if image is not None:
                found.append((base, image))
        return found

    def _cached(self, text: str, platform: Platform) -> Image | None:
        try:
            reference = parse_reference(text)
        except ReservedNameError:
            raise
        except InputError:
            return None
        names = [reference] if reference.digest else [
            reference, parse_reference(f"{reference.tagged}-{platform.architecture}")
        ]  # fmt: skip
        for name in names:
            descriptor = self._store.find_reference(name)
            try:
                image = self._store.image(descriptor, name.text, platform) if descriptor is not None else None
            except ImageError:
                continue  # for other platforms only
            if image is not None and all(self._store.has_blob(layer) for layer in image.layers):
                return image
        return None

    def _add_images(self, package: Package, folder: Path, platform: Platform) -> None:
        add_images(package, folder, self._store, self._layers(), self._resolver, platform)

    def _layers(self) -> LayerCache:
        bounds = Bounds.of(self._options.max_layer)
        return LayerCache(self._store, Derived(cache_root(self._store.root)), bounds=bounds)

    # -- running

    def load(self, image: Image, names: Sequence[str]) -> None:
        """See pkg.build.Dockerfiles."""
        with tempfile.NamedTemporaryFile(prefix="linuxkit-pkg-", suffix=".tar") as archive:
            export_image(self._store, self._layers(), image, archive, "docker", names[0])
            archive.flush()
            self._run(["docker", "load", "--input", archive.name], None)
        for other in names[1:]:
            self._run(["docker", "tag", names[0], other], None)

    def _run(self, command: Command, folder: Path | None) -> None:
        host.run(command, cwd=folder, show=self._options.show)


def works(command: Command) -> bool:
    """Whether a command is there and succeeds soon."""
    try:
        return host.run(command, timeout=_PROBE, check=False).returncode == 0
    except HostError:
        return False

