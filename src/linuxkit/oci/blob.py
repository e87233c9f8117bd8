"""Writing and checking one blob of the store."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from linuxkit.errors import ImageError
from linuxkit.oci.files import host_errors, make_temporary, sync_directory
from linuxkit.oci.media import Descriptor

#: What to do about a damaged store.
HEAL = "linuxkit cache verify --repair removes what is damaged and fetches it again"


class BlobWriter:
    """Writes one blob: hashed on the way, kept only when it is what was promised."""

    def __init__(self, folder: Path, media_type: str, digest: str, size: int, limit: int) -> None:
        self._folder, self._type, self._want, self._size, self._limit = folder, media_type, digest, size, limit
        self._hash, self._count = hashlib.sha256(), 0
        self._stream: BinaryIO | None = None
        self._path = Path()
        self.descriptor = Descriptor(media_type, digest, size)

    def __enter__(self) -> BlobWriter:
        with host_errors("cannot write the cache at", self._folder):
            self._stream, self._path = make_temporary(self._folder)
        return self

    def write(self, data: bytes | memoryview) -> None:
        """Add bytes.

        Raises:
            ImageError: more than was promised or allowed.
        """
        assert self._stream is not None
        self._count += len(data)
        if self._count > (self._limit if self._size < 0 else self._size):
            raise ImageError(f"{self._want or 'a blob'} is larger than {max(self._size, 0) or self._limit} bytes")
        self._hash.update(data)
        with host_errors("cannot write the cache at", self._folder):
            self._stream.write(data)

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        assert self._stream is not None
        try:
            if kind is None:
                self._keep(self._stream)
        finally:
            self._stream.close()
            self._path.unlink(missing_ok=True)

    def _keep(self, stream: BinaryIO) -> None:
        actual = f"sha256:{self._hash.hexdigest()}"
        if self._size not in (-1, self._count):
            raise ImageError(f"{self._want or actual} has {self._count} bytes instead of {self._size}")
        if self._want not in ("", actual):
            raise ImageError(f"{self._want} is damaged: its bytes have the digest {actual}")
        self.descriptor = Descriptor(self._type, actual, self._count)
        target = self._folder / actual[7:]
        with host_errors("cannot write the cache at", self._folder):
            stream.flush()
            os.fsync(stream.fileno())
            clear_place(target)
            self._path.replace(target)
            sync_directory(target.parent)


def clear_place(target: Path) -> None:
    """Remove an empty directory that stands where a blob belongs; a file gives way by itself."""
    with suppress(NotADirectoryError, FileNotFoundError):
        target.rmdir()


def check(data: bytes, descriptor: Descriptor, where: object, *, hint: str = HEAL) -> None:
    """Compare bytes with the descriptor that promised them. `hint`: what to do when they come from the store.

    Raises:
        ImageError: they differ.
    """
    if len(data) != descriptor.size:
        size = f"{len(data)} bytes" if len(data) < descriptor.size else "more bytes than that"
        raise ImageError(f"{where}: {descriptor.digest} should have {descriptor.size} bytes, not {size}", hint=hint)
    if f"sha256:{hashlib.sha256(data).hexdigest()}" != descriptor.digest:
        raise ImageError(f"{where}: {descriptor.digest} is damaged: its bytes have another digest", hint=hint)


class Verified:
    """Reads a blob and checks at the end that its size and digest are the descriptor's."""

    def __init__(self, stream: BinaryIO, layer: Descriptor, where: str) -> None:
        self._stream, self._layer, self._where = stream, layer, where
        self._hash, self._count = hashlib.sha256(), 0

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._hash.update(data)
        self._count += len(data)
        if self._count > self._layer.size:
            self._refuse(f"it is larger than the {self._layer.size} bytes of its descriptor")
        return data

    def finish(self) -> None:
        """Read what is left, then check. Raises ImageError."""
        while self.read(1 << 20):
            pass
        if self._count != self._layer.size:
            self._refuse(f"it has {self._count} bytes instead of {self._layer.size}: it is cut short")
        if f"sha256:{self._hash.hexdigest()}" != self._layer.digest:
            self._refuse("it is damaged: its bytes have another digest")

    def _refuse(self, why: str) -> None:
        raise ImageError(f"{self._where}: {why}", hint=HEAL)
