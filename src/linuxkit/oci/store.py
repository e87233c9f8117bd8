"""The store: LinuxKit's cache directory, an OCI image layout that several names share.

    <root>/oci-layout                    {"imageLayoutVersion": "1.0.0"}
    <root>/index.json                    one descriptor for each name; the name is in its annotations
    <root>/blobs/sha256/<64 hex>         indexes, manifests, configurations, layers
    <root>/.lock                         held while index.json is rewritten

https://github.com/opencontainers/image-spec v1.1, image-layout.md. A name is the expanded reference, in the annotation
org.opencontainers.image.ref.name. Readers take no lock: index.json is replaced by a rename. Nothing here follows a
symbolic link below <root>, so that a layout from elsewhere cannot make us read the host's files.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from linuxkit.errors import ImageError, ReservedNameError
from linuxkit.oci import document as doc
from linuxkit.oci import kitmade
from linuxkit.oci.blob import HEAL, BlobWriter, Verified, check
from linuxkit.oci.container import open_below
from linuxkit.oci.files import host_errors, locked, replacing, sweep
from linuxkit.oci.media import (
    INDEX_TYPES,
    MANIFEST_TYPES,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    Image,
    Platform,
)
from linuxkit.oci.reference import Reference, canonical_name, is_digest, is_kit_name, parse_reference

REF_NAME = "org.opencontainers.image.ref.name"
MAX_INDEX_JSON = 64 << 20
CHUNK = 1 << 20


class Store:
    """An OCI layout directory. A missing directory is an empty store; the first write makes it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._ready = False
        self._listed: tuple[tuple[int, ...], list[Descriptor]] | None = None  # index.json as it was

    # -- reading

    def entries(self) -> list[Descriptor]:
        """What index.json lists, in its order.

        Raises:
            ImageError: it is damaged.
        """
        now: tuple[int, ...] = ()  # empty: there is no index.json
        with suppress(OSError):
            stat = (self.root / "index.json").lstat()
            now = (stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
        if not now or self._listed is None or self._listed[0] != now:
            try:
                found = [doc.parse_descriptor(d, f"{self.root}/index.json") for d in self._manifests()]
            except ImageError as e:
                e.hint = e.hint or HEAL
                raise
            self._listed = now, found
        return list(self._listed[1])

    def names(self) -> list[str]:
        """The names of all images, sorted."""
        return sorted({n for d in self.entries() if (n := d.annotations.get(REF_NAME))})

    def find(self, reference: str) -> Descriptor | None:
        """What a name points at: the exact expanded name, then with `:latest`; a digest by itself is enough.

        Raises:
            InputError: `reference` is not an image name.
            ImageError: the store is damaged.
        """
        return self.find_reference(parse_reference(reference, kit=True))

    def find_reference(self, ref: Reference) -> Descriptor | None:
        """`find` for a parsed name."""
        listed = self.entries()
        by_name = {d.annotations.get(REF_NAME): d for d in reversed(listed)}  # of two with one name the first
        candidates = [ref.text, ref.tagged, f"{ref.name}:{ref.tag or 'latest'}"]
        if ref.digest:
            candidates = [ref.text, f"{ref.name}@{ref.digest}"]
        for name in candidates:
            found = by_name.get(name)
            if found is not None and ref.digest in ("", found.digest):
                return found
        for other, found in by_name.items():  # that another program wrote, in its own spelling
            if other and ref.digest in ("", found.digest) and canonical_name(other) in candidates:
                return found
        if ref.digest:
            same = next((d for d in listed if d.digest == ref.digest), None)
            return same or self._manifest_blob(ref.digest)
        return None

    def _manifest_blob(self, digest: str) -> Descriptor | None:
        """The descriptor of a manifest or index that is here without a name."""
        with suppress(ImageError):  # missing, damaged, or something else: to be fetched
            with self.open_blob(digest) as stream:
                size = os.fstat(stream.fileno()).st_size
            found = doc.decode(self.read_blob(Descriptor("", digest, size), doc.MAX_MANIFEST), digest)
            kind = doc.text(found, "mediaType", digest) or (OCI_INDEX if "manifests" in found else OCI_MANIFEST)
            if kind in INDEX_TYPES | MANIFEST_TYPES:
                return Descriptor(kind, digest, size)
        return None

    def blob_path(self, digest: str) -> Path:
        """Where a blob is or would be.

        Raises:
            ImageError: `digest` is not a sha256 digest.
        """
        if not is_digest(digest):
            raise ImageError(f"'{digest[:100]}' is not a sha256 digest")
        return self.root / "blobs" / "sha256" / digest[7:]

    def open_blob(self, digest: str) -> BinaryIO:
        """Open a blob for reading, unverified, following no symbolic link.

        Raises:
            ImageError: it is not there, or not a regular file inside the layout.
        """
        self.blob_path(digest)
        return self._open("blobs", "sha256", digest[7:])

    def has_blob(self, descriptor: Descriptor) -> bool:
        """Whether the blob is here with the right size. Content is verified when it is read.

        Asking renews its time: `collect` leaves alone what somebody may be about to name.
        """
        try:
            with self.open_blob(descriptor.digest) as stream:
                with suppress(OSError):  # a store that can only be read
                    os.utime(stream.fileno())
                return os.fstat(stream.fileno()).st_size == descriptor.size
        except ImageError:
            return False

    def read_blob(self, descriptor: Descriptor, limit: int) -> bytes:
        """A small blob, verified.

        Raises:
            ImageError: missing, larger than `limit`, or not the bytes that the digest promises.
        """
        if descriptor.size > limit:
            raise ImageError(f"{descriptor.digest}: {descriptor.size} bytes is over the limit of {limit}")
        with self.open_blob(descriptor.digest) as stream:
            data = stream.read(descriptor.size + 1)
        check(data, descriptor, self.root)
        return data

    def verify(self, descriptor: Descriptor) -> None:
        """Read a blob of any size and compare it with its descriptor.

        Raises:
            ImageError: it is missing or damaged.
        """
        with self.open_blob(descriptor.digest) as stream:
            reader = Verified(stream, descriptor, f"{self.root}: {descriptor.digest}")
            reader.finish()

    def image(self, descriptor: Descriptor, reference: str, platform: Platform) -> Image:
        """The image for one platform under an index, or the one that a manifest is.

        Args:
            reference: the name for messages and for Image.reference.

        Raises:
            ImageError: it has no such platform, or something of it is missing or damaged.
        """
        from linuxkit.oci.select import select

        return select(self.read_blob, descriptor, reference, platform)

    # -- writing

    def put_blob(self, content: bytes | BinaryIO, media_type: str, *, digest: str = "", size: int = -1,
                 limit: int = doc.MAX_SIZE) -> Descriptor:  # fmt: skip
        """Keep a blob, hashing it on its way.

        Args:
            content: the bytes, or a stream read to its end.
            digest, size: what it must be, when known.
            limit: most bytes taken from a stream.

        Raises:
            ImageError: the content is not what `digest` and `size` say; nothing is kept.
            HostError: the store cannot be written.
        """
        if isinstance(content, bytes):
            found = Descriptor(media_type, f"sha256:{hashlib.sha256(content).hexdigest()}", len(content))
            if digest in ("", found.digest) and size in (-1, len(content)) and self._holds(found, content):
                return found
            content = io.BytesIO(content)
        with self.write_blob(media_type, digest=digest, size=size, limit=limit) as blob:
            while chunk := content.read(CHUNK):
                blob.write(chunk)
        return blob.descriptor

    def _holds(self, blob: Descriptor, content: bytes) -> bool:
        """Whether a blob is here, with these bytes: one of the right size may be damaged."""
        if not self.has_blob(blob):
            return False
        with suppress(ImageError, OSError), self.open_blob(blob.digest) as stream:
            return stream.read(len(content) + 1) == content
        return False

    def write_blob(self, media_type: str, *, digest: str = "", size: int = -1,
                   limit: int = doc.MAX_SIZE) -> BlobWriter:  # fmt: skip
        """A context manager with `write`; after it, `.descriptor`. Arguments and errors as for put_blob."""
        self.prepare()
        return BlobWriter(self.root / "blobs" / "sha256", media_type, digest, size, limit)

    def put_name(self, name: str, descriptor: Descriptor) -> None:
        """Make `name` (expanded) point at a blob that is here; a name points at one thing.

        Raises:
            ReservedNameError: it is one that only the kit gives.
        """
        _not_kit(name)
        entry = doc.descriptor_document(descriptor)
        entry["annotations"] = {**descriptor.annotations, REF_NAME: name}
        entry.pop("platform", None)
        self._edit(lambda listed: [d for d in listed if _name(d) != name] + [entry])

    def remove_name(self, name: str) -> bool:
        """Forget a name; its blobs stay. Returns whether it was there."""
        found = False

        def edit(listed: list[dict[str, Any]]) -> list[dict[str, Any]]:
            nonlocal found
            kept = [d for d in listed if _name(d) != name]
            found = len(kept) < len(listed)
            return kept

        self._edit(edit)
        return found

    def put_image(self, reference: str, platform: Platform, config: dict[str, Any] | bytes,
                  layers: Sequence[Descriptor], *, kit: bool = False) -> Image:  # fmt: skip
        """Make an image of blobs that are here, and add it for its platform to the index under `reference`.

        Args:
            kit: the kit's builder made it: the name is one of the kit's, and what was made is noted (oci.kitmade).
            config: the image configuration; os, architecture, variant and rootfs.type are filled in when it is a dict.
            layers: bottom first; their diff_ids stand in config["rootfs"]["diff_ids"].

        Raises:
            InputError: `reference` is not an image name. ImageError: the configuration does not fit the layers.
        """
        name = parse_reference(reference, kit=kit).tagged
        if isinstance(config, dict):
            rootfs = {"type": "layers", **config.get("rootfs", {})}
            config = doc.encode({**config, **doc.platform_document(platform), "rootfs": rootfs})
        if len(doc.parse_config(doc.decode(config, name), name).diff_ids) != len(layers):
            raise ImageError(f"{name}: as many diff_ids as layers are needed")
        config_blob = self.put_blob(config, OCI_CONFIG)
        manifest = doc.encode({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": doc.descriptor_document(config_blob),
            "layers": [doc.descriptor_document(d) for d in layers],
        })  # fmt: skip
        blob = self.put_blob(manifest, OCI_MANIFEST)
        entry = doc.descriptor_document(Descriptor(blob.media_type, blob.digest, blob.size, platform))

        def merge(listed: list[dict[str, Any]]) -> list[dict[str, Any]]:
            others = [m for m in listed if m.get("platform") != entry["platform"]
                      and (not kit or m.get("digest") in kitmade.digests(kitmade.read(self.root), name))]  # fmt: skip
            return sorted([*others, entry], key=lambda m: doc.encode(m.get("platform")))

        top = self.merge_name(name, merge, kit=kit)
        if kit:
            kitmade.add(self.root, name, str(platform), blob.digest, self.names())
        return self.image(top, name, platform)

    def merge_name(self, name: str, merge: Callable[[list[dict[str, Any]]], list[dict[str, Any]]], *,
                   kit: bool = False) -> Descriptor:  # fmt: skip
        """Make `name` (expanded) point at an index of what `merge` makes of the manifests that it lists now."""
        if not kit:
            _not_kit(name)
        found: Descriptor | None = None

        def edit(listed: list[dict[str, Any]]) -> list[dict[str, Any]]:
            nonlocal found
            old = next((d for d in listed if _name(d) == name), None)
            document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": merge(self._index_manifests(old))}
            found = self.put_blob(doc.encode(document), OCI_INDEX)
            pointer = doc.descriptor_document(found) | {"annotations": {REF_NAME: name}}
            return [d for d in listed if _name(d) != name] + [pointer]

        self._edit(edit)
        assert found is not None
        return replace(found, annotations={REF_NAME: name})

    def _index_manifests(self, old: dict[str, Any] | None) -> list[dict[str, Any]]:
        """The manifests under a name that is an index here and whole; an odd or damaged one is made anew."""
        if old is None or old.get("mediaType") not in INDEX_TYPES:
            return []
        try:
            descriptor = doc.parse_descriptor(old, "index.json")
            index = doc.decode(self.read_blob(descriptor, doc.MAX_MANIFEST), descriptor.digest)
            return doc.objects(index, "manifests", descriptor.digest)
        except ImageError:
            return []

    # -- the files

    def _edit(self, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
        self.prepare()
        with host_errors("cannot write the cache at", self.root), locked(self.root / ".lock"):
            before = self._index()
            listed = [d for d in before.get("manifests") or [] if isinstance(d, dict)]
            after = {"schemaVersion": 2, "mediaType": OCI_INDEX, **before, "manifests": change(listed)}
            with replacing(self.root / "index.json") as stream:
                stream.write(doc.encode(after))

    def prepare(self) -> None:
        """Make the directories, once, and remove what killed writers left.

        Raises:
            HostError: the place cannot be written.
        """
        if self._ready:
            return
        with host_errors("cannot write the cache at", self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            for folder in (self.root, self.root / "blobs" / "sha256"):
                sweep(folder)
            with locked(self.root / ".lock"):  # blobs come last: a folder without them is an empty cache
                for name, text in (("oci-layout", b'{"imageLayoutVersion":"1.0.0"}'),
                                   ("index.json", doc.encode({"schemaVersion": 2, "mediaType": OCI_INDEX,
                                                              "manifests": []}))):  # fmt: skip
                    if not os.path.lexists(self.root / name):
                        with replacing(self.root / name) as stream:
                            stream.write(text)
                (self.root / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
        self._ready = True

    def _manifests(self) -> list[dict[str, Any]]:
        where = f"{self.root}/index.json"
        return doc.objects(self._index(), "manifests", where)

    def _index(self) -> dict[str, Any]:
        if not (self.root / "index.json").exists():
            return {}
        with self._open("index.json") as stream:
            data = stream.read(MAX_INDEX_JSON + 1)
        if len(data) > MAX_INDEX_JSON:
            raise ImageError(f"{self.root}/index.json is larger than {MAX_INDEX_JSON} bytes")
        return doc.decode(data, f"{self.root}/index.json")

    def _open(self, *parts: str) -> BinaryIO:
        return open_below(self.root, *parts)


def _name(entry: dict[str, Any]) -> str:
    annotations = entry.get("annotations")
    name = annotations.get(REF_NAME) if isinstance(annotations, dict) else None
    return name if isinstance(name, str) else ""


def _not_kit(name: str) -> None:
    if is_kit_name(name):
        raise ReservedNameError(f"image name '{name}' is one that only the kit gives", hint="give another name")
