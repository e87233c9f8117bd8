"""The whole program as PID 1 of a container of its own: scripts, report, reaping, shutdown."""

from __future__ import annotations

import pytest
from guest_box import STOP

pytestmark = pytest.mark.guest


def test_scripts_run_in_order_and_are_reported(box):
    box.script("etc/init.d/020-b", "echo b >> /out/order; exit 3")
    box.script("etc/init.d/010-a", "echo a >> /out/order; sleep 0.05")
    box.script("etc/init.d/030-c", "echo c >> /out/order; kill -9 $$")
    box.script("etc/init.d/040-link-target", STOP)
    (box.root / "etc/init.d/035-folder").mkdir()
    (box.root / "etc/init.d/036-text").write_text("no program")
    box.script("etc/shutdown.d/010-bye", "echo bye >> /out/order")
    done = box.run()
    assert done.returncode == 0, done.stderr
    assert (box.root / "out/order").read_text().split() == ["a", "b", "c", "bye"]
    assert box.event("done", "init.d/010-a")["ms"] >= 50
    assert box.event("fail", "init.d/020-b")["status"] == 3
    assert (box.event("fail", "init.d/030-c")["status"], box.event("fail", "init.d/030-c")["signal"]) == (137, 9)
    assert box.event("fail", "init.d/036-text")["message"] == "Permission denied"
    assert not [e for e in box.events() if "folder" in e["step"]]
    booted = box.event("booted", "boot")
    assert booted["ok"] is False and booted["message"] == "3 failed, first init.d/020-b"
    assert [e["event"] for e in box.events()][-2:] == ["shutdown", "off"]
    assert [e["t"] for e in box.events()] == sorted(e["t"] for e in box.events())


def test_a_boot_without_failure_is_ok(box):
    box.script("etc/init.d/010-a", STOP)
    assert box.run().returncode == 0
    assert box.event("booted", "boot")["ok"] is True
    assert box.event("shutdown", "shutdown")["message"] == "poweroff"


def test_orphans_are_reaped_and_others_reports_are_kept(box):
    box.script("etc/init.d/010-orphans", "for i in 1 2 3 4 5; do (sleep 0.01 &) ; done; exit 0")
    box.script(
        "etc/init.d/020-report", """echo '{"t": 1, "event": "fail", "step": "onboot/000-x"}' > /run/linuxkit/report"""
    )
    box.script("etc/init.d/030-look", "sleep 0.2; cat /proc/[0-9]*/status | grep State > /out/states\n" + STOP)
    assert box.run().returncode == 0
    assert "zombie" not in (box.root / "out/states").read_text()
    assert box.event("fail", "onboot/000-x")["t"] == 1
    assert box.event("booted", "boot")["message"] == "1 failed, first onboot/000-x"


@pytest.mark.parametrize(
    ("command", "word"),
    [
        ("kill -TERM 1", "reboot"),
        ("kill -USR1 1", "halt"),
        ("kill -INT 1", "reboot"),
        ("/out/poweroff", "poweroff"),
        ("/out/reboot", "reboot"),
    ],
)
def test_each_signal_has_its_meaning(box, command, word):
    box.script("etc/init.d/010-a", f"(sleep 0.2; {command}) > /dev/null 2>&1 &")
    assert box.run().returncode == 0
    assert box.event("off", "shutdown")["message"] == word


def test_who_handles_sigterm_gets_the_time_it_needs_and_nobody_else_does(box):
    box.script(
        "etc/init.d/010-a",
        "(trap 'sleep 0.3; echo clean > /out/clean; exit 0' TERM; while :; do sleep 0.05; done) > /dev/null 2>&1 &",
    )
    box.script("etc/init.d/020-b", "(trap '' TERM; while :; do sleep 1; done) > /dev/null 2>&1 &\n" + STOP)
    assert box.run().returncode == 0
    assert (box.root / "out/clean").read_text() == "clean\n"
    assert 300 < box.event("off", "shutdown")["ms"] < 4000


def test_a_shutdown_can_interrupt_the_boot(box):
    box.script("etc/init.d/010-a", "kill -USR2 1; sleep 30")
    box.script("etc/init.d/020-b", "echo no > /out/never")
    assert box.run().returncode == 0
    assert not (box.root / "out/never").exists()
    assert not [e for e in box.events() if e["event"] == "booted"]


def test_asking_again_does_not_cut_the_shutdown_short(box):
    """A host asks twice, by the report's port and by the power button."""
    box.script("etc/init.d/010-a", STOP)
    box.script("etc/shutdown.d/010-bye", "kill -USR2 1; sleep 0.3; echo bye > /out/bye")
    box.script("etc/shutdown.d/020-last", "kill -TERM 1; sleep 0.3; echo last > /out/last")
    assert box.run().returncode == 0
    assert (box.root / "out/bye").exists()
    assert (box.root / "out/last").exists()
    assert box.event("off", "shutdown")["message"] == "poweroff"


def test_containers_without_a_plan_are_said_not_skipped(box):
    (box.root / "containers/onboot/000-a").mkdir(parents=True)
    box.link("etc/init.d/010-onboot")
    box.link("etc/init.d/005-volumes")
    box.script("etc/init.d/020-b", STOP)
    done = box.run()
    assert "there is no /etc/linuxkit/plan" in done.stderr
    assert "/containers/onboot has 1 entries" in box.event("fail", "plan")["message"]
    assert box.event("done", "init.d/005-volumes")


def test_a_damaged_plan_is_said(box):
    (box.root / "etc/linuxkit/plan").write_text("linuxkit-plan\t1\nnonsense\n")
    box.link("etc/init.d/030-services")
    box.script("etc/init.d/040-b", STOP)
    box.run()
    assert box.event("fail", "plan")["message"] == "/etc/linuxkit/plan: line 2: unknown word"
