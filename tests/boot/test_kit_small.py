"""Small packages of the kit, in machines: logs, the kernel's settings and modules, the power button, vsock."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from linuxkit.machine.machine import Machine
from linuxkit.machine.report import Step
from support.system import CRUN, Build
from support.vm import boot

pytestmark = pytest.mark.boot
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
LOGGED = CRUN + "  - kit://memlogd\n"


def steps(machine: Machine) -> dict[str, Step]:
    return {step.name: step for step in machine.report.steps}


def container(name: str, script: str, **extra: str) -> str:
    text = f"  - name: {name}\n    image: kit://busybox\n    command: ['/bin/sh', '-c', {script!r}]\n"
    return text + "".join(f"    {key}: {value}\n" for key, value in extra.items())


def ended(machine: Machine, *names: str, seconds: float = 30) -> dict[str, int | None]:
    """The statuses of services, once all of them have ended."""
    until = time.monotonic() + seconds
    while any(steps(machine)[f"service/{n}"].status is None for n in names):
        assert time.monotonic() < until and machine.running, f"{names} have not ended: {machine.report}"
        time.sleep(0.1)
    return {n: steps(machine)[f"service/{n}"].status for n in names}


LOOK = """\
fault() { echo "FAULT $1" >/dev/console; exit 1; }
wait_for() { n=0; until eval "$1"; do n=$((n+1)); [ $n -lt 150 ] || fault "$2"; sleep 0.1; done; }
wait_for 'grep -q "Linux version" /var/log/kmsg.log' kmsg
grep -qE '^[0-9-]+T[0-9:.]+Z kmsg \\([0-9]+\\) - [0-9-]+T[0-9:.]+Z: Linux version' /var/log/kmsg.log || fault form
wait_for 'test -s /var/log/noisy.out.log.0' rotation
wait_for 'grep -q "noisy to-stderr" /var/log/noisy.log' stderr
wait_for 'grep -q "onboot.000-first.out early" /var/log/onboot.000-first.out.log' onboot
test ! -e /var/log/logwrite.log || fault own
test ! -e /run/log/onboot/onboot.000-first.out.log || fault file
/usr/bin/logread | grep -q ';noisy.out;line ' || fault dump
/usr/bin/logread -f >/tmp/followed & follower=$!
sleep 0.5
/usr/bin/logwrite -n "by;hand" echo of-a-program
wait_for "grep -q '^[^;]*;by.;hand.out;of-a-program' /tmp/followed" follow
! grep -q 'Linux version' /tmp/followed || fault past
kill $follower
echo logs-are-good >/dev/console
"""


def test_logs_in_memory_and_in_files(build: Build) -> None:
    noisy = "i=0; while [ $i -lt 1200 ]; do echo line $i of the log that is long enough; i=$((i+1)); done; "
    noisy += "echo to-stderr >&2; sleep 1000"
    system = LOGGED + "onboot:\n" + container("first", "echo early") + container("bad", "echo why >&2; exit 3")
    system += "services:\n  - name: logwrite\n    image: kit://logwrite\n"
    system += "    command: ['/usr/bin/logwrite', '-max-log-size', '60000', '-max-log-files', '3']\n"
    system += "  - name: kmsg\n    image: kit://kmsg\n"
    system += container("noisy", noisy) + container("short", "echo the reason >&2; exit 7")
    system += "  - name: look\n    image: kit://busybox\n    command: ['/bin/sh', '/look']\n"
    system += "    binds: ['/look:/look:ro', '/var/log:/var/log', '/var/run:/var/run', '/dev/console:/dev/console'"
    system += ", '/usr/bin/logread:/usr/bin/logread', '/usr/bin/logwrite:/usr/bin/logwrite']\n"
    system += "files:\n  - path: look\n    contents: |\n" + "".join(f"      {line}\n" for line in LOOK.splitlines())
    with boot(build(system)) as machine:
        machine.wait_booted(60)
        assert ended(machine, "look", "short") == {"look": 0, "short": 7}
        machine.wait_console("logs-are-good", 5)
        # what the report and the console say about containers comes from memlogd now
        assert "early" in machine.console
        assert "why" in "\n".join(steps(machine)["onboot/001-bad"].log)
        (end,) = [e for e in machine.events if (e.step, e.event) == ("service/short", "exit")]  # type: ignore[attr-defined]
        assert list(end.log) == ["the reason"]
        assert machine.power_off(20).off
