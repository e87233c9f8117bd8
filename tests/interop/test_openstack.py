"""OpenStack, as our strict fake plays it: logins from files and variables, images, servers; failures on the way."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from linuxkit.clouds import openstack as place
from linuxkit.clouds.openstack_config import find_config
from linuxkit.errors import InputError, LinuxkitError, MachineError, NetworkError
from linuxkit.oci.transport import Transport
from linuxkit.places.image import LocalImage
from linuxkit.places.journal import Journal
from linuxkit.places.place import Job, Pushed, settle
from linuxkit.places.tail import Tail
from support.clouds.openstack import PASSWORD, PROJECT, USER, OpenStackFake
from support.clouds.strict import Asked, Reply

pytestmark = pytest.mark.interop
MIB = 1 << 20


@pytest.fixture
def cloud() -> Iterator[OpenStackFake]:
    with OpenStackFake() as fake:
        yield fake


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A raw disk that a BIOS starts; 1 MiB and a bit."""
    path = tmp_path / "web.img"
    path.write_bytes((b"boot code".ljust(510, b".") + b"\x55\xaa").ljust(MIB, b".") + bytes(512))
    return path


def variables(cloud: OpenStackFake, **more: str) -> dict[str, str]:
    return {
        "OS_AUTH_URL": f"{cloud.url}/identity", "OS_USERNAME": USER, "OS_PASSWORD": PASSWORD, "OS_PROJECT_NAME": "web",
        "OS_USER_DOMAIN_NAME": "Default", "OS_PROJECT_DOMAIN_ID": "default", "HOME": "/nowhere",
    } | more  # fmt: skip


@contextmanager
def job(fake: OpenStackFake, verb: str, *, environment: dict[str, str] | None = None, keep: bool = False,
        dry_run: bool = False, data: bytes | None = None, output: Callable[[bytes], None] = lambda data: None,
        **given: Any) -> Iterator[tuple[Job, list[str]]]:  # fmt: skip
    said: list[str] = []
    environment = variables(fake) if environment is None else environment
    settings = getattr(place, f"{verb.upper()}_SETTINGS")
    with Journal(said.append, keep=keep) as journal:
        yield Job(settle(settings, given, environment), environment, Transport(sleep=lambda s: None), journal,
                  said.append, output, data=data, dry_run=dry_run, keep=keep, sleep=lambda s: None), said  # fmt: skip


def push(fake: OpenStackFake, path: Path, format_: str = "raw", **given: Any) -> tuple[Pushed, list[str]]:
    with job(fake, "push", **given) as (work, said):
        pusher = place.Push(work, LocalImage(path, format_))
        pusher.preflight()
        pushed = pusher.push()
    return pushed, said


def run(cloud: OpenStackFake, target: str = "web", **given: Any) -> tuple[bytes, list[str]]:
    shown: list[bytes] = []
    with job(cloud, "run", **{"output": shown.append} | given) as (work, said):
        runner = place.Run(work, target)
        runner.preflight()
        runner.run()
    return b"".join(shown), said


# -- pushing


def test_a_disk_becomes_an_image_once(cloud: OpenStackFake, disk: Path) -> None:
    pushed, _ = push(cloud, disk, property="hw_machine_type=q35, min_ram=256")
    assert pushed.run_with == "linuxkit run openstack web"
    assert cloud.files[pushed.identity] == disk.read_bytes()
    image = cloud.images[pushed.identity]
    digest = hashlib.sha256(disk.read_bytes()).hexdigest()
    expected = {"name": "web", "disk_format": "raw", "container_format": "bare", "visibility": "private", "min_disk": 1,
                "min_ram": 256, "linuxkit-sha256": digest, "hw_disk_bus": "virtio", "hw_machine_type": "q35",
                "os_type": "linux", "status": "active"}  # fmt: skip
    assert {key: image[key] for key in expected} == expected
    assert "hw_firmware_type" not in image
    again, _ = push(cloud, disk)
    assert (again.identity, again.there_before, cloud.count("PUT")) == (pushed.identity, True, 1)
    with pytest.raises(InputError, match="there is an image web already, with other content or settings") as caught:
        push(cloud, disk, property="hw_firmware_type=uefi")
    assert f"openstack image delete {pushed.identity}" in caught.value.hint
    disk.write_bytes(disk.read_bytes() + bytes(512))
    with pytest.raises(InputError, match="with other content"):
        push(cloud, disk)
    assert push(cloud, disk, img_name="other")[0].identity != pushed.identity
    assert len(cloud.images) == 2


def test_what_an_image_is_is_told(cloud: OpenStackFake, disk: Path, tmp_path: Path) -> None:
    for name in ("a.qcow2", "b-efi.qcow2"):
        head = b"QFI\xfb" + (3).to_bytes(4, "big") + bytes(16) + (3 << 30 | 512).to_bytes(8, "big")
        (tmp_path / name).write_bytes(head.ljust(65536, b"\0"))
    one, _ = push(cloud, tmp_path / "a.qcow2", "qcow2-bios")
    two, _ = push(cloud, tmp_path / "b-efi.qcow2", "qcow2-efi", disk_bus="scsi")
    first, second = cloud.images[one.identity], cloud.images[two.identity]
    assert (first["disk_format"], first["min_disk"], first.get("hw_firmware_type")) == ("qcow2", 4, None)
    assert (second["hw_firmware_type"], second["hw_scsi_model"]) == ("uefi", "virtio-scsi")
    with pytest.raises(InputError, match="UEFI cannot start"):
        push(cloud, disk, uefi=True)
    (tmp_path / "x").write_bytes(bytes(1000))
    with pytest.raises(InputError, match="is not a disk or a CD that boots"):
        push(cloud, tmp_path / "x")


def test_what_is_temporary_is_tried_again_with_another_image(cloud: OpenStackFake, disk: Path) -> None:
    cloud.cut("/file", done=True)  # it has the file, and nobody hears of it
    cloud.spoil("PUT /image", 503)
    cloud.spoil("GET /image/v2/images?", 429, headers={"retry-after": "1"})
    pushed, said = push(cloud, disk)
    assert [one["id"] for one in cloud.images.values()] == [pushed.identity]
    assert sum("trying again" in line for line in said) == 2
    assert cloud.files == {pushed.identity: disk.read_bytes()}


def test_a_lost_answer_leaves_no_second_image(cloud: OpenStackFake, disk: Path) -> None:
    cloud.cut("POST /image/v2/images", done=True)
    pushed, _ = push(cloud, disk)
    assert list(cloud.images) == [pushed.identity]


def test_a_token_that_ends_in_the_middle(cloud: OpenStackFake, disk: Path) -> None:
    work = cloud.reply
    done: list[int] = []

    def reply(asked: Asked) -> Reply:
        if asked.path.endswith("/file") and not done:
            done.append(1)
            cloud.expire()
        return work(asked)

    cloud.reply = reply  # type: ignore[method-assign]
    pushed, _ = push(cloud, disk)
    assert cloud.files[pushed.identity] == disk.read_bytes()
    assert len(cloud.logins) == 2


@pytest.mark.parametrize(("text", "status", "body", "says"), [
    ("POST /image", 403, b"<html><body>you are not allowed</body></html>", "does not allow .*you are not allowed"),
    ("/file", 413, b"<html>Denying attempt to upload image because it exceeds the quota</html>", "exceeds the quota"),
])  # fmt: skip
def test_a_failure_half_way_leaves_nothing(cloud: OpenStackFake, disk: Path, text: str, status: int, body: bytes,
                                           says: str) -> None:  # fmt: skip
    cloud.spoil(text, status, body)
    with pytest.raises(NetworkError, match=says) as caught:
        push(cloud, disk)
    assert ("higher quota" in caught.value.hint) == (status == 413)
    assert cloud.images == {}


def test_other_bytes_are_seen(cloud: OpenStackFake, disk: Path) -> None:
    cloud.damage = True
    with pytest.raises(NetworkError, match="has other bytes than were sent: sha512"):
        push(cloud, disk)
    assert cloud.images == {}


def test_with_keep_what_is_left_is_listed(cloud: OpenStackFake, disk: Path) -> None:
    cloud.damage = True
    with pytest.raises(NetworkError), job(cloud, "push", keep=True) as (work, said):
        pusher = place.Push(work, LocalImage(disk, "raw"))
        pusher.preflight()
        pusher.push()
    (left,) = cloud.images
    assert said[-1] == f"kept: image {left}; remove it with: openstack image delete {left}"


def test_an_image_that_glance_gives_up(cloud: OpenStackFake, disk: Path) -> None:
    work = cloud.reply

    def reply(asked: Asked) -> Reply:
        answer = work(asked)
        for image in cloud.images.values():
            if image["status"] == "saving":
                image["status"] = "killed"
        return answer

    cloud.reply = reply  # type: ignore[method-assign]
    with pytest.raises(MachineError, match="it is killed"):
        push(cloud, disk)


def test_a_push_that_is_ended_leaves_nothing(cloud: OpenStackFake, disk: Path) -> None:
    work = cloud.reply
    environment = {k: v for k, v in os.environ.items() if k in ("PATH", "PYTHONPATH")} | variables(cloud)
    command = [sys.executable, "-m", "linuxkit", "push", "openstack", "web"]
    with subprocess.Popen(command, cwd=disk.parent, env=environment, stderr=subprocess.PIPE, text=True) as child:

        def reply(asked: Asked) -> Reply:
            if asked.path.endswith("/file"):
                child.terminate()
            return work(asked)

        cloud.saving = 1 << 30  # it would wait for long
        cloud.reply = reply  # type: ignore[method-assign]
        said = child.communicate(timeout=60)[1]
    assert child.returncode == 130, said
    assert "removed: image " in said
    assert cloud.images == {}


def test_a_dry_run_changes_nothing(cloud: OpenStackFake, disk: Path) -> None:
    _, said = push(cloud, disk, dry_run=True)
    assert any("would send: POST" in line and '"disk_format": "raw"' in line for line in said)
    assert any(f"{disk} ({disk.stat().st_size} bytes)" in line for line in said)
    assert (cloud.images, cloud.count("PUT")) == ({}, 0)


@pytest.mark.parametrize(("given", "says"), [
    ({"visibility": "all"}, "--visibility all is not known"), ({"property": "a"}, "NAME=VALUE is needed"),
    ({"region": "two"}, "there is no service 'image' in the region two"), ({"img_name": "x" * 300}, "1 to 255"),
])  # fmt: skip
def test_bad_input_is_said_before_anything_is_sent(cloud: OpenStackFake, disk: Path, given: dict[str, Any],
                                                   says: str) -> None:  # fmt: skip
    with pytest.raises(InputError, match=says):
        push(cloud, disk, **given)
    assert (cloud.images, cloud.count("PUT")) == ({}, 0)


def test_the_quota_is_looked_at_before(cloud: OpenStackFake, disk: Path) -> None:
    cloud.limit = 2
    with pytest.raises(InputError, match="the project may store 2 MiB of images, 1 are in use, and this one has 2"):
        push(cloud, disk)
    cloud.limit = 3
    push(cloud, disk)


# -- logins


def test_logins_by_variables(cloud: OpenStackFake, disk: Path) -> None:
    push(cloud, disk, dry_run=True)
    (login,) = cloud.logins
    assert login["identity"]["password"]["user"] == {"name": USER, "domain": {"name": "Default"}, "password": PASSWORD}
    assert login["scope"] == {"project": {"name": "web", "domain": {"id": "default"}}}
    base = {"OS_AUTH_URL": f"{cloud.url}/identity/v3/", "HOME": "/nowhere"}
    secret = {"OS_APPLICATION_CREDENTIAL_ID": "cred", "OS_APPLICATION_CREDENTIAL_SECRET": PASSWORD}
    cloud.tokens.add("known")
    token = {"OS_AUTH_TYPE": "v3token", "OS_TOKEN": "known", "OS_PROJECT_ID": PROJECT}
    for more in (secret, {**secret, "OS_AUTH_TYPE": "v3applicationcredential"}, token,
                 {"OS_USER_ID": "my-id", "OS_PASSWORD": PASSWORD, "OS_TENANT_ID": PROJECT}):  # fmt: skip
        push(cloud, disk, dry_run=True, environment=base | more)
    assert cloud.logins[3]["identity"] == {"methods": ["token"], "token": {"id": "known"}}
    assert cloud.logins[4]["scope"] == {"project": {"id": PROJECT}}
    with pytest.raises(InputError, match="does not accept the login") as caught:
        push(cloud, disk, environment=variables(cloud, OS_PASSWORD="falsch"))
    assert "the variables OS_*" in caught.value.hint
    assert "falsch" not in str(caught.value)
    with pytest.raises(InputError, match="this login has no service 'image'"):
        push(cloud, disk, environment=base | {"OS_USER_ID": "my-id", "OS_PASSWORD": PASSWORD})
    with pytest.raises(InputError, match=r"does not accept|no Keystone"):
        push(cloud, disk, environment=base | token | {"OS_TOKEN": "old"})


CLOUDS = """\
clouds:
  one:
    auth: {auth_url: URL/identity, username: me, project_name: web}
    region_name: one
    interface: internal
  two:
    profile: vendor
    auth: {username: me, project_id: 0123456789abcdef0123456789abcdef}
"""
SECURE = "clouds:\n  one: {auth: {password: geheim}}\n  two: {auth: {password: geheim}}\n"
PUBLIC = "public-clouds:\n  vendor: {auth: {auth_url: URL/identity}, region_name: two}\n"


def test_logins_by_files(cloud: OpenStackFake, disk: Path, tmp_path: Path) -> None:
    folder = tmp_path / ".config" / "openstack"
    folder.mkdir(parents=True)
    for name, text in (("clouds.yaml", CLOUDS), ("secure.yaml", SECURE), ("clouds-public.yaml", PUBLIC)):
        (folder / name).write_text(text.replace("URL", cloud.url))
    cloud.regions = ["one", "two"]
    home = {"HOME": str(tmp_path)}
    pushed, _ = push(cloud, disk, dry_run=True, environment={**home, "OS_CLOUD": "one"})
    assert pushed.run_with == "linuxkit run openstack --cloud=one web"
    push(cloud, disk, dry_run=True, environment=home, cloud="two")
    config = find_config(home, "two", "")
    assert (config.region, config.interface, config.source) == ("two", "public", f"cloud two of {folder}/clouds.yaml")
    assert find_config(home, "one", "two").region == "two"
    with pytest.raises(InputError, match="has several clouds") as caught:
        find_config(home, "", "")
    assert "--cloud one of these: one, two" in caught.value.hint
    with pytest.raises(InputError, match="there is no cloud three in"):
        find_config(home, "three", "")
    (folder / "secure.yaml").unlink()
    with pytest.raises(InputError, match="password missing"):
        find_config(home, "one", "")
    here = tmp_path / "here"
    here.mkdir()
    (here / "clouds.yaml").write_text("clouds: {only: {auth_type: v3oidcpassword, auth: {auth_url: http://x}}}")
    with pytest.raises(InputError, match="logins of the type oidcpassword are not supported"):
        find_config(home, "", "", here)
    (here / "clouds.yaml").write_text("clouds: {only: {verify: false, auth: {auth_url: http://x}}}")
    with pytest.raises(InputError, match="connections that nobody checked are not used"):
        find_config(home, "", "", here)
    for text, says in (("clouds: [", r"clouds.yaml:1: "), ("clouds: [1]", "is not a list of clouds"),
                       ("clouds: {a: {}}", "has no auth")):  # fmt: skip
        (here / "clouds.yaml").write_text(text)
        with pytest.raises(InputError, match=says):
            find_config(home, "", "", here)
    with pytest.raises(InputError, match="OS_CLIENT_CONFIG_FILE=/nowhere: no such file"):
        find_config({"OS_CLIENT_CONFIG_FILE": "/nowhere"}, "", "")
    with pytest.raises(InputError, match="no OpenStack login was found"):
        find_config({"HOME": str(here)}, "", "", tmp_path)


@pytest.mark.parametrize(("more", "says"), [
    ({"OS_PASSWORD": ""}, "OS_PASSWORD missing"), ({"OS_IDENTITY_API_VERSION": "2.0"}, "no longer supported"),
    ({"OS_INSECURE": "true"}, "connections that nobody checked"),
    ({"OS_AUTH_URL": "ftp://x"}, "is not an http or https"),
    ({"OS_AUTH_TYPE": "v3kerberos"}, "logins of the type kerberos are not supported"),
])  # fmt: skip
def test_logins_that_cannot_work(cloud: OpenStackFake, more: dict[str, str], says: str) -> None:
    with pytest.raises(InputError, match=says):
        find_config(variables(cloud, **more), "", "")


def test_several_regions_and_services_elsewhere(cloud: OpenStackFake, disk: Path) -> None:
    cloud.regions = ["one", "two"]
    with pytest.raises(InputError, match="there are several regions") as caught:
        push(cloud, disk)
    assert "--region one of these: one, two" in caught.value.hint
    assert push(cloud, disk, environment=variables(cloud, OS_REGION_NAME="two"))[0].name == "web"
    with pytest.raises(LinuxkitError, match=r"127\.0\.0\.1:1 cannot be reached"):
        push(cloud, disk, environment=variables(
            cloud, OS_REGION_NAME="two", OS_IMAGE_ENDPOINT_OVERRIDE="http://127.0.0.1:1"))  # fmt: skip


def test_tls_with_an_authority_of_one_s_own(cloud: OpenStackFake, disk: Path, tmp_path: Path) -> None:
    """And a catalogue that would have the token sent unencrypted."""
    import ssl

    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "2",
               "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "crt.pem"]  # fmt: skip
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "crt.pem", tmp_path / "key.pem")
    with OpenStackFake() as secure:
        secure.socket = context.wrap_socket(secure.socket, server_side=True)
        secure.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that hangs up
        url = secure.url.replace("http:", "https:")
        secure.address = url
        with pytest.raises(NetworkError, match="no secure connection"):
            push(secure, disk, environment=variables(secure, OS_AUTH_URL=f"{url}/identity"))
        trusted = variables(secure, OS_AUTH_URL=f"{url}/identity", OS_CACERT=str(tmp_path / "crt.pem"))
        assert push(secure, disk, environment=trusted)[0].name == "web"
        secure.address = "http://127.0.0.1:1"
        with pytest.raises(InputError, match=r"image is at http://127\.0\.0\.1:1/image, which is not https"):
            push(secure, disk, environment=trusted, img_name="other")


# -- running


@pytest.fixture
def image(cloud: OpenStackFake) -> OpenStackFake:
    """An image that is there, and a server that comes up, writes, and stops."""
    cloud.add_image("web")
    cloud.consoles = [409, "Linux version\n", "Linux version\nready\n", "Linux version\nready\nbye\n"]
    cloud.states = ["BUILD", "BUILD", "ACTIVE", "ACTIVE", "ACTIVE", "ACTIVE", "ACTIVE", "SHUTOFF"]
    return cloud


def test_a_server_runs_and_is_removed(image: OpenStackFake) -> None:
    shown, said = run(image, data=b'{"a": 1}', key_name="mine", sec_groups="default, web", config_drive=True,
                      floating_ip="public", instance_name="box")  # fmt: skip
    assert shown == b"Linux version\nready\nbye\n"
    (body,) = [one.json["server"] for one in image.asked if (one.method, one.path[-8:]) == ("POST", "/servers")]
    assert base64.b64decode(body["user_data"]) == b'{"a": 1}'
    assert (body["name"], body["key_name"], body["config_drive"]) == ("box", "mine", True)
    assert body["security_groups"] == [{"name": "default"}, {"name": "web"}]
    assert next(line for line in said if line.startswith("started ")).endswith(", 203.0.113.9")
    assert (image.gone, image.servers, image.addresses) == (["address", "server"], {}, {})
    assert said[-2:] == ["removed: floating IP 203.0.113.9", said[-1]]
    assert said[-1].startswith("removed: server ")


def test_a_server_of_a_volume(image: OpenStackFake) -> None:
    with pytest.raises(InputError, match=r"the flavor m1\.none has no disk of its own") as caught:
        run(image, flavor="m1.none")
    assert "--volume-size 1" in caught.value.hint
    run(image, flavor="m1.none", volume_size=3)
    assert image.servers == {}


def test_a_lost_answer_leaves_no_server(image: OpenStackFake) -> None:
    image.cut("POST /compute/v2.1/servers\n", done=True)
    shown, _ = run(image)
    assert shown
    assert (image.gone, image.servers) == (["server"], {})
    image.add_image("other")
    image.cut("POST /compute/v2.1/servers\n")  # and one that was not done
    with pytest.raises(NetworkError):
        run(image, "other")
    assert image.servers == {}


def test_a_cloud_that_cannot_make_it(image: OpenStackFake) -> None:
    image.states, image.fault = ["BUILD", "ERROR"], "No valid host was found. There are not enough hosts available."
    with pytest.raises(MachineError, match=r"could not make the server .*: No valid host was found") as caught:
        run(image)
    assert "another --flavor" in caught.value.hint
    assert image.servers == {}
    quota = json.dumps({"forbidden": {"code": 403, "message": "Quota exceeded for cores: Requested 1"}}).encode()
    image.spoil("POST /compute/v2.1/servers\n", 403, quota)
    with pytest.raises(NetworkError, match="Quota exceeded for cores") as caught_quota:
        run(image)
    assert "higher quota" in caught_quota.value.hint


def test_a_cloud_without_consoles(image: OpenStackFake) -> None:
    image.consoles = [501]
    shown, said = run(image)
    assert (shown, said.count("this cloud shows no console of its servers")) == (b"", 1)


def test_an_interrupt_removes_the_server(image: OpenStackFake) -> None:
    def interrupt(data: bytes) -> None:
        raise KeyboardInterrupt

    for keep in (True, False):
        image.states, image.consoles = ["ACTIVE"], ["hello\n"]
        with pytest.raises(KeyboardInterrupt), job(image, "run", keep=keep, output=interrupt) as (work, said):
            runner = place.Run(work, "web")
            runner.preflight()
            runner.run()
        if keep:
            (left,) = image.servers
            assert said[-1] == f"kept: server {left}; remove it with: openstack server delete {left}"
    assert len(image.servers) == 1  # the one that was kept


def test_a_dry_run_of_a_server_makes_nothing(image: OpenStackFake) -> None:
    _, said = run(image, dry_run=True)
    assert any(line.startswith("would send: POST") and "/servers" in line for line in said)
    assert image.servers == {}


@pytest.mark.parametrize(("target", "given", "says"), [
    ("nothing", {}, "there is no image nothing"),
    ("web", {"flavor": "huge"}, "there is no flavor huge"),
    ("web", {"network": "none"}, "there is no network none"),
    ("web", {"sec_groups": "none"}, "there is no security group none"),
    ("web", {"key_name": "none"}, "there is no key pair none"),
    ("web", {"floating_ip": "private"}, "there is no external network private"),
    ("web", {"data": bytes(60000)}, "user data is larger than 48 KB"),
])  # fmt: skip
def test_bad_input_is_said_before_anything_is_made(image: OpenStackFake, target: str, given: dict[str, Any],
                                                   says: str) -> None:  # fmt: skip
    with pytest.raises(InputError, match=says):
        run(image, target, **given)
    assert image.servers == {}


def test_what_does_not_fit_is_said(image: OpenStackFake) -> None:
    image.add_image("large", min_disk=5)
    with pytest.raises(InputError, match="the image large needs a disk of 5 GB, and there are 1"):
        run(image, "large")
    image.add_image("hungry", min_ram=4096)
    with pytest.raises(InputError, match="needs 4096 MB of memory"):
        run(image, "hungry")
    image.limits["totalInstancesUsed"] = 10
    with pytest.raises(InputError, match="the project may have 10 servers, 10 are in use"):
        run(image)
    image.limits["totalInstancesUsed"] = 0
    image.networks.append({"id": "x", "name": "second", "router:external": False})
    with pytest.raises(InputError, match="the project has 2 networks, not one") as caught:
        run(image)
    assert "private, second" in caught.value.hint
    identity = image.add_image("web")
    with pytest.raises(InputError, match="there are several images web"):
        run(image, network="private")
    run(image, identity, network="private")


def test_what_is_new_in_a_console() -> None:
    shown: list[bytes] = []
    tail = Tail(shown.append)
    line = b"the same line\n"
    for console in (b"", b"a\n", b"a\nb\n", b"a\nb\n", b"a\nb\n" + line * 100, line * 90, line * 90 + b"c\n", b"new\n"):
        tail.show(console)
    assert shown == [b"a\n", b"b\n", line * 100, b"", b"c\n", b"new\n"]


def test_by_the_command_line(cloud: OpenStackFake, disk: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k in ("PATH", "PYTHONPATH")} | variables(cloud)

    def linuxkit(*args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "linuxkit", *args], cwd=disk.parent, env=environment,
                              capture_output=True, text=True, timeout=60)  # fmt: skip

    done = linuxkit("push", "openstack", "web")
    assert (done.returncode, done.stdout) == (0, f"{next(iter(cloud.images))}\n"), done.stderr
    assert "linuxkit run openstack web" in done.stderr
    cloud.states = ["ACTIVE", "ACTIVE", "SHUTOFF"]
    done = linuxkit("run", "openstack", "web", "--instancename", "box", "--keyname", "mine", "--dry-run")
    assert (done.returncode, '"name": "box"' in done.stderr) == (0, True), done.stderr
