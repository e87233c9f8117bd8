"""A blob on its way from a registry, whose bytes outlive the process: what has come is not asked for again.

    <cache>/derived/partial/<64 hex>    the first bytes of that blob, as far as they have come

Nothing in it counts: who goes on with it hashes it anew, and the whole has to match the digest before it is renamed
into the store. The one who writes holds a lock on it; another process that wants the same blob fetches it by itself.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
from contextlib import suppress

from linuxkit.errors import HostError, ImageError
from linuxkit.oci.blob import clear_place
from linuxkit.oci.files import host_errors, sync_directory
from linuxkit.oci.media import Descriptor
from linuxkit.oci.store import Store

KEEP = 1 << 20  # bytes that are worth keeping
CHUNK = 1 << 20


class BusyError(Exception):
    """Another process is fetching the same blob, or its place is on another file system."""


def left_of(store: Store, blob: Descriptor) -> int:
    """How many bytes of a blob an earlier process has left."""
    try:
        return min(blob.size, (store.root / "derived" / "partial" / blob.digest[7:]).stat().st_size)
    except OSError:
        return 0


class PartialBlob:
    """Writes one blob: goes on with what is there, hashed on the way, kept as a blob only when it is what was promised.

        with PartialBlob(store, descriptor) as out:
            ... out.write(bytes from out.count on)

    Raises (on entering):
        BusyError: it cannot be had.
    """

    def __init__(self, store: Store, blob: Descriptor) -> None:
        self._blob = blob
        self._target = store.blob_path(blob.digest)
        self._folder = store.root / "derived" / "partial"
        self._path = self._folder / blob.digest[7:]
        self._fd = -1
        self._hash = hashlib.sha256()
        self.count = 0
        store.prepare()

    def __enter__(self) -> PartialBlob:
        with host_errors("cannot write the cache at", self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            if self._folder.stat().st_dev != self._target.parent.stat().st_dev:
                raise BusyError
            self._fd = self._open()
        try:
            self._read()
        except BaseException:
            os.close(self._fd)
            raise
        return self

    def _open(self) -> int:
        """The file, locked by us and still under its name."""
        while True:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                here = os.fstat(fd)
                if not stat.S_ISREG(here.st_mode):
                    raise BusyError
                with suppress(FileNotFoundError):  # finished or dropped between open and lock: once more
                    if self._path.lstat().st_ino == here.st_ino:
                        return fd
            except BlockingIOError:
                os.close(fd)
                raise BusyError from None
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)

    def _read(self) -> None:
        """Hash what is there."""
        with host_errors("cannot read the cache at", self._folder):
            if os.fstat(self._fd).st_size > self._blob.size:
                os.ftruncate(self._fd, 0)
            while piece := os.read(self._fd, CHUNK):
                self._hash.update(piece)
                self.count += len(piece)

    def write(self, data: bytes) -> None:
        """Add bytes.

        Raises:
            ImageError: more than was promised.
        """
        if self.count + len(data) > self._blob.size:
            raise ImageError(f"{self._blob.digest} is larger than {self._blob.size} bytes")
        self._hash.update(data)
        with host_errors("cannot write the cache at", self._folder):
            left = memoryview(data)
            while left:
                written = os.write(self._fd, left)
                self.count += written
                left = left[written:]

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        try:
            if kind is None:
                self._keep()
            elif issubclass(kind, ImageError | HostError) or self.count < KEEP:
                self._path.unlink(missing_ok=True)
        finally:
            os.close(self._fd)

    def _keep(self) -> None:
        actual = f"sha256:{self._hash.hexdigest()}"
        if self.count != self._blob.size or actual != self._blob.digest:
            self._path.unlink(missing_ok=True)
            if self.count != self._blob.size:
                raise ImageError(f"{self._blob.digest} has {self.count} bytes instead of {self._blob.size}")
            raise ImageError(f"{self._blob.digest} is damaged: its bytes have the digest {actual}")
        with host_errors("cannot write the cache at", self._target.parent):
            os.fsync(self._fd)
            clear_place(self._target)
            self._path.replace(self._target)
            sync_directory(self._target.parent)
