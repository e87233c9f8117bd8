"""`linuxkit run` and Machine against a program that plays QEMU's part: every way it can begin, go on and end."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from linuxkit.errors import HostError, MachineError
from linuxkit.machine.machine import Machine
from linuxkit.machine.report import State
from linuxkit.platforms import accel, qemu
from support.vm import initrd_of

pytestmark = pytest.mark.unit

FAKE = """#!{python} -IS
import os, re, select, signal, socket, sys, time
arguments = " ".join(sys.argv)
name, act = "qemu-system-x86_64", re.search("act=([a-z]+)", arguments)[1]
ends = {{m[1]: socket.socket(fileno=int(m[2])) for m in re.finditer(r"id=(\\w+),fd=(\\d+)", arguments)}}
qmp, console, report = ends["qmp"], ends["console"], ends["report"]
def event(name, data="{{}}"):
    qmp.sendall(b'{{"event": "%s", "data": %s}}\\n' % (name.encode(), data.encode()))
if act == "memory":
    sys.exit(print(name + ": cannot set up guest memory 'pc.ram': Cannot allocate memory", file=sys.stderr) or 1)
qmp.sendall(b'{{"QMP": {{"version": {{}}, "capabilities": []}}}}\\n')
assert b"qmp_capabilities" in qmp.recv(4096)
qmp.sendall(b'{{"return": {{}}}}\\n')
console.sendall(b"hello\\r\\n")
if act == "crash":
    os.kill(os.getpid(), signal.SIGSEGV)
if act == "late":
    sys.exit(print(name + ": disk is on fire", file=sys.stderr) or 1)
if act == "panic":
    console.sendall(b"[    1.5] Kernel panic - not syncing: VFS: no root\\r\\n")
    console.sendall(b"[    1.6] ---[ end Kernel panic - not syncing: VFS: no root ]---\\r\\n")
if act == "talk":
    console.sendall(b"this is not a Kernel panic - not syncing: at all\\r\\n")
if act == "reset":
    report.sendall(b'{{"t": 1, "event": "start", "step": "first"}}\\n')
    event("RESET", '{{"guest": true, "reason": "guest-reset"}}')
    time.sleep(0.3)
if act == "silent":
    time.sleep(60)
report.sendall(b'{{"t": 2, "event": "start", "step": "mounts"}}\\n')
report.sendall(b'{{"t": 3, "event": "booted", "step": "boot", "ok": true}}\\n')
if act == "flood":
    for n in range(3000):
        console.sendall(b"%06d\\n" % n * 100)
    console.sendall(b"flooded\\n")
if act in ("off", "reset"):
    sys.exit(0)
while True:
    for end in select.select([qmp, console, report], [], [])[0]:
        data = end.recv(4096)
        if end is console:
            console.sendall(b"heard: " + data)
        elif not data:
            sys.exit(0)
        elif act != "deaf" and (b"poweroff\\n" in data if end is report else False):
            report.sendall(b'{{"t": 9, "event": "off", "step": "shutdown"}}\\n')
            sys.exit(0)
"""


@pytest.fixture
def fake(tmp_path: Path) -> Path:
    program = tmp_path / "bin" / "qemu-system-x86_64"
    program.parent.mkdir()
    program.write_text(FAKE.format(python=sys.executable))
    program.chmod(0o755)
    return program


@pytest.fixture
def start(fake: Path, tmp_path: Path) -> Callable[[str], Machine]:
    def make(act: str, **options: object) -> Machine:
        spec = qemu.MachineSpec(qemu=fake, accel=accel.Accel("tcg", ""), kernel=Path("k"), cmdline=f"act={act}")
        return Machine(lambda channels: qemu.command(spec, channels), state=tmp_path, **options)  # type: ignore[arg-type]

    return make


Start = Callable[..., Machine]


def test_a_machine_that_talks_boots_and_powers_off(start: Start, tmp_path: Path) -> None:
    seen: list[bytes] = []
    with start("talk", output=seen.append) as machine:
        assert machine.wait_booted(10).ok
        machine.send(b"one")
        machine.wait_console("heard: one", 10)
        report = machine.power_off(10)
    assert report.off
    assert report.step("shutdown").state is State.DONE  # type: ignore[union-attr]
    assert b"".join(seen) == (tmp_path / "console.log").read_bytes()


def test_qemu_that_cannot_start_says_why_in_its_own_words(start: Start) -> None:
    with start("memory") as machine, pytest.raises(MachineError) as error:
        machine.wait_booted(10)
    assert error.value.message == (
        "qemu-system-x86_64 could not start the machine: cannot set up guest memory 'pc.ram': Cannot allocate memory"
    )


def test_qemu_that_fails_later_or_crashes(start: Start) -> None:
    with start("late") as machine, pytest.raises(MachineError, match="qemu-system-x86_64 failed: disk is on fire"):
        machine.wait(10)
    with start("crash") as machine, pytest.raises(MachineError, match="failed: killed by signal 11"):
        machine.wait(10)


def test_a_program_that_is_none(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(HostError, match="could not be started"), Machine(lambda _: ["/nowhere/qemu"], state=tmp_path):
        pass
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_panic_is_known_by_its_line_and_not_by_its_words(start: Start) -> None:
    with start("panic") as machine, pytest.raises(MachineError, match="kernel panic: VFS: no root") as error:
        machine.wait(10)
    assert "console.log" in error.value.hint
    with start("talk") as machine:
        machine.wait_booted(10)
        time.sleep(0.1)
        assert machine.running


def test_a_reset_begins_a_new_report(start: Start) -> None:
    with start("reset") as machine:
        report = machine.wait(10)
    assert machine.boots == 2
    assert [step.name for step in report.steps] == ["mounts"]


def test_a_guest_that_is_deaf_is_ended(start: Start) -> None:
    with start("deaf") as machine:
        machine.wait_booted(10)
        with pytest.raises(MachineError, match=r"did not power off within 0\.3 s"):
            machine.power_off(0.3)
        assert not machine.running


def test_a_machine_never_outlives_its_context(start: Start) -> None:
    with pytest.raises(ZeroDivisionError), start("deaf") as machine:
        machine.wait_booted(10)
        pid = machine.pid
        raise ZeroDivisionError
    assert not Path(f"/proc/{pid}").exists()


def test_a_long_console_is_kept_whole_on_disk_and_bounded_in_memory(start: Start, tmp_path: Path) -> None:
    with start("flood") as machine:
        machine.wait_console("flooded", 20)
        assert len(machine.console) <= 1 << 20
    assert (tmp_path / "console.log").stat().st_size > 3000 * 700


def test_output_that_nobody_reads_any_more_ends_the_machine(start: Start) -> None:
    def gone(_: bytes) -> None:
        raise BrokenPipeError

    with start("talk", output=gone) as machine, pytest.raises(BrokenPipeError):
        machine.wait(10)


# -- the command


@pytest.fixture
def prefix(tmp_path: Path, fake: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    monkeypatch.setenv("PATH", str(fake.parent))

    def make(act: str) -> str:
        at = tmp_path / "web"
        Path(f"{at}-kernel").write_bytes((bytes(0x202) + b"HdrS").ljust(1024, b"\0"))
        Path(f"{at}-initrd.img").write_bytes(initrd_of(b"x"))
        Path(f"{at}-cmdline").write_text(f"console=ttyS0 act={act}")
        return str(at)

    return make


Prefix = Callable[[str], str]
COMMAND = [sys.executable, "-m", "linuxkit", "run"]


def run(*arguments: str, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    given: dict[str, object] = {"input": stdin} if stdin is not None else {"stdin": subprocess.DEVNULL}
    return subprocess.run([*COMMAND, *arguments], capture_output=True, timeout=30, **given)  # type: ignore[call-overload]


def test_a_guest_that_powers_off_ends_the_command_well(prefix: Prefix) -> None:
    done = run("qemu", prefix("off"))
    assert (done.returncode, done.stdout) == (0, b"hello\r\n"), done.stderr


def test_what_is_piped_in_reaches_the_guest(prefix: Prefix) -> None:
    command = [*COMMAND, prefix("talk")]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin is not None
    assert child.stdout is not None
    with child.stdin, child.stdout:
        child.stdin.write(b"typed\n")
        child.stdin.flush()
        seen = b""
        while b"heard: typed" not in seen:
            seen += os.read(child.stdout.fileno(), 4096)
        child.send_signal(signal.SIGTERM)
        assert child.wait(20) == 0


def test_once_and_the_report(prefix: Prefix, tmp_path: Path) -> None:
    done = run("--once", "--report", "--report-file", str(tmp_path / "r.json"), prefix("talk"))
    assert done.returncode == 0, done.stderr
    assert b"booted in 3.000 s" in done.stderr
    assert '"off": true' in (tmp_path / "r.json").read_text()


def test_errors_are_one_message_with_the_right_status(prefix: Prefix, tmp_path: Path) -> None:
    there = prefix("memory")
    for arguments, status, words in (
        ((there,), 1, "could not start the machine: cannot set up guest memory"),
        ((str(tmp_path / "wbe"),), 2, f"did you mean linuxkit run {there}?"),
        ((), 2, "run takes one prefix"),
        (("gcpp", "x"), 2, "run takes one prefix"),
        (("--mem", "64", there), 2, "cannot hold this image"),
        (("--mem", "x", there), 2, "is not a size"),
        (("--data", "x", "--data-file", "y", there), 2, "cannot be used together"),
        (("--data-file", str(tmp_path / "none"), there), 2, "No such file"),
        (("--publish", "80", there), 2, "is not understood"),
        (("--arch", "arm64", there), 2, "is for x86_64, not for aarch64"),
    ):
        done = run(*arguments)
        said = done.stderr.decode()
        assert done.returncode == status, (arguments, said)
        assert words in said
        assert "Traceback" not in said


def test_no_qemu(prefix: Prefix, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    there = prefix("off")
    monkeypatch.setenv("PATH", str(tmp_path))
    done = run(there)
    assert done.returncode == 1
    assert b"qemu-system-x86_64 is needed to run a machine and is not installed" in done.stderr
    assert b"apt-get install qemu-system-x86" in done.stderr


def test_a_port_in_use(prefix: Prefix) -> None:
    import socket

    there = prefix("off")
    with socket.create_server(("127.0.0.1", 0)) as used:
        number = used.getsockname()[1]
        done = run("--publish", f"{number}:80", there)
    assert done.returncode == 1
    assert f"port {number}/tcp is in use on this machine".encode() in done.stderr


def test_a_boot_that_takes_too_long(prefix: Prefix) -> None:
    done = run("--boot-timeout", "0.5", prefix("silent"))
    assert done.returncode == 1
    assert b"error: the guest did not boot within 0.5 s\n  hello" in done.stderr


class Terminal:
    """`linuxkit run` in a terminal of its own."""

    def __init__(self, *arguments: str) -> None:
        import termios

        self.control, terminal = pty.openpty()
        self.before = termios.tcgetattr(terminal)
        self.terminal = terminal
        self.seen = b""

        def own_terminal() -> None:
            import fcntl

            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.child = subprocess.Popen(
            [*COMMAND, *arguments], stdin=terminal, stdout=terminal, stderr=terminal,
            preexec_fn=own_terminal,  # noqa: PLW1509
        )  # fmt: skip

    def until(self, wanted: bytes) -> None:
        deadline = time.monotonic() + 20
        while wanted not in self.seen:
            assert time.monotonic() < deadline, self.seen
            if select.select([self.control], [], [], 0.2)[0]:
                self.seen += os.read(self.control, 4096)

    def attributes(self) -> list[object]:
        import termios

        return termios.tcgetattr(self.terminal)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.child.kill()
        self.child.wait()
        os.close(self.control)
        os.close(self.terminal)


def test_ctrl_c_asks_first_and_the_terminal_is_restored(prefix: Prefix) -> None:
    with Terminal(prefix("talk")) as terminal:
        terminal.until(b"hello")
        assert terminal.attributes() != terminal.before
        os.write(terminal.control, b"\x1a")  # Ctrl-Z is the guest's
        terminal.until(b"heard: \x1a")
        os.write(terminal.control, b"\x03")
        terminal.until(b"asking the guest to shut down")
        assert terminal.child.wait(20) == 0
        assert terminal.attributes() == terminal.before


def test_a_second_ctrl_c_ends_a_deaf_guest_at_once(prefix: Prefix) -> None:
    with Terminal(prefix("deaf")) as terminal:
        terminal.until(b"hello")
        os.write(terminal.control, b"\x03")
        terminal.until(b"Ctrl-C again")
        os.write(terminal.control, b"\x03")
        terminal.until(b"ended by force")
        assert terminal.child.wait(20) == 130
        assert terminal.attributes() == terminal.before


def test_a_terminal_that_hangs_up_shuts_the_guest_down(prefix: Prefix) -> None:
    with Terminal(prefix("talk")) as terminal:
        terminal.until(b"hello")
        terminal.child.send_signal(signal.SIGHUP)
        assert terminal.child.wait(20) == 0


def test_a_closed_pipe_ends_the_machine(prefix: Prefix) -> None:
    read, write = os.pipe()
    os.close(read)
    child = subprocess.Popen([*COMMAND, prefix("talk")], stdin=subprocess.DEVNULL, stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    _, said = child.communicate(timeout=20)
    assert child.returncode == 1
    assert b"Traceback" not in said
