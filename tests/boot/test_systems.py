"""Systems described in YAML, built from nothing, booted and judged by their boot report."""

from __future__ import annotations

import re
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

import linuxkit
from linuxkit.machine.machine import Machine
from linuxkit.machine.report import Event, State, Step
from support.system import CONTAINERD, CRUN, Build, image_cache
from support.vm import boot

pytestmark = pytest.mark.boot
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def page(machine: Machine, timeout: float = 30) -> str:
    """What the guest serves on its published port."""
    (port,) = machine.prepared.spec.ports  # type: ignore[attr-defined]
    until = time.monotonic() + timeout
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port.host}/", timeout=5) as reply:
                return str(reply.read().decode())
        except (OSError, urllib.error.URLError):
            if time.monotonic() > until or not machine.running:
                raise
            time.sleep(0.1)


def steps(machine: Machine) -> dict[str, Step]:
    return {step.name: step for step in machine.report.steps}


def container(name: str, script: str, *, image: str = "kit://busybox", **extra: str) -> str:
    """One entry of onboot, onshutdown or services that runs a line of shell."""
    text = f"  - name: {name}\n    image: {image}\n    command: ['/bin/sh', '-c', {script!r}]\n"
    return text + "".join(f"    {key}: {value}\n" for key, value in extra.items())


def test_the_web_example_serves_its_page_with_crun_alone(build: Build) -> None:
    prefix = build((EXAMPLES / "web.yml").read_text())
    with boot(prefix, publish=("127.0.0.1:0:80",)) as machine:
        report = machine.wait_booted(60)
        assert report.ok
        assert "It boots." in page(machine)
        names = [step.name for step in report.steps]
        assert names.index("onboot/000-sysctl") < names.index("onboot/001-dhcpcd") < names.index("service/web")
        assert steps(machine)["onboot/001-dhcpcd"].status == 0
        assert machine.power_off(20).off


def test_the_web_page_under_containerd_and_runc(build: Build) -> None:
    prefix = build((EXAMPLES / "containerd.yml").read_text())
    with boot(prefix, seconds=120, publish=("127.0.0.1:0:80",)) as machine:
        report = machine.wait_booted(100)
        assert report.ok
        assert "nginx" in page(machine)
        assert steps(machine)["service/web"].state is State.RUNNING
        assert machine.power_off(30).off


def test_without_a_network_no_page_is_served(build: Build) -> None:
    """The negative control of the two above."""
    system = CRUN + "services:\n" + container("web", "sleep 1000")
    with boot(build(system), publish=("127.0.0.1:0:80",)) as machine:
        machine.wait_booted(60)
        with pytest.raises(OSError):
            page(machine, timeout=2)


def test_an_onboot_container_that_fails_is_reported_and_the_boot_goes_on(build: Build) -> None:
    system = CRUN + "onboot:\n" + container("bad", "echo the disk is missing >&2; exit 3") + container("good", "true")
    system += "services:\n" + container("svc", "sleep 1000")
    with boot(build(system)) as machine:
        report = machine.wait_booted(60)
        assert not report.ok
        bad = steps(machine)["onboot/000-bad"]
        assert (bad.state, bad.status) == (State.FAILED, 3)
        assert "the disk is missing" in "\n".join(bad.log)
        assert steps(machine)["onboot/001-good"].status == 0
        assert steps(machine)["service/svc"].state is State.RUNNING
        assert "the disk is missing" in machine.console


def test_onfail_halt_stops_the_boot_there(build: Build) -> None:
    system = CRUN + "onboot:\n" + container("bad", "exit 4", onfail="halt") + container("later", "true")
    system += "services:\n" + container("svc", "sleep 1000")
    with boot(build(system)) as machine:
        report = machine.wait_booted(60)
        assert not report.ok
        assert steps(machine)["onboot/000-bad"].status == 4
        assert "onboot/001-later" not in steps(machine)
        assert "service/svc" not in steps(machine)
        assert machine.power_off(20).off


@pytest.mark.parametrize("head", [CRUN, CONTAINERD], ids=["crun", "containerd"])
def test_a_service_that_dies_says_so_and_is_restarted_if_it_asks_for_that(build: Build, head: str) -> None:
    system = head + "services:\n"
    system += container("again", "echo falling over >&2; sleep 0.3; exit 7", restart="on-failure")
    system += container("content", "sleep 0.2; exit 0", restart="on-failure")
    system += container("once", "exit 9")
    # and what health checks find, in images without anything for them, and a keeper that is killed
    answer = "while :; do printf 'HTTP/1.0 200 OK\\r\\n\\r\\nhi' | nc -l -p 8080; done"
    system += container("web", answer, net="new", healthcheck="{http: 8080/x, interval: 2s}")
    system += container("deaf", "sleep 1000", healthcheck="{tcp: 81, interval: 1s, retries: 2}")
    system += container("checked", "touch /here; sleep 1000", healthcheck="{test: 'test -e /here', interval: 2s}")
    ends = "cat /run/log/boot.jsonl* | grep -c exit.*service/again"
    kill = f"until [ $({ends}) -ge 3 ]; do sleep 1; done; kill -9 $(cat /run/linuxkit/supervisor.pid); sleep 1000"
    system += container("flood", "yes to all of it")
    look = "until [ -s /host/var/log/flood.out.log.1 ]; do sleep 1; done; timeout 10 /service status | grep -q flood"
    look += " && [ $(stat -c %s /host/var/log/flood.out.log.1) -le 4194304 ] && touch /good; sleep 1000"
    system += container("look", look, binds="['/:/host', '/run:/run', '/usr/bin/service:/service']",
                        healthcheck="{test: 'test -e /good', interval: 1s, start_period: 10m}")  # fmt: skip
    system += container("killer", kill, pid="host", binds="['/run:/run']", capabilities="[all]")
    with boot(build(system), seconds=240) as machine:
        machine.wait_booted(90)
        until = time.monotonic() + 120

        def said(step: str, event: str) -> list[int]:
            return [e.status or 0 for e in machine.events if (e.step, e.event) == (step, event)]  # type: ignore[attr-defined]

        while len(said("service/again", "exit")) < 3 or not said("service/once", "exit"):
            assert time.monotonic() < until, "the services did not end and restart as they should"
            time.sleep(0.2)
        assert said("service/again", "exit")[:3] == [7, 7, 7]
        assert len(said("service/again", "restart")) >= 2
        assert said("service/content", "exit") == [0]
        assert said("service/once", "exit") == [9]
        assert not said("service/content", "restart")
        assert not said("service/once", "restart")
        exits = [e for e in machine.events if (e.step, e.event) == ("service/again", "exit")]  # type: ignore[attr-defined]
        assert "falling over" in "\n".join(exits[0].log)

        def of(event: str, step: str) -> list[Event]:
            return [e for e in machine.events if (e.event, e.step) == (event, step)]  # type: ignore[attr-defined]

        checks = ("web", "deaf", "checked", "look")
        while not of("ready", "keeper") or not all(of("health", f"service/{n}") for n in checks):
            assert time.monotonic() < until, "no other keeper, or no result of the checks"
            time.sleep(0.2)
        states = {name: of("health", f"service/{name}")[0].health for name in checks}
        assert states == {"web": "healthy", "deaf": "unhealthy", "checked": "healthy", "look": "healthy"}
        assert "Connection refused" in of("health", "service/deaf")[0].message
        assert of("exit", "keeper")[0].signal == 9
        assert re.fullmatch(r"took over \d running of 9 services", of("ready", "keeper")[0].message)
        machine.send(b"\x13")  # Ctrl-S on the serial console: from here on it takes nothing any more
        time.sleep(1)
        shown, again = machine.console, len(said("service/again", "exit"))
        while len(said("service/again", "exit")) <= again:  # the new keeper goes on
            assert time.monotonic() < until + 30, "nothing restarts any more"
            time.sleep(0.2)
        assert machine.console == shown  # where that end was said
        for name in ("web", "deaf", "checked", "killer", "flood", "look"):
            assert not said(f"service/{name}", "exit"), name
        assert machine.power_off(30).off


def test_readonly_and_writable_containers_and_the_root(build: Build) -> None:
    system = CRUN + "onboot:\n"
    system += container("writable", "echo x > /x && test -s /x && rm /bin/busybox.static 2>/dev/null; true")
    system += container("fresh", "test ! -e /x")
    system += container("readonly", "! echo x > /x", readonly="true")
    system += container("root", "! echo x > /host/x && test -e /host/containers", binds="['/:/host']")
    system += container("canary", "echo x > /x", readonly="true")
    with boot(build(system)) as machine:
        machine.wait_booted(60)
        status = {name: step.status for name, step in steps(machine).items() if name.startswith("onboot/")}
        assert status == {
            "onboot/000-writable": 0, "onboot/001-fresh": 0, "onboot/002-readonly": 0, "onboot/003-root": 0,
            "onboot/004-canary": 1,  # the same write that `readonly` expects to fail
        }  # fmt: skip


def test_volumes_are_shared_filled_from_an_image_and_read_only_when_said(build: Build) -> None:
    system = CRUN + "volumes:\n  - name: blank\n  - name: filled\n    image: kit://busybox\n"
    system += "  - name: fixed\n    image: kit://busybox\n    readonly: true\n"
    system += "onboot:\n"
    system += container("empty", "test -z \"$(ls -A /v)\"", binds="['blank:/v']")
    system += container("write", "echo kept > /v/file", binds="['blank:/v']")
    system += container("read", "test \"$(cat /v/file)\" = kept", binds="['blank:/v']")
    system += container("ro-bind", "! echo x > /v/other && test -e /v/file", binds="['blank:/v:ro']")
    system += container("image", "test -e /v/bin/sh || test -L /v/bin/sh && echo x > /v/x", binds="['filled:/v']")
    system += container("fixed", "test -d /v/bin && ! echo x > /v/x", binds="['fixed:/v:ro']")
    system += container("canary", "test -e /v/file", binds="['filled:/v']")
    with boot(build(system)) as machine:
        machine.wait_booted(60)
        status = {name[11:]: step.status for name, step in steps(machine).items() if name.startswith("onboot/")}
        assert status == {"empty": 0, "write": 0, "read": 0, "ro-bind": 0, "image": 0, "fixed": 0, "canary": 1}


def test_onshutdown_runs_when_the_machine_is_asked_to_power_off(build: Build) -> None:
    system = CRUN + "onshutdown:\n" + container("bye", "echo so long") + container("sour", "exit 5")
    system += "services:\n" + container("svc", "sleep 1000")
    with boot(build(system)) as machine:
        assert machine.wait_booted(60).ok
        assert "onshutdown/000-bye" not in steps(machine)
        report = machine.power_off(30)
        assert report.off
        assert steps(machine)["onshutdown/000-bye"].status == 0
        assert steps(machine)["onshutdown/001-sour"].status == 5
        assert "so long" in machine.console


def test_a_guest_can_power_itself_off(build: Build) -> None:
    system = CRUN + "services:\n  - name: poweroff\n    image: kit://poweroff\n"
    system += "    command: ['/bin/sh', '/poweroff.sh', '1']\n"
    with boot(build(system)) as machine:
        machine.wait(60)


def test_logs_are_where_linuxkit_has_them(build: Build) -> None:
    check = (
        "sleep 2; grep -q to-stdout /host/var/log/talk.out.log && grep -q to-stderr /host/var/log/talk.log"
        " && grep -q early /host/run/log/onboot/onboot.000-first.out.log"
        " && test \"$(readlink /host/var/log/onboot)\" = /run/log/onboot"
    )
    system = CRUN + "onboot:\n" + container("first", "echo early")
    system += "services:\n" + container("talk", "echo to-stdout; echo to-stderr >&2; sleep 1000")
    system += container("check", check, binds="['/:/host:rbind,ro']")
    with boot(build(system)) as machine:
        machine.wait_booted(60)
        until = time.monotonic() + 20
        while steps(machine)["service/check"].state is State.RUNNING and time.monotonic() < until:
            time.sleep(0.2)
        assert steps(machine)["service/check"].status == 0


@pytest.mark.parametrize("codec", ["none", "gzip", "zstd", "lz4", "xz"])
def test_the_kernel_unpacks_an_initrd_of_every_codec(build: Build, codec: str) -> None:
    prefix = build((EXAMPLES / "minimal.yml").read_text(), "--compress", codec)
    with boot(prefix, seconds=90) as machine:
        assert machine.wait_booted(80).ok


def test_the_library_builds_and_boots(tmp_path: Path) -> None:
    sources = linuxkit.Sources(image_cache())
    config = linuxkit.load(EXAMPLES / "minimal.yml")
    linuxkit.build(config, name="lib", directory=tmp_path, sources=sources)
    with linuxkit.run(tmp_path / "lib") as machine:
        assert machine.wait_booted(60).ok
        assert machine.power_off(20).off


def test_arm64_is_built_and_boots_here(build: Build) -> None:
    text = (EXAMPLES / "minimal.yml").read_text().replace("ttyS0", "ttyAMA0")
    with boot(build(text, "--arch", "arm64"), seconds=120) as machine:
        assert machine.wait_booted(110).ok
        assert machine.power_off(30).off
