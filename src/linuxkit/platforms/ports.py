"""Published ports: is a port free, and which one is. Asked before QEMU starts, so that the answer is one clear line."""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from dataclasses import replace

from linuxkit.errors import HostError, InputError
from linuxkit.platforms.qemu import Port


def claim(ports: Sequence[Port]) -> tuple[Port, ...]:
    """The same ports, with a free one in place of every 0.

    The ports are all held at once while they are looked at, and released at the end: QEMU takes them a moment later.

    Raises:
        HostError: a port is in use, needs more rights, or its address is not one of this machine.
        InputError: a port is published twice.
    """
    held: list[socket.socket] = []
    result: list[Port] = []
    try:
        for port in ports:
            if any((p.protocol, p.host, p.address) == (port.protocol, port.host, port.address) for p in result):
                raise InputError(f"port {port.host}/{port.protocol} is published twice", hint="remove one --publish")
            try:
                held.append(_bind(port))
            except OSError as e:
                raise _explain(port, e) from e
            result.append(replace(port, host=held[-1].getsockname()[1]))
    finally:
        for probe in held:
            probe.close()
    return tuple(result)


def _bind(port: Port) -> socket.socket:
    kind = socket.SOCK_STREAM if port.protocol == "tcp" else socket.SOCK_DGRAM
    probe = socket.socket(socket.AF_INET, kind)
    try:
        if port.protocol == "tcp":  # as QEMU does: a connection in TIME_WAIT does not count
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((port.address, port.host))
        if port.protocol == "tcp":
            probe.listen(1)
    except BaseException:
        probe.close()
        raise
    return probe


def _explain(port: Port, error: OSError) -> HostError:
    shown = f"{port.address}:{port.host}" if port.address else str(port.host)
    if error.errno == errno.EADDRINUSE:
        return HostError(
            f"port {shown}/{port.protocol} is in use on this machine",
            hint=f"end what uses it, publish another ({port.host + 1 if port.host < 65535 else 8080}:{port.guest}), "
            f"or let a free one be found with 0:{port.guest}",
        )
    if error.errno == errno.EACCES:
        return HostError(
            f"port {shown}/{port.protocol} needs more rights than this user has",
            hint=f"ports below 1024 are for root; publish a higher one: {8000 + port.guest % 1000}:{port.guest}",
        )
    return HostError(f"port {shown}/{port.protocol} cannot be published: {error.strerror or error}",
                     hint="the address must be an IPv4 address of this machine")  # fmt: skip
