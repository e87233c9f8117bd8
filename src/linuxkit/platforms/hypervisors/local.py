"""Running a machine on a hypervisor of this machine: what they all have in common.

    preflight   the files, the program, the Definition; nothing is written
    run         state folder, disks, files | make | start | console … | stop | remove

The machine's console is the terminal, and what it says is in console.log too. Ctrl-C asks the guest to shut down; when
it does not in time, and at a second Ctrl-C, it is ended. What was made for it is in the journal, which removes it.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from linuxkit import host
from linuxkit.errors import HostError, LinuxkitError, MachineError
from linuxkit.machine.console import Console
from linuxkit.machine.process import Process
from linuxkit.platforms.hypervisors import ready, wire
from linuxkit.platforms.hypervisors.guest import Call, Command, Definition, Guest, Step
from linuxkit.platforms.place import Job
from linuxkit.platforms.prepare import StateLock, mac_address, make_state

#: Seconds that a step may take, and between two questions whether a machine runs.
STEP, ASK = 120.0, 2.0
#: A network card's address where none is kept yet, and none is made.
EXAMPLE = "02:00:00:00:00:01"


class LocalRun:
    """A machine on one hypervisor. A subclass says what it takes, and defines it.

    what      the hypervisor, in words
    systems   where it is, as sys.platform has it; empty: everywhere
    """

    what: ClassVar[str]
    takes: ClassVar[ready.Takes]
    systems: ClassVar[dict[str, str]] = {}

    def __init__(self, job: Job, target: str) -> None:
        self.job, self._target = job, target
        self._process: Process | None = None
        self._stopped, self._unanswered = False, 0

    # -- what a hypervisor says

    def define(self, guest: Guest) -> Definition:
        """How this hypervisor runs the guest."""
        raise NotImplementedError

    def check(self, guest: Guest) -> Guest:
        """Refuse what can't work, and change what has to be otherwise."""
        return guest

    # -- finding out

    def refuse(self, error: LinuxkitError) -> None:
        """Something that this machine lacks: an error, but with --dry-run, which runs nothing, only a note."""
        if not self.job.dry_run:
            raise error
        self.job.log(f"note: {error.message}" + (f" ({error.hint})" if error.hint else ""))

    def program(self, name: str, hint: str, places: tuple[str, ...] = ()) -> str:
        """The path of a program: by its name or path, or in one of its usual places."""
        for candidate in (name, *places):
            found = shutil.which(Path(candidate).expanduser() if "/" in candidate else candidate)
            if found is not None:
                return str(Path(found).absolute())
        self.refuse(HostError(f"{self.what} needs {name}, which is not installed", hint=hint))
        return name

    def preflight(self) -> None:
        if self.systems and sys.platform not in self.systems:
            self.refuse(HostError(f"{self.what} is there on {' and '.join(self.systems.values())} only",
                                  hint="linuxkit run qemu runs everywhere"))  # fmt: skip
        prepared = ready.prepare(self.job, self._target, self.takes, self.what)
        self._guest = replace(self.check(prepared.guest), mac=EXAMPLE)
        self._tasks, self._notes = prepared.tasks, (f"runs on: {self.what}", *prepared.notes)
        self.define(self._guest)  # so that what can't be defined is refused before anything is made

    def kept_uuid(self, name: str) -> str:
        """A UUID that is made once and kept in the state folder."""
        path = self._guest.state / name
        with suppress(OSError, ValueError):
            return str(uuid.UUID(path.read_text().strip()))
        made = str(uuid.uuid4())
        if path.parent.is_dir() and not self.job.dry_run:
            path.write_text(made + "\n")
        return made

    # -- running

    def run(self) -> None:
        for note in self._notes:
            self.job.log(note)
        if self.job.dry_run:
            self._show(self.define(self._guest))
            return
        state = self._guest.state
        make_state(state)
        with ExitStack() as stack:
            stack.callback(StateLock(state).close)
            self._guest = ready.with_sockets(replace(self._guest, mac=mac_address(state)))
            if self._guest.sockets is not None:
                stack.callback(shutil.rmtree, self._guest.sockets, ignore_errors=True)
            definition = self.define(self._guest)
            self._refuse_taken(definition)
            for path in definition.leaves:
                path.unlink(missing_ok=True)
                if not self.job.keep:
                    stack.callback(path.unlink, missing_ok=True)
            for task in self._tasks:
                self.job.log(task.what)
                task.work()
            for path, text in definition.files:
                path.write_text(text, encoding="utf-8", newline="\n")
            self._make(definition)
            self._shown = Console(state / "console.log")
            stack.callback(self._shown.close)
            with self._end(definition):
                self._attend(definition, *self._start(definition))

    def _show(self, definition: Definition) -> None:
        """What would be written and called: files on standard output, and what is called on the other, or there."""
        for task in self._tasks:
            self.job.log(f"would make {task.what}")
        steps: list[str] = [str(step) for step in definition.make]
        steps += [str(step) for step in (definition.start, definition.machine) if step is not None]
        for path, text in definition.files:
            self.job.log(f"would write {path}")
            self.job.output(text.encode(errors="surrogateescape"))
        for step in steps:
            if definition.files:
                self.job.log(f"would call {step}")
            else:
                self.job.output(step.encode(errors="surrogateescape") + b"\n")

    def _refuse_taken(self, definition: Definition) -> None:
        if definition.taken is None or self._call(definition.taken, check=False).returncode != 0:
            return
        remove = "; ".join(str(command) for command in definition.remove)
        raise HostError(f"{self.what} has a machine {self._guest.name!r} already",
                        hint=f"give this one another --name, or remove that one: {remove}")  # fmt: skip

    @staticmethod
    def _call(command: Command, *, check: bool = True) -> host.Completed:
        return host.run(command.arguments, timeout=STEP, check=check)

    def _make(self, definition: Definition) -> None:
        for number, command in enumerate(definition.make):
            try:
                self._call(command)
            except KeyboardInterrupt:
                taken = definition.taken
                if number == 0 and taken is not None and self._call(taken, check=False).returncode == 0:
                    self._note_made(definition)  # it was through with it
                raise
            if number == 0:
                self._note_made(definition)

    def _note_made(self, definition: Definition) -> None:
        if definition.remove:
            self.job.journal.made(
                f"machine {self._guest.name} of {self.what}", lambda: self._remove(definition),
                "; ".join(str(c) for c in definition.remove), temporary=True,
            )  # fmt: skip

    def _remove(self, definition: Definition) -> None:
        for command in definition.remove[:-1]:
            self._call(command, check=False)  # what was never attached can't be taken off
        self._call(definition.remove[-1])

    def _start(self, definition: Definition) -> tuple[wire.Wire, Process | None]:
        if definition.start is not None:
            self._call(definition.start)
            return wire.connect(definition.socket), None
        assert definition.machine is not None
        import pty
        import tty

        ours, theirs = pty.openpty()
        try:
            tty.setraw(theirs)
            command = list(definition.machine.arguments)
            self._process = Process(command, keep=(), log=self._guest.state / f"{Path(command[0]).name}.log",
                                    terminal=theirs)  # fmt: skip
        except BaseException:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        return wire.DescriptorWire(ours), self._process

    # -- while it runs

    def _running(self, definition: Definition) -> bool:
        if self._process is not None and self._process.poll() is None:
            return True
        if definition.running is None:
            return False
        command, pattern = definition.running
        done = self._call(command, check=False)
        if done.returncode != 0:  # it may be busy just now
            self._unanswered += 1
            return self._unanswered < 3
        self._unanswered = 0
        return re.search(pattern, done.stdout.decode(errors="surrogateescape"), re.MULTILINE) is not None

    def _attend(self, definition: Definition, line: wire.Wire, process: Process | None) -> None:
        with ExitStack() as stack:
            stack.callback(line.close)
            stdin = stack.enter_context(_typing())
            try:
                self._pump(definition, line, stdin, None)
            except KeyboardInterrupt:
                self._stop(definition, line)
        if self._shown.panic is not None:
            raise MachineError(f"kernel panic: {self._shown.panic}", hint=f"the whole console is in {self._log}")
        if process is not None and process.wait(5) not in definition.ended and not self._stopped:
            words = process.last_words() or f"exit status {process.poll()}, and no message"
            what = "failed" if self._shown else "could not start the machine"
            raise MachineError(f"{process.name} {what}: {words}", hint=f"its error output is in {process.log}")

    @property
    def _log(self) -> Path:
        return self._guest.state / "console.log"

    def _pump(self, definition: Definition, line: wire.Wire, stdin: int | None, seconds: float | None) -> bool:
        """Show the console until the machine has ended. False: it hasn't within some seconds."""
        until = None if seconds is None else time.monotonic() + seconds
        asked, open_ = time.monotonic(), True
        while True:
            data = line.exchange(stdin, 0.2) if open_ else b""
            if data:
                self._take(data)
            open_ = open_ and data is not None
            if self._shown.over:
                self._do(definition.kill)
                return True
            now = time.monotonic()
            if not open_ or (definition.start is not None and now - asked >= ASK):
                if not self._running(definition):
                    self._drain(line if open_ else None)
                    return True
                asked = now
                if not open_:
                    time.sleep(0.2)
            if until is not None and now >= until:
                return False

    def _drain(self, line: wire.Wire | None) -> None:
        """What the machine said last."""
        while line is not None and (data := line.exchange(None, 0)):
            self._take(data)

    def _take(self, data: bytes) -> None:
        self._shown.log(data)
        self._shown.take(data)
        if not self.job.settings.get("console_file"):
            self.job.output(data)

    def _stop(self, definition: Definition, line: wire.Wire) -> None:
        self._stopped = True
        limit = float(self.job["stop-timeout"])
        try:
            if definition.stop:
                self.job.log("asking the guest to shut down; Ctrl-C again ends it at once")
                self._do(definition.stop)
                if self._pump(definition, line, None, limit):
                    return
        except KeyboardInterrupt:
            self._do(definition.kill)
            self.job.log("ended by force")
            raise
        self._do(definition.kill)
        why = f"did not power off within {limit:g} s of being asked" if definition.stop else "cannot be asked to end"
        raise MachineError(f"the guest {why}, and was ended by force", hint="give it longer with --stop-timeout")

    def _do(self, steps: tuple[Step, ...]) -> None:
        """Ask or end; that it can't be asked shows when it doesn't end."""
        for step in steps:
            with suppress(LinuxkitError, OSError):
                if isinstance(step, Command):
                    self._call(step)
                elif isinstance(step, Call):
                    wire.request(step.socket, step.method, step.path, step.body)
                elif self._process is not None:
                    self._process.send(step.name)

    @contextmanager
    def _end(self, definition: Definition) -> Iterator[None]:
        """Whatever happens, no machine runs afterwards."""
        try:
            yield
        finally:
            with suppress(LinuxkitError):
                if definition.running is not None and self._running(definition):
                    self._do(definition.kill)
            if self._process is not None:
                self._process.end()


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


