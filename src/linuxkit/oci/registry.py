"""Registries: pulling images into the store, pushing them from it, and what hangs on them.

OCI Distribution Specification v1.1. Names are oci.reference.Reference; what is read is verified against its digest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import quote

from linuxkit.errors import ImageError
from linuxkit.oci import document as doc
from linuxkit.oci.auth import Anonymous, Keychain
from linuxkit.oci.media import Descriptor, Image, Platform
from linuxkit.oci.pull import ACCEPT, Progress, Puller
from linuxkit.oci.push import Pusher
from linuxkit.oci.reference import Reference
from linuxkit.oci.session import Session, parse_mirrors
from linuxkit.oci.store import Store
from linuxkit.oci.transport import Transport

__all__ = ["Progress", "RegistryClient", "parse_mirrors"]
MAX_PAGES = 20  # of a list of referrers


class RegistryClient:
    """Pulls and pushes.

    Args:
        mirrors: as parse_mirrors gives them; a mirror replaces its registry, it is not tried first.
        progress: told about each blob as it comes or goes, from several threads.

    Raises (all methods):
        ImageError: the registry does not have it, or what it sent is not what was promised.
        NetworkError: the registry cannot be reached, or refuses.
        InputError, HostError: Docker's configuration or a credential helper cannot be used.
    """

    def __init__(self, store: Store, transport: Transport, *, keychain: Keychain | None = None,
                 mirrors: Mapping[str, str] | None = None, progress: Progress | None = None) -> None:  # fmt: skip
        self._store = store
        self._session = Session(transport, keychain or Anonymous(), mirrors or {})
        self._progress = progress or (lambda digest, done, size: None)

    def _puller(self, reference: Reference) -> Puller:
        return Puller(self._store, self._session, self._progress, reference)

    def _pusher(self, reference: Reference, mounts: Sequence[str] = ()) -> Pusher:
        return Pusher(self._store, self._session, self._progress, reference, mounts)

    # -- reading

    def pull(self, reference: Reference, platform: Platform) -> Image:
        """Bring an image for one platform into the store, under its name."""
        return self._puller(reference).pull(platform)

    def pull_all(self, reference: Reference, platforms: Sequence[Platform] | None = None) -> Descriptor:
        """Bring an image for several platforms into the store; None: everything that its index lists.

        Returns:
            what the name points at: an index or a manifest.
        """
        return self._puller(reference).pull_all(platforms)

    def find(self, reference: Reference) -> tuple[Descriptor, bytes] | None:
        """The manifest or index behind a tag or digest, verified, not stored; None when there is none."""
        with self._session.request("HEAD", reference, f"manifests/{reference.digest or reference.tag or 'latest'}",
                                   {"Accept": ACCEPT}, ok=(200, 404)) as response:  # fmt: skip
            if response.status == 404:
                return None
        return self._puller(reference).top()

    def read(self, reference: Reference, descriptor: Descriptor, limit: int) -> bytes:
        """A manifest or small blob of the repository by its digest, verified, not stored."""
        return self._puller(reference).read(descriptor, limit)

    def fetch(self, reference: Reference, descriptor: Descriptor) -> None:
        """Bring one blob of any size into the store, unless it is there."""
        self._puller(reference).blobs([descriptor])

    def referrers(self, reference: Reference, digest: str, artifact_type: str = "") -> tuple[Descriptor, ...]:
        """What is attached to a manifest: by the referrers API, else by the index under the tag sha256-<hex>."""
        found: list[Descriptor] = []
        path = f"referrers/{digest}" + (f"?artifactType={quote(artifact_type, safe='')}" if artifact_type else "")
        for _ in range(MAX_PAGES):
            with self._session.request("GET", reference, path, ok=(200, 404)) as response:
                if response.status == 404:
                    break
                found += _listed(response.read(doc.MAX_MANIFEST), reference)
                path = _next(response.headers.get("link", ""))
            if not path:
                return _of_type(found, artifact_type)
        by_tag = Reference(f"{reference.name}:{digest.replace(':', '-')}", reference.registry, reference.repository,
                           digest.replace(":", "-"))  # fmt: skip
        index = self.find(by_tag)
        return _of_type(_listed(index[1], reference) if index else [], artifact_type)

    # -- writing

    def push(self, reference: Reference, descriptor: Descriptor, *, mounts: Sequence[str] = ()) -> Descriptor:
        """Send an image of the store, with everything under it, and give it the name.

        Args:
            descriptor: a manifest or an index in the store.
            mounts: repositories of the same registry that may have the blobs already.

        Returns:
            what the name points at now.
        """
        pusher = self._pusher(reference, mounts)
        pusher.image(descriptor)
        data = self._store.read_blob(descriptor, doc.MAX_MANIFEST)
        return pusher.manifest(reference.tag or descriptor.digest, descriptor.media_type, data)

    def push_manifest(self, reference: Reference, media_type: str, data: bytes) -> Descriptor:
        """Send a manifest or index under the tag, or else by its digest; its blobs must be there."""
        import hashlib

        what = reference.tag or f"sha256:{hashlib.sha256(data).hexdigest()}"
        if reference.digest and reference.digest != f"sha256:{hashlib.sha256(data).hexdigest()}":
            raise ImageError(f"{reference.text} cannot be given to a manifest with another digest")
        return self._pusher(reference).manifest(what, media_type, data)

    def push_bytes(self, reference: Reference, data: bytes, media_type: str) -> Descriptor:
        """Send a small blob, unless the repository has it."""
        return self._pusher(reference).data(data, media_type)


def _listed(data: bytes, reference: Reference) -> list[Descriptor]:
    where = f"{reference.name}: list of referrers"
    return [doc.parse_descriptor(item, where) for item in doc.objects(doc.decode(data, where), "manifests", where)]


def _of_type(found: Sequence[Descriptor], artifact_type: str) -> tuple[Descriptor, ...]:
    return tuple(d for d in found if artifact_type in ("", d.artifact_type))


def _next(header: str) -> str:
    """The target of a Link header with rel="next" (RFC 8288), a path of the registry; empty when there is none."""
    target, _, rest = header.strip().partition(">")
    return target[1:] if target.startswith("</") and "next" in rest else ""
