"""Layers that were damaged in the cache, found while they are read: fetched or made again, and the build goes on.

Nothing is hashed for its own sake: a layer is verified as it is unpacked. Manifests and configurations, which are read
by the resolver, are mended there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Protocol

from linuxkit.errors import ImageError, LinuxkitError
from linuxkit.oci.blob import HEAL
from linuxkit.oci.media import Descriptor, Image, Platform
from linuxkit.oci.reference import Reference, parse_reference
from linuxkit.oci.store import Store

#: What was resolved: the text of the YAML, for which platform, and the image.
Resolved = tuple[str, Platform, Image]


class Fetcher(Protocol):
    """A registry."""

    def fetch(self, reference: Reference, descriptor: Descriptor) -> None: ...


class Healer:
    """Mends one layer.

    Args:
        images: what has been resolved by now.
        registry: None is offline.
        again: makes an image that comes from elsewhere (the kit, an archive) anew: (text, platform, image).
        log: takes a line about what is done.
    """

    def __init__(self, store: Store, images: Callable[[], Iterable[Resolved]], registry: Callable[[], Fetcher] | None,
                 again: Callable[[str, Platform, Image], object], log: Callable[[str], None]) -> None:  # fmt: skip
        self._store, self._images, self._registry, self._again, self._log = store, images, registry, again, log

    def __call__(self, layer: Descriptor, error: ImageError) -> None:
        """Bring a layer back into the store.

        Raises:
            ImageError: it cannot be had; the message names the image, its platform and what to do.
        """
        text, platform, image = next((one for one in self._images() if layer in one[2].layers), ("", None, None))
        if image is None or platform is None:
            raise error
        what = f"image {text} ({platform}): its layer {layer.digest} is missing or damaged in {self._store.root}"
        if self._registry is None:
            raise ImageError(what, hint=f"{HEAL}; that needs the network") from error
        self._log(f"{what}: getting it again")
        with suppress(OSError):
            self._store.blob_path(layer.digest).unlink()
        try:
            if "://" in text or text.partition(":")[0] in ("oci", "oci-archive", "docker-archive"):
                self._again(text, platform, image)
            else:
                self._registry().fetch(parse_reference(image.reference), layer)
        except LinuxkitError as e:
            raise ImageError(f"{what}, and it cannot be had again: {e.message}", hint=e.hint or HEAL) from e
        if not self._store.has_blob(layer):
            raise ImageError(f"{what}, and what was made in its place is another image",
                             hint="run the same command once more: it takes the new one")  # fmt: skip
