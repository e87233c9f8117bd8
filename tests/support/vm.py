"""Machines for tests: a tiny guest, a kernel for it, and `boot`, which never leaves a test hanging.

    with boot(prefix) as machine:          # what `linuxkit build` wrote, or what testguest() made
        machine.wait_booted(60)

Verdicts come from the boot report and from waiting with a limit; the console is printed when a test fails, so that
pytest shows it. The kernel is the kit's, or what $LINUXKIT_TEST_KERNEL names.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from linuxkit.machine.machine import Channels, Machine
from linuxkit.machine.report import Event
from linuxkit.platforms import qemu
from linuxkit.platforms.prepare import Request, prepare

SECONDS = 60  # no test's machine lives longer, unless it says so
SOURCE = Path(__file__).with_name("testguest.c")


def cache_dir() -> Path:
    """Where fetched and compiled things are kept between test runs."""
    path = Path(os.environ.get("LINUXKIT_TEST_CACHE") or Path.home() / ".cache" / "linuxkit-tests")
    path.mkdir(parents=True, exist_ok=True)
    return path


# -- the kernel


@pytest.fixture(scope="session")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kit's kernel, which finds virtio and a serial port without modules."""
    if given := os.environ.get("LINUXKIT_TEST_KERNEL"):
        return Path(given)
    from support.system import build_in

    folder, text = tmp_path_factory.mktemp("kernel"), "kernel:\n  image: kit://kernel\n"
    return Path(build_in(folder, text, "--no-preflight") + "-kernel")  # there is no init in it


# -- the guest


def _newc(name: str, mode: int, data: bytes = b"", device: tuple[int, int] = (0, 0)) -> bytes:
    path = name.encode() + b"\0"
    numbers = (0, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(path), 0)
    head = b"070701" + b"".join(b"%08x" % n for n in numbers) + path
    return head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4)


def initrd_of(init: bytes) -> bytes:
    """An initramfs with nothing but /init and a console."""
    return b"".join([
        _newc("dev", 0o40755), _newc("dev/console", 0o20600, device=(5, 1)), _newc("init", 0o100755, init),
        _newc("TRAILER!!!", 0),
    ])  # fmt: skip


@pytest.fixture(scope="session")
def guest_init() -> bytes:
    """The test guest's PID 1, compiled once for its source."""
    kept = cache_dir() / f"testguest-{hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]}"
    if not kept.exists():
        partial = kept.with_name(f"{kept.name}.{os.getpid()}")
        command = [sys.executable, "-m", "ziglang", "cc", "-target", "x86_64-linux-musl", "-static", "-Os"]
        subprocess.run([*command, "-Wall", "-Wextra", "-Werror", "-o", partial, SOURCE], check=True, timeout=300)
        partial.replace(kept)
    return kept.read_bytes()


@pytest.fixture
def testguest(tmp_path: Path, kernel: Path, guest_init: bytes) -> Any:
    """Makes the files that `linuxkit run` boots: `testguest("panic")` is their prefix. Words: see testguest.c."""

    def make(word: str = "ok", extra: str = "") -> str:
        prefix = tmp_path / word
        Path(f"{prefix}-kernel").symlink_to(kernel.resolve())
        Path(f"{prefix}-initrd.img").write_bytes(initrd_of(guest_init))
        Path(f"{prefix}-cmdline").write_text(f"console=ttyS0 quiet testguest={word} {extra}".strip())
        return str(prefix)

    return make


# -- booting


@contextlib.contextmanager
def boot(
    prefix: str, *, seconds: float = SECONDS, change: Callable[[list[str]], list[str]] | None = None,
    data: bytes | None = None, **request: Any,
) -> Iterator[Machine]:
    """Boot the files of a prefix, as `linuxkit run` does.

    Args:
        seconds: the machine is ended when it has run that long, whatever the test waits for.
        change: changes QEMU's command line before it starts.
        data: what `--data` takes.
        request: fields of `platforms.prepare.Request`: memory, publish, disks, …

    Yields the running Machine, with what it decided as `machine.prepared` and its events as `machine.events`.
    """
    request.setdefault("accel", os.environ.get("LINUXKIT_QEMU_ACCEL", ""))

    def write_data(path: Path) -> None:
        from linuxkit.encode.config_iso import write_config

        write_config(path, data or b"")

    prepared = prepare(Request(prefix=str(prefix), **request), write_data=None if data is None else write_data)
    events: list[Event] = []

    def command(channels: Channels) -> list[str]:
        arguments = qemu.command(prepared.spec, channels)
        return change(arguments) if change else arguments

    machine = Machine(command, state=prepared.state, on_event=events.append, helpers=prepared.helpers)
    machine.prepared, machine.events = prepared, events  # type: ignore[attr-defined]
    with prepared.lock, machine:
        watchdog = threading.Timer(seconds, machine.kill)
        watchdog.start()
        try:
            yield machine
        except BaseException:
            print(f"--- console of {prefix}\n{machine.console}\n--- report\n{machine.report}")
            raise
        finally:
            watchdog.cancel()
