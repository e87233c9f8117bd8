"""Small packages of the kit, in machines: logs, the kernel's settings and modules, the power button, vsock."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from linuxkit.machine.machine import Machine
from linuxkit.machine.qmp import Qmp
from linuxkit.machine.report import Step
from support.system import CRUN, Build
from support.vm import boot, cache_dir

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


SEEN = """\
mount -t binfmt_misc binfmt_misc /tmp
seen() { eval "$1" && echo -n "$2 "; }
{
  seen 'test $(cat /proc/sys/fs/inotify/max_user_watches) = 524288' sysctl
  seen 'grep -q "\\[madvise\\]" /sys/kernel/mm/transparent_hugepage/enabled' sysfs
  seen 'test -d /sys/module/dummy' modprobe
  seen 'grep -q "^flags: .*F" /tmp/qemu-aarch64 && test -e /tmp/qemu-loongarch64' binfmt
  seen 'test "$(/foreign)" = aarch64' emulated
  echo seen
} >/dev/console
"""
RULES = "-D\n-b 8192\n-a always,exit -F arch=b64 -S clock_settime -S settimeofday -k somebody-set-the-clock\n"
FOREIGN = """\
#include <stdio.h>
#include <sys/utsname.h>
int main(void) { struct utsname u; uname(&u); puts(u.machine); }
"""


def compiled(source: str, target: str) -> Path:
    """A static program, compiled once for its source and target."""
    kept = cache_dir() / f"program-{target}-{hashlib.sha256(source.encode()).hexdigest()[:16]}"
    if not kept.exists():
        partial = kept.with_name(f"{kept.name}.{os.getpid()}")
        command = [sys.executable, "-m", "ziglang", "cc", "-target", target, "-static", "-Os", "-x", "c", "-", "-o"]
        subprocess.run([*command, partial], input=source, text=True, check=True, timeout=300)
        partial.replace(kept)
    return kept


def file_of(path: str, text: str) -> str:
    return f"  - path: {path}\n    mode: '0755'\n    contents: |\n" + "".join(f"      {x}\n" for x in text.splitlines())


def test_settings_modules_emulators_audit_vsock_and_the_power_button(build: Build) -> None:
    check = Path(__file__).resolve().parents[1] / "support/vsockcheck.c"
    look = "    image: kit://busybox\n    command: ['/bin/sh', '/look']\n    capabilities: [all]\n"
    look += "    binds: ['/look:/look:ro', '/foreign:/foreign', '/dev/console:/dev/console']\n"
    system = CRUN + "onboot:\n  - name: before\n" + look
    system += "  - name: sysctl\n    image: kit://sysctl\n  - name: sysfs\n    image: kit://sysfs\n"
    system += "  - name: modprobe\n    image: kit://modprobe\n"
    system += "    command: ['modprobe', '-a', 'dummy', 'vsock_loopback']\n"
    system += "  - name: none\n    image: kit://modprobe\n    command: ['modprobe', 'no_such_module']\n"
    system += "  - name: rngd\n    image: kit://rngd\n    command: ['/sbin/rngd', '-1']\n"
    system += "  - name: nothing\n    image: kit://rngd\n"
    system += "    command: ['/sbin/rngd', '-1', '-disable-rdrand', '-disable-rdseed']\n"
    system += "  - name: wrong\n    image: kit://sysfs\n    binds.add: ['/wrong.conf:/etc/sysfs.d/wrong.conf']\n"
    system += "  - name: binfmt\n    image: kit://binfmt\n  - name: after\n" + look
    system += "onshutdown:\n  - name: linger\n    image: kit://busybox\n    command: ['/bin/sleep', '2']\n"
    system += "services:\n  - name: acpid\n    image: kit://acpid\n"
    system += "    binds.add: ['/handler:/etc/acpi/PWRF/00000080']\n"
    system += "  - name: auditd\n    image: kit://auditd\n    binds.add: ['/rules:/etc/audit/audit.rules']\n"
    system += "  - name: vsudd\n    image: kit://vsudd\n    binds: ['/run:/run']\n"
    system += "    command: ['/usr/bin/vsudd', '-inport', '1024:unix:/run/shout.sock']\n"
    system += "  - name: host-timesync-daemon\n    image: kit://host-timesync-daemon\n"
    script = "/vsockcheck /run/shout.sock && n=0; until grep -q somebody-set-the-clock /var/log/audit/audit.log; do "
    script += "n=$((n+1)); [ $n -lt 100 ] || exit 9; date -s @$(date +%s); sleep 0.1; done"
    binds = "['/vsockcheck:/vsockcheck', '/run:/run', '/var/log:/var/log']"
    system += container("check", script, binds=binds, capabilities="[CAP_SYS_TIME]")
    system += "files:\n" + file_of("look", SEEN) + file_of("rules", RULES).replace("0755", "0640")
    system += file_of("wrong.conf", "kernel/no/such/thing = 1")
    system += file_of("handler", "#!/bin/sh\necho the-button-was-heard >/dev/console")
    system += f"  - path: foreign\n    mode: '0755'\n    source: {compiled(FOREIGN, 'aarch64-linux-musl')}\n"
    system += "  - path: vsockcheck\n    mode: '0755'\n"
    system += f"    source: {compiled(check.read_text(), 'x86_64-linux-musl')}\n"
    with boot(build(system), seconds=90) as machine:
        machine.wait_booted(80)
        status = {name[11:]: step.status for name, step in steps(machine).items() if name.startswith("onboot/")}
        assert status == {"before": 0, "sysctl": 0, "sysfs": 0, "modprobe": 0, "none": 1, "rngd": 0, "nothing": 1,
                          "wrong": 1, "binfmt": 0, "after": 0}  # fmt: skip
        said = [line.strip() for line in machine.console.splitlines() if line.strip().endswith("seen")]
        assert said == ["seen", "sysctl sysfs modprobe binfmt emulated seen"]
        assert ended(machine, "check") == {"check": 0}
        machine._qmp_end.send(Qmp.command("system_powerdown"))
        assert machine.wait(30).off
        assert "the-button-was-heard" in machine.console


def test_a_login_with_a_password_and_an_added_bind(build: Build) -> None:
    with boot(build((EXAMPLES / "addbinds.yml").read_text())) as machine:
        machine.wait_console("login: ", 60)
        for word, asked, then in (
            ("wrong", "Password: ", "(?s)Login incorrect.*login: "),
            ("linuxkit", "(?s)Password: .*Password: ", "This text was added by binds.add."),
        ):
            assert "added by binds.add" not in machine.console
            machine.send(b"root\n")
            machine.wait_console(asked, 20)
            time.sleep(0.5)  # login drops what was typed before it turned the echo off
            machine.send(f"{word}\n".encode())
            machine.wait_console(then, 30)
        machine.send(b"ls -d /hostroot/containers && echo still-bo''und\n")  # a bind of its own
        machine.wait_console("still-bound", 20)
        assert machine.power_off(20).off


def test_an_overlay_in_a_container_leaves_the_machine_as_it_was(build: Build) -> None:
    with boot(build((EXAMPLES / "hostmount-writeable-overlay.yml").read_text())) as machine:
        machine.wait_console(r"as built\s+changed", 60)
        machine.wait_console("# ", 20)
        machine.send(b"wc -l </hostroot/etc/note; cat /hostroot/run/host-etc/upper/note; echo the-e''nd\n")
        machine.wait_console(r"(?s)\s1\s+as built\s+changed\s.*the-end", 20)
        assert machine.power_off(20).off


def test_options_for_containerd_and_the_logs_of_its_services_in_memory(build: Build) -> None:
    system = (EXAMPLES / "containerd-debug.yml").read_text().replace(
        "  - kit://containerd\n", "  - kit://containerd\n  - kit://memlogd\n"
    )  # fmt: skip
    binds = "['/var/run:/var/run', '/var/log:/var/log', '/usr/bin/logread:/usr/bin/logread']"
    look = "n=0; until /usr/bin/logread >/tmp/all; grep -q ';talk.out;to-stdout' /tmp/all && grep -q ';talk;to-stderr'"
    look += " /tmp/all; do n=$((n+1)); [ $n -lt 100 ] || exit 9; sleep 0.1; done; "
    look += "ls /var/log | grep talk && exit 8; exit 0"
    talk = "echo to-stdout; echo to-stderr >&2; exit 6"
    services = "services:\n" + container("talk", talk) + container("look", look, binds=binds)
    with boot(build(system.replace("services:\n", services)), seconds=120) as machine:
        machine.wait_booted(100)
        assert ended(machine, "talk", "look") == {"talk": 6, "look": 0}
        (end,) = [e for e in machine.events if (e.step, e.event) == ("service/talk", "exit")]  # type: ignore[attr-defined]
        assert set(end.log) == {"to-stdout", "to-stderr"}
        assert re.search("level=(debug|trace)", machine.console)  # runtime-config.toml
        assert machine.power_off(30).off


def test_an_image_made_inside_a_machine_boots(build: Build, tmp_path: Path) -> None:
    payload = build((EXAMPLES / "minimal.yml").read_text(), name="payload")
    with tarfile.open(tmp_path / "payload.tar", "w") as tar:
        for name in ("payload-kernel", "payload-initrd.img", "payload-cmdline"):
            tar.add(f"{Path(payload).parent / name}", name)
    disk = tmp_path / "disk.img"
    disk.write_bytes(b"")
    os.truncate(disk, 64 << 20)
    system = CRUN.replace("  cmdline", "  tar: kernel-min.tar\n  cmdline")
    system += "onboot:\n  - name: mkimage\n    image: kit://mkimage\n  - name: again\n    image: kit://mkimage\n"
    disks = (f"file={disk},format=raw", f"file={tmp_path / 'payload.tar'},format=raw")
    with boot(build(system), disks=disks) as machine:
        machine.wait_booted(60)
        assert steps(machine)["onboot/000-mkimage"].status == 0
        assert steps(machine)["onboot/001-again"].status == 1
        assert "is not empty" in "\n".join(steps(machine)["onboot/001-again"].log)
        assert machine.power_off(20).off
    with boot(str(disk), seconds=150) as machine:
        assert machine.wait_booted(140).ok
        assert steps(machine)["service/hello"].status is None
        assert machine.power_off(20).off


ASK = """\
until [ -S /var/run/docker.sock ]; do sleep 0.2; done
until docker volume create one >/dev/null 2>&1; do sleep 0.2; done
sleep 2
if /usr/bin/logread | grep -q ' bytes trimmed'; then echo too-early >/dev/console; fi
docker volume rm one >/dev/null
n=0; until /usr/bin/logread | grep -q ';trim-after-delete.out;/var/lib/docker: [0-9]* bytes trimmed'; do
  n=$((n+1)); [ $n -lt 100 ] || exit 9; sleep 0.2
done
grep -qw file /proc/swaps && echo trimmed-and-swapped >/dev/console
"""


def test_space_goes_back_after_docker_deleted_something(build: Build) -> None:
    text = (EXAMPLES / "docker-desktop.yml").read_text()
    command = "['/usr/bin/trim-after-delete', '--delay', '1s', '--', '/sbin/fstrim', '-v', '/var/lib/docker']"
    text = text.rstrip() + f"\n    command: {command}\n"
    text += "  - name: ask\n    image: kit://docker\n    command: ['/bin/sh', '/ask.sh']\n"
    text += "    binds.add: ['/ask.sh:/ask.sh', '/usr/bin/logread:/usr/bin/logread', '/dev/console:/dev/console']\n"
    text += "files:\n  - path: ask.sh\n    contents: |\n" + "".join(f"      {line}\n" for line in ASK.splitlines())
    with boot(build(text), seconds=200, memory=2048, disks=("size=4G",)) as machine:
        report = machine.wait_booted(100)
        assert report.ok
        assert ended(machine, "ask", seconds=90) == {"ask": 0}
        assert "trimmed-and-swapped" in machine.console
        assert "too-early" not in machine.console
        assert machine.power_off(40).off
