"""What is wrong with one container's settings, collected with the places in the YAML where they stand."""

from __future__ import annotations

from linuxkit.config.document import printable
from linuxkit.config.model import Container
from linuxkit.errors import InputError, Problem


class Faults:
    """Collects; `check` raises them together."""

    def __init__(self, container: Container) -> None:
        self._container = container
        self._found: list[Problem] = []

    def add(self, message: str, key: str, n: int | None = None, hint: str = "", text: str | None = None) -> None:
        """Note a fault in setting `key`, or in item `n` of its list.

        A key that the YAML does not have came with the image's label, except for an item `text` of `KEY.add`.
        """
        entry = self._container
        added = f"{key}.add" if f"{key}.add" in entry.positions and key not in entry.positions else key
        if added != key:
            items = getattr(entry.settings, f"{key}_add", None) or ()
            n = items.index(text) if text in items else None
        path = added if n is None else f"{added}[{n}]"
        at = entry.positions.get(path) or entry.positions.get(added)
        if at is None:
            at = entry.position
            message += f" (in the label of image {entry.image})"
        full = f"{entry.path}.{path}" if entry.path else f"{entry.name}: {path}"
        self._found.append(Problem(printable(message), at.file, at.line, at.column, printable(full), printable(hint)))

    @property
    def found(self) -> list[Problem]:
        return sorted(self._found, key=lambda p: (p.file, p.line, p.column))

    def check(self) -> None:
        """Raise what was found.

        Raises:
            InputError: anything was.
        """
        if self._found:
            raise InputError(f"container '{self._container.name}' has settings that cannot work", problems=self.found)
