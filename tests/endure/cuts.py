"""Power cuts of a machine that writes: what it said was synced is there at the next boot, and the disk mounts."""

from __future__ import annotations

import random
import re
import tempfile
import time
from pathlib import Path

from endure.scene import Summary
from linuxkit.errors import LinuxkitError
from support.system import build_in
from support.vm import boot

YAML = """\
kernel: {image: kit://kernel, cmdline: "console=ttyS0 quiet"}
init: [kit://init, kit://crun]
onboot:
  - {name: format, image: kit://format, command: ["/usr/bin/format", "-label", "data"]}
  - {name: mount, image: kit://mount, command: ["/usr/bin/mountie", "-label", "data", "/var/data"]}
services:
  - name: writer
    image: kit://busybox
    command: ["/bin/sh", "/etc/write.sh"]
    binds: ["/var:/var", "/etc/write.sh:/etc/write.sh", "/dev/console:/dev/console"]
files:
  - path: etc/write.sh
    contents: |
      n=$(tail -n 1 /var/data/log 2>/dev/null)
      echo "found:${n:-0}." >/dev/console
      while n=$((n + 1)); do
        echo $n | dd of=/var/data/log oflag=append conv=notrunc,fsync 2>/dev/null || exit 1
        echo "synced:$n." >/dev/console
      done
"""


def run(count: int, seed: int) -> Summary:
    summary, order = Summary("cuts", seed), random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="endure-") as text:
        folder = Path(text)
        system, disk = build_in(folder, YAML), folder / "disk"
        with open(disk, "wb") as out:
            out.truncate(128 << 20)
        promised = 0
        for number in range(count):
            try:
                with boot(system, seconds=120, disks=(str(disk),)) as machine:
                    found = machine.wait_console(r"found:\d+\.", 90)
                    there = int(re.findall(r"found:(\d+)\.", machine.console)[-1])
                    if there < promised:
                        summary.fault(f"cut {number}: {promised} was synced, {there} is there: {found}")
                    time.sleep(order.uniform(0, 2))
                    machine.kill()
                    promised = max([there, *map(int, re.findall(r"synced:(\d+)\.", machine.console))])
                summary.add("cuts")
            except LinuxkitError as e:
                summary.fault(f"cut {number}: {e.message}")
        summary.add("lines synced", promised)
    return summary
