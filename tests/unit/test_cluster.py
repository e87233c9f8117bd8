"""Several machines: the cluster file, the network between them, their one console, how they begin and end."""

from __future__ import annotations

import json
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linuxkit.cluster import dhcp, switch
from linuxkit.cluster.dhcp import Lease
from linuxkit.cluster.lines import Lines
from linuxkit.cluster.model import DEFAULT_NETWORK, Plan, copies, parse, parse_network, plan
from linuxkit.cluster.switch import Switch
from linuxkit.errors import InputError
from linuxkit.platforms.prepare import Request
from support.vm import initrd_of

pytestmark = pytest.mark.unit
NET = IPv4Network(DEFAULT_NETWORK)


def planned(text: str, folder: Path = Path("/f")) -> Plan:
    return plan(parse(text, "c.yml"), folder, Path("/s"), Request(prefix="", accel="tcg"), lambda p: p.read_bytes())


# -- the file


def test_what_a_file_asks_for(tmp_path: Path) -> None:
    (tmp_path / "user").write_bytes(b"from a file")
    text = """
machines:
  - {name: db, prefix: out/db, mem: 2G, disks: ["size=1G", "file=d.img,size=5M"], address: 192.168.76.9, tpm: true}
  - {prefix: Web_Site, count: 2, publish: ["8080:80", "127.0.0.1:0:22"], data: hello, cpus: 2, uefi: false}
  - {name: last, prefix: /abs/x, data-file: user, networking: none, mem: 512, virtiofs: ["a", "t=b"]}
"""
    made = planned(text, tmp_path)
    db, one, two, last = made.members
    assert made.network == NET
    assert [m.name for m in made.members] == ["db", "web-site-1", "web-site-2", "last"]
    assert [str(m.address) for m in made.members] == [f"192.168.76.{n}" for n in (9, 11, 12, 13)]
    assert db.request == Request(
        prefix=f"{tmp_path}/out/db", accel="tcg", memory=2048, tpm=True, state=Path("/s/db"),
        disks=("size=1G", f"file={tmp_path}/d.img,size=5M"),
    )  # fmt: skip
    assert one.request.publish == ("8080:80/tcp", "127.0.0.1:0:22/tcp")
    assert two.request.publish == ("8081:80/tcp", "127.0.0.1:0:22/tcp")
    assert (one.request.forgets, db.request.forgets, one.request.uefi, one.data) == (True, False, False, b"hello")
    assert (last.data, last.request.prefix, last.request.memory) == (b"from a file", "/abs/x", 512)
    assert last.request.virtiofs == (f"{tmp_path}/a", f"t={tmp_path}/b")


def test_ranges_of_ports_move_by_their_length() -> None:
    made = planned("machines: [{prefix: a, count: 2, publish: ['8080-8081:80-81']}]")
    assert [m.request.publish for m in made.members] == [
        ("8080:80/tcp", "8081:81/tcp"), ("8082:80/tcp", "8083:81/tcp"),
    ]  # fmt: skip


def test_no_network() -> None:
    made = planned("network: none\nmachines: [{prefix: a}]")
    assert (made.network, made.members[0].address) == (None, None)


@pytest.mark.parametrize(
    ("machines", "message"),
    [("[{prefix: a}, {prefix: a}]", "name a is there twice"),
     ("[{prefix: a, count: 2}, {name: a-2, prefix: b}]", "name a-2 is there twice"),
     ("[{prefix: a, address: 10.0.0.1}]", "10.0.0.1 cannot be used in 192.168.76.0/24"),
     ("[{prefix: a, address: 192.168.76.1}]", "192.168.76.1 cannot be used"),
     ("[{prefix: a, address: x}]", "'x' is not an IPv4 address"),
     ("[{prefix: a, count: 2, address: 192.168.76.5}]", "an address is for one machine"),
     ("[{prefix: a, address: 192.168.76.5}, {prefix: b, address: 192.168.76.5}]", "address 192.168.76.5 is there"),
     ("[{prefix: a, publish: ['80:80']}, {prefix: b, publish: ['80:90']}]", "published port 80/tcp is there twice"),
     ("[{prefix: a, publish: [x]}]", "--publish 'x'"), ("[{prefix: a, mem: lots}]", "'lots' is not an amount"),
     ("[{prefix: a, count: 2, disks: [d.img]}]", "several machines cannot write on one disk"),
     ("[{prefix: a, count: 2, networking: 'tap,t0'}]", "a tap interface is for one machine"),
     ("[{prefix: a, data: x, data-file: y}]", "data and data-file"), ("[]", "there are 0 machines"),
     ("[{prefix: a, count: 64}, {prefix: b}]", "there are 65 machines")],
)  # fmt: skip
def test_machines_that_make_no_sense(machines: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        planned(f"machines: {machines}")


def test_faults_are_listed_with_their_lines() -> None:
    with pytest.raises(InputError) as wrong:
        parse("machines:\n  - name: UP\n    cpu: 2\n  - {prefix: a, count: 0}\nnet: x", "c.yml")
    found = [(p.line, p.message) for p in wrong.value.problems]
    assert [line for line, _ in found] == [2, 2, 3, 4, 5]
    assert "did you mean 'cpus'?" in str([p.hint for p in wrong.value.problems])
    with pytest.raises(InputError, match=r"c.yml:2:5: machines: 'x' is not an amount"):
        planned("machines:\n  - {prefix: a, mem: x}")


@pytest.mark.parametrize("text", ["x", "10.0.0.1/8", "10.0.0.0/30", "10.0.2.0/25", "::/64", "10.0.0.0/33"])
def test_bad_networks(text: str) -> None:
    with pytest.raises(InputError, match="network"):
        parse_network(text)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "cluster.yml").write_text("machines: []\n")
    done = subprocess.run([sys.executable, "-m", "linuxkit", "run", "cluster", "clustr.yml"], cwd=tmp_path, text=True,
                          capture_output=True, timeout=30, check=False)  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "error: clustr.yml: there is no such file\nhint: did you mean 'cluster.yml'?\n"


def test_a_small_network_is_filled_and_no_more() -> None:
    network = IPv4Network("10.9.0.0/29")
    request = Request(prefix="a", state=Path("/s"))
    assert [str(m.address)[-1] for m in copies(5, request, None, network).members] == ["2", "3", "4", "5", "6"]
    with pytest.raises(InputError, match="no room for 6"):
        copies(6, request, None, network)


def test_copies_have_their_own_state() -> None:
    made = copies(2, Request(prefix="out/My web.iso", disks=("size=1G",)), b"d", None)
    assert [(m.name, m.request.state) for m in made.members] == [
        ("my-web-1", Path("out/My web-state/my-web-1")),
        ("my-web-2", Path("out/My web-state/my-web-2")),
    ]


# -- the network

A, B, C = (bytes([2, 0, 0, 0, 0, n]) for n in (1, 2, 3))
ALL = b"\xff" * 6


@pytest.fixture
def guests() -> Iterator[list[socket.socket]]:
    """QEMU's ends of three cables."""
    with Switch([None, None, None]) as made:
        ends = [cable.start(None)[1] for cable in made.cables]
        for end in ends:
            end.settimeout(5)
        yield ends


def send(end: socket.socket, *frames: bytes) -> None:
    end.sendall(b"".join(struct.pack("!I", len(f)) + f for f in frames))


def receive(end: socket.socket) -> bytes:
    def exactly(count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = end.recv(count - len(data))
            assert more
            data += more
        return data

    return exactly(struct.unpack("!I", exactly(4))[0])


def quiet(end: socket.socket) -> bool:
    end.settimeout(0.1)
    try:
        return not end.recv(1)
    except TimeoutError:
        return True
    finally:
        end.settimeout(5)


def test_frames_go_to_everybody_until_it_is_known_where(guests: list[socket.socket]) -> None:
    a, b, c = guests
    send(a, ALL + A + b"hello")
    assert receive(b) == receive(c) == ALL + A + b"hello"
    send(b, A + B + b"answer")
    assert receive(a) == A + B + b"answer"
    assert quiet(c)
    send(c, B + C + b"xx", C + C + b"to itself")
    assert receive(b) == B + C + b"xx"
    assert quiet(a) and quiet(c)


def test_frames_in_pieces_and_many_at_once(guests: list[socket.socket]) -> None:
    a, b, _ = guests
    frame = ALL + A + bytes(1500)
    data = b"".join(struct.pack("!I", len(f)) + f for f in (frame, b"short", ALL + A + b"two"))
    for n in range(0, len(data), 700):
        a.sendall(data[n : n + 700])
        time.sleep(0.005)
    assert [receive(b), receive(b)] == [frame, ALL + A + b"two"]


def test_a_guest_that_takes_nothing_stops_nobody(guests: list[socket.socket]) -> None:
    a, b, c = guests
    frame = ALL + A + bytes(60000)
    for _ in range(60):  # b reads nothing
        send(a, frame)
        assert receive(c) == frame
    got = 0
    while not quiet_or(b, frame):
        got += 1
    assert 0 < got < 60


def quiet_or(end: socket.socket, frame: bytes) -> bool:
    """Is there nothing? Else it has to be that frame."""
    end.settimeout(0.2)
    try:
        assert receive(end) == frame
    except TimeoutError:
        return True
    return False


def test_what_is_no_frame_ends_that_cable_only(guests: list[socket.socket]) -> None:
    a, b, c = guests
    a.sendall(struct.pack("!I", switch.MAX_FRAME + 1) + bytes(100))
    send(c, ALL + C + b"first")
    assert receive(b) == ALL + C + b"first"
    b.close()
    for _ in range(3):
        send(c, ALL + C + b"more")
        time.sleep(0.02)
    assert quiet(c)


# -- DHCP


def request_of(kind: int, options: bytes = b"", ciaddr: bytes = bytes(4), flags: int = 0) -> bytes:
    boot = struct.pack("!BBBBIHH4s12x", 1, 1, 6, 0, 0xABCD1234, 3, flags, ciaddr) + A.ljust(16, b"\0")
    boot = boot.ljust(236, b"\0") + dhcp.COOKIE + bytes([53, 1, kind]) + options + b"\xff"
    udp = struct.pack("!HHHH", 68, 67, 8 + len(boot), 0)
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28 + len(boot), 0, 0, 64, 17, 0, bytes(4), b"\xff" * 4)
    return ALL + A + b"\x08\0" + ip + udp + boot


def told(frame: bytes) -> tuple[str, dict[int, bytes]]:
    """Of an answer: the address in it, and its options."""
    ip, boot = frame[14:34], frame[42:]
    assert sum(struct.unpack("!10H", ip)) % 0xFFFF == 0  # its checksum
    assert struct.unpack("!H", ip[2:4])[0] == len(frame) - 14
    assert (frame[34:38], boot[:8]) == (b"\0\x43\0\x44", b"\x02\x01\x06\0\xab\xcd\x12\x34")
    return str(IPv4Address(boot[16:20])), dhcp._options(boot[240:])


LEASE = Lease(IPv4Address("192.168.76.11"), NET, "web-1", IPv4Address("10.0.2.3"))


def test_an_address_is_offered_and_given() -> None:
    offer = dhcp.answer(request_of(dhcp.DISCOVER, flags=0x8000), LEASE)
    assert offer is not None and offer[:6] == ALL
    address, options = told(offer)
    assert address == "192.168.76.11"
    assert options == {
        53: b"\x02", 54: bytes([192, 168, 76, 1]), 51: b"\xff" * 4, 1: b"\xff\xff\xff\0", 12: b"web-1",
        6: bytes([10, 0, 2, 3]),
    }  # fmt: skip
    server, asked = bytes([54, 4, 192, 168, 76, 1]), bytes([50, 4, 192, 168, 76, 11])
    given = dhcp.answer(request_of(dhcp.REQUEST, server + asked), LEASE)
    assert given is not None and given[:6] == A
    assert told(given)[1][53] == b"\x05"


def test_another_address_is_refused_and_another_server_left_alone() -> None:
    refused = dhcp.answer(request_of(dhcp.REQUEST, bytes([50, 4, 10, 0, 0, 5])), LEASE)
    assert refused is not None
    assert (told(refused)[0], told(refused)[1][53]) == ("0.0.0.0", b"\x06")
    assert dhcp.answer(request_of(dhcp.REQUEST, bytes([54, 4, 10, 0, 0, 1])), LEASE) is None
    assert dhcp.answer(request_of(dhcp.RELEASE), LEASE) is None
    renewed = dhcp.answer(request_of(dhcp.REQUEST, ciaddr=LEASE.address.packed), LEASE)
    assert renewed is not None and told(renewed)[1][53] == b"\x05"


@given(st.binary(max_size=400), st.integers(0, 300))
def test_any_frame_can_come(noise: bytes, keep: int) -> None:
    dhcp.answer(noise, LEASE)
    dhcp.answer(request_of(1)[:keep] + noise, LEASE)
    dhcp.answer(request_of(1)[:282] + noise, LEASE)


def test_the_switch_answers_dhcp_by_the_cable() -> None:
    second = Lease(IPv4Address("192.168.76.12"), NET)
    with Switch([LEASE, second]) as made:
        ends = [cable.start(None)[1] for cable in made.cables]
        for end, address in zip(ends, ("192.168.76.11", "192.168.76.12"), strict=True):
            end.settimeout(5)
            send(end, request_of(dhcp.DISCOVER))
            assert told(receive(end))[0] == address
        assert quiet(ends[0]) and quiet(ends[1])  # what is for the server, others don't see


# -- one console


def test_lines_have_names_and_nothing_that_moves_the_cursor() -> None:
    shown: list[bytes] = []
    lines = Lines(["a", "bcd"], shown.append)
    lines.take("a", b"one\r\ntw")
    lines.take("bcd", b"\x1b[2J\x1b[1;1Hthree\x07\n\x1b]0;title\x07\x1b[31mred\x1b[0m\n")
    lines.take("a", b"o\nlogin: ")
    lines.finish()
    assert b"".join(shown).decode() == (
        "a   | one\nbcd | three\nbcd | \x1b[31mred\x1b[0m\x1b[0m\na   | two\na   | login: \n"
    )
    coloured = Lines(["a"], shown.append, colour=True)
    coloured.take("a", b"x\n")
    assert shown[-1] == b"\x1b[36ma |\x1b[0m x\n"


def test_a_line_without_an_end_is_shown_in_pieces() -> None:
    shown: list[bytes] = []
    lines = Lines(["a"], shown.append)
    for _ in range(100):
        lines.take("a", b"x" * 1000)
    assert len(b"".join(shown)) > 90_000
    assert max(map(len, lines._parts.values())) <= 4096


# -- the commands, with a program that plays QEMU's part

FAKE = r"""#!{python} -IS
import os, re, select, socket, sys, time
arguments = " ".join(sys.argv)
ends = {{m[1]: socket.socket(fileno=int(m[2])) for m in re.finditer(r"id=(\w+),fd=(\d+)", arguments)}}
number = int(re.search(r"/w-state/w-(\d+)/|$", arguments)[1] or 1)
console, report, wire = ends["console"], ends["report"], ends.get("t1")
act = re.search("act=([a-z]+)", arguments)[1]
if act == "fail" and number == 2:
    sys.exit(print("qemu: no luck", file=sys.stderr) or 1)
console.sendall(b"I am %d\n" % number)
if wire:
    frame = b"\xff" * 6 + b"\2\0\0\0\0" + bytes([number]) + b"greetings from %d" % number
    deadline = time.monotonic() + 10
    heard = b""
    while b"greetings from %d" % (3 - number) not in heard and time.monotonic() < deadline:
        wire.sendall(len(frame).to_bytes(4, "big") + frame)
        if select.select([wire], [], [], 0.1)[0]:
            heard += wire.recv(4096)
    wire.sendall(len(frame).to_bytes(4, "big") + frame)
    console.sendall(b"heard the other\n" if b"greetings" in heard else b"heard nothing\n")
report.sendall(b'{{"t": 3, "event": "booted", "step": "boot", "ok": true}}\n')
if act == "off":
    sys.exit(0)
while b"poweroff" not in report.recv(4096):
    pass
if act != "deaf":
    report.sendall(b'{{"t": 9, "event": "off", "step": "shutdown"}}\n')
    sys.exit(0)
time.sleep(60)
"""


@pytest.fixture
def prefix(tmp_path: Path) -> str:
    fake = tmp_path / "qemu"
    fake.write_text(FAKE.format(python=sys.executable))
    fake.chmod(0o755)
    (tmp_path / "w-kernel").write_bytes((bytes(0x202) + b"HdrS").ljust(1024, b"\0"))
    (tmp_path / "w-initrd.img").write_bytes(initrd_of(b""))
    return str(tmp_path / "w")


def command(prefix: str, act: str, *more: str) -> list[str]:
    Path(f"{prefix}-cmdline").write_text(f"console=ttyS0 act={act}")
    fake = f"{Path(prefix).parent}/qemu"
    disk = [] if more[0] == "cluster" else ["--disk", "size=1M"]  # its path tells the fake which one it is
    return [sys.executable, "-m", "linuxkit", "run", *more, "--qemu", fake, "--accel", "tcg", *disk]


def run(prefix: str, act: str, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(prefix, act, *more), capture_output=True, text=True, timeout=60)


def test_two_machines_boot_talk_and_are_shut_down(prefix: str, tmp_path: Path) -> None:
    report = tmp_path / "r.json"
    done = run(prefix, "ok", "--count", "2", "--once", "--report-file", str(report), prefix)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == [
        "w-1 | I am 1", "w-1 | heard the other", "w-2 | I am 2", "w-2 | heard the other",
    ]  # fmt: skip
    assert "w-2: private network: 192.168.76.12" in done.stderr
    assert {name: said["off"] for name, said in json.loads(report.read_text()).items()} == {"w-1": True, "w-2": True}
    kept = [tmp_path / f"w-state/w-{n}/{name}" for n in (1, 2) for name in ("mac-addr", "mac-addr-private")]
    addresses = {path.read_text() for path in kept}
    assert len(addresses) == 4
    assert (tmp_path / "w-state/w-2/disk.img").stat().st_size == 1 << 20


def test_a_cluster_file(prefix: str, tmp_path: Path) -> None:
    (tmp_path / "c.yml").write_text("network: none\nmachines:\n  - {prefix: w, name: only, data: hello}\n")
    done = run(prefix, "off", "cluster", str(tmp_path / "c.yml"))
    assert done.returncode == 0, done.stderr
    assert done.stdout == "only | I am 1\n"
    assert "only: off" in done.stderr
    assert "private" not in done.stderr
    assert b"hello" in (tmp_path / "c-state/only/data.iso").read_bytes()
    done = run(prefix, "off", "cluster", str(tmp_path / "none.yml"))
    assert (done.returncode, "none.yml: there is no such file" in done.stderr) == (2, True)


def test_one_that_fails_does_not_take_the_others_with_it(prefix: str) -> None:
    done = run(prefix, "fail", "--count", "2", "--private-network", "none", "--once", prefix)
    assert done.returncode == 1
    assert "w-1 | I am 1" in done.stdout
    assert "w-2: qemu could not start the machine: no luck" in done.stderr
    assert "error: 1 of 2 machines failed: w-2" in done.stderr


@pytest.mark.parametrize(("act", "status"), [("ok", 0), ("deaf", 1)])
def test_ctrl_c_ends_them_all(prefix: str, act: str, status: int) -> None:
    child = subprocess.Popen(command(prefix, act, "--count", "2", "--stop-timeout", "1", prefix),
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip
    try:
        assert child.stdout is not None
        seen = [child.stdout.readline() for _ in range(4)]
        assert sum("heard the other" in line for line in seen) == 2, seen
        started = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=30)
        assert child.returncode == status, errors
        assert "asking the guests to shut down" in errors
        assert errors.count("was ended by force") == (2 if act == "deaf" else 0)
        assert len(started) == 2
        assert not any(Path(f"/proc/{pid}").exists() for pid in started)
    finally:
        child.kill()
        child.wait()


def test_options_that_several_cannot_have(prefix: str) -> None:
    for more, message in ((("--count", "2", "--vnc", ":1"), "--vnc is for one machine"),
                          (("--private-network", "none"), "--private-network is for several")):  # fmt: skip
        done = run(prefix, "ok", *more, prefix)
        assert (done.returncode, message in done.stderr) == (2, True), done.stderr


def test_what_is_wrong_with_one_leaves_none(prefix: str, tmp_path: Path) -> None:
    (tmp_path / "c.yml").write_text("machines:\n  - {prefix: w, name: a}\n  - {prefix: none, name: b}\n")
    done = run(prefix, "ok", "cluster", str(tmp_path / "c.yml"))
    assert done.returncode == 2
    assert "nothing to boot at" in done.stderr
    assert "I am" not in done.stdout
