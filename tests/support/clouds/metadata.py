"""Metadata services of clouds, strict ones: the right Host, headers, methods and ports, or no answer.

    with Service(CLOUDS["aws"]) as service:
        service.fault("/latest/user-data", "500")      # the next request for that path
        ...                                             # metadata -base {service.url} aws

What a cloud is, is data: paths and their answers, what every request must carry, and the files that must come of it.
"""

from __future__ import annotations

import base64
import json
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

#: what every cloud's user gives it: a tree, whose files must arrive
USERDATA = json.dumps({
    "ssh": {"entries": {"sshd_config": {"perm": "0600", "content": "PermitRootLogin yes\n"}}},
    "app": {"perm": "0700", "entries": {"greeting": {"content": "hé\u2026\n"}}},
}).encode()  # fmt: skip
TREE = {
    "userdata": (0o644, USERDATA),
    "ssh/sshd_config": (0o600, b"PermitRootLogin yes\n"),
    "app/greeting": (0o644, "hé\u2026\n".encode()),
}
KEY, KEY2 = "ssh-ed25519 AAAAC3NzaC1 one@home", "ssh-rsa AAAAB3NzaC1 two@home"
TOKEN = "AQAEAHqBs-token=="
Files = dict[str, tuple[int, bytes]]


@dataclass(frozen=True)
class Cloud:
    """A metadata service."""

    provider: str
    shown: str  # in /run/config/provider
    host: str
    userdata: str  # its path
    routes: Mapping[str, str | bytes]
    files: Mapping[str, str]  # what must be in /run/config, beside the tree, provider and keys
    keys: str = KEY
    headers: Mapping[str, str] = field(default_factory=dict)  # that every request must have
    answers: Mapping[str, str] = field(default_factory=dict)  # headers of every answer
    token: bool = False  # IMDSv2: no answer without one
    low_port: bool = False  # user data for root only
    hosts: tuple[str, ...] = ()  # further names it is asked by
    wrapped: Callable[[bytes], bytes] = bytes  # how it hands user data out

    @property
    def probe(self) -> str:
        """The path that shows whether it is there."""
        return next(iter(self.routes))


def _ec2(provider: str, shown: str, **more: object) -> Cloud:
    meta = "/latest/meta-data/"
    values = {
        "hostname": "web-1.example", "public-ipv4": "203.0.113.7", "local-ipv4": "10.1.2.3",
        "placement/availability-zone": "eu-1a", "instance-type": "m1.tiny", "instance-id": "i-0123",
        "local-hostname": "web-1.local",
    }  # fmt: skip
    routes = {meta + name: value for name, value in values.items()}
    routes[meta + "public-keys/0/openssh-key"] = KEY
    first = meta if provider == "aws" else meta + "hostname"
    return Cloud(
        provider, shown, "169.254.169.254", "/latest/user-data", {first: "hostname\ninstance-id", **routes},
        {name.split("/")[-1].replace("-", "_"): value for name, value in values.items()}, **more,  # type: ignore[arg-type]
    )  # fmt: skip


_GCP = "/computeMetadata/v1/"
_METAL = {
    "id": "7c9e", "hostname": "metal-1", "ssh_keys": [KEY, KEY2],
    "network": {
        "bonding": {"mode": 4, "link_aggregation": "bonded"},
        "interfaces": [{"name": "eth0", "mac": "AA:00:00:00:00:01", "bond": "bond0"},
                       {"name": "eth1", "mac": "aa:00:00:00:00:02", "bond": "bond0"}],
        "addresses": [
            {"address_family": 4, "public": True, "cidr": 31, "address": "203.0.113.7", "gateway": "203.0.113.6"},
            {"address_family": 6, "public": True, "cidr": 127, "address": "2001:db8::3", "gateway": "2001:db8::2"},
            {"address_family": 4, "public": False, "cidr": 31, "address": "10.99.1.3", "gateway": "10.99.1.2"},
        ],
    },
}  # fmt: skip
_AZURE = {
    "compute": {"name": "vm", "osProfile": {"computerName": "web-1"}, "location": "westeurope", "zone": "2",
                "vmSize": "Standard_B1s", "vmId": "13f56399",
                "publicKeys": [{"keyData": KEY + "\r\n", "path": "/home/x/.ssh/authorized_keys"}]},
    "network": {"interface": [{"ipv4": {"ipAddress": [{"privateIpAddress": "10.0.0.4",
                                                       "publicIpAddress": "203.0.113.7"}]}}]},
}  # fmt: skip
GOAL = (
    '<?xml version="1.0"?><GoalState><Version>2012-11-30</Version><Incarnation>3</Incarnation><Container>'
    "<ContainerId>c-1</ContainerId><RoleInstanceList><RoleInstance><InstanceId>r-2</InstanceId></RoleInstance>"
    "</RoleInstanceList></Container></GoalState>"
)
SCALEWAY_CONF = (
    "ID=11111111-2222\nNAME=web\nHOSTNAME=web-1\nLOCATION_ZONE_ID=par1\nPUBLIC_IP_ADDRESS=203.0.113.7\n"
    f"PRIVATE_IP=10.1.2.3\nSSH_PUBLIC_KEYS=2\nSSH_PUBLIC_KEYS_0_KEY='{KEY}'\nSSH_PUBLIC_KEYS_1_KEY='{KEY2}'\n"
)
_LINK_LOCAL = "169.254.169.254"

CLOUDS: dict[str, Cloud] = {cloud.provider: cloud for cloud in (
    _ec2("aws", "AWS", token=True),
    _ec2("openstack", "openstack"),
    Cloud("hetzner", "Hetzner", _LINK_LOCAL, "/latest/user-data",
          {"/latest/meta-data/hostname": "web-1", "/latest/meta-data/public-ipv4": "203.0.113.7",
           "/latest/meta-data/local-ipv4": "", "/latest/meta-data/instance-id": "4711",
           "/latest/meta-data/public-keys": json.dumps([KEY, KEY2])},
          {"hostname": "web-1", "public_ipv4": "203.0.113.7", "local_ipv4": "", "instance_id": "4711"},
          keys=f"{KEY}\n{KEY2}\n"),
    Cloud("gcp", "GCP", _LINK_LOCAL, _GCP + "instance/attributes/user-data",
          {_GCP + "instance/hostname": "web-1.c.project.internal",
           _GCP + "project/attributes/ssh-keys": f"moby:{KEY}\nroot:{KEY2}",
           _GCP + "instance/attributes/ssh-keys": "me:ssh-rsa CCC me"},
          {"hostname": "web-1.c.project.internal"}, keys=f"{KEY}\n{KEY2}\nssh-rsa CCC me\n",
          headers={"Metadata-Flavor": "Google"}, answers={"Metadata-Flavor": "Google"}),
    Cloud("digitalocean", "DigitalOcean", _LINK_LOCAL, "/metadata/v1/user-data",
          {"/metadata/v1/": "id\nhostname\n", "/metadata/v1/hostname": "web-1", "/metadata/v1/region": "ams3",
           "/metadata/v1/interfaces/public/0/ipv4/address": "203.0.113.7", "/metadata/v1/id": "4711",
           "/metadata/v1/interfaces/private/0/ipv4/address": "10.1.2.3", "/metadata/v1/public-keys": KEY},
          {"hostname": "web-1", "public_ipv4": "203.0.113.7", "private_ipv4": "10.1.2.3", "region": "ams3",
           "id": "4711"}),
    Cloud("vultr", "Vultr", _LINK_LOCAL, "/latest/user-data",
          {"/v1/": "hostname\ninstanceid", "/v1/hostname": "web-1", "/v1/instanceid": "42", "/v1/public-keys": KEY,
           "/v1/interfaces/0/ipv4/address": "203.0.113.7", "/v1/interfaces/1/ipv4/address": "10.1.2.3",
           "/v1/interfaces/1/ipv4/netmask": "255.255.0.0", "/v1/region/regioncode": "AMS"},
          {"hostname": "web-1", "public_ipv4": "203.0.113.7", "private_ipv4": "10.1.2.3", "instance_id": "42",
           "private_netmask": "255.255.0.0", "region_code": "AMS"}),
    Cloud("scaleway", "Scaleway", "169.254.42.42", "/user_data/cloud-init", {"/conf": SCALEWAY_CONF},
          {"hostname": "web-1", "instance_id": "11111111-2222", "instance_location": "par1",
           "public_ip": "203.0.113.7", "private_ip": "10.1.2.3"}, keys=f"{KEY}\n{KEY2}\n", low_port=True),
    Cloud("metaldata", "metaldata", "metaldata", "/get/user",
          {"/get/meta/hostname": "web-1", "/get/meta/public-ipv4": "203.0.113.7", "/get/meta/private-ipv4": "10.1.2.3",
           "/get/meta/failure-domain": "rack-2", "/get/meta/machine-id": "4711", "/get/meta/machine-type": "big",
           "/get/meta/authorized-keys": KEY},
          {"hostname": "web-1", "public_ipv4": "203.0.113.7", "private_ipv4": "10.1.2.3", "failure_domain": "rack-2",
           "machine_id": "4711", "machine_type": "big"}),
    Cloud("azure", "Azure", _LINK_LOCAL, "/metadata/instance/compute/userData?api-version=2021-01-01&format=text",
          {"/metadata/instance?api-version=2021-02-01": json.dumps(_AZURE), "/machine/?comp=goalstate": GOAL,
           "/machine?comp=health": ""},
          {"hostname": "web-1", "public_ipv4": "203.0.113.7", "local_ipv4": "10.0.0.4", "region": "westeurope",
           "availability_zone": "2", "instance_type": "Standard_B1s", "instance_id": "13f56399"},
          keys=KEY + "\n", headers={"Metadata": "true"}, hosts=("168.63.129.16",), wrapped=base64.b64encode),
    Cloud("equinixmetal", "EquinixMetal", "metadata.platformequinix.com", "/userdata",
          {"/metadata": json.dumps(_METAL)}, {"hostname": "metal-1"}, keys=f"{KEY}\n{KEY2}\n"),
)}  # fmt: skip


class Service(ThreadingHTTPServer):
    """One cloud's service on a port of this machine."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, cloud: Cloud, userdata: bytes | None = USERDATA) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.cloud = cloud
        self.routes = {path: text.encode() if isinstance(text, str) else text for path, text in cloud.routes.items()}
        if userdata is not None:
            self.routes[cloud.userdata] = cloud.wrapped(userdata)
        self.faults: list[tuple[str, str]] = []
        self.asked: list[tuple[str, str, bytes]] = []  # method, path, body
        self.wrong: list[str] = []  # what a real one would have refused
        self.raw = b""
        self.ended = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def fault(self, path: str, what: str, times: int = 1) -> None:
        """What is wrong with the next answers for a path: a status, slow, cut, reset, garbage, oversized, chunked,
        badchunk, headers, redirect; raw: what is in `raw`."""
        self.faults += [(path, what)] * times

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # a client that goes away is what some tests are about

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.ended.set()
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Service
    protocol_version = "HTTP/1.1"
    timeout = 10

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def _serve(self) -> None:
        service, cloud = self.server, self.server.cloud
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        service.asked.append((self.command, self.path, body))
        self.close_connection = True
        for number, (path, what) in enumerate(service.faults):
            if path == self.path:
                del service.faults[number]
                self._fail(what)
                return
        if refused := self._refused(cloud):
            service.wrong.append(f"{self.command} {self.path}: {refused}")
            self._answer(400, refused.encode())
        elif cloud.token and self.path == "/latest/api/token":
            self._answer(200, TOKEN.encode())
        elif self.path in service.routes:
            self._answer(200, service.routes[self.path])
        else:
            self._answer(404, b"<html>not here</html>")

    def _refused(self, cloud: Cloud) -> str:
        if self.headers.get("Host") not in (cloud.host, *cloud.hosts):
            return f"asked as {self.headers.get('Host')}"
        if "X-Forwarded-For" in self.headers or self.headers.get("Connection") != "close":
            return "a proxy's request, or one that stays"
        if self.path.startswith("/machine"):  # Azure's other service
            wanted = {"x-ms-version": "2012-11-30", "x-ms-agent-name": "linuxkit"}
            method = "POST" if "health" in self.path else "GET"
        elif self.path == "/latest/api/token":
            wanted, method = {"X-aws-ec2-metadata-token-ttl-seconds": "300"}, "PUT"
        else:
            wanted, method = dict(cloud.headers), "GET"
            if cloud.token:
                wanted["X-aws-ec2-metadata-token"] = TOKEN
        missing = [name for name, value in wanted.items() if self.headers.get(name) != value]
        if missing:
            return f"without {', '.join(missing)}"
        if self.command != method:
            return f"{self.command} instead of {method}"
        if cloud.low_port and self.path == cloud.userdata and self.client_address[1] >= 1024:
            return f"from port {self.client_address[1]}"
        return ""

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        for name, value in self.server.cloud.answers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _fail(self, what: str) -> None:
        body = self.server.routes.get(self.path, b"")
        if what.isdigit():
            self._answer(int(what), b"this went wrong")
        elif what == "slow":  # a byte now and then
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
            for _ in range(50):
                if self.server.ended.wait(0.1):
                    break
                self.wfile.write(b"x")
        elif what == "silent":
            self.server.ended.wait(5)
        elif what == "cut":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body) + 10, body[:-1]))
        elif what == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            self.connection.close()
        elif what == "garbage":
            self.wfile.write(bytes(range(256)) * 40)
        elif what == "oversized":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (1 << 40))
            self._flood(b"x" * 65536)
        elif what == "endless":
            self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
            self._flood(b"x" * 65536)
        elif what == "headers":
            self.wfile.write(b"HTTP/1.1 200 OK\r\n")
            self._flood(b"X-Filler: " + b"y" * 500 + b"\r\n")
        elif what == "chunked":
            pieces = [body[i : i + 7] for i in range(0, len(body), 7)]
            chunks = b"".join(b"%x;a=b\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
            self.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)
            self.wfile.write(b"0\r\nTrailer: t\r\n\r\n")
        elif what == "badchunk":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n")
        elif what == "raw":
            self.wfile.write(self.server.raw)
        elif what == "redirect":
            self.wfile.write(b"HTTP/1.1 302 Found\r\nLocation: http://192.0.2.1/\r\nContent-Length: 0\r\n\r\n")
        else:
            raise AssertionError(what)

    def _flood(self, piece: bytes) -> None:
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline and not self.server.ended.is_set():
            self.wfile.write(piece)
