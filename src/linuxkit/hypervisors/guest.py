"""A machine to run, and how one hypervisor of this machine defines, starts and removes it: data, no deeds.

    Guest  --define-->  Definition      each hypervisor's module; pure, so that it can be looked at word for word
    Definition  ------> a running machine                                                   `local`, for all of them
"""

from __future__ import annotations

import re
import shlex
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from linuxkit.errors import InputError
from linuxkit.platforms.bootimage import Media
from linuxkit.platforms.qemu import Port

MAX_NAME = 80


@dataclass(frozen=True, slots=True)
class Drive:
    """A disk or CD in a file of a format (QEMU's names) that the hypervisor takes; absolute."""

    path: Path
    format: str = "raw"
    media: Media = Media.DISK
    readonly: bool = False


@dataclass(frozen=True, slots=True)
class Guest:
    """A machine, whatever runs it. `memory` in MiB; `arch` as QEMU has it; paths are absolute.

    state   its folder
    drives  what it boots from first, when there is no kernel
    data    an ISO 9660 image with user data
    """

    name: str
    state: Path
    arch: str = "x86_64"
    cpus: int = 1
    memory: int = 1024
    kernel: Path | None = None
    initrd: Path | None = None
    cmdline: str = ""
    drives: tuple[Drive, ...] = ()
    data: Path | None = None
    mac: str = ""
    ports: tuple[Port, ...] = ()
    uefi: bool = False
    sockets: Path | None = None  # where its sockets are, when the state folder's path is too long for one

    def socket(self, name: str) -> Path:
        """The path of a socket."""
        return (self.sockets or self.state) / name


@dataclass(frozen=True, slots=True)
class Command:
    """A program with its arguments. `shown`: what to show in their place, where they are no text to read."""

    arguments: tuple[str, ...]
    shown: str = ""

    def __str__(self) -> str:
        return self.shown or shlex.join(self.arguments)


@dataclass(frozen=True, slots=True)
class Call:
    """A request to the web service that a hypervisor has at a socket."""

    socket: Path
    method: str
    path: str
    body: str = ""

    def __str__(self) -> str:
        given = f" --data {shlex.quote(self.body)} -H 'Content-Type: application/json'" if self.body else ""
        return f"curl --unix-socket {shlex.quote(str(self.socket))} -X {self.method}{given} http://localhost{self.path}"


@dataclass(frozen=True, slots=True)
class Signal:
    """A signal to the program that runs the machine."""

    name: str

    def __str__(self) -> str:
        return f"kill -{self.name.removeprefix('SIG')} PID"


Step = Command | Call | Signal


@dataclass(frozen=True, slots=True)
class Definition:
    """What brings a machine into being and to its end.

    files    written first
    taken    succeeds when there is a machine of that name already
    make     makes it, step by step; after the first one there is something to remove
    start    starts it and comes back
    machine  runs in a terminal that is the machine's console, for as long as the machine runs
    socket   where its serial port is: a socket, or on Windows a pipe
    running  (command, pattern): while it is not off, the pattern is in what the command prints
    stop     asks the guest to shut down
    kill     ends it at once
    remove   removes what `make` made, and no disk
    leaves   files that are gone with it
    ended    exit statuses of `machine` after which all was well
    """

    files: tuple[tuple[Path, str], ...] = ()
    taken: Command | None = None
    make: tuple[Command, ...] = ()
    start: Command | None = None
    machine: Command | None = None
    socket: str = ""
    running: tuple[Command, str] | None = None
    stop: tuple[Step, ...] = ()
    kill: tuple[Step, ...] = ()
    remove: tuple[Command, ...] = ()
    leaves: tuple[Path, ...] = ()
    ended: frozenset[int] = frozenset({0})


def check_name(name: str, *, forbidden: str = "") -> str:
    """A machine's name that every hypervisor can have.

    Args:
        forbidden: characters that this hypervisor gives a meaning to.

    Raises:
        InputError: it can't be a name.
    """
    hint = "give another with --name"
    if not name or len(name.encode(errors="surrogatepass")) > MAX_NAME:
        raise InputError(f"a machine's name has 1 to {MAX_NAME} bytes, and {name[:MAX_NAME]!r} has not", hint=hint)
    if name != name.strip() or name.startswith(("-", ".")):
        raise InputError(f"{name!r} cannot be a machine's name: it starts or ends badly", hint=hint)
    for character in name:
        if character in "/\\" + forbidden or unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp"):
            raise InputError(f"{name!r} cannot be a machine's name here: it contains {character!r}", hint=hint)
    return name


def check_path(path: Path, forbidden: str, what: str) -> str:
    """A path inside a list that has no way to quote some characters.

    Raises:
        InputError: it contains one of them, or cannot be written as text.
    """
    text = str(path)
    for character in text:
        if character in forbidden or unicodedata.category(character) in ("Cc", "Cs"):
            raise InputError(f"{what} cannot take a path that contains {character!r}: {text!r}", hint="rename it")
    return text


def parse_networking(text: str, kinds: dict[str, bool], default: str) -> tuple[str, str]:
    """`KIND` or `KIND,NAME`.

    Args:
        kinds: what there is, and whether it has a name.

    Raises:
        InputError: something else.
    """
    kind, _, name = (text or default).partition(",")
    kind = default.partition(",")[0] if kind == "default" else kind
    if kind not in kinds or bool(name) != kinds[kind] or (name and not re.fullmatch(r"[\w .:@()+-]+", name)):
        known = ", ".join(f"{k},NAME" if named else k for k, named in kinds.items())
        raise InputError(f"--networking {text!r} is not understood", hint=f"use {known}")
    return kind, name
