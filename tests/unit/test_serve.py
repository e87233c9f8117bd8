"""`linuxkit serve`: files and their parts, scripts for iPXE, what is not served, TLS; and `metadata create`."""

from __future__ import annotations

import contextlib
import datetime
import http.client
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from linuxkit.cli.serve import parse_address
from linuxkit.errors import HostError, InputError
from linuxkit.serving import ipxe, seats, tls
from linuxkit.serving.handler import parse_range
from linuxkit.serving.server import Server

pytestmark = pytest.mark.unit
Get = Callable[..., tuple[int, dict[str, str], bytes]]
DATA = bytes(range(256)) * 100


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "file").write_bytes(DATA)
    (root / "web-kernel").write_bytes(b"k")
    (root / "web-initrd.img").write_bytes(b"i")
    (root / "web-cmdline").write_text("console=ttyS0  quiet\n")
    (root / ".hidden").write_text("secret")
    (root / "sub/a&b").write_text("in sub")
    (tmp_path / "outside").write_text("secret")
    (root / "link").symlink_to(tmp_path / "outside")
    (root / "inside").symlink_to("file")
    os.mkfifo(root / "pipe")
    return root


@pytest.fixture
def start(folder: Path) -> Iterator[Callable[..., Server]]:
    servers: list[tuple[Server, threading.Thread]] = []

    def make(**options: Any) -> Server:
        made = Server("127.0.0.1", 0, folder, **options)
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        servers.append((made, thread))
        return made

    yield make
    for made, thread in servers:
        made.shutdown()
        thread.join()
        made.server_close()


@pytest.fixture
def get(start: Callable[..., Server]) -> Iterator[Get]:
    lines: list[str] = []
    made = start(log=lines.append)
    connection = http.client.HTTPConnection("127.0.0.1", made.server_port, timeout=10)

    def ask(path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
        connection.request(method, path, headers={k.replace("_", "-"): v for k, v in headers.items()})
        answer = connection.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()

    ask.lines = lines  # type: ignore[attr-defined]
    yield ask
    connection.close()


# -- files


def test_a_file_whole_and_its_head(get: Get) -> None:
    status, headers, body = get("/file")
    assert (status, body) == (200, DATA)
    assert headers["content-length"] == str(len(DATA))
    assert headers["accept-ranges"] == "bytes"
    status, headers, body = get("/file", "HEAD")
    assert (status, headers["content-length"], body) == (200, str(len(DATA)), b"")
    assert get("/inside?x=1")[2] == DATA
    assert get.lines[0] == f'127.0.0.1 "GET /file HTTP/1.1" 200 {len(DATA)}'  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("asked", "first", "end"),
    [("bytes=0-", 0, 25600), ("bytes=5-9", 5, 10), ("bytes=-10", 25590, 25600), ("bytes=25599-99999", 25599, 25600),
     ("bytes=-99999", 0, 25600)],
)  # fmt: skip
def test_parts_of_a_file(get: Get, asked: str, first: int, end: int) -> None:
    status, headers, body = get("/file", Range=asked)
    assert (status, body) == (206, DATA[first:end])
    assert headers["content-range"] == f"bytes {first}-{end - 1}/25600"


@pytest.mark.parametrize("asked", ["bytes=9-5", "bytes=-", "items=0-1", "bytes=0-1,3-4", "bytes=a-b", "", "bytes= 1-2"])
def test_ranges_that_are_none_give_the_whole(get: Get, asked: str) -> None:
    assert get("/file", Range=asked)[::2] == (200, DATA)


def test_parts_that_are_not_there(get: Get) -> None:
    status, headers, _ = get("/file", Range="bytes=25600-")
    assert (status, headers["content-range"]) == (416, "bytes */25600")
    with pytest.raises(ValueError):
        parse_range("bytes=0-", 0)


def test_a_transfer_goes_on_only_with_the_same_file(get: Get, folder: Path) -> None:
    tag = get("/file")[1]["etag"]
    assert get("/file", Range="bytes=5-9", If_Range=tag)[0] == 206
    assert get("/file", If_None_Match=tag)[::2] == (304, b"")
    (folder / "file").write_bytes(DATA + b"!")
    assert get("/file", Range="bytes=5-9", If_Range=tag)[::2] == (200, DATA + b"!")


@pytest.mark.parametrize(
    "path",
    ["/none", "/../outside", "/%2e%2e/outside", "/sub/../../outside", "/link", "/.hidden", "/pipe", "/file/", "/a%00b",
     "/sub/%2e%2e%2f%2e%2e%2foutside", "//../outside", "/" + "x" * 5000, "/\\..\\outside", "/.ipxe", "/sub/.ipxe"],
)  # fmt: skip
def test_what_is_not_served(get: Get, path: str) -> None:
    status, _, body = get(path)
    assert status == 404
    assert b"secret" not in body


def test_other_methods_and_a_request_with_a_body(get: Get) -> None:
    assert get("/file", "PUT")[0] == 501
    assert get("/file", Content_Length="3")[1]["connection"] == "close"
    assert get("/file")[0] == 200  # on a new connection: what might follow the other was not taken for a request


def test_noise_is_answered_and_logged(start: Callable[..., Server]) -> None:
    lines: list[str] = []
    made = start(log=lines.append)
    for noise in (b"\x16\x03\x01\x02\n\n", b"GET\r\n\r\n", b"GET http://[x/ HTTP/1.1\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", made.server_port), 10) as peer:
            peer.sendall(noise)
            peer.shutdown(socket.SHUT_WR)
            assert b" 400 " in peer.recv(4096)
    for _ in range(200):  # a line is written after its answer
        if len(lines) == 3:
            break
        time.sleep(0.05)
    assert len(lines) == 3
    assert all(line.isprintable() for line in lines)


def test_folders_are_listed(get: Get, folder: Path) -> None:
    status, headers, body = get("/")
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    for name in (b"sub/", b"web.ipxe", b"web-kernel"):
        assert name in body
    assert b"hidden" not in body
    assert b'<a href="a%26b">a&amp;b</a>' in get("/sub/")[2]
    status, headers, _ = get("//sub")
    assert (status, headers["location"]) == (301, "/sub/")  # not //sub/, which would be another server
    (folder / "sub/index.html").write_text("own")
    assert get("/sub/")[2] == b"own"


def asked(port: int, path: str = "/file", seconds: float = 5) -> bytes:
    """What an honest client gets, in that time."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)
    try:
        client.request("GET", path)
        return client.getresponse().read()
    finally:
        client.close()


def slow(port: int, count: int, words: bytes = b"GET /file HTTP/1.1\r\nX: ") -> list[socket.socket]:
    """Clients that begin a request and don't end it."""
    found = [socket.create_connection(("127.0.0.1", port), timeout=5) for _ in range(count)]
    for one in found:
        one.sendall(words)
    return found


@pytest.mark.parametrize("words", [b"GET /file HTTP/1.1\r\nX: ", b"", b"GET /file HTTP/1.1\r\n\r\n"])
def test_who_comes_is_served_however_many_are_slow(start: Callable[..., Server], words: bytes) -> None:
    lines: list[str] = []
    made = start(log=lines.append)
    clients = slow(made.server_port, seats.CONNECTIONS + 20, words)
    try:
        time.sleep(0.3)
        assert [asked(made.server_port) for _ in range(3)] == [DATA] * 3
    finally:
        for one in clients:
            one.close()
    assert sum("it is the slowest" in line for line in lines) >= 20


def test_without_that_they_lock_everyone_out(start: Callable[..., Server], monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: a server that sends nobody away takes the request and never answers, or refuses it."""
    room = threading.BoundedSemaphore(seats.CONNECTIONS)

    def take(self: seats.Seats, connection: socket.socket, address: str) -> seats.Seat:
        if not room.acquire(blocking=False):
            connection.shutdown(socket.SHUT_RDWR)
        return seats.Seat(connection.dup(), address)

    monkeypatch.setattr(seats.Seats, "take", take)
    made = start()
    clients = slow(made.server_port, seats.CONNECTIONS)
    try:
        time.sleep(0.3)
        with pytest.raises((OSError, http.client.HTTPException)):
            asked(made.server_port, seconds=2)
    finally:
        for one in clients:
            one.close()


def test_a_request_at_a_byte_a_second_ends_in_its_time(
    start: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seats, "FIRST", 1.5)
    lines: list[str] = []
    made = start(log=lines.append)
    (client,) = slow(made.server_port, 1)
    begun = time.monotonic()
    with contextlib.suppress(OSError), client:
        while time.monotonic() - begun < 20:
            client.sendall(b"a")
            time.sleep(0.2)
            client.settimeout(0.01)
            with contextlib.suppress(TimeoutError):
                if client.recv(1) == b"":
                    break
    assert time.monotonic() - begun < 10
    assert any("it took too long" in line for line in lines)


def test_slow_handshakes_give_way_too(start: Callable[..., Server], tmp_path: Path) -> None:
    context, certificate, _ = tls.made(tmp_path / "c", NAMES, NOW)
    made = start(tls=context, connections=4)
    clients = slow(made.server_port, 4, b"\x16")
    try:
        time.sleep(0.3)
        trust = ssl.create_default_context(cafile=str(certificate))
        client = http.client.HTTPSConnection("localhost", made.server_port, timeout=5, context=trust)
        client.request("GET", "/file")
        assert client.getresponse().read() == DATA
        client.close()
        clients[0].settimeout(5)
        assert any(_gone(one) for one in clients)
    finally:
        for one in clients:
            one.close()


def _gone(one: socket.socket) -> bool:
    one.settimeout(1)
    try:
        return one.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def test_times_and_paces() -> None:
    one = seats.Seat(None, "a", since=100.0, until=seats.FIRST)  # type: ignore[arg-type]
    assert not one.late(100 + seats.FIRST) and one.late(100.1 + seats.FIRST)
    one.taking = True
    assert not one.late(100 + seats.PATIENCE) and one.late(100.1 + seats.PATIENCE)
    one.sent = 10 * seats.RATE
    assert not one.late(110 + seats.PATIENCE) and one.late(110.1 + seats.PATIENCE)
    waiting = seats.Seat(None, "a", since=100.0)  # type: ignore[arg-type]
    assert waiting.pace(109) < waiting.pace(101) < one.pace(101)


def test_the_address_with_most_seats_loses_one() -> None:
    pairs = [socket.socketpair() for _ in range(5)]
    held = seats.Seats(4)
    taken = [held.take(ours, "many" if n else "one") for n, (ours, _) in enumerate(pairs[:4])]
    taken[2].taking = taken[3].taking = True
    taken.append(held.take(pairs[4][0], "other"))
    gone = [n for n, (_, theirs) in enumerate(pairs[:4]) if not _open(theirs)]
    assert gone == [1]  # of "many", the one that has no answer yet
    for seat in taken:
        held.leave(seat)
    for pair in pairs:
        for end in pair:
            end.close()


def _open(end: socket.socket) -> bool:
    end.setblocking(False)
    try:
        return end.recv(1) != b""
    except BlockingIOError:
        return True


@pytest.mark.parametrize(("fields", "status"), [(98, 200), (101, 431)])
def test_many_header_fields(start: Callable[..., Server], fields: int, status: int) -> None:
    made = start()
    with socket.create_connection(("127.0.0.1", made.server_port), timeout=5) as client:
        client.sendall(b"GET /file HTTP/1.1\r\n" + b"".join(b"X-%d: 1\r\n" % n for n in range(fields)) + b"\r\n")
        assert client.recv(4096).split()[1] == b"%d" % status


@pytest.mark.parametrize("how", ["file", "folder"])
def test_a_command_line_behind_a_link_is_not_shown(get: Get, folder: Path, tmp_path: Path, how: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/x-cmdline").write_text("the-secret")
    place = folder
    if how == "folder":
        (folder / "linked").symlink_to(tmp_path / "elsewhere")
        place = tmp_path / "elsewhere"
    else:
        (folder / "x-cmdline").symlink_to(tmp_path / "elsewhere/x-cmdline")
    for name in ("x-kernel", "x-initrd.img"):
        (place / name).write_bytes(b"x")
    status, _, body = get("/linked/x.ipxe" if how == "folder" else "/x.ipxe")
    assert status in (404, 500) and b"the-secret" not in body
    if how == "file":  # the control: a link within the folder is fine, and the same words are shown
        (folder / "x-cmdline").unlink()
        (folder / "real").write_text("the-secret")
        (folder / "x-cmdline").symlink_to("real")
        assert b"the-secret" in get("/x.ipxe")[2]


SCRIPT = (
    "#!ipxe\nisset ${ip} || dhcp\nkernel web-kernel initrd=web-initrd.img console=ttyS0 quiet\n"
    "initrd web-initrd.img\nboot\n"
)


def test_the_script_word_for_word(get: Get, folder: Path) -> None:
    assert get("/web.ipxe")[2].decode() == SCRIPT
    assert get("/boot.ipxe")[2].decode() == SCRIPT
    assert get("/none.ipxe")[0] == 404
    assert get("/sub/boot.ipxe")[0] == 404
    (folder / "a b.efi").write_bytes(b"MZ")
    assert get("/a%20b.ipxe")[2].decode() == "#!ipxe\nisset ${ip} || dhcp\nkernel a%20b.efi\nboot\n"
    assert get("/boot.ipxe")[2].decode() == (
        "#!ipxe\nisset ${ip} || dhcp\nmenu Boot\nitem a%20b a%20b\nitem web web\n"
        "choose --timeout 10000 --default a%20b selected\nchain ${selected}.ipxe\n"
    )
    (folder / "web.ipxe").write_text("#!ipxe\nmine\n")
    assert get("/web.ipxe")[2] == b"#!ipxe\nmine\n"


def test_the_chosen_system(start: Callable[..., Server], folder: Path) -> None:
    (folder / "a.efi").write_bytes(b"MZ")
    made = start(chosen="web")
    connection = http.client.HTTPConnection("127.0.0.1", made.server_port, timeout=10)
    connection.request("GET", "/boot.ipxe")
    assert connection.getresponse().read().decode() == SCRIPT
    connection.close()
    with pytest.raises(InputError, match="nothing to boot as 'wbe'") as wrong:
        Server("127.0.0.1", 0, folder, chosen="wbe")
    assert wrong.value.hint == "there is: a, web"


@pytest.mark.parametrize("words", ["a ${b} c", "a || b", "a ; b", "x" * 5000, "a\0b"])
def test_a_command_line_that_ipxe_cannot_be_told(get: Get, folder: Path, words: str) -> None:
    (folder / "web-cmdline").write_text(words)
    status, _, body = get("/web.ipxe")
    assert status == 500
    assert b"web-cmdline" in body


def test_names_of_systems(folder: Path) -> None:
    (folder / "x-kernel").write_bytes(b"")  # without an initrd
    (folder / ".y.efi").write_bytes(b"")
    assert ipxe.systems(folder) == ["web"]
    assert ipxe.systems(folder / "none") == []


# -- where it listens


@pytest.mark.parametrize(
    ("text", "address"),
    [(":8080", ("0.0.0.0", 8080)), ("8080", ("127.0.0.1", 8080)), ("10.0.0.1:80", ("10.0.0.1", 80)),
     ("[::1]:0", ("::1", 0)), ("host.example:65535", ("host.example", 65535))],
)  # fmt: skip
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["", "x", "::1:80", ":65536", "a b:80", ":"])
def test_bad_addresses(text: str) -> None:
    with pytest.raises(InputError, match="--port"):
        parse_address(text)


def test_an_address_in_use(start: Callable[..., Server], folder: Path) -> None:
    made = start()
    with pytest.raises(HostError, match="cannot be listened on"):
        Server("127.0.0.1", made.server_port, folder)
    with pytest.raises(InputError, match="no folder"):
        Server("127.0.0.1", 0, folder / "none")


# -- TLS

NOW = datetime.datetime.now(datetime.UTC)
NAMES = ["localhost", "127.0.0.1"]


def test_a_made_certificate_is_kept_and_used(start: Callable[..., Server], tmp_path: Path) -> None:
    context, path, digest = tls.made(tmp_path / "c", NAMES, NOW)
    assert tls.made(tmp_path / "c", NAMES, NOW)[2] == digest
    assert (tmp_path / "c/key.pem").stat().st_mode & 0o777 == 0o600
    made = start(tls=context)
    trusting = ssl.create_default_context(cafile=str(path))
    for name in NAMES:
        connection = http.client.HTTPSConnection(name, made.server_port, timeout=10, context=trusting)
        connection.request("GET", "/file", headers={"Range": "bytes=1-"})
        assert connection.getresponse().read() == DATA[1:]
        connection.close()
    with pytest.raises(ssl.SSLError):
        http.client.HTTPSConnection("localhost", made.server_port, timeout=10).request("GET", "/file")


def test_a_certificate_for_other_names_or_near_its_end_is_made_anew(tmp_path: Path) -> None:
    first = tls.made(tmp_path, NAMES, NOW)[2]
    second = tls.made(tmp_path, [*NAMES, "10.0.0.1"], NOW)[2]
    third = tls.made(tmp_path, [*NAMES, "10.0.0.1"], NOW + datetime.timedelta(days=3640))[2]
    assert len({first, second, third}) == 3


def test_a_given_certificate(tmp_path: Path) -> None:
    tls.made(tmp_path, NAMES, NOW)
    other = tmp_path / "other"
    tls.made(other, NAMES, NOW)
    assert tls.given(tmp_path / "cert.pem", tmp_path / "key.pem")
    for certificate, key in ((tmp_path / "none", None), (tmp_path / "cert.pem", None),
                             (tmp_path / "cert.pem", other / "key.pem")):  # fmt: skip
        with pytest.raises(InputError, match="cannot be used"):
            tls.given(certificate, key)


def test_a_client_without_tls_is_a_line_in_the_log(start: Callable[..., Server], tmp_path: Path) -> None:
    lines: list[str] = []
    made = start(tls=tls.made(tmp_path, NAMES, NOW)[0], log=lines.append)
    with socket.create_connection(("127.0.0.1", made.server_port), 10) as peer:
        peer.sendall(b"GET / HTTP/1.1\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):
            while peer.recv(4096):
                pass
    for _ in range(200):  # the line is written by the server's thread
        if lines:
            break
        time.sleep(0.05)
    assert "127.0.0.1 failed: " in lines[0]


# -- the commands


def linuxkit(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "linuxkit", *arguments]


def test_the_command_serves_until_it_is_interrupted(folder: Path) -> None:
    command = linuxkit("serve", "--port", "0", "--directory", str(folder))
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert child.stderr is not None
        first = child.stderr.readline()
        found = re.fullmatch(rf"serving {folder} at http://127\.0\.0\.1:([0-9]+)/\n", first)
        assert found, first
        assert child.stderr.readline() == f"iPXE: chain http://127.0.0.1:{found[1]}/boot.ipxe\n"
        connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=10)
        connection.request("GET", "/file")
        assert connection.getresponse().read() == DATA
        connection.close()
        assert "GET /file" in child.stderr.readline()
        child.send_signal(signal.SIGINT)
        assert child.wait(20) == 0
    finally:
        child.kill()
        child.wait()
        if child.stderr is not None:
            child.stderr.close()


def test_metadata_create(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"from a file")
    for arguments, content in ((["hello"], b"hello"), (["--data-file", str(tmp_path / "data")], b"from a file")):
        done = subprocess.run(linuxkit("metadata", "create", str(tmp_path / "c.iso"), *arguments), check=True)
        assert done.returncode == 0
        image = (tmp_path / "c.iso").read_bytes()
        assert image[16 * 2048 + 1 : 16 * 2048 + 6] == b"CD001"
        assert image[21 * 2048 :].rstrip(b"\0") == content
    for arguments in ([], ["a", "--data-file", str(tmp_path / "data")]):
        done = subprocess.run(linuxkit("metadata", "create", str(tmp_path / "d.iso"), *arguments), capture_output=True)
        assert done.returncode == 2
    assert not (tmp_path / "d.iso").exists()
