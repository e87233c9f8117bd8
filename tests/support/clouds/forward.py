"""Standard input and output to a port of this machine: what QEMU's guestfwd starts for each connection of a guest."""

import os
import socket
import sys
import threading


def main() -> None:
    with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as server:

        def ask() -> None:
            while data := os.read(0, 65536):
                server.sendall(data)

        threading.Thread(target=ask, daemon=True).start()
        while data := server.recv(65536):
            os.write(1, data)


if __name__ == "__main__":
    main()
