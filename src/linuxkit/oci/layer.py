"""Layers as entries: decompressed once into the derived cache, verified on the way, indexed.

    derived/layers/<diff id>.tar       the plain archive
    derived/layers/<diff id>.1.json    one array for each member (tarread.Row), in archive order

The key is the diff id, the digest of the plain archive, so an image that is compressed anew costs nothing. A layer
that is stored uncompressed is not copied: its entries point into the store.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from linuxkit.entry import Entry, Extent, Kind
from linuxkit.errors import ImageError
from linuxkit.oci.blob import Verified
from linuxkit.oci.derived import Derived
from linuxkit.oci.media import Descriptor, Image
from linuxkit.oci.reference import is_digest
from linuxkit.oci.store import Store
from linuxkit.oci.tarread import FileBytes, Limits, Row, read_tar
from linuxkit.oci.unpack import Bounds, unpack

KIND = "layers"
T = TypeVar("T")
VERSION = 2  # of the index


#: Called with a layer of the store that cannot be used, and why.
Heal = Callable[[Descriptor, ImageError], None]


class LayerCache:
    """Entries of layers, from the store's blobs, through the derived cache. Safe for several threads.

    Args:
        bounds, limits: what a hostile layer may not exceed.
        heal: brings a layer that is missing or damaged back into the store, or raises.
    """

    def __init__(self, store: Store, derived: Derived, *, bounds: Bounds | None = None,
                 limits: Limits | None = None, heal: Heal | None = None) -> None:  # fmt: skip
        self._store, self._derived, self._heal = store, derived, heal
        self._bounds, self._limits = bounds or Bounds(), limits or Limits()
        self._guard = threading.Lock()
        self._busy: dict[str, threading.Lock] = {}

    def entries(self, layer: Descriptor, diff_id: str) -> tuple[Entry, ...]:
        """The members of a layer in archive order, whiteouts as they stand.

        Args:
            layer: the blob in the store.
            diff_id: the digest of its plain archive, from the image's configuration.

        Raises:
            ImageError: the blob is missing, damaged, not what the digests say, or hostile.
            HostError: the derived cache cannot be written.
        """
        tar, rows = self._load(layer, diff_id)
        return _entries(rows, str(tar))

    def archive(self, layer: Descriptor, diff_id: str) -> Path:
        """The layer's plain archive on disk. Arguments and errors as for `entries`."""
        return self._load(layer, diff_id)[0]

    def image_entries(self, image: Image) -> list[tuple[Entry, ...]]:
        """The entries of each layer of an image, bottom first; layers not seen before are unpacked side by side."""
        pairs = list(zip(image.layers, image.config.diff_ids, strict=True))
        self.prefetch(pairs)
        found, members, names = [], 0, 0
        for layer, diff_id in pairs:
            found.append(self.entries(layer, diff_id))
            members += len(found[-1])
            names += sum(len(entry.path) + len(entry.target) for entry in found[-1])
            if members > self._limits.image or names > self._limits.names:
                most = f"{self._limits.image} and {self._limits.names} are the most"
                raise ImageError(f"layers up to {layer.digest} have {members} members, {names} bytes of names: {most}")
        return found

    def prefetch(self, layers: Sequence[tuple[Descriptor, str]], threads: int = 2) -> None:
        """Unpack several layers at once: decompression and hashing leave Python's lock to others."""
        missing = [(layer, diff_id) for layer, diff_id in dict(_unique(layers)).values() if not self._known(diff_id)]
        if len(missing) < 2:
            return  # `entries` will do it
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(threads) as pool:
            jobs = [pool.submit(self._load, layer, diff_id) for layer, diff_id in missing]
            for job in jobs:
                job.result()

    def _known(self, diff_id: str) -> bool:
        return self._derived.get(KIND, _index_key(diff_id)) is not None

    def _load(self, layer: Descriptor, diff_id: str) -> tuple[Path, list[list[Any]]]:
        if not is_digest(diff_id):
            raise ImageError(f"layer {layer.digest}: '{diff_id[:100]}' is not a sha256 digest")
        with self._guard:
            lock = self._busy.setdefault(diff_id, threading.Lock())
        with lock:
            tar = self._healed(layer, lambda: self._archive(layer, diff_id))
            index = self._derived.get(KIND, _index_key(diff_id)) if tar else None
            if tar and index:
                try:
                    rows = json.loads(index.read_bytes())
                    if isinstance(rows, list):
                        return tar, rows
                except (OSError, ValueError):
                    pass  # damaged: made anew
            return self._healed(layer, lambda: self._unpack(layer, diff_id))

    def _healed(self, layer: Descriptor, work: Callable[[], T]) -> T:
        """Do it; once more, if what stood in the way was damage in the store, and that could be mended."""
        try:
            return work()
        except ImageError as e:
            if self._heal is None:
                raise
            try:
                self._store.verify(layer)
            except ImageError:
                self._heal(layer, e)
                return work()
            raise

    def _archive(self, layer: Descriptor, diff_id: str) -> Path | None:
        """The plain archive, if it is here already."""
        if layer.digest == diff_id:
            if self._derived.get(KIND, _index_key(diff_id)) is None:
                return None
            self._store.verify(layer)  # its bytes are taken from where they are, and nobody looks at them later
            return self._store.blob_path(layer.digest)
        return self._derived.get(KIND, _tar_key(diff_id))

    def _unpack(self, layer: Descriptor, diff_id: str) -> tuple[Path, list[list[Any]]]:
        where = f"layer {layer.digest}"
        with self._store.open_blob(layer.digest) as blob:
            reader = Verified(blob, layer, where)
            if layer.digest == diff_id:
                while reader.read(1 << 20):
                    pass
                reader.finish()
                tar = self._store.blob_path(layer.digest)
                rows = self._index(blob, where)
            else:
                with self._derived.put(KIND, _tar_key(diff_id)) as out:
                    plain = hashlib.sha256()
                    for piece in unpack(reader, layer.size, where, self._bounds):  # type: ignore[arg-type]
                        plain.update(piece)
                        out.write(piece)
                    reader.finish()
                    if f"sha256:{plain.hexdigest()}" != diff_id:
                        raise ImageError(f"{where}: decompressed it is not the {diff_id} of the image's configuration")
                    out.flush()
                    rows = self._index(out, where)
                tar = self._derived.path(KIND, _tar_key(diff_id))
        plain_rows = [[*row[:9], [[n, v.hex()] for n, v in row.xattrs], row.offset, row.size] for row in rows]
        with self._derived.put(KIND, _index_key(diff_id)) as out:
            out.write(json.dumps(plain_rows, separators=(",", ":")).encode())
        return tar, plain_rows

    def _index(self, stream: BinaryIO, where: str) -> list[Row]:
        return read_tar(FileBytes(stream.fileno()), where, self._limits)


def _entries(rows: list[list[Any]], tar: str) -> tuple[Entry, ...]:
    kinds = {str(kind): kind for kind in Kind}
    return tuple(
        Entry(
            path, kinds[kind], mode, uid, gid, mtime, target, (major, minor),
            tuple((n, bytes.fromhex(v)) for n, v in xattrs) if xattrs else (),
            Extent(tar, offset, size) if size else None,
        )
        for path, kind, mode, uid, gid, mtime, target, major, minor, xattrs, offset, size in rows
    )  # fmt: skip


def _unique(layers: Sequence[tuple[Descriptor, str]]) -> list[tuple[str, tuple[Descriptor, str]]]:
    return [(diff_id, (layer, diff_id)) for layer, diff_id in layers]


def _tar_key(diff_id: str) -> str:
    return f"{diff_id[7:]}.tar"


def _index_key(diff_id: str) -> str:
    return f"{diff_id[7:]}.{VERSION}.json"
