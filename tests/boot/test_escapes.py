"""Known ways from a container to the machine, tried from inside: closed by default, open in LinuxKit's mode."""

from __future__ import annotations

import hashlib
import io
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from linuxkit.oci.media import OCI_LAYER, Platform
from linuxkit.oci.store import Store
from support.system import CONTAINERD, CRUN, Build, image_cache
from support.vm import boot, cache_dir

pytestmark = pytest.mark.boot
SOURCE = Path(__file__).resolve().parents[1] / "support" / "escape.c"
IMAGE = "docker.io/test/escape:1"
WAYS = {
    "core_pattern", "modprobe", "release_agent", "uevent_helper", "sysrq", "kcore", "raw_disk", "ptrace", "mount",
    "keyctl", "bpf", "vsock", "io_uring", "userns",
}  # fmt: skip
#: those that take no capability at all
OF_ROOT = {"core_pattern", "modprobe", "uevent_helper", "sysrq", "mount", "keyctl", "vsock", "io_uring", "userns"}


@pytest.fixture(scope="module")
def image() -> str:
    """An image with the program that tries, and a place for it to mount on."""
    kept = cache_dir() / f"escape-{hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]}"
    if not kept.exists():
        command = [sys.executable, "-m", "ziglang", "cc", "-target", "x86_64-linux-musl", "-static", "-Os"]
        subprocess.run([*command, "-Wall", "-Wextra", "-Werror", "-o", kept, SOURCE], check=True, timeout=300)
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        folder = tarfile.TarInfo("mnt")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o777
        tar.addfile(folder)
        program = tarfile.TarInfo("escape")
        program.mode, program.size = 0o755, kept.stat().st_size
        tar.addfile(program, io.BytesIO(kept.read_bytes()))
    store = Store(image_cache())
    layer = store.put_blob(raw.getvalue(), OCI_LAYER)
    config = {"architecture": "amd64", "os": "linux", "config": {},
              "rootfs": {"type": "layers", "diff_ids": [layer.digest]}}  # fmt: skip
    store.put_image(IMAGE, Platform("linux", "amd64"), config, [layer])
    return IMAGE


def tried(image: str, *entries: tuple[str, str]) -> str:
    """onboot entries that try everything, each with keys of its own."""
    first, text = entries[0][0], "onboot:\n"
    for name, keys in entries:
        text += f"  - name: {name}\n    image: {image}\n"
        text += f"    command: [/escape, {name}, /containers/onboot/000-{first}/lower/escape]\n"
        text += "".join(f"    {key}\n" for key in keys.splitlines())
    return text


def answers(console: str) -> dict[str, dict[str, bool]]:
    """Who → way → whether it is open."""
    found: dict[str, dict[str, bool]] = {}
    for who, way, answer in re.findall(r"escape (\w+) (\w+) (yes|no)", console):
        found.setdefault(who, {})[way] = answer == "yes"
    return found


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(b"secret" + bytes(1 << 20))
    return path


@pytest.mark.parametrize("head", [CRUN, CONTAINERD], ids=["crun", "runc"])
def test_no_way_leads_out_of_a_default_container(build: Build, image: str, disk: Path, head: str) -> None:
    prefix = build(head + tried(image, ("root", ""), ("user", "uid: 1000\ngid: 1000"), ("shown", "readonly: true")))
    with boot(prefix, seconds=150, disks=(str(disk),)) as machine:
        assert machine.wait_booted(120).ok
        found = answers(machine.console)
        assert found == {who: dict.fromkeys(found[who], False) for who in ("root", "user", "shown")}
        assert all(set(ways) == WAYS for ways in found.values())
        assert "taken" not in machine.console


def test_every_way_is_open_in_linuxkits_mode(build: Build, image: str, disk: Path) -> None:
    """The negative control: without capabilities those of uid 0, with all of them every one."""
    system = "security: linuxkit\n" + CRUN
    system += tried(image, ("root", ""), ("all", "capabilities: [all]\npid: host\ndevices: [{path: all, type: a}]"))
    with boot(build(system), seconds=100, disks=(str(disk),)) as machine:
        machine.wait_booted(90)
        machine.wait_console("escape: the machine is taken, uid 0", 10)
        found = answers(machine.console)
        assert {way for way, is_open in found["root"].items() if is_open} == OF_ROOT
        assert found["all"] == dict.fromkeys(WAYS, True)
