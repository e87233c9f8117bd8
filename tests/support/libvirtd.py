"""A libvirt of the test's own: its daemon with folders and sockets of its own, as a user who is not root."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def libvirt_uri() -> Iterator[str]:
    """Where virsh finds it. libvirt of root is the system's only, so root's daemon runs as nobody."""
    folder = Path(tempfile.mkdtemp(prefix="lv-", dir="/tmp"))  # a socket's path has 107 bytes
    run, home = folder / "run", folder / "home"
    (folder / "conf").write_text("")
    command = ["/usr/sbin/libvirtd", "--config", str(folder / "conf"), "--timeout", "300"]
    user: dict[str, object] = {}
    for path in (run, home):
        path.mkdir()
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        for path in (folder, run, home):
            os.chown(path, nobody.pw_uid, nobody.pw_gid)
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "XDG_RUNTIME_DIR": str(run)}
    socket = run / "libvirt" / "libvirt-sock"
    with (folder / "log").open("wb") as log:
        daemon = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                  start_new_session=True, **user)  # type: ignore[call-overload]  # fmt: skip
    try:
        deadline = time.monotonic() + 20
        while not socket.exists():
            assert daemon.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.05)
        yield f"qemu+unix:///session?socket={socket}"
    finally:
        daemon.terminate()
        try:
            daemon.wait(20)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()
        shutil.rmtree(folder, ignore_errors=True)
