"""Several consoles as one: whole lines, each with its machine's name in front, and nothing a terminal would obey."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence

from linuxkit.foreign import coloured

#: What is left out; other controls and escape sequences are `foreign.coloured`'s.
_CONTROL = re.compile(rb"[\x00-\x06\x08\x0b-\x1a\x1c-\x1f\x7f]")
COLOURS = (36, 33, 32, 35, 34, 31)
#: A line that doesn't end is shown in pieces of that size.
LONGEST = 4096


class Lines:
    """Collects what consoles show.

    Args:
        names: of the machines.
        write: takes whole lines, one call at a time.
        colour: give each name a colour.
    """

    def __init__(self, names: Sequence[str], write: Callable[[bytes], None], *, colour: bool = False) -> None:
        self._write, self._lock = write, threading.Lock()
        self._parts = dict.fromkeys(names, b"")
        width = max(len(name) for name in names)
        self._marks = {
            name: (f"\x1b[{COLOURS[n % len(COLOURS)]}m{name:<{width}} |\x1b[0m " if colour else f"{name:<{width}} | ")
            for n, name in enumerate(names)
        }

    def take(self, name: str, data: bytes) -> None:
        """What a machine's console shows, in pieces of any length; from any thread."""
        with self._lock:
            *lines, rest = (self._parts[name] + data).split(b"\n")
            while len(rest) > LONGEST:
                lines.append(rest[:LONGEST])
                rest = rest[LONGEST:]
            self._parts[name] = rest
            self._put(name, lines)

    def finish(self) -> None:
        """Show lines that have not ended."""
        with self._lock:
            for name, rest in self._parts.items():
                if rest.strip():
                    self._put(name, [rest])
                self._parts[name] = b""

    def _put(self, name: str, lines: Sequence[bytes]) -> None:
        mark = self._marks[name].encode()
        shown = [coloured(_CONTROL.sub(b"", line).decode("utf-8", "replace"), lines=True).encode()
                 for line in lines]  # fmt: skip
        if shown:
            self._write(b"".join(mark + line + (b"\x1b[0m" if b"\x1b" in line else b"") + b"\n" for line in shown))
