"""A machine's console as two-way bytes: the terminal of a program, a socket, or a named pipe of Windows."""

from __future__ import annotations

import os
import select
import socket
import time
from pathlib import Path
from typing import Any, Protocol

from linuxkit.errors import HostError

CHUNK = 65536


class Wire(Protocol):
    """What connects us with a machine's console."""

    def exchange(self, stdin: int | None, timeout: float) -> bytes | None:
        """Wait for what the machine says, and hand on what is typed in the meantime.

        Returns:
            What it said; nothing within `timeout` seconds; or None: nothing will come any more.
        """
        ...

    def close(self) -> None: ...


class DescriptorWire:
    """A terminal's master side, or a connected socket."""

    def __init__(self, fd: int) -> None:
        self._fd, self._typing, self._pending = fd, True, b""

    def exchange(self, stdin: int | None, timeout: float) -> bytes | None:
        wanted = [self._fd]
        if stdin is not None and self._typing and not self._pending:
            wanted.append(stdin)
        ready, takes, _ = select.select(wanted, [self._fd] if self._pending else [], [], timeout)
        if stdin in ready and stdin is not None:
            self._pending = self._read(stdin) or b""
            self._typing = bool(self._pending)
        if self._pending and (takes or stdin in ready):
            self._send()
        if self._fd not in ready:
            return b""
        return self._read(self._fd) or None

    def _send(self) -> None:
        """As much of what was typed as the machine takes now."""
        if not select.select([], [self._fd], [], 0)[1]:
            return
        try:
            self._pending = self._pending[os.write(self._fd, self._pending[:256]) :]
        except OSError:  # it is going away
            self._pending = b""

    @staticmethod
    def _read(fd: int) -> bytes:
        try:
            return os.read(fd, CHUNK)
        except OSError:  # Linux' way to say that the other side of a terminal is closed
            return b""

    def close(self) -> None:
        os.close(self._fd)


class PipeWire:
    """A named pipe of Windows. It is read only when something is there: a read that waits would block a write."""

    def __init__(self, path: str) -> None:
        self._pipe = open(path, "r+b", buffering=0)  # noqa: SIM115  closed by close()

    def exchange(self, stdin: int | None, timeout: float) -> bytes | None:
        keys: Any = __import__("msvcrt")
        api: Any = __import__("_winapi")
        until = time.monotonic() + timeout
        handle = keys.get_osfhandle(self._pipe.fileno())
        try:
            while True:
                while stdin is not None and keys.kbhit():
                    key = keys.getwch()
                    if key == "\x03":
                        raise KeyboardInterrupt
                    self._pipe.write(key.encode())
                if api.PeekNamedPipe(handle, 0)[0]:
                    return self._pipe.read(CHUNK)
                if time.monotonic() >= until:
                    return b""
                time.sleep(0.02)
        except OSError:
            return None

    def close(self) -> None:
        self._pipe.close()


def connect(address: str, seconds: float = 20.0) -> Wire:
    """The console at a socket, or at a pipe of Windows, as soon as it is there.

    Raises:
        HostError: it isn't within some seconds.
    """
    until = time.monotonic() + seconds
    while True:
        try:
            if address.startswith("\\\\.\\pipe\\"):
                return PipeWire(address)
            line = socket.socket(getattr(socket, "AF_UNIX", socket.AF_INET), socket.SOCK_STREAM)
            try:
                line.connect(address)
                return DescriptorWire(line.detach())
            except BaseException:
                line.close()
                raise
        except OSError as e:
            if time.monotonic() >= until:
                raise HostError(f"the machine's console {address} cannot be reached: {e.strerror or e}",
                                hint="look at the machine in its hypervisor") from e  # fmt: skip
            time.sleep(0.1)


def request(address: Path, method: str, path: str, body: str = "", timeout: float = 5.0) -> int:
    """One HTTP request at a socket. Returns its status.

    Raises:
        OSError: there is nobody, or no answer.
    """
    text = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\nConnection: close\r\n"
    content = body.encode()
    if content:
        text += "Content-Type: application/json\r\n"
    text += f"Content-Length: {len(content)}\r\n\r\n"
    with socket.socket(getattr(socket, "AF_UNIX", socket.AF_INET), socket.SOCK_STREAM) as line:
        line.settimeout(timeout)
        line.connect(str(address))
        line.sendall(text.encode() + content)
        answer = b""
        while b"\r\n" not in answer and len(answer) < CHUNK:
            data = line.recv(CHUNK)
            if not data:
                break
            answer += data
    words = answer.split(b"\r\n")[0].split()
    if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
        raise OSError(f"{address} did not answer in HTTP")
    return int(words[1])

