"""A running virtual machine: its console, its boot report, its end.

QEMU gets one end of three socket pairs as inherited descriptors (QMP, console, report port): no path to be too long,
no race for a listening socket, nothing left on disk. One thread serves the other ends from start to end, so that the
guest never waits for us; callers wait on a condition.
"""

from __future__ import annotations

import os
import re
import selectors
import socket
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from linuxkit.errors import MachineError
from linuxkit.machine.console import Console
from linuxkit.machine.helper import Device
from linuxkit.machine.process import Process
from linuxkit.machine.qmp import Qmp
from linuxkit.machine.report import BootReport, Event, ReportReader
from linuxkit.machine.settle import Moves

MAX_TYPED = 1 << 20


class Channels(NamedTuple):
    """Descriptor numbers in QEMU of its ends of the socket pairs."""

    qmp: int
    console: int
    report: int
    helpers: tuple[int, ...] = ()  # connected to the programs that serve its devices, in their order


class Machine:
    """A virtual machine that runs while the context is open.

    Args:
        command: makes QEMU's command line, given the descriptors it inherits.
        state: folder for console.log and qemu.log; must exist.
        output: called with the console's bytes as they come, from another thread.
        on_event: called with each event of the boot report, from another thread.
        stdin: descriptor whose bytes go to the guest's console; None for none.
        helpers: what serves its devices.

    Raises:
        HostError: on entry, QEMU or a helper cannot be started.
    """

    def __init__(
        self,
        command: Callable[[Channels], Sequence[str]],
        *,
        state: Path,
        output: Callable[[bytes], None] | None = None,
        on_event: Callable[[Event], None] | None = None,
        stdin: int | None = None,
        helpers: Sequence[Device] = (),
    ) -> None:
        self._command, self._output, self._on_event, self._stdin = command, output, on_event, stdin
        self.state = state
        self.boots = 1
        self._wanted, self._helpers = helpers, list[Process]()
        self._qmp, self._reader = Qmp(), ReportReader()
        self._pending = bytearray()  # typed, not yet taken by the guest
        self._changed = threading.Condition()
        self.moves = Moves()
        self._ended = False
        self._killed = False
        self._failure: BaseException | None = None

    # -- life

    def __enter__(self) -> Machine:
        pairs = [socket.socketpair() for _ in range(3)]
        theirs = [pair[1] for pair in pairs]
        self._qmp_end, self._console_end, self._report_end = (pair[0] for pair in pairs)
        try:
            for helper in self._wanted:
                process, end = helper.start(self.state)
                theirs.append(end)
                if process is not None:
                    self._helpers.append(process)
            keep = tuple(end.fileno() for end in theirs)
            self._shown = Console(self.state / "console.log")
            try:
                command = self._command(Channels(keep[0], keep[1], keep[2], keep[3:]))
                self._process = Process(command, keep=keep, log=self.state / "qemu.log")
            except BaseException:
                self._shown.close()
                raise
        except BaseException:
            for end in (self._qmp_end, self._console_end, self._report_end):
                end.close()
            self._end_helpers()
            raise
        finally:
            for end in theirs:
                end.close()
        self._wake_read, self._wake_write = os.pipe()
        self._thread = threading.Thread(target=self._serve, name="machine", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.kill()
        self._end_helpers()
        self._thread.join(5)
        for end in (self._qmp_end, self._console_end, self._report_end, self._shown):
            end.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _end_helpers(self) -> None:
        for process in self._helpers:
            process.end()

    @property
    def pid(self) -> int:
        """QEMU's process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        return not self._ended

    @property
    def report(self) -> BootReport:
        """What the current boot has said so far."""
        with self._changed:
            return self._reader.report

    @property
    def console(self) -> str:
        """The last mebibyte of the console."""
        with self._changed:
            return self._shown.text

    # -- waiting

    def settle(self, timeout: float | None = None) -> BootReport:
        """Wait until the guest has booted or the machine has ended, whichever comes first.

        Raises:
            MachineError: `timeout` seconds passed.
        """
        self.until(lambda: self._ended or self._reader.report.booted is not None, timeout, "the guest did not boot")
        return self.report

    def wait_booted(self, timeout: float | None = None) -> BootReport:
        """Wait until the guest says that everything was started.

        Raises:
            MachineError: the machine ended first, its kernel panicked, or `timeout` seconds passed.
        """
        if self.settle(timeout).booted is None:
            self._raise_end()
            raise MachineError("the machine ended before it had booted" + self._tail(), hint=self._log_hint())
        return self.report

    def wait_console(self, pattern: str, timeout: float) -> re.Match[str]:
        """Wait until the console shows something.

        Raises:
            MachineError: the machine ended first, or `timeout` seconds passed.
        """
        wanted = re.compile(pattern)

        def found() -> re.Match[str] | None:
            return wanted.search(self._shown.text)

        self.until(lambda: self._ended or found(), timeout, f"the console did not show {pattern!r}")
        with self._changed:
            match = found()
        if match is None:
            self._raise_end()
            raise MachineError(f"the machine ended and the console had not shown {pattern!r}" + self._tail())
        return match

    def wait(self, timeout: float | None = None) -> BootReport:
        """Wait until the machine is off.

        Raises:
            MachineError: its kernel panicked, QEMU failed, or `timeout` seconds passed.
        """
        self.until(lambda: self._ended, timeout, "the machine is still running")
        self._raise_end()
        return self.report

    def power_off(self, timeout: float = 15) -> BootReport:
        """Ask the guest to shut down, and wait until it has.

        Asked in two ways: by word on the report port, which our own guest hears, and by ACPI power button.

        Raises:
            MachineError: it did not within `timeout` seconds; it was ended by force then.
        """
        for end, message in (
            (self._report_end, b"poweroff\n"),
            (self._qmp_end, Qmp.command("system_powerdown")),
        ):
            try:
                end.send(message)
            except OSError:  # QEMU has just ended, or takes nothing any more
                pass
        try:
            return self.wait(timeout)
        except MachineError:
            if self._ended:
                raise
            self.kill()
            raise MachineError(
                f"the guest did not power off within {timeout:g} s of being asked, and was ended by force",
                hint="give it longer with --stop-timeout, or see what it waits for in " + str(self._log_path),
            ) from None

    def kill(self) -> None:
        """End the machine at once, as pulling the plug does. Harmless when it has ended."""
        self._killed = self._killed or not self._ended
        self._process.end()
        self._wake()
        if threading.current_thread() is not self._thread:
            with self._changed:
                self._changed.wait_for(lambda: self._ended, 5)

    def send(self, data: bytes) -> None:
        """Type on the guest's console."""
        with self._changed:
            self._pending += data
        self._wake()

    # -- how it ended

    @property
    def _log_path(self) -> Path:
        return self.state / "console.log"

    def _log_hint(self) -> str:
        return f"the whole console is in {self._log_path}"

    def _tail(self, lines: int = 12) -> str:
        shown = [line for line in self.console.replace("\r", "").splitlines() if line.strip()][-lines:]
        return "".join(f"\n  {line}" for line in shown) if shown else "; its console stayed empty"

    def until(self, done: Callable[[], object], timeout: float | None, what: str, every: float = 1e6) -> None:
        """Wait until `done()`, asked at each change and every so many seconds; else MachineError "WHAT within …"."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while not done():
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    break
                self._changed.wait(every if left is None else min(every, left))
            else:
                return
        raise MachineError(f"{what} within {timeout:g} s" + self._tail(), hint=self._log_hint())

    def _raise_end(self) -> None:
        if self._failure is not None:
            raise self._failure
        if not self._ended:
            return
        if self._shown.panic is not None:
            raise MachineError(f"kernel panic: {self._shown.panic}" + self._tail(), hint=self._log_hint())
        if (status := self._process.poll()) == 0 or self._killed:
            return
        signalled = f"killed by signal {-status}" if status is not None and status < 0 else ""
        for helper in self._helpers:
            if helper.wait(0.2):  # QEMU's own words would only be that a connection is gone
                raise MachineError(f"{helper.name} failed: {helper.last_words() or 'no message'}",
                                   hint=f"its error output is in {helper.log}")  # fmt: skip
        words = self._process.last_words() or signalled or "no message"
        what = "failed" if self._shown or self._qmp.ready else "could not start the machine"
        raise MachineError(
            f"{self._process.name} {what}: {words}", hint=f"its error output is in {self._process.log}"
        )

    # -- the serving thread

    def _wake(self) -> None:
        try:
            os.write(self._wake_write, b"x")
        except OSError:
            pass

    def _serve(self) -> None:
        try:
            with selectors.DefaultSelector() as selector:
                self._pump(selector)
        except BaseException as e:
            self._failure = e
            self._process.end()
        finally:
            self._process.wait(10)
            self._process.end()
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _pump(self, selector: selectors.BaseSelector) -> None:
        takers: dict[int, Callable[[bytes], None]] = {
            self._qmp_end.fileno(): self._take_qmp,
            self._console_end.fileno(): self._take_console,
            self._report_end.fileno(): self._take_report,
            self._wake_read: lambda _: None,
        }
        for fd in takers:
            os.set_blocking(fd, False)
            selector.register(fd, selectors.EVENT_READ)
        if self._stdin is not None:
            takers[self._stdin] = self._take_stdin
            try:
                selector.register(self._stdin, selectors.EVENT_READ)
            except (PermissionError, ValueError):  # a regular file, always readable
                self._take_stdin(os.read(self._stdin, MAX_TYPED))
        guest = {self._qmp_end.fileno(), self._console_end.fileno(), self._report_end.fileno()}
        while guest:
            self._offer(selector)
            for key, _ in selector.select(0.2 if self._shown.panic is not None else None):
                fd = key.fd
                try:
                    data = os.read(fd, 65536)
                except BlockingIOError:
                    continue
                except OSError:  # a peer that vanished, a terminal that hung up
                    data = b""
                if data:
                    takers[fd](data)
                else:
                    selector.unregister(fd)
                    guest.discard(fd)
            if self._shown.over:
                self._process.end()

    def _offer(self, selector: selectors.BaseSelector) -> None:
        """Give the guest what was typed; while it does not take it, take nothing more from stdin."""
        with self._changed:
            if self._pending:
                try:
                    del self._pending[: self._console_end.send(self._pending[:4096])]
                except BlockingIOError:
                    pass
                except OSError:
                    self._pending.clear()
            more = bool(self._pending)
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if more else 0)
        if self._console_end.fileno() in selector.get_map():
            selector.modify(self._console_end.fileno(), events)

    def _take_stdin(self, data: bytes) -> None:
        with self._changed:
            self._pending += data

    def _take_console(self, data: bytes) -> None:
        self._shown.log(data)
        with self._changed:
            self._shown.take(data)
            self._changed.notify_all()
        if self._output is not None:
            self._output(data)

    def _take_report(self, data: bytes) -> None:
        with self._changed:
            events = list(self._reader.feed(data))
            for event in events:
                self.moves.note(event, time.monotonic())
            self._changed.notify_all()
        if self._on_event is not None:
            for event in events:
                self._on_event(event)

    def _take_qmp(self, data: bytes) -> None:
        was_ready = self._qmp.ready
        self._qmp.feed(data)
        if self._qmp.ready and not was_ready:
            self._qmp_end.send(Qmp.command("qmp_capabilities"))
        while self._qmp.events:
            event = self._qmp.events.popleft()
            if event["event"] == "RESET" and event.get("data", {}).get("guest"):
                self._take_reset()
        self._qmp.replies.clear()

    def _take_reset(self) -> None:
        """The guest rebooted: what it said before is in the socket already, what comes after is another boot."""
        try:
            while data := self._report_end.recv(65536):
                self._take_report(data)
        except BlockingIOError:
            pass
        with self._changed:
            self._reader.restart()
            self.moves = Moves()
            self.boots += 1
            self._changed.notify_all()
