"""`linuxkit run` and Machine against a guest that does what it is told, well and badly."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from linuxkit.errors import MachineError
from linuxkit.machine.report import State
from support.vm import boot

pytestmark = pytest.mark.boot
Guest = Callable[..., str]


def linuxkit(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "linuxkit", "run", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=90, stdin=subprocess.DEVNULL, **options)  # type: ignore[call-overload]


def test_a_guest_boots_talks_and_shuts_down_when_asked(testguest: Guest) -> None:
    with boot(testguest("ok")) as machine:
        report = machine.wait_booted(60)
        assert report.ok
        assert [step.name for step in report.steps] == ["mounts", "onboot/000-first", "service/web"]
        assert [step.state for step in report.steps] == [State.DONE, State.DONE, State.RUNNING]
        machine.send(b"one two\n")
        machine.wait_console("heard: one two", 10)
        after = machine.power_off(15)
        assert after.off
        assert not machine.running
    assert b"heard: one two" in (machine.state / "console.log").read_bytes()


def test_a_guest_that_powers_off_by_itself_ends_the_machine(testguest: Guest) -> None:
    with boot(testguest("off")) as machine:
        assert machine.wait(60).booted


def test_a_reboot_is_a_new_boot_with_a_new_report(testguest: Guest) -> None:
    with boot(testguest("ok"), seconds=90) as machine:
        assert machine.wait_booted(60).ok
        machine.send(b"again\n")
        machine.wait_console(r"(?s)hello.*Restarting system.*hello", 60)
        assert machine.boots == 2
        assert machine.wait_booted(10).ok
        machine.power_off(15)
        assert len([e for e in machine.events if e.event == "off"]) == 2  # type: ignore[attr-defined]


def test_a_kernel_panic_is_an_error_with_the_panics_own_words(testguest: Guest) -> None:
    with boot(testguest("panic")) as machine, pytest.raises(MachineError, match="kernel panic: Attempted to kill init"):
        machine.wait_booted(60)


def test_a_guest_that_never_reports_is_not_taken_for_booted(testguest: Guest) -> None:
    with boot(testguest("silent")) as machine:
        machine.wait_console("test guest: silent", 60)
        with pytest.raises(MachineError, match="did not boot within 1 s"):
            machine.wait_booted(1)
        assert machine.power_off(15).booted is None


def test_garbage_in_the_report_is_dropped_and_counted(testguest: Guest) -> None:
    with boot(testguest("noise")) as machine:
        report = machine.wait_booted(60)
        assert report.ok
        assert report.dropped == 3


def test_a_guest_that_ignores_the_request_is_ended_by_force(testguest: Guest) -> None:
    with boot(testguest("deaf")) as machine:
        machine.wait_booted(60)
        with pytest.raises(MachineError, match="did not power off within 1 s"):
            machine.power_off(1)
        assert not machine.running


def test_the_watchdog_ends_a_machine_that_a_test_waits_for_too_long(testguest: Guest) -> None:
    with boot(testguest("silent"), seconds=2) as machine:
        before = time.monotonic()
        with pytest.raises(MachineError, match="ended before it had booted"):
            machine.wait_booted(60)
        assert time.monotonic() - before < 30


def test_once_prints_the_report_and_ends_well(testguest: Guest, tmp_path: Path) -> None:
    flags = ("--once", "--settle", "1", "--report", "--report-file", str(tmp_path / "r.json"))
    done = linuxkit("qemu", *flags, testguest("ok"))
    assert done.returncode == 0, done.stderr
    assert "hello" in done.stdout
    assert "memory: 1024 MB" in done.stderr
    assert "acceleration: " in done.stderr
    assert "onboot/000-first" in done.stderr
    said = json.loads((tmp_path / "r.json").read_text())
    assert said["ok"] is True
    assert said["off"] is True


def test_once_fails_when_a_step_failed_and_says_which(testguest: Guest) -> None:
    done = linuxkit("--once", "--report", testguest("fail"))
    assert done.returncode == 1
    assert "exit 127" in done.stderr
    assert "| /bin/first: no such file or directory" in done.stderr
    assert "hint: a file is missing" in done.stderr
    assert "error: the machine booted with failures: onboot/000-first" in done.stderr


def test_once_fails_when_a_service_keeps_ending_and_shows_why(testguest: Guest) -> None:
    prefix = testguest("dying")
    done = linuxkit("--once", "--report", "--settle", "1", prefix)
    assert done.returncode == 1
    assert "exit 3, restarted 3x" in done.stderr
    assert "| bind: address in use" in done.stderr and "hint: another service listens on that port" in done.stderr
    assert "error: the machine booted with failures: service/web" in done.stderr


def test_ctrl_c_in_a_terminal_shuts_the_guest_down_and_leaves_the_terminal_as_it_was(testguest: Guest) -> None:
    prefix = testguest("ok")
    import termios

    control, terminal = pty.openpty()
    before = termios.tcgetattr(terminal)
    command = [sys.executable, "-m", "linuxkit", "run", "--publish", "127.0.0.1:0:80", prefix]

    def own_terminal() -> None:
        os.setsid()
        import fcntl

        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    child = subprocess.Popen(  # the test has no other threads
        command, stdin=terminal, stdout=terminal, stderr=terminal, preexec_fn=own_terminal  # noqa: PLW1509
    )
    try:
        seen = _until(control, b"hello")
        assert b"published: 127.0.0.1:" in seen
        assert not termios.tcgetattr(terminal)[3] & termios.ECHO
        os.write(control, b"typed\r")
        _until(control, b"heard: typed")
        os.write(control, b"\x03")
        _until(control, b"asking the guest to shut down")
        assert child.wait(30) == 0
        assert termios.tcgetattr(terminal) == before
    finally:
        child.kill()
        child.wait()
        os.close(control)
        os.close(terminal)


def _until(fd: int, wanted: bytes, seconds: float = 60) -> bytes:
    import select

    seen, deadline = b"", time.monotonic() + seconds
    while wanted not in seen:
        assert time.monotonic() < deadline, seen.decode(errors="replace")
        if select.select([fd], [], [], 1)[0]:
            seen += os.read(fd, 4096)
    return seen


def test_a_machine_ends_with_the_process_that_runs_it(testguest: Guest) -> None:
    command = [sys.executable, "-m", "linuxkit", "run", testguest("ok")]
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert child.stdout is not None
    with child.stdout:
        children = []
        while not children:
            time.sleep(0.05)
            children = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
        os.read(child.stdout.fileno(), 1)  # QEMU runs, its guest has spoken
        child.send_signal(signal.SIGKILL)
        child.wait()
    deadline = time.monotonic() + 5
    while Path(f"/proc/{children[0]}").exists():
        assert time.monotonic() < deadline, "QEMU outlived the command that started it"
        time.sleep(0.05)


def test_a_disk_and_a_data_cd_and_a_port_make_a_machine_that_boots(testguest: Guest, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    prefix = testguest("off")
    done = linuxkit(
        "--disk", "size=64M", "--disk", f"file={tmp_path}/b.qcow2,size=1G", "--data", "user data", "--publish",
        f"127.0.0.1:{port}:80/tcp", "--usb", "--device", "virtio-balloon-pci", "--cpus", "2", "--mem", "512M", prefix,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"published: 127.0.0.1:{port} -> port 80/tcp" in done.stderr
    state = Path(f"{prefix}-state")
    assert (state / "disk.img").stat().st_size == 64 << 20
    assert (tmp_path / "b.qcow2").read_bytes()[:4] == b"QFI\xfb"
    assert b"user data" in (state / "data.iso").read_bytes()
