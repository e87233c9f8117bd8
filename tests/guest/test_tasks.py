"""The guest's containerd client: against gRPC's own server, and against one that misbehaves."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import grpc
import pytest

pytestmark = pytest.mark.guest
CONTAINERS, TASKS = "/containerd.services.containers.v1.Containers/", "/containerd.services.tasks.v1.Tasks/"
LOG = b"binary:///usr/bin/service?logger=web"


def varint(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + varint(value >> 7)


def field(number: int, value: bytes | int) -> bytes:
    """One protobuf field."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


class Containerd(grpc.GenericRpcHandler):
    """Answers with what `answers` has for a method, and keeps what it was asked."""

    def __init__(self, answers: dict[str, bytes]) -> None:
        self.answers, self.asked = answers, []

    def service(self, details):
        def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
            namespace = dict(details.invocation_metadata)["containerd-namespace"]
            self.asked.append((details.method, namespace, request))
            if details.method not in self.answers:
                context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"not now: {details.method} " + "long " * 50)
            return self.answers[details.method]

        return grpc.unary_unary_rpc_method_handler(answer)


@contextmanager
def containerd(path: Path, answers: dict[str, bytes]) -> Iterator[Containerd]:
    peer = Containerd(answers)
    server = grpc.server(ThreadPoolExecutor(1), handlers=[peer])
    server.add_insecure_port(f"unix:{path}")
    server.start()
    try:
        yield peer
    finally:
        server.stop(None).wait()


@pytest.fixture
def task(parts, tmp_path) -> Callable[..., int]:
    def call(verb: str, spec: bytes = b"{}", runtime: str = "", seconds: int = 20) -> int:
        (tmp_path / "spec.json").write_bytes(spec)
        files = (tmp_path / name for name in ("sock", "pid", "spec.json"))
        return int(parts("task", verb, "web", "", *files, runtime, str(seconds)).stdout)

    return call


@pytest.mark.parametrize("size", [2, 20_000, 300_000])  # in one frame, in several, in more than the first window
def test_run_creates_a_container_and_starts_its_task(task, tmp_path, size):
    spec = b"{" + b" " * (size - 2) + b"}"
    answers = {
        CONTAINERS + "Create": field(1, field(1, b"web")),
        TASKS + "Create": field(1, b"web") + field(2, 311),
        TASKS + "Start": field(1, 311),
    }
    with containerd(tmp_path / "sock", answers) as peer:
        assert task("run", spec) == 0
    assert (tmp_path / "pid").read_text() == "311"
    typed = field(1, b"types.containerd.io/opencontainers/runtime-spec/1/Spec") + field(2, spec)
    made = field(1, b"web") + field(4, field(1, b"io.containerd.runc.v2")) + field(5, typed)
    assert peer.asked == [
        (CONTAINERS + "Create", "services.linuxkit", field(1, made)),
        (TASKS + "Create", "services.linuxkit", field(1, b"web") + field(5, LOG) + field(6, LOG)),
        (TASKS + "Start", "services.linuxkit", field(1, b"web")),
    ]


def test_another_runtime_is_an_option_of_the_shim(task, tmp_path):
    with containerd(tmp_path / "sock", {}) as peer:
        assert task("run", runtime="/usr/bin/crun") == -1
    options = field(1, b"containerd.runc.v1.Options") + field(2, field(6, b"/usr/bin/crun"))
    assert field(4, field(1, b"io.containerd.runc.v2") + field(2, options)) in peer.asked[0][2]


@pytest.mark.parametrize(
    ("works", "then"),
    [
        ([], []),
        ([CONTAINERS + "Create"], [TASKS + "Create", CONTAINERS + "Delete"]),
        (
            [CONTAINERS + "Create", TASKS + "Create"],
            [TASKS + "Create", TASKS + "Start", TASKS + "Delete", CONTAINERS + "Delete"],
        ),
    ],
)  # fmt: skip
def test_what_fails_leaves_nothing(task, tmp_path, works, then):
    with containerd(tmp_path / "sock", dict.fromkeys(works, b"")) as peer:
        assert task("run") == -1
    assert [method for method, _, _ in peer.asked] == [CONTAINERS + "Create", *then]
    assert not (tmp_path / "pid").exists()


def test_start_leaves_the_container_alone(task, tmp_path):
    with containerd(tmp_path / "sock", {}) as peer:
        assert task("start") == -1
    assert [method for method, _, _ in peer.asked] == [TASKS + "Create"]


@pytest.mark.parametrize("status", [0, 1, 137, 255])
def test_delete_tells_the_status(task, tmp_path, status):
    answer = field(1, b"web") + field(2, 311) + (field(3, status) if status else b"") + field(4, field(1, 1 << 40))
    with containerd(tmp_path / "sock", {TASKS + "Delete": answer}):
        assert task("delete") == status


def test_a_task_that_still_runs_cannot_be_deleted(task, tmp_path):
    with containerd(tmp_path / "sock", {}):
        assert task("delete") == -1


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


DATA, HEADERS, RST, SETTINGS, PING, GOAWAY, WINDOW = 0, 1, 3, 4, 6, 7, 8
HELLO = frame(SETTINGS, 0, 0) + frame(HEADERS, 4, 1, b"\x88")
END = frame(HEADERS, 5, 1, b"\x00")


@contextmanager
def wire(path: Path, said: bytes, *, hold: bool = False) -> Iterator[None]:
    """A peer that says what it is told, whatever it hears."""
    done = threading.Event()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            with listener.accept()[0] as client, suppress(OSError):  # the client may hang up in the middle
                client.settimeout(10)
                client.sendall(said)
                client.shutdown(socket.SHUT_WR) if not hold else done.wait(10)
                while client.recv(65536):
                    pass

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


GOOD = field(3, 4)
MESSAGE = b"\0" + struct.pack(">I", len(GOOD)) + GOOD


@pytest.mark.parametrize(
    ("said", "result"),
    [
        (HELLO + frame(DATA, 0, 1, MESSAGE) + END, 4),
        (HELLO + b"".join(frame(DATA, 0, 1, MESSAGE[i : i + 1]) for i in range(len(MESSAGE))) + END, 4),
        (HELLO + frame(DATA, 8, 1, b"\x03" + MESSAGE + b"\0\0\0") + END, 4),
        (HELLO + frame(PING, 0, 0, b"12345678") + frame(SETTINGS, 1, 0) + frame(DATA, 1, 1, MESSAGE), 4),
        (HELLO + frame(99, 255, 1, b"unknown") + frame(DATA, 0, 3, b"another's") + frame(DATA, 0, 1, MESSAGE) + END, 4),
        (b"", -1),
        (HELLO[:5], -1),
        (HELLO + END, -1),
        (HELLO + frame(RST, 0, 1, b"\0\0\0\1"), -1),
        (HELLO + frame(GOAWAY, 0, 0, bytes(8)), -1),
        (HELLO + frame(DATA, 0, 1, MESSAGE[:4]) + END, -1),
        (HELLO + frame(DATA, 0, 1, MESSAGE + b"more") + END, -1),
        (HELLO + frame(DATA, 0, 1, b"\1" + MESSAGE[1:]) + END, -1),
        (HELLO + frame(DATA, 8, 1, b"\xff" + MESSAGE) + END, -1),
        (HELLO + frame(DATA, 8, 1), -1),
        (HELLO + frame(DATA, 0, 1, bytes(16385)) + END, -1),
        (HELLO + frame(DATA, 0, 1, bytes(16384)) * 65 + END, -1),
        (HELLO + frame(SETTINGS, 0, 0, bytes(5)) + frame(WINDOW, 0, 0, b"\1") + frame(PING, 0, 0, b"") + END, -1),
        (frame(SETTINGS, 0, 0, b"\0\4\0\0\0\0") + frame(RST, 0, 1, b"\0\0\0\1"), -1),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", -1),
    ],
    ids=range(20),
)
def test_frames_of_every_kind(task, tmp_path, said, result):
    with wire(tmp_path / "sock", said):
        assert task("delete") == result


@pytest.mark.parametrize(
    ("message", "result"),
    [
        (b"", 0), (b"\x18", 0), (b"\x18\xff", 0), (b"\x18" + b"\xff" * 11, 0), (b"\x0a\xff\xff\xff\xff\x0f", 0),
        (b"\x09\1", 0), (b"\x0d\1\2\3\4" + GOOD, 4), (b"\x09" + bytes(8) + GOOD, 4), (b"\x0b", 0),
        (GOOD + field(3, 9), 9),
    ],
)  # fmt: skip
def test_answers_of_every_kind(task, tmp_path, message, result):
    with wire(tmp_path / "sock", HELLO + frame(DATA, 0, 1, b"\0" + struct.pack(">I", len(message)) + message) + END):
        assert task("delete") == result


def test_a_silent_containerd_is_given_up_on(task, tmp_path):
    with wire(tmp_path / "sock", HELLO, hold=True):
        assert task("delete", seconds=1) == -1


def test_no_containerd(task):
    assert task("run") == -1
