"""The private network between guests: an Ethernet switch in this process, whose cables are socket pairs.

QEMU's `-netdev socket,fd=N` sends every frame with its length in front (32 bits, big-endian). No port of the host is
opened, no other process can listen, no right is needed. The switch learns which address is behind which cable, and
answers DHCP. A guest that takes nothing loses frames, and stops nobody else.
"""

from __future__ import annotations

import os
import selectors
import socket
import struct
import threading
from collections.abc import Sequence

from linuxkit.cluster import dhcp

#: QEMU's largest frame; whoever sends a larger one is not QEMU.
MAX_FRAME = 4096 + 65536
#: Bytes that wait for one guest before frames to it are dropped.
ROOM = 1 << 20
MAX_ADDRESSES = 4096


class Cable:
    """One end is in the switch, the other in a machine: see machine.helper.Device."""

    def __init__(self, lease: dhcp.Lease | None = None) -> None:
        self.lease = lease
        self.ours, self._theirs = socket.socketpair()
        self.incoming, self.outgoing = bytearray(), bytearray()
        self.dropped = 0

    def start(self, state: object) -> tuple[None, socket.socket]:
        """QEMU's end, which belongs to the caller from now on."""
        return None, self._theirs

    def close(self) -> None:
        self.ours.close()
        self._theirs.close()


class Switch:
    """Connects its cables while the context is open. `cables` in the machines' order."""

    def __init__(self, leases: Sequence[dhcp.Lease | None]) -> None:
        self.cables = tuple(Cable(lease) for lease in leases)
        self._where: dict[bytes, Cable] = {}
        self._wake_read, self._wake_write = os.pipe()
        self._thread = threading.Thread(target=self._serve, name="switch", daemon=True)

    def __enter__(self) -> Switch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._wake_write)
        self._thread.join(5)
        for cable in self.cables:
            cable.close()
        os.close(self._wake_read)

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake_read, selectors.EVENT_READ)
            for cable in self.cables:
                cable.ours.setblocking(False)
                selector.register(cable.ours, selectors.EVENT_READ, cable)
            while True:
                for key, events in selector.select():
                    if key.data is None:
                        return
                    self._tend(selector, key.data, events)
                for cable in self.cables:
                    self._watch(selector, cable)

    def _tend(self, selector: selectors.BaseSelector, cable: Cable, events: int) -> None:
        try:
            if events & selectors.EVENT_WRITE and cable.outgoing:
                del cable.outgoing[: cable.ours.send(cable.outgoing)]
            if events & selectors.EVENT_READ:
                data = cable.ours.recv(1 << 18)
                if not data:
                    raise ConnectionResetError
                cable.incoming += data
                self._frames(cable)
        except BlockingIOError:
            pass
        except (OSError, ValueError):  # the machine has ended
            selector.unregister(cable.ours)
            cable.incoming.clear()
            cable.outgoing.clear()

    def _watch(self, selector: selectors.BaseSelector, cable: Cable) -> None:
        key = selector.get_map().get(cable.ours)
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if cable.outgoing else 0)
        if key is not None and key.events != wanted:
            selector.modify(cable.ours, wanted, cable)

    def _frames(self, cable: Cable) -> None:
        """Deal out every whole frame that came.

        Raises:
            ValueError: that is no frame.
        """
        data, at = cable.incoming, 0
        while len(data) - at >= 4:
            (size,) = struct.unpack_from("!I", data, at)
            if size > MAX_FRAME:
                raise ValueError(size)
            if len(data) - at - 4 < size:
                break
            self._deal(cable, bytes(data[at + 4 : at + 4 + size]))
            at += 4 + size
        del data[:at]

    def _deal(self, cable: Cable, frame: bytes) -> None:
        if len(frame) < 14:
            return
        target, source = frame[:6], frame[6:12]
        if not source[0] & 1:
            if source not in self._where and len(self._where) >= MAX_ADDRESSES:
                self._where.clear()
            self._where[source] = cable
        if cable.lease is not None and dhcp.is_request(frame):
            reply = dhcp.answer(frame, cable.lease)
            if reply is not None:
                _put(cable, reply)
            return  # nobody else has to do with it
        known = None if target[0] & 1 else self._where.get(target)
        for other in self.cables if known is None else (known,):
            if other is not cable:
                _put(other, frame)


def _put(cable: Cable, frame: bytes) -> None:
    if len(cable.outgoing) + len(frame) > ROOM:
        cable.dropped += 1
        return
    cable.outgoing += struct.pack("!I", len(frame)) + frame
