"""Standard streams as the command line has them: always there, and nothing that a terminal would obey goes to one."""

from __future__ import annotations

import errno
import os
import sys
from typing import Any, TextIO, cast

from linuxkit.foreign import coloured


class Shown:
    """A text stream for people: what strangers wrote reaches it as text. Bytes (`buffer`) pass as they are.

    A carriage return is kept at both ends of what is written: a line that moves needs it.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write text; colours stay."""
        body = text.strip("\r")
        start = "\r" if text.startswith("\r") else ""
        end = "\r" if text.endswith("\r") and body else ""
        self._stream.write(start + coloured(body, lines=True) + end)
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def prepare() -> None:
    """Make the standard streams what a command can rely on.

    One that was closed becomes /dev/null: reading finds the end, messages go nowhere, and output is an error, because
    it would be lost. Without that the next file that is opened takes its number.
    """
    for fd, name, flags in ((0, "stdin", os.O_RDONLY), (1, "stdout", os.O_RDONLY), (2, "stderr", os.O_WRONLY)):
        try:
            os.fstat(fd)
        except OSError as e:
            if e.errno != errno.EBADF:
                raise
            there = os.open(os.devnull, flags)
            if there != fd:  # it isn't when a lower one is closed, too
                os.dup2(there, fd)
                os.close(there)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(fd, "r" if fd == 0 else "w", closefd=False))
    sys.stderr = cast(TextIO, Shown(sys.stderr))
    if sys.stdout.isatty():
        sys.stdout = cast(TextIO, Shown(sys.stdout))
