"""QEMU Machine Protocol: JSON objects, one a line, over a connected socket (docs/interop/qmp-spec in QEMU).

    server: {"QMP": …}                        greeting
    client: {"execute": "qmp_capabilities"}   then any command
    server: {"return": …} | {"error": {"class", "desc"}} | {"event": …, "data": …, "timestamp": …}

Not a general client: one command at a time, events are kept in order. Feeding and sending are apart, so that one
loop can serve this socket beside others.
"""

from __future__ import annotations

import json
from collections import deque
from typing import Any

from linuxkit.foreign import read_json

MAX_LINE = 1 << 20


class Qmp:
    """The protocol without the socket: `feed` what was read, send what `command` returns."""

    def __init__(self) -> None:
        self._partial = b""
        self.events: deque[dict[str, Any]] = deque()
        self.replies: deque[dict[str, Any]] = deque()
        self.ready = False

    @staticmethod
    def command(name: str, **arguments: Any) -> bytes:
        """The bytes of one command."""
        message: dict[str, Any] = {"execute": name}
        if arguments:
            message["arguments"] = arguments
        return json.dumps(message).encode() + b"\n"

    def feed(self, data: bytes) -> None:
        """Take bytes from QEMU. Anything that is not a JSON object is dropped."""
        lines = (self._partial + data).split(b"\n")
        self._partial = lines.pop()[-MAX_LINE:]
        for line in lines:
            try:
                message = read_json(line)
            except ValueError:
                continue
            if not isinstance(message, dict):
                continue
            if "QMP" in message:
                self.ready = True
            elif "event" in message:
                self.events.append(message)
            else:
                self.replies.append(message)
