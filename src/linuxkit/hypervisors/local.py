"""Running a machine on a hypervisor of this machine: what they all have in common.

    preflight   the files, the program, the Definition; nothing is written
    run         state folder, disks, files | make | a Session: start, console …, stop | remove

The machine's console is the terminal, and what it says is in console.log too. Ctrl-C asks the guest to shut down; when
it does not in time, and at a second Ctrl-C, it is ended. What was made for it is in the journal, which removes it.
"""

from __future__ import annotations

import shutil
import sys
import uuid
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from linuxkit.encode.config_iso import private_file
from linuxkit.errors import HostError, LinuxkitError
from linuxkit.hypervisors import ready
from linuxkit.hypervisors.drives import Takes
from linuxkit.hypervisors.guest import Definition, Guest
from linuxkit.hypervisors.session import Session, call
from linuxkit.places.place import Job
from linuxkit.platforms.prepare import StateLock, mac_address, make_state

#: A network card's address where none is kept yet, and none is made.
EXAMPLE = "02:00:00:00:00:01"


class LocalRun:
    """A machine on one hypervisor. A subclass says what it takes, and defines it.

    what      the hypervisor, in words
    systems   where it is, as sys.platform has it; empty: everywhere
    """

    what: ClassVar[str]
    takes: ClassVar[Takes]
    systems: ClassVar[dict[str, str]] = {}

    def __init__(self, job: Job, target: str) -> None:
        self.job, self._target = job, target

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
                with private_file(path) as out:  # a command line may hold a secret
                    out.write(text.encode("utf-8", "surrogateescape"))
            self._make(definition)
            with Session(definition, self.job, state) as session:
                session.attend()

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
        if definition.taken is None or call(definition.taken, check=False).returncode != 0:
            return
        remove = "; ".join(str(command) for command in definition.remove)
        raise HostError(f"{self.what} has a machine {self._guest.name!r} already",
                        hint=f"give this one another --name, or remove that one: {remove}")  # fmt: skip

    def _make(self, definition: Definition) -> None:
        for number, command in enumerate(definition.make):
            try:
                call(command)
            except KeyboardInterrupt:
                taken = definition.taken
                if number == 0 and taken is not None and call(taken, check=False).returncode == 0:
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
            call(command, check=False)  # what was never attached can't be taken off
        call(definition.remove[-1])
