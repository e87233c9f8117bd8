"""Who is connected, and who has to go: the bounds on a server's clients.

A client waits (its request isn't whole yet) or takes (an answer is being sent). Each has a time for the whole of that,
however it spreads its bytes; when all seats are taken, the slowest gives its seat to who comes.
"""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

CONNECTIONS = 64
#: Seconds in which the first request has to be whole, its TLS included; and each later one, from the end of the last.
FIRST, NEXT = 10.0, 30.0
#: An answer may take PATIENCE seconds, and one more for each RATE bytes that are sent.
PATIENCE, RATE = 30.0, 8192


@dataclass(eq=False)
class Seat:
    """One client. `connection` is a second handle of its socket, for TLS takes over the first.

    `since`: when what it does now began; `sent`: bytes of the answer.
    """

    connection: socket.socket
    address: str
    since: float = field(default_factory=time.monotonic)
    until: float = FIRST
    taking: bool = False
    sent: int = 0

    def late(self, now: float) -> bool:
        """Whether its time is over."""
        return now - self.since > (PATIENCE + self.sent / RATE if self.taking else self.until)

    def pace(self, now: float) -> tuple[bool, float]:
        """What the slowest has least of: an answer at all, then bytes of it in a second, or time that is left."""
        if self.taking:
            return True, self.sent / max(now - self.since, 0.1)
        return False, self.since + self.until - now


class Seats:
    """The seats of a server.

    Args:
        most: how many there are.
        log: told whom it sends away.
    """

    def __init__(self, most: int = CONNECTIONS, log: Callable[[str], None] = lambda _: None) -> None:
        self._most, self._log = most, log
        self._taken: set[Seat] = set()
        self._lock, self._own, self._end = threading.Lock(), threading.local(), threading.Event()

    def watch(self) -> None:
        """Send away who is late, until `close`; to be run in a thread."""
        while not self._end.wait(0.5):
            now = time.monotonic()
            with self._lock:
                late = [seat for seat in self._taken if seat.late(now)]
            for seat in late:
                self._away(seat, "it took too long")

    def close(self) -> None:
        self._end.set()

    def take(self, connection: socket.socket, address: str) -> Seat:
        """A seat for a new client; when there is none, that of the slowest of whoever has most of them."""
        now, slowest = time.monotonic(), None
        with self._lock:
            if len(self._taken) >= self._most:
                many = Counter(seat.address for seat in self._taken)
                most = max(many.values())
                slowest = min((s for s in self._taken if many[s.address] == most), key=lambda s: s.pace(now))
                self._taken.discard(slowest)
            seat = Seat(connection.dup(), address, until=FIRST)
            self._taken.add(seat)
        if slowest is not None:
            self._away(slowest, f"{self._most} connections are open, and it is the slowest")
        return seat

    def leave(self, seat: Seat) -> None:
        with self._lock:
            self._taken.discard(seat)
            seat.connection.close()

    # -- from the client's own thread

    def sit(self, seat: Seat) -> None:
        """The seat that the calls below are about."""
        self._own.seat = seat

    def waits(self) -> None:
        """The next request is waited for."""
        seat = self._own.seat
        if seat.taking:
            seat.since, seat.until, seat.taking, seat.sent = time.monotonic(), NEXT, False, 0

    def takes(self) -> None:
        """The answer begins."""
        seat = self._own.seat
        seat.since, seat.taking, seat.sent = time.monotonic(), True, 0

    def sent(self, count: int) -> None:
        self._own.seat.sent += count

    def _away(self, seat: Seat, why: str) -> None:
        with self._lock:
            self._taken.discard(seat)
            with suppress(OSError):  # it went by itself
                seat.connection.shutdown(socket.SHUT_RDWR)
        self._log(f"{seat.address} sent away: {why}")
