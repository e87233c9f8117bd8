"""Bare machines over the network: the files that are written, and devices at a strict fake of Equinix Metal."""

from __future__ import annotations

import gzip
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from linuxkit.clouds import equinixmetal, metal_run
from linuxkit.errors import InputError, MachineError, NetworkError
from linuxkit.oci.transport import Transport
from linuxkit.places.image import LocalImage
from linuxkit.places.journal import Journal
from linuxkit.places.place import Job, settle
from support.clouds.equinix import PROJECT, TOKEN, Equinix
from support.efi import program

pytestmark = pytest.mark.interop


@pytest.fixture
def metal() -> Iterator[Equinix]:
    with Equinix() as made:
        yield made


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A system for amd64, web, and one for arm64, arm; an ssh that writes down how it was called."""
    kernel = bytearray(2048)
    kernel[0x202:0x206] = b"HdrS"
    (tmp_path / "web-kernel").write_bytes(kernel)
    (tmp_path / "web-cmdline").write_text("console=tty0 page_poison=1\n")
    (tmp_path / "web-initrd.img").write_bytes(initrd())
    arm = bytearray(program(0xAA64, b"kernel" * 500))
    arm[56:60] = b"ARM\x64"
    (tmp_path / "arm-kernel").write_bytes(gzip.compress(arm))
    (tmp_path / "arm-cmdline").write_text("console=ttyAMA0")
    (tmp_path / "arm-initrd.img").write_bytes(initrd())
    (tmp_path / "bin").mkdir()
    ssh = tmp_path / "bin" / "ssh"
    ssh.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/called\nexit $(cat {tmp_path}/status 2>/dev/null || echo 0)\n')
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    return tmp_path


def archive(name: str, size: int) -> bytes:
    """One cpio archive with one file (newc)."""

    def member(path: str, data: bytes) -> bytes:
        fields = [1, 0o100644, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(path) + 1, 0]
        head = b"070701" + b"".join(b"%08X" % field for field in fields) + path.encode() + b"\0"
        return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)

    return member(name, b"x" * size) + member("TRAILER!!!", b"")


def initrd() -> bytes:
    """As build writes it: archives packed one by one, one of them not at all."""
    return gzip.compress(archive("first", 100)[:-3], mtime=0) + bytes(5 * 4) + archive("plain", 10) + \
        gzip.compress(archive("last", 3_000_000), mtime=0)  # fmt: skip


def names(folder: Path, image: Path) -> list[str]:
    """What cpio finds in an unpacked initrd, archive after archive."""
    data, found = image.read_bytes(), []
    size = len(data)
    while data.strip(b"\0"):
        assert (size - len(data)) % 4 == 0  # where Linux looks for them
        done = subprocess.run(["cpio", "-t", "--quiet"], input=data, capture_output=True, check=True)
        found += done.stdout.decode().split()
        data = data[data.index(b"TRAILER!!!") + 10 :]
        data = data[data.index(b"070701") :] if b"070701" in data else b""
    return found


def push(metal: Equinix, folder: Path, name: str, destination: str, **given: Any) -> tuple[list[str], str]:
    said: list[str] = []
    environment = {"LINUXKIT_HTTP_TOKEN": "geheim"}
    wanted = {"base_url": metal.base + "/", "destination": destination} | given
    with Journal(said.append) as journal:
        work = Job(settle(equinixmetal.PUSH_SETTINGS, wanted, environment), environment,
                   Transport(sleep=lambda s: None), journal, said.append, sleep=lambda s: None)  # fmt: skip
        pusher = equinixmetal.Push(work, LocalImage(folder / f"{name}-kernel", "kernel+initrd"))
        pusher.preflight()
        pushed = pusher.push()
    return said, pushed.identity + (" there before" if pushed.there_before else "")


def run(metal: Equinix, folder: Path, target: str = "web", *, keep: bool = False, data: bytes | None = None,
        token: str = TOKEN, dry_run: bool = False, **given: Any) -> list[str]:  # fmt: skip
    said: list[str] = []
    environment = {"METAL_API_TOKEN": token, "METAL_PROJECT_ID": PROJECT, "METAL_API_URL": metal.api}
    with Journal(said.append, keep=keep) as journal:
        work = Job(settle(metal_run.RUN_SETTINGS, {"base_url": metal.base} | given, environment), environment,
                   Transport(sleep=lambda s: None), journal, said.append, data=data, keep=keep, dry_run=dry_run,
                   sleep=lambda s: None)  # fmt: skip
        runner = equinixmetal.Run(work, target)
        runner.preflight()
        runner.run()
    return said


def called(folder: Path) -> list[str]:
    file = folder / "called"
    return file.read_text().splitlines() if file.exists() else []


def test_a_folder_for_ipxe(metal: Equinix, folder: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k in ("PATH", "PYTHONPATH")} | {
        "HOME": str(folder), "METAL_BASE_URL": "https://boot.example/x/"}  # fmt: skip
    command = [sys.executable, "-m", "linuxkit", "push", "equinixmetal", "--destination", "out/sub", "web"]

    def linuxkit(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, *more], cwd=folder, env=environment, capture_output=True, text=True,
                              timeout=60)  # fmt: skip

    done = linuxkit("--dry-run")
    assert (done.returncode, "would write: out/sub/web-kernel" in done.stderr) == (0, True), done.stderr
    assert not (folder / "out").exists()
    done = linuxkit()
    assert (done.returncode, done.stdout) == (0, "https://boot.example/x/web-equinixmetal.ipxe\n"), done.stderr
    out = folder / "out" / "sub"
    assert sorted(p.name for p in out.iterdir()) == ["web-equinixmetal.ipxe", "web-initrd.img", "web-kernel"]
    assert not any(p.is_symlink() for p in out.iterdir())
    assert (out / "web-initrd.img").read_bytes() == initrd()
    assert (out / "web-equinixmetal.ipxe").read_text() == (
        "#!ipxe\ndhcp\nset base-url https://boot.example/x\n"
        "set kernel-params ip=dhcp nomodeset ro serial console=ttyS1,115200 console=tty0 page_poison=1\n"
        "kernel ${base-url}/web-kernel initrd=web-initrd.img ${kernel-params}\n"
        "initrd ${base-url}/web-initrd.img\nboot\n")  # fmt: skip
    assert "is there already" in linuxkit().stderr


def test_arm64_and_what_is_unpacked_for_it(metal: Equinix, folder: Path) -> None:
    out = folder / "out"
    push(metal, folder, "arm", out.as_uri(), img_name="board")
    assert (out / "board-equinixmetal.ipxe").read_text() == (
        f"#!ipxe\ndhcp\nset base-url {metal.base}\nset kernel-params ip=dhcp nomodeset ro console=ttyAMA0\n"
        "initrd --name initrd ${base-url}/board-initrd.img\n"
        "kernel ${base-url}/board-kernel initrd=initrd root=/dev/ram0 ${kernel-params}\nboot\n")  # fmt: skip
    assert (out / "board-kernel").read_bytes()[56:60] == b"ARM\x64"
    assert names(folder, out / "board-initrd.img") == ["first", "plain", "last"]
    push(metal, folder, "web", str(out), decompress=True)
    assert (out / "web-initrd.img").read_bytes() == (out / "board-initrd.img").read_bytes()
    (folder / "arm-initrd.img").write_bytes(initrd()[:-9])
    with pytest.raises(InputError, match="or damaged"):
        push(metal, folder, "arm", str(out))


def test_a_server_that_takes_the_files(metal: Equinix, folder: Path) -> None:
    metal.spoil("PUT /files/web-initrd.img", 500)
    identity = push(metal, folder, "web", metal.base)[1]
    assert identity == f"{metal.base}/web-equinixmetal.ipxe"
    assert list(metal.files) == ["web-kernel", "web-initrd.img", "web-equinixmetal.ipxe"]
    assert metal.files["web-initrd.img"] == initrd()


@pytest.mark.parametrize(("given", "says"), [
    ({"destination": "ftp://x/"}, "--destination ftp://x/ is not understood"),
    ({"destination": "file://host/x"}, "is on another machine"),
    ({"base_url": "boot.example"}, "is not an http or https address"),
    ({"base_url": "http://boot.example/${x}"}, "is not an http or https address"),
])  # fmt: skip
def test_bad_settings(metal: Equinix, folder: Path, given: dict[str, str], says: str) -> None:
    with pytest.raises(InputError) as caught:
        push(metal, folder, "web", **{"destination": "out"} | given)
    assert says in caught.value.message
    with pytest.raises(InputError, match="no such file or directory"):
        push(metal, folder, "none", "out")
    (folder / "web-cmdline").write_text("a && b")
    with pytest.raises(InputError, match="iPXE would take"):
        push(metal, folder, "web", "out")


def test_a_device_boots_and_is_removed(metal: Equinix, folder: Path) -> None:
    push(metal, folder, "web", metal.base)
    metal.fixed = 2
    said = run(metal, folder, data=b"hello")
    assert called(folder) == ["device-1@sos.ams1.platformequinix.com"]
    assert (metal.devices, said[-1]) == ({}, "removed: device device-1")
    sent = next(body.decode() for method, path, body in metal.seen if method == "POST")
    for word in ('"facility": ["ams1"]', '"plan": "baremetal_0"', '"userdata": "hello"', '"always_pxe": true',
                 f'"ipxe_script_url": "{metal.base}/web-equinixmetal.ipxe"'):  # fmt: skip
        assert word in sent
    said = run(metal, folder, keep=True, console="false", zone="am", always_pxe="false")
    assert list(metal.devices) == ["device-1"]
    assert metal.devices["device-1"]["metro"] == "am"
    assert "kept: device device-1; remove it with: curl -X DELETE" in said[-1]
    assert TOKEN not in "".join(said)
    assert len(called(folder)) == 1
    run(metal, folder, device="device-1")  # this one is not ours
    assert (list(metal.devices), metal.rebooted) == (["device-1"], ["device-1"])


def test_failures_remove_the_device(metal: Equinix, folder: Path) -> None:
    push(metal, folder, "web", metal.base)
    (folder / "status").write_text("255")
    with pytest.raises(MachineError, match="can't be reached"):
        run(metal, folder)
    assert (metal.devices, len(called(folder))) == ({}, 5)
    metal.states = ["queued", "failed"]
    with pytest.raises(MachineError, match="could not be provisioned"):
        run(metal, folder)
    assert metal.devices == {}
    metal.spoil("POST /metal/v1/projects", 503, b'{"errors": ["No capacity"]}')
    with pytest.raises(NetworkError, match="No capacity") as caught:
        run(metal, folder)
    assert "no machine of this type is free" in caught.value.hint
    metal.spoil("GET /metal/v1/devices", 500)
    metal.cut("GET /metal/v1/projects")
    metal.states, _ = ["active"], (folder / "status").write_text("0")
    run(metal, folder)


def test_the_files_are_served_from_here(metal: Equinix, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    metal.files["web-equinixmetal.ipxe"] = b""  # the fake looks among its own
    base = f"http://127.0.0.1:{port}"
    monkeypatch.chdir(folder)
    monkeypatch.setattr(Equinix, "base", base)
    said = run(metal, folder, base_url=base, serve=f"127.0.0.1:{port}")
    assert sum("HEAD /web-" in line for line in said) == 3, said
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)
    with pytest.raises(InputError, match=r"c3\.large\.arm64 is aarch64, and web-kernel for x86_64"):
        run(metal, folder, base_url=base, serve=f"127.0.0.1:{port}", machine="c3.large.arm64")
    for wrong in ("x", "127.0.0.1:99999"):
        with pytest.raises(InputError, match=r"--serve .* is not understood"):
            run(metal, folder, base_url=base, serve=wrong)


def test_what_cannot_run_is_said_first(metal: Equinix, folder: Path) -> None:
    with pytest.raises(InputError, match=r"would not find .*/files/web-kernel \(404\)"):
        run(metal, folder)
    push(metal, folder, "web", metal.base)
    for given, says in (
        ({"console": "false"}, "the machine would be removed at once"), ({"console": "no"}, "neither true nor false"),
        ({"machine": "z9"}, "there is no machine z9"), ({"project_id": "none"}, "there is no project none"),
        ({"device": "none"}, "there is no device none"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=says):
            run(metal, folder, **given)
    with pytest.raises(NetworkError, match="does not accept the login") as caught:
        run(metal, folder, token="wrong")
    assert "METAL_API_TOKEN" in caught.value.hint
    assert any("would send: POST" in line for line in run(metal, folder, dry_run=True))
    assert metal.count("POST") == 0
