"""What a native recipe may draw on: an archive of packages, Debian's or Alpine's, behind one face."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from linuxkit.entry import Entry
from linuxkit.packages.slice import Tree

#: Packages as a lock has them: name → (version, digest in the archive's own spelling).
Pins = Mapping[str, tuple[str, str]]


class Piece(Protocol):
    """One version of one package."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def digest(self) -> str:
        """What the archive's signed index says of its content."""


class Origin(Protocol):
    """An archive for one architecture. Packages are of its own kind: they go back only to where they came from."""

    @property
    def kind(self) -> str:
        """The recipe's section: debian, alpine."""

    @property
    def spelled(self) -> Mapping[str, str]:
        """Words in braces in a recipe, and what they stand for here."""

    @property
    def inherent(self) -> str:
        """Libraries whose names start so are the dynamic linker itself; "" where there are none."""

    def closure(self, names: Iterable[str], without: Iterable[str] = ()) -> Sequence[Any]:
        """The newest version of each named package and of the libraries that they need, in a stable order.

        Raises:
            InputError: a name that the archive does not have; the hint is the nearest one.
        """

    def pinned(self, pins: Pins, what: str) -> Sequence[Any]:
        """Exactly these packages, sorted by name. Raises ImageError when the archive has others by now."""

    def renew(self) -> None:
        """Fetch the lists of packages anew."""

    def fetch(self, packages: Iterable[Any]) -> dict[str, Path]:
        """The files of some packages by name, checked."""

    def unpack(self, package: Any, file: Path, spool: Path) -> dict[str, Entry]:
        """The nodes of a package, their content in `spool`."""

    def records(self, tree: Tree, used: Iterable[Any]) -> dict[str, Entry]:
        """Files that have to go with what was taken from some packages: licences, or what they were."""
