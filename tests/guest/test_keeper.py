"""What must not hold up or end the services: floods of output, stopped terminals, a killed keeper, starts that fail."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import termios
import time
from pathlib import Path

import pytest
from guest_box import CRUN, STOP, Box

from linuxkit.config.model import Restart
from linuxkit.runtime.bootplan import Kind, PlannedContainer, boot_plan

pytestmark = pytest.mark.guest


@pytest.fixture
def crun(box: Box) -> Box:
    box.own_usr()
    (box.root / "usr/bin/service").symlink_to("/init")
    box.script("usr/bin/crun", CRUN)
    return box


def plan(box: Box, *containers: PlannedContainer) -> None:
    (box.root / "etc/linuxkit/plan").write_bytes(boot_plan([], containers))


def planned(kind: Kind, name: str, restart: Restart = Restart.NO, **runtime: object) -> PlannedContainer:
    return PlannedContainer(kind, name, f"/run/{name}", runtime, {}, restart)


def act(box: Box, text: str) -> None:
    """A script that runs once the services do, with what it says in /out/said."""
    box.link("etc/init.d/030-services")
    box.script("etc/init.d/040-act", "exec > /out/said 2>&1\nPATH=/out:$PATH\n" + text + "\n" + STOP)


def said(box: Box) -> str:
    return (box.root / "out/said").read_text()


# -- output


@pytest.mark.parametrize("size", [0, 1, 999, 1000, 1001, 250_000])
def test_a_log_never_is_larger_than_it_may_be(parts, tmp_path: Path, size: int) -> None:
    data = "".join(f"{n:06d}\n" for n in range(size // 7 + 1))[:size]
    (tmp_path / "in").write_text(data)
    run = f"{parts.program} stream {tmp_path}/log 1000 < {tmp_path}/in"
    assert subprocess.run(run, shell=True, check=True, capture_output=True, text=True).stdout == f"{size}\n"
    files = [tmp_path / "log.1", tmp_path / "log"]
    kept = "".join(f.read_text() for f in files if f.exists())
    assert all(f.stat().st_size <= 1000 + 64 for f in files if f.exists())
    *_, newest = re.split(r"linuxkit: \d+ bytes are missing here\n", kept)
    assert data.endswith(newest) and len(newest) >= min(size, 1000)


def test_a_flood_fills_nothing_and_holds_up_nobody(crun: Box) -> None:
    plan(crun, planned("service", "flood"), planned("service", "quiet"))
    crun.script("out/flood", "exec yes to be or not to be")
    crun.script("out/quiet", "echo here; sleep 1; echo there; exec sleep 100")
    act(crun, """
        sleep 1.5
        start=$(date +%s%N); service status; end=$(date +%s%N)
        echo $(((end - start) / 1000000)) ms
        du -k /var/log/flood.out.log /var/log/flood.out.log.1 | while read size name; do echo size $size; done
        cat /var/log/quiet.out.log
        du -sk /run | while read size name; do echo run $size; done
        """)
    crun.run()
    text = said(crun)
    assert re.search(r"flood +running", text) and "here\nthere\n" in text
    took = re.search(r"(\d+) ms", text)
    assert took and int(took[1]) < 1000
    sizes = [int(size) for size in re.findall(r"size (\d+)", text)]
    assert sizes and all(0 < size <= 4100 for size in sizes) and max(sizes) > 4000  # so much came that it was cut
    assert int(re.findall(r"run (\d+)", text)[0]) < 300


def test_an_onboot_flood_is_kept_to_its_end_and_says_what_is_missing(crun: Box) -> None:
    plan(crun, planned("onboot", "000-flood"), planned("onboot", "001-after"))
    crun.script("out/000-flood", "yes in the beginning | head -c 5000000; echo; echo the end of it; exit 3")
    crun.script("out/001-after", "echo after")
    crun.link("etc/init.d/010-onboot")
    crun.script("etc/init.d/020-z", STOP)
    done = crun.run()
    assert "the end of it\n" in done.stdout and "after\n" in done.stdout
    assert "linuxkit: 5000015 bytes of output, of which the last 1048576 follow" in done.stdout
    assert len(done.stdout) < 1_100_000
    folder = crun.root / "run/log/onboot"
    assert all(file.stat().st_size <= 1 << 20 for file in folder.iterdir())
    assert crun.event("fail", "onboot/000-flood")["log"][-1] == "the end of it"


def test_a_full_disk_of_logs_keeps_what_is_new(crun: Box) -> None:
    plan(crun, planned("service", "a"))
    crun.script("out/a", "yes old | head -c 3000000; sleep 0.3; echo newest; exec sleep 100")
    crun.before = f"mount -t tmpfs -o size=1m none {crun.root}/var/log"
    (crun.root / "var/log").mkdir()
    act(crun, "sleep 0.8; tail -n 1 /var/log/a.out.log; du -k /var/log")
    crun.run()
    assert said(crun).startswith("newest\n") and "newest" not in (crun.root / "run/log/boot.jsonl").read_text()
    assert crun.event("off", "shutdown")


def test_output_outlives_its_copier(crun: Box) -> None:
    plan(crun, planned("service", "talk"))
    crun.script("out/talk", "n=0; while :; do n=$((n + 1)); echo $n; sleep 0.02; done")
    act(crun, """
        read pid rest < /run/linuxkit/.copier.pid
        sleep 0.2; kill -9 $pid; sleep 1
        read again rest < /run/linuxkit/.copier.pid; [ $pid != $again ] && echo another
        service status; cat /var/log/talk.out.log
        """)
    crun.run()
    text = said(crun)
    assert text.startswith("another\n") and re.search(r"talk +running .*restarts 0", text)
    numbers = [int(line) for line in text.splitlines() if line.isdigit()]
    assert numbers == list(range(1, len(numbers) + 1)) and len(numbers) > 30


# -- a stopped terminal


def test_a_stopped_terminal_stops_neither_restarts_nor_the_end(crun: Box) -> None:
    plan(crun, planned("onboot", "000-loud"), planned("service", "crash", Restart.ALWAYS))
    crun.script("out/000-loud", "yes shouting | head -c 300000")
    crun.script("out/crash", "sleep 0.05; exit 7")
    crun.link("etc/init.d/010-onboot")
    crun.link("etc/init.d/030-services")
    crun.script("etc/init.d/040-z", "(sleep 2; kill -USR2 1) > /dev/null 2>&1 &")
    ours, theirs = pty.openpty()
    try:
        termios.tcflow(theirs, termios.TCOOFF)
        with pytest.raises(subprocess.TimeoutExpired):  # the control: whoever just writes is stopped
            subprocess.run(["sh", "-c", "yes | head -c 100000"], stdout=theirs, timeout=1)
        start = time.monotonic()
        crun.run(theirs)
        took = time.monotonic() - start
        termios.tcflow(theirs, termios.TCOON)
    finally:
        os.close(theirs)
        os.close(ours)
    assert len([e for e in crun.events() if (e["event"], e["step"]) == ("restart", "service/crash")]) >= 2
    assert crun.event("off", "shutdown") and took < 12


def test_what_was_said_meanwhile_comes_later_or_is_counted(parts) -> None:
    ours, theirs = pty.openpty()
    try:
        termios.tcflow(theirs, termios.TCOOFF)
        command = [parts.program, "say", "200"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, text=True) as process:
            assert process.stdout is not None
            assert float(process.stdout.readline()) < 2
            termios.tcflow(theirs, termios.TCOON)
            text = b""
            while b"lines are missing here" not in text:
                text += os.read(ours, 65536)
            assert process.wait(10) == 0
    finally:
        os.close(theirs)
        os.close(ours)
    shown = text.count(b"of a console that nobody reads")
    lost = re.search(rb"(\d+) lines are missing here", text)
    assert lost and int(lost[1]) + shown == 200 and shown > 20


# -- a killed keeper


def test_a_killed_keeper_is_started_again_and_takes_over(crun: Box) -> None:
    plan(
        crun,
        planned("service", "steady"),
        planned("service", "done"),
        planned("service", "good", Restart.ON_FAILURE),
        planned("service", "bad", Restart.ON_FAILURE),
        planned("service", "quick", Restart.ON_FAILURE),
        planned("service", "down", Restart.ALWAYS),
    )
    for name in ("steady", "down"):
        crun.script(f"out/{name}", f"echo x >> /out/{name}.starts; exec sleep 100")
    crun.script("out/done", "echo x >> /out/done.starts")
    for name, status in (("good", 0), ("bad", 7), ("quick", 5)):
        crun.script(f"out/{name}", f"""
            echo x >> /out/{name}.starts
            [ -e /out/{name}.end ] && exec sleep 100
            until [ -e /out/{name}.end ]; do sleep 0.02; done
            exit {status}""")
    act(crun, """
        service stop down
        service status > /out/before
        kill -STOP $(cat /run/linuxkit/supervisor.pid)
        touch /out/quick.end; sleep 0.2     # ends while nobody looks, and is PID 1's to reap
        kill -9 $(cat /run/linuxkit/supervisor.pid)
        sleep 1
        service status > /out/after
        touch /out/good.end /out/bad.end; sleep 1
        service status > /out/later
        service stop steady; service start steady; service status > /out/last
        """)
    crun.run()
    pids = {
        when: dict(re.findall(r"^(\w+) .* pid (\d+)", (crun.root / "out" / when).read_text(), re.M))
        for when in ("before", "after", "later", "last")
    }
    assert pids["before"]["steady"] == pids["after"]["steady"] == pids["later"]["steady"] != pids["last"]["steady"]
    assert pids["before"]["good"] == pids["after"]["good"]
    names = ("done", "down", "good", "bad", "quick")
    starts = {name: (crun.root / f"out/{name}.starts").read_text().count("x") for name in names}
    assert starts == {"done": 1, "down": 1, "good": 1, "bad": 2, "quick": 2}
    assert crun.event("exit", "keeper")["signal"] == 9
    assert "running of 6 services" in crun.event("ready", "keeper")["message"]
    ends = {e["step"]: e["status"] for e in crun.events() if e["event"] == "exit" and e["step"].startswith("service/")}
    assert (ends["service/good"], ends["service/bad"]) == (0, 7)
    assert not [e for e in crun.events() if e["event"] == "fail"]
    assert re.search(r"^down +stopped", (crun.root / "out/after").read_text(), re.M)
    later = (crun.root / "out/later").read_text()
    assert re.search(r"^bad +running .*restarts 1 .*last ended with status 7", later, re.M)


def test_another_process_with_the_old_pid_is_not_taken_for_the_service(crun: Box) -> None:
    plan(crun, planned("service", "a", Restart.ALWAYS))
    crun.script("out/a", "echo x >> /out/starts; exec sleep 100")
    act(crun, """
        keeper=$(cat /run/linuxkit/supervisor.pid); pid=$(cat /run/linuxkit/a.pid)
        kill -STOP $keeper; kill -9 $pid; kill -9 $keeper
        while [ -e /proc/$pid ]; do sleep 0.01; done
        echo $((pid - 1)) > /proc/sys/kernel/ns_last_pid; sleep 50 & [ $! = $pid ] && echo same
        sleep 1; service status
        """)
    crun.run()
    assert said(crun).startswith("same\n")
    assert re.search(r"a +running .*restarts 1 ", said(crun))


def test_an_old_end_is_not_taken_for_that_of_a_new_process(crun: Box) -> None:
    plan(crun, planned("service", "a"), planned("service", "b"))
    crun.script("out/a", "(sleep 0.1 & echo $! > /out/pid); exec sleep 100")
    crun.script("out/b", "[ -e /out/now ] || exit 0; echo $$ > /out/b.pid; exec sleep 100")
    same_pid = "[ -e /out/now ] && echo $(($(cat /out/pid) - 1)) > /proc/sys/kernel/ns_last_pid"
    crun.script("usr/bin/crun", CRUN.replace("/out/$last &", f"{same_pid}\n        /out/$last &"))
    act(crun, "sleep 0.4; touch /out/now; service start b; sleep 0.3; cat /out/pid /out/b.pid; service status")
    crun.run()
    first, second, *rest = said(crun).split("\n")
    assert first == second  # the orphan's pid came round again
    assert re.search(r"^b +running", "\n".join(rest), re.M)


# -- starts that fail


def test_a_start_that_fails_leaves_no_mounts(crun: Box) -> None:
    mounts = [
        {"type": "tmpfs", "source": "tmpfs", "destination": "/tmp/one"},
        {"type": "bind", "source": "/tmp/one", "destination": "/tmp/two", "options": ["rbind"]},
        {"type": "bind", "source": "/is/not/there", "destination": "/tmp/three"},
    ]
    plan(crun, planned("service", "a", Restart.ALWAYS, mounts=mounts))
    crun.script("out/a", "exec sleep 100")
    act(crun, "sleep 1.5; grep -c ' /tmp/' /proc/mounts; service status")
    crun.run()
    assert len([e for e in crun.events() if e["event"] == "fail" and e["step"] == "service/a"]) >= 3
    assert said(crun).splitlines()[0] == "0"
    assert "mount /tmp/three: No such file or directory" in said(crun)


def test_a_containerd_that_ends_at_once_is_not_waited_for(crun: Box) -> None:
    plan(crun, planned("service", "a"))
    crun.script("usr/bin/containerd", "echo no such plugin >&2; exit 3")
    crun.link("etc/init.d/020-containerd")
    crun.script("etc/init.d/040-z", STOP)
    start = time.monotonic()
    crun.run()
    assert time.monotonic() - start < 10
    failed = crun.event("fail", "service/containerd")
    assert failed["message"] == "containerd ended at once with status 3" and failed["log"] == ["no such plugin"]


def test_the_status_of_many_services_is_whole(crun: Box) -> None:
    names = [f"service-with-a-name-of-some-length-{n:03d}" for n in range(400)]
    plan(crun, *(planned("service", name) for name in names))
    for name in names:
        (crun.root / "out" / name).symlink_to("one")
    crun.script("out/one", "sleep 1; exit 3")  # later than the stand-in ends, whose shell would take the status
    act(crun, "while service status | grep -qv stopped; do sleep 0.1; done; service status")
    crun.run()
    lines = said(crun).splitlines()
    assert [line.split()[0] for line in lines] == names
    assert [line for line in lines if "last ended with status 3" not in line] == []


# -- the end


def test_a_hanging_shutdown_ends_in_time_and_says_what_it_waits_for(crun: Box) -> None:
    plan(crun, planned("onshutdown", "000-hang"), planned("onshutdown", "001-fine"))
    crun.cmdline("linuxkit.shutdown_timeout=2")
    crun.script("out/000-hang", "trap '' TERM; while :; do sleep 0.1; done")
    crun.script("out/001-fine", "echo x > /out/fine")
    crun.script("etc/shutdown.d/005-hang", "trap '' TERM; while :; do sleep 0.1; done")
    crun.link("etc/shutdown.d/010-onshutdown")
    crun.script("etc/shutdown.d/020-last", "echo x > /out/last")
    crun.script("etc/init.d/020-z", STOP)
    done = crun.run()
    assert "onshutdown/000-hang took longer than 2 s" in done.stderr
    assert crun.event("fail", "onshutdown/000-hang")["message"] == "it took longer than 2 s and was ended"
    assert crun.event("fail", "shutdown.d/005-hang")["message"] == "nothing happened for 2 s, and it was ended"
    assert (crun.root / "out/fine").exists() and (crun.root / "out/last").exists()
    assert 4000 < crun.event("off", "shutdown")["ms"] < 25000
