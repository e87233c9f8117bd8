"""How far transfers are: one line that is redrawn on a terminal, a line for each finished blob in a pipe."""

from __future__ import annotations

import threading
import time
from typing import TextIO

REDRAW = 0.1  # seconds


class Progress:
    """Takes what oci.pull.Progress says, from any thread. Quiet as long as nothing moves.

        with Progress(sys.stderr, "pulled", quiet=False) as progress:
            Sources(..., progress=progress)
    """

    def __init__(self, stream: TextIO, verb: str, *, quiet: bool = False) -> None:
        self._stream, self._verb, self._quiet = stream, verb, quiet
        self._tty = stream.isatty()
        self._lock = threading.Lock()
        self._blobs: dict[str, tuple[int, int]] = {}  # digest → bytes so far and in all
        self._started = self._drawn = 0.0
        self._width = 0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        self.clear()

    def __call__(self, digest: str, done: int, size: int) -> None:
        """See oci.pull.Progress."""
        with self._lock:
            if done < 0:  # nothing to move
                self._blobs.pop(digest, None)
                return
            before = self._blobs.get(digest, (-1, size))[0]
            self._blobs[digest] = done, size
            if self._quiet:
                return
            if self._tty:
                self._draw()
            elif done == size and before != size:
                self._stream.write(f"{self._verb} {digest[:19]} {_megabytes(size)}\n")
                self._stream.flush()

    def line(self, text: str) -> None:
        """Print a line beside the moving one."""
        with self._lock:
            if not self._quiet:
                self._erase()
                self._stream.write(f"{text}\n")
                self._stream.flush()

    def clear(self) -> None:
        """Take the moving line away, and forget what has been moved."""
        with self._lock:
            self._erase()
            self._blobs.clear()
            self._started = 0.0

    def _draw(self) -> None:
        now = time.monotonic()
        if not self._started:
            self._started = now
        if now - self._drawn < REDRAW:
            return
        self._drawn = now
        done = sum(d for d, _ in self._blobs.values())
        size = sum(s for _, s in self._blobs.values())
        finished = sum(d == s for d, s in self._blobs.values())
        text = f"{self._verb} {finished} of {len(self._blobs)} blobs, {_megabytes(done)} of {_megabytes(size)}"
        passed = now - self._started
        if passed > 1:
            text += f", {done / passed / 1e6:.1f} MB/s"
        self._stream.write(f"\r{text}{' ' * (self._width - len(text))}")
        self._stream.flush()
        self._width = len(text)

    def _erase(self) -> None:
        if self._width:
            self._stream.write(f"\r{' ' * self._width}\r")
            self._stream.flush()
            self._width = 0


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size / 1e3:.1f} kB"
