"""Connections whose other end may be slow on purpose: a limit on the whole of a header, and on each wait in a body.

The time limit of a socket counts from byte to byte, so a peer that sends one byte a second, or `100 Continue` without
end, is never late. Here a watch ends the connection at a given moment, whatever comes until then. It reaches into
urllib3, so it is imported when the first request goes out.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

FOREVER = 1e9  # seconds


class Watch:
    """Shuts a connection down when its moment has come. `expired` tells that from a peer that hung up."""

    def __init__(self, connection: Any, seconds: float) -> None:
        self._socket = getattr(connection, "socket", connection)  # of TLS within TLS: what is below
        self._end, self._step, self._done = time.monotonic() + seconds, seconds, threading.Event()
        self.expired = False
        threading.Thread(target=self._run, name="watch", daemon=True).start()

    def extend(self, seconds: float) -> None:
        """Let it last for so long from now on."""
        self._end = time.monotonic() + seconds

    def stop(self) -> None:
        """Let the connection live."""
        self._done.set()

    def _run(self) -> None:
        while (left := self._end - time.monotonic()) > 0:
            if self._done.wait(min(left, self._step)):  # the moment may have moved nearer by then
                return
        self.expired = True
        with suppress(OSError, TypeError):  # else it is closed already
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)  # a TLS socket's own would race with its reader


@contextmanager
def limited(connection: Any, seconds: float) -> Iterator[None]:
    """Do something with a connection for so long at most. Raises TimeoutError."""
    watch = Watch(connection, seconds)
    try:
        yield
    except Exception as e:
        if watch.expired:
            raise TimeoutError("the header is not whole in time") from e
        raise
    finally:
        watch.stop()
    if watch.expired:  # a header that was cut reads as one that has ended
        raise TimeoutError("the header is not whole in time")


class _Limited:
    """The header of an answer, and of a proxy's, within the connection's time limit."""

    sock: Any
    timeout: Any

    def getresponse(self) -> Any:
        connection = self.sock
        with limited(connection, self.timeout):
            response = super().getresponse()  # type: ignore[misc]
        response.watched = connection  # which this object may have let go of by now
        return response

    def _tunnel(self) -> None:
        with limited(self.sock, self.timeout):
            super()._tunnel()  # type: ignore[misc]


class Plain(_Limited, HTTPConnection):
    """HTTP."""


class Secure(_Limited, HTTPSConnection):
    """HTTPS."""


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = Plain


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = Secure


def watched(pools: urllib3.PoolManager) -> urllib3.PoolManager:
    """The same pools, with connections of this module."""
    pools.pool_classes_by_scheme = {"http": _PlainPool, "https": _SecurePool}
    return pools
