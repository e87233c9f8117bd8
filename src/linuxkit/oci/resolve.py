"""From what stands in the YAML to a pinned Image: kit packages, archives and directories, the store, a registry."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from linuxkit.errors import ImageError, InputError, MissingError, NetworkError
from linuxkit.oci.blob import HEAL
from linuxkit.oci.media import Descriptor, Image, Platform
from linuxkit.oci.reference import Reference, parse_reference
from linuxkit.oci.select import NoPlatformError
from linuxkit.oci.store import REF_NAME, Store


class Source(Protocol):
    """Something that images come from; registered under a scheme such as `kit`."""

    def resolve(self, rest: str, platform: Platform) -> Image:
        """The image for what follows `SCHEME://` or `SCHEME:`, with its blobs in the store."""


class Registry(Protocol):
    """What fetches an image into the store."""

    def pull(self, reference: Reference, platform: Platform) -> Image:
        """Fetch it. Raises ImageError when it is not there, NetworkError when nobody answers."""

    def mend(self, reference: Reference, top: Descriptor, platform: Platform) -> Image:
        """Fetch what the store lacks of an image whose top is known, by digest. Errors as for `pull`."""


#: What a lock says that an image is: the digests of what the name stood for, and of the platform's manifest.
Pin = tuple[str, str]
#: Schemes of archives and directories; they are read by oci.archive.
ARCHIVES = ("oci", "oci-archive", "docker-archive")


class Resolver:
    """Finds images.

    Args:
        store: where images are and where fetched ones go.
        sources: scheme → source, for `kit://NAME` and the like.
        registry: fetches what the store lacks; None with `offline`.
        offline: no network; only changes what the message says.
        pull: ask the registry even when the store has the name.
        closed: pinned images of archives are in the store: the archives themselves are not looked at.
        log: takes one line about something that takes a while.
        max_layer: of archives, as for oci.archive.open_archive.
    """

    def __init__(self, store: Store, sources: Mapping[str, Source] | None = None, registry: Registry | None = None,
                 *, offline: bool = False, pull: bool = False, closed: bool = False,
                 log: Callable[[str], None] = lambda line: None, max_layer: int = 0) -> None:  # fmt: skip
        self._max_layer = max_layer
        self._store, self._sources, self._registry = store, dict(sources or {}), registry
        self._offline, self._pull, self._closed, self._log = offline, pull and registry is not None, closed, log
        self._done: dict[tuple[str, Platform, Pin | None], Image] = {}

    def resolve(self, text: str, platform: Platform, pin: Pin | None = None) -> Image:
        """The image that `text` names, for one platform.

        Args:
            pin: what it has to be. Another image is not taken, whatever the name means by now.

        Raises:
            InputError: `text` is no image name or its scheme is unknown.
            ImageError: the image is not there, not for this platform, or damaged.
            NetworkError: the registry did not answer.
        """
        key = (text, platform, pin)
        if key not in self._done:
            self._done[key] = self._resolve(text, platform) if pin is None else self._pinned(text, platform, pin)
        return self._done[key]

    def images(self) -> list[tuple[str, Platform, Image]]:
        """What has been resolved by now: text, platform, image."""
        return [(text, platform, image) for (text, platform, _), image in self._done.items()]

    def afresh(self, text: str, platform: Platform) -> Image:
        """Resolve it again, whatever is remembered: an archive's blobs come into the store once more."""
        return self._resolve(text, platform)

    def _pinned(self, text: str, platform: Platform, pin: Pin) -> Image:
        digest, manifest = pin
        if text.partition(":")[0] in ARCHIVES:
            image = self._of_archive(text, platform, pin)
        else:
            reference = parse_reference(text)
            exact = parse_reference(f"{reference.tagged.partition('@')[0]}@{digest}")
            name = self._called(reference)
            image = replace(self._from_store(exact, platform), reference=name)
        if image.digest != manifest:
            raise ImageError(f"image {text}: {digest} has {image.digest} for {platform}, and the lock {manifest}",
                             hint="renew the lock: linuxkit update")  # fmt: skip
        return image

    def _of_archive(self, text: str, platform: Platform, pin: Pin) -> Image:
        if self._closed:
            found = self._store.find_reference(Reference("", "", "", digest=pin[0]))
            if found is None:
                raise ImageError(f"image {text} ({pin[0]}) is not in {self._store.root}")
            return self._store.image(found, text, platform)
        image = self._resolve(text, platform)
        if pin != pin_of(image):
            raise InputError(f"{text} holds {pin_of(image)[0]}, and the lock has {pin[0]}",
                             hint="renew the lock: linuxkit update")  # fmt: skip
        return image

    def _called(self, ref: Reference) -> str:
        """The name that the image has without a pin."""
        found = None if ref.digest else self._store.find_reference(ref)
        return ref.tagged if found is None else found.annotations.get(REF_NAME, ref.text)

    def _resolve(self, text: str, platform: Platform) -> Image:
        scheme, mark, rest = text.partition("://")
        if mark:
            source = self._sources.get(scheme)
            if source is None:
                known = ", ".join(f"{s}://" for s in sorted(self._sources))
                raise InputError(
                    f"invalid image name '{text}': '{scheme}://' is not a kind of image",
                    hint=f"known are {known}; for a registry leave the scheme out" if known
                    else "for a registry leave the scheme out",
                )  # fmt: skip
            return source.resolve(rest, platform)
        scheme, mark, rest = text.partition(":")
        if mark and scheme in ARCHIVES:
            from linuxkit.oci.archive import open_archive

            return open_archive(self._store, scheme, rest, platform, self._max_layer)
        return self._from_store(parse_reference(text), platform)

    def _from_store(self, ref: Reference, platform: Platform) -> Image:
        found = self._store.find_reference(ref)
        damaged: ImageError | None = None
        if found is not None and not (self._pull and not ref.digest):
            name = ref.text if ref.digest else found.annotations.get(REF_NAME, ref.text)
            try:
                image = self._store.image(found, name, platform)
                lacking = next((layer for layer in image.layers if not self._store.has_blob(layer)), None)
                if lacking is None:
                    return image
                raise ImageError(
                    f"image {ref.text}: layer {lacking.digest} is missing or cut short in {self._store.root}", hint=HEAL
                )
            except ImageError as e:
                damaged = self._offline_error(ref, platform, e)
                if self._registry is None:
                    raise damaged from e  # else: another platform was pulled before, or the copy here is damaged
                with suppress(ImageError, NetworkError):  # then by its name
                    self._log(f"fetching what the cache lacks of {ref.text} ({platform})")
                    return self._registry.mend(replace(ref, text=name), found, platform)
        if self._registry is None:
            raise self._missing(ref)
        self._log(f"pulling {ref.text} ({platform})")
        try:
            return self._registry.pull(ref, platform)
        except NetworkError as e:
            if damaged is not None:
                raise ImageError(f"{damaged.message}, and it cannot be fetched: {_reason(e, ref)}",
                                 hint=damaged.hint) from e  # fmt: skip
            hint = f"{e.hint}; " if e.hint else ""
            raise NetworkError(f"image {ref.text} is not in the cache {self._store.root} and cannot be fetched: "
                               f"{_reason(e, ref)}", hint=hint + self._close(ref),
                               temporary=e.temporary) from e  # fmt: skip

    def _offline_error(self, ref: Reference, platform: Platform, error: ImageError) -> ImageError:
        """The error, with the image and its platform named, and what mends it."""
        why = error.message.removeprefix(f"image {ref.text}: ")
        if isinstance(error, NoPlatformError):
            return error
        hint = f"{HEAL}, and so does linuxkit cache pull {ref.tagged}; both need the network"
        return ImageError(f"image {ref.text} ({platform}): {why}", hint=hint)

    def _missing(self, ref: Reference) -> ImageError:
        why = " and --offline keeps the network out" if self._offline else ""
        return MissingError(
            f"image {ref.text} is not in the cache {self._store.root}{why}", name=ref.tagged,
            hint=self._close(ref) + ("; leave out --offline to fetch it" if self._offline else ""),
        )

    def _close(self, ref: Reference) -> str:
        """What else to do: a name that is nearly this one, or how to bring the image in."""
        import difflib

        names = self._store.names()
        same = [n for n in names if n.rpartition(":")[0] == ref.name or n.partition("@")[0] == ref.name]
        near = same or difflib.get_close_matches(ref.tagged, names, n=3, cutoff=0.75)
        if near:
            return f"did you mean {' or '.join(near[:3])}?"
        return "bring it in with 'linuxkit cache import FILE', or name a file: oci-archive:FILE"


def _reason(error: NetworkError, ref: Reference) -> str:
    """What it says, for a message that names the image already."""
    return error.message.removeprefix(f"image {ref.text}: ")


def pin_of(image: Image) -> Pin:
    """What a lock says about an image."""
    return (image.index.digest if image.index else image.digest), image.digest


def cache_root(root: Path) -> Path:
    """Where the derived cache of a store is."""
    return root / "derived"
