"""Small programs of the kit on this host, under the sanitizers: kmsg, rngd, trim-after-delete, vsudd, timesync."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit_programs import ENVIRONMENT, Programs, kit_program, running, until

__all__ = ["kit_program"]
pytestmark = pytest.mark.guest


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [os.fspath(c) for c in command], capture_output=True, text=True, env=ENVIRONMENT, timeout=20, errors="replace"
    )
    assert "Sanitizer" not in done.stderr and "runtime error" not in done.stderr, done.stderr
    return done


# -- kmsg


@pytest.mark.parametrize(("record", "line"), [
    (b"6,339,5140900,-;NET: Registered\n SUBSYSTEM=x\n DEVICE=+y\n", r"\(339\) - T: NET: Registered"),
    (b"6,1,0,c,caller=T1;tab\\x09 esc\\x1b nl\\x0a \\x5c \\xzz \\x\n",
     r"\(1\) - T: tab\t esc\\x1b nl\\x0a \\ \\xzz \\x"),
    (b"6,2,3,-;", r"\(2\) - T: "),
    (b"6,18446744073709551615,18446744073709551615,-;far\n", None),
    (b"nonsense", ""),
    (b";", ""),
    (b"6,x,y,-;z\n", ""),
])  # fmt: skip
def test_kernel_messages(kit_program: Programs, tmp_path: Path, record: bytes, line: str | None) -> None:
    (tmp_path / "kmsg").write_bytes(record)  # a device gives one record at a time, a file what there is
    done = run(kit_program("kmsg", "kmsg"), tmp_path / "kmsg")
    assert (done.returncode, done.stdout) == (0, "")
    if line is not None:
        pattern = line.replace(" T:", r" \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z:")
        assert re.fullmatch(f"(?:{pattern}\n)?" if not line else f"{pattern}\n", done.stderr)


def test_kmsg_without_a_device(kit_program: Programs, tmp_path: Path) -> None:
    done = run(kit_program("kmsg", "kmsg"), tmp_path / "none")
    assert done.returncode == 1
    assert "No such file" in done.stderr


# -- rngd


def test_rngd_without_a_source(kit_program: Programs) -> None:
    done = run(kit_program("rngd", "rngd"), "-1", "-disable-rdrand", "--disable-rdseed=true")
    assert done.returncode == 1
    assert "makes no random numbers" in done.stderr
    assert run(kit_program("rngd", "rngd"), "word").returncode == 2
    help_text = run(kit_program("rngd", "rngd"), "-h")
    assert help_text.returncode == 0
    assert "-disable-rdseed" in help_text.stdout


# -- trim-after-delete


class Docker:
    """A socket that says what it is told to, to whoever asks for events."""

    def __init__(self, path: Path) -> None:
        self.path, self.clients, self.requests = path, [], []  # type: ignore[var-annotated]
        self.server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.server.bind(str(path))
        self.server.listen()
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.server.accept()
                request = client.recv(4096)
                self.requests.append(request)
                self.clients.append(client)

    def say(self, data: bytes) -> None:
        until(lambda: self.clients)
        with contextlib.suppress(OSError):
            self.clients[-1].sendall(data)

    def close(self) -> None:
        for client in self.clients:
            client.close()
        self.server.shutdown(socket.SHUT_RDWR)
        self.server.close()
        self.thread.join(5)
        self.path.unlink()


HEAD = b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n"
DELETED = b'{"status":"delete","Type":"image","Action":"delete","Actor":{"Attributes":{"Type":"x"}}}\n'
HARMLESS = [
    b'{"Type":"container","Action":"start"}\n', b'{"Type":"image","Action":"pull"}\n', b"{}\n", b"\n", b"junk\n",
    b'{"Actor":{"Type":"image","Action":"delete"},"Type":"image"}\n', b'{"Type":1,"Action":"delete"}\n',
    b'{"Type":"container","Action":"exec_start: delete"}\n', b'{"Type":"network","Action":"destroy"}\n', b"[1,2]\n",
    b'{"x":"' + b"y" * 3_000_000 + b'","Type":"image","Action":"delete"}\n',
]  # fmt: skip


@contextlib.contextmanager
def trimming(program: Path, folder: Path, delay: str = "100ms") -> Iterator[Path]:
    """What it runs adds a line to a file."""
    out = folder / "ran"
    command = ["-delay", delay, "--docker-socket", folder / "d.sock", "--", "/bin/sh", "-c", f"echo x >> {out}"]
    with running(program, *command):
        yield out


def lines(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_what_was_deleted_is_trimmed_once_after_a_while(kit_program: Programs, tmp_path: Path) -> None:
    docker = Docker(tmp_path / "d.sock")
    with trimming(kit_program("trim-after-delete", "trim-after-delete"), tmp_path, "400ms") as out:
        docker.say(HEAD + b"".join(HARMLESS))
        assert docker.requests[0].startswith(b"GET /events HTTP/1.")
        time.sleep(0.8)
        assert lines(out) == 0
        start = time.monotonic()
        for _ in range(5):  # many at once, one in pieces
            docker.say(DELETED)
        docker.say(DELETED[:20])
        docker.say(DELETED[20:])
        until(lambda: lines(out))
        assert time.monotonic() - start >= 0.4
        time.sleep(0.6)
        assert lines(out) == 1
        for event in (b"container destroy", b"container prune", b"volume destroy", b"volume prune", b"builder prune"):
            kind, action = event.split()
            before = lines(out)
            docker.say(b'{"Action":"%s","Type":"%s"}\n' % (action, kind))
            until(lambda before=before: lines(out) > before)  # type: ignore[misc]
    docker.close()


def test_docker_may_come_late_go_and_be_rude(kit_program: Programs, tmp_path: Path) -> None:
    with trimming(kit_program("trim-after-delete", "trim-after-delete"), tmp_path) as out:
        time.sleep(0.2)
        docker = Docker(tmp_path / "d.sock")
        docker.say(b"HTTP/1.1 500 no\r\n\r\n" + DELETED)
        time.sleep(0.5)
        assert lines(out) == 0
        docker.close()
        docker = Docker(tmp_path / "d.sock")
        docker.say(HEAD + DELETED)
        until(lambda: lines(out) == 1)
        docker.close()


@pytest.mark.parametrize(("package", "name"), [
    ("memlogd", "memlogd"), ("memlogd", "logread"), ("memlogd", "logwrite"), ("logwrite", "logwrite"), ("rngd", "rngd"),
    ("vsudd", "vsudd"), ("host-timesync-daemon", "host-timesync-daemon"), ("trim-after-delete", "trim-after-delete"),
    ("metadata", "metadata"),
])  # fmt: skip
def test_one_way_to_read_options(kit_program: Programs, package: str, name: str) -> None:
    program = kit_program(package, name)
    for word in ("-h", "--help"):
        done = run(program, word)
        assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("usage: "), done
    done = run(program, "--no-such-option")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--no-such-option is not an option" in done.stderr and "usage: " in done.stderr


@pytest.mark.parametrize("delay", ["", "x", "-1s", "10", "5 s", "1d", "1s2", "9999999h"])
def test_delays_that_are_none(kit_program: Programs, delay: str) -> None:
    done = run(kit_program("trim-after-delete", "trim-after-delete"), "-delay", delay)
    assert done.returncode == 2
    assert "is not a time" in done.stderr


# -- vsudd and host-timesync-daemon: what they do with vsock is tried in a machine, by tests/boot/test_kit_small.py


@pytest.mark.parametrize("arguments", [
    [], ["-inport"], ["-inport", "x:unix:/a"], ["-inport", "0:unix:/a"], ["-inport", "-1:unix:/a"], ["-inport=1"],
    ["-inport", "1:tcp:/a"], ["-inport", "1:unix:"], ["-inport", "4294967296:unix:/a"], ["-port", "1"], ["word"],
    ["-inport", f"1:unix:/{'a' * 200}"],
])  # fmt: skip
def test_vsudd_refuses_what_makes_no_sense(kit_program: Programs, arguments: list[str]) -> None:
    done = run(kit_program("vsudd", "vsudd"), *arguments)
    assert done.returncode == 2
    assert "usage: vsudd -inport PORT:unix:PATH" in done.stderr


@pytest.mark.parametrize("arguments", [
    [], ["-port", "0"], ["-port", "99999999999"], ["-port", "x"], ["-port", "1", "x"],
])  # fmt: skip
def test_timesync_refuses_what_makes_no_sense(kit_program: Programs, arguments: list[str]) -> None:
    done = run(kit_program("host-timesync-daemon", "host-timesync-daemon"), *arguments)
    assert done.returncode == 2


def _by_vsock(program: Path, folder: Path, peer: int, *arguments: str | Path, port: int) -> tuple[bytes, str]:
    """What a peer with that CID is answered on a port, and what the program says."""
    environment = ENVIRONMENT | {"VSOCK_FOLDER": str(folder), "VSOCK_PEER": str(peer)}
    process = subprocess.Popen([program, *arguments], stderr=subprocess.PIPE, text=True, env=environment)
    try:
        until((folder / str(port)).exists)
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            until(lambda: client.connect_ex(str(folder / str(port))) in (0, 106))
            with contextlib.suppress(OSError):  # it may be closed already
                client.sendall(b"hello")
                client.shutdown(socket.SHUT_WR)
            answer = b""
            with contextlib.suppress(ConnectionResetError):
                answer = _all(client)
            if not answer:
                time.sleep(0.2)
    finally:
        process.terminate()
        said = process.communicate(timeout=10)[1]
    assert "Sanitizer" not in said and "runtime error" not in said, said
    return answer, said


VSOCK_PEER = [
    str(Path(__file__).resolve().parents[1] / "support/vsockpeer.c"), "-Wl,--wrap=socket,--wrap=bind,--wrap=accept4",
]  # fmt: skip


@pytest.mark.parametrize(("peer", "let_in"), [(2, True), (1, False), (3, False), (0, False), (0xFFFFFFF, False)])
def test_only_the_host_is_let_in(kit_program: Programs, tmp_path: Path, peer: int, let_in: bool) -> None:
    """CID 1 is vsock_loopback, 3 the machine's own: any process in it can come by these."""
    with socket.socket(socket.AF_UNIX) as behind:
        behind.bind(str(tmp_path / "behind"))
        behind.listen()

        def echo() -> None:
            with contextlib.suppress(OSError):
                client = behind.accept()[0]
                client.sendall(_all(client))
                client.close()

        thread = threading.Thread(target=echo, daemon=True)
        thread.start()
        vsudd = kit_program("vsudd", "vsudd", *VSOCK_PEER)
        answer, said = _by_vsock(vsudd, tmp_path, peer, "-inport", f"7:unix:{tmp_path / 'behind'}", port=7)
        assert answer == (b"hello" if let_in else b"")
        assert ("is refused" in said) == (not let_in)
        behind.shutdown(socket.SHUT_RDWR)
        thread.join(5)
    timesync = kit_program("host-timesync-daemon", "host-timesync-daemon", *VSOCK_PEER)
    _, said = _by_vsock(timesync, tmp_path, peer, "-port", "8", "-rtc", tmp_path / "no-clock", port=8)
    assert ("no-clock: No such file" in said) == let_in  # it would have set the clock
    assert ("is refused" in said) == (not let_in)


RELAY = """\
#include "relay.h"
#include <stdlib.h>
int main(int argc, char **argv)
{
    relay(atoi(argv[1]), atoi(argv[2]));
    return argc - 3;
}
"""


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The part of vsudd between two sockets, on its own: there is no vsock that tests could count on."""
    from kit_programs import SANITIZERS, WARNINGS

    folder = tmp_path_factory.mktemp("relay")
    guest = Path(__file__).resolve().parents[2] / "guest/src/kit"
    (folder / "main.c").write_text(RELAY)
    sources = [folder / "main.c", guest / "relay.c"]
    subprocess.run(["gcc", *WARNINGS, *SANITIZERS, f"-I{guest}", *sources, "-o", folder / "relay"], check=True)
    return folder / "relay"


@contextlib.contextmanager
def relayed(program: Path) -> Iterator[tuple[socket.socket, socket.socket, subprocess.Popen[bytes]]]:
    left, inner_left = socket.socketpair()
    right, inner_right = socket.socketpair()
    numbers = (inner_left.fileno(), inner_right.fileno())
    process = subprocess.Popen([program, *map(str, numbers)], pass_fds=numbers, env=ENVIRONMENT, stderr=subprocess.PIPE)
    for end in (inner_left, inner_right):
        end.close()
    for end in (left, right):
        end.settimeout(10)
    try:
        yield left, right, process
        _, errors = process.communicate(timeout=10)
        assert process.returncode == 0, errors
    finally:
        process.kill()
        process.communicate()
        left.close()
        right.close()


def _all(end: socket.socket) -> bytes:
    data = b""
    while piece := end.recv(65536):
        data += piece
    return data


def test_a_relay_passes_both_ways_and_both_ends(relay: Path) -> None:
    with relayed(relay) as (left, right, _):
        left.sendall(b"question")
        left.shutdown(socket.SHUT_WR)
        assert _all(right) == b"question"
        big = os.urandom(3_000_000)
        sender = threading.Thread(target=lambda: (right.sendall(big), right.shutdown(socket.SHUT_WR)))
        sender.start()
        assert _all(left) == big
        sender.join()


def test_a_relay_ends_when_a_side_is_gone(relay: Path) -> None:
    with relayed(relay) as (left, right, process):
        left.sendall(b"x" * 100_000)
        right.close()
        left.close()
        assert process.wait(10) == 0


def test_a_relay_waits_for_a_slow_side_without_spinning(relay: Path) -> None:
    with relayed(relay) as (left, right, process):
        left.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                left.send(b"x" * 65536)
        left.setblocking(True)
        before = os.times()
        stat = Path(f"/proc/{process.pid}/stat")
        used = sum(map(int, stat.read_text().rsplit(")", 1)[1].split()[11:13]))
        time.sleep(0.5)
        after = sum(map(int, stat.read_text().rsplit(")", 1)[1].split()[11:13]))
        assert after - used <= 5, (before, used, after)  # ticks of 10 ms
        left.shutdown(socket.SHUT_WR)
        assert len(_all(right)) > 65536
        right.shutdown(socket.SHUT_WR)
