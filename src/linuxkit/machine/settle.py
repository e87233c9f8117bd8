"""When services count as running: each ran for some seconds, and has a result of its health check if it has one.

Times are seconds on the host's monotonic clock.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from linuxkit.machine.report import BootReport, Event, State, Step

if TYPE_CHECKING:
    from linuxkit.machine.machine import Machine

SECOND_WORD = 1.0
PATIENCE = 3  # times the settling time, for services that end again and again


@dataclass
class Moves:
    """When each service last started or ended."""

    at: dict[str, float] = field(default_factory=dict)

    def note(self, event: Event, now: float) -> None:
        if event.step.startswith("service/") and event.event in ("ready", "exit", "fail"):
            self.at[event.step] = now

    def settled(self, report: BootReport, seconds: float, start: float, now: float) -> bool:
        """Is there nothing more to wait for?

        Args:
            seconds: that a service has to run.
            start: when the waiting began.
        """
        impatient = now - start >= PATIENCE * seconds

        def done(step: Step) -> bool:
            if not step.service or (impatient and step.restarts):
                return True
            age = now - self.at.get(step.name, start)
            if step.state is not State.RUNNING:
                return age >= min(seconds, SECOND_WORD)  # whether it starts again is said after that it ended
            young = age < seconds
            return not (step.waiting or young or step.health == "starting")

        return not seconds or all(done(step) for step in report.steps)

    def judge(self, report: BootReport, seconds: float, now: float) -> BootReport:
        """The report, in which a service that keeps ending is marked as one that waits for its next start."""

        def judged(step: Step) -> Step:
            young = step.name in self.at and now - self.at[step.name] < seconds
            dying = step.service and step.state is State.RUNNING and step.restarts and young
            return replace(step, waiting=True) if dying else step

        return replace(report, steps=tuple(judged(step) for step in report.steps))


def wait_settled(machine: Machine, seconds: float, timeout: float | None = None) -> BootReport:
    """Wait until every service has run for some seconds and has the result of its health check, if it has one.

    One that keeps ending is waited for three times as long, and is `waiting` in what is returned. A machine that ends
    is not waited for.

    Raises:
        MachineError: `timeout` seconds passed.
    """
    start, now = time.monotonic(), time.monotonic

    def done() -> bool:
        return not machine.running or machine.moves.settled(machine.report, seconds, start, now())

    machine.until(done, timeout, "the services did not settle", every=0.2)
    return machine.moves.judge(machine.report, seconds, now())
