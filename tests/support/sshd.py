"""Debian's sshd on loopback, for one user and one key at a time."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Sshd:
    """`keys` is its authorized_keys: written by the test when the cloud would."""

    port: int
    user: str
    keys: Path


@contextmanager
def sshd(folder: Path) -> Iterator[Sshd]:
    program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    assert program is not None, "openssh-server is missing: tools/setup.sh test"
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where sshd of root locks itself in
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "host"], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    keys = folder / "authorized_keys"
    (folder / "config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder / 'host'}\nPidFile none\nUsePAM no\nStrictModes no\n"
        f"AuthorizedKeysFile {keys}\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n"
    )
    with (folder / "log").open("wb") as log, subprocess.Popen(
        [program, "-D", "-e", "-f", folder / "config"], stdout=log, stderr=log
    ) as server:
        try:
            for _ in range(100):
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                except OSError:
                    assert server.poll() is None, (folder / "log").read_text()
                    time.sleep(0.05)
            yield Sshd(port, getpass.getuser(), keys)
        finally:
            server.terminate()
