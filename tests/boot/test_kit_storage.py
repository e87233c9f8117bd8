"""What a machine keeps: format, mount, extend, swap, losetup, dm-crypt and snapshot, over boots and a power cut."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import pytest

from linuxkit.encode import mbr
from linuxkit.machine.machine import Machine
from support.system import CRUN, Build
from support.vm import boot

pytestmark = pytest.mark.boot
MIB = 1 << 20
FOREIGN = b"nobody knows what this is" * 100  # it lies behind the first sectors, where no table or magic is

LOOK = """\
      for d in data vol x forced secret hidden; do
        set -- $(grep " /var/$d " /proc/mounts) && echo "fact: $d-type=$3"
        echo "fact: $d-size=$(df -m /var/$d | awk 'END { print $2 }')"
        [ -f /var/$d/mark ] && echo "fact: $d-mark=$(cat /var/$d/mark)"
        echo "of-boot-$(cat /var/data/boots 2>/dev/null)" >/var/$d/mark
      done
      echo "fact: log=$(tail -n 1 /var/data/log 2>/dev/null)"
      echo "fact: boots=$(cat /var/data/boots)"
      echo "fact: snapshots=$(ls /var/vol/.snapshots | cut -c 1-6 | tr '\\n' ' ')"
      echo "fact: newest=$(cat /var/vol/.snapshots/*/mark 2>/dev/null | tail -n 1)"
      echo "fact: swap=$(awk 'NR > 1 { print int(($3 + 64) / 1024) "M" }' /proc/swaps | tr '\\n' ' ')"
      echo "fact: links=$(ls /dev/disk/by-label | tr '\\n' ' ')"
      sync
"""


def onboot(name: str, image: str, *command: str) -> str:
    words = ", ".join(f'"{word}"' for word in command)
    return f"  - name: {name}\n    image: kit://{image}\n    command: [{words}]\n"


REST = """\
  - name: count
    image: kit://busybox
    command: ["/bin/sh", "-c", "echo $(($(cat /var/data/boots 2>/dev/null || echo 0) + 1)) >/var/data/boots"]
    binds: ["/var:/var"]
  - name: look
    image: kit://busybox
    command: ["/bin/sh", "/etc/look.sh"]
    binds: ["/var:/var", "/dev:/dev", "/etc/look.sh:/etc/look.sh"]
services:
  - name: writer
    image: kit://busybox
    command: ["/bin/sh", "/etc/write.sh"]
    binds: ["/var:/var", "/etc/write.sh:/etc/write.sh", "/dev/console:/dev/console"]
files:
  - path: etc/dm-crypt/key
    contents: "0123456789abcdefghijklmnopqrstuv"
    mode: "0600"
  - path: etc/dm-crypt/other
    contents: "another key, which is not that of the first"
    mode: "0600"
  - path: etc/write.sh
    contents: |
      n=$(tail -n 1 /var/data/log 2>/dev/null)
      while n=$((n + 1)); do
        echo $n | dd of=/var/data/log oflag=append conv=notrunc,fsync 2>/dev/null || exit 1
        echo "synced:$n." >/dev/console
      done
  - path: etc/look.sh
    contents: |
""" + LOOK

FORMAT, MOUNT, LOOP, CRYPT, SWAP = (
    ("format", "/usr/bin/format"), ("mount", "/usr/bin/mountie"), ("losetup", "/usr/bin/loopy"),
    ("dm-crypt", "/usr/bin/crypto"), ("swap", "/swap.sh"),
)  # fmt: skip
EXTEND, SNAPSHOT = onboot("extend", "extend", "/usr/bin/extend"), ("snapshot", "/usr/bin/snapshot", "-keep", "2")

#: the first boot: everything is empty
FIRST = (
    CRUN
    + "onboot:\n"
    + EXTEND
    + onboot("format-a", *FORMAT, "-label", "data", "-max-size", "1G")
    + onboot("format-b", *FORMAT, "-type=btrfs", "-label", "vol", "-partition", "gpt")
    + onboot("format-c", *FORMAT, "-type", "xfs", "-min-size", "300M", "-verbose")
    + onboot("format-d", *FORMAT, "--force", "-label", "forced", "/dev/vde")
    + onboot("mount-a", *MOUNT, "-label", "data", "/var/data")
    + onboot("mount-b", *MOUNT, "-device", "/dev/vdc1", "/var/vol")
    + onboot("mount-c", *MOUNT, "/var/x")
    + onboot("mount-d", *MOUNT, "/dev/vde1", "/var/forced")
    + onboot("loop-a", *LOOP, "-c", "-s", "16", "/var/data/plain")
    + onboot("loop-b", *LOOP, "--create", "--size", "40", "--dev", "/dev/loop5", "/var/data/luks")
    + onboot("crypt-a", *CRYPT, "secret", "/dev/loop0")
    + onboot("crypt-b", *CRYPT, "--luks", "-k", "other", "hidden", "/dev/loop5")
    + onboot("mount-e", *MOUNT, "/dev/mapper/secret", "/var/secret")
    + onboot("mount-f", *MOUNT, "-options", "noatime", "/dev/mapper/hidden", "/var/hidden")
    + onboot("swap-a", *SWAP, "--path", "/var/data/swap", "--size", "8M", "--condition", "part:/var/data")
    + onboot("swap-b", *SWAP, "--path", "/var/vol/swap", "--size", "9M", "--encrypt",
             "--condition", "partsize:/var/vol:100M:true")
    + onboot("snapshot", *SNAPSHOT, "/var/vol")
    + REST
)  # fmt: skip


def second(uuid: str) -> str:
    """The next boot: what is there stays, and what must not be, fails."""
    return (
        CRUN
        + "onboot:\n"
        + EXTEND
        + onboot("format-a", *FORMAT, "-label", "data")
        + onboot("format-b", *FORMAT)
        + onboot("bad-format", *FORMAT, "/dev/vda")
        + onboot("mount-a", *MOUNT, "-uuid", uuid, "/var/data")
        + onboot("mount-b", *MOUNT, "-label", "vol", "/var/vol")
        + onboot("mount-c", *MOUNT, "/var/x")
        + onboot("bad-mount", *MOUNT, "-device", "/dev/vda", "/var/no")
        + onboot("loop-a", *LOOP, "/var/data/plain")
        + onboot("loop-b", *LOOP, "-d", "/dev/loop5", "/var/data/luks")
        + onboot("bad-key", *CRYPT, "-k", "/etc/dm-crypt/other", "secret", "/dev/loop0")
        + onboot("crypt-a", *CRYPT, "-k", "/etc/dm-crypt/key", "secret", "/dev/loop0")
        + onboot("bad-luks", *CRYPT, "-l", "hidden", "/dev/loop5")
        + onboot("crypt-b", *CRYPT, "-l", "--key-file=other", "hidden", "/dev/loop5")
        + onboot("mount-e", *MOUNT, "/dev/mapper/secret", "/var/secret")
        + onboot("mount-f", *MOUNT, "/dev/mapper/hidden", "/var/hidden")
        + onboot("bad-swap", *SWAP, "--path", "/var/no/swap", "--size", "8M", "--condition", "part:/var/no:true")
        + onboot("snap-a", *SNAPSHOT, "/var/vol")
        + onboot("snap-b", *SNAPSHOT, "/var/vol")
        + REST
    )


def facts(machine: Machine) -> dict[str, str]:
    return dict(re.findall(r"fact: ([\w-]+)=([^\r\n]*)", machine.console))


def synced(machine: Machine) -> int:
    return max(int(n) for n in re.findall(r"synced:(\d+)\.", machine.console))


def make(path: Path, size: int) -> str:
    with path.open("wb") as out:
        out.truncate(size)
    return str(path)


def needs_recovery(disk: str) -> bool:
    """Was the ext4 in the first partition still mounted for writing when the machine went?"""
    with open(disk, "rb") as file:
        file.seek(MIB + 1024 + 96)  # s_feature_incompat
        return bool(int.from_bytes(file.read(4), "little") & 4)


def test_state_over_boots_a_power_cut_and_larger_disks(build: Build, tmp_path: Path) -> None:
    system = build(FIRST)
    foreign = make(tmp_path / "foreign", 64 * MIB)
    with open(foreign, "r+b") as out:
        out.seek(3 * 512)
        out.write(FOREIGN)
    before = Path(foreign).read_bytes()
    sizes = {"b": 160, "c": 160, "d": 320, "e": 32}
    disks = [foreign, *(make(tmp_path / name, size * MIB) for name, size in sizes.items())]
    with open(disks[-1], "r+b") as out:
        out.write(b"\xeb\x58\x90MSDOS5.0".ljust(510, b"x") + b"\x55\xaa")  # in the way, but for -force
    with open(disks[3], "r+b") as out:  # the power went while this one was being formatted
        out.write(mbr.record([mbr.Slot(2048, 319 * 2048, 0x83)], int.from_bytes(b"LKFM", "little"), b""))
        out.seek(MIB)
        out.write(b"half a filesystem")

    with boot(system, seconds=150, disks=tuple(disks)) as machine:
        assert machine.wait_booted(120).ok
        was = facts(machine)
        kinds = {name: was[f"{name}-type"] for name in ("data", "vol", "x", "forced", "secret", "hidden")}
        assert kinds.pop("vol") == "btrfs" and kinds.pop("x") == "xfs" and set(kinds.values()) == {"ext4"}
        assert was["boots"] == "1" and "data-mark" not in was
        assert was["swap"].split() == ["8M", "9M"]
        assert {"data", "vol", "forced"} <= set(was["links"].split())
        assert was["snapshots"] == "000001 "
        machine.wait_console(r"synced:25\.", 30)
        machine.kill()
        promised = synced(machine)
    assert needs_recovery(disks[1])
    assert Path(disks[4]).read_bytes()[:3] != b"\xeb\x58\x90"

    for number, size in [(1, 320), (2, 320), (3, 512)]:
        os.truncate(disks[number], size * MIB)
    with open(disks[1], "r+b") as disk:
        disk.seek(MIB + 1024 + 104)
        uuid = str(UUID(bytes=disk.read(16)))
        disk.seek(446 + 12)  # and here it went while it was being grown: the partition is large, what is in it is not
        disk.write((319 * 2048).to_bytes(4, "little"))
    with boot(build(second(uuid), name="second"), seconds=150, disks=tuple(disks)) as machine:
        steps = {step.name.partition("-")[2]: step for step in machine.wait_booted(120).steps if "onboot/" in step.name}
        found = facts(machine)
        assert {name for name, step in steps.items() if step.status} == {name for name in steps if "bad-" in name}
        assert int(found["log"]) >= promised  # what was synced is there
        assert found["boots"] == "2"
        for name in ("data", "vol", "x", "secret", "hidden"):
            assert found[f"{name}-mark"] == "of-boot-1", name
        assert int(found["data-size"]) > 250 > int(was["data-size"])
        assert int(found["vol-size"]) > 250 > int(was["vol-size"])
        assert int(found["x-size"]) > 400 > int(was["x-size"])
        assert found["snapshots"] == "000002 000003 " and found["newest"] == "of-boot-1"  # the first has gone
        assert "the key doesn't fit" in "\n".join(steps["bad-key"].log)
        assert machine.power_off(30).off
    assert not needs_recovery(disks[1])  # although two loop devices had files of it, and dm-crypt them
    assert Path(foreign).read_bytes() == before
    env = {"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    for command, number, words in [("sfdisk --verify", 1, "No errors detected"), ("sgdisk -v", 2, "No problems found")]:
        done = subprocess.run([*command.split(), disks[number]], capture_output=True, text=True, env=env)
        assert done.returncode == 0 and words in done.stdout, done.stdout + done.stderr


EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


#: What looks at every drive there is; then one who reads them all the same, so that an error can be seen.
DRIVES = (
    CRUN
    + "onboot:\n"
    + onboot("loop", "modprobe", "modprobe", "-a", "sr_mod", "ahci", "virtio_scsi", "sd_mod")
    + EXTEND
    + onboot("format", *FORMAT, "-label", "data", "-min-size", "30M")
    + onboot("mount", *MOUNT, "-label", "data", "/var/data")
    + onboot("mount-link", *MOUNT, "/dev/disk/by-label/data", "/var/again")
    + onboot("mount-twin", *MOUNT, "-label", "twin", "/var/twin")
    + onboot("crypt-twin", *CRYPT, "-k", "key", "x", "/dev/disk/by-label/twin")
    + onboot("metadata", "metadata", "/usr/bin/metadata", "-v", "cdrom", "openstack")
    + """\
  - name: careless
    image: kit://busybox
    command:
      - /bin/sh
      - -c
      - echo links=$(ls /dev/disk/by-label); ls /dev/sr0 /dev/sr1; echo here-it-reads >/dev/kmsg; /careless /dev/sr0
    binds: ["/dev:/dev", "/careless:/careless"]
    capabilities: [all]
    devices: [{path: all, type: b}, {path: all, type: c}]
files:
  - path: etc/dm-crypt/key
    contents: "0123456789abcdefghijklmnopqrstuv"
    mode: "0600"
  - path: careless
    mode: "0755"
    source: """
)
CARELESS = """\
#include <fcntl.h>
#include <unistd.h>
int main(int argc, char **argv)
{
    char c[4096];
    return argc < 2 || read(open(argv[1], O_RDONLY | O_NONBLOCK), c, sizeof(c)) > 0;
}
"""


def test_empty_drives_are_not_read_and_two_disks_with_one_label_are_named(build: Build, tmp_path: Path) -> None:
    twins = [make(tmp_path / name, 8 * MIB) for name in ("one", "two")]
    for twin in twins:
        tools = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
        subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-L", "twin", twin], check=True, env=tools)
    careless = [sys.executable, "-m", "ziglang", "cc", "-target", "x86_64-linux-musl", "-static", "-Os", "-x", "c", "-"]
    subprocess.run([*careless, "-o", tmp_path / "careless"], input=CARELESS, text=True, check=True, timeout=300)
    drives = ("virtio-scsi-pci,id=scsi", "scsi-cd,bus=scsi.0", "scsi-cd,bus=scsi.0")
    disks = (make(tmp_path / "data", 40 * MIB), *twins)
    system = build(DRIVES + f"{tmp_path}/careless\n")
    with boot(system, seconds=110, disks=disks, devices=drives, networking="none") as machine:
        machine.wait_booted(100)
        careful, careless = machine.console.split("here-it-reads", 1)
    status = {e.step[11:]: e.status for e in machine.events if e.event in ("done", "fail") and e.step[:7] == "onboot/"}  # type: ignore[attr-defined]
    assert {name: status[name] for name in ("extend", "format", "mount", "mount-link", "metadata")} == {
        "extend": 0, "format": 0, "mount": 0, "mount-link": 0, "metadata": 0,
    }  # fmt: skip
    assert (status["mount-twin"], status["crypt-twin"]) == (1, 1)
    assert careful.count("LABEL=twin is on /dev/vdb (ext4, LABEL=twin, UUID=") >= 2 and "and on /dev/vdc (" in careful
    assert "links=data" in machine.console and "/dev/sr1" in machine.console
    trouble = re.compile(r"I/O error|Medium not present|No medium|Unit not ready|FAILED Result", re.I)
    assert not [line for line in careful.splitlines() if trouble.search(line) and "metadata: " not in line]
    assert trouble.search(careless)  # who does not ask is told


@pytest.mark.parametrize(("name", "size", "words"), [
    ("data-disk", 256, r"boot number 1; \S+M; snapshots: 000001-"),
    ("dm-crypt", 64, r"1 secrets on /dev/\S+"),
    ("dm-crypt-loop", 256, r"\(ext4\) on /var/vault"),
    ("swap", 1200, r"1024 MiB of swap at /dev/mapper/swapfile, encrypted"),
    ("volumes", 0, r"the volume has \d{2,} programs"),
])  # fmt: skip
def test_an_example_does_what_it_says(build: Build, tmp_path: Path, name: str, size: int, words: str) -> None:
    system = build((EXAMPLES / f"{name}.yml").read_text(), name=name)
    with boot(system, seconds=120, disks=(make(tmp_path / "disk", size * MIB),) if size else ()) as machine:
        assert machine.wait_booted(90).ok
        machine.wait_console(words, 10)
        assert machine.power_off(30).off
