"""Two pushes to one name at once: each merges its platforms into the index that is there, and neither may get lost.

Registries know no way to change an index that another is changing. So who has put an index reads it back, a little
later than the other one can have taken to put his, and merges again until both stay. The tags by architecture
(TAG-ARCH) are put before the index: one that changed since we began tells of a push whose index ours may have replaced.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from linuxkit.errors import NetworkError
from linuxkit.oci import publish
from linuxkit.oci.media import Descriptor
from linuxkit.oci.publish import Item
from linuxkit.oci.pull import Puller
from linuxkit.oci.reference import Reference
from linuxkit.oci.session import Session

ROUNDS = 6
SHORTEST, LONGEST = 0.2, 5.0  # seconds between putting an index and reading it back
ARCHITECTURES = ("amd64", "arm64", "riscv64", "s390x")  # whose tags are looked at


class Meeting:
    """Begun before anything is sent.

    Args:
        puller: reads where the push goes to.
        items: what we push.
    """

    def __init__(self, session: Session, puller: Puller, reference: Reference, items: Sequence[Item]) -> None:
        self._session, self._puller, self._ref, self._items = session, puller, reference, list(items)
        self._before = {item.get("digest") for item in self._by_architecture()}

    def merged(self, put: Callable[[Sequence[Item]], Descriptor]) -> Descriptor:
        """Merge, put and look, until everything stays. Returns what the name points at.

        Raises:
            NetworkError: others replace it again and again.
        """
        new: list[Item] = []
        for _ in range(ROUNDS):
            began = time.monotonic()
            everything = publish.combine(publish.combine(self._items, new), self._there())
            found = put(everything)
            self._session.transport.sleep(min(LONGEST, max(SHORTEST, 2 * (time.monotonic() - began))))
            new = [item for item in self._by_architecture() if item.get("digest") not in self._before]
            wanted = publish.combine(publish.combine(self._items, new), everything)
            there = {item.get("digest") for item in self._there()}
            if all(item.get("digest") in there for item in wanted):
                return found
        raise NetworkError(f"image {self._ref.text}: other pushes replace its index again and again",
                           hint="let one machine push after the other")  # fmt: skip

    def _there(self) -> list[Item]:
        found = self._puller.find()
        return list(publish.listed(found[0], self._puller.read).items) if found else []

    def _by_architecture(self) -> Iterator[Item]:
        """What the tags by architecture stand for, but for our own."""
        own = {str((item.get("platform") or {}).get("architecture")) for item in self._items}
        tag = self._ref.tag or "latest"
        for architecture in ARCHITECTURES if self._ref.tag or not self._ref.digest else ():
            if architecture in own:
                continue
            name = f"{tag}-{architecture}"
            text = f"{self._ref.name}:{name}"
            found = self._puller.beside(Reference(text, self._ref.registry, self._ref.repository, name)).find()
            if found is not None:
                yield from publish.listed(found[0], self._puller.read).items
