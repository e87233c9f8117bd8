"""The kit's packages for the network and for applications: the examples, and what is asked of them from outside.

A machine holds what several examples say, because a boot costs more than all that is looked at in it.
"""

from __future__ import annotations

import hashlib
import json
import re
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from linuxkit.machine.machine import Machine
from support.follow import cluster
from support.ssh import greeting, keypair, options, port_of, ssh
from support.system import Build
from support.vm import boot, cache_dir

pytestmark = pytest.mark.boot
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def together(*names: str, extra: str = "", **kernel: str) -> str:
    """One system of several examples and some more YAML; what two of them have is there once."""
    whole: dict[str, Any] = {}
    for text in (*((EXAMPLES / f"{name}.yml").read_text() for name in names), extra):
        for key, value in (yaml.safe_load(text) or {}).items():
            if isinstance(value, list):
                whole.setdefault(key, []).extend(item for item in value if item not in whole.get(key, []))
            else:
                whole[key] = value
    whole["kernel"] |= kernel
    return yaml.safe_dump(whole, sort_keys=False)


def devices(*arguments: str) -> Callable[[list[str]], list[str]]:
    return lambda command: [*command, *arguments]


def fetch(machine: Machine, guest: int, path: str = "/", seconds: float = 20) -> str:
    """A page of the machine, once it is there."""
    address, until = f"http://127.0.0.1:{port_of(machine, guest)}{path}", time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(address, timeout=5) as reply:
                return str(reply.read().decode())
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


# -- applications, and what stands behind them

MORE = """
onboot:
  - name: vmtools
    image: kit://open-vm-tools
    command: ["/bin/sh", "-c", "vmware-toolbox-cmd -v 2>&1 || echo and ends with $?"]
services:
  - name: qemu-ga
    image: kit://qemu-ga
"""


class Agent:
    """The host's end of QEMU's guest agent."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(20)
        self._socket.connect(str(path))
        self._lines = self._socket.makefile("rb")

    def close(self) -> None:
        self._lines.close()
        self._socket.close()

    def send(self, command: str, **arguments: object) -> None:
        words: dict[str, object] = {"execute": command} | ({"arguments": arguments} if arguments else {})
        self._socket.sendall(json.dumps(words).encode() + b"\n")

    def ask(self, command: str, **arguments: object) -> dict[str, Any]:
        self.send(command, **arguments)
        answer = json.loads(self._lines.readline())
        assert isinstance(answer, dict)
        return answer


def test_ssh_redis_metrics_influxdb_a_tpm_and_the_guest_agent(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, wrong = keypair(tmp_path / "home" / ".ssh"), keypair(tmp_path, "wrong")
    monkeypatch.setenv("LINUXKIT_TEST_CACHE", str(cache_dir()))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))  # where sshd.yml looks for the key
    apps = ("sshd", "redis-os", "node_exporter", "influxdb-os", "tpm")
    prefix = build(together(*apps, extra=MORE, tar="kernel-min.tar"))
    port = tmp_path / "agent"
    agent = devices("-chardev", f"socket,path={port},server=on,wait=off,id=agent",
                    "-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0")  # fmt: skip
    published = tuple(f"127.0.0.1:0:{n}" for n in (22, 6379, 8086, 9100))
    with boot(prefix, seconds=200, publish=published, tpm=True, change=agent) as machine:
        report = machine.wait_booted(100)
        assert report.ok
        # the TPM did the same sum as we do
        measured = hashlib.sha256(b"what this machine is\n").digest()
        register = hashlib.sha256(bytes(32) + measured).hexdigest().upper()
        assert register in machine.console
        assert re.search(r"must be run inside a virtual machine\.\s+and ends with 1", machine.console)  # not on VMware
        check_ssh(machine, key, wrong, tmp_path)
        check_redis(machine)
        metrics = fetch(machine, 9100, "/metrics")
        (total,) = re.findall(r"^node_memory_MemTotal_bytes ([0-9.e+]+)$", metrics, re.MULTILINE)
        assert 800 << 20 < float(total) < 1024 << 20
        assert 'node_filesystem_size_bytes{device="tmpfs",device_error="",fstype="tmpfs",mountpoint="/var"}' in metrics
        check_influxdb(machine)
        check_agent(machine, port)


def check_ssh(machine: Machine, key: Path, wrong: Path, folder: Path) -> None:
    greeting(machine, 22, b"SSH-2.0-")
    inside = ssh(machine, key, "id -u; service status; ip -4 -o addr show eth0; exit 7")
    assert inside.returncode == 7, inside.stderr
    assert inside.stdout.startswith("0\n")
    assert "sshd" in inside.stdout  # service is the machine's own program
    assert "inet 10.0.2.15/24" in inside.stdout  # from dhcpcd
    keys = ssh(machine, key, "ls /etc/ssh/*_key /etc/ssh/keys/*_key 2>/dev/null")
    assert keys.stdout == "/etc/ssh/keys/ssh_host_ed25519_key\n"  # only the one that is made at once
    assert ssh(machine, key, "tty", terminal=True).stdout.startswith("/dev/pts/")
    refused = ssh(machine, wrong, "true")
    assert refused.returncode == 255
    assert "Permission denied (publickey)" in refused.stderr
    (folder / "batch").write_text(f"get /etc/ssh/sshd_config {folder}/got\n")
    command = ["sftp", *options(key), "-b", str(folder / "batch"), "-P", str(port_of(machine, 22)), "root@127.0.0.1"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    assert "PasswordAuthentication no" in (folder / "got").read_text()


def check_redis(machine: Machine) -> None:
    greeting(machine, 6379, b"+PONG\r\n", send=b"PING\r\n")
    with socket.create_connection(("127.0.0.1", port_of(machine, 6379)), timeout=10) as client:
        client.sendall(b"SET color green\r\nGET color\r\nGET shade\r\nNOSUCH\r\n")
        answer = b""
        while b"unknown command" not in answer:
            answer += (more := client.recv(4096))
            assert more, answer
    assert answer.startswith(b"+OK\r\n$5\r\ngreen\r\n$-1\r\n-ERR")


def check_influxdb(machine: Machine) -> None:
    until, answer = time.monotonic() + 20, ""
    while '"one"' not in answer:
        assert time.monotonic() < until, answer
        answer = fetch(machine, 8086, "/query?q=SELECT+*+FROM+machine..load")
    (series,) = json.loads(answer)["results"][0]["series"]
    assert series["columns"] == ["time", "fifteen", "five", "one"]
    assert series["values"]
    assert "error" in json.loads(fetch(machine, 8086, "/query?q=SELECT+*+FROM+elsewhere..load"))["results"][0]


def check_agent(machine: Machine, path: Path) -> None:
    agent = Agent(path)
    try:
        assert agent.ask("guest-ping") == {"return": {}}
        assert agent.ask("guest-get-host-name")["return"]["host-name"].startswith("linuxkit-")
        addresses = json.dumps(agent.ask("guest-network-get-interfaces"))
        assert "10.0.2.15" in addresses
        assert "error" in agent.ask("guest-no-such-thing")
        agent.send("guest-shutdown")
        assert machine.wait(60).off
    finally:
        agent.close()


# -- the network

EXTRA = """
onboot:
  - name: time
    image: kit://ip
    command: ["nft", "add table ip t; add chain ip t out { type nat hook output priority -100; }; RULE"]
services:
  - name: other
    image: kit://busybox
    capabilities: [CAP_NET_BIND_SERVICE]
    command: ["/bin/sh", "-c", "mkdir -p /tmp/www; echo open >/tmp/www/index.html; exec httpd -f -p 81 -h /tmp/www"]
  - name: look
    image: kit://ip
    binds: ["/dev/console:/dev/console"]
    command: ["/bin/sh", "-c", LOOK]
  - name: openntpd
    image: kit://openntpd
    command: ["/usr/sbin/ntpd", "-d", "-s", "-f", "/etc/here/ntpd.conf"]
    binds.add: ["/etc/here:/etc/here:ro"]
  - name: tcsd
    image: kit://tss
  - name: tpm-version
    image: kit://tss
    command: ["/bin/sh", "-c", "until tpm_version >/tmp/v; do sleep 0.3; done; cat /tmp/v >/dev/console"]
files:
  - path: etc/here/ntpd.conf
    mode: "0644"
    contents: "server 10.0.2.2\\n"
"""
LOOK = """\
until wget -q -T 2 -O /tmp/got http://127.0.0.1:81/; do sleep 0.2; done
sed 's/^/port 81 of the machine itself is /' /tmp/got >/dev/console
wget -q -T 1 -O - http://192.168.2.1/ || echo 'no way around the tunnel' >/dev/console
iptables -A OUTPUT -p tcp --dport 9 -m comment --comment ours -j REJECT
iptables-save | sed -n 's/^-A/rule:/p' >/dev/console
ebtables -A FORWARD -p arp -j DROP && ebtables -L FORWARD | grep DROP | sed 's/^/bridge: /' >/dev/console
ip route | sed 's/^/route: /' >/dev/console
ipvsadm -L >/dev/console
until [ "$(date +%s)" -gt AHEAD ]; do sleep 0.2; done
echo "the clock was set to $(date +%s)" >/dev/console
exec sleep 1000000
"""


@contextmanager
def old_tpm(folder: Path) -> Iterator[Callable[[list[str]], list[str]]]:
    """A TPM 1.2, which `linuxkit run` has none of."""
    folder.mkdir()
    command = ["swtpm", "socket", "--tpmstate", f"dir={folder}", "--ctrl", f"type=unixio,path={folder}/control"]
    child = subprocess.Popen([*command, "--terminate"])
    try:
        until = time.monotonic() + 10
        while not (folder / "control").exists():
            assert time.monotonic() < until, "swtpm does not start"
            time.sleep(0.05)
        yield devices("-chardev", f"socket,id=tpm,path={folder}/control", "-tpmdev", "emulator,id=tpm0,chardev=tpm",
                      "-device", "tpm-tis,tpmdev=tpm0")  # fmt: skip
    finally:
        child.terminate()
        child.wait(10)


@contextmanager
def time_server(ahead: float) -> Iterator[int]:
    """NTP (RFC 5905, figure 8) on a port of this host: what says that it is later than it is."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            ask, sender = server.recvfrom(1024)
            if len(ask) < 48:
                return
            now = int((time.time() + 2208988800 + ahead) * (1 << 32)).to_bytes(8, "big")
            head = bytes((0b00_100_100, 1, 4, 0xE8)) + bytes(8) + b"TEST"  # no leap second, version 4, a server
            server.sendto(head + now + ask[40:48] + now + now, sender)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield server.getsockname()[1]
    finally:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(b"", server.getsockname())
        thread.join(10)
        server.close()


def test_a_fixed_address_a_firewall_a_tunnel_the_time_and_an_old_tpm(build: Build, tmp_path: Path) -> None:
    published = ("127.0.0.1:0:80", "127.0.0.1:0:81")
    with old_tpm(tmp_path / "old") as tpm, time_server(3600) as port:
        look = LOOK.replace("AHEAD", str(int(time.time()) + 3000))
        # who asks for the time is led to the port of this host
        rule = f"add rule ip t out udp dport 123 dnat to 10.0.2.2:{port}"
        extra = EXTRA.replace("LOOK", json.dumps(look)).replace("RULE", rule)
        prefix = build(together("static-ip", "wireguard", extra=extra))
        with boot(prefix, seconds=150, publish=published, change=tpm) as machine:
            check_network(machine)


def check_network(machine: Machine) -> None:
    assert machine.wait_booted(80).ok
    assert "nginx" in fetch(machine, 80)
    machine.wait_console("port 81 of the machine itself is open", 30)
    with pytest.raises(TimeoutError):  # the firewall drops what comes from outside
        greeting(machine, 81, b"HTTP", send=b"GET / HTTP/1.0\r\n\r\n", seconds=2)
    machine.wait_console("through the tunnel: .*nginx", 30)
    machine.wait_console("no way around the tunnel", 30)
    machine.wait_console("rule: OUTPUT -p tcp -m tcp --dport 9 -m comment --comment ours -j REJECT", 30)
    machine.wait_console("bridge: .*-j DROP", 30)
    machine.wait_console("route: default via 10.0.2.2 dev eth0", 30)
    machine.wait_console("IP Virtual Server", 30)
    machine.wait_console("TPM 1.2 Version Info", 30)
    assert "service/tcsd: ended" not in machine.console
    machine.wait_console("the clock was set to", 30)


STRANGER = """\
  - name: stranger
    image: kit://ip
    binds: ["/dev/console:/dev/console"]
    command: ["/bin/sh", "-c", "ping -c 1 -W 1 10.9.0.9 >/tmp/said 2>&1; cat /tmp/said >/dev/console"]
"""


def test_a_tunnel_between_two_machines(tmp_path: Path) -> None:
    def add_a_stranger(examples: Path) -> None:
        for side in (examples / "tunnel-left.yml", examples / "tunnel-right.yml"):
            side.write_text(side.read_text().replace("files:\n", STRANGER + "files:\n", 1))

    command = cluster("tunnel", tmp_path, add_a_stranger)
    with (tmp_path / "errors").open("wb") as stream:
        child = subprocess.Popen(
            command, cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stream, text=True
        )
    watchdog, lines = threading.Timer(150, child.kill), [""]
    try:
        assert child.stdout is not None
        watchdog.start()
        said = (r"through the tunnel: bytes from 10\.9\.0\.%d:", r"=\s+[1-9]\d*\s+[1-9]\d*")  # and bytes were counted
        wanted = {f"{name}.*{words.replace('%d', peer)}"
                  for name, peer in (("left", "2"), ("right", "1")) for words in said}
        # who is nobody's peer gets nothing
        wanted |= {rf"{name}.*(Required key not available|0 packets received)" for name in ("left", "right")}
        while any(not re.search(line, "".join(lines)) for line in wanted):
            lines.append(child.stdout.readline())
            assert lines[-1], "a machine ended"
        child.send_signal(signal.SIGINT)
        child.communicate(timeout=40)
        assert child.returncode == 0
    except BaseException:
        print(*lines, (tmp_path / "errors").read_text(), sep="")
        raise
    finally:
        watchdog.cancel()
        child.kill()
        child.wait()
