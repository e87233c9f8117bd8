"""Bringing images from the store to a registry.

OCI Distribution Specification v1.1, "Pushing": blobs that are there already are left alone, those of a neighbouring
repository are mounted, the others are uploaded in one PUT, or in pieces where the registry takes no large ones;
manifests follow their blobs, and the name comes last.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, BinaryIO
from urllib.parse import quote, urlsplit

from linuxkit.errors import ImageError, NetworkError
from linuxkit.oci import document as doc
from linuxkit.oci.blob import Verified
from linuxkit.oci.media import OCI_INDEX, Descriptor
from linuxkit.oci.pull import ACCEPT, Progress, side_by_side
from linuxkit.oci.reference import Reference
from linuxkit.oci.select import MAX_DEPTH
from linuxkit.oci.session import Session
from linuxkit.oci.store import Store
from linuxkit.oci.transport import ATTEMPTS, MAX_WAIT, Response

PIECE = 8 << 20  # bytes of a piece, where a registry wants pieces
_THERE = (200, 404)
_NO_HEAD = (405, 501)  # what a registry says that knows no HEAD
_LOST = (404, 410, 416)  # and one that has lost an upload, or a part of it


class Pusher:
    """Pushes to one repository.

    Args:
        mounts: digest → repository of the same registry that should have the blob already.
    """

    def __init__(self, store: Store, session: Session, progress: Progress, reference: Reference,
                 mounts: Mapping[str, str] | None = None) -> None:  # fmt: skip
        self._store, self._session, self._progress, self._ref = store, session, progress, reference
        self._mounts, self._stop = mounts or {}, threading.Event()

    def images(self, descriptors: Sequence[Descriptor]) -> None:
        """Manifests, and indexes with everything under them: blobs first, then the manifests by digest.

        Raises:
            ImageError: something of it is not in the store, or damaged there.
        """
        documents: dict[str, tuple[Descriptor, bytes]] = {}
        blobs: dict[str, Descriptor] = {}
        for descriptor in descriptors:
            for found, data, listed in self._walk(descriptor, 0):
                documents[found.digest] = found, data
                blobs.update((b.digest, b) for b in listed)
        for blob in blobs.values():
            self._progress(blob.digest, 0, blob.size)
        side_by_side(self.blob, blobs.values(), self._stop)
        for found, data in reversed(documents.values()):  # children first
            if not self.has_manifest(found.digest):
                self.manifest(found.digest, found.media_type, data)

    def _walk(self, descriptor: Descriptor, depth: int) -> Iterator[tuple[Descriptor, bytes, tuple[Descriptor, ...]]]:
        """(manifest or index, its bytes, its blobs), parents first."""
        where = f"image {self._ref.text}: {descriptor.digest}"
        if depth > MAX_DEPTH:
            raise ImageError(f"{where}: indexes are nested more than {MAX_DEPTH} deep")
        data = self._store.read_blob(descriptor, doc.MAX_MANIFEST)
        document = doc.decode(data, where)
        if "manifests" in document:
            yield descriptor, data, ()
            for item in doc.objects(document, "manifests", where):
                yield from self._walk(doc.parse_descriptor(item, where), depth + 1)
            return
        config, layers = doc.parse_manifest(document, where)
        yield descriptor, data, (config, *layers)

    # -- blobs

    def blob(self, blob: Descriptor) -> None:
        """One blob of the store, unless the registry has it."""
        self._upload(blob, lambda: self._store.open_blob(blob.digest), f"{self._store.root}: {blob.digest}")

    def data(self, data: bytes, media_type: str) -> Descriptor:
        """A small blob that is not in the store."""
        import io

        blob = Descriptor(media_type, f"sha256:{hashlib.sha256(data).hexdigest()}", len(data))
        self._upload(blob, lambda: io.BytesIO(data), blob.digest)
        return blob

    def _upload(self, blob: Descriptor, opener: Callable[[], BinaryIO], where: str) -> None:
        if self._has_blob(blob):
            return self._progress(blob.digest, -1, blob.size)
        place = ""
        if blob.digest in self._mounts:
            with suppress(NetworkError):  # not allowed to read there: it is uploaded
                place = self._begin(blob, self._mounts[blob.digest])
                if not place:
                    return self._progress(blob.digest, -1, blob.size)
        broken = 0
        while True:
            try:
                send = self._send if broken < ATTEMPTS - 1 else self._send_pieces  # 413s can get lost
                return send(blob, opener, where, place or self._begin(blob))
            except NetworkError as e:
                broken += 1
                if not e.temporary or broken >= ATTEMPTS or e.wait > MAX_WAIT:
                    raise
                self._session.transport.sleep(max(0.5 * broken, e.wait))
                place = ""  # an upload that broke cannot be gone on with: where it stands is not known

    def _has_blob(self, blob: Descriptor) -> bool:
        return self._there(f"blobs/{blob.digest}", {})

    def _there(self, path: str, headers: Mapping[str, str]) -> bool:
        with self._request("HEAD", path, headers, ok=(*_THERE, *_NO_HEAD)) as response:
            if response.status not in _NO_HEAD:
                return response.status == 200
        with self._request("GET", path, headers, ok=_THERE) as response:  # its body is left where it is
            return response.status == 200

    def _begin(self, blob: Descriptor, mount: str = "") -> str:
        """Where to upload; empty when the registry mounted the blob from another repository."""
        query = f"?mount={quote(blob.digest)}&from={quote(mount, safe='')}" if mount else ""
        with self._request("POST", f"blobs/uploads/{query}", {"Content-Length": "0"}, mount=mount,
                           ok=(201, 202) if mount else (202,)) as response:  # fmt: skip
            place = response.headers.get("location", "")
            if response.status == 201:
                return ""
        if not place:
            raise NetworkError(f"registry {self._ref.registry} does not say where to upload to")
        return place

    def _send(self, blob: Descriptor, opener: Callable[[], BinaryIO], where: str, place: str) -> None:
        """The whole blob in one PUT; in pieces when that is too large for the registry."""
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(blob.size)}
        with self._request("PUT", _with_digest(place, blob.digest), headers, ok=(201, 413, *_LOST), attempts=1,
                           body=lambda: self._reader(blob, opener, where)) as response:  # fmt: skip
            if response.status == 201:
                return
            self._keep(response.status)
        self._send_pieces(blob, opener, where, self._begin(blob))

    def _send_pieces(self, blob: Descriptor, opener: Callable[[], BinaryIO], where: str, place: str) -> None:
        reader, done, size = self._reader(blob, opener, where), 0, PIECE
        try:
            while piece := reader.read(size):
                headers = {"Content-Type": "application/octet-stream", "Content-Length": str(len(piece)),
                           "Content-Range": f"{done}-{done + len(piece) - 1}"}  # fmt: skip
                with self._request("PATCH", place, headers, body=piece, ok=(202, *_LOST), attempts=1) as response:
                    self._keep(response.status)
                    place = response.headers.get("location", "") or place
                done += len(piece)
        finally:
            reader.close()
        with self._request("PUT", _with_digest(place, blob.digest), {"Content-Length": "0"}, ok=(201, *_LOST),
                           attempts=1) as response:  # fmt: skip
            self._keep(response.status)

    def _keep(self, status: int) -> None:
        """Raise NetworkError when the status says that the upload is gone: it is begun anew then."""
        if status in _LOST:
            raise NetworkError(f"image {self._ref.text}: {self._ref.registry} loses uploads ({status})",
                               hint="try again later", temporary=True)  # fmt: skip

    def _reader(self, blob: Descriptor, opener: Callable[[], BinaryIO], where: str) -> Any:
        return _Reader(opener(), blob, where, self._progress, self._stop)

    # -- manifests

    def has_manifest(self, what: str) -> bool:
        """Whether the repository has a manifest by this tag or digest."""
        return self._there(f"manifests/{what}", {"Accept": ACCEPT})

    def manifest(self, what: str, media_type: str, data: bytes) -> Descriptor:
        """PUT a manifest or index under a tag or its digest; with a `subject`, the registry is told of it."""
        headers = {"Content-Type": media_type, "Content-Length": str(len(data))}
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        with self._request("PUT", f"manifests/{what}", headers, body=data, ok=(200, 201, 202)) as response:
            claimed = response.headers.get("docker-content-digest", digest)
            knows_referrers = "oci-subject" in response.headers
        if claimed != digest and claimed.startswith("sha256:"):  # one of another algorithm says nothing to us
            raise ImageError(f"image {self._ref.text}: {self._ref.registry} kept a manifest with the digest "
                             f"{claimed[:100]}, not {digest}")  # fmt: skip
        found = Descriptor(media_type, digest, len(data))
        document = doc.decode(data, digest)
        subject = doc.mapping(document, "subject", digest)
        if subject and not knows_referrers:
            self._refer(doc.parse_descriptor(subject, digest), found, document)
        return found

    def _refer(self, subject: Descriptor, found: Descriptor, document: Mapping[str, Any]) -> None:
        """Add a manifest to the index under the tag sha256-<hex>, for registries without the referrers API."""
        tag = subject.digest.replace(":", "-")
        with self._request("GET", f"manifests/{tag}", {"Accept": ACCEPT}, ok=_THERE) as response:
            old = doc.decode(response.read(doc.MAX_MANIFEST), tag) if response.status == 200 else {}
        listed = doc.objects(old, "manifests", tag)
        if any(item.get("digest") == found.digest for item in listed):
            return
        config = doc.mapping(document, "config", found.digest)
        kind = doc.text(document, "artifactType", tag) or doc.text(config, "mediaType", tag)
        entry = Descriptor(found.media_type, found.digest, found.size, None,
                           doc.strings(document, "annotations", found.digest), kind)  # fmt: skip
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [*listed, doc.descriptor_document(entry)]}
        self.manifest(tag, OCI_INDEX, doc.encode(index))

    def _request(self, method: str, path: str, headers: Mapping[str, str] | None = None, **options: Any) -> Response:
        return self._session.request(method, self._ref, path, headers, write=True, **options)


class _Reader:
    """A blob on its way out: checked while it is read, so that a damaged one never arrives whole."""

    def __init__(self, stream: BinaryIO, blob: Descriptor, where: str, progress: Progress, stop: threading.Event,
                 ) -> None:  # fmt: skip
        self._stream, self._blob, self._progress, self._stop = stream, blob, progress, stop
        self._verified, self._done = Verified(stream, blob, where), 0

    def read(self, size: int = -1) -> bytes:
        if self._stop.is_set():
            raise ImageError(f"{self._blob.digest} is not sent: another upload has failed")
        left = self._blob.size - self._done
        data = self._verified.read(min(size, left) if size >= 0 else left)
        self._done += len(data)
        if self._done == self._blob.size or not data:
            self._verified.finish()
        self._progress(self._blob.digest, self._done, self._blob.size)
        return data

    def close(self) -> None:
        self._stream.close()


def _with_digest(place: str, digest: str) -> str:
    return f"{place}{'&' if urlsplit(place).query else '?'}digest={quote(digest)}"
