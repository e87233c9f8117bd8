"""`linuxkit run` on the hypervisors of this machine, against programs that play them: begin, go on, end, clean up."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from linuxkit.cli import run_places
from linuxkit.errors import HostError, LinuxkitError, MachineError
from linuxkit.hypervisors import wire
from linuxkit.oci.transport import Transport
from linuxkit.places.journal import Journal
from linuxkit.places.place import Job, settle
from linuxkit.places.table import PLACES
from linuxkit.platforms import accel
from support.builds import YAML
from support.formats import cache_for_all
from support.kernels import bzimage
from support.vm import initrd_of

pytestmark = pytest.mark.unit
FAKES = Path(__file__).parents[1] / "support" / "hypervisors"
MICRO = ("firecracker", "cloud-hypervisor", "virtualization", "hyperkit")
PROGRAMS = {"virtualization": "vfkit"}


def play(folder: Path, name: str, script: str) -> Path:
    """A program of that name that runs one of the scripts."""
    folder.mkdir(exist_ok=True)
    program = folder / name
    program.write_text(f"#!{sys.executable} -IS\n" + (FAKES / f"{script}.py").read_text())
    program.chmod(0o755)
    return program


@pytest.fixture
def prefix(tmp_path: Path) -> Callable[[str], str]:
    def make(act: str) -> str:
        at = tmp_path / "web"
        Path(f"{at}-kernel").write_bytes(bzimage(gzip.compress(b"\x7fELF".ljust(4096, b"k"))))
        Path(f"{at}-initrd.img").write_bytes(initrd_of(b"x"))
        Path(f"{at}-cmdline").write_text(f"console=ttyS0 act={act}")
        return str(at)

    return make


class Ran:
    """A run in this process, with what it said and showed."""

    def __init__(self, place: str, target: str, act: Callable[[bytes], None] = lambda seen: None, *, keep: bool = False,
                 data: bytes | None = None, **given: Any) -> None:  # fmt: skip
        self.seen, self.said, self.error = b"", list[str](), None  # type: Any

        def output(data: bytes) -> None:
            self.seen += data
            act(self.seen)

        settings = PLACES[place].load().RUN_SETTINGS
        journal = Journal(self.said.append, keep=keep)
        job = Job(settings=settle(settings, given, {}), environment={}, transport=Transport(environment={}),
                  journal=journal, log=self.said.append, output=output, keep=keep, data=data)  # fmt: skip
        try:
            with journal:
                run = PLACES[place].load().Run(job, target)
                run.preflight()
                run.run()
        except (LinuxkitError, KeyboardInterrupt) as e:
            self.error = e


@pytest.fixture
def micro(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """This machine has everything that those programs need."""
    for place in MICRO:
        play(tmp_path / "bin", PROGRAMS.get(place, place), "microvm")
        monkeypatch.setattr(PLACES[place].load().Run, "systems", {})
    host = accel.Host(arch="x86_64", system="linux", cpuinfo="flags : vmx\n")
    monkeypatch.setattr(accel, "this_host", lambda *_: host)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    return str(tmp_path / "bin")


def stop_at(text: bytes) -> Callable[[bytes], None]:
    """Ctrl-C, once, as soon as the console shows something."""
    done: list[bool] = []

    def act(seen: bytes) -> None:
        if text in seen and not done:
            done.append(True)
            raise KeyboardInterrupt

    return act


@pytest.mark.parametrize("place", MICRO)
def test_a_machine_that_powers_off_ends_the_run_well(place: str, micro: str, prefix: Callable[[str], str]) -> None:
    networking = {"networking": "none"} if place == "hyperkit" else {}
    ran = Ran(place, prefix("off"), data=b"user data", disk=("size=1M",), **networking)
    assert ran.error is None, ran.said
    assert ran.seen == b"hello from the guest\r\ngoodbye\r\n"
    state = Path(prefix("off") + "-state")
    assert (state / "console.log").read_bytes() == ran.seen
    assert (state / "disk.img").stat().st_size == 1 << 20
    assert not [p for p in state.iterdir() if p.is_socket()]


@pytest.mark.parametrize("place", MICRO)
def test_ctrl_c_asks_the_guest(place: str, micro: str, prefix: Callable[[str], str]) -> None:
    networking = {"networking": "none"} if place == "hyperkit" else {}
    ran = Ran(place, prefix("talk"), stop_at(b"guest"), **networking)
    assert ran.error is None, ran.said
    assert ran.seen.endswith(b"goodbye\r\n")
    assert any("asking the guest to shut down" in line for line in ran.said)


def test_a_console_can_be_kept_off_the_terminal(micro: str, prefix: Callable[[str], str]) -> None:
    ran = Ran("hyperkit", prefix("off"), networking="none", console_file=True)
    assert (ran.error, ran.seen) == (None, b"")
    assert Path(prefix("off") + "-state", "console.log").read_bytes().endswith(b"goodbye\r\n")


def test_a_guest_that_does_not_end_is_ended(micro: str, prefix: Callable[[str], str]) -> None:
    ran = Ran("firecracker", prefix("deaf"), stop_at(b"guest"), stop_timeout=1)
    assert isinstance(ran.error, MachineError)
    assert "did not power off within 1 s" in ran.error.message


def test_a_program_that_fails_says_why(micro: str, prefix: Callable[[str], str]) -> None:
    ran = Ran("firecracker", prefix("fail"))
    assert isinstance(ran.error, MachineError)
    assert ran.error.message == "firecracker could not start the machine: cannot create the machine"
    assert "firecracker.log" in ran.error.hint


def test_a_panic_ends_it(micro: str, prefix: Callable[[str], str]) -> None:
    ran = Ran("cloud-hypervisor", prefix("panic"))
    assert isinstance(ran.error, MachineError)
    assert ran.error.message == "kernel panic: no root"


def test_a_state_folder_with_a_long_path_has_its_sockets_elsewhere(micro: str, prefix: Callable[[str], str],
                                                                   tmp_path: Path) -> None:  # fmt: skip
    state = tmp_path / ("long" * 30)
    ran = Ran("firecracker", prefix("talk"), stop_at(b"guest"), state=str(state))
    assert ran.error is None, ran.said
    assert not list(Path("/tmp").glob(f"linuxkit-*/{'firecracker.sock'}"))


def test_what_is_missing_is_said(prefix: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    expected = {
        "firecracker": "needs firecracker, which is not installed", "hyperkit": "is there on macOS only",
        "virtualization": "is there on macOS only", "libvirt": "needs virsh, which is not installed",
    }  # fmt: skip
    for place, words in expected.items():
        ran = Ran(place, prefix("off"))
        assert isinstance(ran.error, HostError)
        assert words in ran.error.message
        assert ran.error.hint
    assert not Path(prefix("off") + "-state").exists()  # nothing was begun


def test_without_kvm_there_is_no_firecracker(micro: str, prefix: Callable[[str], str],
                                             monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    host = accel.Host(arch="x86_64", system="linux", kvm="there is no /dev/kvm")
    monkeypatch.setattr(accel, "this_host", lambda *_: host)
    ran = Ran("firecracker", prefix("off"))
    assert isinstance(ran.error, HostError)
    assert ran.error.message == "Firecracker needs KVM: there is no /dev/kvm"


# -- VirtualBox, by the command


@pytest.fixture
def vbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    play(tmp_path / "bin", "VBoxManage", "vboxmanage")
    play(tmp_path / "bin", "guestbox", "guestbox")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    (tmp_path / "web.img").write_bytes(b"\xeb" + b"\1" * 509 + b"\x55\xaa" + bytes(1 << 20))
    return tmp_path / "bin"


def run(*arguments: str, **more: Any) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "linuxkit", "run", *arguments]
    return subprocess.run(command, capture_output=True, timeout=60, **more)


def machines(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "machines.json").read_bytes())
    return found


def test_virtualbox_from_create_to_delete(vbox: Path, tmp_path: Path) -> None:
    before = (tmp_path / "web.img").read_bytes()
    done = run("vbox", "--disk", "size=1M", "--disk", "size=2M,format=raw", "--data", "hi", str(tmp_path / "web"),
               input=b"halt\n")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == b"hello from the guest\r\nheard: halt\ngoodbye\r\n"
    calls = [line.split()[0] for line in (vbox / "calls.log").read_text().splitlines()]
    first = ["showvminfo", "createvm", "modifyvm", "storagectl", "storagectl", *["storageattach"] * 4, "startvm"]
    assert calls[: len(first)] == first
    assert calls[-1] == "unregistervm"
    assert machines(vbox) == {}
    assert (tmp_path / "web.img").read_bytes() == before
    state = tmp_path / "web-state"
    assert {"boot.vmdk", "disk.vmdk", "disk-flat.img", "disk1.vmdk", "data.iso"} <= {p.name for p in state.iterdir()}


def test_virtualbox_ends_with_a_signal(vbox: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "linuxkit", "run", "vbox", str(tmp_path / "web")]
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"hello from the guest\r\n"
    child.send_signal(signal.SIGTERM)
    out, said = child.communicate(timeout=30)
    assert (child.returncode, out) == (0, b"goodbye\r\n"), said
    assert machines(vbox) == {}


def test_virtualbox_keeps_what_it_is_told_to(vbox: Path, tmp_path: Path) -> None:
    done = run("vbox", "--keep", "--name", "my box", str(tmp_path / "web"), input=b"halt\n")
    assert done.returncode == 0, done.stderr
    assert b"kept: machine my box of VirtualBox; remove it with: " in done.stderr
    assert list(machines(vbox)) == ["my box"]
    again = run("vbox", "--name", "my box", str(tmp_path / "web"))
    assert again.returncode == 1
    assert b"VirtualBox has a machine 'my box' already" in again.stderr
    assert list(machines(vbox)) == ["my box"]


@pytest.mark.parametrize("failing", ["modifyvm", "virtio-scsi", "data.iso", "startvm"])
def test_virtualbox_leaves_nothing_when_it_fails(failing: str, vbox: Path, tmp_path: Path) -> None:
    (vbox / "fail.txt").write_text(failing)
    done = run("vbox", "--disk", "size=1M", "--data", "hi", str(tmp_path / "web"))
    assert done.returncode == 1
    assert b"told to fail" in done.stderr
    assert machines(vbox) == {}
    assert (tmp_path / "web.img").is_file()
    assert (tmp_path / "web-state" / "disk.vmdk").is_file()


def test_a_compressed_disk_is_unpacked_for_virtualbox(vbox: Path, tmp_path: Path) -> None:
    from linuxkit.encode import vmdk
    from linuxkit.encode.pieces import literal

    content = (tmp_path / "web.img").read_bytes()
    (tmp_path / "web.img").unlink()
    with (tmp_path / "web.vmdk").open("wb") as out:
        out.write(vmdk.head(vmdk.virtual_size([literal(content)]), name="web.vmdk", seed="x"))
        vmdk.body([literal(content)], out)
    done = run("vbox", str(tmp_path / "web"), input=b"halt\n")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "web-state" / "boot.img").read_bytes()[: len(content)] == content
    assert b"unpacked, so that it can be written on" in done.stderr


def test_a_dry_run_makes_nothing(vbox: Path, tmp_path: Path) -> None:
    done = run("vbox", "--dry-run", "--disk", "size=1M", str(tmp_path / "web"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{vbox}/VBoxManage createvm --name web".encode())
    assert not (vbox / "calls.log").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bin", "web.img"]


# -- VMware, Hyper-V


def test_vmware_from_start_to_end(vbox: Path, tmp_path: Path) -> None:
    play(vbox, "vmrun", "vmrun")
    done = run("vmware", "--disk", "size=1M", "--data", "hi", "--name", 'a "name" | x', str(tmp_path / "web"),
               input=b"halt\n")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == b"hello from the guest\r\nheard: halt\ngoodbye\r\n"
    assert not (tmp_path / "web-state" / "linuxkit.vmx").exists()
    command = [sys.executable, "-m", "linuxkit", "run", "vmware", "--keep", str(tmp_path / "web")]
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"hello from the guest\r\n"
    child.send_signal(signal.SIGINT)
    out, said = child.communicate(timeout=30)
    assert (child.returncode, out) == (0, b"goodbye\r\n"), said
    assert (tmp_path / "web-state" / "linuxkit.vmx").exists()


@pytest.fixture
def hyper_v(vbox: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """PowerShell is here, and what the pipe is to it a socket is to us."""
    play(vbox, "powershell", "powershell")
    module = PLACES["hyperv"].load()
    monkeypatch.setattr(module.Run, "systems", {})
    connect = wire.connect
    monkeypatch.setattr(wire, "connect", lambda address: connect(str(vbox / "com1")))
    return vbox


def test_hyperv_from_new_to_remove(hyper_v: Path, tmp_path: Path) -> None:
    ran = Ran("hyperv", str(tmp_path / "web"), stop_at(b"guest"), data=b"hi", disk=("size=1M",), name="it's")
    assert ran.error is None, ran.said
    assert ran.seen == b"hello from the guest\r\ngoodbye\r\n"
    assert json.loads((hyper_v / "hyperv.json").read_bytes()) == {}
    kept = Ran("hyperv", str(tmp_path / "web"), stop_at(b"guest"), keep=True)
    assert kept.error is None, kept.said
    assert json.loads((hyper_v / "hyperv.json").read_bytes())["web"]["drives"] == [f"{tmp_path}/web-state/boot.vhdx"]
    assert any("kept: machine web of Hyper-V; remove it with: " in line for line in kept.said)
    again = Ran("hyperv", str(tmp_path / "web"))
    assert isinstance(again.error, HostError)
    assert "Hyper-V has a machine 'web' already" in again.error.message
    failed = Ran("hyperv", str(tmp_path / "web"), name="fail-in-the-middle")
    assert isinstance(failed.error, HostError)
    assert list(json.loads((hyper_v / "hyperv.json").read_bytes())) == ["web"]


def test_hyperv_scripts_and_its_disk_need_no_windows(tmp_path: Path) -> None:
    """The way to it imports nothing that only POSIX has, and --dry-run prints the script."""
    (tmp_path / "web.img").write_bytes(bytes(510) + b"\x55\xaa" + bytes(1 << 20))
    names = ("fcntl", "termios", "pty", "tty", "resource", "pwd", "grp")
    block = f"import sys\nfor name in {names}: sys.modules[name] = None\n"
    code = block + "import ssl, shutil\nfrom linuxkit.cli.main import main\nsys.platform = 'win32'\nmain()\n"
    done = subprocess.run([sys.executable, "-c", code, "run", "hyperv", "--dry-run", str(tmp_path / "web")],
                          capture_output=True, timeout=60)  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    assert b"$vm = New-VM -Name 'web' -Generation 2" in done.stdout
    assert f"would make {tmp_path}/web-state/boot.vhdx".encode() in done.stderr


def test_what_is_missing_is_built_on_the_way(vbox: Path, tmp_path: Path) -> None:
    """From YAML, and from a prefix with YAML of that name; what is there already is taken as it is."""
    cache = cache_for_all(tmp_path)
    (tmp_path / "web.img").unlink()
    (tmp_path / "web.yml").write_text(YAML)
    environment = os.environ | {"LINUXKIT_CACHE": str(cache), "LINUXKIT_OFFLINE": "1"}
    for target, built in (("web.yml", True), ("web", False)):
        done = run("vbox", "--dry-run", target, cwd=tmp_path, env=environment)
        assert done.returncode == 0, done.stderr
        assert (b"built web.img" in done.stderr) == built
        assert b"--type hdd --medium" in done.stdout
    (tmp_path / "web.img").unlink()
    assert b"built web.img" in run("vbox", "--dry-run", "web", cwd=tmp_path, env=environment).stderr


def test_a_bare_run_takes_the_place_that_knows_its_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_places, "default_place", lambda *_: "virtualization")
    for arguments, wanted in (
        (["web"], "virtualization"), (["--cpus", "2", "--disk=size=1G", "web"], "virtualization"),
        (["--report", "web"], "qemu"), (["--uefi", "web"], "qemu"), (["--help"], "qemu"),
    ):  # fmt: skip
        assert run_places._choose(arguments) == wanted


def test_the_place_comes_first(tmp_path: Path) -> None:
    done = run("--cpus", "2", "vbox", str(tmp_path / "web"))
    assert done.returncode == 2
    assert b"the place comes first: linuxkit run vbox" in done.stderr


