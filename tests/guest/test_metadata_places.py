"""NoCloud's seeds, VMware's guestinfo and the network of bare metal."""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.clouds.metadata import KEY, KEY2, TREE, USERDATA, Cloud, Service
from support.metadata import ONE, TWO, Metadata, files, links, metadata, metadata_program, service

__all__ = ["metadata", "metadata_program"]

pytestmark = pytest.mark.guest


def cmdline(tmp_path: Path, text: str) -> None:
    (tmp_path / "root/proc").mkdir(parents=True)
    (tmp_path / "root/proc/cmdline").write_text(text + "\n")


def seed(folder: Path, meta: str) -> None:
    folder.mkdir(parents=True)
    (folder / "meta-data").write_text(meta)
    (folder / "user-data").write_bytes(USERDATA)
    (folder / "network-config").write_text("version: 2\n")
    (folder / "vendor-data").write_text("#cloud-config\n")


@pytest.mark.parametrize(
    "meta",
    [
        f"# by hand\ninstance-id: i-1 # one\nlocal-hostname: 'web-1'\npublic-keys:\n  - {KEY}\n  - \"{KEY2}\"\n",
        json.dumps({"instance-id": "i-1", "local-hostname": "web-1", "public-keys": [KEY, KEY2]}),
        f"instance-id: i-1\r\nhostname: no\r\nlocal-hostname: web-1\r\npublic-keys:\r\n  a: {KEY}\r\n  b: {KEY2}\r\n",
    ],
    ids=["yaml", "json", "map"],
)
def test_a_seed_in_a_folder(metadata: Metadata, tmp_path: Path, meta: str) -> None:
    cmdline(tmp_path, "console=ttyS0 ds=nocloud;s=file:///seed/ quiet")
    seed(tmp_path / "root/seed", meta)
    with service("gcp") as cloud:
        metadata("nocloud", base=cloud.url)
    made = files(tmp_path / "config")
    assert made.pop("metadata") == (0o644, (tmp_path / "root/seed/meta-data").read_bytes())
    assert made == TREE | {
        "provider": (0o644, b"NoCloud"), "hostname": (0o644, b"web-1"), "instance_id": (0o644, b"i-1"),
        "network_config": (0o644, b"version: 2\n"), "vendordata": (0o644, b"#cloud-config\n"),
        "ssh/authorized_keys": (0o600, f"{KEY}\n{KEY2}\n".encode()),
    }  # fmt: skip


def test_a_seed_on_the_network_comes_before_the_clouds(metadata: Metadata, tmp_path: Path) -> None:
    folder = tmp_path / "root/sys/class/dmi/id"
    folder.mkdir(parents=True)
    (folder / "product_serial").write_text("ds=nocloud-net;s=http://10.0.2.2:8000/seed/;h=over\n")
    cloud = Cloud("nocloud", "NoCloud", "10.0.2.2:8000", "/seed/user-data",
                  {"/seed/meta-data": "instance-id: i-1\nlocal-hostname: web-1\n"}, {})  # fmt: skip
    with Service(cloud) as server:
        server.routes["/latest/meta-data/"] = b"an AWS, too"
        metadata(base=server.url)
        assert not [asked for asked in server.wrong if "/seed" in asked]
    made = files(tmp_path / "config")
    assert made["hostname"] == (0o644, b"over") and made["instance_id"] == (0o644, b"i-1")
    assert TREE.items() <= made.items()


@pytest.mark.parametrize("word", ["ds=nocloud;s=https://a/", "ds=nocloud;s=ftp://a/", "ds=nocloud;s=http://:1/",
                                  "ds=nocloud;s=/missing/", "ds=nocloud;s=http://a:99999/"])  # fmt: skip
def test_a_seed_that_cannot_be_read_is_an_error(metadata: Metadata, tmp_path: Path, word: str) -> None:
    cmdline(tmp_path, word)
    assert "NoCloud: " in metadata("nocloud", status=1).stderr


def test_words_for_others_are_no_seed(metadata: Metadata, tmp_path: Path) -> None:
    cmdline(tmp_path, "ds=nocloudx;s=/seed ds=ec2 ds=nocloud")
    assert "nobody here has" in metadata("nocloud").stderr


# -- VMware


def guestinfo(tmp_path: Path, **values: str) -> str:
    path = tmp_path / "guestinfo"
    path.write_text("".join(f"{name.replace('__', '.')}={value}\n" for name, value in values.items()))
    return str(path)


def test_guestinfo_arrives_plain_encoded_and_packed(metadata: Metadata, tmp_path: Path) -> None:
    meta = json.dumps({"instance-id": "i-1", "local-hostname": "web-1", "public-keys-data": "x"})
    packed = base64.b64encode(gzip.compress(USERDATA * 1, mtime=0)).decode()
    info = guestinfo(
        tmp_path, metadata=base64.b64encode(meta.encode()).decode(), metadata__encoding="base64", userdata=packed,
        userdata__encoding="gzip+base64", vendordata="plain",
    )  # fmt: skip
    metadata("vmware", VMWARE_GUESTINFO=info)
    assert files(tmp_path / "config") == TREE | {
        "provider": (0o644, b"VMWARE"), "hostname": (0o644, b"web-1"), "instance_id": (0o644, b"i-1"),
        "metadata": (0o644, meta.encode()), "vendordata": (0o644, b"plain"),
    }  # fmt: skip


@pytest.mark.parametrize("level", [0, 1, 9])
@pytest.mark.parametrize("data", [b"a", b"abc" * 5000, bytes(range(256)) * 300, json.dumps({"k": "x" * 70000}).encode(),
                                  os.urandom(70000)], ids=range(5))  # fmt: skip
def test_gzip_is_unpacked(metadata: Metadata, tmp_path: Path, data: bytes, level: int) -> None:
    packed = base64.b64encode(gzip.compress(data, level)).decode()
    metadata("vmware", VMWARE_GUESTINFO=guestinfo(tmp_path, userdata=packed, userdata__encoding="gz+b64"))
    assert (tmp_path / "config/userdata").read_bytes() == data


def test_packed_data_with_one_byte_changed_is_refused_or_the_same(metadata: Metadata, tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(USERDATA, mtime=0))
    for place in range(0, len(packed), 3):
        spoilt = bytes(packed[:place]) + bytes([packed[place] ^ 0x15]) + bytes(packed[place + 1 :])
        info = guestinfo(tmp_path, userdata=base64.b64encode(spoilt).decode(), userdata__encoding="gzip+base64")
        metadata("vmware", status=None, VMWARE_GUESTINFO=info)
        kept = tmp_path / "config/userdata"
        assert not kept.exists() or kept.read_bytes() == USERDATA
        kept.unlink(missing_ok=True)


@pytest.mark.parametrize(("data", "encoding"), [("####", "base64"), ("YQ", "gzip+base64"), ("YQ==", "rot13")])
def test_guestinfo_that_is_not_what_it_says_is_an_error(
    metadata: Metadata, tmp_path: Path, data: str, encoding: str
) -> None:
    info = guestinfo(tmp_path, userdata=data, userdata__encoding=encoding)
    assert "guestinfo.userdata is not" in metadata("vmware", status=1, VMWARE_GUESTINFO=info).stderr


@pytest.mark.parametrize("values", [{}, {"userdata": ""}, {"userdata": "---"}, {"other": "x"}])
def test_a_vmware_that_was_given_nothing_is_passed_over(
    metadata: Metadata, tmp_path: Path, values: dict[str, str]
) -> None:
    assert "nobody here has" in metadata("vmware", VMWARE_GUESTINFO=guestinfo(tmp_path, **values)).stderr


def test_a_host_that_lies_about_the_size_is_not_believed(metadata: Metadata, tmp_path: Path) -> None:
    info = guestinfo(tmp_path, userdata="x")
    assert "nobody here has" in metadata("vmware", VMWARE_GUESTINFO=info, VMWARE_BREAKS="1").stderr


# -- Equinix Metal's network


REST = """\
bond bond0 4
enslave eth0 bond0
enslave eth1 bond0
up bond0
address bond0 203.0.113.7/31
route bond0 0.0.0.0/0 203.0.113.6
address bond0 2001:db8::3/127
route bond0 ::/0 2001:db8::2
address bond0 10.99.1.3/31
route bond0 10.0.0.0/8 10.99.1.2
"""


@pytest.mark.parametrize(
    ("macs", "plan"),
    [
        ({"eth0": ONE, "eth1": TWO, "lo": "00:00:00:00:00:00"}, "down eth0\ndown eth1\n"),
        ({"enp1s0f0": ONE, "enp1s0f1": TWO},
         "down enp1s0f0\ndown enp1s0f1\nname enp1s0f0 eth0\nname enp1s0f1 eth1\n"),
        ({"eth0": TWO, "eth1": ONE},
         "down eth0\ndown eth1\nname eth1 away1\nname eth0 away0\nname away0 eth1\nname away1 eth0\n"),
        ({"eth0": "aa:00:00:00:00:09", "eth1": TWO, "eth2": ONE},
         "down eth1\ndown eth2\nname eth0 away0\nname eth2 eth0\n"),
    ],
    ids=["as they are", "renamed", "exchanged", "one in the way"],
)  # fmt: skip
def test_the_plan_of_the_network(metadata: Metadata, tmp_path: Path, macs: dict[str, str], plan: str) -> None:
    links(tmp_path, **macs)
    with service("equinixmetal") as cloud:
        assert metadata("-n", "packet", base=cloud.url).stdout == plan + REST


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"network": None}, "without interfaces"),
        ({"network": {"bonding": {"mode": 9}, "interfaces": [{"name": "a", "mac": ONE}]}}, "bonding mode"),
        ({"network": {"bonding": {"mode": 4}, "interfaces": [{"name": "a/b", "mac": ONE}]}}, "no usable name"),
        ({"network": {"bonding": {"mode": 4}, "interfaces": [{"name": "bond0", "mac": ONE}]}}, "no usable name"),
        ({"network": {"bonding": {"mode": 4}, "interfaces": [{"name": "a" * 16, "mac": ONE}]}}, "no usable name"),
        ({"network": {"bonding": {"mode": 4}, "interfaces": [{"name": "a"}]}}, "no usable name"),
        ({"network": {"bonding": {"mode": 4}, "interfaces": [{"name": "a", "mac": "00:11"}]}}, "no interface 00:11"),
        ({"network": {"bonding": {"mode": 4}, "interfaces": [{"name": "a", "mac": ONE}] * 2}}, "there twice"),
        ({"network": {"bonding": {"mode": 4}, "interfaces": [{"name": "a", "mac": ONE}, {"name": "a", "mac": TWO}]}},
         "there twice"),
        *(({"network": {"bonding": {"mode": 4}, "interfaces": [{"name": "a", "mac": ONE}], "addresses": [address]}},
           "an address") for address in (
            {}, {"address": "10.0.0.1", "cidr": 0}, {"address": "10.0.0.1", "cidr": 33},
            {"address": "10.0.0.1/8", "cidr": 8}, {"address": "::1", "cidr": 129},
            {"address": "10.0.0.1", "cidr": 8, "gateway": "x y"}, {"address": "10.0.0.1", "cidr": 8, "gateway": "::1"},
            5)),
    ],
)  # fmt: skip
def test_a_network_that_makes_no_sense_is_left_alone(
    metadata: Metadata, tmp_path: Path, change: dict[str, object], reason: str
) -> None:
    with service("equinixmetal") as cloud:
        cloud.routes["/metadata"] = json.dumps({"hostname": "metal-1", "ssh_keys": [KEY, 5]} | change).encode()
        done = metadata("-n", "equinixmetal", base=cloud.url, status=1)
    assert reason in done.stderr and done.stdout == ""
    assert TREE.items() <= files(tmp_path / "config").items()


def test_a_script_for_ipxe_is_no_user_data(metadata: Metadata, tmp_path: Path) -> None:
    with service("equinixmetal", b"#!ipxe\nboot\n") as cloud:
        metadata("-n", "equinixmetal", base=cloud.url)
    assert set(files(tmp_path / "config")) == {"hostname", "provider", "ssh/authorized_keys"}


class Seed:
    """A server of one seed: says what it was asked, and sends user data as it is told to."""

    def __init__(self, userdata: Iterator[bytes], port: int = 0, delay: float = 0) -> None:
        self.userdata, self.delay, self.asked = userdata, delay, []  # type: ignore[var-annotated]
        self.server = socket.socket()
        self.server.bind(("127.0.0.1", port))
        self.port = self.server.getsockname()[1]
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self) -> None:
        time.sleep(self.delay)  # until then the port refuses
        self.server.listen()
        with contextlib.suppress(OSError):
            while True:
                client = self.server.accept()[0]
                with client, contextlib.suppress(OSError):
                    self.answer(client)

    def answer(self, client: socket.socket) -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            request += client.recv(65536) or b"\r\n\r\n"
        self.asked.append(request.decode())
        name = request.split()[1].rsplit(b"/")[-1]
        if name == b"meta-data":
            client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\ninstance-id: i-9\n")
        elif name == b"user-data":
            client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            for piece in self.userdata:
                client.sendall(piece)
        else:
            client.sendall(b"HTTP/1.1 404 no\r\nContent-Length: 0\r\n\r\n")

    def __enter__(self) -> Seed:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self.server.shutdown(socket.SHUT_RDWR)
        self.server.close()


def _pieces(size: int, count: int, pause: float) -> Iterator[bytes]:
    for _ in range(count):
        yield b"x" * size
        time.sleep(pause)


def test_user_data_may_take_long_as_long_as_it_comes(metadata: Metadata, tmp_path: Path) -> None:
    with Seed(_pieces(150_000, 30, 0.13)) as seed:  # twice as long as a question may take
        cmdline(tmp_path, f"ds=nocloud;s=http://127.0.0.1:{seed.port}/a/")
        metadata("nocloud")
        assert (tmp_path / "config/userdata").read_bytes() == b"x" * 4_500_000


def test_drops_are_no_progress(metadata: Metadata, tmp_path: Path) -> None:
    with Seed(_pieces(1, 600, 0.1)) as seed:
        cmdline(tmp_path, f"ds=nocloud;s=http://127.0.0.1:{seed.port}/a/")
        start = time.monotonic()
        assert "no user data: no answer in time" in metadata("nocloud", status=1).stderr
        assert time.monotonic() - start < 8
    assert not (tmp_path / "config/userdata").exists()


@pytest.mark.parametrize("path", ["/a/b", "/a/b/", "", "/"])
def test_a_seed_that_comes_up_late_without_a_slash_by_its_port(metadata: Metadata, tmp_path: Path, path: str) -> None:
    """A port that refuses is asked again for a while. The files lie below the path; Host has the port."""
    with Seed(iter([b"#!/bin/sh\n"]), delay=0.8) as seed:
        cmdline(tmp_path, f"ds=nocloud;s=http://127.0.0.1:{seed.port}{path}")
        metadata("nocloud")
        assert (tmp_path / "config/userdata").read_bytes() == b"#!/bin/sh\n"
        for request in seed.asked:
            assert request.startswith(f"GET {path.rstrip('/')}/") and f"\r\nHost: 127.0.0.1:{seed.port}\r\n" in request
        assert len(seed.asked) == 4


def test_nobody_at_the_seeds_port_is_given_up(metadata: Metadata, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        cmdline(tmp_path, f"ds=nocloud;s=http://127.0.0.1:{taken.getsockname()[1]}/")
        start = time.monotonic()
        assert "Connection refused" in metadata("nocloud", status=1).stderr
        assert time.monotonic() - start < 4  # two seconds for the first of four files, and none for the others
