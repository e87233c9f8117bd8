"""What a place to push to or run on is, and what it is given to work with.

A place is a module with a class `Push`, a class `Run`, or both; `platforms.table` lists them.
"""

from __future__ import annotations

import importlib
import json
import time
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote, quote_plus

from linuxkit.errors import HostError, InputError

if TYPE_CHECKING:
    from linuxkit.oci.transport import Transport
    from linuxkit.places.image import LocalImage
    from linuxkit.places.journal import Journal

SHORT = 6  # characters of user data that are not looked for within other texts


@dataclass(frozen=True, slots=True)
class Setting:
    """Something that the user can set, by `--name` or by an environment variable.

    env     variables, the first that is set and not empty counts.
    secret  has no flag, and is never shown.
    also    other names of its flag, such as LinuxKit's.
    many    its flag can be given several times; the value is a tuple.
    """

    name: str
    help: str
    env: tuple[str, ...] = ()
    default: Any = ""
    kind: type[str] | type[int] | type[bool] = str
    required: bool = False
    secret: bool = False
    metavar: str = ""
    also: tuple[str, ...] = ()
    many: bool = False

    @property
    def key(self) -> str:
        return self.name.replace("-", "_")

    @property
    def flag(self) -> str:
        return f"--{self.name}"


@dataclass(frozen=True, slots=True)
class Place:
    """A line of the table.

    module   below linuxkit.
    formats  of build that it takes, the one that is built when none is there first.
    local    it is a hypervisor of this machine: what is run is a file.
    """

    name: str
    summary: str
    module: str
    push: bool = False
    run: bool = False
    formats: tuple[str, ...] = ()
    local: bool = False

    def load(self) -> Any:
        """The module: PUSH_SETTINGS and Push, RUN_SETTINGS and Run."""
        return importlib.import_module(f"linuxkit.{self.module}")


@dataclass(frozen=True)
class Job:
    """What a place works with. `settings` has a value for each of its settings.

    progress  takes what is moved, bytes so far and bytes in all; from any thread.
    data      user data for a machine; None: none.
    """

    settings: Mapping[str, Any]
    environment: Mapping[str, str]
    transport: Transport
    journal: Journal
    log: Callable[[str], None]
    output: Callable[[bytes], None] = lambda data: None
    progress: Callable[[str, int, int], None] = lambda what, done, size: None
    dry_run: bool = False
    keep: bool = False
    data: bytes | None = None
    now: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep

    def __getitem__(self, name: str) -> Any:
        return self.settings[name.replace("-", "_")]

    def veil(self, value: Any) -> Any:
        """A value fit to be shown: without the user data, in whatever form it is in it."""
        if isinstance(value, dict):
            return {key: self.veil(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self.veil(inner) for inner in value]
        if not isinstance(value, str) or not self.data:
            return value
        instead = f"({len(self.data)} bytes of user data)"
        for form in _forms(self.data):
            if value == form:
                return instead
            if len(form) >= SHORT:
                value = value.replace(form, instead)
        return value

    def wait(self, what: str, poll: Callable[[], Any], *, every: float = 2.0, limit: float = 600.0) -> Any:
        """Ask again and again until the answer is neither None nor False. At once when nothing is really done.

        Raises:
            HostError: not within `limit` seconds.
        """
        waited = 0.0
        while not (answer := poll()):
            if self.dry_run:
                return answer
            if waited >= limit:
                raise HostError(f"{what} took longer than {limit:.0f} s", hint="look at it in the place's own console")
            self.sleep(every)
            waited += every
        return answer


def _forms(data: bytes) -> list[str]:
    """How bytes stand in requests, the longest form first."""
    text = data.decode(errors="replace")
    forms = {text, b64encode(data).decode(), urlsafe_b64encode(data).decode(), quote(data), quote_plus(data),
             json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1], repr(text)[1:-1],
             escape(text)}  # fmt: skip
    forms |= {quote_plus(form) for form in tuple(forms)}
    return sorted(forms, key=lambda form: (-len(form), form))


@dataclass(frozen=True, slots=True)
class Pushed:
    """What is there now. `identity` is what the place calls it; `there_before`: nothing had to be sent."""

    name: str
    identity: str
    there_before: bool = False
    run_with: str = ""  # the command that starts it


class Pusher(Protocol):
    """Brings an image to a place."""

    def __init__(self, job: Job, image: LocalImage) -> None: ...

    def preflight(self) -> None:
        """Find every reason why it can't work. Changes nothing.

        Raises:
            InputError, HostError, NetworkError: the message names the setting to change.
        """

    def push(self) -> Pushed:
        """Do it. What is made is in the job's journal."""


class Runner(Protocol):
    """Starts a machine at a place and stays with it."""

    def __init__(self, job: Job, target: str) -> None: ...

    def preflight(self) -> None:
        """As Pusher.preflight."""

    def run(self) -> None:
        """Start, show the console, end and remove the machine when it is over or the user interrupts."""


def settle(settings: tuple[Setting, ...], given: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    """A value for each setting: what was given, else the environment's, else the default.

    Args:
        given: values of flags by key; None where a flag was not given.

    Raises:
        InputError: a required one has none, or a variable's text is of the wrong kind.
    """
    values: dict[str, Any] = {}
    missing = []
    for setting in settings:
        value = given.get(setting.key)
        if value is None:
            value = next((_typed(setting, name, text) for name in setting.env if (text := environment.get(name))), None)
        if value is None:
            value = () if setting.many else setting.default
        if setting.required and value == "":
            missing.append(setting)
        values[setting.key] = value
    if missing:
        ways = [" or ".join([*([] if s.secret else [s.flag]), *s.env]) for s in missing]
        raise InputError(f"needed and not set: {', '.join(s.name for s in missing)}", hint=f"give {'; '.join(ways)}")
    return values


def _typed(setting: Setting, variable: str, text: str) -> Any:
    try:
        if setting.kind is bool:
            return {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}[text.lower()]
        return setting.kind(text)
    except (ValueError, KeyError):
        shown = "" if setting.secret else f": {text!r}"
        raise InputError(f"{variable} is not {_KINDS.get(setting.kind, 'right')}{shown}") from None


_KINDS: dict[type[Any], str] = {int: "a whole number", bool: "true or false"}
