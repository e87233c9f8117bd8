"""Several machines that run together, with their private network."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from linuxkit.cluster.dhcp import Lease
from linuxkit.cluster.model import USER_DNS, Member, Plan
from linuxkit.cluster.switch import Switch
from linuxkit.errors import LinuxkitError
from linuxkit.machine.machine import Machine
from linuxkit.platforms import qemu
from linuxkit.platforms.prepare import prepare

T = TypeVar("T")


class Cluster:
    """The machines of a plan, which run while the context is open.

    Args:
        write_data: writes a CD image: path, content.
        output: takes the consoles' bytes: name, bytes; from several threads.
        say: takes a word about a machine: name, text.

    Raises:
        LinuxkitError: on entry, one of them can't be started; none is left then.
    """

    def __init__(
        self, plan: Plan, *, write_data: Callable[[Path, bytes], None],
        output: Callable[[str, bytes], None] = lambda *_: None, say: Callable[[str, str], None] = lambda *_: None,
    ) -> None:  # fmt: skip
        self.plan, self._write_data, self._output, self._say = plan, write_data, output, say
        self.machines: dict[str, Machine] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Cluster:
        with ExitStack() as stack:
            cables = stack.enter_context(Switch([self._lease(m) for m in self.plan.members])).cables
            ready = []
            for member, cable in zip(self.plan.members, cables, strict=True):
                request = member.request if self.plan.network is None else replace(member.request, cable=cable)
                write = partial(self._data, member.data) if member.data is not None else None
                prepared = prepare(request, write_data=write)
                stack.enter_context(prepared.lock)
                ready.append(prepared)
                for note in prepared.notes:
                    self._say(member.name, note)
                if member.address is not None:
                    self._say(member.name, f"private network: {member.address}")
            for member, prepared in zip(self.plan.members, ready, strict=True):
                machine = Machine(
                    partial(qemu.command, prepared.spec), state=prepared.state, helpers=prepared.helpers,
                    output=partial(self._output, member.name),
                )  # fmt: skip
                self.machines[member.name] = stack.enter_context(machine)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _lease(self, member: Member) -> Lease | None:
        if self.plan.network is None or member.address is None:
            return None
        outside = qemu.parse_networking(member.request.networking).kind is qemu.Network.USER
        return Lease(member.address, self.plan.network, member.name, USER_DNS if outside else None)

    def _data(self, content: bytes, path: Path) -> None:
        self._write_data(path, content)

    def each(self, what: Callable[[str, Machine], T]) -> dict[str, T | LinuxkitError]:
        """Do something with every machine, side by side, and wait until it is done; errors are results.

        What waits can be interrupted: the machines are asked in other threads.
        """
        results: dict[str, T | LinuxkitError] = {}

        def ask(name: str, machine: Machine) -> None:
            try:
                results[name] = what(name, machine)
            except LinuxkitError as e:
                results[name] = e

        threads = [threading.Thread(target=ask, args=item, daemon=True) for item in self.machines.items()]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            time.sleep(0.05)
        return {name: results[name] for name in self.machines}

    def kill(self) -> None:
        """End all of them at once."""
        self.each(lambda _, machine: machine.kill())
