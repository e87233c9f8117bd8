"""Docker in a machine, and three machines that are a swarm."""

from __future__ import annotations

import re
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from support.follow import cluster
from support.system import Build
from support.vm import boot

pytestmark = pytest.mark.boot
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

ASK = """\
  - name: ask
    image: kit://docker
    command: ["/bin/sh", "/etc/ask.sh"]
    binds.add: ["/etc/ask.sh:/etc/ask.sh:ro", "/dev/console:/dev/console"]
files:
  - path: etc/ask.sh
    contents: |
      exec >/dev/console 2>&1
      if docker info >/tmp/info; then echo "ready before it began"; fi
      until docker info >/tmp/info 2>/dev/null; do sleep 0.5; done
      grep -E 'Storage Driver|Backing Filesystem|Cgroup Version' /tmp/info
      tar c -C / bin | docker import - tools >/dev/null
      docker run --rm tools /bin/sh -c 'wget -q -T 9 -O - http://10.0.2.2:PORT/ || echo no way out; exit 7'
      echo "status $?"
      echo "that was all"
"""


def page(port: int, timeout: float) -> str:
    until = time.monotonic() + timeout
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as reply:
                return str(reply.read().decode())
        except (OSError, urllib.error.URLError):
            if time.monotonic() > until:
                raise
            time.sleep(0.3)


def test_docker_runs_containers_that_reach_the_network(build: Build, tmp_path: Path) -> None:
    import http.server

    (tmp_path / "index.html").write_text("the host answers\n")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(tmp_path))  # type: ignore[arg-type]

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        system = (EXAMPLES / "docker.yml").read_text() + ASK.replace("PORT", str(server.server_port))
        with boot(build(system), seconds=240, memory=2048, disks=("size=2G",)) as machine:
            machine.wait_booted(60)
            machine.wait_console("that was all", 200)
            said = machine.console
        server.shutdown()
    assert "ready before it began" not in said  # the negative control: nothing answers until the engine does
    assert "Storage Driver: overlay2" in said
    assert "Backing Filesystem: extfs" in said
    assert "Cgroup Version: 2" in said
    assert "status 7" in said
    assert "the host answers" in said


def test_three_machines_are_a_swarm(tmp_path: Path) -> None:
    errors, command = tmp_path / "errors", cluster("swarm", tmp_path)
    with errors.open("wb") as stream:
        child = subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                 stderr=stream, text=True)  # fmt: skip
    lines: list[str] = []
    watchdog = threading.Timer(300, child.kill)

    def wait(word: str) -> None:
        assert child.stdout is not None
        while not any(word in line for line in lines):
            lines.append(child.stdout.readline())
            assert lines[-1], errors.read_text()

    try:
        watchdog.start()
        wait("swarm: manager at 192.168.76.11")
        ports = [int(port) for port in re.findall(r"published: 127.0.0.1:(\d+)", errors.read_text())]
        assert len(ports) == 3
        for port in ports:  # the negative control
            with pytest.raises(OSError):
                page(port, timeout=0)
        wait("swarm: three nodes")
        wait("swarm: the service runs")
        assert sum(bool(re.search(r"swarm: 192\.168\.76\.1[23] joined", line)) for line in lines) == 2
        for port in ports:  # it runs on one of the three; the others hand on what they are asked
            assert page(port, timeout=60) == "served by the swarm\n"
        child.send_signal(signal.SIGINT)
        child.communicate(timeout=60)
        assert child.returncode == 0
    except BaseException:
        print(*lines, errors.read_text(), sep="")
        raise
    finally:
        watchdog.cancel()
        child.kill()
        child.wait()
