"""Bundles: everything that a build takes, in one file. An OCI image layout in a tar, with a list of what is no image.

    oci-layout                    {"imageLayoutVersion": "1.0.0"}
    index.json                    the images and their signatures, by name
    linuxkit/bundle.json          {"version": 1, "name": "web", "platforms": ["linux/amd64"],
                                   "documents": [{"name": "web.yml", BLOB}],       YAML, in the order of the merge
                                   "packages": {"PATH": "IMAGE"},                  what @pkg:PATH stands for
                                   "files": {"PATH": BLOB}, "lock": BLOB}          BLOB = "digest": …, "size": …
    blobs/sha256/<64 hex>         all of them, sorted

The same inputs give the same bytes. Nothing in it is trusted but what a digest names; the members are looked up by the
names above, any others are not looked at, and nothing is ever unpacked by name.
"""

from __future__ import annotations

import hashlib
import io
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from linuxkit.encode import tar
from linuxkit.encode.content import Sink
from linuxkit.entry import FIXED_MTIME, Bytes, Entry, Extent, Kind
from linuxkit.errors import ImageError, InputError
from linuxkit.foreign import open_file
from linuxkit.oci import document as doc
from linuxkit.oci.container import Archive
from linuxkit.oci.media import INDEX_TYPES, MANIFEST_TYPES, OCI_INDEX, OCI_MANIFEST, Descriptor, Image
from linuxkit.oci.reference import Reference
from linuxkit.oci.select import MAX_DEPTH
from linuxkit.oci.store import MAX_INDEX_JSON, REF_NAME, Store
from linuxkit.oci.unpack import GZIP, ZSTD

VERSION = 1
MANIFEST = "linuxkit/bundle.json"
MAX_DOCUMENT = 16 << 20  # bytes of a YAML file or a lock; what reads them has narrower bounds
MAX_FILES = 100_000


@dataclass(frozen=True, slots=True)
class Contents:
    """What a bundle has beside images.

    name       of the build.
    platforms  os/arch.
    documents  (name, content) of each YAML file, in the order of the merge.
    packages   what each @pkg: path stands for.
    files      what `source:` names: path → descriptor.
    lock       the lock file's content.
    """

    name: str
    platforms: tuple[str, ...]
    documents: tuple[tuple[str, bytes], ...]
    packages: Mapping[str, str]
    lock: bytes
    files: Mapping[str, Descriptor] = field(default_factory=dict)


# -- writing


def write_bundle(out: Sink, store: Store, contents: Contents, images: Iterable[tuple[str, Image]],
                 files: Mapping[str, Path], signatures: Iterable[str] = ()) -> int:  # fmt: skip
    """Write a bundle.

    Args:
        out: takes the bytes; never sought.
        images: with the names that they get; "" for none. All their blobs are in the store.
        files: what `source:` names: path → where it is.
        signatures: names in the store that go with them.

    Returns:
        the number of bytes.

    Raises:
        ImageError: a blob is missing or damaged, or a file changed meanwhile.
    """
    blobs: dict[str, Entry] = {}
    names: dict[str, Descriptor] = {}
    for name, image in images:
        top = _collect(store, image, blobs)
        if name:
            names[name] = top
    for name in signatures:
        found = store.find(name)
        if found is not None:
            names[name] = Descriptor(found.media_type, found.digest, found.size)
            _tree(store, found, blobs)
    listed = {path: _file(where, blobs) for path, where in files.items()}
    manifest = {
        "version": VERSION, "name": contents.name, "platforms": list(contents.platforms),
        "documents": [{"name": name, **_blob(data, blobs)} for name, data in contents.documents],
        "packages": dict(contents.packages), "files": listed, "lock": _blob(contents.lock, blobs),
    }  # fmt: skip
    named = [doc.descriptor_document(d) | {"annotations": {REF_NAME: name}} for name, d in sorted(names.items())]
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": named}
    members = [
        _text("oci-layout", b'{"imageLayoutVersion":"1.0.0"}'), _text("index.json", doc.encode(index)),
        Entry("linuxkit", Kind.DIRECTORY, 0o755, mtime=FIXED_MTIME), _text(MANIFEST, doc.encode(manifest)),
        Entry("blobs", Kind.DIRECTORY, 0o755, mtime=FIXED_MTIME),
        Entry("blobs/sha256", Kind.DIRECTORY, 0o755, mtime=FIXED_MTIME),
    ]  # fmt: skip
    count = tar.write([*members, *(blobs[digest] for digest in sorted(blobs))], out)
    out.write(tar.END)
    return count + len(tar.END)


def _text(path: str, data: bytes) -> Entry:
    return Entry(path, Kind.FILE, 0o644, mtime=FIXED_MTIME, source=Bytes(data))


def _blob(data: bytes, blobs: dict[str, Entry]) -> dict[str, Any]:
    digest = hashlib.sha256(data).hexdigest()
    blobs[digest] = _text(f"blobs/sha256/{digest}", data)
    return {"digest": f"sha256:{digest}", "size": len(data)}


def _file(path: Path, blobs: dict[str, Entry]) -> dict[str, Any]:
    with open_file(path) as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        size = stream.tell()
    blobs[digest] = Entry(f"blobs/sha256/{digest}", Kind.FILE, 0o644, mtime=FIXED_MTIME,
                          source=Extent(str(path), 0, size))  # fmt: skip
    return {"digest": f"sha256:{digest}", "size": size}


def _add(store: Store, blob: Descriptor, blobs: dict[str, Entry]) -> None:
    if blob.digest[7:] not in blobs:
        store.verify(blob)
        content = Extent(str(store.blob_path(blob.digest)), 0, blob.size)
        blobs[blob.digest[7:]] = Entry(f"blobs/sha256/{blob.digest[7:]}", Kind.FILE, 0o644, mtime=FIXED_MTIME,
                                       source=content)  # fmt: skip


def _collect(store: Store, image: Image, blobs: dict[str, Entry]) -> Descriptor:
    """Add one platform's image, with the attestations about it that are here. Returns what its name stands for."""
    found = store.find_reference(Reference("", "", "", digest=image.digest))
    if found is None:
        raise ImageError(f"image {image.reference}: {image.digest} is not in the cache {store.root}")
    _tree(store, found, blobs)
    if image.index is None:
        return found
    _add(store, image.index, blobs)
    document = doc.decode(store.read_blob(image.index, doc.MAX_MANIFEST), image.index.digest)
    for item in doc.objects(document, "manifests", image.index.digest):
        child = doc.parse_descriptor(item, image.index.digest)
        if "vnd.docker.reference.type" in child.annotations and store.has_blob(child):
            _tree(store, child, blobs)
    return Descriptor(image.index.media_type, image.index.digest, image.index.size)


def _tree(store: Store, top: Descriptor, blobs: dict[str, Entry], depth: int = 0) -> None:
    """Add a manifest or index with everything below it."""
    if depth > MAX_DEPTH:
        raise ImageError(f"{top.digest}: indexes are nested more than {MAX_DEPTH} deep")
    _add(store, top, blobs)
    document = doc.decode(store.read_blob(top, doc.MAX_MANIFEST), top.digest)
    if "manifests" in document or top.media_type in INDEX_TYPES:
        for item in doc.objects(document, "manifests", top.digest):
            _tree(store, doc.parse_descriptor(item, top.digest), blobs, depth + 1)
    elif top.media_type in MANIFEST_TYPES or "config" in document:
        config, layers = doc.parse_manifest(document, top.digest)
        for blob in (config, *layers):
            _add(store, blob, blobs)


# -- reading


class Bundle:
    """An open bundle; its file is closed when nothing refers to the bundle any more.

    Args:
        source: the file, or a stream such as standard input.
        scratch: where a compressed or streamed one is written out, without a name.

    Raises:
        InputError: it is no bundle, or of another version. ImageError: it is damaged.
    """

    def __init__(self, source: Path | BinaryIO, scratch: Path) -> None:
        self._archive = Archive(source, scratch)
        weakref.finalize(self, self._archive.__exit__, None, None, None)
        self.where = f"bundle {self._archive.where}"
        if not (self._archive.has(MANIFEST) and self._archive.has("index.json")):
            raise InputError(f"{self._archive.where} is no bundle", hint="linuxkit bundle FILE.yml -o X.tar makes one")
        document = doc.decode(self._small(MANIFEST, MAX_DOCUMENT), self.where)
        version = document.get("version")
        if version != VERSION or isinstance(version, bool):
            raise InputError(f"{self.where} has version {str(version)[:20]}, and this program reads version {VERSION}",
                             hint="use a newer linuxkit, or make the bundle anew")  # fmt: skip
        self.contents = self._contents(document)

    def entries(self) -> list[Descriptor]:
        """The images by name, as index.json lists them."""
        where = f"{self.where}: index.json"
        document = doc.decode(self._small("index.json", MAX_INDEX_JSON), where)
        return [doc.parse_descriptor(d, where) for d in doc.objects(document, "manifests", where)]

    def size(self, digest: str) -> int | None:
        """Bytes of a blob; None when it is not there."""
        name = f"blobs/sha256/{digest[7:]}"
        return self._archive.size(name) if self._archive.has(name) else None

    def open(self, digest: str) -> BinaryIO:
        """A blob, not verified. Raises ImageError."""
        return self._archive.open(f"blobs/sha256/{digest[7:]}")

    def _small(self, name: str, limit: int) -> bytes:
        with self._archive.open(name) as stream:
            data = stream.read(limit + 1)
        if len(data) > limit:
            raise ImageError(f"{self.where}: {name} is larger than {limit} bytes")
        return data

    def _read(self, found: Descriptor) -> bytes:
        from linuxkit.oci.blob import check

        if found.size > MAX_DOCUMENT:
            raise ImageError(f"{self.where}: {found.digest} has {found.size} bytes, more than {MAX_DOCUMENT}")
        with self.open(found.digest) as stream:
            data = stream.read(found.size + 1)
        check(data, found, self.where)
        return data

    def _contents(self, document: dict[str, Any]) -> Contents:
        where = f"{self.where}: {MANIFEST}"
        listed = doc.objects(document, "documents", where)
        files = doc.mapping(document, "files", where)
        if len(files) > MAX_FILES or len(listed) > MAX_FILES or not all(isinstance(f, dict) for f in files.values()):
            raise ImageError(f"{where}: its list of files is not one")
        documents = tuple(
            (doc.text(item, "name", where), self._read(doc.parse_descriptor({"mediaType": "", **item}, where)))
            for item in listed
        )
        if not documents:
            raise ImageError(f"{where}: it has no YAML")
        name = doc.text(document, "name", where) or "image"
        if "/" in name or name.startswith(".") or len(name.encode()) > 200 or not name.isprintable():
            raise ImageError(f"{where}: its name is none for files of a build: {name[:60]!r}")
        return Contents(
            name, doc.texts(document, "platforms", where), documents,
            doc.strings(document, "packages", where),
            self._read(doc.parse_descriptor(doc.mapping(document, "lock", where), where)),
            {path: doc.parse_descriptor(item, where) for path, item in files.items()},
        )  # fmt: skip


class BundleStore(Store):
    """The images of a bundle, read straight from it. What is in the cache directory and not in the bundle is not seen.

    Only what has to be a file by itself - an uncompressed layer, a file of the YAML - is copied into the cache
    directory, by its digest and verified. Images that a build makes go there, too.
    """

    def __init__(self, root: Path, bundle: Bundle) -> None:
        super().__init__(root)
        self._bundle = bundle
        self._named: list[Descriptor] | None = None

    def entries(self) -> list[Descriptor]:
        if self._named is None:
            self._named = self._bundle.entries()
        return list(self._named)

    def has_blob(self, descriptor: Descriptor) -> bool:
        return self._bundle.size(descriptor.digest) == descriptor.size

    def open_blob(self, digest: str) -> BinaryIO:
        super().blob_path(digest)
        if self._bundle.size(digest) is None:
            raise ImageError(f"{digest} is not in {self._bundle.where}", hint="make the bundle anew")
        stream = self._bundle.open(digest)
        start = stream.peek(4) if isinstance(stream, io.BufferedReader) else b""
        if start.startswith((GZIP, ZSTD, b"{")):
            return stream
        stream.close()
        return self.blob_path(digest).open("rb")  # a plain archive: its content is used where it stands

    def blob_path(self, digest: str) -> Path:
        path = super().blob_path(digest)
        size = self._bundle.size(digest)
        if size is not None and not (path.is_file() and path.stat().st_size == size):
            with self._bundle.open(digest) as stream:
                super().put_blob(stream, "", digest=digest, size=size)
        return path

    def _manifest_blob(self, digest: str) -> Descriptor | None:
        size = self._bundle.size(digest)
        if size is None:
            return None
        document = doc.decode(self.read_blob(Descriptor("", digest, size), doc.MAX_MANIFEST), digest)
        kind = doc.text(document, "mediaType", digest)
        if kind not in INDEX_TYPES | MANIFEST_TYPES:
            kind = OCI_INDEX if "manifests" in document else OCI_MANIFEST
        return Descriptor(kind, digest, size)
