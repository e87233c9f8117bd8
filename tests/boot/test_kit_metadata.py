"""What machines are given arrives in /run/config: over the network, on a CD, on a disk."""

from __future__ import annotations

import base64
import json
import re
import subprocess
from pathlib import Path

import pytest

from linuxkit.machine.machine import Machine
from support.clouds.linklocal import on_link_local
from support.clouds.metadata import CLOUDS, KEY, USERDATA, Service
from support.system import CRUN, Build
from support.vm import boot

pytestmark = pytest.mark.boot

#: Prints all files of /run/config with their modes, hexadecimal, and the machine's name.
SHOW = """\
      cd /run/config && find . -type f | sort | while read -r f; do
        echo "file: ${f#./} $(stat -c %a "$f") $(xxd -p "$f" | tr -d '\\n')"
      done
      echo "called: $(hostname)"
"""


SHOWS = """\
  - name: show
    image: kit://busybox
    command: ["/bin/sh", "/show"]
    binds: ["/show:/show:ro", "/run:/run"]
"""


def system(*words: str, dhcp: bool = False) -> str:
    command = json.dumps(["/usr/bin/metadata", "-v", *words])
    network = """\
  - name: dhcpcd
    image: kit://dhcpcd
    command: ["/sbin/dhcpcd", "--nobackground", "-f", "/dhcpcd.conf", "-1"]
"""
    return f"""\
{CRUN}onboot:
{network if dhcp else ""}  - name: metadata
    image: kit://metadata
    command: {command}
{SHOWS}files:
  - path: show
    contents: |
{SHOW}"""


def arrived(machine: Machine) -> dict[str, tuple[int, bytes]]:
    """What the machine has in /run/config, and its name as `name`."""
    assert machine.wait_booted(90).ok
    machine.wait_console(r"called: \S+", 5)
    found = re.findall(r"file: (\S+) ([0-7]+) ([0-9a-f]*)\r?\n", machine.console)
    files = {name: (int(mode, 8), bytes.fromhex(text)) for name, mode, text in found}
    (name,) = re.findall(r"called: (\S+)", machine.console)
    return files | {"name": (0, name.encode())}


TREE = {
    "userdata": (0o644, USERDATA),
    "ssh/sshd_config": (0o600, b"PermitRootLogin yes\n"),
    "app/greeting": (0o644, "hé…\n".encode()),
}
META = f"instance-id: i-1\nlocal-hostname: web-1\npublic-keys:\n  - {KEY}\n"
FROM_META = {
    "hostname": (0o644, b"web-1"),
    "name": (0, b"web-1"),
    "instance_id": (0o644, b"i-1"),
    "metadata": (0o644, META.encode()),
    "ssh/authorized_keys": (0o600, f"{KEY}\n".encode()),
}


def iso(folder: Path, label: str, files: dict[str, bytes]) -> str:
    """A CD, plugged in as a disk."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text)
    made = folder.with_suffix(".iso")
    subprocess.run(["xorriso", "-as", "mkisofs", "-quiet", "-V", label, "-J", "-r", "-o", made, folder],
                   check=True, stderr=subprocess.DEVNULL)  # fmt: skip
    return f"file={made},format=raw"


def fat(made: Path, label: str, userdata: bytes) -> str:
    """A disk of NoCloud's files."""
    with made.open("wb") as disk:
        disk.truncate(8 << 20)
    subprocess.run(["mkfs.fat", "-n", label, made], check=True, stdout=subprocess.DEVNULL)
    for name, text in (("meta-data", META.encode()), ("user-data", userdata)):
        source = made.with_suffix(f".{name}")
        source.write_bytes(text)
        subprocess.run(["mcopy", "-i", made, source, f"::{name}"], check=True)
    return f"file={made},format=raw"


def test_data_of_run_arrives_after_two_seconds_of_silence(build: Build) -> None:
    with boot(build(system(dhcp=True)), seconds=100, change=on_link_local(), data=USERDATA) as machine:
        found = arrived(machine)
        (took,) = re.findall(r"none of 11 providers after (\d+) ms", machine.console)
    assert found.pop("name")[1].startswith(b"linuxkit")
    assert found == TREE | {"provider": (0o644, b"CDROM /dev/sr0")}
    assert int(took) < 4000  # one after the other it would be 16 s


def test_nocloud_on_a_disk(build: Build, tmp_path: Path) -> None:
    other = fat(tmp_path / "other", "DATA", b"not for metadata")  # neither label nor drive says so
    disk = fat(tmp_path / "disk", "CIDATA", USERDATA)
    with boot(build(system("cdrom")), seconds=100, networking="none", disks=(other, disk)) as machine:
        assert arrived(machine) == TREE | FROM_META | {"provider": (0o644, b"CDROM /dev/vdb")}


#: What OpenStack puts on a drive, for machines whose network has no such service.
DRIVE = json.dumps({"uuid": "7c9e", "hostname": "web-2", "public_keys": {"me": KEY + "\n"}}).encode()


def test_nocloud_and_openstack_on_cds(build: Build, tmp_path: Path) -> None:
    cidata = iso(tmp_path / "cidata", "cidata", {"meta-data": META.encode(), "user-data": USERDATA})
    openstack = {"openstack/latest/meta_data.json": DRIVE, "openstack/latest/user_data": b"for OpenStack"}
    drive = iso(tmp_path / "drive", "config-2", openstack)
    text = system("cdrom").replace(SHOWS, """\
  - name: drive
    image: kit://metadata
    command: ["/usr/bin/metadata", "-config", "/run/config/drive", "openstack"]
""" + SHOWS)
    with boot(build(text), seconds=100, networking="none", disks=(drive, cidata)) as machine:
        found = arrived(machine)
    of_drive = {name.removeprefix("drive/"): text for name, text in found.items() if name.startswith("drive/")}
    assert {n: t for n, t in found.items() if "drive/" not in n} == TREE | FROM_META | {
        "provider": (0o644, b"CDROM /dev/vdb")
    }
    assert of_drive == {
        "provider": (0o644, b"openstack"), "hostname": (0o644, b"web-2"), "instance_id": (0o644, b"7c9e"),
        "metadata": (0o644, DRIVE), "userdata": (0o644, b"for OpenStack"),
        "ssh/authorized_keys": (0o600, f"{KEY}\n".encode()),
    }  # fmt: skip


#: After the cloud's, other services are asked at other addresses; the last sets up the network as it says.
OTHERS = """\
  - name: azure
    image: kit://metadata
    command: ["/usr/bin/metadata", "-base", "http://169.254.1.2", "-config", "/run/config/azure", "azure"]
  - name: metal
    image: kit://metadata
    command: ["/usr/bin/metadata", "-v", "-base", "http://169.254.1.1", "-config", "/run/metal", "equinixmetal"]
  - name: network
    image: kit://busybox
    command: ["/bin/sh", "-c", "cat /run/metal/provider; ip -o a; ip route; ip -6 route; cat /proc/net/bonding/*"]
    binds: ["/run:/run"]
"""


def ovf(folder: Path) -> list[str]:
    """Azure's CD with custom data, which is a UDF one in an IDE drive, as QEMU's arguments."""
    folder.mkdir()
    (folder / "ovf-env.xml").write_text(f"<a:CustomData>{base64.b64encode(USERDATA).decode()}</a:CustomData>")
    made = folder.with_suffix(".iso")
    subprocess.run(["genisoimage", "-quiet", "-udf", "-V", "rd_rdfe_stable", "-o", made, folder], check=True)
    drive = f"file={made},format=raw,if=none,id=ovf,media=cdrom,readonly=on"
    return ["-device", "piix3-ide,id=ide9", "-drive", drive, "-device", "ide-cd,drive=ovf,bus=ide9.0"]


def test_clouds_services_and_bare_metals_network(build: Build, tmp_path: Path) -> None:
    cloud, metal = CLOUDS["aws"], CLOUDS["equinixmetal"]
    text = system(dhcp=True).replace(SHOWS, OTHERS.replace("  - name: metal", SHOWS + "  - name: metal"))
    with Service(cloud) as service, Service(metal) as other, Service(CLOUDS["azure"], None) as azure:
        told = json.loads(other.routes["/metadata"])
        told["network"]["interfaces"] = [{"name": "enp1s0f0", "mac": "52:54:00:00:00:01", "bond": "bond0"}]
        other.routes["/metadata"] = json.dumps(told).encode()
        where = on_link_local(cloud=service.server_port, metal=other.server_port, azure=azure.server_port)
        cd = ovf(tmp_path / "ovf")

        def change(arguments: list[str]) -> list[str]:
            return [*(re.sub("mac=[0-9a-f:]{17}", "mac=52:54:00:00:00:01", word) for word in where(arguments)), *cd]

        with boot(build(text), seconds=100, change=change) as machine:
            found = arrived(machine)
            machine.wait_console("MII Polling Interval", 5)
        assert ("PUT", "/latest/api/token", b"") in service.asked
        assert not other.wrong + azure.wrong
    custom = {name: found.pop("azure/" + name) for name in TREE}
    assert custom == TREE
    assert found.pop("azure/provider")[1] == b"Azure"
    assert {name for name in found if name.startswith("azure/")} == {
        f"azure/{name}" for name in (*CLOUDS["azure"].files, "ssh/authorized_keys")
    }
    found = {name: text for name, text in found.items() if not name.startswith("azure/")}
    assert found == TREE | {name: (0o644, text.encode()) for name, text in cloud.files.items()} | {
        "provider": (0o644, cloud.shown.encode()), "name": (0, cloud.files["hostname"].encode()),
        "ssh/authorized_keys": (0o600, cloud.keys.encode()),
    }  # fmt: skip
    for shown in (
        "EquinixMetal", r"bond0 +inet 203\.0\.113\.7/31", r"bond0 +inet 10\.99\.1\.3/31", r"inet6 2001:db8::3/127",
        r"default via 203\.0\.113\.6 dev bond0", r"10\.0\.0\.0/8 via 10\.99\.1\.2 dev bond0",
        r"default via 2001:db8::2 dev bond0", r"Bonding Mode: IEEE 802\.3ad", "Slave Interface: enp1s0f0",
    ):  # fmt: skip
        assert re.search(shown, machine.console), (shown, machine.console)
    assert "inet 169.254.2.15/16" not in machine.console  # dhcpcd's address is gone
