"""Systems whose root is on a device, found by the boot stage; verified ones, and what was changed in them."""

from __future__ import annotations

import hashlib
import random
import shutil
from pathlib import Path

import pytest

from linuxkit.errors import InputError, MachineError
from linuxkit.machine.report import State
from linuxkit.platforms import memory
from support.system import CRUN, Build, merged_usr
from support.vm import boot

pytestmark = pytest.mark.boot
MIB = 1 << 20
SYSTEM = CRUN + """\
onboot:
  - name: look
    image: kit://busybox
    command:
      - /bin/sh
      - -c
      - |
        grep -m1 ' / ' /machine/proc/1/mounts
        cat /machine/var/lib/kept/file && echo more >>/machine/var/lib/kept/file && echo var-can-be-written
        touch /own && echo container-can-be-written
        touch /machine/etc/x 2>/dev/null || echo root-is-read-only
        awk '/MemTotal/{t=$2} /MemAvailable/{a=$2} END{print "memory-used", int((t-a)/1024)}' /proc/meminfo
    binds: ["/:/machine:rbind"]
services:
  - name: service  # with mount points that its image lacks
    image: kit://busybox
    readonly: true
    tmpfs: [/not/there]
    binds: ["/var/lib/kept/file:/nor/this"]
    command: ["/bin/sh", "-c", "grep -q kept-in-var /nor/this && touch /not/there/file && sleep 1000"]
files:
  - path: var/lib/kept/file
    contents: "kept-in-var\\n"
"""


#: What a merged /usr has to come to: lib is a link, and modules, images and `files:` are behind it.
LINKS = ("echo links: $(readlink /machine/lib) $(ls -d /machine/usr/lib/modules/*/modules.dep | wc -l) "
         "$(cat /machine/lib/brought /machine/usr/lib/firmware/x)")  # fmt: skip
LINKED = "links: usr/lib 1 by the image firmware"


def judge(prefix: str, root: str, mib: int = 256) -> str:
    """Boot it; that it came up with its root where it should be. Returns what the console said."""
    with boot(prefix, seconds=100, memory=mib) as machine:
        assert machine.wait_booted(90).ok
        step = machine.report.step("root")
        assert step is not None and step.state is State.DONE
        service = machine.report.step("service/service")
        assert service is not None and service.state is State.RUNNING
        for said in ("kept-in-var", "var-can-be-written", "container-can-be-written", "root-is-read-only", root):
            machine.wait_console(said, 5)
        assert machine.power_off(30).off
        return str(machine.console)


def refusal(prefix: str, what: str, seconds: int = 60) -> str:
    """Boot it; that it said `what`, and started nothing. Returns the console."""
    with boot(prefix, seconds=seconds, memory=256) as machine:
        machine.wait_console(what, seconds - 5)
        with pytest.raises(MachineError):
            machine.wait_booted(10)
        assert machine.report.booted is None
    assert "kept-in-var" not in machine.console
    return str(machine.console)


def flip(image: Path, at: int) -> None:
    """Change one bit."""
    with image.open("r+b") as stream:
        stream.seek(at)
        (byte,) = stream.read(1)
        stream.seek(at)
        stream.write(bytes([byte ^ 1]))


def test_a_squashfs_of_more_than_the_memory_boots(build: Build, tmp_path: Path) -> None:
    noise = tmp_path / "noise"
    with noise.open("wb") as stream:  # cannot be compressed, and is never read
        numbers = random.Random(1)
        for _ in range(300):
            stream.write(numbers.randbytes(1 << 20))
    text = SYSTEM.replace("onboot:", merged_usr(tmp_path) + "onboot:", 1)
    text = text.replace("grep -m1", f"{LINKS}\n        grep -m1")
    text += f"  - {{path: opt/noise, source: {noise}}}\n  - {{path: lib/firmware/x, contents: firmware}}\n"
    prefix = build(text, "--format", "kernel+squashfs")
    assert Path(f"{prefix}-squashfs.img").stat().st_size > 300 << 20
    console = judge(prefix, "/dev/vda / squashfs ro")
    assert LINKED in console
    used = int(console.split("memory-used ")[1].split()[0])
    assert used < 100


def test_a_cd_boots_wherever_it_is(build: Build) -> None:
    prefix = build(SYSTEM, "--format", "kernel+iso")
    judge(prefix, "/dev/sr0 / iso9660 ro")
    (image,) = Path(prefix).parent.glob("*.iso")
    copy = image.with_suffix(".copy")
    shutil.copy(image, copy)  # the same on a disk: nobody can tell which of the two is meant
    with boot(prefix, seconds=60, memory=256, disks=(str(copy),)) as machine:
        machine.wait_console(r"no root: root=LABEL=LinuxKit is on 2 disks: /dev/sr0 \(LABEL=.*/dev/vda \(", 50)
        with pytest.raises(MachineError):
            machine.wait_booted(10)




def test_a_disk_for_a_bios_boots(build: Build) -> None:
    judge(build(SYSTEM, "--format", "raw", "--root", "ext4") + ".img", "/dev/vda2 / ext4 ro")


CHANGED = "its data or its hash tree was changed"


def test_a_verified_root_boots_and_a_changed_one_does_not(build: Build) -> None:
    prefix = build(SYSTEM, "--format", "kernel+erofs", "--verity")
    image, cmdline = Path(f"{prefix}-erofs.img"), Path(f"{prefix}-cmdline")
    judge(prefix, "/dev/dm-0 / erofs ro")

    at = image.read_bytes().index(b"no root") if b"no root" in image.read_bytes() else -1
    assert at < 0  # the boot stage is not in it; this is PID 1's own word:
    at = image.read_bytes().index(b"cannot move the root")
    flip(image, at)  # a letter of a message in /init, in a part of it that is read
    console = refusal(prefix, "is corrupted")
    assert "root is /dev/vda, erofs, verity" in console  # the rest of it is whole
    flip(image, at)

    words = cmdline.read_text()
    cmdline.write_text(words[:-1] + ("0" if words[-1] != "0" else "1"))  # another root hash
    refusal(prefix, f"no root: .* {CHANGED}")


def test_a_verified_disk_boots_and_one_with_another_tree_does_not(build: Build) -> None:
    disk = Path(build(SYSTEM, "--format", "raw-efi", "--verity") + "-efi.img")
    judge(str(disk), "/dev/dm-0 / squashfs ro")
    data = disk.read_bytes()
    first, last = (int.from_bytes(data[1024 + 128 + at : 1024 + 128 + at + 8], "little") for at in (32, 40))
    start = first * 512
    used = int.from_bytes(data[start + 40 : start + 48], "little")  # bytes of the squashfs
    word = data[data.index(b"linuxkit.verity=1:") :].split(b"\0")[0].split()[0].decode()
    tree = start + int(word.split(":")[2]) * 4096
    assert data[start : start + 4] == b"hsqs" and start + used <= tree < last * 512
    flip(disk, tree + 17)
    refusal(str(disk), f"no root: .* {CHANGED}")


def test_a_root_that_is_not_there_is_told_about(build: Build) -> None:
    text = SYSTEM.replace("console=ttyS0", "console=ttyS0 root=LABEL=nowhere rootwait=2 panic=-1")
    prefix = build(text, "--format", "kernel+squashfs")
    with boot(prefix, seconds=60, memory=256) as machine:
        machine.wait_console("no root: root=LABEL=nowhere did not appear in 2 seconds", 50)
        machine.wait_console("/dev/vda: [0-9]+ MiB, squashfs", 5)
        with pytest.raises(MachineError):
            machine.wait_booted(10)
        failed = [event for event in machine.events if event.step == "root"]  # type: ignore[attr-defined]
    assert [event.event for event in failed] == ["fail"]
    assert any("/dev/vda" in line for line in failed[0].log)


# -- roots in memory


def test_the_memory_that_an_image_needs(build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Just above the figure all of it is there, links too; below it the boot has failed, and says why."""
    noise = tmp_path / "noise"
    noise.write_bytes(random.Random(2).randbytes(100 << 20))
    look = SYSTEM.replace("onboot:", merged_usr(tmp_path) + "onboot:", 1)
    start, _, end = look.partition("        grep -m1")
    text = f"{start}        {LINKS}\n        sha256sum /machine/opt/noise\n{end[end.index('    binds:'):]}"
    text += f"  - {{path: opt/noise, source: {noise}}}\n  - {{path: lib/firmware/x, contents: firmware}}\n"
    prefix = build(text)
    initrd = Path(f"{prefix}-initrd.img")
    least = memory.least_for(memory.held_size(initrd), initrd.stat().st_size, "")
    with pytest.raises(InputError, match="cannot hold this image"), boot(prefix, memory=least // MIB):
        pass
    with boot(prefix, seconds=100, memory=least // MIB + 1) as machine:
        assert machine.wait_booted(90).ok
        machine.wait_console(hashlib.sha256(noise.read_bytes()).hexdigest(), 5)
        assert LINKED in machine.console
        service = machine.report.step("service/service")
        assert service is not None and service.state is State.RUNNING
    monkeypatch.setattr(memory, "least_for", lambda *given: 0)
    with boot(prefix, seconds=100, memory=least // MIB - 80) as machine:
        assert not machine.wait_booted(90).ok
        step = machine.report.step("initramfs")
        assert step is not None and "did not unpack whole" in step.message
        assert machine.report.step("onboot/000-look") is None
        assert machine.power_off(30).off
