"""Debian's docker-registry on loopback, plain or with basic authentication, and the tools that talk to it."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def tool(name: str) -> str:
    """The full path of a program that tools/setup.sh brings. Without it the test fails: it has shown nothing."""
    found = shutil.which(name)
    assert found is not None, f"{name} is not installed; tools/setup.sh test installs it"
    return found


def run(*command: str | Path, stdin: str = "") -> str:
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=60, input=stdin)
    assert done.returncode == 0, done.stderr
    return done.stdout


def skopeo(*arguments: str | Path) -> str:
    return run(tool("skopeo"), "--insecure-policy", *arguments)


@contextmanager
def docker_registry(folder: Path, login: tuple[str, str] | None = None) -> Iterator[str]:
    """A registry that keeps its files in `folder`; yields host:port."""
    folder.mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{free.getsockname()[1]}"
    config = {
        "version": "0.1", "log": {"level": "error", "accesslog": {"disabled": True}}, "http": {"addr": host},
        "storage": {"filesystem": {"rootdirectory": str(folder / "files")}, "delete": {"enabled": True}},
    }  # fmt: skip
    if login:
        users = folder / "htpasswd"
        users.write_text(run(tool("htpasswd"), "-niB", login[0], stdin=login[1]))
        config["auth"] = {"htpasswd": {"realm": "test", "path": str(users)}}
    (folder / "config.yml").write_text(json.dumps(config))
    with (folder / "log").open("wb") as log, \
            subprocess.Popen([tool("docker-registry"), "serve", str(folder / "config.yml")], stdout=log,
                             stderr=log) as server:  # fmt: skip
        try:
            for _ in range(200):
                assert server.poll() is None, (folder / "log").read_text()
                try:
                    urllib.request.urlopen(f"http://{host}/v2/", timeout=5).close()
                    break
                except urllib.error.HTTPError as e:
                    e.close()
                    break
                except OSError:
                    time.sleep(0.05)
            yield host
        finally:
            server.terminate()
