"""A folder over HTTP, for machines that boot from the network; so many at once, and no more."""

from __future__ import annotations

import socket
import ssl
import sys
import threading
from collections.abc import Callable
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

from linuxkit.errors import HostError, InputError
from linuxkit.serving import ipxe
from linuxkit.serving.handler import Handler
from linuxkit.serving.seats import CONNECTIONS, PATIENCE, Seat, Seats


class Server(ThreadingHTTPServer):
    """Serves until `shutdown` is called; `serve_forever` runs it.

    Args:
        address, port: where to listen; port 0 finds a free one, `self.server_port`.
        folder: what to serve.
        chosen: the system that /boot.ipxe boots; empty for a menu.
        log: called with a line for each request, from several threads.
        tls: makes it HTTPS.
        connections: how many clients it has at once.

    Raises:
        HostError: the address can't be listened on.
        InputError: the folder or the chosen system is not there.
    """

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128  # who comes waits there for no longer than it takes to give them a seat

    def __init__(
        self, address: str, port: int, folder: Path, *, chosen: str = "", log: Callable[[str], None] = lambda _: None,
        tls: ssl.SSLContext | None = None, connections: int = CONNECTIONS,
    ) -> None:  # fmt: skip
        if not folder.is_dir():
            raise InputError(f"there is no folder {folder} to serve")
        self.folder = folder.resolve()
        self.chosen, self.log, self.tls = chosen, log, tls
        if chosen and ipxe.script(self.folder, self.folder, chosen) is None:
            there = ", ".join(ipxe.systems(folder)[:8]) or "no kernel with an initrd, and no .efi"
            raise InputError(f"there is nothing to boot as {chosen!r} in {folder}", hint=f"there is: {there}")
        self.seats = Seats(connections, log)
        self._seated: dict[int, Seat] = {}
        if ":" in address:
            self.address_family = socket.AF_INET6
        try:
            super().__init__((address, port), Handler)
        except OSError as e:
            shown = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
            raise HostError(f"{shown} cannot be listened on: {e.strerror or e}", hint="choose another --port") from e

    def server_bind(self) -> None:  # without the look-up of a name that the standard library does
        if self.allow_reuse_address:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def serve_forever(self, poll_interval: float = 0.5) -> None:
        watcher = threading.Thread(target=self.seats.watch, daemon=True)
        watcher.start()
        try:
            super().serve_forever(poll_interval)
        finally:
            self.seats.close()
            watcher.join()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._seated[id(request)] = self.seats.take(request, str(client_address[0]))
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        seat = self._seated.pop(id(request))
        self.seats.sit(seat)
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.seats.leave(seat)

    def finish_request(self, request: Any, client_address: Any) -> None:
        request.settimeout(PATIENCE)
        if self.tls is None:
            super().finish_request(request, client_address)
            return
        with self.tls.wrap_socket(request, server_side=True) as wrapped:  # in the client's thread: it takes its time
            super().finish_request(wrapped, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away, was too slow or didn't speak TLS is a line in the log."""
        self.log(f"{client_address[0]} failed: {sys.exc_info()[1]}")
