"""A client for WebSockets (RFC 6455), as much as a console over one needs: text both ways, no extensions.

    byte 0    FIN 1 bit, reserved 3 bits, opcode 4 bits: 0 goes on, 1 text, 2 binary, 8 close, 9 ping, 10 pong
    byte 1    MASK 1 bit, length 7 bits: 126 and 127 announce 2 and 8 bytes of length
    then      4 bytes of mask (from the client only), the payload
"""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import ssl
import struct
from urllib.parse import urlsplit

from linuxkit.errors import InputError, NetworkError

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
MAX_MESSAGE = 1 << 20
MAX_HEAD = 16 << 10


class ClosedError(NetworkError):
    """The other side has ended it."""


class WebSocket:
    """A connection. What is given after the host is not put into messages.

    Args:
        url: ws:// or wss://.
        timeout: seconds for connecting and for each frame once it has begun.

    Raises:
        NetworkError: nobody answers there, or not in this protocol.
    """

    def __init__(self, url: str, *, timeout: float = 15.0) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("ws", "wss") or not parts.hostname:
            raise InputError(f"'{parts.scheme}://{parts.netloc}' is not the address of a WebSocket")
        self._host, self._timeout, self._buffer = parts.netloc, timeout, b""
        try:
            plain = socket.create_connection((parts.hostname, parts.port or (443 if parts.scheme == "wss" else 80)),
                                             timeout)  # fmt: skip
            self._socket = plain if parts.scheme == "ws" else \
                ssl.create_default_context().wrap_socket(plain, server_hostname=parts.hostname)  # fmt: skip
            try:
                self._begin(parts.path or "/")
            except BaseException:
                self._socket.close()
                raise
        except (OSError, ssl.SSLError) as e:
            raise NetworkError(f"{self._host} cannot be reached: {e.strerror or e}", temporary=True) from e

    def send(self, text: str) -> None:
        """A message."""
        self._frame(1, text.encode())

    def receive(self, wait: float) -> bytes | None:
        """The next message; None when none begins within `wait` seconds.

        Raises:
            ClosedError: it is over.
            NetworkError: what comes is not this protocol, or too long.
        """
        message = b""
        while True:
            self._socket.settimeout(wait if not message else self._timeout)
            try:
                if not self._buffer:
                    self._more()
            except TimeoutError:
                if message:
                    raise ClosedError(f"{self._host} stopped in the middle of a message") from None
                return None
            self._socket.settimeout(self._timeout)
            final, opcode, payload = self._read_frame()
            if opcode == 9:
                self._frame(10, payload)
            elif opcode == 8:
                raise ClosedError(f"{self._host} closed the connection")
            elif opcode in (0, 1, 2):
                message += payload
                if len(message) > MAX_MESSAGE:
                    raise NetworkError(f"{self._host} sends a message that is too long")
                if final:
                    return message

    def close(self) -> None:
        """Say so, and go."""
        try:
            self._frame(8, struct.pack(">H", 1000))
        except NetworkError:
            pass
        self._socket.close()

    def _begin(self, path: str) -> None:
        key = base64.b64encode(os.urandom(16))
        self._socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: {self._host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key.decode()}\r\n\r\n".encode()
        )
        while b"\r\n\r\n" not in self._buffer:
            if len(self._buffer) > MAX_HEAD:
                raise NetworkError(f"{self._host} answers too much")
            self._more()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        headers = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
        wanted = base64.b64encode(hashlib.sha1(key + GUID).digest()).decode()
        if status.split()[1:2] != ["101"] or headers.get("sec-websocket-accept") != wanted:
            raise NetworkError(f"{self._host} does not open a WebSocket: {status[:80]}")

    def _read_frame(self) -> tuple[bool, int, bytes]:
        first, second = self._take(2)
        length = second & 127
        if length > 125:
            length = int.from_bytes(self._take(2 if length == 126 else 8), "big")
        if first & 0x70 or second & 0x80 or length > MAX_MESSAGE:
            raise NetworkError(f"{self._host} sends what no WebSocket sends")
        return bool(first & 0x80), first & 15, self._take(length)

    def _take(self, count: int) -> bytes:
        try:
            while len(self._buffer) < count:
                self._more()
        except TimeoutError:
            raise ClosedError(f"{self._host} stopped in the middle of a message") from None
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken

    def _more(self) -> None:
        try:
            data = self._socket.recv(64 << 10)
        except TimeoutError:
            raise
        except OSError as e:
            raise ClosedError(f"the connection to {self._host} broke: {e.strerror or e}") from e
        if not data:
            raise ClosedError(f"{self._host} closed the connection")
        self._buffer += data

    def _frame(self, opcode: int, payload: bytes) -> None:
        mask = os.urandom(4)
        size = len(payload)
        length = bytes([0x80 | size]) if size < 126 else struct.pack(">BH", 0xFE, size) if size < 65536 else \
            struct.pack(">BQ", 0xFF, size)  # fmt: skip
        masked = bytes(b ^ mask[n & 3] for n, b in enumerate(payload))
        try:
            self._socket.sendall(bytes([0x80 | opcode]) + length + mask + masked)
        except OSError as e:
            raise ClosedError(f"the connection to {self._host} broke: {e.strerror or e}") from e
