"""The host's programs: finding them and running them. The only module that starts a subprocess."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from linuxkit import room as space
from linuxkit.errors import HostError

Completed = subprocess.CompletedProcess[bytes]
#: Debian package that brings a program, for the hint of find_tool.
PACKAGES = {
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-system-aarch64": "qemu-system-arm",
    "qemu-system-riscv64": "qemu-system-misc",
    "qemu-img": "qemu-utils",
    "swtpm": "swtpm",
    "gpgv": "gpgv",
    "git": "git",
    "apt-get": "apt",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
}

#: Of what a failed program said: lines that are shown, how many of them are its last, characters of one.
_SCREEN, _TAIL, _WIDE = 16, 5, 400
_FAULT = re.compile(r"^(E|Err|Fehler)[:\d]|\b(error|fatal|failed|failure|cannot|denied|no space)\b", re.IGNORECASE)


def find_tool(name: str, *, why: str, path: str | None = None) -> Path:
    """The full path of a program.

    Args:
        name: as typed in a shell.
        why: what needs it, for the message: "to run a machine".
        path: search path; None is $PATH.

    Raises:
        HostError: it is not installed; the hint names the package.
    """
    found = shutil.which(name, path=path)
    if found is None:
        package = PACKAGES.get(name, name)
        raise HostError(f"{name} is needed {why} and is not installed", hint=f"on Debian: apt-get install {package}")
    return Path(found)


def run(
    command: Sequence[str | os.PathLike[str]],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    timeout: float | None = None,
    check: bool = True,
    show: bool = False,
    room: Path | None = None,
) -> Completed:
    """Run a program to its end and keep what it printed.

    Args:
        show: let it print to our standard error instead.
        room: the folder that it writes in: when nothing fits there any more, it is ended. Some programs wait for ever.

    Raises:
        SpaceError: `room` is full.
        HostError: it could not start, took longer than `timeout` seconds, or (with `check`) failed; the message
            carries those lines of its error output that name a fault, and the last ones.
    """
    name = Path(os.fspath(command[0])).name
    out, errors = (2, None) if show else (subprocess.PIPE, subprocess.PIPE)
    words = [os.fspath(c) for c in command]
    try:
        if room is None:
            done = subprocess.run(words, cwd=cwd, env=env, input=stdin, timeout=timeout, check=False, stdout=out,
                                  stderr=errors)  # fmt: skip
        else:
            done = _watched(words, room, timeout, cwd=cwd, env=env, stdout=out, stderr=errors)
    except subprocess.TimeoutExpired as e:
        raise HostError(f"{name} did not finish within {timeout:g} s") from e
    except OSError as e:
        raise HostError(f"{name} could not be started: {e.strerror or e}") from e
    if done.returncode != 0 and room is not None and space.free(room) < space.FULL:
        raise space.full(room)
    if check and done.returncode != 0:
        said = "\n  ".join(_said(done.stderr or b"")) or ("see above" if show else "no message")
        raise HostError(f"{name} failed with exit status {done.returncode}: {said}")
    return done


def _watched(words: Sequence[str], room: Path, timeout: float | None, **how: Any) -> Completed:
    """`subprocess.run`, of a program and its children that end when there is no room."""
    until = None if timeout is None else time.monotonic() + timeout
    child = subprocess.Popen(words, stdin=subprocess.DEVNULL, start_new_session=True, **how)
    try:
        while True:
            try:
                out, errors = child.communicate(timeout=1)
                return subprocess.CompletedProcess(words, child.returncode, out, errors)
            except subprocess.TimeoutExpired:
                if space.free(room) < space.FULL:
                    raise space.full(room) from None
                if until is not None and time.monotonic() > until:
                    raise
    finally:
        if child.poll() is None:  # full, late or interrupted
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.communicate()


def _said(errors: bytes) -> list[str]:
    """Of what a program said on standard error, what fits a screen: lines that name a fault, and the last ones."""
    lines = [line.rstrip() for line in errors.decode(errors="replace").splitlines() if line.strip()]
    if len(lines) > _SCREEN:
        faults = [n for n, line in enumerate(lines) if _FAULT.search(line)][: _SCREEN - _TAIL]
        lines = [lines[n] for n in sorted({*faults, *range(len(lines) - _TAIL, len(lines))})]
    return [line if len(line) <= _WIDE else line[:_WIDE] + "…" for line in lines]


def feed(command: Sequence[str | os.PathLike[str]], pieces: Iterable[bytes]) -> Completed:
    """Run a program to its end, with its input made while it runs. Whether it failed is for the caller to see.

    It ends early when the program wants no more; whatever is raised on the way ends the program.

    Raises:
        HostError: it could not start.
    """
    name = Path(os.fspath(command[0])).name
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        try:
            child = subprocess.Popen([os.fspath(c) for c in command], stdin=subprocess.PIPE, stdout=out, stderr=errors)
        except OSError as e:
            raise HostError(f"{name} could not be started: {e.strerror or e}") from e
        assert child.stdin is not None
        try:
            with suppress(BrokenPipeError):  # its exit status and its words say why
                for piece in pieces:
                    child.stdin.write(piece)
                    child.stdin.flush()
            with suppress(BrokenPipeError):
                child.stdin.close()
            child.wait()
        except BaseException:
            child.kill()
            child.wait()
            with suppress(BrokenPipeError):
                child.stdin.close()
            raise
        out.seek(0)
        errors.seek(0)
        return subprocess.CompletedProcess(child.args, child.returncode, out.read(1 << 20), errors.read(1 << 20))


def attach(command: Sequence[str | os.PathLike[str]]) -> int:
    """Run a program that has this terminal until it ends; its exit status.

    Raises:
        HostError: it could not start.
    """
    name = Path(os.fspath(command[0])).name
    try:
        return subprocess.run([os.fspath(c) for c in command], check=False).returncode
    except OSError as e:
        raise HostError(f"{name} could not be started: {e.strerror or e}") from e
