"""What can go wrong, as a user sees it.

    LinuxkitError                exit 1: the work failed
    ├── InputError               exit 2: what the user gave is wrong (YAML, flags, references)
    ├── ImageError               an image, layer or manifest is missing, damaged or hostile
    ├── TrustError               an image is not signed as the policy wants
    ├── NetworkError             a registry, mirror or URL could not be reached or refused
    ├── HostError                this machine lacks something: a tool, space, a permission, a free port
    └── MachineError             a virtual machine did not do what was asked

Every message says what is wrong and where; `hint` says what to do about it. Only `cli/` prints them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class LinuxkitError(Exception):
    """Base of all errors shown to users.

    Args:
        message: one line, lower case, no trailing full stop.
        hint: what to change, or the command to run; empty when there is nothing to add.
        problems: the faults it consists of, when there are several, in document order.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "", problems: Sequence[Problem] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault in an input file. `line` and `column` count from 1; 0 means unknown."""

    message: str
    file: str = ""
    line: int = 0
    column: int = 0
    path: str = ""  # dotted path in the document: services[0].image
    hint: str = ""

    def __str__(self) -> str:
        where = ":".join(str(p) for p in (self.file, self.line, self.column) if p)
        text = f"{where}: " if where else ""
        text += f"{self.path}: {self.message}" if self.path else self.message
        return f"{text} ({self.hint})" if self.hint else text


class InputError(LinuxkitError):
    """The user's input is wrong. `problems` lists every fault found."""

    exit_code = 2


class ReservedNameError(InputError):
    """An image name that only the kit gives. No place goes on after it, as after a name that cannot be read."""


class ImageError(LinuxkitError):
    """An image cannot be used: not found, damaged, or trying to escape its root."""


class FieldError(ImageError, ValueError):
    """A value that doesn't fit into the field of a format."""


class TrustError(LinuxkitError):
    """The policy doesn't allow an image. No ImageError: nothing that goes on without an image goes on without trust."""


class MissingError(ImageError):
    """An image that is not on this machine, and with --offline will not come. `name` is what to ask for."""

    def __init__(self, message: str, *, name: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.name = name


class NetworkError(LinuxkitError):
    """A peer could not be reached, or refused. `temporary` says whether trying again can help, after `wait` seconds."""

    def __init__(self, message: str, *, hint: str = "", problems: Sequence[Problem] = (), temporary: bool = False,
                 wait: float = 0.0) -> None:  # fmt: skip
        super().__init__(message, hint=hint, problems=problems)
        self.temporary, self.wait = temporary, wait


class HostError(LinuxkitError):
    """This machine lacks something that the work needs."""


class SpaceError(HostError):
    """A disk of this machine is full, or too small for what is to come."""


class MachineError(LinuxkitError):
    """A virtual machine failed to start, to report, or to stop."""
