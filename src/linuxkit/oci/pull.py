"""Bringing images from a registry into the store.

Everything is hashed as it streams, and nothing is kept that is not what a digest above it promised. A connection that
breaks in the middle of a blob is taken up where it broke (RFC 9110 section 14, Range).
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress

from linuxkit import room
from linuxkit.errors import ImageError
from linuxkit.oci import document as doc
from linuxkit.oci.blob import check
from linuxkit.oci.media import (
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    INDEX_TYPES,
    MANIFEST_TYPES,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    Image,
    Platform,
)
from linuxkit.oci.partial import BusyError, PartialBlob, left_of
from linuxkit.oci.reference import Reference
from linuxkit.oci.select import MAX_DEPTH, select
from linuxkit.oci.session import NotThereError, Session
from linuxkit.oci.store import Store
from linuxkit.oci.transport import ATTEMPTS, BrokenBodyError, Response, TooLongError

ACCEPT = ", ".join((OCI_INDEX, OCI_MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST))
THREADS = 3
MAX_ATTESTED = 64 << 20  # bytes of an attestation that are fetched with an image
NO_PART = (400, 416, 501)  # what a registry says that gives no parts of blobs
ENOUGH = 1 << 20  # bytes after which a connection that breaks again has its attempts renewed

#: Called as bytes come or go: (digest, bytes so far, bytes in all), first with 0 so far; -1 when none had to move.
#: From several threads.
Progress = Callable[[str, int, int], None]
Write = Callable[[bytes], None]


class Puller:
    """Pulls one image: everything under one name.

    Args:
        write: read where a push goes to, and with its rights; never from a mirror.
    """

    def __init__(self, store: Store, session: Session, progress: Progress, reference: Reference, *,
                 write: bool = False) -> None:  # fmt: skip
        self._store, self._session, self._progress, self._ref = store, session, progress, reference
        self._write = write
        self._stop = threading.Event()
        self._decoded, self._as_is = set[str](), set[str]()  # digests of blobs that come with a content coding
        self._small: dict[str, tuple[Descriptor, bytes]] = {}  # manifests and configurations, until the end

    def top(self) -> tuple[Descriptor, bytes]:
        """What the name points at, verified."""
        return self._session.transport.retrying(self._top)

    def beside(self, reference: Reference) -> Puller:
        """One for another name of the same repository."""
        return Puller(self._store, self._session, self._progress, reference, write=self._write)

    def find(self) -> tuple[Descriptor, bytes] | None:
        """`top`, or None when there is no such name."""
        try:
            found, data = self.top()
        except NotThereError:
            return None
        self._small[found.digest] = found, data
        return found, data

    def _top(self) -> tuple[Descriptor, bytes]:
        ref = self._ref
        what = ref.digest or ref.tag or "latest"
        with self._get(f"manifests/{what}", {"Accept": ACCEPT}) as response:
            data = response.read(doc.MAX_MANIFEST)
            kind = response.headers.get("content-type", "").split(";")[0].strip()
            claimed = response.headers.get("docker-content-digest", "")
            whole = response.framed
        actual = f"sha256:{hashlib.sha256(data).hexdigest()}"
        try:
            document = doc.decode(data, f"image {ref.text}: the registry's manifest")
        except ImageError as e:
            if not whole:  # nothing tells the end of such a body from a connection that broke
                raise BrokenBodyError(e.message, temporary=True) from e
            raise
        kind = doc.text(document, "mediaType", ref.text) or kind
        if kind not in INDEX_TYPES | MANIFEST_TYPES:
            raise ImageError(f"image {ref.text}: the registry sent a '{kind[:80]}', which is not an image")
        for promised in (ref.digest, claimed if claimed.startswith("sha256:") else ""):
            if promised not in ("", actual):
                raise ImageError(f"image {ref.text}: the registry sent a manifest with the digest {actual}, "
                                 f"not {promised[:100]}")  # fmt: skip
        return Descriptor(kind, actual, len(data)), data

    def pull(self, platform: Platform) -> Image:
        """The image for one platform, and its name."""
        top, data = self.top()
        self._small[top.digest] = top, data
        image = select(self._read, top, self._ref.tagged, platform)
        self._bring(top, [*image.layers, *self._attested(top, {image.digest})])
        return image

    def mend(self, top: Descriptor, platform: Platform) -> Image:
        """`pull` of what the name stood for here; nobody is asked what it means by now."""
        self._read(top, doc.MAX_MANIFEST)
        image = select(self._read, top, self._ref.text, platform)
        self.blobs(image.layers)
        self._keep()
        return image

    def pull_all(self, platforms: Sequence[Platform] | None, verify: bool = False) -> Descriptor:
        """What the name points at, for some platforms or for all."""
        top, data = self.top()
        self._small[top.digest] = top, data
        if platforms is None:
            layers = self._everything(top, 0)
        else:
            images = [select(self._read, top, self._ref.tagged, p) for p in platforms]
            layers = [d for image in images for d in image.layers]
            layers += self._attested(top, {image.digest for image in images})
        for layer in layers if verify else ():
            self._drop_damaged(layer)
        self._bring(top, layers)
        return top

    def _attested(self, top: Descriptor, images: set[str]) -> list[Descriptor]:
        """The small blobs of what the index attests about some images (BuildKit's way): their SBOMs, for ours."""
        found: list[Descriptor] = []
        document = doc.decode(self._read(top, doc.MAX_MANIFEST), self._ref.text)
        for item in doc.objects(document, "manifests", self._ref.text):
            pointer = doc.parse_descriptor(item, self._ref.text)
            if pointer.annotations.get("vnd.docker.reference.digest") not in images:
                continue
            with suppress(ImageError):  # without it the image is as good
                config, layers = doc.parse_manifest(doc.decode(self._read(pointer, doc.MAX_MANIFEST), ""), "")
                if sum(layer.size for layer in layers) <= MAX_ATTESTED:
                    found += [config, *layers]
                else:
                    del self._small[pointer.digest]
        return found

    def _everything(self, descriptor: Descriptor, depth: int) -> list[Descriptor]:
        """The blobs under an index or manifest; on the way all manifests are read."""
        where = f"image {self._ref.text}: {descriptor.digest}"
        if depth > MAX_DEPTH:
            raise ImageError(f"{where}: indexes are nested more than {MAX_DEPTH} deep")
        document = doc.decode(self._read(descriptor, doc.MAX_MANIFEST), where)
        if "manifests" in document:
            children = [doc.parse_descriptor(item, where) for item in doc.objects(document, "manifests", where)]
            return [d for child in children for d in self._everything(child, depth + 1)]
        config, layers = doc.parse_manifest(document, where)
        return [config, *layers]

    def _read(self, descriptor: Descriptor, limit: int) -> bytes:
        if descriptor.digest not in self._small:
            self._small[descriptor.digest] = descriptor, self.read(descriptor, limit)
        return self._small[descriptor.digest][1]

    def read(self, descriptor: Descriptor, limit: int) -> bytes:
        """A manifest or small blob by its digest, verified, from the store when it is there; not stored."""
        if descriptor.digest in self._small:
            return self._small[descriptor.digest][1]
        return self._session.transport.retrying(lambda: self._read_once(descriptor, limit))

    def _read_once(self, descriptor: Descriptor, limit: int) -> bytes:
        ref = self._ref
        if descriptor.size > limit:
            raise ImageError(f"image {ref.text}: {descriptor.digest} has {descriptor.size} bytes, more than {limit}")
        with suppress(ImageError):
            return self._store.read_blob(descriptor, limit)
        is_manifest = descriptor.media_type in INDEX_TYPES | MANIFEST_TYPES
        path = f"{'manifests' if is_manifest else 'blobs'}/{descriptor.digest}"
        headers = {"Accept": descriptor.media_type} if is_manifest else {}
        with self._get(path, headers) as response:
            try:
                data = response.read(descriptor.size)
            except TooLongError as e:
                raise ImageError(f"image {ref.text}: the registry sent something else: {descriptor.digest} is longer "
                                 f"than {descriptor.size} bytes") from e  # fmt: skip
            if len(data) < descriptor.size and not response.framed:
                raise BrokenBodyError(f"image {ref.text}: {descriptor.digest} ended after {len(data)} of "
                                      f"{descriptor.size} bytes", temporary=True)  # fmt: skip
        check(data, descriptor, f"image {ref.text}: the registry sent something else", hint="")
        return data

    def blobs(self, blobs: Iterable[Descriptor]) -> None:
        """Fetch what the store lacks, several at a time."""
        wanted = {b.digest: b for b in blobs if not self._store.has_blob(b)}
        room.need(self._store.root, sum(b.size - left_of(self._store, b) for b in wanted.values()), self._ref.text)
        for blob in wanted.values():
            self._progress(blob.digest, 0, blob.size)
        side_by_side(self._blob, wanted.values(), self._stop)

    def _blob(self, blob: Descriptor) -> None:
        """Fetch one blob into the store, going on with what an earlier process has left of it."""
        ref, kept = self._ref, 0
        try:
            try:
                with PartialBlob(self._store, blob) as part:
                    kept = part.count
                    self._stream(blob, part.write, kept)
                return
            except BusyError:
                pass  # another process is at it, and may die
            except ImageError:
                if not (kept or blob.digest in self._decoded) or self._stop.is_set():
                    raise  # else what was left may have been wrong, or the blob itself is what its coding says
                self._as_is.add(blob.digest)
            with self._store.write_blob(blob.media_type, digest=blob.digest, size=blob.size) as out:
                self._stream(blob, out.write, 0)
        except ImageError as e:
            raise ImageError(f"image {ref.text}: {ref.registry} sent something else: {e.message}") from e

    def _stream(self, blob: Descriptor, write: Write, done: int) -> None:
        """The blob's bytes from `done` on to `write`, taken up again where the connection breaks."""
        broken, since = 0, done
        while done < blob.size or not done:
            try:
                self._piece(blob, write, done)
                return
            except _BrokenError as e:
                done = e.done
                broken = 1 if done - since >= ENOUGH else broken + 1
                since = done
                if broken >= ATTEMPTS:
                    raise e.error from e
                self._session.transport.sleep(0.5 * broken)

    def _piece(self, blob: Descriptor, write: Write, done: int) -> None:
        """Fetch from `done` on. Raises _BrokenError with how far it came."""
        with self._part(blob, done) as response:
            skip = done if response.status == 200 else 0  # it cannot take up: what we have comes once more
            try:
                for piece in response.pieces(plain=self._is_coded(response, blob)):
                    if self._stop.is_set():
                        raise _StoppedError
                    if skip:
                        skip, piece = max(0, skip - len(piece)), piece[skip:]
                    write(piece)
                    done += len(piece)
                    self._progress(blob.digest, done, blob.size)
            except BrokenBodyError as e:
                raise _BrokenError(e, done) from e
            if done < blob.size and not response.framed:  # it may have been a connection that broke
                error = f"image {self._ref.text}: {blob.digest} ended after {done} of {blob.size} bytes"
                raise _BrokenError(BrokenBodyError(error, temporary=True), done)

    def _is_coded(self, response: Response, blob: Descriptor) -> bool:
        """Whether a content coding was put over the blob. Object stores say `gzip` of blobs that *are* gzip, too."""
        if not response.coding or response.headers.get("content-length", "") == str(blob.size):
            return False
        self._decoded.add(blob.digest)
        return blob.digest not in self._as_is

    def _part(self, blob: Descriptor, done: int) -> Response:
        """The answer that brings a blob from `done` on (status 206), or as a whole (200)."""
        path = f"blobs/{blob.digest}"
        if done:
            response = self._get(path, {"Range": f"bytes={done}-"}, (200, 206, *NO_PART))
            if response.status == 200 or (response.status == 206 and not response.coding):
                if response.status == 206 and not response.headers.get("content-range", "").startswith(
                        f"bytes {done}-"):  # fmt: skip
                    response.close()
                    raise ImageError(f"{blob.digest}: another part than the one asked for")
                return response
            response.close()  # it gives no parts, or parts of what it has packed
        return self._get(path, {})

    def _get(self, path: str, headers: Mapping[str, str], ok: Sequence[int] = (200,)) -> Response:
        return self._session.request("GET", self._ref, path, headers, write=self._write, ok=ok)

    def _bring(self, top: Descriptor, layers: Sequence[Descriptor]) -> None:
        """Fetch and name; once more, when another process that did not see the name has cleared some of it away."""
        for _ in range(ATTEMPTS):
            self.blobs(layers)
            self._finish(top)
            if all(self._store.has_blob(d) for d in (*layers, *(d for d, _ in self._small.values()))):
                return
        raise ImageError(f"image {self._ref.text}: its blobs vanish from {self._store.root} while they are fetched",
                         hint="see what else is clearing this cache")  # fmt: skip

    def _drop_damaged(self, blob: Descriptor) -> None:
        with suppress(OSError):  # a store that can only be read
            if self._store.has_blob(blob):
                try:
                    self._store.verify(blob)
                except ImageError:
                    self._store.blob_path(blob.digest).unlink()

    def _finish(self, top: Descriptor) -> None:
        self._keep()
        self._store.put_name(self._ref.tagged, top)

    def _keep(self) -> None:
        for descriptor, content in reversed(self._small.values()):  # so that a manifest never lacks its blobs
            self._store.put_blob(content, descriptor.media_type)


def side_by_side(work: Callable[[Descriptor], object], blobs: Iterable[Descriptor], stop: threading.Event) -> None:
    """Do the same for each blob, some at a time. The first failure sets `stop` and is raised when all have ended."""
    with ThreadPoolExecutor(THREADS) as pool:
        jobs = [pool.submit(work, blob) for blob in blobs]
        try:
            for job in wait(jobs, return_when=FIRST_EXCEPTION).done:
                job.result()
        except BaseException:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise


class _StoppedError(Exception):
    """Another thread has failed; its error is the one that counts."""


class _BrokenError(Exception):
    """A connection broke; the blob is here up to `done`."""

    def __init__(self, error: BrokenBodyError, done: int) -> None:
        super().__init__()
        self.error, self.done = error, done
