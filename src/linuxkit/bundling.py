"""Making bundles, and reading the YAML back from one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from linuxkit.config.model import Config, beside
from linuxkit.encode.content import Sink
from linuxkit.errors import InputError, LinuxkitError
from linuxkit.locking import agree, pinned_image, pins_for
from linuxkit.oci.bundle import Bundle, Contents, write_bundle
from linuxkit.oci.media import Image, Platform
from linuxkit.oci.reference import parse_reference
from linuxkit.plan.asked import ARCHIVES, KIT, asked
from linuxkit.plan.lock import Lock, encode
from linuxkit.runtime.containment import profile_files
from linuxkit.sources import Sources, host_path


def make_bundle(out: Sink, config: Config, sources: Sources, lock: Lock, *, name: str, platforms: Sequence[Platform],
                documents: Sequence[tuple[str, bytes]], packages: Mapping[str, str], loaders: Sequence[str] = (),
                ) -> int:  # fmt: skip
    """Write everything that builds of a configuration take.

    Args:
        out: takes the bytes; never sought.
        lock: for all of the platforms.
        name: of the build.
        documents, packages: as `oci.bundle.Contents` has them.
        loaders: kit packages that the output formats need.

    Returns:
        the number of bytes.

    Raises:
        LinuxkitError: of any kind; what is missing is fetched or built before.
    """
    images: list[tuple[str, Image]] = []
    signatures: dict[str, None] = {}
    for platform in platforms:
        places = asked(config, platform, loaders)
        agree(places, sources, lock)
        kit = dict.fromkeys(p.text.removeprefix(KIT) for p in places if p.text.startswith(KIT))
        if kit and not sources.offline:
            sources.kit.ensure(list(kit), platform, pins=pins_for(lock, platform))
        for place in places:
            for one in place.platforms:
                image = pinned_image(place.text, one, sources, lock)
                archive = place.text.partition(":")[0] in ARCHIVES  # found by its digest
                images.append(("" if archive else image.reference, image))
                if not place.text.startswith(KIT) and not archive:
                    signatures |= dict.fromkeys(_signatures(image, sources))
    files: dict[str, Path] = {}
    for file in config.files:
        if file.source is not None:
            found, path = _chosen(file.source_names(), sources)
            if path.is_file() or not file.optional:
                files[found] = path
    files |= dict(_chosen(beside(text, at), sources) for text, at in profile_files(config).items())
    contents = Contents(name, tuple(map(str, platforms)), tuple(documents), packages, encode(lock))
    return write_bundle(out, sources.store, contents, images, files, signatures)


def _chosen(names: Sequence[str], sources: Sources) -> tuple[str, Path]:
    """The first of some files that is there, else the last one: as a build would choose."""
    found = [(name, host_path(name, sources)) for name in names]
    return next((one for one in found if one[1].is_file()), found[-1])


def _signatures(image: Image, sources: Sources) -> list[str]:
    """Names in the store of the signatures of an image; those of its registry are fetched, if it answers."""
    from linuxkit.trust.source import fetched, stored_names

    reference = parse_reference(image.reference)
    digests = [image.digest, *([image.index.digest] if image.index is not None else [])]
    found = stored_names(sources.store, reference, digests)
    if not found and not sources.offline:
        try:
            for one in fetched(sources.store, sources.registry, reference, digests):
                if one.fault:
                    sources.log(f"signatures of {reference.text}: {one.fault}")
        except LinuxkitError as e:
            sources.log(f"signatures of {reference.text}: {e.message}")
        found = stored_names(sources.store, reference, digests)
    return found


def load_bundled(bundle: Bundle) -> Config:
    """The configuration that a bundle was made for.

    Raises:
        InputError: as for api.load.
    """
    from linuxkit.api import check_reference
    from linuxkit.config.load import is_url
    from linuxkit.config.merge import merge
    from linuxkit.config.parse import parse_config

    def one(name: str, data: bytes) -> Config:
        if name == "-" or is_url(name):
            return parse_config(data, name, check_reference=check_reference)
        folder = Path(name).parent

        def package(text: str) -> str:
            path = str(folder / text)
            if path not in bundle.contents.packages:
                raise InputError(f"{bundle.where} does not say what @pkg:{text} is", hint="make the bundle anew")
            return bundle.contents.packages[path]

        return parse_config(data, name, substitute=package, check_reference=check_reference)

    return merge([one(name, data) for name, data in bundle.contents.documents])
