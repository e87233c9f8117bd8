"""The kit's metadata program against services of our own: what arrives, whom it asks, what goes wrong on the way."""

from __future__ import annotations

import base64
import os
import shutil
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.clouds.metadata import CLOUDS, TREE, USERDATA, Service
from support.metadata import Metadata, expected, files, metadata, metadata_program, service

__all__ = ["metadata", "metadata_program"]

pytestmark = pytest.mark.guest
FEW = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("provider", CLOUDS)
def test_what_a_provider_has_arrives(metadata: Metadata, tmp_path: Path, provider: str) -> None:
    if CLOUDS[provider].low_port and os.geteuid() != 0:
        pytest.skip("ports below 1024 are for root")
    with service(provider) as cloud:
        metadata("-n", provider, base=cloud.url)
        assert not cloud.wrong
    assert files(tmp_path / "config") == expected(cloud.cloud)
    assert (tmp_path / "config/app").stat().st_mode & 0o7777 == 0o700
    assert (tmp_path / "config/ssh").stat().st_mode & 0o7777 == 0o755
    assert (tmp_path / "config").stat().st_mode & 0o7777 == 0o755


@pytest.mark.parametrize("provider", CLOUDS)
def test_no_user_data_is_no_error(metadata: Metadata, tmp_path: Path, provider: str) -> None:
    with service(provider, userdata=None) as cloud:
        metadata("-n", provider, base=cloud.url)
    assert files(tmp_path / "config") == {k: v for k, v in expected(cloud.cloud).items() if k not in TREE}


@pytest.mark.parametrize(
    ("provider", "what"),
    [*((name, "404") for name in CLOUDS), *(("gcp", what) for what in ("403", "garbage", "redirect", "headers"))],
)
def test_a_service_that_does_not_say_yes_is_not_chosen(
    metadata: Metadata, tmp_path: Path, provider: str, what: str
) -> None:
    with service(provider) as cloud:
        cloud.fault(cloud.cloud.probe, what, times=9)
        assert "nobody here has" in metadata("-n", provider, base=cloud.url).stderr
    assert files(tmp_path / "config") == {}


def test_the_default_order_finds_each_of_them(metadata: Metadata, tmp_path: Path) -> None:
    for provider in ("gcp", "digitalocean", "azure", "scaleway", "openstack", "metaldata"):
        found = CLOUDS[provider].shown
        with service(provider) as cloud:
            metadata(base=cloud.url, status=None)  # without root's ports Scaleway's user data is refused
        shown = (tmp_path / "config/provider").read_text()
        assert shown == found or (provider == "openstack" and shown == "Hetzner"), provider


@pytest.mark.parametrize(
    ("file", "text", "first"),
    [
        ("sys_vendor", "Hetzner", "Hetzner"),
        ("product_name", "OpenStack Nova", "openstack"),
        ("sys_vendor", "Somebody", "AWS"),
        ("product_uuid", "ec2e1916-9099", "AWS"),
    ],
)
def test_the_firmware_puts_its_cloud_first(
    metadata: Metadata, tmp_path: Path, file: str, text: str, first: str
) -> None:
    folder = tmp_path / "root/sys/class/dmi/id"
    folder.mkdir(parents=True)
    (folder / file).write_text(text + "\n")
    with service("openstack") as cloud:  # which answers as AWS and Hetzner, too
        cloud.routes["/latest/meta-data/"] = b"hostname"
        metadata(base=cloud.url)
    assert (tmp_path / "config/provider").read_text() == first


def test_a_service_that_the_firmware_speaks_for_is_waited_for(metadata: Metadata, tmp_path: Path) -> None:
    folder = tmp_path / "root/sys/class/dmi/id"
    folder.mkdir(parents=True)
    (folder / "sys_vendor").write_text("Hetzner\n")
    with service("hetzner") as cloud:
        cloud.fault("/latest/meta-data/hostname", "503", times=4)
        assert "the firmware says that this is it" in metadata("hetzner", "scaleway", base=cloud.url).stderr
    assert files(tmp_path / "config") == expected(cloud.cloud)


def test_equinix_metal_is_only_asked_when_named(metadata: Metadata, tmp_path: Path) -> None:
    with service("equinixmetal") as cloud:
        assert "nobody here has" in metadata(base=cloud.url).stderr
        assert "/metadata" not in {path for _, path, _ in cloud.asked}


def test_silence_costs_little_more_than_two_seconds(metadata: Metadata) -> None:
    with service("aws") as cloud:
        for path in {other.probe for other in CLOUDS.values()} | {"/latest/api/token"}:
            cloud.fault(path, "silent", times=4)
        start = time.monotonic()
        assert "nobody here has" in metadata(base=cloud.url).stderr
        assert time.monotonic() - start < 4


def test_nobody_there_costs_nothing(metadata: Metadata) -> None:
    with service("aws") as cloud:
        url = cloud.url
    start = time.monotonic()
    assert "nobody here has" in metadata(base=url).stderr
    assert time.monotonic() - start < 1


def test_the_preferred_one_wins_although_it_is_slower(metadata: Metadata, tmp_path: Path) -> None:
    with service("gcp") as cloud:
        cloud.routes["/metadata/v1/"] = cloud.routes["/metadata/v1/hostname"] = b"sea"
        cloud.fault("/computeMetadata/v1/instance/hostname", "503", times=2)
        metadata("gcp", "digitalocean", base=cloud.url)
    assert (tmp_path / "config/provider").read_text() == "GCP"


def test_aws_without_tokens_is_asked_without(metadata: Metadata, tmp_path: Path) -> None:
    with Service(CLOUDS["openstack"]) as cloud:  # version 1 only: no token, and another's header would be refused
        cloud.routes["/latest/meta-data/"] = b"hostname"
        metadata("aws", base=cloud.url)
        assert ("PUT", "/latest/api/token", b"") in cloud.asked
    assert (tmp_path / "config/provider").read_text() == "AWS"


def test_azure_is_told_that_the_machine_is_ready(metadata: Metadata) -> None:
    with service("azure") as cloud:
        metadata("azure", base=cloud.url)
        ((_, _, body),) = [asked for asked in cloud.asked if asked[0] == "POST"]
    for part in (b"<GoalStateIncarnation>3<", b"<ContainerId>c-1<", b"<InstanceId>r-2<", b"<State>Ready<"):
        assert part in body


def test_azures_custom_data_comes_from_its_cd(metadata: Metadata, tmp_path: Path) -> None:
    folder = tmp_path / "root/var/lib/waagent"
    folder.mkdir(parents=True)
    custom = base64.b64encode(USERDATA).decode()
    (folder / "ovf-env.xml").write_text(
        '<ns0:Environment xmlns:ns0="x"><ns1:ProvisioningSection xmlns:ns1="y"><ns1:HostName>web-1</ns1:HostName>'
        f"<ns1:CustomData>{custom}</ns1:CustomData></ns1:ProvisioningSection></ns0:Environment>"
    )
    with service("azure", userdata=None) as cloud:
        metadata("azure", base=cloud.url)
    assert files(tmp_path / "config") == expected(cloud.cloud)


def test_gcps_project_keys_can_be_shut_out(metadata: Metadata, tmp_path: Path) -> None:
    with service("gcp") as cloud:
        cloud.routes["/computeMetadata/v1/instance/attributes/block-project-ssh-keys"] = b"TRUE"
        metadata("gcp", base=cloud.url)
    assert (tmp_path / "config/ssh/authorized_keys").read_text() == "ssh-rsa CCC me\n"


def test_a_host_name_is_one(metadata: Metadata) -> None:
    with service("hetzner") as cloud:
        cloud.routes["/latest/meta-data/hostname"] = b"web\x1b[31m"
        assert "host name web?[31m: not letters" in metadata("hetzner", base=cloud.url).stderr


# -- failures on the way


PIECES = [
    b"HTTP/1.1 ", b"HTTP/1.0 200", b"200 OK", b"404", b"\r\n", b"\n", b"Content-Length: ", b"5", b"-1",
    b"99999999999999999999", b"Transfer-Encoding: chunked", b"gzip", b"\r\n\r\n", b"0", b"ffffffffffffffff",
    b"a\r\n0123456789\r\n", b";", b":", b"\0", b"x" * 5000, b"Metadata-Flavor: Google", b"web-1",
]  # fmt: skip


@FEW
@given(st.lists(st.sampled_from(PIECES), max_size=12), st.booleans())
def test_no_answer_upsets_it(metadata: Metadata, tmp_path: Path, pieces: list[bytes], well_begun: bool) -> None:
    shutil.rmtree(tmp_path / "config", ignore_errors=True)
    with service("gcp") as cloud:
        cloud.raw = b"HTTP/1.1 200 OK\r\nMetadata-Flavor: Google\r\n" * well_begun + b"".join(pieces)
        for path in cloud.routes:
            cloud.fault(path, "raw", times=3)
        metadata("gcp", base=cloud.url, status=None)
    assert set(files(tmp_path / "config")) <= {"provider", "hostname", "ssh/authorized_keys", "userdata"}


@pytest.mark.parametrize("what", ["500", "503", "429", "cut", "reset", "garbage", "badchunk"])
def test_a_failure_that_passes_is_asked_again(metadata: Metadata, tmp_path: Path, what: str) -> None:
    with service("aws") as cloud:
        cloud.fault("/latest/user-data", what)
        metadata("aws", base=cloud.url)
    assert files(tmp_path / "config") == expected(cloud.cloud)


def test_an_answer_in_chunks_is_put_together(metadata: Metadata, tmp_path: Path) -> None:
    with service("aws") as cloud:
        cloud.fault("/latest/user-data", "chunked")
        metadata("aws", base=cloud.url)
    assert files(tmp_path / "config") == expected(cloud.cloud)


@pytest.mark.parametrize("what", ["500", "403", "cut", "slow", "silent", "oversized", "endless", "headers", "badchunk"])
def test_user_data_that_does_not_come_whole_is_an_error_and_not_kept(
    metadata: Metadata, tmp_path: Path, what: str
) -> None:
    with service("hetzner") as cloud:
        cloud.fault("/latest/user-data", what, times=9)
        start = time.monotonic()
        done = metadata("hetzner", base=cloud.url, status=1)
        assert time.monotonic() - start < 8
    assert "no user data: " in done.stderr
    assert set(files(tmp_path / "config")) == set(expected(cloud.cloud)) - set(TREE)


def test_values_that_lack_are_left_out_but_the_host_name_is_missed(metadata: Metadata, tmp_path: Path) -> None:
    with service("openstack") as cloud:
        for path in ("hostname", "instance-id", "public-keys/0/openssh-key"):
            del cloud.routes["/latest/meta-data/" + path]
        cloud.routes["/latest/meta-data/"] = b""
        assert "AWS: no hostname: status 404" in metadata("aws", base=cloud.url, status=1).stderr
    lacking = {"hostname", "instance_id", "ssh/authorized_keys"}
    assert set(files(tmp_path / "config")) == set(expected(cloud.cloud)) - lacking


# -- the command line


@pytest.mark.parametrize("words", [["amazon"], ["aws", "file"], ["cdrom", "nfs"]])
def test_an_unknown_provider_is_fatal(metadata: Metadata, tmp_path: Path, words: list[str]) -> None:
    said = metadata(*words, status=2).stderr
    assert "unknown provider: " in said and "aws gcp hetzner openstack scaleway vultr digitalocean" in said
    assert not (tmp_path / "config").exists()


def test_files_come_last_and_the_first_that_is_there_counts(metadata: Metadata, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("from a file")
    words = [f"file={tmp_path}/missing", f"file={tmp_path}/a", f"file={tmp_path}/a2"]
    with service("hetzner") as cloud:
        metadata(*words, "hetzner", base=cloud.url)
    assert (tmp_path / "config/provider").read_text() == "Hetzner"
    metadata(*words)
    assert files(tmp_path / "config")["userdata"] == (0o644, b"from a file")
