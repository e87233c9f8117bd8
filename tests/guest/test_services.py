"""onboot containers and services, with a stand-in for the OCI runtime: a script that runs /out/NAME.

What the real runtimes do with the same calls is tested in machines, by the boot ring.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from guest_box import CRUN, STOP, Box

from linuxkit.config.model import OnFail, Restart
from linuxkit.runtime.bootplan import Kind, PlannedContainer, boot_plan

pytestmark = pytest.mark.guest

@pytest.fixture
def crun(box: Box) -> Box:
    box.own_usr()
    box.script("usr/bin/crun", CRUN)
    return box


def plan(box: Box, *containers: PlannedContainer) -> None:
    (box.root / "etc/linuxkit/plan").write_bytes(boot_plan([], containers))


def planned(kind: Kind, name: str, restart: Restart = Restart.NO, onfail: OnFail = OnFail.CONTINUE) -> PlannedContainer:
    return PlannedContainer(kind, name, f"/run/{name}", {}, {}, restart, onfail)


def test_onboot_runs_in_order_and_reports_failure(crun):
    plan(crun, planned("onboot", "000-a"), planned("onboot", "001-b"), planned("onboot", "002-c"))
    crun.script("out/000-a", "echo from a; echo a >> /out/order")
    crun.script("out/001-b", "echo b >> /out/order; echo why >&2; exit 4")
    crun.script("out/002-c", "echo c >> /out/order; exit 137")
    crun.link("etc/init.d/010-onboot")
    crun.script("etc/init.d/020-z", STOP)
    done = crun.run()
    assert (crun.root / "out/order").read_text().split() == ["a", "b", "c"]
    assert "from a" in done.stdout
    assert (crun.root / "run/log/onboot/onboot.000-a.out.log").read_text() == "from a\n"
    assert crun.event("done", "onboot/000-a")["ms"] > 0
    assert crun.event("fail", "onboot/001-b")["status"] == 4 and crun.event("fail", "onboot/001-b")["log"] == ["why"]
    assert crun.event("fail", "onboot/002-c")["signal"] == 9
    assert (crun.root / "out/calls").read_text().splitlines()[0] == "run --bundle /run/000-a 000-a"


def test_onfail_halt_stops_the_boot_there(crun):
    plan(crun, planned("onboot", "000-a", onfail=OnFail.HALT), planned("onboot", "001-b"), planned("service", "s"))
    crun.script("out/000-a", f"{STOP}exit 5")
    crun.link("etc/init.d/010-onboot")
    crun.link("etc/init.d/030-services")
    done = crun.run()
    assert "the boot stops here: onboot/000-a failed with status 5" in done.stderr
    booted = crun.event("booted", "boot")
    assert booted["ok"] is False and booted["message"] == "stopped: onboot/000-a failed with status 5"
    assert (crun.root / "out/calls").read_text().count("run") == 2  # the word and the path
    assert not [e for e in crun.events() if e["step"].startswith("service/")]


def test_services_start_side_by_side_and_restart_as_they_should(crun):
    plan(
        crun,
        planned("service", "steady"),
        planned("service", "crash", Restart.ON_FAILURE),
        planned("service", "once"),
        planned("service", "missing"),
    )
    crun.script("out/steady", "exec sleep 100")
    crun.script("out/crash", "echo x >> /out/crashes; echo sorry >&2; exit 7")
    crun.script("out/once", "exit 0")
    crun.link("etc/init.d/030-services")
    crun.script("etc/init.d/040-z", "(sleep 0.8; kill -USR2 1) > /dev/null 2>&1 &")
    crun.run()
    assert crun.event("ready", "service/steady")
    ended = crun.event("exit", "service/crash")
    assert ended["status"] == 7 and ended["log"] == ["sorry"]
    assert crun.event("restart", "service/crash")["message"] == "in 0.2 s, time 1"
    assert (crun.root / "out/crashes").read_text() == "x\nx\n"
    assert crun.event("exit", "service/once")["status"] == 0
    assert not [e for e in crun.events() if e["event"] == "restart" and e["step"] != "service/crash"]
    assert crun.event("fail", "service/missing")["log"] == ["no such bundle"]
    assert crun.event("fail", "init.d/030-services")["status"] == 1
    order = [e["step"] for e in crun.events() if e["event"] in ("ready", "booted")]
    assert order.index("boot") > order.index("service/steady")


def test_services_obey_their_commands(crun):
    plan(crun, planned("service", "a", Restart.ALWAYS))
    crun.script(
        "out/a", "echo up >> /out/starts; trap 'echo down >> /out/starts; exit 0' TERM; while :; do sleep 0.02; done"
    )
    crun.link("etc/init.d/030-services")
    crun.script("etc/init.d/040-z", """
        exec > /out/said 2>&1
        sleep 0.2; PATH=/out:$PATH
        service status; service stop a; service status; service start a; sleep 0.2; service restart a; sleep 0.2
        service stop b; service dance a; service start a && echo fine
        """ + STOP)  # fmt: skip
    crun.run()
    said = (crun.root / "out/said").read_text()
    assert (crun.root / "out/starts").read_text().split()[:5] == ["up", "down", "up", "down", "up"]
    assert "a                        running" in said and "a                        stopped" in said
    assert "no such service" in said and "usage:" in said and said.endswith("fine\n")


def test_the_bundle_is_where_the_plan_says(crun: Box) -> None:
    plan(crun, planned("service", "a"))
    crun.script("out/a", "exit 0")
    crun.link("etc/init.d/030-services")
    crun.script("etc/init.d/040-z", STOP)
    crun.run()
    calls = Path(crun.root / "out/calls").read_text().splitlines()
    assert calls == ["run --detach --bundle /run/a --pid-file /run/linuxkit/a.pid a", "delete --force a"]
