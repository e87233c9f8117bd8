"""Shared folders, the TPM and the screen: what is asked for, what QEMU is told, and the programs beside it."""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from linuxkit.errors import HostError, InputError, MachineError
from linuxkit.machine.helper import Helper
from linuxkit.machine.machine import Channels, Machine
from linuxkit.platforms import accel, qemu, shares
from linuxkit.platforms.prepare import Request, prepare
from linuxkit.platforms.shares import Share, parse_shares
from support.vm import initrd_of

pytestmark = pytest.mark.unit
SPEC = qemu.MachineSpec(Path("qemu"), accel.Accel("tcg", ""), Path("k"))


def values(spec: qemu.MachineSpec, option: str, helpers: tuple[int, ...] = ()) -> list[str]:
    arguments = qemu.command(spec, Channels(3, 4, 5, helpers))
    return [value for name, value in pairwise(arguments) if name == option]


# -- what is asked for


def test_folders_have_tags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b=c", "d"):
        (tmp_path / name).mkdir()
    assert parse_shares(("a", "b=c", "tools=d"), "virtiofs") == (
        Share(tmp_path / "a", "virtiofs0"), Share(tmp_path / "b=c", "virtiofs1"), Share(tmp_path / "d", "tools"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("texts", "message"),
    [(("none",), "there is no folder none"), (("t=none",), "no folder none"), (("a,b=.",), "a tag is of letters"),
     (("x" * 37 + "=.",), "36 at most"), (("t=.", "t=."), "tag t is there twice"), (("=.",), "a tag is")],
)  # fmt: skip
def test_bad_folders_are_refused(texts: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_shares(texts, "virtiofs")


@pytest.mark.parametrize(
    ("text", "told"), [(":1", "127.0.0.1:1"), ("0.0.0.0:2", "0.0.0.0:2"), ("[::1]:0", "[::1]:0"), ("me:05", "me:5")]
)
def test_screens_are_for_this_machine_only_unless_it_is_said(text: str, told: str) -> None:
    assert qemu.parse_vnc(text) == told


@pytest.mark.parametrize("text", ["1", "", ":", ":x", "a,b:1", ":9999", "1.2.3.4:1,password"])
def test_bad_screens(text: str) -> None:
    with pytest.raises(InputError, match="--vnc"):
        qemu.parse_vnc(text)


# -- what QEMU is told


def test_folders_by_virtiofs_word_for_word() -> None:
    spec = replace(SPEC, virtiofs=(Share(Path("/a"), "virtiofs0"), Share(Path("/b"), "tools")), memory=512)
    assert values(spec, "-machine", (7, 8)) == ["q35,sata=off,memory-backend=mem"]
    assert "memory-backend-memfd,id=mem,size=512M,share=on" in values(spec, "-object", (7, 8))
    assert values(spec, "-chardev", (7, 8))[-2:] == ["socket,id=virtiofs0,fd=7", "socket,id=virtiofs1,fd=8"]
    assert values(spec, "-device", (7, 8))[-2:] == [
        "vhost-user-fs-pci,chardev=virtiofs0,tag=virtiofs0", "vhost-user-fs-pci,chardev=virtiofs1,tag=tools",
    ]  # fmt: skip


def test_folders_by_9p_word_for_word() -> None:
    spec = replace(SPEC, ninep=(Share(Path("/a,b"), "data"),))
    assert values(spec, "-fsdev") == ["local,id=ninep0,path=/a,,b,security_model=mapped-xattr"]
    assert values(spec, "-device")[-1] == "virtio-9p-pci,fsdev=ninep0,mount_tag=data"
    assert values(spec, "-machine") == ["q35,sata=off"]


def test_a_tpm_word_for_word() -> None:
    spec = replace(SPEC, tpm=True, virtiofs=(Share(Path("/a"), "x"),))
    assert values(spec, "-chardev", (7, 8))[-1] == "socket,id=tpm,fd=8"
    assert values(spec, "-tpmdev", (7, 8)) == ["emulator,id=tpm0,chardev=tpm"]
    assert values(spec, "-device", (7, 8))[-1] == "tpm-tis,tpmdev=tpm0"
    assert values(replace(spec, arch="aarch64"), "-device", (7, 8))[-1] == "tpm-tis-device,tpmdev=tpm0"


def test_a_screen_word_for_word() -> None:
    spec = replace(SPEC, vnc="127.0.0.1:1")
    assert values(spec, "-display") == ["vnc=127.0.0.1:1"]
    assert "virtio-vga" in values(spec, "-device")
    assert values(spec, "-bios") == []
    devices = values(replace(spec, arch="aarch64"), "-device")
    assert "virtio-gpu-pci" in devices and "virtio-keyboard-pci" in devices


# -- the programs


def test_prepare_finds_the_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "qemu"
    fake.write_text("")
    fake.chmod(0o755)
    (tmp_path / "k-kernel").write_bytes((bytes(0x202) + b"HdrS").ljust(1024, b"\0"))
    (tmp_path / "k-initrd.img").write_bytes(initrd_of(b""))
    request = Request(
        str(tmp_path / "k"), qemu=fake, accel="tcg", virtiofs=(f"in={tmp_path}",), ninep=(str(tmp_path),), tpm=True,
        vnc=":3", virtiofsd=fake,
    )  # fmt: skip
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError, match="swtpm is needed for --tpm"):
        prepare(request)
    (tmp_path / "swtpm").write_text("")
    (tmp_path / "swtpm").chmod(0o755)
    prepared = prepare(request)
    with prepared.lock:
        serve, tpm = prepared.helpers
        assert serve.command(9) == [str(fake), "--fd=9", "-o", f"source={tmp_path}"]
        assert " ".join(tpm.command(9)) == (
            f"{tmp_path}/swtpm socket --tpm2 --tpmstate dir={tmp_path}/k-state/tpm --ctrl type=unixio,clientfd=9 "
            "--terminate"
        )
        assert (tmp_path / "k-state/tpm").stat().st_mode & 0o777 == 0o700
        assert f"shared: {tmp_path}; in the guest: mount -t virtiofs in DIR" in prepared.notes
        told = f"shared: {tmp_path}; in the guest: mount -t 9p -o trans=virtio,version=9p2000.L 9p0 DIR"
        assert told in prepared.notes
        assert "screen: vnc://127.0.0.1:5903" in prepared.notes


def test_a_virtiofsd_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "VIRTIOFSD", (str(tmp_path / "none"),))
    monkeypatch.setenv("PATH", str(tmp_path))
    folders = [Share(tmp_path, "x")]
    with pytest.raises(HostError, match="virtiofsd is needed for --virtiofs"):
        shares.virtiofsd(folders)
    with pytest.raises(HostError, match="no such program"):
        shares.virtiofsd(folders, tmp_path / "none")
    assert shares.virtiofsd([]) == ()
    (tmp_path / "virtiofsd").write_text("")
    (tmp_path / "virtiofsd").chmod(0o755)
    assert shares.virtiofsd(folders)[0].command(4)[0] == str(tmp_path / "virtiofsd")
    with pytest.raises(InputError, match="takes no comma"):
        shares.virtiofsd([Share(tmp_path / "a,b", "x")])


SERVE = "import socket; s = socket.socket(fileno=int({fd})); {accept}; s.sendall(s.recv(9).upper())"
QEMU = "import socket; s = socket.socket(fileno=int({fd})); s.sendall(b'hello'); assert s.recv(9) == b'HELLO'"


@pytest.mark.parametrize("listens", [False, True])
def test_a_helper_and_qemu_are_connected(tmp_path: Path, listens: bool) -> None:
    def serve(fd: int) -> list[str]:
        return [sys.executable, "-c", SERVE.format(fd=fd, accept="s = s.accept()[0]" if listens else "pass")]

    def command(channels: Channels) -> list[str]:
        return [sys.executable, "-c", QEMU.format(fd=channels.helpers[0])]

    with Machine(command, state=tmp_path, helpers=[Helper("x", serve, listens)]) as machine:
        machine.wait(20)
    assert (tmp_path / "x.log").read_bytes() == b""


def test_the_words_of_a_helper_that_fails(tmp_path: Path) -> None:
    def fail(fd: int) -> list[str]:
        return ["/bin/sh", "-c", "echo no such luck >&2; exit 3"]

    def command(channels: Channels) -> list[str]:
        return [sys.executable, "-c", QEMU.format(fd=channels.helpers[0])]

    machine = Machine(command, state=tmp_path, helpers=[Helper("tpm", fail)])
    with machine, pytest.raises(MachineError, match="sh failed: no such luck"):
        machine.wait(20)


def test_helpers_end_when_qemu_cannot_be_started(tmp_path: Path) -> None:
    def wait(fd: int) -> list[str]:
        return ["/bin/sh", "-c", f"echo $$ > {tmp_path}/pid; exec sleep 100"]

    machine = Machine(lambda _: [str(tmp_path / "none")], state=tmp_path, helpers=[Helper("x", wait)])
    with pytest.raises(HostError, match="could not be started"), machine:
        pass
    assert [helper.poll() for helper in machine._helpers] == [-15]
