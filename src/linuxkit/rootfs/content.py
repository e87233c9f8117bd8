"""Where a plan's bytes come from: layers, blobs and files of the build host."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from linuxkit.entry import Entry
from linuxkit.errors import HostError
from linuxkit.oci.media import Descriptor, Image

if TYPE_CHECKING:
    from linuxkit.oci.derived import Derived
    from linuxkit.oci.layer import Heal, LayerCache
    from linuxkit.oci.store import Store

#: Of the derived cache: what a user is told about an image, by its digest.
NOTES = "notes"


class Content:
    """The store and the derived cache, as the assembly uses them. Safe for several threads."""

    def __init__(
        self, store: Store, derived: Derived, *, whiteouts: str = "linuxkit", log: Callable[[str], None] | None = None,
        attested: Callable[[Image], str] = lambda image: "",
        heal: Heal | None = None, max_layer: int = 0,
    ) -> None:
        self._attested, self._unsigned = attested, dict[str, str]()  # reference@digest → why
        self.store, self.derived, self.whiteouts, self._log = store, derived, whiteouts, log
        self._heal, self._max_layer = heal, max_layer
        self._layers: LayerCache | None = None
        self._differing: dict[str, str] = {}  # image's digest → what two ways of reading its deletions differ in
        self._lock = threading.Lock()

    @property
    def layers(self) -> LayerCache:
        """Made on first use: a rebuild that finds everything in the cache never needs it."""
        with self._lock:
            if self._layers is None:
                from linuxkit.oci.layer import LayerCache
                from linuxkit.oci.unpack import Bounds

                self._layers = LayerCache(self.store, self.derived, bounds=Bounds.of(self._max_layer),
                                          heal=self._heal)  # fmt: skip
            return self._layers

    def unsigned(self, image: Image) -> str:
        """Why what hangs on an image's index does not count, by the policy; empty when it does. Told once."""
        key = f"{image.reference}@{image.digest}"
        with self._lock:
            if key not in self._unsigned:
                self._unsigned[key] = self._attested(image) if image.index is not None else ""
            return self._unsigned[key]

    def warn(self, text: str) -> None:
        """A line for people."""
        if self._log is not None:
            self._log(f"warning: {text}")

    def tree(self, image: Image) -> list[Entry]:
        """An image's layers, merged.

        Raises:
            ImageError: a layer is missing, damaged, or leads out of its root.
        """
        from linuxkit.oci.merge import Whiteouts, has_whiteouts, merge_layers

        layers = self.layers.image_entries(image)
        merged = merge_layers(layers, whiteouts=Whiteouts(self.whiteouts), where=image.reference)
        if self.whiteouts == Whiteouts.LINUXKIT and has_whiteouts(layers):
            spec = merge_layers(layers, whiteouts=Whiteouts.OCI, where=image.reference)
            if differ := sorted({entry.path for entry in merged} ^ {entry.path for entry in spec}):
                said = f"{len(differ)} paths differ, the first is {differ[0]}"
                with self._lock:
                    if image.digest not in self._differing:
                        self._differing[image.digest] = said
                        with self.derived.put(NOTES, image.digest) as out:
                            out.write(said.encode(errors="surrogateescape"))
        return merged

    def tell(self, images: Iterable[Image]) -> None:
        """Warn of images whose deletions are read in two ways, also when their trees came from the cache this time."""
        if self._log is None or self.whiteouts != "linuxkit":
            return
        for image in {image.digest: image for image in images}.values():
            said = self._differing.get(image.digest)
            if said is None and (path := self.derived.get(NOTES, image.digest)) is not None:
                said = path.read_bytes().decode(errors="replace")
            if said:
                self._log(
                    f"warning: {image.reference} deletes files in a way that LinuxKit reads unlike the OCI spec: "
                    f"{said}; --whiteouts oci follows the spec"
                )


def layers_of(image: Image) -> tuple[tuple[Descriptor, str], ...]:
    """The layers of an image, each with its diff_id, bottom first."""
    return tuple(zip(image.layers, image.config.diff_ids, strict=True))


@dataclass(frozen=True, slots=True)
class HostFile:
    """A Source: a file of the build host that must still be what it was when the build was planned."""

    path: str
    size: int
    digest: str

    def open(self) -> BinaryIO:
        return io.BufferedReader(_Checked(self))


class _Checked(io.RawIOBase):
    """Reads a file and compares its digest at the end."""

    def __init__(self, source: HostFile) -> None:
        self._source = source
        self._raw = open(source.path, "rb", buffering=0)  # noqa: SIM115  closed with this object
        self._hash = hashlib.sha256()
        self._left = source.size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        got: int = self._raw.readinto(memoryview(buffer)[: self._left]) or 0
        self._hash.update(memoryview(buffer)[:got])
        self._left -= got
        if self._left == 0 and got and f"sha256:{self._hash.hexdigest()}" != self._source.digest:
            raise HostError(f"{self._source.path} changed while it was being read", hint="run the build again")
        return got

    def close(self) -> None:
        self._raw.close()
        super().close()
