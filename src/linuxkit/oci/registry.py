"""Pulling images from registries into the store.

OCI Distribution Specification v1.1: GET /v2/NAME/manifests/REFERENCE, GET /v2/NAME/blobs/DIGEST. Everything is hashed
as it streams, and nothing is kept that is not what a digest above it promised. Only the wanted platform is fetched.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from urllib.parse import urlsplit

from linuxkit.errors import ImageError, InputError, NetworkError
from linuxkit.oci import document as doc
from linuxkit.oci.auth import Anonymous, Keychain, parse_challenge, token_url
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
from linuxkit.oci.reference import DEFAULT_REGISTRY, Reference
from linuxkit.oci.select import select
from linuxkit.oci.store import Store
from linuxkit.oci.transport import Response, Transport, is_loopback

ACCEPT = ", ".join((OCI_INDEX, OCI_MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST))
HUB = "https://registry-1.docker.io"
HUB_NAMES = (DEFAULT_REGISTRY, "index.docker.io", "registry-1.docker.io")
THREADS = 3
MAX_TOKEN = 1 << 20
MAX_ERROR = 64 << 10

#: Called as bytes arrive: (digest, bytes so far, bytes in all).
Progress = Callable[[str, int, int], None]


def parse_mirrors(specs: Sequence[str]) -> dict[str, str]:
    """registry → URL from `[REGISTRY=]URL`; without a registry it is `*`, for all others. Later ones win.

    Raises:
        InputError: a URL does not start with http:// or https://.
    """
    mirrors: dict[str, str] = {}
    for spec in specs:
        registry, mark, url = spec.partition("=")
        if not mark or "://" in registry:
            registry, url = "*", spec
        if not url.startswith(("http://", "https://")) or not urlsplit(url).hostname:
            raise InputError(f"mirror '{spec}' must start with http:// or https://",
                             hint="write --mirror https://HOST or --mirror docker.io=https://HOST")  # fmt: skip
        names = HUB_NAMES if registry in HUB_NAMES else (registry,)
        mirrors.update(dict.fromkeys(names, url.rstrip("/")))
    return mirrors


class RegistryClient:
    """Fetches images.

    Args:
        mirrors: as parse_mirrors gives them; a mirror replaces its registry, it is not tried first.
        progress: told about each blob as it comes, from several threads.
    """

    def __init__(self, store: Store, transport: Transport, *, keychain: Keychain | None = None,
                 mirrors: Mapping[str, str] | None = None, progress: Progress | None = None) -> None:  # fmt: skip
        self._store, self._transport = store, transport
        self._keychain, self._mirrors = keychain or Anonymous(), dict(mirrors or {})
        self._progress = progress or (lambda digest, done, size: None)
        self._logins: dict[str, str] = {}  # base URL and repository → Authorization

    def pull(self, reference: Reference, platform: Platform) -> Image:
        """Bring an image for one platform into the store, under its name.

        Raises:
            ImageError: the registry does not have it, or what it sent is not what was promised.
            NetworkError: the registry cannot be reached, or refuses.
        """
        again = self._transport.retrying
        top, data = again(lambda: self._top(reference))
        small = {top.digest: (top, data)}

        def read(descriptor: Descriptor, limit: int) -> bytes:
            if descriptor.digest not in small:
                small[descriptor.digest] = descriptor, again(lambda: self._small(reference, descriptor, limit))
            return small[descriptor.digest][1]

        image = select(read, top, reference.tagged, platform)
        wanted = {layer.digest: layer for layer in image.layers if not self._store.has_blob(layer)}
        with ThreadPoolExecutor(THREADS) as pool:
            jobs = [pool.submit(again, partial(self._blob, reference, layer)) for layer in wanted.values()]
            try:
                for job in jobs:
                    job.result()
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        for descriptor, content in reversed(small.values()):  # so that a manifest never lacks its blobs
            self._store.put_blob(content, descriptor.media_type)
        self._store.put_name(reference.tagged, top)
        return image

    def _top(self, ref: Reference) -> tuple[Descriptor, bytes]:
        """What the name points at."""
        what = ref.digest or ref.tag or "latest"
        with self._get(ref, f"manifests/{what}", {"Accept": ACCEPT}) as response:
            data = response.read(doc.MAX_MANIFEST)
            kind = response.headers.get("content-type", "").split(";")[0].strip()
            claimed = response.headers.get("docker-content-digest", "")
        document = doc.decode(data, f"{ref.registry}: manifest of {ref.text}")
        kind = doc.text(document, "mediaType", ref.text) or kind
        if kind not in INDEX_TYPES | MANIFEST_TYPES:
            raise ImageError(f"image {ref.text}: the registry sent a '{kind[:80]}', which is not an image")
        actual = f"sha256:{hashlib.sha256(data).hexdigest()}"
        for promised in (ref.digest, claimed if claimed.startswith("sha256:") else ""):
            if promised not in ("", actual):
                raise ImageError(f"image {ref.text}: the registry sent a manifest with the digest {actual}, "
                                 f"not {promised[:100]}")  # fmt: skip
        return Descriptor(kind, actual, len(data)), data

    def _small(self, ref: Reference, descriptor: Descriptor, limit: int) -> bytes:
        """A manifest or configuration, from the store when it is there."""
        if descriptor.size > limit:
            raise ImageError(f"image {ref.text}: {descriptor.digest} has {descriptor.size} bytes, more than {limit}")
        with suppress(ImageError):
            return self._store.read_blob(descriptor, limit)
        is_manifest = descriptor.media_type in INDEX_TYPES | MANIFEST_TYPES
        path = f"{'manifests' if is_manifest else 'blobs'}/{descriptor.digest}"
        with self._get(ref, path, {"Accept": descriptor.media_type} if is_manifest else {}) as response:
            data = response.read(descriptor.size)
        check(data, descriptor, f"{ref.registry}: image {ref.text}")
        return data

    def _blob(self, ref: Reference, blob: Descriptor) -> None:
        """Fetch one blob into the store."""
        try:
            with self._get(ref, f"blobs/{blob.digest}", {}) as response, \
                 self._store.write_blob(blob.media_type, digest=blob.digest, size=blob.size) as out:  # fmt: skip
                done = 0
                for piece in response.pieces():
                    out.write(piece)
                    done += len(piece)
                    self._progress(blob.digest, done, blob.size)
        except ImageError as e:
            raise ImageError(f"image {ref.text}: {ref.registry} sent something else: {e.message}") from e

    # -- requests

    def _base(self, registry: str) -> str:
        mirror = self._mirrors.get(registry) or self._mirrors.get("*")
        if mirror:
            return mirror
        if registry in HUB_NAMES:
            return HUB
        host = registry.rpartition(":")[0] if registry.rpartition(":")[2].isdigit() else registry
        return f"{'http' if is_loopback(host) else 'https'}://{registry}"

    def _get(self, ref: Reference, path: str, headers: Mapping[str, str]) -> Response:
        """A successful answer, after logging in when that is asked for."""
        base = self._base(ref.registry)
        url = f"{base}/v2/{ref.repository}/{path}"
        key = f"{base} {ref.repository}"
        for attempt in (1, 2):
            login = self._logins.get(key)
            response = self._transport.get(url, {**headers, **({"Authorization": login} if login else {})})
            if response.status == 200:
                return response
            with response:
                at_home = urlsplit(response.url).netloc == urlsplit(base).netloc  # not after a redirect elsewhere
                if response.status == 401 and attempt == 1 and at_home:
                    self._logins[key] = self._log_in(ref, base, response.headers.get("www-authenticate", ""))
                    continue
                raise self._failure(ref, path, response)
        raise AssertionError("unreachable")

    def _log_in(self, ref: Reference, base: str, header: str) -> str:
        """The Authorization value that answers a challenge."""
        challenge = parse_challenge(header)
        host = urlsplit(base).netloc.rpartition("@")[2]
        mirrored = self._mirrors.get(ref.registry) or self._mirrors.get("*")
        login = self._keychain.find(host if mirrored else ref.registry)
        if challenge.scheme == "basic":
            if login is None:
                raise NetworkError(f"registry {host} wants a login for {ref.name}", hint=f"docker login {host}")
            return login.basic
        if challenge.scheme != "bearer":
            raise NetworkError(f"registry {host} wants an unsupported kind of login: '{challenge.scheme[:40]}'")
        url = token_url(challenge, base, f"repository:{ref.repository}:pull")
        with self._transport.get(url, {"Authorization": login.basic} if login else {}) as response:
            if response.status != 200:
                raise NetworkError(f"the token server of {host} answers {response.status}" + _login_text(login),
                                   hint=f"docker login {host}")  # fmt: skip
            data = response.read(MAX_TOKEN)
        try:
            answer = json.loads(data)
            token = answer.get("token") or answer.get("access_token")
        except (ValueError, AttributeError, RecursionError):
            token = None
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise NetworkError(f"the token server of {host} sent no token")
        return f"Bearer {token}"

    def _failure(self, ref: Reference, path: str, response: Response) -> ImageError | NetworkError:
        host, status = urlsplit(response.url).netloc.rpartition("@")[2], response.status
        if status == 404:
            what = "does not have it" if path.startswith("manifests/") else f"lacks its {path.replace('/', ' ', 1)}"
            return ImageError(f"image {ref.text}: {host} {what}", hint="check the name and the tag")
        if status in (401, 403):
            login = self._keychain.find(ref.registry)
            return NetworkError(f"image {ref.text}: {host} refuses access ({status})" + _login_text(login),
                                hint=f"check that the image exists, or: docker login {ref.registry}")  # fmt: skip
        if status == 429:
            return NetworkError(f"image {ref.text}: {host} limits the rate of requests (429)",
                                hint="wait, log in, or use --mirror URL", temporary=True)  # fmt: skip
        detail = _error_text(response)
        return NetworkError(f"image {ref.text}: {host} answers {status}{detail}", temporary=status >= 500)


def _login_text(login: object) -> str:
    from linuxkit.oci.auth import Credentials

    return f" to the login from {login.origin}" if isinstance(login, Credentials) else ""


def _error_text(response: Response) -> str:
    """What a registry says in its error document, made fit for one line."""
    with suppress(NetworkError, ValueError, KeyError, IndexError, TypeError, RecursionError):
        message = str(json.loads(response.read(MAX_ERROR))["errors"][0]["message"])
        return ": " + "".join(c for c in message if c.isprintable())[:160]
    return ""
