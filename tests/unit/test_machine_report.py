"""The boot report: what it makes of what a guest says, and how it shows it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linuxkit.machine.report import MAX_LINE, BootReport, Event, ReportReader, State, Step, parse_event
from linuxkit.machine.table import hint_for, outcome, render

pytestmark = pytest.mark.unit


def lines(*events: dict[str, object]) -> bytes:
    return b"".join(json.dumps(e).encode() + b"\n" for e in events)


def read(data: bytes, piece: int = 1 << 20) -> BootReport:
    reader = ReportReader()
    for at in range(0, len(data), piece):
        list(reader.feed(data[at : at + piece]))
    return reader.report


GOOD = lines(
    {"t": 0.1, "event": "start", "step": "mounts"},
    {"t": 0.2, "event": "done", "step": "mounts", "ms": 99.5},
    {"t": 0.3, "event": "start", "step": "onboot/000-dhcp"},
    {"t": 0.9, "event": "fail", "step": "onboot/000-dhcp", "status": 2, "message": "gave up", "log": ["a", "b"]},
    {"t": 1.0, "event": "start", "step": "service/web"},
    {"t": 1.1, "event": "ready", "step": "service/web", "ms": 100},
    {"t": 1.2, "event": "booted", "step": "boot", "ok": False},
)


def test_steps_in_order_with_their_state() -> None:
    report = read(GOOD)
    assert [(s.name, s.state) for s in report.steps] == [
        ("mounts", State.DONE), ("onboot/000-dhcp", State.FAILED), ("service/web", State.RUNNING),
    ]  # fmt: skip
    assert report.step("mounts") == Step("mounts", State.DONE, start=0.1, ms=99.5)
    failed = report.step("onboot/000-dhcp")
    assert failed is not None
    assert (failed.status, failed.message, failed.log) == (2, "gave up", ("a", "b"))
    assert (report.booted, report.ok, report.failed) == (1.2, False, (failed,))


def test_a_duration_that_the_guest_left_out_is_taken_from_the_times() -> None:
    report = read(lines({"t": 1, "event": "start", "step": "a"}, {"t": 1.25, "event": "done", "step": "a"}))
    assert report.steps[0].ms == 250.0


def test_a_verdict_of_ok_does_not_hide_a_failed_step() -> None:
    booted = {"t": 2, "event": "booted", "step": "boot", "ok": True}
    assert read(lines({"t": 1, "event": "fail", "step": "a"}, booted)).ok is False


def test_a_service_that_crashes_and_is_restarted() -> None:
    start = {"t": 1, "event": "start", "step": "service/x"}
    crash = {"t": 2, "event": "exit", "step": "service/x", "status": 3}
    assert read(lines(start, crash)).steps[0].state is State.FAILED
    again = read(lines(start, crash, {"t": 3, "event": "restart", "step": "service/x"}))
    assert (again.steps[0].state, again.steps[0].restarts, again.steps[0].status) == (State.RUNNING, 1, 3)
    assert outcome(again.steps[0]) == "exit 3, restarted 1x"
    clean = read(lines(start, {"t": 2, "event": "exit", "step": "service/x", "status": 0}))
    assert clean.steps[0].state is State.EXITED


@given(st.integers(1, 60))
def test_pieces_of_any_length_read_the_same(piece: int) -> None:
    assert read(GOOD, piece) == read(GOOD)


@given(st.binary(max_size=600))
def test_no_bytes_can_break_the_reader_or_hide_what_follows(noise: bytes) -> None:
    reader = ReportReader()
    list(reader.feed(noise + b"\n"))
    list(reader.feed(GOOD))
    assert reader.report.booted == 1.2


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
                    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))  # fmt: skip
def test_no_json_can_break_it(value: object) -> None:
    filled = dict.fromkeys(("status", "signal", "ms", "log", "ok", "message"), value)
    for said in (value, {"t": 1, "event": "done", "step": "x", **filled}):
        text = json.dumps(said).encode()
        if len(text) > MAX_LINE:
            continue
        event = parse_event(text)
        assert event is None or isinstance(event, Event)
        render(read(text + b"\n"))


def test_an_overlong_line_is_dropped_whole_and_memory_stays_small() -> None:
    reader = ReportReader()
    for _ in range(100):
        list(reader.feed(b'{"t": 1, "event": "start", "step": "' + b"x" * 5000))
    assert len(reader._partial) <= 2 * MAX_LINE
    list(reader.feed(b'"}\n' + GOOD))
    assert reader.report.dropped == 1
    assert len(reader.report.steps) == 3


def test_steps_are_bounded() -> None:
    flood = b"".join(b'{"t":1,"event":"start","step":"s%d"}\n' % n for n in range(3000))
    report = read(flood)
    assert (len(report.steps), report.dropped) == (2000, 1000)


def test_deep_json_is_garbage_and_not_an_end() -> None:
    assert parse_event(b"[" * 4000) is None


def test_control_characters_of_a_guest_do_not_reach_the_terminal() -> None:
    nasty = {"t": 1, "event": "fail", "step": "a\x1b[2J", "message": "\x07bell", "log": ["\x1b]0;title\x07"]}
    text = render(read(lines(nasty)))
    assert not any(c < " " and c != "\n" for c in text)


@pytest.mark.parametrize(
    ("step", "word"),
    [
        (Step("a", State.FAILED, 0, status=127), "`command`"),
        (Step("a", State.FAILED, 0, status=126), "mode"),
        (Step("a", State.FAILED, 0, status=1, log=("mount: Operation not permitted",)), "capabilit"),
        (Step("a", State.FAILED, 0, status=1, log=("open /x: Read-only file system",)), "readonly"),
        (Step("a", State.FAILED, 0, status=1, message="bind: Address already in use"), "port"),
        (Step("a", State.FAILED, 0, status=137), "--mem"),
        (Step("a", State.FAILED, 0, signal=9), "--mem"),
        (Step("a", State.FAILED, 0, status=1, log=("modprobe: FATAL: Module foo not found",)), "module"),
        (Step("a", State.FAILED, 0, status=1, log=("exec format error",)), "architecture"),
        (Step("a", State.FAILED, 0, status=1, log=("write: No space left on device",)), "--mem"),
    ],
)
def test_a_failure_has_a_hint(step: Step, word: str) -> None:
    assert word in hint_for(step)


def test_an_unknown_failure_has_no_made_up_hint() -> None:
    assert hint_for(Step("a", State.FAILED, 0, status=42, log=("computer says no",))) == ""


def test_the_table() -> None:
    assert render(read(GOOD)).splitlines() == [
        "  start    took  step             result",
        "0.100 s  100 ms  mounts           ok",
        "0.300 s  600 ms  onboot/000-dhcp  exit 2",
        "                 gave up",
        "                 | a",
        "                 | b",
        "1.000 s  100 ms  service/web      running",
        "booted in 1.200 s with failures: onboot/000-dhcp",
    ]
    assert "\033[31m" in render(read(GOOD), colour=True)


def test_a_guest_that_says_nothing_is_said_so() -> None:
    assert "reported nothing" in render(BootReport())
