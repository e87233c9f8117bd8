"""A cluster file: several machines, and the private network between them. From text to what each machine is.

    network: 192.168.76.0/24
    machines:
      - {name: db, prefix: db, mem: 2G}
      - {name: web, prefix: web, count: 2, publish: ["8080:80"]}
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from ipaddress import AddressValueError, IPv4Address, IPv4Network, NetmaskValueError
from pathlib import Path
from typing import Any

from linuxkit.config.convert import Converter
from linuxkit.config.document import read_document
from linuxkit.config.model import Position
from linuxkit.config.types import AnyOf, Bool, Field, Int, ListOf, Object, Str
from linuxkit.errors import InputError, Problem
from linuxkit.platforms import disks, qemu
from linuxkit.platforms.prepare import Request

DEFAULT_NETWORK = "192.168.76.0/24"
#: QEMU's own network behind each machine, and the name server in it.
USER_NETWORK, USER_DNS = IPv4Network("10.0.2.0/24"), IPv4Address("10.0.2.3")
MAX_MACHINES = 64
NAME = "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of `machines`, as written."""

    prefix: str
    name: str = ""
    count: int = 1
    cpus: int = 1
    mem: int | str = ""
    disks: tuple[str, ...] = ()
    publish: tuple[str, ...] = ()
    networking: str = "user"
    address: str = ""
    data: str | None = None
    data_file: str = ""
    virtiofs: tuple[str, ...] = ()
    tpm: bool = False
    uefi: bool | None = None
    position: Position | None = None


@dataclass(frozen=True, slots=True)
class File:
    """A cluster file, as written."""

    machines: tuple[Entry, ...]
    network: str = DEFAULT_NETWORK


@dataclass(frozen=True, slots=True)
class Member:
    """One machine of a cluster. `address`: in the private network; None where there is no such network."""

    name: str
    request: Request
    data: bytes | None = None
    address: IPv4Address | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """All machines, and the network between them."""

    members: tuple[Member, ...]
    network: IPv4Network | None


_STRS = ListOf(Str(nonempty=True))
MACHINE = Object("machine", (
    Field("name", "name", Str(pattern=NAME, form="a name: letters a-z, digits and -"), "What the machine is called.",
          "the last part of `prefix`"),
    Field("prefix", "prefix", Str(nonempty=True), "What it boots, as `linuxkit run` takes it.", required=True),
    Field("count", "count", Int(1, MAX_MACHINES), "So many of them: NAME-1, NAME-2, …", "1"),
    Field("cpus", "cpus", Int(1, 255), "Processors.", "1"),
    Field("mem", "mem", AnyOf((Int(1), Str())), "Memory: MB, or text such as `2G`.", "what the image needs"),
    Field("disks", "disks", _STRS, "Disks, as `--disk`.", "none"),
    Field("publish", "publish", _STRS, "Ports, as `--publish`; of the second machine the next one, and so on.", "none"),
    Field("networking", "networking", Str(), "As `--networking`: user, none, tap,IFACE or bridge,BRIDGE.", "user"),
    Field("address", "address", Str(), "Its address in the private network.", "the next free one"),
    Field("data", "data", Str(binary=True), "User data: the content of `config` on its CD.", "no CD"),
    Field("data-file", "data_file", Str(nonempty=True), "The same, in a file."),
    Field("virtiofs", "virtiofs", _STRS, "Folders, as `--virtiofs`.", "none"),
    Field("tpm", "tpm", Bool(), "Give it a TPM.", "false"),
    Field("uefi", "uefi", Bool(), "Start it with UEFI firmware.", "when what is booted needs it"),
), Entry, "One machine, or several alike.")  # fmt: skip
FILE = Object("cluster", (
    Field("network", "network", Str(), "The private network between the machines; `none` for none.", DEFAULT_NETWORK),
    Field("machines", "machines", ListOf(MACHINE), "The machines.", required=True),
), File, "Several machines that are started together.")  # fmt: skip


def parse(text: str | bytes, file: str) -> File:
    """Read a cluster file.

    Raises:
        InputError: `problems` has every fault with its line.
    """
    root = read_document(text, file)
    reader = Converter(file, substitute=None, check_reference=None)
    made = reader.object(root, FILE, "")
    if reader.problems:
        raise InputError(f"{file} is not a cluster file", problems=sorted(reader.problems, key=lambda p: p.line))
    assert isinstance(made, File)
    return made


def parse_network(text: str) -> IPv4Network | None:
    """The private network; None for `none`.

    Raises:
        InputError: it is no IPv4 network, or too small for two machines.
    """
    if text in ("", "none"):
        return None
    try:
        network = IPv4Network(text)
    except (AddressValueError, NetmaskValueError, ValueError) as e:
        hint = f"use one such as {DEFAULT_NETWORK}, or none"
        raise InputError(f"network {text!r} cannot be used: {e}", hint=hint) from e
    if network.num_addresses < 8:
        raise InputError(f"network {text} is too small", hint=f"use one such as {DEFAULT_NETWORK}")
    if network.overlaps(USER_NETWORK):
        raise InputError(f"network {text} is also that behind --networking user ({USER_NETWORK})",
                         hint=f"use one such as {DEFAULT_NETWORK}")  # fmt: skip
    return network


def plan(file: File, folder: Path, state: Path, common: Request, data: Any) -> Plan:
    """What a file asks for.

    Args:
        folder: where relative paths in it start.
        state: the folder with the machines' state folders.
        common: what holds for all machines: accelerator, QEMU.
        data: reads a data file: path → bytes.

    Raises:
        InputError: a name, an address or a port is there twice, or makes no sense.
    """
    network = parse_network(file.network)
    members: list[Member] = []
    for entry in file.machines:
        try:
            members += _members(entry, folder, state, common, network, data)
        except InputError as e:
            raise _placed(e, entry.position) from None
    return check(members, network)


def copies(count: int, request: Request, data: bytes | None, network: IPv4Network | None) -> Plan:
    """`--count`: the same machine several times, called after its prefix.

    Raises:
        InputError: something can't be there several times.
    """
    name = _called(request.prefix)
    return check([_numbered(name, n, request, data, request.state_dir) for n in range(1, count + 1)], network)


def _called(prefix: str) -> str:
    """A machine's name from what it boots: my/Web_1.iso is web-1."""
    name = re.sub(r"\.(img|raw|iso|efi|qcow2|vmdk|vdi|vhdx?)$", "", Path(prefix).name.lower())
    return re.sub("[^a-z0-9]+", "-", name).strip("-")[:50].strip("-") or "machine"


def _members(
    entry: Entry, folder: Path, state: Path, common: Request, network: IPv4Network | None, data: Any
) -> list[Member]:
    name = entry.name or _called(entry.prefix)
    if entry.data is not None and entry.data_file:
        raise InputError("data and data-file cannot be used together", hint="give one of them")
    if entry.address and entry.count > 1:
        raise InputError("an address is for one machine, and count makes several", hint="write them one by one")
    content = data(folder / entry.data_file) if entry.data_file else None
    if entry.data is not None:
        content = entry.data.encode(errors="surrogateescape")
    request = replace(
        common, prefix=str(folder / entry.prefix), cpus=entry.cpus, memory=_memory(entry.mem),
        disks=tuple(_moved(text, folder) for text in entry.disks), publish=entry.publish, networking=entry.networking,
        virtiofs=tuple(_shared(text, folder) for text in entry.virtiofs), tpm=entry.tpm, uefi=entry.uefi,
    )  # fmt: skip
    if entry.count == 1:
        address = _address(entry.address, network) if entry.address else None
        return [Member(name, replace(request, state=state / name), content, address)]
    return [_numbered(name, n, request, content, state) for n in range(1, entry.count + 1)]


def _numbered(name: str, number: int, request: Request, data: bytes | None, state: Path) -> Member:
    """One of several alike: it has its own state and ports, and forgets what it writes on the image they share."""
    if any(disks.parse_disk(text).path is not None for text in request.disks):
        raise InputError("several machines cannot write on one disk",
                         hint="give only a size, such as size=10G: each gets its own")  # fmt: skip
    if qemu.parse_networking(request.networking).kind is qemu.Network.TAP:
        raise InputError("a tap interface is for one machine", hint="use user or bridge,BRIDGE")
    if request.vnc:
        raise InputError("--vnc is for one machine", hint="leave it or --count out")
    ports = []
    for text in request.publish:
        several = qemu.parse_ports(text)
        for port in several:
            host = port.host + (number - 1) * len(several) if port.host else 0
            ports.append(f"{port.address + ':' if port.address else ''}{host}:{port.guest}/{port.protocol}")
    whole = f"{name}-{number}"
    return Member(whole, replace(request, publish=tuple(ports), state=state / whole, forgets=True), data)


def _memory(value: int | str) -> int | None:
    if value == "":
        return None
    try:
        return disks.parse_size(str(value), "M") // disks.MIB
    except ValueError:
        raise InputError(f"{value!r} is not an amount of memory", hint="use 512, 512M or 2G") from None


def _moved(text: str, folder: Path) -> str:
    """`--disk` with its path taken from the file's folder."""
    wanted = disks.parse_disk(text)
    if wanted.path is None:
        return text
    size = f",size={wanted.size // disks.MIB}M" if wanted.size else ""
    return f"file={folder / wanted.path}{size}" + (f",format={wanted.format}" if wanted.format else "")


def _shared(text: str, folder: Path) -> str:
    tag, equals, path = text.partition("=")
    if not equals or (folder / text).is_dir():
        return str(folder / text)
    return f"{tag}={folder / path}"


def _address(text: str, network: IPv4Network | None) -> IPv4Address:
    if network is None:
        raise InputError(f"address {text} needs a network, and there is none", hint="remove network: none")
    try:
        address = IPv4Address(text)
    except AddressValueError:
        raise InputError(f"{text!r} is not an IPv4 address") from None
    outside = address not in network or address in (network.network_address, network.broadcast_address)
    server = network.network_address + 1
    if outside or address == server:
        raise InputError(f"{text} cannot be used in {network}", hint=f"{server} is the DHCP server's")
    return address


def check(members: Sequence[Member], network: IPv4Network | None) -> Plan:
    """The plan, once nothing is there twice; machines without an address get the next free one.

    Raises:
        InputError: a name, address or port is there twice, or there are too many machines.
    """
    if not members or len(members) > MAX_MACHINES:
        raise InputError(f"there are {len(members)} machines", hint=f"1 to {MAX_MACHINES} can be run together")
    _once("name", [m.name for m in members])
    taken = [m.address for m in members if m.address is not None]
    _once("address", taken)
    ports = [port for m in members for text in m.request.publish for port in qemu.parse_ports(text)]
    _once("published port", [f"{p.host}/{p.protocol}" for p in ports if p.host])
    if network is None:
        return Plan(tuple(members), None)
    usable = list(network.hosts())[:4096]
    rest = iter([a for a in (*usable[10:], *usable[1:10]) if a not in taken])  # .11 and on, while there are such
    try:
        placed = tuple(m if m.address is not None else replace(m, address=next(rest)) for m in members)
    except (StopIteration, RuntimeError):
        raise InputError(f"network {network} has no room for {len(members)} machines") from None
    return Plan(placed, network)


def _once(what: str, values: Sequence[object]) -> None:
    for number, value in enumerate(values):
        if value in values[:number]:
            raise InputError(f"{what} {value} is there twice", hint="each machine needs its own")


def _placed(error: InputError, at: Position | None) -> InputError:
    """The same error, and where the machine stands."""
    if at is None:
        return error
    found = Problem(error.message, at.file, at.line, at.column, "machines", error.hint)
    return InputError(str(replace(found, hint="")), hint=error.hint)
