"""Images from files: OCI layouts (a directory or a tar of one) and what `docker save` writes.

    oci:DIR[:TAG]              oci-archive:FILE[:TAG]              docker-archive:FILE[:TAG]

Blobs are copied into the store and verified on the way. `docker save` has no digests of its own: its layers are checked
against the diff ids of its configuration, and the manifest is ours.

https://github.com/opencontainers/image-spec v1.1, image-layout.md; Docker Image Specification v1.2.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from linuxkit.errors import ImageError, InputError
from linuxkit.foreign import read_json
from linuxkit.oci import document as doc
from linuxkit.oci import select
from linuxkit.oci.container import BOUNDS, Archive, Container, Directory
from linuxkit.oci.media import (
    INDEX_TYPES,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_LAYER_GZIP,
    OCI_MANIFEST,
    Descriptor,
    Image,
    Platform,
)
from linuxkit.oci.reference import expand, is_kit_name, parse_reference
from linuxkit.oci.store import MAX_INDEX_JSON, REF_NAME, Store

IMAGE_NAME = "io.containerd.image.name"
BUNDLE = "linuxkit/bundle.json"  # of oci.bundle


def open_archive(store: Store, scheme: str, rest: str, platform: Platform, max_layer: int = 0) -> Image:
    """The image of `SCHEME:PATH[:TAG]`, with its blobs in the store.

    Args:
        max_layer: bytes that a compressed archive may unpack to in any case; 0: as oci.container.BOUNDS has it.

    Raises:
        InputError: there is no such file, or the tag is missing or wrong. ImageError: it is damaged or hostile.
    """
    path, tag = split_path(rest)
    reference = f"{scheme}:{rest}"
    with _opened(store, path, max_layer, directory=scheme == "oci") as files:
        if scheme == "docker-archive":
            return _docker_image(store, files, _choose_saved(files, tag), reference, platform)
        return _fetch(store, files, _choose(store, files, _index(files), tag), reference, platform)


def import_archive(store: Store, source: Path | BinaryIO, name: str = "", max_layer: int = 0) -> list[str]:
    """Bring all images of a layout or `docker save` archive into the store under their names.

    Args:
        source: a file, a layout directory, or a stream.
        name: the name to keep the only image under, when it brings none or another is wanted.
        max_layer: as for `open_archive`.

    Returns:
        The names, in the archive's order.

    Raises:
        InputError: nothing in it has a name. ImageError: it is damaged or hostile.
    """
    given = parse_reference(name).tagged if name else ""
    is_directory = isinstance(source, Path) and source.is_dir()
    with _opened(store, source, max_layer, directory=is_directory) as files:
        if files.has("index.json"):
            return _import_layout(store, files, given)
        return _import_saved(store, files, given)


def split_path(rest: str) -> tuple[Path, str]:
    """(path, tag) of `PATH[:TAG]`; the longest path that exists wins, so both may contain colons."""
    at = len(rest)
    while at > 0:
        if Path(rest[:at]).exists():
            return Path(rest[:at]), rest[at + 1 :]
        at = rest.rfind(":", 0, at)
    raise InputError(f"there is no file or directory {rest}" if rest else "a path is missing",
                     hint="write oci:DIR, oci-archive:FILE or docker-archive:FILE, with :TAG to choose")  # fmt: skip


@contextmanager
def _opened(store: Store, source: Path | BinaryIO, max_layer: int, *, directory: bool) -> Iterator[Container]:
    if directory:
        assert isinstance(source, Path)
        yield Directory(source)
        return
    with Archive(source, store.root, BOUNDS.widened(max_layer)) as archive:
        yield archive


def _reader(store: Store, files: Container) -> select.Reader:
    """Reads and verifies the small blobs of a layout."""
    from linuxkit.oci.blob import check

    def read(descriptor: Descriptor, limit: int) -> bytes:
        if descriptor.size > limit:
            raise ImageError(f"{files.where}: {descriptor.digest} has {descriptor.size} bytes, more than {limit}")
        if descriptor.media_type == OCI_INDEX and not files.has(_blob(descriptor)) and store.has_blob(descriptor):
            return store.read_blob(descriptor, limit)  # made of what index.json lists
        with files.open(_blob(descriptor)) as stream:
            data = stream.read(descriptor.size + 1)
        check(data, descriptor, files.where)
        return data

    return read


def _blob(descriptor: Descriptor) -> str:
    return f"blobs/sha256/{descriptor.digest[7:]}"  # parse_descriptor has checked the digest's form


def _small(files: Container, name: str, limit: int) -> bytes:
    with files.open(name) as stream:
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise ImageError(f"{files.where}: {name} is larger than {limit} bytes")
    return data


def _index(files: Container) -> list[Descriptor]:
    where = f"{files.where}: index.json"
    document = doc.decode(_small(files, "index.json", MAX_INDEX_JSON), where)
    return [doc.parse_descriptor(d, where) for d in doc.objects(document, "manifests", where)]


def _one_image(listed: list[Descriptor]) -> bool:
    """Whether manifests that a layout lists side by side are one image's, each for another platform (apko, paketo)."""
    # BuildKit's attestations are for the platform unknown/unknown.
    found = [d for d in listed if d.platform is None or d.platform.architecture != "unknown"]
    platforms = {str(d.platform) for d in found if d.platform is not None and d.media_type not in INDEX_TYPES}
    return len(platforms) == len(found) > 0 and len(listed) > 1 and len({tuple(_labels(d)) for d in found}) == 1


def _told(store: Store, files: Container, listed: list[Descriptor]) -> list[Descriptor]:
    """The same; of several manifests that say no platform, each with that of its configuration."""
    return [_of_configuration(store, files, d) for d in listed] if len({d.digest for d in listed}) > 1 else listed


def _of_configuration(store: Store, files: Container, descriptor: Descriptor) -> Descriptor:
    if descriptor.platform is not None:
        return descriptor
    read, where = _reader(store, files), f"{files.where}: {descriptor.digest}"
    try:
        document = doc.decode(read(descriptor, doc.MAX_MANIFEST), where)
        if select.is_index(document, descriptor.media_type):
            return descriptor
        config, _ = doc.parse_manifest(document, where)
        parsed = doc.parse_config(doc.decode(read(config, doc.MAX_CONFIG), where), where)
    except ImageError:
        return descriptor  # said where it is used
    made_for = Platform(parsed.os or "linux", parsed.architecture)
    return replace(descriptor, platform=made_for) if parsed.architecture else descriptor


def _joined(store: Store, listed: list[Descriptor]) -> Descriptor:
    """The first of some descriptors of one name; of one image's manifests an index, which goes into the store."""
    if not _one_image(listed):
        return listed[0]
    manifests = [doc.descriptor_document(replace(d, annotations={})) for d in listed]
    return store.put_blob(doc.encode({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}), OCI_INDEX)


def _choose(store: Store, files: Container, listed: list[Descriptor], tag: str) -> Descriptor:
    fitting = [d for d in listed if not tag or tag in _labels(d) or expand(tag) in _labels(d) or tag == d.digest]
    if len({d.digest for d in fitting}) == 1:
        return fitting[0]
    fitting = _told(store, files, fitting)
    if _one_image(fitting):
        return _joined(store, fitting)
    names = sorted({label for d in listed for label in _labels(d)})
    what = "it holds no image" if not listed else f"no image '{tag}' in it" if tag else f"it holds {len(listed)} images"
    raise InputError(f"{files.where}: {what}", hint=f"choose one with :TAG, of {', '.join(names[:8])}" if names else "")


def _labels(descriptor: Descriptor) -> list[str]:
    found = [descriptor.annotations.get(key, "") for key in (IMAGE_NAME, REF_NAME)]
    return [label for label in found if label]


def _fetch(store: Store, files: Container, index: Descriptor, reference: str, platform: Platform) -> Image:
    """Copy one image; its manifest goes after what it needs, so that a manifest never lacks its blobs."""
    small: dict[str, tuple[Descriptor, bytes]] = {}
    plain = _reader(store, files)

    def read(descriptor: Descriptor, limit: int) -> bytes:
        data = plain(descriptor, limit)
        small[descriptor.digest] = descriptor, data
        return data

    image = select.select(read, index, reference, platform)
    for layer in image.layers:
        _copy(store, files, layer)
    for descriptor, data in reversed(small.values()):
        store.put_blob(data, descriptor.media_type)
    return image


def _copy(store: Store, files: Container, blob: Descriptor) -> None:
    if not store.has_blob(blob):
        with files.open(_blob(blob)) as stream:
            store.put_blob(stream, blob.media_type, digest=blob.digest, size=blob.size)


def _import_layout(store: Store, files: Container, given: str) -> list[str]:
    listed = _told(store, files, _index(files))
    if given and len({d.digest for d in listed}) != 1 and not _one_image(listed):
        raise InputError(f"{files.where} holds {len(listed)} images, so a name for one does not fit")
    names: list[str] = []
    if files.has(BUNDLE) and not given:  # its kit packages are for builds from it; only the kit makes ours
        listed = [d for d in listed if not is_kit_name(d.annotations.get(REF_NAME, ""))]
    for descriptor in listed:
        name = given or _registered_name(descriptor)
        if name and name not in names:
            top = _joined(store, listed if given else [d for d in listed if _registered_name(d) == name])
            _copy_tree(store, files, top)
            store.put_name(name, Descriptor(_kind(store, top), top.digest, top.size))
            names.append(name)
    if not names:
        raise InputError(f"nothing in {files.where} has a name", hint="give one with --name NAME:TAG")
    return names


def _kind(store: Store, top: Descriptor) -> str:
    """The media type of what was copied: its own, or what it should be when it is labelled as the other thing."""
    index = select.is_index(doc.decode(store.read_blob(top, doc.MAX_MANIFEST), top.digest), top.media_type)
    if index == (top.media_type in INDEX_TYPES):
        return top.media_type
    return OCI_INDEX if index else OCI_MANIFEST


def _registered_name(descriptor: Descriptor) -> str:
    """LinuxKit registers what containerd named; a full name where the layout's tag belongs will do as well."""
    name = descriptor.annotations.get(IMAGE_NAME) or descriptor.annotations.get(REF_NAME, "")
    if name == descriptor.annotations.get(REF_NAME) and "/" not in name:
        return ""
    return parse_reference(name).tagged if name else ""


def _copy_tree(store: Store, files: Container, top: Descriptor, depth: int = 0) -> bool:
    """Copy a manifest or index with all below it. Platforms that the archive lists but does not hold are left out.

    Returns:
        Whether anything was there.
    """
    read = _reader(store, files)
    data = read(top, doc.MAX_MANIFEST)
    document = doc.decode(data, f"{files.where}: {top.digest}")
    index = select.is_index(document, top.media_type)
    if index:
        if depth >= select.MAX_DEPTH:
            raise ImageError(f"{files.where}: indexes are nested more than {select.MAX_DEPTH} deep")
        below = [doc.parse_descriptor(d, top.digest) for d in doc.objects(document, "manifests", top.digest)]
        there = [d for d in below if files.has(_blob(d)) and _copy_tree(store, files, d, depth + 1)]
        if below and not there and depth == 0:
            raise ImageError(f"{files.where}: {top.digest} lists images, but the archive holds none of them")
    else:
        config, layers = doc.parse_manifest(document, f"{files.where}: {top.digest}")
        if not all(files.has(_blob(d)) for d in (config, *layers)) and depth:
            return False
        for blob in (*layers, config):
            _copy(store, files, blob)
    store.put_blob(data, OCI_INDEX if index else OCI_MANIFEST, digest=top.digest, size=top.size)
    return True


# -- docker save


def _saved(files: Container) -> list[dict[str, Any]]:
    where = f"{files.where}: manifest.json"
    try:
        listed = read_json(_small(files, "manifest.json", doc.MAX_MANIFEST))
    except (ValueError, RecursionError) as e:
        raise ImageError(f"{where}: not valid JSON") from e
    if not isinstance(listed, list) or not all(isinstance(item, dict) for item in listed):
        raise ImageError(f"{where}: a list of objects is expected")
    return listed


def _choose_saved(files: Container, tag: str) -> dict[str, Any]:
    listed = _saved(files)
    wanted = parse_reference(tag).tagged if tag else ""
    fitting = [item for item in listed if not wanted or wanted in _saved_names(files, item)]
    if len(fitting) == 1:
        return fitting[0]
    names = sorted({name for item in listed for name in _saved_names(files, item)})
    what = f"no image '{tag}' in it" if tag else f"it holds {len(listed)} images"
    raise InputError(f"{files.where}: {what}", hint=f"choose one with :TAG, of {', '.join(names[:8])}" if names else "")


def _saved_names(files: Container, item: dict[str, Any]) -> list[str]:
    tags = doc.texts(item, "RepoTags", f"{files.where}: manifest.json")
    return [parse_reference(tag).tagged for tag in tags]


def _docker_image(store: Store, files: Container, item: dict[str, Any], reference: str, platform: Platform) -> Image:
    descriptor = _docker_manifest(store, files, item)
    return store.image(descriptor, reference, platform)


def _docker_manifest(store: Store, files: Container, item: dict[str, Any]) -> Descriptor:
    """Keep one saved image: its configuration, its layers, and a manifest made for them."""
    where = f"{files.where}: manifest.json"
    config = _small(files, doc.text(item, "Config", where), doc.MAX_CONFIG)
    parsed = doc.parse_config(doc.decode(config, where), where)
    names = doc.texts(item, "Layers", where)
    if len(names) != len(parsed.diff_ids) or len(names) > doc.MAX_LAYERS:
        raise ImageError(f"{where}: {len(names)} layers do not fit the {len(parsed.diff_ids)} diff_ids")
    layers = []
    for name, diff_id in zip(names, parsed.diff_ids, strict=True):
        plain = Descriptor(OCI_LAYER, diff_id, files.size(name))
        if store.has_blob(plain):
            layers.append(plain)
            continue
        with files.open(name) as stream:
            packed = stream.read(2) == b"\x1f\x8b"
        with files.open(name) as stream:  # LayerCache checks a compressed one against its diff id
            kind = OCI_LAYER_GZIP if packed else OCI_LAYER
            layers.append(store.put_blob(stream, kind, digest="" if packed else diff_id))
    manifest = doc.encode({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": doc.descriptor_document(store.put_blob(config, OCI_CONFIG)),
        "layers": [doc.descriptor_document(d) for d in layers],
    })  # fmt: skip
    return store.put_blob(manifest, OCI_MANIFEST)


def _import_saved(store: Store, files: Container, given: str) -> list[str]:
    if not files.has("manifest.json"):
        raise InputError(f"{files.where} is neither an OCI layout nor a 'docker save' archive",
                         hint="it has no index.json and no manifest.json")  # fmt: skip
    listed = _saved(files)
    if given and len(listed) != 1:
        raise InputError(f"{files.where} holds {len(listed)} images, so a name for one does not fit")
    done: list[str] = []
    for item in listed:
        names = [given] if given else _saved_names(files, item)
        if names:
            descriptor = _docker_manifest(store, files, item)
            for name in names:
                store.put_name(name, descriptor)
                done.append(name)
    if not done:
        raise InputError(f"nothing in {files.where} has a name", hint="give one with --name NAME:TAG")
    return done
