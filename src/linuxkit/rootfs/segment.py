"""A named run of entries, and how it is named in the cache."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from linuxkit.entry import Entry
from linuxkit.oci.media import Descriptor


@dataclass(frozen=True, slots=True)
class Segment:
    """One part of the root filesystem.

    name      for people: kernel, init[0], onboot/000-dhcp.
    key       `sha256:…` of everything its entries depend on, their origin excepted.
    entries   makes them; not called when the encoded segment is in the cache.
    origin    of its entries, when it is the same for all: archives that record origins add it to the key.
    layers    image layers (with their diff_id) that `entries` is going to read, for reading ahead.
    prefix    all its entries are below this, apart from the directories above it; no other segment has the same.
    path      of its only entry, a file that takes long to make.
    missing   its entries are made only where nothing is (rootfs/mountpoints.py).
    generated everything in it is small and made by the builder: not worth a place in the cache.
    """

    name: str
    key: str
    entries: Callable[[], Iterable[Entry]]
    origin: tuple[str, str] = ("", "")
    layers: tuple[tuple[Descriptor, str], ...] = ()
    generated: bool = field(default=False)
    prefix: str = ""
    path: str = ""
    missing: bool = False
