"""Examples followed to the letter: the commands of a file's header, in its order, from the folder that it means.

    with follow("web", tmp_path) as steps:
        steps.until("hello")             # the console and what the program says, until a text is there
        steps.curl()                     # the next command is curl: run it, its output

Only port numbers of this machine change, so that tests do not lean on which of them are free, and `run` prints its
report, in which nothing may have failed.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from support.recordings import ROOT
from support.system import image_cache

_COMMAND = re.compile(r"^#   ([a-z].*?)(?:\s{2,}.*)?$", re.M)
_PUBLISH = re.compile(r"(--publish (?:127\.0\.0\.1:)?)(\d+)(:\d+)")


def commands(name: str) -> list[str]:
    """The commands of an example's header, without the remarks behind them."""
    text = (ROOT / f"examples/{name}.yml").read_text()
    header = text[: re.search(r"^[^#]", text, re.M).start()]  # type: ignore[union-attr]
    return _COMMAND.findall(header)


@dataclass
class Steps:
    """The commands on their way."""

    folder: Path
    rest: list[str]
    ports: dict[str, str] = field(default_factory=dict)
    said: str = ""
    child: subprocess.Popen[bytes] | None = None
    listener: threading.Thread | None = None
    home: Path | None = None

    def environment(self) -> dict[str, str]:
        found = {**os.environ, "LINUXKIT_CACHE": str(image_cache())}
        return found | ({"HOME": str(self.home)} if self.home is not None else {})

    def words(self, command: str) -> list[str]:
        for port in re.findall(r"--publish (?:127\.0\.0\.1:)?(\d+):", command):
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                self.ports[port] = str(probe.getsockname()[1])
        for port, free in self.ports.items():
            command = command.replace(f"127.0.0.1:{port}", f"127.0.0.1:{free}") if command[:5] == "curl " else command
        command = _PUBLISH.sub(lambda m: m[1] + self.ports[m[2]] + m[3], command)
        words = shlex.split(command)
        return [sys.executable, "-m", "linuxkit", *words[1:]] if words[0] == "linuxkit" else words

    def prepare(self) -> None:
        """Every command in front of the next `linuxkit run`."""
        while self.rest and not self.rest[0].startswith("linuxkit run"):
            done = self._run(self.rest.pop(0), 600)
            assert done.returncode == 0, done.stderr

    def _run(self, command: str, timeout: float) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.words(command), cwd=self.folder, env=self.environment(), text=True, timeout=timeout,
                              capture_output=True, stdin=subprocess.DEVNULL)  # fmt: skip

    def start(self, command: str = "") -> None:
        """`linuxkit run …`, in the foreground as a user has it."""
        self.said = ""
        words = self.words(command or self.rest.pop(0))
        words[4:4] = ["--report", "--settle", "1"]  # so that a failure that nobody looks for is seen
        self.child = subprocess.Popen(words, cwd=self.folder, env=self.environment(), stdin=subprocess.DEVNULL,
                                      stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip
        self.listener = threading.Thread(target=self._listen, args=(self.child,), daemon=True)
        self.listener.start()

    def _listen(self, child: subprocess.Popen[bytes]) -> None:
        assert child.stdout is not None
        while data := os.read(child.stdout.fileno(), 65536):
            self.said += data.decode("utf-8", "replace")

    def until(self, pattern: str, seconds: float = 120) -> re.Match[str]:
        """Wait for a text on the console or from the program."""
        end = time.monotonic() + seconds
        while (found := re.search(pattern, self.said)) is None:
            ended = self.child is None or self.child.poll() is not None
            assert time.monotonic() < end and not ended, f"{pattern!r} never came; the last lines:\n{self.said[-4000:]}"
            time.sleep(0.05)
        return found

    def booted(self, seconds: float = 120) -> None:
        """Wait for the boot report; nothing in it may have failed."""
        found = self.until(r"booted in [0-9.]+ s(.*)", seconds)
        assert "with failures" not in found[1], self.said[-4000:]

    def curl(self, seconds: float = 30) -> str:
        """The next command, which is curl, until it succeeds."""
        command = self.rest.pop(0)
        assert command.startswith("curl "), command
        end = time.monotonic() + seconds
        while (done := self._run(command, 20)).returncode:
            assert time.monotonic() < end, done.stderr + self.said[-4000:]
            time.sleep(0.2)
        return done.stdout

    def stop(self) -> None:
        """Ctrl-C: the guest shuts down, and everything is well."""
        assert self.child is not None
        self.child.send_signal(signal.SIGINT)
        try:
            status = self.child.wait(60)
        finally:
            self.kill()
        assert status == 0, f"status {status}:\n{self.said[-4000:]}"

    def kill(self) -> None:
        if self.child is None:
            return
        if self.child.poll() is None:
            self.child.kill()
            self.child.wait()
        if self.listener is not None:
            self.listener.join(10)
        if self.child.stdout is not None:
            self.child.stdout.close()


def cluster(name: str, folder: Path, change: Callable[[Path], None] = lambda examples: None) -> list[str]:
    """Run what a cluster's header says; the command that starts it, for the folder that holds examples/.

    Args:
        change: what else the copy of examples/ gets.
    """
    shutil.copytree(ROOT / "examples", folder / "examples")
    file = folder / f"examples/{name}.yml"
    file.write_text(file.read_text().replace('"8080:80"', '"127.0.0.1:0:80"'))
    change(folder / "examples")
    steps = Steps(folder, commands(name))
    steps.prepare()
    return steps.words(steps.rest[0])


@contextmanager
def follow(name: str, folder: Path, *, home: Path | None = None) -> Iterator[Steps]:
    """Run what an example's header says, up to its first `linuxkit run`, which is started."""
    shutil.copytree(ROOT / "examples", folder / "examples")
    shutil.copytree(ROOT / "kit", folder / "kit")
    steps = Steps(folder, commands(name), home=home)
    steps.prepare()
    try:
        steps.start()
        yield steps
    finally:
        steps.kill()
