"""A machine of a hypervisor while it runs: its console on the terminal, its end, by itself or when it is asked."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from linuxkit import host
from linuxkit.errors import LinuxkitError, MachineError
from linuxkit.hypervisors import wire
from linuxkit.hypervisors.guest import Call, Command, Definition, Step
from linuxkit.machine.console import Console
from linuxkit.machine.process import Process
from linuxkit.places.place import Job

#: Seconds that a step may take, and between two questions whether a machine runs.
STEP, ASK = 120.0, 2.0
#: So many questions without an answer in a row mean that it doesn't.
UNANSWERED = 3


def call(command: Command, *, check: bool = True) -> host.Completed:
    """Run one command of a definition to its end."""
    return host.run(command.arguments, timeout=STEP, check=check)


class Session:
    """Starts a machine that is defined; whatever happens, it doesn't run any more when the context is left.

    Args:
        state: its folder, for the console's log and the program's.
    """

    def __init__(self, definition: Definition, job: Job, state: Path) -> None:
        self._definition, self._job, self._state = definition, job, state
        self._process: Process | None = None
        self._line: wire.Wire | None = None
        self._stopped, self._unanswered = False, 0
        self._shown = Console(state / "console.log")

    def __enter__(self) -> Session:
        try:
            self._start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._end()

    def _start(self) -> None:
        if self._definition.start is not None:
            call(self._definition.start)
            self._line = wire.connect(self._definition.socket)
            return
        assert self._definition.machine is not None
        import pty
        import tty

        ours, theirs = pty.openpty()
        try:
            tty.setraw(theirs)
            command = list(self._definition.machine.arguments)
            log = self._state / f"{Path(command[0]).name}.log"
            self._process = Process(command, keep=(), log=log, terminal=theirs)
        except BaseException:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        self._line = wire.DescriptorWire(ours)

    def _end(self) -> None:
        try:
            with suppress(LinuxkitError):
                if self._definition.running is not None and self._running():
                    self._do(self._definition.kill)
        finally:
            if self._process is not None:
                self._process.end()
            if self._line is not None:
                self._line.close()
            self._shown.close()

    # -- until it ends

    def attend(self) -> None:
        """Show its console until it has ended; at Ctrl-C ask it to.

        Raises:
            MachineError: its kernel panicked, its program failed, or it had to be ended by force.
            KeyboardInterrupt: the user didn't want to wait for its end.
        """
        with _typing() as stdin:
            try:
                self._pump(stdin, None)
            except KeyboardInterrupt:
                self._stop()
        if self._shown.panic is not None:
            hint = f"the whole console is in {self._state / 'console.log'}"
            raise MachineError(f"kernel panic: {self._shown.panic}", hint=hint)
        process = self._process
        if process is not None and process.wait(5) not in self._definition.ended and not self._stopped:
            words = process.last_words() or f"exit status {process.poll()}, and no message"
            what = "failed" if self._shown else "could not start the machine"
            raise MachineError(f"{process.name} {what}: {words}", hint=f"its error output is in {process.log}")

    def _running(self) -> bool:
        if self._process is not None and self._process.poll() is None:
            return True
        if self._definition.running is None:
            return False
        command, pattern = self._definition.running
        done = call(command, check=False)
        if done.returncode != 0:  # it may be busy just now
            self._unanswered += 1
            return self._unanswered < UNANSWERED
        self._unanswered = 0
        return re.search(pattern, done.stdout.decode(errors="surrogateescape"), re.MULTILINE) is not None

    def _pump(self, stdin: int | None, seconds: float | None) -> bool:
        """Show the console until the machine has ended. False: it hasn't within some seconds."""
        assert self._line is not None
        until = None if seconds is None else time.monotonic() + seconds
        asked, open_ = time.monotonic(), True
        while True:
            data = self._line.exchange(stdin, 0.2) if open_ else b""
            if data:
                self._take(data)
            open_ = open_ and data is not None
            if self._shown.over:
                self._do(self._definition.kill)
                return True
            now = time.monotonic()
            if not open_ or (self._definition.start is not None and now - asked >= ASK):
                if not self._running():
                    while open_ and (data := self._line.exchange(None, 0)):  # what it said last
                        self._take(data)
                    return True
                asked = now
                if not open_:
                    time.sleep(0.2)
            if until is not None and now >= until:
                return False

    def _take(self, data: bytes) -> None:
        self._shown.log(data)
        self._shown.take(data)
        if not self._job.settings.get("console_file"):
            self._job.output(data)

    def _stop(self) -> None:
        self._stopped = True
        limit = float(self._job["stop-timeout"])
        asks = bool(self._definition.stop)
        try:
            if asks:
                self._job.log("asking the guest to shut down; Ctrl-C again ends it at once")
                self._do(self._definition.stop)
                if self._pump(None, limit):
                    return
        except KeyboardInterrupt:
            self._do(self._definition.kill)
            self._job.log("ended by force")
            raise
        self._do(self._definition.kill)
        why = f"did not power off within {limit:g} s of being asked" if asks else "cannot be asked to end"
        raise MachineError(f"the guest {why}, and was ended by force",
                           hint="give it longer with --stop-timeout" if asks else "")  # fmt: skip

    def _do(self, steps: tuple[Step, ...]) -> None:
        """Ask or end; that it can't be asked shows when it doesn't end."""
        for step in steps:
            with suppress(LinuxkitError, OSError):
                if isinstance(step, Command):
                    call(step)
                elif isinstance(step, Call):
                    wire.request(step.socket, step.method, step.path, step.body)
                elif self._process is not None:
                    self._process.send(step.name)


@contextmanager
def _typing() -> Iterator[int | None]:
    """Whose keys go to the guest: those of our terminal or of what is piped to us."""
    if sys.platform == "win32":
        yield 0 if sys.stdin is not None and sys.stdin.isatty() else None
        return
    import stat

    from linuxkit.machine.terminal import guest_terminal

    with guest_terminal(0) as typed:
        try:
            mode = os.fstat(0).st_mode
        except OSError:
            mode = 0
        yield 0 if typed or stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISREG(mode) else None
