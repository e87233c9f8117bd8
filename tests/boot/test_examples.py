"""Every example that runs here, exactly as its header says: built, started, asked for its work, stopped by Ctrl-C.

Those of clouds are in test_kit_places.py; those of several machines in test_cluster.py, test_kit_docker.py (swarm) and
test_kit_network.py (tunnel).
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

from support.follow import commands, follow
from support.recordings import ROOT
from support.ssh import keypair, options

pytestmark = pytest.mark.boot
#: example → what its console says when it works, or what curl gets; the report is green in all of them
CONSOLE = {
    "addbinds": "login:", "containerd-debug": r"TRAC\S*\[", "dm-crypt": r"1 secrets on /dev/(dm-|mapper/)",
    "dm-crypt-loop": "# ", "getty": "login:", "hostmount-writeable-overlay": r"as built\r?\nchanged", "logging": "# ",
    "minimal": "service/hello .*running", "swap": r"/dev/(mapper|dm)\S*", "tpm": r"16\s*: 0x[0-9A-F]{64}",
    "volumes": r"the volume has \d\d\d? programs[\s\S]*began ", "wireguard": "through the tunnel: .*title",
}  # fmt: skip
CURL = {
    "containerd": "nginx", "influxdb-os": '"load"', "linuxkit": "nginx", "linuxkit-template": "nginx",
    "node_exporter": "node_load1", "static-ip": "nginx", "web": "It boots",
}  # fmt: skip
#: what is followed in a test of its own, here or elsewhere, and what cannot be here
OWN = {"data-disk", "docker", "kubernetes-node", "redis-os", "sshd"}
ELSEWHERE = {"cluster", "node", "swarm", "swarm-node", "tunnel", "tunnel-left", "tunnel-right", "openstack"}
VSOCK = {"docker-desktop", "vsudd-containerd"}  # need vhost_vsock of this machine's kernel


def test_every_example_has_its_place() -> None:
    names = {path.stem for path in (ROOT / "examples").glob("*.yml") if not path.stem.startswith("platform-")}
    assert names == CONSOLE.keys() | CURL.keys() | OWN | ELSEWHERE | VSOCK


@pytest.mark.parametrize("name", CONSOLE)
def test_the_console_says_that_it_works(name: str, tmp_path: Path) -> None:
    with follow(name, tmp_path) as steps:
        steps.until(CONSOLE[name])
        steps.booted()
        steps.stop()


@pytest.mark.parametrize("name", CURL)
def test_curl_gets_its_answer(name: str, tmp_path: Path) -> None:
    with follow(name, tmp_path) as steps:
        steps.booted()
        if not steps.rest:  # the header ends with `run`
            steps.rest.append(f"curl -sS http://127.0.0.1:{next(iter(steps.ports))}/")
        found = ""
        for _ in range(20):
            again = list(steps.rest)
            found = steps.curl()
            if CURL[name] in found:
                break
            steps.rest = again
            time.sleep(0.5)  # a database that is not filled yet
        assert CURL[name] in found
        steps.stop()
        if name == "linuxkit":
            assert "so long" in steps.said


def test_a_disk_that_stays_and_grows(tmp_path: Path) -> None:
    with follow("data-disk", tmp_path) as steps:
        run = commands("data-disk")[1]
        steps.booted()
        steps.until("boot number 1;")
        steps.stop()
        for command in steps.rest:
            subprocess.run(command.split(), cwd=tmp_path, check=True)
        steps.start(run)
        steps.until(r"boot number 2; 8\.0G; snapshots: 000001")
        steps.stop()


def test_docker_keeps_its_images(tmp_path: Path) -> None:
    with follow("docker", tmp_path) as steps:
        steps.booted()
        steps.until("has 0 images on /var/lib/docker")
        steps.stop()


def test_a_node_needs_a_kubelet_and_runs_it(tmp_path: Path) -> None:
    brought = tmp_path / "PATH"
    brought.mkdir()
    (brought / "kubelet").write_text("#!/bin/sh\necho the kubelet runs >/dev/console\nexec sleep 1000000\n")
    with follow("kubernetes-node", tmp_path) as steps:
        steps.booted(150)
        steps.until(r"service/kubelet .*running")
        steps.stop()
    (tmp_path / "examples/kubelet").unlink()
    shutil.rmtree(tmp_path / "out")
    build = commands("kubernetes-node")[2]
    done = steps._run(build, 60)
    assert done.returncode == 2
    assert "kubelet does not exist" in done.stderr


def test_redis_answers(tmp_path: Path) -> None:
    with follow("redis-os", tmp_path) as steps:
        steps.booted()
        (port,) = steps.ports.values()
        until, said = time.monotonic() + 60, b""
        while said != b"+PONG\r\n":  # it runs a moment before it listens
            assert time.monotonic() < until, said
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", int(port)), 20) as peer:
                peer.sendall(b"PING\r\n")
                said = peer.recv(64)
        steps.stop()


def test_a_login_with_the_users_key_and_none_without(tmp_path: Path) -> None:
    key = keypair(tmp_path / "home/.ssh")
    stranger = keypair(tmp_path / "other")
    with follow("sshd", tmp_path, home=tmp_path / "home") as steps:
        steps.booted()
        (port,) = steps.ports.values()
        words = steps.rest[0].replace("2222", port).split()
        assert words[0] == "ssh"
        for one, status in ((key, 0), (stranger, 255)):
            done = subprocess.run([words[0], *options(one), *words[1:], "true"], capture_output=True, timeout=60)
            assert done.returncode == status, done.stderr
        steps.stop()
