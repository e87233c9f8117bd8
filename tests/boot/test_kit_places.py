"""The examples for clouds and other places: each builds, and one goes up in a cloud that this machine plays."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from support.clouds.linklocal import on_link_local
from support.clouds.metadata import CLOUDS, USERDATA, Service
from support.ssh import greeting, keypair, ssh
from support.system import build_in, linuxkit
from support.vm import boot

pytestmark = pytest.mark.boot
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
#: example → the providers that its metadata package asks
PLACES = {
    "openstack": ["openstack"],
    "platform-aws": ["aws"],
    "platform-azure": ["azure"],
    "platform-equinixmetal": ["equinixmetal"],
    "platform-gcp": ["gcp"],
    "platform-hetzner": ["hetzner"],
    "platform-scaleway": ["scaleway"],
    "platform-vmware": ["vmware", "cdrom"],
    "platform-vultr": ["vultr"],
}


@pytest.mark.parametrize("name", PLACES)
def test_an_example_builds_and_asks_its_place(name: str, tmp_path: Path) -> None:
    done = linuxkit("build", "--no-sbom", "--format", "tar", str(EXAMPLES / f"{name}.yml"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with tarfile.open(tmp_path / f"{name}.tar") as tar:
        (found,) = [m for m in tar.getmembers() if m.name.endswith("-metadata/config.json")]
        stream = tar.extractfile(found)
        assert stream is not None
        assert json.load(stream)["process"]["args"] == ["/usr/bin/metadata", *PLACES[name]]


def test_equinix_metal_on_arm64_is_two_files() -> None:
    files = [str(EXAMPLES / f"platform-equinixmetal{arch}.yml") for arch in ("", ".arm64")]
    done = linuxkit("build", "--dry-run", "--arch", "arm64", *files)
    assert done.returncode == 0, done.stderr
    assert "console=ttyAMA0" in done.stdout
    assert "ttyS1" not in done.stdout
    assert done.stdout.index("name: metadata") < done.stdout.index("name: modprobe")


def test_the_example_for_aws_goes_up_with_what_the_cloud_says(tmp_path: Path) -> None:
    """The cloud's key logs in, the user's data is there; another key does not, and there is no other way."""
    key, stranger = keypair(tmp_path / "ours"), keypair(tmp_path / "others")
    prefix = build_in(tmp_path, (EXAMPLES / "platform-aws.yml").read_text(), name="platform-aws")
    with Service(CLOUDS["aws"]) as service:
        service.routes["/latest/meta-data/public-keys/0/openssh-key"] = key.with_suffix(".pub").read_bytes()
        # the tree has a folder ssh of its own, beside the keys
        where, ports = on_link_local(cloud=service.server_port), ("127.0.0.1:0:22", "127.0.0.1:0:80")
        with boot(prefix, seconds=120, change=where, publish=ports) as machine:
            assert machine.wait_booted(90).ok
            greeting(machine, 22, b"SSH-2.0-OpenSSH")
            for _ in range(5):  # the service dhcpcd2 takes the address away for a moment when it starts
                done = ssh(machine, key, "hostname; cat /run/config/userdata; ls /run/config/app")
                if done.returncode != 255 or "Permission denied" in done.stderr:
                    break
            assert done.stdout == f"web-1.example\n{USERDATA.decode()}greeting\n", (done, machine.console)
            refused = ssh(machine, stranger, "true")
            assert refused.returncode == 255 and "Permission denied" in refused.stderr
            assert b"200 OK" in greeting(machine, 80, b"HTTP/1.1 200 OK", send=b"GET / HTTP/1.0\r\n\r\n")
