"""The boot report: what the guest's PID 1 says about each step of its boot, read and judged.

    {"t": 1.234567, "event": "start|done|fail|ready|health|exit|restart|booted|shutdown|off", "step": "onboot/000-dhcp",
     "status": 0, "signal": 0, "ms": 12.5, "message": "…", "log": ["last", "lines"]}

One JSON object a line, at most 4096 bytes (docs/design/overview.md). The guest is not trusted: everything is bounded,
and what cannot be read is counted and dropped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from linuxkit.foreign import read_json

MAX_LINE = 4096
MAX_STEPS = 2000
MAX_LOG_LINES = 20
MAX_TEXT = 400


class State(StrEnum):
    """How a step stands."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    EXITED = "exited"  # a service that ended well


#: the state of a step after an event; a service that is ready goes on running
ENDS = {"fail": State.FAILED, "done": State.DONE, "ready": State.RUNNING, "off": State.DONE}


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the report. `t` in seconds since the kernel started; `status` and `signal` None when not given."""

    t: float
    event: str
    step: str
    status: int | None = None
    signal: int | None = None
    ms: float | None = None
    message: str = ""
    log: tuple[str, ...] = ()
    ok: bool | None = None
    health: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the boot. `start` in seconds since the kernel started, `ms` how long it took (None: unknown).

    A service's `status`, `signal` and `log` are those of its last end, also when it runs again. `health` is "" without
    a health check, else starting, healthy or unhealthy. `waiting`: it ended and is to start again, or it keeps ending.
    """

    name: str
    state: State
    start: float
    ms: float | None = None
    status: int | None = None
    signal: int | None = None
    restarts: int = 0
    message: str = ""
    log: tuple[str, ...] = ()
    health: str = ""
    waiting: bool = False

    @property
    def bad(self) -> bool:
        """It failed, keeps ending, or is unhealthy."""
        return self.state is State.FAILED or self.waiting or self.health == "unhealthy"

    @property
    def service(self) -> bool:
        return self.name.startswith("service/")


@dataclass(frozen=True, slots=True)
class BootReport:
    """Everything one boot said.

    booted   seconds until everything was started; None while it was not.
    ok       the guest's own verdict with `booted`; None before.
    off      the guest said its last word.
    dropped  lines that could not be read.
    """

    steps: tuple[Step, ...] = ()
    booted: float | None = None
    ok: bool | None = None
    off: bool = False
    dropped: int = 0

    @property
    def failed(self) -> tuple[Step, ...]:
        return tuple(step for step in self.steps if step.bad)

    def step(self, name: str) -> Step | None:
        """The step of that name."""
        return next((step for step in self.steps if step.name == name), None)

    def as_json(self) -> dict[str, Any]:
        """For `--report-file`; keys as in the dataclasses, absent values left out."""
        return {
            "ok": self.ok if self.ok is None else self.ok and not self.failed,
            "booted": self.booted, "off": self.off, "dropped": self.dropped,
            "steps": [
                {key: value for key in Step.__slots__
                 if (value := getattr(step, key)) not in (None, "", ()) and value is not False}
                for step in self.steps
            ],
        }  # fmt: skip


def _text(value: object) -> str:
    return "".join(c if c.isprintable() else " " for c in str(value)[:MAX_TEXT])


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e12:  # NaN too
        return None
    return float(value)


def _small(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 31 else None


def parse_event(line: bytes) -> Event | None:
    """One line as an Event; None when it is not one."""
    try:
        said = read_json(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(said, dict):
        return None
    t, event, step = _number(said.get("t")), said.get("event"), said.get("step")
    if t is None or not isinstance(event, str) or not isinstance(step, str) or not step:
        return None
    log = said.get("log", ())
    ok = said.get("ok")
    return Event(
        t=t, event=_text(event), step=_text(step), status=_small(said.get("status")), signal=_small(said.get("signal")),
        ms=_number(said.get("ms")), message=_text(said.get("message", "")),
        log=tuple(_text(entry) for entry in log[-MAX_LOG_LINES:]) if isinstance(log, list) else (),
        ok=ok if isinstance(ok, bool) else None, health=_text(said.get("health", ""))[:16],
    )  # fmt: skip


@dataclass
class ReportReader:
    """Collects bytes of the report port into a BootReport. `feed` yields the events as they come."""

    _partial: bytes = b""
    _skipping: bool = False
    _steps: dict[str, Step] = field(default_factory=dict)
    _rest: BootReport = field(default_factory=BootReport)

    @property
    def report(self) -> BootReport:
        return replace(self._rest, steps=tuple(self._steps.values()))

    @property
    def _failed(self) -> bool:
        return any(step.state is State.FAILED for step in self._steps.values())

    def restart(self) -> None:
        """The machine was reset: a new boot begins, with an empty report."""
        self._partial, self._skipping = b"", False
        self._steps, self._rest = {}, BootReport()

    def feed(self, data: bytes) -> Iterator[Event]:
        """Take bytes as they arrive, in pieces of any length."""
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            skip, self._skipping = self._skipping, False
            if not line.strip():
                continue
            event = None if skip or len(line) > MAX_LINE else parse_event(line)
            if event is None:
                self._rest = replace(self._rest, dropped=self._rest.dropped + 1)
            else:
                self._take(event)
                yield event
        if len(self._partial) > MAX_LINE:  # the rest of an overlong line is dropped with it
            self._partial, self._skipping = b"", True

    def _take(self, e: Event) -> None:
        if e.event == "booted":
            self._rest = replace(self._rest, booted=e.t, ok=e.ok is not False and not self._failed)
        elif e.event == "off":
            self._rest = replace(self._rest, off=True)
        if e.step == "boot":
            return
        old = self._steps.get(e.step)
        if old is None:
            if len(self._steps) >= MAX_STEPS:
                self._rest = replace(self._rest, dropped=self._rest.dropped + 1)
                return
            old = Step(e.step, State.RUNNING, start=max(0.0, e.t - (e.ms or 0) / 1000))
        new = replace(
            old,
            status=old.status if e.status is None else e.status,
            signal=old.signal if e.signal is None else e.signal,
            ms=old.ms if e.ms is None else e.ms,
            message=e.message or old.message,
            log=e.log or old.log,
            waiting=e.event == "restart" or (old.waiting and e.event not in ("ready", "exit", "fail")),
            health=e.health if e.health or e.event in ("ready", "exit") else old.health,
        )
        if e.event in ("fail", "done", "ready", "off"):
            new = replace(new, state=ENDS[e.event])
            if e.ms is None and old.ms is None:
                new = replace(new, ms=round((e.t - old.start) * 1000, 3))
        elif e.event == "exit":
            new = replace(new, state=State.FAILED if e.status or e.signal else State.EXITED)
        elif e.event == "restart":
            new = replace(new, restarts=old.restarts + 1, state=State.RUNNING)
        self._steps[e.step] = new
