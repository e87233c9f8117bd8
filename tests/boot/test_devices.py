"""What other programs bring into a machine: folders of this one, and a TPM."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.system import CRUN, Build
from support.vm import boot

pytestmark = pytest.mark.boot
SYSTEM = CRUN.replace("  cmdline", "  tar: kernel-min.tar\n  cmdline") + """\
onboot:
  - name: look
    image: kit://busybox
    command: ["/bin/sh", "/look"]
    binds: ["/dev:/dev", "/sys:/sys:ro", "/look:/look:ro"]
    capabilities: [all]
files:
  - path: look
    contents: |
      mkdir -p /tmp/a && mount -t virtiofs virtiofs0 /tmp/a && cat /tmp/a/word && echo from-the-guest > /tmp/a/answer
      mkdir -p /tmp/b && mount -t virtiofs tools /tmp/b && ls /tmp/b
      test -c /dev/tpm0 && echo tpm-version-$(cat /sys/class/tpm/tpm0/tpm_version_major)
"""


def children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.skipif(os.geteuid() != 0, reason="virtiofsd of this QEMU works as root only")
def test_folders_and_a_tpm(build: Build, tmp_path: Path) -> None:
    ours, tools = tmp_path / "our folder", tmp_path / "tools"
    for folder in (ours, tools):
        folder.mkdir()
    (ours / "word").write_text("word-of-the-host\n")
    (tools / "hammer").write_text("")
    before = set(children(os.getpid()))
    with boot(build(SYSTEM), virtiofs=(str(ours), f"tools={tools}"), tpm=True) as machine:
        assert machine.wait_booted(60).ok
        for shown in ("word-of-the-host", "hammer", "tpm-version-2"):
            machine.wait_console(shown, 5)
        assert (ours / "answer").read_text() == "from-the-guest\n"
        started = set(children(os.getpid())) - before
        assert len(started) == 4  # QEMU, two of virtiofsd, swtpm
        assert machine.power_off(20).off
    assert not started & set(children(os.getpid()))
    assert list((machine.state / "tpm").iterdir())
