"""QEMU's command line, and what is chosen before there is one."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from linuxkit.errors import HostError, InputError
from linuxkit.machine.machine import Channels
from linuxkit.platforms import accel, qemu
from linuxkit.platforms.qemu import Disk, MachineSpec, Networking, Port, parse_networking, parse_ports

pytestmark = pytest.mark.unit
TCG = accel.Accel("tcg,thread=single", "")
KVM = accel.Accel("kvm", "")
PLAIN = MachineSpec(
    qemu=Path("/usr/bin/qemu-system-x86_64"), accel=TCG, kernel=Path("web-kernel"), initrd=Path("web-initrd.img"),
    cmdline="console=ttyS0", mac="02:00:00:00:00:01",
)  # fmt: skip


def words(spec: MachineSpec) -> list[str]:
    return qemu.command(spec, Channels(qmp=3, console=4, report=5))


def values(spec: MachineSpec, option: str) -> list[str]:
    arguments = words(spec)
    return [value for name, value in pairwise(arguments) if name == option]


def test_the_plain_machine_word_for_word() -> None:
    assert " ".join(words(PLAIN)) == (
        "/usr/bin/qemu-system-x86_64 -nodefaults -no-user-config -machine q35,sata=off -bios qboot.rom "
        "-accel tcg,thread=single -cpu max -smp 1 -m 1024M -display none "
        "-chardev socket,id=qmp,fd=3 -mon chardev=qmp,mode=control "
        "-chardev socket,id=console,fd=4 -serial chardev:console "
        "-chardev socket,id=report,fd=5 -device virtio-serial-pci,id=ports "
        "-device virtserialport,bus=ports.0,chardev=report,name=org.linuxkit.report "
        "-object rng-random,id=rng0,filename=/dev/urandom -device virtio-rng-pci,rng=rng0 "
        "-kernel web-kernel -initrd web-initrd.img -append console=ttyS0 "
        "-netdev user,id=t0 -device virtio-net-pci,netdev=t0,mac=02:00:00:00:00:01,romfile="
    )


def test_arm64_has_its_own_board_and_cheap_pointer_authentication() -> None:
    arguments = " ".join(words(replace(PLAIN, arch="aarch64")))
    assert "-machine virt,gic-version=max -accel tcg,thread=single -cpu max,pauth-impdef=on" in arguments
    assert "qboot" not in arguments


def test_with_hardware_the_guest_sees_the_hosts_processor() -> None:
    assert values(replace(PLAIN, accel=KVM), "-cpu") == ["host"]


def test_disks_and_the_data_cd_are_virtio() -> None:
    spec = replace(PLAIN, disks=(Disk(Path("a,b.img")), Disk(Path("c.qcow2"), "qcow2")), data=Path("s/data.iso"))
    assert values(spec, "-drive") == [
        "file=a,,b.img,format=raw,if=none,id=disk0,discard=unmap",
        "file=c.qcow2,format=qcow2,if=none,id=disk1,discard=unmap",
        "file=s/data.iso,format=raw,if=none,id=data,media=cdrom,readonly=on",
    ]
    devices = values(spec, "-device")
    assert "virtio-blk-pci,drive=disk0,serial=disk0" in devices
    assert "scsi-cd,drive=data,bus=scsi0.0" in devices


@pytest.mark.parametrize(
    ("networking", "ports", "netdev"),
    [
        ("user", (Port(8080, 80), Port(53, 53, "udp", "127.0.0.1")),
         "user,id=t0,hostfwd=tcp::8080-:80,hostfwd=udp:127.0.0.1:53-:53"),
        ("tap,tap0", (), "tap,id=t0,ifname=tap0,script=no,downscript=no"),
        ("bridge,br0", (), "bridge,id=t0,br=br0"),
    ],
)  # fmt: skip
def test_networks(networking: str, ports: tuple[Port, ...], netdev: str) -> None:
    assert values(replace(PLAIN, networking=parse_networking(networking), ports=ports), "-netdev") == [netdev]


def test_no_network() -> None:
    spec = replace(PLAIN, networking=Networking(qemu.Network.NONE))
    assert values(spec, "-nic") == ["none"]
    assert "-netdev" not in words(spec)


def test_what_else_can_be_asked_for() -> None:
    spec = replace(PLAIN, usb=True, gui=True, devices=("virtio-balloon-pci",), cpus=4, memory=2048, extra=("-S",))
    arguments = " ".join(words(spec))
    for wanted in ("-device qemu-xhci", "-display gtk", "-device virtio-balloon-pci", "-smp 4", "-m 2048M", "-S"):
        assert wanted in arguments
    assert "qboot" not in arguments  # it has no screen


def test_an_initrd_with_a_comma_is_one_file() -> None:
    assert values(replace(PLAIN, initrd=Path("a,b-initrd.img")), "-initrd") == ["a,,b-initrd.img"]


@pytest.mark.parametrize(
    ("text", "port"),
    [
        ("8080:80", Port(8080, 80)), ("8080:80/tcp", Port(8080, 80)), ("53:53/udp", Port(53, 53, "udp")),
        ("127.0.0.1:8080:80", Port(8080, 80, "tcp", "127.0.0.1")), ("0:80", Port(0, 80)),
    ],
)  # fmt: skip
def test_ports(text: str, port: Port) -> None:
    assert parse_ports(text) == (port,)


def test_ranges_of_ports() -> None:
    assert parse_ports("127.0.0.1:8080-8082:80-82/udp") == tuple(
        Port(8080 + n, 80 + n, "udp", "127.0.0.1") for n in range(3)
    )
    assert parse_ports("80-80:90-90") == (Port(80, 90),)


@pytest.mark.parametrize(
    "text",
    ["8080-8082:80-81", "90-80:80-90", "0-1:80-81", "1-:1-", "-5:5", "1-2-3:1-3", "65535-65536:1-2", "1-600:1-600",
     "", "80", "a:80", "80:0", "80:65536", "65536:80", "80:80/sctp", "80:80/", "::1:80:80", "80:-1", "8\u0660:80"],
)
def test_bad_ports_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="--publish"):
        parse_ports(text)


@pytest.mark.parametrize("text", ["tap", "bridge", "user,x", "none,x", "vmnet", "tap,"])
def test_bad_networks_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="--networking"):
        parse_networking(text)


# -- acceleration

INTEL = "processor\t: 0\nflags\t\t: fpu vme vmx sse\n"
AMD = "flags\t\t: fpu svm\n"
NESTED = "flags\t\t: fpu vme hypervisor\nbugs\t\t: vmx_not_here\n"


def this(arch: str = "x86_64", cpuinfo: str = INTEL, kvm: str = "", system: str = "linux") -> accel.Host:
    return accel.Host(arch=arch, system=system, cpuinfo=cpuinfo, kvm=kvm, hvf=system == "darwin")


@pytest.mark.parametrize(
    ("host", "arch", "wanted", "value", "why"),
    [
        (this(), "x86_64", "", "kvm", "this machine has it"),
        (this(cpuinfo=AMD), "x86_64", "", "kvm", "this machine has it"),
        (this(cpuinfo=NESTED), "x86_64", "", accel.TCG, "neither vmx nor svm"),
        (this(cpuinfo=""), "x86_64", "", accel.TCG, "neither vmx nor svm"),
        (this(kvm="there is no /dev/kvm"), "x86_64", "", accel.TCG, "there is no /dev/kvm"),
        (this(), "aarch64", "", accel.TCG, "the guest is aarch64 and this machine is x86_64"),
        (this("aarch64", cpuinfo="Features : fp asimd\n"), "aarch64", "", "kvm", "this machine has it"),
        (this("aarch64", system="darwin", kvm="x"), "aarch64", "", "hvf", "this machine has it"),
        (this("aarch64", system="darwin", kvm="x"), "x86_64", "", accel.TCG, "the guest is x86_64"),
        (this(), "x86_64", "tcg", accel.TCG, "as asked"),
        (this(), "x86_64", "tcg,thread=multi", "tcg,thread=multi", "as asked"),
        (this(cpuinfo=NESTED), "x86_64", "kvm", "kvm", "as asked"),  # taken at its word
        (this(cpuinfo=NESTED), "x86_64", "kvm:tcg", accel.TCG, "neither vmx nor svm"),
        (this(), "x86_64", "kvm:tcg", "kvm", "this machine has it"),
    ],
)
def test_the_accelerator_is_one_that_can_work(
    host: accel.Host, arch: str, wanted: str, value: str, why: str
) -> None:
    chosen = accel.choose(wanted, host, arch)
    assert chosen.value == value
    assert why in chosen.why


@pytest.mark.parametrize(("arch", "wanted"), [("aarch64", "kvm"), ("x86_64", "hvf:xen")])
def test_an_accelerator_that_cannot_work_is_refused_with_the_reason(arch: str, wanted: str) -> None:
    with pytest.raises(HostError, match="cannot be used"):
        accel.choose(wanted, this(), arch)


def test_this_machine_is_looked_at_without_trusting_what_exists(tmp_path: Path) -> None:
    (tmp_path / "kvm").write_bytes(b"")  # opens, but is no KVM
    (tmp_path / "cpuinfo").write_text(INTEL)
    assert accel.this_host(tmp_path / "cpuinfo", tmp_path / "kvm").kvm
    assert "there is no" in accel.this_host(tmp_path / "cpuinfo", tmp_path / "none").kvm


def test_names_of_architectures() -> None:
    names = ("amd64", "x86_64", "arm64", "AARCH64", "riscv64")
    assert [accel.machine_arch(n) for n in names] == ["x86_64"] * 2 + ["aarch64"] * 2 + ["riscv64"]
    with pytest.raises(InputError, match="unknown architecture 'mips'"):
        accel.machine_arch("mips")


def test_riscv64_has_its_board() -> None:
    arguments = " ".join(words(replace(PLAIN, arch="riscv64")))
    assert "-machine virt -accel tcg,thread=single -cpu rv64" in arguments
    assert "romfile" not in arguments
