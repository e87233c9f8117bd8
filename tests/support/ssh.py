"""ssh to machines under test: keys, the wait for a server, and commands over it."""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path

from linuxkit.machine.machine import Machine


def keypair(folder: Path, name: str = "id_ed25519") -> Path:
    """Make a key; the path of its private half."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True, timeout=20)
    return path


def port_of(machine: Machine, guest: int) -> int:
    """The port of this host that a port of the machine is published at."""
    return next(int(p.host) for p in machine.prepared.spec.ports if p.guest == guest)  # type: ignore[attr-defined]


def greeting(machine: Machine, guest: int, start: bytes, *, send: bytes = b"", seconds: float = 30) -> bytes:
    """Connect to a published port until it answers something that starts so.

    Raises:
        TimeoutError: it never did.
    """
    port, until, got = port_of(machine, guest), time.monotonic() + seconds, b""
    while time.monotonic() < until and machine.running:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=min(5, seconds)) as connection:
                connection.sendall(send)
                got = b""
                while len(got) < len(start) and (more := connection.recv(4096)):
                    got += more
                if got.startswith(start):
                    return got
        except OSError:
            pass
        time.sleep(0.05)
    raise TimeoutError(f"port {guest} of the machine answered {got[:100]!r}, not {start!r}")


def options(key: Path) -> list[str]:
    """Of ssh and sftp: this key alone, nothing of the user's own."""
    settings = ("IdentitiesOnly=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "BatchMode=yes",
                "LogLevel=ERROR", "ConnectTimeout=20")  # fmt: skip
    return ["-F", "none", "-i", str(key), *(word for setting in settings for word in ("-o", setting))]


def ssh(
    machine: Machine, key: Path, command: str, *, guest: int = 22, terminal: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run a command as the machine's root."""
    where = [*(["-tt"] if terminal else []), "-p", str(port_of(machine, guest)), "root@127.0.0.1"]
    arguments = ["ssh", *options(key), *where, command]
    return subprocess.run(arguments, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
