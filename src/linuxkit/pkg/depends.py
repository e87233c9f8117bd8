"""`depends.docker-images`: images as archives among a build's files, as `docker save` writes them.

LinuxKit pulls them with Docker and leaves the archives in the package's directory. Here they come from the cache or the
registry, and stand only among the files that the build sees.
"""

from __future__ import annotations

import json
from pathlib import Path

from linuxkit.encode import tar
from linuxkit.entry import FIXED_MTIME, Bytes, Entry, Kind, read_all
from linuxkit.foreign import read_json
from linuxkit.oci.export import docker_members
from linuxkit.oci.layer import LayerCache
from linuxkit.oci.media import Image, Platform
from linuxkit.oci.reference import parse_reference
from linuxkit.oci.resolve import Resolver
from linuxkit.oci.store import Store
from linuxkit.pkg.model import Package
from linuxkit.pkg.parse import read_image_list


def add_images(package: Package, folder: Path, store: Store, layers: LayerCache, resolver: Resolver,
               platform: Platform) -> None:  # fmt: skip
    """Write the archives of images for one platform below `folder`.

    Raises:
        InputError: one of the images has no digest. ImageError, NetworkError: one can't be had.
    """
    depends = package.depends
    assert depends is not None
    images = [(text, resolver.resolve(text, platform)) for text in read_image_list(package)]
    if depends.target:
        path = folder / depends.target
        path.parent.mkdir(parents=True, exist_ok=True)
        _save(path, images, store, layers)
        return
    for text, image in images:
        reference = parse_reference(text)
        path = folder / depends.target_dir / f"{reference.repository.rpartition('/')[2]}@{reference.digest}.tar"
        path.parent.mkdir(parents=True, exist_ok=True)
        _save(path, [(text, image)], store, layers)


def _save(path: Path, images: list[tuple[str, Image]], store: Store, layers: LayerCache) -> None:
    members: dict[str, Entry] = {}
    listed = []
    for text, image in images:
        for entry in docker_members(store, layers, image, parse_reference(text).text):
            if entry.path == "manifest.json":
                listed += read_json(read_all(entry.source, 1 << 24))
            else:
                members.setdefault(entry.path, entry)
    manifest = Bytes(json.dumps(listed, separators=(",", ":")).encode())
    members["manifest.json"] = Entry("manifest.json", Kind.FILE, 0o644, mtime=FIXED_MTIME, source=manifest)
    with path.open("wb") as out:
        tar.write(members.values(), out)
        out.write(tar.END)
