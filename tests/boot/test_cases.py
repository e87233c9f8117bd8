"""What LinuxKit's own tests boot machines for, as far as no other test of ours does: docs/design/test-cases.md."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from linuxkit.machine.machine import Machine
from linuxkit.oci.store import Store
from linuxkit.packages.kit import Kit
from support.peers import docker_registry
from support.system import CONTAINERD, CRUN, Build, image_cache, linuxkit
from support.vm import boot, cache_dir

pytestmark = pytest.mark.boot
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
DHCP = {
    "name": "dhcpcd", "image": "kit://dhcpcd", "command": ["/sbin/dhcpcd", "--nobackground", "-f", "/dhcpcd.conf", "-1"]
}  # fmt: skip


def stress_program() -> Path:
    """The static program of netstress.c, compiled once for its source."""
    source = Path(__file__).resolve().parents[1] / "support/netstress.c"
    kept = cache_dir() / f"netstress-{hashlib.sha256(source.read_bytes()).hexdigest()[:16]}"
    if not kept.exists():
        partial = kept.with_name(f"{kept.name}.{os.getpid()}")
        command = [sys.executable, "-m", "ziglang", "cc", "-target", "x86_64-linux-musl", "-static", "-Os"]
        subprocess.run([*command, "-Wall", "-Wextra", "-Werror", "-o", partial, source], check=True, timeout=300)
        partial.replace(kept)
    return kept


def run(name: str, script: str, image: str = "kit://busybox", **keys: Any) -> dict[str, Any]:
    """An onboot entry that runs some shell."""
    return {"name": name, "image": image, "command": ["/bin/sh", "-c", script], **keys}


def system(head: str, **sections: Any) -> str:
    return head + yaml.safe_dump(sections, sort_keys=False)


def statuses(machine: Machine) -> dict[str, int | None]:
    """What the onboot containers ended with."""
    return {step.name[11:]: step.status for step in machine.report.steps if step.name.startswith("onboot/")}


#: ends with 0 when nothing listens
CLOSED = """\
open=$(awk 'FNR > 1 && $4 == "0A"' /proc/net/tcp /proc/net/tcp6; awk 'FNR > 1' /proc/net/udp /proc/net/udp6)
[ -z "$open" ]
"""
#: two namespaces, and a wire between them
STRESS = """\
set -e
ip netns add left && ip netns add right
ip link add one type veth peer name two
ip link set one netns left && ip link set two netns right
ip -n left address add 10.1.1.1/24 dev one && ip -n right address add 10.1.1.2/24 dev two
ip -n left address add fd00::1/64 dev one nodad && ip -n right address add fd00::2/64 dev two nodad
ip -n left link set one up && ip -n right link set two up
n=0; until ip netns exec left ping -c 1 -W 1 fd00::2 >/dev/null; do n=$((n + 1)); [ $n -lt 20 ]; done
between="/run/netns/left /run/netns/right 10.1.1.1 10.1.1.2 fd00::1 fd00::2"
/netstress $between
ip -n left link set one down
! /netstress $between tcp4-short-one-forward
"""
WRITE = "echo {} >> /v/file"


def test_ports_control_groups_certificates_volumes_and_sockets_between_namespaces(build: Build) -> None:
    groups = {"binds": ["/sys/fs/cgroup:/groups:ro"]}
    by_name = {"type": "bind", "source": "vol", "destination": "/v", "options": ["rw", "rbind"]}
    onboot = [
        DHCP,
        run("closed", CLOSED),
        run("listener", "nc -l -p 9999 & sleep 0.5; " + CLOSED),  # the control: it would be seen
        run("groups", "grep -q ' /groups cgroup2 ' /proc/mounts && test -e /groups/ours/cgroup.procs",
            runtime={"cgroups": ["ours"]}, **groups),
        run("no-groups", "test -e /groups/theirs/cgroup.procs", **groups),
        run("certificates", "test $(grep -c 'BEGIN CERT' /certs/ca-certificates.crt) -gt 100",
            binds=["/etc/ssl/certs:/certs"]),
        run("binds", WRITE.format("binds"), binds=["vol:/v"]),
        run("mounts", WRITE.format("mounts"), mounts=[by_name]),
        run("binds-add", WRITE.format("binds.add"), **{"binds.add": ["vol:/v"]}),
        run("read-only", "test -e /v/file && ! echo x >> /v/file", mounts=[by_name | {"options": ["ro", "rbind"]}]),
        run("all", "test \"$(echo $(cat /v/file))\" = 'binds mounts binds.add'", binds=["vol:/v"]),
        run("stress", STRESS, image="kit://ip", capabilities=["all"], binds=["/netstress:/netstress"]),
    ]  # fmt: skip
    files = [{"path": "netstress", "source": str(stress_program()), "mode": "0755"}]
    text = system(CRUN + "  - kit://ca-certificates\n", onboot=onboot, files=files, volumes=[{"name": "vol"}])
    with boot(build(text), seconds=120) as machine:
        machine.wait_booted(100)
        found = statuses(machine)
        assert {name for name, status in found.items() if status != 0} == {"listener", "no-groups"}
        assert len(found) == len(onboot)
        assert "60 cases good, 0 bad; 100 clients at once, 0 of them bad" in machine.console
        assert re.search("FAULT tcp4-short-one-forward: connect", machine.console)
        assert machine.power_off(20).off


def test_from_a_login_with_a_password_to_a_container_of_a_registry(build: Build, tmp_path: Path) -> None:
    """Under containerd: its options are on its command line, and ctr pulls an image and runs it."""
    example = yaml.safe_load((EXAMPLES / "getty.yml").read_text())
    options = {"path": "etc/containerd/runtime-config.toml", "contents": 'cliopts = "--log-level warn"\n'}
    text = system(CONTAINERD, onboot=[DHCP], services=example["services"], files=[*example["files"], options])
    prefix = build(text)
    assert linuxkit("kit", "build", "busybox").returncode == 0
    store = Store(image_cache())
    name = Kit(store, store.root / "kit").reference("busybox")
    with docker_registry(tmp_path / "registry") as host:
        pushed = linuxkit("cache", "push", name, "--remote-name", f"{host}/test/busybox:1")
        assert pushed.returncode == 0, pushed.stderr
        image = f"10.0.2.2:{host.rpartition(':')[2]}/test/busybox:1"
        with boot(prefix, seconds=150) as machine:
            machine.wait_booted(100)
            machine.wait_console("login: ", 30)
            machine.send(b"root\n")
            machine.wait_console("Password: ", 20)
            machine.send(b"linuxkit\n")
            machine.wait_console(r"\(ns: getty\) .*# ", 20)
            machine.send(b"ps | grep -o 'containerd .*[l]og-level warn'; echo the-o''ptions\n")
            machine.wait_console(r"\scontainerd [^\n]*-level warn\s+the-options", 20)
            machine.send(f"ctr images pull --plain-http {image}; ctr images ls -q; echo pu''lled\n".encode())
            machine.wait_console(rf"\n{image}\s+pulled", 60)
            ctr = f"ctr run --rm {image} one /bin/sh -c 'echo runs-$((40+2)); exit 5'; echo st''atus $?\n"
            machine.send(ctr.encode())
            machine.wait_console(r"runs-42\s+status 5", 60)
            machine.send(f"ctr run --rm {image}0 two /bin/true; echo st''atus $?\n".encode())  # there is no such image
            machine.wait_console(r"status 1", 30)
            assert machine.power_off(30).off
