"""The answer to a guest that asks for its address: as much of DHCP as a network of fixed addresses needs. Pure.

    Ethernet 14 | IPv4 20 (RFC 791) | UDP 8 (RFC 768) | BOOTP 236 (RFC 951), magic cookie 4, options (RFC 2131, 2132)

A guest's address goes by the socket it is plugged into, not by what it says of itself. Leases have no end, so nothing
has to be remembered.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

COOKIE = b"\x63\x82\x53\x63"
DISCOVER, OFFER, REQUEST, DECLINE, ACK, NAK, RELEASE, INFORM = range(1, 9)
MASK, ROUTER, DNS, HOSTNAME, ASKED, LEASE, TYPE, SERVER = 1, 3, 6, 12, 50, 51, 53, 54
FOREVER = b"\xff\xff\xff\xff"
BROADCAST = b"\xff" * 6


@dataclass(frozen=True, slots=True)
class Lease:
    """What one guest is told. `dns`: a name server that it reaches on another network."""

    address: IPv4Address
    network: IPv4Network
    name: str = ""
    dns: IPv4Address | None = None

    @property
    def server(self) -> IPv4Address:
        """Who tells it: the first address of the network."""
        return self.network.network_address + 1


#: Whose frames the answers are: locally administered, of no guest (theirs are random and end otherwise in practice).
SERVER_MAC = bytes.fromhex("02564c4b0001")


def is_request(frame: bytes) -> bool:
    """Is it something that a DHCP client sends?"""
    if len(frame) < 14 + 20 + 8 or frame[12:14] != b"\x08\x00" or frame[14] >> 4 != 4 or frame[23] != 17:
        return False
    at = 14 + (frame[14] & 15) * 4
    return frame[at + 2 : at + 4] == b"\0\x43"


def answer(frame: bytes, lease: Lease) -> bytes | None:
    """The frame that answers one of a client; None when there is nothing to say."""
    if not is_request(frame):
        return None
    boot = frame[14 + (frame[14] & 15) * 4 + 8 :]
    if len(boot) < 240 or boot[0] != 1 or boot[1] != 1 or boot[2] != 6 or boot[236:240] != COOKIE:
        return None
    options = _options(boot[240:])
    kind = options.get(TYPE, b"\0")[:1]
    if options.get(SERVER, lease.server.packed) != lease.server.packed:
        return None
    if kind == bytes([DISCOVER]):
        return _reply(boot, lease, OFFER)
    if kind == bytes([INFORM]):
        return _reply(boot, lease, ACK)
    if kind != bytes([REQUEST]):
        return None
    asked = options.get(ASKED) or (boot[12:16] if any(boot[12:16]) else lease.address.packed)
    return _reply(boot, lease, ACK if asked == lease.address.packed else NAK)


def _options(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    at = 0
    while at < len(data) and data[at] != 255:
        if data[at] == 0:
            at += 1
            continue
        length = data[at + 1] if at + 1 < len(data) else 0
        found[data[at]] = data[at + 2 : at + 2 + length]
        at += 2 + length
    return found


def _reply(boot: bytes, lease: Lease, kind: int) -> bytes:
    def option(code: int, data: bytes) -> bytes:
        return bytes([code, len(data)]) + data

    given = kind != NAK
    options = COOKIE + option(TYPE, bytes([kind])) + option(SERVER, lease.server.packed)
    if given:
        options += option(LEASE, FOREVER) + option(MASK, lease.network.netmask.packed)
        options += option(HOSTNAME, lease.name.encode()[:63]) if lease.name else b""
        options += option(DNS, lease.dns.packed) if lease.dns is not None else b""
    head = struct.pack("!BBBB4s", 2, 1, 6, 0, boot[4:8]) + bytes(2) + boot[10:12] + boot[12:16]
    head += (lease.address.packed if given else bytes(4)) + bytes(8) + boot[28:44]
    message = (head.ljust(236, b"\0") + options + b"\xff").ljust(300, b"\0")
    mac = boot[28:34]
    # whoever has no address yet takes what comes to everybody's
    return _datagram(message, lease.server.packed, b"\xff" * 4, BROADCAST if boot[10] & 0x80 or not given else mac)


def _datagram(data: bytes, source: bytes, target: bytes, mac: bytes) -> bytes:
    length = 8 + len(data)
    udp = struct.pack("!HHHH", 67, 68, length, 0)  # no checksum: IPv4 allows that
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + length, 0, 0, 64, 17, 0, source, target)
    ip = ip[:10] + struct.pack("!H", _checksum(ip)) + ip[12:]
    return mac + SERVER_MAC + b"\x08\x00" + ip + udp + data


def _checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return int(~total & 0xFFFF)
