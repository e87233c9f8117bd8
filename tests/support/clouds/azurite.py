"""Azurite, Microsoft's own engine of Azure's blobs: installed once by npm, started on loopback, without telemetry.

    with azurite(folder) as storage:                # storage.url, storage.account, storage.key
        storage.read("container", "blob")           # with a signature of its own
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import hmac
import http.client
import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from urllib.parse import urlsplit

VERSION = "3.35.0"
_CACHE = Path(os.environ.get("LINUXKIT_TEST_CACHE") or Path.home() / ".cache" / "linuxkit-tests")
ROOT = _CACHE / "npm" / f"azurite-{VERSION}"
PROGRAM = ROOT / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"


@dataclass(frozen=True)
class Storage:
    """A running Azurite with one account."""

    url: str
    account: str
    key: str

    @property
    def endpoint(self) -> str:
        return f"{self.url}/{self.account}"

    def ask(self, method: str, path: str, headers: dict[str, str] | None = None
            ) -> tuple[int, dict[str, str], bytes]:  # fmt: skip
        """A request below the account, without a query but restype, comp and prefix."""
        sent = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2023-11-03", **(headers or {})}
        bare, _, query = path.partition("?")
        own = "".join(f"{k}:{sent[k]}\n" for k in sorted(sent) if k.startswith("x-ms-"))
        asked = "".join(f"\n{part.replace('=', ':')}" for part in sorted(query.split("&")) if part)
        text = f"{method}{chr(10) * 12}{own}/{self.account}/{self.account}{bare}{asked}"
        digest = hmac.new(base64.b64decode(self.key), text.encode(), hashlib.sha256).digest()
        sent["authorization"] = f"SharedKey {self.account}:{base64.b64encode(digest).decode()}"
        parts = urlsplit(self.url)
        there = http.client.HTTPConnection(parts.netloc, timeout=30) if parts.scheme == "http" else \
            http.client.HTTPSConnection(parts.netloc, timeout=30, context=ssl._create_unverified_context())  # fmt: skip
        there.request(method, f"/{self.account}{path}", headers=sent)
        answer = there.getresponse()
        data = answer.read()
        there.close()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, data

    def read(self, container: str, blob: str) -> bytes | None:
        status, _, data = self.ask("GET", f"/{container}/{blob}")
        return data if status == 200 else None

    def names(self, container: str) -> list[str]:
        data = self.ask("GET", f"/{container}?comp=list&restype=container")[2].decode()
        return [part.partition("</Name>")[0] for part in data.split("<Name>")[1:]]


def install() -> None:
    """Once for all tests; whoever comes second waits."""
    node, npm = shutil.which("node"), shutil.which("npm")
    assert node and npm, "node and npm are needed: tools/setup.sh test"
    ROOT.mkdir(parents=True, exist_ok=True)
    with (ROOT / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (ROOT / "whole").exists():
            command = [npm, "install", "--no-audit", "--no-fund", "--no-save", "--ignore-scripts", "--omit=dev",
                       "--prefix", str(ROOT), f"azurite@{VERSION}"]  # fmt: skip
            subprocess.run(command, check=True, timeout=300, capture_output=True, cwd=ROOT)
            (ROOT / "whole").touch()


@contextmanager
def azurite(folder: Path, *more: str) -> Iterator[Storage]:
    """A running one, that keeps everything in memory."""
    install()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    key = base64.b64encode(b"a key for the tests only".ljust(64, b".")).decode()
    command = ["node", str(PROGRAM), "--blobPort", str(port), "--inMemoryPersistence", "--silent",
               "--disableTelemetry", *more]  # fmt: skip
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "AZURITE_ACCOUNTS": f"images:{key}"}
    with (folder / "azurite.log").open("wb") as log, subprocess.Popen(
        command, stdout=log, stderr=log, env=environment, cwd=folder
    ) as server:
        try:
            for _ in range(300):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                assert server.poll() is None, (folder / "azurite.log").read_text()
                time.sleep(0.1)
            yield Storage(f"{'https' if '--cert' in more else 'http'}://127.0.0.1:{port}", "images", key)
        finally:
            server.terminate()
