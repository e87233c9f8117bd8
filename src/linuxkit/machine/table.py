"""The boot report as a table for people, with a hint for what failed."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence

from linuxkit.machine.report import BootReport, State, Step

#: (what the log or message says, what to do about it); the first that fits is given
LOG_HINTS: tuple[tuple[str, str], ...] = (
    (
        r"read-only file system",
        "its root is read-only: drop `readonly: true`, or give it a tmpfs or a volume for what it writes",
    ),
    (r"exec format error", "the program is for another architecture: build the image for this one"),
    (
        r"address (already )?in use|eaddrinuse",
        "another service listens on that port: they share the machine's network unless `net: new`",
    ),
    (
        r"operation not permitted|permission denied|eperm|eacces",
        "it lacks a right: add the capability it needs (`capabilities: [CAP_…]`), or check the file's mode and owner",
    ),
    (
        r"(module|modprobe).*not found|unknown (filesystem|device) type|no such device",
        "the kernel may lack a module for this: load it in `onboot` with modprobe, or use a kernel that has it",
    ),
    (
        r"network is unreachable|temporary failure in name resolution|no route to host",
        "there is no network yet: put a DHCP client in `onboot`, before this",
    ),
    (
        r"port \d+: connection (refused|reset)",
        "nothing answers there: check the port of `healthcheck`, or give it longer with `start_period`",
    ),
    (r"cannot allocate memory|out of memory", "the machine has too little memory: give it more with --mem"),
    (r"no space left", "the root is in memory and full: give the machine more with --mem, or write to a disk"),
    (
        r"executable file not found|command not found",
        "the program is not in the image or not in PATH: check `command` and `env`",
    ),
    (
        r"no such file or directory",
        "a file is missing: check `command`, and that the source of every bind exists in the machine",
    ),
    (r"cgroup", "a control group is missing: check `cgroupsPath` and `runtime.cgroups`"),
)
STATUS_HINTS = {
    125: "the container runtime could not make the container: its log says why",
    126: "the program cannot be executed: check its mode, and that it is for this architecture",
    127: "the program, its interpreter or a library it needs is not in the image: check `command`",
}
SIGNAL_HINTS = {
    int(signal.SIGKILL): "it was killed, most often for want of memory: more --mem, or a higher limit in `resources`",
    int(signal.SIGSEGV): "the program crashed",
    int(signal.SIGILL): "the program uses instructions that this CPU lacks",
    int(signal.SIGSYS): "it made a forbidden system call",
}


def hint_for(step: Step) -> str:
    """What to try about a failed step; empty when nothing is known."""
    said = "\n".join((step.message, *step.log)).lower()
    number = step.signal or (step.status - 128 if step.status and step.status > 128 else 0)
    if number in SIGNAL_HINTS:
        return SIGNAL_HINTS[number]
    for pattern, hint in LOG_HINTS:
        if re.search(pattern, said):
            return hint
    return STATUS_HINTS.get(step.status or 0, "")


def outcome(step: Step) -> str:
    """How a step ended, or how it is, in a word or two."""
    ended = _end(step)
    if step.waiting:
        word = ended or "keeps ending"
    elif step.state is State.RUNNING:
        word = step.health if step.health == "unhealthy" else "running"
        word += ", healthy" if step.health == "healthy" else ", not healthy yet" if step.health == "starting" else ""
    else:
        word = ended or ("failed" if step.state is State.FAILED else "ok" if step.state is State.DONE else "exit 0")
    if not step.restarts:
        return word
    return f"{word}, restarted {step.restarts}x" + (f", last {ended}" if ended and word != ended else "")


def _end(step: Step) -> str:
    if step.signal:
        try:
            return f"signal {signal.Signals(step.signal).name}"
        except ValueError:
            return f"signal {step.signal}"
    return f"exit {step.status}" if step.status else ""


def _duration(ms: float | None) -> str:
    if ms is None:
        return "-"
    return f"{ms / 1000:.2f} s" if ms >= 1000 else f"{ms:.0f} ms" if ms >= 10 else f"{ms:.1f} ms"


def render(report: BootReport, *, colour: bool = False) -> str:
    """The report as text of several lines, without a newline at its end."""

    def paint(code: str, text: str) -> str:
        return f"\033[{code}m{text}\033[0m" if colour else text

    if not report.steps and report.booted is None:
        return "boot report: the guest reported nothing (does its init write to the port org.linuxkit.report?)"
    rows = [(f"{step.start:.3f} s", _duration(step.ms), step.name, outcome(step)) for step in report.steps]
    titles = ("start", "took", "step", "result")
    widths = [max(len(row[column]) for row in (titles, *rows)) for column in range(3)]

    def line(row: Sequence[str]) -> str:
        return f"{row[0]:>{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:<{widths[2]}}  {row[3]}".rstrip()

    lines = [paint("1", line(titles))]
    for step, row in zip(report.steps, rows, strict=True):
        lines.append(paint("31", line(row)) if step.bad else paint("33", line(row)) if step.restarts else line(row))
        if step.bad or step.restarts:
            pad = " " * (widths[0] + widths[1] + 4)
            lines += [f"{pad}{text}" for text in ([step.message] if step.message else [])]
            lines += [f"{pad}| {text}" for text in step.log[-8:]]
            lines += [f"{pad}{paint('1', 'hint')}: {hint}" for hint in [hint_for(step)] if hint]
    lines.append(_verdict(report))
    return "\n".join(lines)


def later(before: BootReport, after: BootReport, *, colour: bool = False) -> str:
    """What services did after the report was printed, as text; "" when nothing failed or restarted."""
    known = {step.name: step for step in before.steps}
    news = [
        step for step in after.steps
        if step.service and (step.bad or step.restarts) and step != known.get(step.name)
    ]  # fmt: skip
    if not news:
        return ""
    table = render(BootReport(steps=tuple(news), booted=after.booted), colour=colour).splitlines()[:-1]
    return "\n".join(["since the report:", *table])


def _verdict(report: BootReport) -> str:
    failed = report.failed
    names = ", ".join(step.name for step in failed[:5]) + (" …" if len(failed) > 5 else "")
    if report.booted is None:
        verdict = "did not finish booting" + (f"; failed: {names}" if failed else "")
    elif report.ok and not failed:
        verdict = f"booted in {report.booted:.3f} s"
        again = [step.name for step in report.steps if step.restarts]
        verdict += f"; restarted: {', '.join(again[:5])}" + (" …" if len(again) > 5 else "") if again else ""
    else:
        verdict = f"booted in {report.booted:.3f} s with failures" + (f": {names}" if failed else "")
    return verdict + (f" ({report.dropped} unreadable lines)" if report.dropped else "")
