"""When services count as running: each has run for some seconds and, where it has a health check, that has a result. Pure.

Times are seconds on the host's monotonic clock; `moved` says when each service last started or ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from linuxkit.machine.report import BootReport, Event, State, Step

PATIENCE = 3  # times the settling time, for services that end again and again


def note(moved: dict[str, float], event: Event, now: float) -> None:
    """Keep in `moved` when a service started or ended."""
    if event.step.startswith("service/") and event.event in ("ready", "exit", "fail"):
        moved[event.step] = now


def left(report: BootReport, moved: Mapping[str, float], seconds: float, start: float, now: float) -> float:
    """How long to wait before looking again; 0: the services have settled, or never will.

    Args:
        seconds: that a service has to run.
        start: when the waiting began.
    """
    patience = start + PATIENCE * seconds - now
    waits = [0.0]
    for step in report.steps if seconds else ():
        if not step.service or step.state is not State.RUNNING:
            continue
        if step.waiting:
            waits.append(min(seconds, patience))
            continue
        young = moved.get(step.name, start) + seconds - now
        waits.append(min(young, patience) if step.restarts else young)
        if step.health == "starting" and (not step.restarts or patience > 0):
            waits.append(1.0)
    return max(waits)


def judge(report: BootReport, moved: Mapping[str, float], seconds: float, now: float) -> BootReport:
    """The report, in which a service that keeps ending is marked as one that waits for its next start."""

    def judged(step: Step) -> Step:
        young = step.name in moved and now - moved[step.name] < seconds
        dying = step.service and step.state is State.RUNNING and step.restarts and young
        return replace(step, waiting=True) if dying else step

    return replace(report, steps=tuple(judged(step) for step in report.steps))
