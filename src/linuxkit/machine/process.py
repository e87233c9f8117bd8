"""Starting QEMU: a child that holds some of our descriptors, never outlives us, and whose last words are kept.

Besides host.py the only module that starts a subprocess, because a machine runs beside us and not before us.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from linuxkit.errors import HostError

PR_SET_PDEATHSIG = 1


def _dies_with_us() -> Callable[[], None] | None:
    """What the child does before exec so that the kernel ends it when this thread is gone; None where there is no
    such thing. Everything is looked up before the fork: nothing may be imported after it."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def arrange() -> None:
        prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent:  # we died between fork and prctl
            os._exit(127)

    return arrange


class Process:
    """A running program in a session of its own, so that the terminal's Ctrl-C reaches only us.

    Args:
        command: program and arguments.
        keep: descriptors that it inherits under the same numbers.
        log: file for its error output; truncated.
        terminal: descriptor of a terminal for its standard input and output.

    Raises:
        HostError: it cannot be started.
    """

    def __init__(self, command: Sequence[str], *, keep: Sequence[int], log: Path, terminal: int | None = None) -> None:
        self.name = Path(command[0]).name
        self.log = log
        try:
            with log.open("wb") as errors:
                self._child = subprocess.Popen(
                    list(command), stdin=subprocess.DEVNULL if terminal is None else terminal,
                    stdout=errors if terminal is None else terminal, stderr=errors, pass_fds=tuple(keep),
                    start_new_session=True, preexec_fn=_dies_with_us(),  # noqa: PLW1509  no other threads need it
                )  # fmt: skip
        except OSError as e:
            raise HostError(f"{command[0]} could not be started: {e.strerror or e}") from e

    @property
    def pid(self) -> int:
        return self._child.pid

    def poll(self) -> int | None:
        """Exit status, negative for a signal; None while it runs."""
        return self._child.poll()

    def wait(self, seconds: float) -> int | None:
        """Wait for its end; None if it still runs after `seconds`."""
        try:
            return self._child.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def send(self, name: str) -> None:
        """Send it a signal, by name. Harmless when it has ended already."""
        self._child.send_signal(signal.Signals[name])

    def end(self) -> None:
        """Make it end: asked first, then not asked. Harmless when it has ended already."""
        for ask in (self._child.terminate, self._child.kill):
            if self.poll() is not None:
                return
            ask()
            self.wait(2)

    def last_words(self, lines: int = 8) -> str:
        """The end of its error output, without the program's name in front of each line."""
        try:
            text = self.log.read_bytes()[-8192:].decode(errors="replace")
        except OSError:
            return ""
        kept = [line.removeprefix(f"{self.name}: ").strip() for line in text.splitlines() if line.strip()]
        return "\n  ".join(kept[-lines:])
