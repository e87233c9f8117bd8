"""A WebSocket server for one client at a time (RFC 6455), that says what it is told to."""

from __future__ import annotations

import base64
import hashlib
import socket
import struct
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self


class Console:
    """Sends `frames` after the first message, then closes or goes on listening. `heard`: the client's messages."""

    def __init__(self, frames: list[bytes], *, stays: bool = False, refuse: bool = False) -> None:
        self.frames, self.stays, self.refuse = frames, stays, refuse
        self.heard: list[tuple[int, bytes]] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"ws://127.0.0.1:{self._socket.getsockname()[1]}/v2/ws"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None = None, error: BaseException | None = None,
                 trace: TracebackType | None = None) -> None:  # fmt: skip
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            with client, client.makefile("rb") as stream, suppress(ConnectionError):  # the client has enough
                self._talk(client, stream)

    def _talk(self, client: socket.socket, stream: object) -> None:
        read = stream.read  # type: ignore[attr-defined]
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = stream.readline()  # type: ignore[attr-defined]
            if not line:
                return
            head += line
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:] if line)
        assert fields["Upgrade"] == "websocket"
        assert fields["Sec-WebSocket-Version"] == "13"
        accept = hashlib.sha1(fields["Sec-WebSocket-Key"].encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
        status = "HTTP/1.1 403 Forbidden" if self.refuse else "HTTP/1.1 101 Switching Protocols"
        client.sendall(f"{status}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                       f"Sec-WebSocket-Accept: {base64.b64encode(accept).decode()}\r\n\r\n".encode())  # fmt: skip
        if self.refuse:
            return
        begun = False
        while True:
            start = read(2)
            if len(start) < 2:
                return
            length = start[1] & 127
            if length > 125:
                length = int.from_bytes(read(2 if length == 126 else 8), "big")
            mask = read(4)
            data = bytes(b ^ mask[n % 4] for n, b in enumerate(read(length)))
            self.heard.append((start[0] & 15, data))
            if start[0] & 15 == 8:
                return
            if not begun:
                begun = True
                client.sendall(b"".join(self.frames))
                if not self.stays:
                    client.sendall(frame(8, b""))


def frame(opcode: int, payload: bytes, *, final: bool = True) -> bytes:
    size = len(payload)
    length = bytes([size]) if size < 126 else struct.pack(">BH", 126, size) if size < 65536 else \
        struct.pack(">BQ", 127, size)  # fmt: skip
    return bytes([(0x80 if final else 0) | opcode]) + length + payload
