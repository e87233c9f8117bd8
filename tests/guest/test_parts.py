"""Parts of the guest, one at a time, under the address and undefined-behaviour sanitizers."""

from __future__ import annotations

import graphlib
import json
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.guest
FIXTURES = Path(__file__).parent / "fixtures"
GUEST = Path(__file__).resolve().parents[2] / "guest"
HEAD = b"linuxkit-plan\t1\n"
SERVICE = b"linuxkit-plan\t2\ncontainer\tservice\ta\t/a\n"
PIECES = b"volume container service a /a \t \n mount 0 \\ \\n interface bindns net \xff restart no".split(b" ")
PIECES += b"health test http tcp 9 timeout".split(b" ")
FEW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("name", ["plan", "plan-health"])
def test_the_golden_plan_means_what_the_builder_meant(parts, name):
    assert parts("plan", FIXTURES / name).stdout == (FIXTURES / f"{name}.parsed").read_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "empty"),
        (HEAD + b"volume\ta\t/a\trw", "no newline"),
        (HEAD + b"volume\ta\0\t/a\trw\n", "zero byte"),
        (b"linuxkit-plan\t3\n", "line 1: not a version 1 or 2 plan"),
        (SERVICE + b"health\t1\t1\t0\n", "wrong number of fields"),
        (SERVICE + b"health\t0\t1\t0\t1\n", "needs an interval"),
        (SERVICE + b"health\t1\t1\t0\t0\n", "needs an interval"),
        (SERVICE + b"health\t1\t-1\t0\t1\n", "milliseconds"),
        (SERVICE + b"health\t86400001\t1\t0\t1\n", "milliseconds"),
        (SERVICE + b"health\t1\t1\t0\t1\ntcp\t65536\n", "bad port"),
        (SERVICE + b"health\t1\t1\t0\t1\ntcp\t0\n", "bad port"),
        (SERVICE + b"health\t1\t1\t0\t1\nhttp\t1\t/a b\n", "bad path"),
        (SERVICE + b"timeout\t0\n", "number of seconds"),
        (b"volume\ta\t/a\trw\n", "line 1"),
        (HEAD + b"volume\ta\t/a\tmaybe\n", "line 2: a volume is rw or ro"),
        (HEAD + b"volume\t../a\t/a\trw\n", "line 2: bad volume"),
        (HEAD + b"mount\t\t\t/a\t0\t\n", "before the first container"),
        (HEAD + b"container\tsometimes\ta\t/a\n", "onboot, onshutdown or service"),
        (HEAD + b"container\tservice\t-a\t/a\n", "bad container name"),
        (HEAD + b"container\tservice\ta/b\t/a\n", "bad container name"),
        (HEAD + b"container\tservice\t\t/a\n", "bad container name"),
        (HEAD + b"container\tservice\ta\trelative\n", "bad bundle"),
        (HEAD + b"container\tservice\ta\t/a\ncontainer\tservice\ta\t/b\n", "line 3: container named twice"),
        (HEAD + b"container\tservice\ta\t/a\nrestart\tperhaps\n", "restart is"),
        (HEAD + b"container\tonboot\ta\t/a\nonfail\n", "wrong number of fields"),
        (HEAD + b"container\tservice\ta\t/a\nmount\tt\ts\t/d\t-1\t\n", "decimal"),
        (HEAD + b"container\tservice\ta\t/a\nmount\tt\ts\t/d\t99999999999999999999999\t\n", "decimal"),
        (HEAD + b"container\tservice\ta\t/a\ninterface\tnamemuchtoolongforit\t\t\t0\n", "bad interface"),
        (HEAD + b"container\tservice\ta\t/a\nbindns\ttime\t/x\n", "bad namespace"),
        (HEAD + b"container\tservice\ta\t/a\ncgroup\t../x\n", "bad cgroup"),
        (HEAD + b"container\tservice\ta\t/a\nmkdir\t/\\x\n", "unknown escape"),
        (HEAD + b"container\tservice\ta\t/a\nmkdir\t/\\\n", "unknown escape"),
        (HEAD + b"a\tb\tc\td\te\tf\tg\th\ti\n", "too many fields"),
        (HEAD + b"surprise\n", "line 2: unknown word"),
        (HEAD + b"\n", "unknown word"),
    ],
)
def test_a_bad_plan_is_refused_with_its_line(parts, tmp_path, text, message):
    (tmp_path / "plan").write_bytes(text)
    assert message in parts("plan", tmp_path / "plan", status=None).stdout


def test_one_bad_entry_takes_no_other_with_it(parts, tmp_path):
    (tmp_path / "plan").write_bytes(
        HEAD + b"volume\t-v\t/v\trw\nvolume\tw\t/w\trw\n"
        b"container\tservice\tweb:1\t/a\nrestart\talways\nmkdir\t/x\n"
        b"container\tservice\tgood\t/b\nmkdir\t/y\n"
        b"container\tservice\tlate\t/c\nmkdir\t/z\nsurprise\nmkdir\t/z2\n"
        b"container\tservice\tlast\t/d\n"
    )
    assert parts("plan", tmp_path / "plan").stdout == (
        "volume w /w rw\n"
        "container service good /b restart=no halt=0 namespace=services.linuxkit\n  mkdir [/y]\n"
        "container service last /d restart=no halt=0 namespace=services.linuxkit\n"
        "refused line 2: bad volume\nrefused line 4: bad container name: web:1\nrefused line 11: unknown word: late\n"
    )


@FEW
@given(st.lists(st.sampled_from(PIECES), max_size=60))
def test_no_plan_upsets_the_parser(parts, tmp_path, pieces):
    (tmp_path / "plan").write_bytes(HEAD + b"".join(pieces))
    assert parts("plan", tmp_path / "plan", status=None).returncode in (0, 1)


def event(parts, *args: str | bytes) -> dict:
    line = parts("event", *args).stdout
    assert line.endswith("}\n") and line.count("\n") == 1 and len(line.encode()) <= 4096
    return json.loads(line)


def test_an_event_says_what_it_knows_and_no_more(parts):
    assert event(parts, "done", "mounts", "", "0", "0", "0") == {"t": 1.5, "event": "done", "step": "mounts"}
    assert event(parts, "fail", "onboot/000-a", "no", "137", "9", "12.34", "x", "y") == {
        "t": 1.5, "event": "fail", "step": "onboot/000-a", "status": 137, "signal": 9, "ms": 12.3, "message": "no",
        "log": ["x", "y"],
    }  # fmt: skip


def test_an_event_escapes_what_json_must_not_hold(parts):
    assert (
        event(parts, "fail", "a", 'say "no"\\\n\t\x01\x7f é 😀', "0", "0", "0")["message"]
        == 'say "no"\\\n\t\x01\x7f é 😀'
    )
    for bad, good in (
        (b"\xff", "�"),
        (b"a\xc3", "a�"),
        (b"\xc0\xaf", "��"),
        (b"\xed\xa0\x80", "���"),
        (b"\xf4\x90\x80\x80", "�" * 4),
    ):
        assert event(parts, "fail", "a", bad, "0", "0", "0")["message"] == good


def test_an_event_keeps_its_size_by_dropping_the_oldest_lines(parts):
    got = event(parts, "fail", "a", "m" * 9000, "1", "0", "0", *[f"{n:03}" + '"' * 600 for n in range(10)])
    assert got["log"] and got["log"][-1].startswith("009") and len(got["log"]) < 10
    assert len(got["message"]) == 1000
    assert "log" in event(parts, "fail", "s" * 5000, "\x01" * 5000, "1", "0", "0", "\x01" * 5000)


@FEW
@given(
    st.binary(max_size=3000).filter(lambda b: b"\0" not in b),
    st.lists(st.binary(max_size=900).filter(lambda b: b"\0" not in b), max_size=10),
)
def test_any_event_is_json_within_the_limit(parts, message, lines):
    event(parts, "fail", "a", message, "1", "0", "0", *lines)


@pytest.mark.parametrize(
    ("pattern", "alias", "fits"),
    [
        ("pci:v00001AF4d*sv*sd*bc*sc*i*", "pci:v00001AF4d00001000sv00001AF4sd00000001bc02sc00i00", True),
        ("pci:v00001AF4d00001041sv*", "pci:v00001AF4d00001000sv00001AF4sd", False),
        ("virtio:d00000001v*", "virtio:d00000001v00001AF4", True),
        ("net-pf-17", "net_pf_17", True),
        ("net-pf-17", "net-pf-1", False),
        ("usb:v[0-9A-F]*d??", "usb:vAd12", True),
        ("usb:v[!0-9]x", "usb:v1x", False),
        ("usb:v[!0-9]x", "usb:vAx", True),
        ("a[", "a[", False),
        ("*", "", True),
        ("**a", "bba", True),
        ("", "", True),
        ("", "a", False),
        ("a*b*c", "aXbYbZc", True),
        ("a*b*c", "aXbYbZ", False),
    ],
)
def test_aliases_match_as_the_kernel_means_them(parts, pattern, alias, fits):
    parts("alias", pattern, alias, status=0 if fits else 1)


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    (tmp_path / "modules.dep").write_text(
        "kernel/a/virtio_net.ko: kernel/a/net_failover.ko kernel/a/failover.ko\n"
        "kernel/a/net_failover.ko: kernel/a/failover.ko\nkernel/a/failover.ko:\n"
        "kernel/b/soft-one.ko.xz:\nkernel/b/button.ko:\nkernel/b/loop_a.ko: kernel/b/loop_b.ko\n"
        "kernel/b/loop_b.ko: kernel/b/loop_a.ko\n"
    )
    (tmp_path / "modules.alias").write_text(
        "# Aliases extracted from modules themselves.\nalias virtio:d00000001v* virtio_net\n"
        "alias acpi*:PNP0C0C:* button\n"
        "alias net-pf-99 soft_one\nalias virtio:d00000001v* button\nbroken\n"
    )
    (tmp_path / "modules.softdep").write_text("softdep soft_one pre: failover post: button missing\n")
    (tmp_path / "modules.builtin").write_text("kernel/fs/ext4/ext4.ko\nkernel/drivers/tty-x.ko\n")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "loaded"),
    [
        ("virtio-net", ["failover", "net_failover", "virtio_net"]),
        ("virtio:d00000001v00001AF4", ["button", "failover", "net_failover", "virtio_net"]),
        ("acpi:PNP0C0C:", ["button"]),
        ("net_pf_99", ["failover", "soft-one", "button"]),
        ("loop_a", ["loop_b", "loop_a"]),
        ("ext4", []),
        ("tty_x", []),
    ],
)
def test_modules_load_after_what_they_need(parts, modules, name, loaded):
    *files, verdict = parts("modules", modules, name).stdout.splitlines()
    assert verdict == f"{name}: ok"
    names = [Path(f).name.partition(".ko")[0] for f in files]
    assert sorted(names) == sorted(loaded)
    for need, user in (
        ("failover", "net_failover"),
        ("net_failover", "virtio_net"),
        ("failover", "soft-one"),
        ("soft-one", "button"),
    ):
        if {need, user} <= set(names) and name != "virtio:d00000001v00001AF4":
            assert names.index(need) < names.index(user)


def test_an_unknown_module_is_no_such_file(parts, modules):
    for name in ("xt4", "ext", "virtio:d00000002v1", "", "tty"):
        assert parts("modules", modules, name).stdout == f"{name}: No such file or directory\n"
    parts("modules", modules / "nowhere", "a", status=1)


@pytest.mark.parametrize(
    ("restart", "status", "healthy", "delays"),
    [
        ("no", 1, [0], [-1]),
        ("on-failure", 0, [0], [-1]),
        ("on-failure", 1, [0] * 9, [0.2, 1, 2, 4, 8, 16, 32, 60, 60]),
        ("always", 0, [0, 0, 61, 0], [0.2, 1, 0.2, 1]),
    ],
)
def test_restarts_back_off_and_forget(parts, restart, status, healthy, delays):
    got = parts("policy", restart, str(status), *map(str, healthy)).stdout.split()
    assert [float(g) for g in got] == delays


def test_the_tail_ends_with_errors_and_begins_with_output(parts, tmp_path):
    out, err = tmp_path / "out", tmp_path / "err"
    out.write_text("".join(f"o{n}\n" for n in range(20)))
    err.write_bytes(b"e0\n\n\r\ne1\0x")
    assert parts("tail", out, err).stdout.split("\n")[:-1] == [*(f"o{n}" for n in range(12, 20)), "e0", "e1 x"]
    err.write_text("x" * 20000)
    assert parts("tail", tmp_path / "nothing", err).stdout == "x" * 8192 + "\n"
    assert parts("tail", tmp_path, tmp_path / "nothing").stdout == ""


@pytest.mark.parametrize(
    ("command", "result"),
    [
        (["/bin/true"], "0 0"),
        (["/bin/sh", "-c", "exit 7"], "7 0"),
        (["/bin/sh", "-c", "kill -9 $$"], "137 9"),
        (["/bin/sh", "-c", "kill -TERM $$"], "143 15"),
        (["/nowhere"], "error No such file or directory"),
        (["/etc/passwd"], "error Permission denied"),
    ],
)
def test_statuses_come_back_as_a_shell_counts(parts, command, result):
    assert parts("spawn", *command).stdout.strip() == result


def test_a_child_gets_three_descriptors_and_no_more(parts):
    assert parts("spawn", "/bin/sh", "-c", "ls /proc/$$/fd").stdout.split()[:3] == ["0", "1", "2"]


def test_the_command_line_is_words(parts):
    line = "a=1 console=ttyS0,115200 quiet a=2 quiets"
    assert parts("cmdline", line, "quiet").stdout == "1 [-]\n"
    assert parts("cmdline", line, "a").stdout == "0 [2]\n"
    assert parts("cmdline", line, "qui").stdout == "0 [-]\n"


def test_the_runtimes_are_called_right(parts):
    def words(*args: str) -> str:
        return " ".join(parts(*args).stdout.split())

    assert words("runtime", "run", "a", "/b", "") == "/usr/bin/crun run --bundle /b a"
    assert words("runtime", "run-detached", "a", "/b", "/p") == "/usr/bin/crun run --detach --bundle /b --pid-file /p a"
    assert words("runtime", "create", "a", "/b", "/p") == "/usr/bin/crun create --bundle /b --pid-file /p a"
    assert words("runtime", "delete", "a", "/b", "/p") == "/usr/bin/crun delete --force a"
    assert words("ctr", "delete", "a", "ns") == "/usr/bin/ctr --namespace ns task delete a"
    start = "/usr/bin/ctr --namespace services.linuxkit task start --detach --pid-file /pid --log-uri "
    start += "binary:///usr/bin/service?logger=a a"
    assert words("ctr", "start", "a", "") == start


@pytest.mark.parametrize(
    ("said", "status", "result"),
    [
        ("", 0, 0),
        ("", 7, 7),
        ('level=warning msg="task a exit with non-zero exit code 137"\n', 0, 137),
        ("ctr: task must be stopped before deletion: running: failed precondition\n", 1, -1),
    ],
)
def test_a_tasks_status_is_found_in_what_ctr_says(parts, tmp_path, said, status, result):
    (tmp_path / "end").write_text(said)
    assert parts("end", tmp_path / "end", str(status)).stdout == f"{result}\n"


@pytest.mark.parametrize("name", ["a" * 600, "a" * 5000, "a" * 70000])
def test_long_names_of_an_interface_do_not_overflow_the_message(parts, name):
    """A label may have names of any length. Short ones reach the kernel, which has its own reasons."""
    assert parts("interface", name, "dummy", "").stdout.startswith("-1 interface aaa")
    for arguments in (("eth0", name, ""), ("eth0", "veth", name)):
        said = parts("interface", *arguments).stdout
        assert said.startswith("-1 interface eth0: add: ")
        assert said.endswith("Argument list too long\n") == (len(name) > 1000)
    assert "Argument list too long" not in parts("interface", "eth0", "dummy", "").stdout


def test_no_part_of_metadata_needs_one_that_needs_it(tmp_path):
    """Who uses whose functions, read from the compiled parts, has no circle."""
    sources = sorted((GUEST / "src/kit").glob("metadata*.c"))
    command = ["gcc", "-std=gnu17", "-O0", "-c", "-DMETADATA_TEST", f"-I{GUEST / 'include'}", *map(str, sources)]
    subprocess.run(command, cwd=tmp_path, check=True)
    has: dict[str, str] = {}
    wants: dict[str, set[str]] = {}
    for source in sources:
        listing = subprocess.run(["nm", f"{source.stem}.o"], cwd=tmp_path, capture_output=True, text=True, check=True)
        symbols = [line.split()[-2:] for line in listing.stdout.splitlines()]
        has |= {name: source.stem for kind, name in symbols if kind in "TDBR"}
        wants[source.stem] = {name for kind, name in symbols if kind == "U"}
    needs = {part: {has[name] for name in names if name in has} - {part} for part, names in wants.items()}
    assert len(needs) > 10 and needs["metadata"] and not needs["metadata_say"]
    graphlib.TopologicalSorter(needs).prepare()  # CycleError names those of a circle


@pytest.mark.parametrize(("marks", "said"), [
    ("", "whole"), ("begin end", "whole"), ("end", "whole"), ("begin", "the initramfs did not unpack whole"),
])  # fmt: skip
def test_an_initramfs_without_its_end_is_noticed(parts, tmp_path, marks, said):
    for mark in marks.split():
        (tmp_path / f".initramfs-{mark}").touch()
    assert parts("unpacked", tmp_path).stdout.startswith(said)
    assert list(tmp_path.iterdir()) == []  # nobody else is to see them
