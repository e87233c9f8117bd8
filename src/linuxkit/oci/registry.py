"""Registries: pulling images into the store, pushing them from it, and what hangs on them.

OCI Distribution Specification v1.1. Names are oci.reference.Reference; what is read is verified against its digest.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote, urljoin

from linuxkit.errors import ImageError
from linuxkit.oci import document as doc
from linuxkit.oci.auth import Anonymous, Credentials, Given, Keychain
from linuxkit.oci.media import OCI_INDEX, Descriptor, Image, Platform
from linuxkit.oci.pull import Progress, Puller
from linuxkit.oci.push import Pusher
from linuxkit.oci.reference import Reference
from linuxkit.oci.session import NotThereError, Session, parse_mirrors
from linuxkit.oci.store import Store
from linuxkit.oci.transport import Transport, origin

if TYPE_CHECKING:
    from linuxkit.oci.publish import Item

__all__ = ["NotThereError", "Progress", "RegistryClient", "connect", "parse_mirrors"]
Say = Callable[[str], None]
NO_API = (400, 404, 405, 406, 501)  # what registries without the referrers API say
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

    def _puller(self, reference: Reference, *, write: bool = False) -> Puller:
        return Puller(self._store, self._session, self._progress, reference, write=write)

    def _pusher(self, reference: Reference, mounts: Mapping[str, str] | None = None) -> Pusher:
        return Pusher(self._store, self._session, self._progress, reference, mounts)

    # -- reading

    def pull(self, reference: Reference, platform: Platform) -> Image:
        """Bring an image for one platform into the store, under its name."""
        return self._puller(reference).pull(platform)

    def mend(self, reference: Reference, top: Descriptor, platform: Platform) -> Image:
        """Bring what the store lacks of an image into it, by digest: what its name means by now does not matter."""
        return self._puller(reference).mend(top, platform)

    def pull_all(self, reference: Reference, platforms: Sequence[Platform] | None = None, *,
                 verify: bool = False) -> Descriptor:  # fmt: skip
        """Bring an image for several platforms into the store; None: everything that its index lists.

        Args:
            verify: hash what is there, and fetch again what is damaged.

        Returns:
            what the name points at: an index or a manifest.
        """
        return self._puller(reference).pull_all(platforms, verify)

    def find(self, reference: Reference) -> tuple[Descriptor, bytes] | None:
        """The manifest or index behind a tag or digest, verified, not stored; None when there is none."""
        return self._puller(reference).find()

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
            with self._session.request("GET", reference, path, ok=(200, *NO_API)) as response:
                if response.status != 200 or OCI_INDEX not in response.headers.get("content-type", ""):
                    break
                found += _listed(response.read(doc.MAX_MANIFEST), reference)
                path = next_page(response.headers.get("link", ""), response.url)
            if not path:
                return _of_type(found, artifact_type)
        else:
            raise ImageError(f"{reference.name}: the list of referrers has more than {MAX_PAGES} pages")
        by_tag = Reference(f"{reference.name}:{digest.replace(':', '-')}", reference.registry, reference.repository,
                           digest.replace(":", "-"))  # fmt: skip
        index = self.find(by_tag)
        return _of_type(_listed(index[1], reference) if index else [], artifact_type)

    # -- writing

    def push(self, reference: Reference, descriptor: Descriptor, *, platforms: Sequence[Platform] | None = None,
             merge: bool = False, arch_tags: bool = False, say: Say = lambda line: None) -> Descriptor:  # fmt: skip
        """Send an image of the store, with everything under it, and give it the name.

        Args:
            descriptor: a manifest or an index in the store.
            platforms: only these of an index.
            merge: into the index that the registry has under the name: ours counts for a platform that is in both,
                the registry's others stay. What the index lists and the store lacks is left out then, not an error.
            arch_tags: give each image the name with -ARCH, too.
            say: takes a line about what is left out.

        Returns:
            what the name points at now.
        """
        from linuxkit.oci import publish
        from linuxkit.oci.meeting import Meeting

        pusher = self._pusher(reference, publish.neighbours(self._store, reference.registry, reference.repository))
        ours = publish.listed(descriptor, self._store.read_blob)
        items = publish.choose(ours.items, platforms, reference.text) if platforms else list(ours.items)
        if merge:
            items = publish.combine(self._here(items, pusher, say), [])
        here = [doc.parse_descriptor(item, reference.text) for item in items]
        if not here:
            raise ImageError(f"image {reference.text}: none of its platforms is in the cache",
                             hint="linuxkit cache pull brings them in")  # fmt: skip
        meeting = Meeting(self._session, self._puller(reference, write=True), reference, items) if merge else None
        pusher.images([d for d in here if meeting is None or publish.is_whole(self._store, d)])
        named = publish.arch_tags(items, reference.tag or "latest") if arch_tags else {}
        for tag, item in named.items():  # before the index: that is how pushes of two machines see each other
            found = doc.parse_descriptor(item, reference.text)
            pusher.manifest(tag, found.media_type, self._puller(reference).read(found, doc.MAX_MANIFEST))

        def put(everything: Sequence[Item]) -> Descriptor:
            if ours.is_index or len(everything) > 1:
                kind, data = publish.index_of(everything, ours)
            else:
                kind, data = ours.top.media_type, ours.data
            return pusher.manifest(reference.tag or (_digest(data) if reference.digest else "latest"), kind, data)

        return put(items) if meeting is None else meeting.merged(put)
    def compare(self, reference: Reference, descriptor: Descriptor, *, platforms: Sequence[Platform] | None = None,
                ) -> Literal["absent", "same", "adds", "differs"]:  # fmt: skip
        """What a push under this name would do: make it, nothing, add platforms, or replace what is there."""
        from linuxkit.oci import publish

        puller = self._puller(reference, write=True)
        theirs = puller.find()
        if theirs is None:
            return "absent"
        if theirs[0].digest == descriptor.digest:
            return "same"
        ours = publish.listed(descriptor, self._store.read_blob)
        items = publish.choose(ours.items, platforms, reference.text) if platforms else ours.items
        here = [i for i in items if publish.is_whole(self._store, doc.parse_descriptor(i, reference.text))]
        return publish.compare(here, publish.listed(theirs[0], puller.read).items)

    def _here(self, items: Sequence[Item], pusher: Pusher, say: Say) -> list[Item]:
        """Those of which everything is in the store, or that the registry has already."""
        from linuxkit.oci import publish

        found = []
        for item in items:
            descriptor = doc.parse_descriptor(item, "index")
            if publish.is_whole(self._store, descriptor) or pusher.has_manifest(descriptor.digest):
                found.append(item)
            elif descriptor.platform is not None and descriptor.platform.architecture != "unknown":
                say(f"left out, not in the cache: {descriptor.platform}")
        return found

    def push_manifest(self, reference: Reference, media_type: str, data: bytes) -> Descriptor:
        """Send a manifest or index under the tag, or else by its digest; its blobs must be there."""
        what = reference.tag or _digest(data)
        if reference.digest not in ("", _digest(data)):
            raise ImageError(f"{reference.text} cannot be given to a manifest with another digest")
        return self._pusher(reference).manifest(what, media_type, data)

    def push_bytes(self, reference: Reference, data: bytes, media_type: str) -> Descriptor:
        """Send a small blob, unless the repository has it."""
        return self._pusher(reference).data(data, media_type)


def connect(store: Store, transport: Transport, *, environment: Mapping[str, str], mirrors: Sequence[str] = (),
            say: Say = lambda line: None, progress: Progress | None = None,
            logins: Mapping[str, Credentials] | None = None) -> RegistryClient:  # fmt: skip
    """A client with the logins of Docker's configuration.

    Args:
        logins: further ones, by registry; they come first.
        environment: DOCKER_CONFIG or HOME says where that is; credential helpers get it.
        mirrors: `[REGISTRY=]URL`.
        say: takes a line about a credential helper that is not there.

    Raises:
        InputError: a mirror that is none.
    """
    from pathlib import Path

    from linuxkit.oci.credentials import DockerConfig

    folder = environment.get("DOCKER_CONFIG") or f"{environment.get('HOME', '')}/.docker"
    keychain = Given(logins or {}, DockerConfig(Path(folder, "config.json"), environment, say))
    return RegistryClient(store, transport, keychain=keychain, mirrors=parse_mirrors(mirrors), progress=progress)


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _listed(data: bytes, reference: Reference) -> list[Descriptor]:
    where = f"{reference.name}: list of referrers"
    return [doc.parse_descriptor(item, where) for item in doc.objects(doc.decode(data, where), "manifests", where)]


def _of_type(found: Sequence[Descriptor], artifact_type: str) -> tuple[Descriptor, ...]:
    return tuple(d for d in found if artifact_type in ("", d.artifact_type))


_TARGET = re.compile(r"\s*,?\s*<([^>]*)>")
_PARAMETER = re.compile(r'\s*;\s*([A-Za-z0-9*_-]+)\s*(?:=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;,"]*)))?')


def next_page(header: str, url: str) -> str:
    """The target of the link with rel="next" of a Link header (RFC 8288), as a whole URL; empty when there is none.

    Args:
        url: where the header comes from; a target is relative to it (RFC 3986). One on another host counts as none.
    """
    rest, position = header[:8192], 0
    while found := _TARGET.match(rest, position):
        position, relation = found.end(), ""
        while parameter := _PARAMETER.match(rest, position):
            position = parameter.end()
            if parameter[1].lower() == "rel" and not relation:
                relation = parameter[2] if parameter[2] is not None else parameter[3] or ""
        if "next" in relation.lower().split():
            try:
                target = urljoin(url, found[1].strip())
            except ValueError:
                return ""
            there, here = origin(target), origin(url)
            behind = (there[0], here[0]) == ("http", "https") and there[1] == here[1]  # it forgets who stands before it
            return target if there == here or behind else ""
    return ""
