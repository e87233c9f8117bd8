"""Programs that serve one device of a machine each: virtiofsd a shared folder, swtpm a TPM.

Each is connected with QEMU by a socket that has no name in the file system. It is started before QEMU and never
outlives the machine.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from linuxkit.machine.process import Process


class Device(Protocol):
    """What is connected with QEMU when a machine starts."""

    def start(self, state: Path, /) -> tuple[Process | None, socket.socket]:
        """The program that was started for it, if any, and QEMU's end of the connection."""
        ...


@dataclass(frozen=True, slots=True)
class Helper:
    """A program to run beside QEMU.

    name     of its log in the state folder: NAME.log
    command  makes its command line, given the descriptor of its socket
    listens  it wants a socket that listens, not a connected one
    """

    name: str
    command: Callable[[int], Sequence[str]]
    listens: bool = False

    def start(self, state: Path) -> tuple[Process, socket.socket]:
        """Start it.

        Returns:
            The running program, and QEMU's end of the connection.

        Raises:
            HostError: it cannot be started.
        """
        if not self.listens:
            mine, theirs = socket.socketpair()
        else:
            # In Linux' namespace without files, under a name that the kernel chooses. These programs take one
            # connection, and ours is there before they are: nobody else can take its place.
            mine, theirs = (socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) for _ in range(2))
        try:
            if self.listens:
                theirs.bind("")
                theirs.listen(1)
                mine.connect(theirs.getsockname())
            program = self.command(theirs.fileno())
            return Process(program, keep=(theirs.fileno(),), log=state / f"{self.name}.log"), mine
        except BaseException:
            mine.close()
            raise
        finally:
            theirs.close()
