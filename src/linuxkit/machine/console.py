"""What a machine's console has shown: its end in memory, all of it in a file, and a kernel's panic found in it."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

#: printk's own words, at the start of a line, with or without its timestamp
PANIC = re.compile(rb"(?m)^(?:\[ *\d+\.\d+\](?:\[ *[TC]\d+\])? )?Kernel panic - not syncing: ?([^\r\n]*)\r?\n")
PANIC_END = b"---[ end Kernel panic"
PANIC_SECONDS = 2.0
KEEP = 1 << 20
MAX_LOG = 64 << 20


class Console:
    """The console's text. Not safe by itself under several threads.

    Args:
        log: the file for it; truncated.
    """

    def __init__(self, log: Path) -> None:
        self.panic: str | None = None  # what it said of it
        self._panic_until = 0.0
        self._text = bytearray()
        log.unlink(missing_ok=True)
        own = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)  # it may show secrets
        self._log = os.fdopen(own, "wb", buffering=0)

    def close(self) -> None:
        self._log.close()

    def __bool__(self) -> bool:
        return bool(self._text)

    @property
    def text(self) -> str:
        """The last mebibyte."""
        return self._text.decode(errors="replace")

    @property
    def over(self) -> bool:
        """A panicked kernel has said all it has to say."""
        return self.panic is not None and time.monotonic() > self._panic_until

    def log(self, data: bytes) -> None:
        """Write what came into the file, which is bounded."""
        if self._log.tell() < MAX_LOG:
            self._log.write(data)

    def take(self, data: bytes) -> None:
        """Keep what came."""
        self._text += data
        del self._text[:-KEEP]
        if self.panic is None and (panic := PANIC.search(self._text, max(0, len(self._text) - len(data) - 512))):
            self.panic = panic[1].decode(errors="replace").strip() or "no reason given"
            self._panic_until = time.monotonic() + PANIC_SECONDS
        if self.panic is not None and PANIC_END in self._text[-len(data) - 64 :]:
            self._panic_until = 0.0
