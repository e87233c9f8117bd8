"""A machine for programs that play a hypervisor: its serial port is a socket, and it says what it hears."""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path


def main(where: str) -> None:
    Path(where).unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as port:
        port.bind(where)
        port.listen(1)
        line, _ = port.accept()
    line.sendall(b"hello from the guest\r\n")

    def button(*_: object) -> None:
        line.sendall(b"goodbye\r\n")
        os._exit(0)

    signal.signal(signal.SIGTERM, button)
    while data := line.recv(4096):
        line.sendall(b"heard: " + data)
        if b"halt" in data:
            button()


if __name__ == "__main__":
    main(sys.argv[1])
