"""What a machine keeps: a disk's data partition, written to by one boot and read by the next."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from support.system import CRUN, Build
from support.vm import boot

pytestmark = pytest.mark.boot
SYSTEM = CRUN + """\
onboot:
  - name: count
    image: kit://busybox
    command:
      - /bin/sh
      - -c
      - |
        mkdir -p /tmp/data && mount -t ext4 "$(findfs LABEL=state)" /tmp/data || exit 1
        echo $(($(cat /tmp/data/count 2>/dev/null || echo 0) + 1)) >/tmp/data/count
        echo "boot-number-$(cat /tmp/data/count)"
        umount /tmp/data
    binds: ["/dev:/dev", "/sys:/sys"]
    capabilities: [CAP_SYS_ADMIN]
"""


def test_it_outlives_a_boot(build: Build, tmp_path: Path) -> None:
    disk = build(SYSTEM, "--format", "raw-bios", "--data-partition", "64M:state") + "-bios.img"
    for number in (1, 2):
        with boot(disk, seconds=100) as machine:
            assert machine.wait_booted(90).ok
            machine.wait_console(f"boot-number-{number}", 5)
            assert machine.power_off(30).off
    entry = Path(disk).read_bytes()[446 + 16 :][:16]
    first, sectors = int.from_bytes(entry[8:12], "little"), int.from_bytes(entry[12:16], "little")
    with open(disk, "rb") as whole, open(tmp_path / "data", "wb") as out:
        whole.seek(first * 512)
        out.write(whole.read(sectors * 512))
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    done = subprocess.run(["e2fsck", "-fn", tmp_path / "data"], capture_output=True, text=True, env={"PATH": path})
    assert done.returncode == 0, done.stdout
