"""A console that is only ever shown as a whole, or its last part: what is new in it."""

from __future__ import annotations

from collections.abc import Callable

#: How much of the end is looked for when the start has gone.
MARK = 256


class Tail:
    """Prints each time what was added. `output` takes it."""

    def __init__(self, output: Callable[[bytes], None]) -> None:
        self._output, self._shown = output, b""

    def show(self, console: bytes) -> None:
        """Take the console as it is now."""
        before = self._shown
        if not console or console == before:
            return
        if console.startswith(before):
            at = len(before)
        else:  # its start has gone: go on behind what was shown last, if that is still there
            mark = before[-MARK:]
            found = console.rfind(mark)
            at = found + len(mark) if mark and found >= 0 else 0
        self._shown = console
        self._output(console[at:])
