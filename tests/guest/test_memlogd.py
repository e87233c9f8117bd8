"""memlogd, logread and the two logwrites on this host, under the sanitizers: what they promise, and what others try."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from guest_box import CRUN, STOP, Box
from kit_programs import ENVIRONMENT, Programs, kit_program, running, until

from linuxkit.config.model import OnFail, Restart
from linuxkit.data import data_dir
from linuxkit.packages.recipe import load
from linuxkit.runtime.bootplan import Kind, PlannedContainer, boot_plan

__all__ = ["kit_program"]
pytestmark = pytest.mark.guest
DUMP, FOLLOW, BOTH = b"\0", b"\1", b"\2"


class Log:
    """A memlogd, and how to talk to it."""

    def __init__(self, folder: Path) -> None:
        self.logs, self.queries = folder / "logs.sock", folder / "queries.sock"

    def source(self, name: str) -> int:
        """The writing end of a pipe that is read under that name."""
        reading, writing = os.pipe()
        self.send(name.encode(), [reading])
        os.close(reading)
        return writing

    def send(self, body: bytes, descriptors: list[int]) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
            s.connect(str(self.logs))
            socket.send_fds(s, [body], descriptors)

    def write(self, name: str, data: bytes) -> None:
        writing = self.source(name)
        os.write(writing, data)
        os.close(writing)

    def ask(self, query: bytes) -> socket.socket:
        s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        s.settimeout(10)
        try:
            s.connect(str(self.queries))
            s.sendall(query)
        except OSError:
            s.close()
            raise
        return s

    def dump(self) -> list[dict[str, Any]]:
        with self.ask(DUMP) as s, s.makefile("rb") as f:
            return [json.loads(line) for line in f]

    def messages(self, name: str = "") -> list[str]:
        return [e["msg"] for e in self.dump() if not name or e["source"] == name]


@contextlib.contextmanager
def memlogd(program: Path, folder: Path, *flags: str) -> Iterator[Log]:
    log = Log(folder)
    log.queries.unlink(missing_ok=True)
    with running(program, "-socket-log", log.logs, "--socket-query", log.queries, *flags):
        until(log.queries.exists)
        yield log


@pytest.fixture
def log(kit_program: Programs, tmp_path: Path) -> Iterator[Log]:
    with memlogd(kit_program("memlogd", "memlogd"), tmp_path) as one:
        yield one


def test_lines_come_back_with_their_source_and_time(log: Log) -> None:
    log.write("web", b"one\ntwo\r\n\nno newline")
    log.write("web.out", 'ünï "quoted" \\ \t\x1b[1m'.encode() + b"\xff\x00!\n")
    entries = log.dump()
    assert [e["source"] for e in entries] == ["web"] * 4 + ["web.out"]
    assert [e["msg"] for e in entries] == ["one", "two", "", "no newline", 'ünï "quoted" \\ \t\x1b[1m\ufffd\0!']
    assert all(list(e) == ["time", "source", "msg"] for e in entries)
    times = [e["time"] for e in entries]
    assert times == sorted(times)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", times[0])


def test_a_dump_has_everything_that_was_written_before_it(log: Log) -> None:
    """Also what is still in the pipes; this is what a boot report's last lines rely on."""
    for i in range(10):
        writing = log.source("s")
        os.write(writing, b"x" * 60000 + b"\n%d\n" % i)
        assert log.messages("s")[-1] == str(i)
        os.close(writing)


def test_the_ring_keeps_the_last_lines_only(kit_program: Programs, tmp_path: Path) -> None:
    with memlogd(kit_program("memlogd", "memlogd"), tmp_path, "-max-lines", "3", "-max-line-len=5") as log:
        log.write("a", b"1\n2\n")
        assert log.messages() == ["1", "2"]
        log.write("a", b"3\n4\n5\n")
        assert log.messages() == ["3", "4", "5"]
        log.write("a", b"abcdefghijk\n")  # longer than a line may be: nothing of it is lost
        assert log.messages() == ["abcde", "fghij", "k"]
        log.write("a", b"12345\n")  # exactly as long
        assert log.messages() == ["fghij", "k", "12345"]


@pytest.mark.parametrize("flags", [
    ["-max-lines", "0"], ["-max-lines", "x"], ["-max-line-len", "70000"], ["-max-lines"], ["-nonsense"], ["word"],
    ["-fd-log", "77"],
])  # fmt: skip
def test_flags_that_make_no_sense_are_refused(kit_program: Programs, tmp_path: Path, flags: list[str]) -> None:
    program = kit_program("memlogd", "memlogd")
    paths = ["-socket-log", str(tmp_path / "l"), "-socket-query", str(tmp_path / "q")]
    done = subprocess.run([program, *paths, *flags], capture_output=True, text=True, env=ENVIRONMENT, timeout=10)
    assert done.returncode in (1, 2)
    assert "memlogd: " in done.stderr
    assert "Sanitizer" not in done.stderr


def test_who_follows_gets_what_comes(log: Log) -> None:
    log.write("a", b"before\n")
    with log.ask(FOLLOW) as follow, log.ask(BOTH) as both, follow.makefile("rb") as f, both.makefile("rb") as b:
        assert json.loads(b.readline())["msg"] == "before"
        log.messages()  # both questions have been read by now
        writing = log.source("a")
        for word in (b"one", b"two"):
            os.write(writing, word + b"\n")
            assert json.loads(f.readline())["msg"] == json.loads(b.readline())["msg"] == word.decode()
        os.close(writing)


def test_a_reader_that_does_not_read_holds_nobody_up_and_is_told_what_it_missed(
    kit_program: Programs, tmp_path: Path
) -> None:
    with memlogd(kit_program("memlogd", "memlogd"), tmp_path, "-max-lines", "100") as log, log.ask(BOTH) as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        log.messages()
        writing = log.source("busy")
        start = time.monotonic()
        for i in range(3000):
            os.write(writing, b"%04d" % i + b"y" * 995 + b"\n")
        assert time.monotonic() - start < 10
        os.close(writing)
        assert [m[:4] for m in log.messages("busy")] == [f"{i:04d}" for i in range(2900, 3000)]
        with slow.makefile("rb") as f:
            got, lost = 0, 0
            while True:
                entry = json.loads(f.readline())
                if entry["source"] == "memlogd":
                    lost += int(entry["msg"].split()[0])
                    assert "were lost" in entry["msg"]
                else:
                    assert entry["msg"][:4] == f"{got + lost:04d}"
                    got += 1
                    if entry["msg"].startswith("2999"):
                        break
        assert got + lost == 3000
        assert lost > 0


def test_hostile_senders_and_readers(log: Log, tmp_path: Path) -> None:
    log.send(b"", [])
    log.send(b"no descriptor", [])
    log.send(b"x" * 5000, [])
    file = tmp_path / "file"
    file.write_bytes(b"in a file\n")
    for path in (file, Path("/dev/zero"), tmp_path):  # endless, or never ready: not read at all
        fd = os.open(path, os.O_RDONLY)
        log.send(b"odd", [fd])
        os.close(fd)
    reading, writing = os.pipe()
    log.send(b"many", [reading, writing, reading, writing])  # the first one counts
    os.write(writing, b"first\n")
    log.send(b"end that can't be read", [writing])
    os.close(reading)
    os.close(writing)
    pair = socket.socketpair()
    log.send(b"pair", [pair[0].fileno()])
    pair[1].sendall(b"by socket\n")
    log.send(b"n" * 400, [os.open("/dev/null", os.O_RDONLY)])
    for word in (b"", b"\3", b"\xff", b"GET / HTTP/1.1\r\n\r\n"):
        with log.ask(word):
            pass
    with log.ask(DUMP) as s:
        s.shutdown(socket.SHUT_WR)
    for _ in range(20):  # connect, ask for everything, and go away
        log.ask(BOTH).close()
    assert log.messages("many") == ["first"]
    assert log.messages("pair") == ["by socket"]
    assert log.messages("odd") == []
    remarks = log.messages("memlogd")
    assert sum("only pipes and sockets are read" in m for m in remarks) == 4
    for end in pair:
        end.close()


def test_a_pipe_made_blocking_again_stops_nobody(log: Log) -> None:
    reading, writing = os.pipe()
    log.send(b"shared", [reading])
    os.write(writing, b"a\n")
    assert log.messages("shared") == ["a"]
    os.set_blocking(reading, True)  # the descriptor is shared with memlogd
    os.write(writing, b"b\n")
    assert log.messages("shared") == ["a", "b"]
    assert log.messages("shared") == ["a", "b"]
    os.close(reading)
    os.close(writing)


def test_too_many_readers_and_logs(log: Log) -> None:
    readers = [log.ask(BOTH) for _ in range(64)]
    log_count = 1010
    ends = [log.source(f"s{i}") for i in range(200)]
    with pytest.raises((ConnectionError, AssertionError, json.JSONDecodeError)):
        assert log.dump() != []
        raise ConnectionError  # the socket was closed without an answer
    for reader in readers:
        reader.close()
    ends += [log.source(f"s{i}") for i in range(200, log_count)]
    until(lambda: [m for m in log.messages("memlogd") if "too many logs" in m])
    os.write(ends[0], b"still here\n")
    assert log.messages("s0") == ["still here"]
    for end in ends:
        os.close(end)
    log.write("new", b"room again\n")
    until(lambda: log.messages("new") == ["room again"])


def test_who_connects_and_says_nothing_is_let_go(log: Log) -> None:
    with log.ask(b"") as silent:
        start = time.monotonic()
        assert silent.recv(1) == b""
        assert 4 < time.monotonic() - start < 9


def test_inherited_descriptors(kit_program: Programs, tmp_path: Path) -> None:
    log = Log(tmp_path)
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as logs,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as queries,
    ):
        logs.bind(str(log.logs))
        queries.bind(str(log.queries))
        queries.listen()
        numbers = (logs.fileno(), queries.fileno())
        flags = [f"-fd-log={numbers[0]}", "-fd-query", str(numbers[1])]
        with running(kit_program("memlogd", "memlogd"), *flags, pass_fds=numbers):
            log.write("a", b"x\n")
            assert log.messages() == ["x"]


def test_in_the_background_it_answers_at_once_and_comes_back(kit_program: Programs, tmp_path: Path) -> None:
    log, program = Log(tmp_path), kit_program("memlogd", "memlogd")
    flags = ["-daemonize", "-socket-log", str(log.logs), "-socket-query", str(log.queries)]
    subprocess.run([program, *flags], check=True, env=ENVIRONMENT, timeout=10)
    until(lambda: len(_with_argument(str(log.logs))) == 2)
    guard, worker = sorted(_with_argument(str(log.logs)))
    try:
        log.write("a", b"x\n")
        assert log.messages() == ["x"]
        os.kill(worker, 15)  # services are told to end first; the log outlives them
        log.write("a", b"y\n")
        assert log.messages() == ["x", "y"]
        os.kill(worker, 9)
        until(lambda: worker not in _with_argument(str(log.logs)) and len(_with_argument(str(log.logs))) == 2)
        log.write("a", b"z\n")
        assert log.messages() == ["z"]
    finally:
        os.kill(guard, 9)
        for pid in _with_argument(str(log.logs)):
            os.kill(pid, 9)


def _with_argument(word: str) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (folder / "cmdline").read_bytes().split(b"\0")
            state = (folder / "stat").read_text().rsplit(")", 1)[1].split()[0]
            if word.encode() in command and state != "Z":
                found.append(int(folder.name))
    return found


# -- logread


def logread(program: Path, log: Log, *flags: str) -> str:
    command = [program, "-socket", str(log.queries), *flags]
    done = subprocess.run(command, capture_output=True, env=ENVIRONMENT, timeout=10)
    assert b"Sanitizer" not in done.stderr
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


def test_logread_prints_time_source_and_message(kit_program: Programs, log: Log) -> None:
    log.write("a;b", b"x;y\n")
    log.write("c", "\U0001f600 é\n".encode())
    first, second = logread(kit_program("memlogd", "logread"), log).splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[0-9:.]+Z;a\\;b;x;y", first)
    assert second.endswith(";c;\U0001f600 é")


def test_logread_follows(kit_program: Programs, log: Log) -> None:
    log.write("a", b"before\n")
    program = kit_program("memlogd", "logread")
    with (
        running(program, "-socket", log.queries, "-f") as new,
        running(program, "-socket", log.queries, "-F") as both,
    ):
        assert new.stdout and both.stdout
        assert both.stdout.readline().endswith(b";a;before\n")
        writing = log.source("a")
        line = b""
        while not line:  # -f may not have asked yet
            os.write(writing, b"after\n")
            time.sleep(0.1)
            os.set_blocking(new.stdout.fileno(), False)
            line = new.stdout.readline() or b""
        assert line.endswith(b";a;after\n")
        assert both.stdout.readline().endswith(b";a;after\n")
        os.close(writing)


def test_logread_without_memlogd_says_what_is_missing(kit_program: Programs, tmp_path: Path) -> None:
    command = [kit_program("memlogd", "logread"), "-socket", str(tmp_path / "none")]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=10)
    assert done.returncode == 1
    assert "is kit://memlogd among init?" in done.stderr


@pytest.mark.parametrize("answer", [
    b"", b"\n", b"junk\n", b"{\n", b'{"time":1,"source":"a","msg":"b"}\n', b'{"time":"t","source":"a"}\n',
    b'{"time":"t","source":"a","msg":"b\n', b'{"x":[[[{"msg":"no"}]],"time":"t"\n',
    b'{"msg":"\\ud83d","source":"\\u12\n', b"[" * 100000 + b"\n",
    b'{"a":' * 1000 + b"\n", b"\0\0\0\n", b'{"time":"' + b"t" * 3_000_000 + b'"}\n',
    b'{"source":"\\', b'{"time" "x"}\n', b'{"k":}\n', b'{"k":"\\x"}\n',
])  # fmt: skip
def test_answers_that_are_none_are_passed_over(kit_program: Programs, tmp_path: Path, answer: bytes) -> None:
    good = b'{"x":{"msg":"inner"},"msg":"\\u00e9\\ud83d\\ude00\\n","source":"s","time":"T","y":[1,"]}"]}\n'
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(tmp_path / "s"))
        server.listen()
        command = [kit_program("memlogd", "logread"), "-socket", str(tmp_path / "s")]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT)
        client, _ = server.accept()
        with client:
            assert client.recv(1) == DUMP
            client.sendall(good + answer + b"\n" + good)
        out, errors = process.communicate(timeout=10)
    assert process.returncode == 0, errors
    lines = out.decode().split("\n")
    assert [line for line in lines if line.startswith("T;s;é\U0001f600")] == ["T;s;é\U0001f600"] * 2
    assert "inner" not in out.decode()


# -- logwrite PROGRAM, which is in memlogd's package


def test_a_program_is_run_with_its_output_in_the_log(kit_program: Programs, log: Log) -> None:
    program = kit_program("memlogd", "logwrite")
    command = [program, "-socket", str(log.logs), "-n", "job", "/bin/sh", "-c", "echo out; echo err >&2; exit 5"]
    done = subprocess.run(command, capture_output=True, env=ENVIRONMENT, timeout=10)
    assert (done.returncode, done.stdout, done.stderr) == (5, b"", b"")
    assert (log.messages("job.out"), log.messages("job")) == (["out"], ["err"])
    subprocess.run([program, "-socket", str(log.logs), "echo", "-n", "x"], check=True, env=ENVIRONMENT, timeout=10)
    assert log.messages("echo.out") == ["x"]
    done = subprocess.run([program, "-socket", str(log.logs), "/none"], env=ENVIRONMENT, timeout=10)
    assert done.returncode == 127
    assert "No such file" in log.messages("none")[0]


def test_a_program_runs_without_a_log_too(kit_program: Programs, tmp_path: Path) -> None:
    command = [kit_program("memlogd", "logwrite"), "-socket", str(tmp_path / "none"), "echo", "here"]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=10)
    assert (done.returncode, done.stdout) == (0, "here\n")
    assert "output stays here" in done.stderr


# -- logwrite, the service


@contextlib.contextmanager
def logwrite(program: Path, log: Log, folder: Path, *flags: str) -> Iterator[Path]:
    with running(program, "-socket", log.queries, "-log-dir", folder, *flags):
        yield folder


def test_files_have_the_lines_of_their_source(kit_program: Programs, log: Log, tmp_path: Path) -> None:
    log.write("early", b"before it came\n")
    with logwrite(kit_program("logwrite", "logwrite"), log, tmp_path / "var/log") as folder:
        log.write("web", b"one\ntwo\n")
        log.write("web.out", b"three\n")
        log.write("logwrite", b"not mine\n")
        log.write("../../escape/../x", b"stays\n")
        log.write(".hidden", b"seen\n")
        log.write("last", b"end\n")
        until((folder / "last.log").exists)
        until(lambda: (folder / "last.log").read_text().endswith("end\n"))
        names = sorted(p.name for p in folder.iterdir())
        assert names == ["_._.._escape_.._x.log", "_hidden.log", "early.log", "last.log", "web.log", "web.out.log"]
        lines = (folder / "web.log").read_text().splitlines()
        assert [re.sub(r"^\d{4}-\S+Z", "T", line) for line in lines] == ["T web one", "T web two"]


def test_full_files_are_kept_in_order_and_the_oldest_goes(kit_program: Programs, log: Log, tmp_path: Path) -> None:
    flags = ("-max-log-size", "200", "-max-log-files", "2")
    with logwrite(kit_program("logwrite", "logwrite"), log, tmp_path / "l", *flags) as folder:
        for i in range(40):
            log.write("a", b"%02d " % i + b"z" * 40 + b"\n")
        log.write("done", b"x\n")
        until((folder / "done.log").exists)
        names = ["a.log", "a.log.0", "a.log.1", "done.log"]
        assert sorted(p.name for p in folder.iterdir()) == names
        got = [line.split()[2] for name in names[2::-1] for line in (folder / name).read_text().splitlines()]
        assert got == [f"{i:02d}" for i in range(40)][-len(got):]
        assert len(got) >= 5
        assert all((folder / name).stat().st_size <= 200 for name in names)
        log.write("a", b"y" * 500 + b"\n")  # longer than a file may be: it has one of its own
        log.write("a", b"short\n")
        until(lambda: "short" in (folder / "a.log").read_text())
        assert "y" * 500 in (folder / "a.log.0").read_text()


def test_more_sources_than_files_that_are_kept_open(kit_program: Programs, log: Log, tmp_path: Path) -> None:
    with logwrite(kit_program("logwrite", "logwrite"), log, tmp_path / "l") as folder:
        for turn in range(3):
            for i in range(80):
                log.write(f"s{i}", b"%d\n" % turn)
        until(lambda: len(list(folder.iterdir())) == 80)
        files = [folder / f"s{i}.log" for i in range(80)]
        until(lambda: all(len(f.read_text().splitlines()) == 3 for f in files))


def test_a_log_that_is_a_link_or_a_folder_is_left_alone(kit_program: Programs, log: Log, tmp_path: Path) -> None:
    folder, victim = tmp_path / "l", tmp_path / "victim"
    folder.mkdir()
    victim.write_text("precious")
    (folder / "a.log").symlink_to(victim)
    (folder / "b.log").mkdir()
    os.mkfifo(folder / "c.log")
    with logwrite(kit_program("logwrite", "logwrite"), log, folder):
        for name in ("a", "b", "c", "d"):
            log.write(name, b"x\n")
        until((folder / "d.log").exists)
    assert victim.read_text() == "precious"


def test_told_to_end_it_writes_what_has_come_and_does_not_wait(kit_program: Programs, log: Log, tmp_path: Path) -> None:
    command = [kit_program("logwrite", "logwrite"), "-socket", log.queries, "-log-dir", tmp_path / "l"]
    with subprocess.Popen([os.fspath(c) for c in command], env=ENVIRONMENT) as process:
        log.write("a", b"first\n")
        until((tmp_path / "l/a.log").exists)
        process.send_signal(19)  # stopped: what comes now it can only read after the signal
        log.write("a", b"second\nlast\n")
        assert log.messages("a")[-1] == "last"
        start = time.monotonic()
        process.terminate()
        process.send_signal(18)
        assert process.wait(10) == 0
        assert time.monotonic() - start < 0.9
    assert [line.split()[2] for line in (tmp_path / "l/a.log").read_text().splitlines()] == ["first", "second", "last"]


def test_it_waits_for_memlogd_and_finds_a_new_one(kit_program: Programs, tmp_path: Path) -> None:
    program, folder = kit_program("memlogd", "memlogd"), tmp_path / "l"
    with logwrite(kit_program("logwrite", "logwrite"), Log(tmp_path), folder):
        time.sleep(0.2)
        for turn in ("first", "second"):
            with memlogd(program, tmp_path) as log:
                log.write(turn, b"x\n")
                until((folder / f"{turn}.log").exists)


# -- the guest's own program with memlogd

KINDS: list[tuple[Kind, str]] = [("onboot", "000-a"), ("onboot", "001-b"), ("service", "s")]


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """memlogd's programs as they ship: static, without sanitizers."""
    out, guest = tmp_path_factory.mktemp("shipped"), data_dir("guest")
    programs = load(data_dir("kit") / "memlogd").programs
    for program in programs:
        sources = [str(source) for pattern in program.sources for source in guest.glob(pattern)]
        target = out / Path(program.path).name
        subprocess.run(["gcc", "-static", "-O1", f"-I{guest / 'include'}", *sources, "-o", str(target)], check=True)
    return [out / Path(program.path).name for program in programs]


@pytest.fixture
def logging_box(box: Box, shipped: list[Path]) -> Box:
    """A box with memlogd and logread, and a runtime that runs /out/NAME."""
    box.own_usr()
    box.script("usr/bin/crun", CRUN)
    for program in shipped:
        shutil.copy(program, box.root / "usr/bin")
    containers = [
        PlannedContainer(kind, name, f"/run/{name}", {}, {}, Restart.NO, OnFail.CONTINUE)
        for kind, name in KINDS
    ]
    (box.root / "etc/linuxkit/plan").write_bytes(boot_plan([], containers))
    box.script("out/000-a", "echo from a; echo and this >&2")
    box.script("out/001-b", "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do echo line $i; done; echo why >&2; exit 4")
    box.script("out/s", "echo serving; sleep 0.3; echo dying >&2; exit 6")
    box.link("etc/init.d/010-onboot")
    box.link("etc/init.d/030-services")
    box.script("etc/init.d/040-end", f"sleep 1.5; logread > /out/log 2>&1; {STOP}")
    return box


def test_what_containers_say_goes_to_memlogd_and_from_there_to_console_and_report(logging_box: Box) -> None:
    (logging_box.root / "etc/init.d/002-memlogd").symlink_to("/usr/bin/memlogd")
    done = logging_box.run()
    assert logging_box.event("done", "init.d/002-memlogd")
    lines = [line.split(";", 1)[1] for line in (logging_box.root / "out/log").read_text().splitlines()]
    assert {"onboot.000-a.out;from a", "onboot.000-a;and this", "s.out;serving", "s;dying"} <= set(lines)
    assert "from a\n" in done.stdout and "and this\n" in done.stdout and "line 12\n" in done.stdout
    log = logging_box.event("fail", "onboot/001-b")["log"]
    assert len(log) == 10 and {"why", "line 12"} <= set(log) and "line 2" not in log
    assert logging_box.event("exit", "service/s")["log"] == ["serving", "dying"]
    assert not list((logging_box.root / "run/log/onboot").iterdir())
    assert not (logging_box.root / "var/log/s.log").exists()


def test_a_memlogd_that_is_gone_leaves_the_files(logging_box: Box) -> None:
    logging_box.script("etc/init.d/002-memlogd", "/usr/bin/memlogd & sleep 0.3; kill -9 $!; ls /run/memlogdq.sock")
    logging_box.run()
    assert (logging_box.root / "run/memlogdq.sock").exists()
    assert (logging_box.root / "run/log/onboot/onboot.000-a.out.log").read_text() == "from a\n"
    assert logging_box.event("fail", "onboot/001-b")["log"][-1] == "why"
    assert logging_box.event("exit", "service/s")["log"] == ["serving", "dying"]
    assert "Connection refused" in (logging_box.root / "out/log").read_text()
