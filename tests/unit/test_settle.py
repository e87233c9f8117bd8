"""When services count as running, and what the report says about those that don't."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from linuxkit.errors import MachineError
from linuxkit.machine.report import BootReport, ReportReader
from linuxkit.machine.settle import Moves, wait_settled
from linuxkit.machine.table import later, render

pytestmark = pytest.mark.unit
BOOTED = {"t": 9, "event": "booted", "step": "boot", "ok": True}


class Fake:
    """A machine that says events at times: the part of Machine that wait_settled() uses."""

    def __init__(self, *events: tuple[float, dict[str, object]]) -> None:
        self.reader, self.moves, self.running = ReportReader(), Moves(), True
        self.events, self.start = list(events), time.monotonic()

    @property
    def report(self) -> BootReport:
        while self.events and time.monotonic() - self.start >= self.events[0][0]:
            line = json.dumps({"t": 1.0, "step": "service/a", **self.events.pop(0)[1]}).encode() + b"\n"
            for event in self.reader.feed(line):
                self.moves.note(event, time.monotonic())
        return self.reader.report

    def until(self, done, timeout, what, every):
        end = time.monotonic() + (timeout or 10)
        while not done():
            if time.monotonic() > end:
                raise MachineError(what)
            time.sleep(0.01)


READY, EXIT = {"event": "ready"}, {"event": "exit", "status": 3, "log": ["why"]}
AGAIN = {"event": "restart", "message": "in 0.2 s, time 1"}
STARTING = {"event": "ready", "health": "starting"}


@pytest.mark.parametrize(
    ("events", "least", "most", "failed", "words"),
    [
        ([(0, BOOTED)], 0, 0.15, [], "booted in 9.000 s"),
        ([(0, READY)], 0.3, 0.45, [], "running"),
        ([(0, READY), (0.1, EXIT)], 0.4, 0.6, ["service/a"], "exit 3"),
        ([(0, READY), (0.1, EXIT | {"status": 0})], 0.4, 0.6, [], "exit 0"),
        ([(0, READY), (0.1, EXIT), (0.2, AGAIN), (0.3, READY)], 0.6, 0.8, [], "running, restarted 1x, last exit 3"),
        ([(0, READY), (0.1, EXIT), (0.1, AGAIN), (0.2, READY)], 0.5, 0.65, [], "running, restarted 1x, last exit 3"),
        ([(0, READY), (0.1, EXIT), (0.1, AGAIN)], 0.8, 1.1, ["service/a"], "exit 3, restarted 1x"),
        ([(n / 5, e) for n in range(20) for e in (READY, EXIT, AGAIN)], 0.8, 1.1, ["service/a"], "exit 3, resta"),
        ([(0, STARTING), (0.6, {"event": "health", "health": "healthy"})], 0.6, 0.8, [], "running, healthy"),
        ([(0, STARTING), (0.6, {"event": "health", "health": "unhealthy", "message": "port 80: Connection refused"})],
         0.6, 0.8, ["service/a"], "unhealthy"),
    ],
)  # fmt: skip
def test_services_have_to_run_for_a_while(events, least, most, failed, words) -> None:
    machine = Fake(*events)
    start = time.monotonic()
    report = wait_settled(machine, 0.3)
    took = time.monotonic() - start
    assert least <= took < most + 0.2
    assert [step.name for step in report.failed] == failed
    assert words in render(report)


def test_without_settling_nothing_is_waited_for_and_with_a_limit_not_for_ever() -> None:
    assert wait_settled(Fake((0, STARTING)), 0).failed == ()
    with pytest.raises(MachineError, match="services did not settle"):
        wait_settled(Fake((0, STARTING)), 0.1, 0.3)


def test_what_restarts_is_shown_with_its_last_lines_and_a_hint() -> None:
    end = EXIT | {"log": ["bind: address already in use"]}
    text = render(wait_settled(Fake((0, READY), (0, end), (0, AGAIN), (0, READY), (0, BOOTED)), 0.1))
    assert "| bind: address already in use" in text and "another service listens on that port" in text
    assert text.endswith("booted in 9.000 s; restarted: service/a")


def test_what_happens_after_the_report_is_said_at_the_end() -> None:
    machine = Fake((0, READY), (0, BOOTED))
    before = wait_settled(machine, 0.05)
    assert later(before, machine.report) == ""
    machine.events = [(0, EXIT), (0, AGAIN), (0, READY)]
    text = later(before, machine.report)
    assert text.startswith("since the report:") and "last exit 3" in text and "| why" in text
    assert later(machine.report, machine.report) == ""


def test_the_json_is_not_green_when_a_service_is_not(tmp_path: Path) -> None:
    report = wait_settled(Fake((0, READY), (0, BOOTED), (0, EXIT)), 0.05).as_json()
    assert report["ok"] is False
    good = wait_settled(Fake((0, READY), (0, BOOTED)), 0.05).as_json()
    assert good["ok"] is True and "waiting" not in good["steps"][0]
