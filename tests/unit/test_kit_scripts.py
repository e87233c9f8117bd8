"""The kit's shell scripts, run by this machine's shell with their surroundings replaced."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Literal

import pytest

from linuxkit.data import data_dir
from linuxkit.packages.recipe import load

pytestmark = pytest.mark.unit


def script(package: str, path: str, tmp_path: Path) -> Path:
    (contents,) = (f.contents for f in load(data_dir("kit") / package).files if f.path == path)
    target = tmp_path / "script"
    target.write_text(contents)
    target.chmod(0o755)
    return target


def run(command: list[str | Path], tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    env = {"PATH": path, **environment}
    return subprocess.run(["sh", *command], capture_output=True, text=True, env=env, timeout=60)


def record(tmp_path: Path, name: str, text: str = "") -> None:
    """A program that notes how it was called."""
    (tmp_path / "bin").mkdir(exist_ok=True)
    path = tmp_path / "bin" / name
    path.write_text(f'#!/bin/sh\necho "{name} $*" >>{tmp_path}/calls\n{text}\n')
    path.chmod(0o755)


def calls(tmp_path: Path) -> list[str]:
    path = tmp_path / "calls"
    return path.read_text().splitlines() if path.exists() else []


# -- sysctl


def test_sysctl_writes_every_setting_in_the_order_of_the_files(tmp_path: Path) -> None:
    conf, tree = tmp_path / "conf", tmp_path / "sys"
    conf.mkdir()
    (tree / "net/ipv4/conf/all").mkdir(parents=True)
    (tree / "vm").mkdir()
    (tree / "kernel").mkdir()
    (conf / "00-first.conf").write_text(
        "# a comment\n; another\n\nvm.swappiness = 10\n  net.ipv4.conf.all.rp_filter=1  \nnet/ipv4/conf/all/eth0.1=7\n"
        "net.ipv4.ping_group_range = 999 59999\nnonsense\nno.such.thing = 1\n"
    )
    (conf / "10-second.conf").write_text("vm.swappiness=20\nkernel.last = yes")
    command: list[str | Path] = [script("sysctl", "usr/bin/sysctl", tmp_path), "-configDir", conf, "-sysctlDir", tree]
    done = run(command, tmp_path)
    assert done.returncode == 0
    written = {p.relative_to(tree).as_posix(): p.read_text() for p in tree.rglob("*") if p.is_file()}
    assert written == {
        "vm/swappiness": "20\n", "net/ipv4/conf/all/rp_filter": "1\n", "net/ipv4/conf/all/eth0.1": "7\n",
        "net/ipv4/ping_group_range": "999 59999\n", "kernel/last": "yes\n",
    }  # fmt: skip
    assert done.stderr.splitlines() == [
        f"{conf}/00-first.conf: not KEY=VALUE: nonsense", f"{conf}/00-first.conf: cannot set no/such/thing to 1",
    ]  # fmt: skip


def test_sysctls_defaults_are_settings(tmp_path: Path) -> None:
    (text,) = (f.contents for f in load(data_dir("kit") / "sysctl").files if f.path.endswith("00-linuxkit.conf"))
    keys = [line.split(" = ")[0] for line in text.splitlines()]
    assert keys == sorted(keys)
    assert len(keys) == len(set(keys)) > 30


# -- dhcpcd


def network(tmp_path: Path, *names: str) -> str:
    """A /sys/class/net with these interfaces; those with `+` behind the name are hardware."""
    folder = tmp_path / "net"
    for name in names:
        (folder / name.rstrip("+")).mkdir(parents=True)
        if name.endswith("+"):
            (folder / name.rstrip("+") / "device").mkdir()
    return str(folder)


@pytest.mark.parametrize(("words", "conf", "want"), [
    ([], "", ["en1", "eth0", "eth1"]),
    ([], "allowinterfaces eth*\ndenyinterfaces eth1 x*\nnoarp\n", ["eth0"]),
    (["eth1"], "", ["eth1"]),
    (["veth9", "--nobackground"], "", ["veth9"]),
])  # fmt: skip
def test_dhcpcd_attends_the_interfaces_it_should(
    tmp_path: Path, words: list[str | Path], conf: str, want: list[str]
) -> None:
    net = network(tmp_path, "lo", "eth0+", "eth1+", "en1+", "eth2", "wlan0+", "veth9")
    record(tmp_path, "ip")
    record(tmp_path, "udhcpc")
    (tmp_path / "conf").write_text(conf)
    command: list[str | Path] = [script("dhcpcd", "sbin/dhcpcd", tmp_path), "-1", "-f", tmp_path / "conf", *words]
    done = run(command, tmp_path, SYS_NET=net)
    assert (done.returncode, done.stderr) == (0, "")
    asked = [line.split() for line in calls(tmp_path) if line.startswith("udhcpc")]
    assert sorted(line[line.index("-i") + 1] for line in asked) == want
    assert all({"-q", "-n"} <= set(line) for line in asked)
    assert sorted(line.split()[-2] for line in calls(tmp_path) if line.startswith("ip")) == want


def test_dhcpcd_without_once_keeps_attending(tmp_path: Path) -> None:
    record(tmp_path, "ip")
    record(tmp_path, "udhcpc")
    command: list[str | Path] = [script("dhcpcd", "sbin/dhcpcd", tmp_path), "--nobackground", "-f", "/nonexistent"]
    run(command, tmp_path, SYS_NET=network(tmp_path, "eth0+"))
    (line,) = [line.split() for line in calls(tmp_path) if line.startswith("udhcpc")]
    assert "-q" not in line
    assert "-f" in line


@pytest.mark.parametrize(("failing", "status"), [("eth0", 0), ("eth*", 1)])
def test_dhcpcd_fails_only_when_no_interface_got_an_address(tmp_path: Path, failing: str, status: int) -> None:
    record(tmp_path, "ip")
    record(tmp_path, "udhcpc", f'case "$2" in {failing}) exit 1 ;; esac')
    command: list[str | Path] = [script("dhcpcd", "sbin/dhcpcd", tmp_path), "-1", "-f", "/nonexistent"]
    assert run(command, tmp_path, SYS_NET=network(tmp_path, "eth0+", "eth1+")).returncode == status


def test_dhcpcd_says_that_there_is_no_interface(tmp_path: Path) -> None:
    record(tmp_path, "sleep")
    command: list[str | Path] = [script("dhcpcd", "sbin/dhcpcd", tmp_path), "-1"]
    done = run(command, tmp_path, SYS_NET=network(tmp_path, "lo"))
    assert done.returncode == 1
    assert "no network interface" in done.stderr


def lease(tmp_path: Path, action: str, **values: str) -> tuple[list[str], str]:
    record(tmp_path, "ip")
    file = tmp_path / "resolv.conf"
    path = script("dhcpcd", "usr/share/udhcpc/default.script", tmp_path)
    done = run([path, action], tmp_path, interface="eth0", RESOLV_CONF=str(file), **values)
    assert done.returncode == 0, done.stderr
    return calls(tmp_path), file.read_text() if file.exists() else ""


def test_a_lease_is_applied(tmp_path: Path) -> None:
    done, names = lease(tmp_path, "bound", ip="10.0.2.15", mask="24", router="10.0.2.2", dns="10.0.2.3 9.9.9.9",
                        domain="example.org", mtu="1400", broadcast="10.0.2.255")  # fmt: skip
    assert done == [
        "ip link set dev eth0 mtu 1400", "ip -4 addr flush dev eth0",
        "ip -4 addr replace 10.0.2.15/24 broadcast 10.0.2.255 dev eth0",
        "ip -4 route replace default via 10.0.2.2 dev eth0",
    ]  # fmt: skip
    assert names == "search example.org\nnameserver 10.0.2.3\nnameserver 9.9.9.9\n"


def test_classless_routes_replace_the_router(tmp_path: Path) -> None:
    done, names = lease(tmp_path, "renew", ip="10.0.0.5", mask="8", router="10.0.0.1", mtu="68",
                        staticroutes="0.0.0.0/0 10.0.0.9 10.1.0.0/16 0.0.0.0")  # fmt: skip
    assert done == [
        "ip -4 addr replace 10.0.0.5/8 dev eth0", "ip -4 route replace 0.0.0.0/0 via 10.0.0.9 dev eth0",
        "ip -4 route replace 10.1.0.0/16 dev eth0",
    ]  # fmt: skip
    assert names == ""


def test_a_lost_lease_takes_the_address_away(tmp_path: Path) -> None:
    done, _ = lease(tmp_path, "deconfig")
    assert done == ["ip -4 addr flush dev eth0", "ip link set dev eth0 up"]


# -- sysfs, binfmt


def test_sysfs_writes_settings_and_stops_at_the_first_that_cannot_be(tmp_path: Path) -> None:
    conf, tree = tmp_path / "conf", tmp_path / "sys"
    conf.mkdir()
    (tree / "kernel/mm").mkdir(parents=True)
    (conf / "00.conf").write_text("# a\n\n kernel/mm/huge = madvise \n/kernel/mm/b=always never\n")
    command: list[str | Path] = [script("sysfs", "usr/bin/sysfs", tmp_path), "-configDir", conf, "-sysfsDir", tree]
    done = run(command, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tree / "kernel/mm/huge").read_text() == "madvise\n"
    assert (tree / "kernel/mm/b").read_text() == "always never\n"
    for wrong, words in (("no/such = 1", "cannot set no/such to 1"), ("nonsense", "not PATH=VALUE: nonsense")):
        (conf / "10.conf").write_text(f"{wrong}\nkernel/mm/later = 1\n")
        done = run(command, tmp_path)
        assert done.returncode == 1
        assert words in done.stderr
        assert not (tree / "kernel/mm/later").exists()


def test_binfmt_registers_every_line_and_replaces_what_is_there(tmp_path: Path) -> None:
    record(tmp_path, "mount")
    conf, place = tmp_path / "conf", tmp_path / "place"
    conf.mkdir()
    place.mkdir()
    (place / "old").write_text("enabled\n")
    (conf / "a.conf").write_text("# a\n:old:M::\\x7fE:\\xff:/usr/bin/qemu:CF\n")
    command: list[str | Path] = [script("binfmt", "usr/bin/binfmt", tmp_path), "-dir", conf, "-mount", place]
    done = run(command, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert calls(tmp_path) == [f"mount -t binfmt_misc binfmt_misc {place}"]
    assert (place / "old").read_text() == "-1\n"  # which removes it from the kernel's list
    assert (place / "register").read_text() == ":old:M::\\x7fE:\\xff:/usr/bin/qemu:CF"
    (place / "register").unlink()
    (place / "register").mkdir()
    done = run(command, tmp_path)
    assert done.returncode == 1
    assert "refused: :old:" in done.stderr


def test_binfmts_entries_are_those_of_elf_headers() -> None:
    (text,) = (f.contents for f in load(data_dir("kit") / "binfmt").files if f.path.startswith("etc/binfmt.d/"))
    machines = {"aarch64": 183, "arm": 40, "ppc64le": 21, "s390x": 22, "riscv64": 243, "loongarch64": 258}
    for line in text.splitlines():
        _, name, kind, offset, magic, mask, program, flags = line.split(":")
        data = magic.encode().decode("unicode_escape").encode("latin-1")
        assert len(data) == len(mask.encode().decode("unicode_escape")) == 20
        order: Literal["big", "little"] = "big" if data[5] == 2 else "little"
        assert int.from_bytes(data[18:20], order) == machines.pop(name.removeprefix("qemu-"))
        assert (kind, offset, program, flags) == ("M", "", f"/usr/bin/{name}", "CF")
        assert len(line) < 1920  # the kernel takes no more
    assert not machines


@pytest.mark.parametrize("package", [
    "sysctl", "dhcpcd", "getty", "poweroff", "sysfs", "binfmt", "auditd", "acpid", "mkimage",
])  # fmt: skip
def test_scripts_use_only_what_the_image_has(package: str, tmp_path: Path) -> None:
    """Every word in command position is a builtin, a function, a file or a link of the image."""
    import re

    recipe = load(data_dir("kit") / package)
    have = {p.rpartition("/")[2] for paths in recipe.links.values() for p in paths}
    have |= {f.path.rpartition("/")[2] for f in recipe.files}
    known = {
        "cat", "chmod", "cp", "mv", "rm", "sleep", "ip", "udhcpc", "getty", "setsid", "login", "chroot", "poweroff",
        "kill", "sed", "grep", "awk", "head", "tail", "cut", "sort", "sysctl", "mount", "umount", "hostname", "mkdir",
    }  # fmt: skip
    builtin = {"kill"}  # of busybox's shell
    for file in recipe.files:
        if file.contents.startswith("#!"):
            assert file.contents.splitlines()[0].removeprefix("#!").split()[0] == "/bin/sh"
            assert run([Path("-n"), _write(tmp_path, file.contents)], tmp_path).returncode == 0
            code = re.sub(r"#[^\n{}]*$", "", file.contents, flags=re.MULTILINE)
            code = re.sub(r"\"[^\"\n]*\"|'[^'\n]*'", "''", code)
            used = set(re.findall(r"(?:^|[;&|(]|\bthen|\bdo|\belse|\bexec)\s*([a-z]+)\b", code, flags=re.MULTILINE))
            assert used & known <= have | builtin, (file.path, sorted((used & known) - have))


def _write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "checked"
    path.write_text(text)
    return path


# -- lk-wg-config

WG = """\
[interface]
# Address = 9.9.9.9/9
Address=192.168.2.1/24, fd00::1/64 # two of them
DNS = 192.0.2.1, 192.0.2.2
PostUp = echo up %i; echo two=2
PrivateKey = abc=
[Peer]
AllowedIPs = 0.0.0.0/0, 10.0.0.0/8
Endpoint = [2001:db8::7]:51
MTU = 3
"""


def wireguard(tmp_path: Path, action: str, name: str = "wg0.conf") -> subprocess.CompletedProcess[str]:
    record(tmp_path, "ip", 'case "$*" in *"route get"*) echo "x dev none src y" ;; esac')
    record(tmp_path, "wg", f"""case "$*" in
        *endpoints) printf 'abc=\\t[2001:db8::7]:51\\n' ;;
        *allowed-ips) printf 'abc=\\t0.0.0.0/0 10.0.0.0/8\\n' ;;
        setconf*) cat "$3" >{tmp_path}/given ;;
        showconf*) printf '[Interface]\\nPrivateKey = new=\\n\\n[Peer]\\nAllowedIPs = 192.0.2.9/32\\n' ;;
        esac""")
    (tmp_path / "wg0.conf").write_text(WG)
    command: list[str | Path] = [script("ip", "usr/bin/lk-wg-config", tmp_path), action, tmp_path / name]
    return run(command, tmp_path, RESOLV_CONF=str(tmp_path / "resolv.conf"))


def test_lk_wg_config_sets_up_an_interface(tmp_path: Path) -> None:
    done = wireguard(tmp_path, "configure")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["up wg0", "two=2"]
    given = (tmp_path / "given").read_text()
    kept = ("Address=", "DNS", "PostUp")
    assert given == "".join(line for line in WG.splitlines(keepends=True) if not line.startswith(kept))
    changes = [c for c in calls(tmp_path) if c.startswith("ip ") and "show" not in c and "get" not in c]
    assert changes == [
        "ip link set dev wg0 down", "ip address flush dev wg0", "ip address add 192.168.2.1/24 dev wg0",
        "ip address add fd00::1/64 dev wg0", "ip link set dev wg0 mtu 1420 up",
        "ip route add 10.0.0.0/8 dev wg0", "ip route add 0.0.0.0/0 dev wg0",
    ]  # fmt: skip
    assert "ip -o route get 2001:db8::7" in calls(tmp_path)
    assert (tmp_path / "resolv.conf").read_text() == "nameserver 192.0.2.1\nnameserver 192.0.2.2\n"


def test_lk_wg_config_saves_keys_and_peers_and_keeps_the_rest(tmp_path: Path) -> None:
    assert wireguard(tmp_path, "save").returncode == 0
    assert (tmp_path / "wg0.conf").read_text() == (
        "[Interface]\nAddress = 192.168.2.1/24, fd00::1/64\nDNS = 192.0.2.1, 192.0.2.2\n"
        "PostUp = echo up %i; echo two=2\nPrivateKey = new=\n\n[Peer]\nAllowedIPs = 192.0.2.9/32\n"
    )


@pytest.mark.parametrize(("action", "name", "status", "words"), [
    ("configure", "nothing.conf", 1, "cannot be read"),
    ("configure", "script", 1, "its name has to be that of the interface"),
    ("destroy", "wg0.conf", 2, "usage: lk-wg-config"),
])  # fmt: skip
def test_lk_wg_config_says_what_is_wrong(tmp_path: Path, action: str, name: str, status: int, words: str) -> None:
    done = wireguard(tmp_path, action, name)
    assert done.returncode == status
    assert words in done.stderr
