"""AWS, as moto plays it: push over EBS direct and over VM import, run, clean up; failures put in on the way."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from linuxkit.clouds import aws as aws_place
from linuxkit.oci.transport import Transport
from linuxkit.places.image import LocalImage
from linuxkit.places.journal import Journal
from linuxkit.places.place import Job, Setting, settle
from support.clouds.moto import serve
from support.clouds.proxy import Proxy

pytestmark = pytest.mark.interop
BLOCK = 512 << 10


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serve(tmp_path_factory.mktemp("moto")) as url:
        yield url


@pytest.fixture
def aws(moto: str) -> Iterator[Proxy]:
    """An empty AWS, behind a proxy that counts and spoils."""
    urllib.request.urlopen(urllib.request.Request(f"{moto}/moto-api/reset", method="POST")).close()
    with Proxy(moto) as proxy:
        yield proxy


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "web-efi.img"
    with path.open("wb") as stream:
        stream.write((b"boot code".ljust(510, b".") + b"\x55\xaa").ljust(BLOCK, b"."))
        stream.seek(3 * BLOCK)
        stream.write(b"fourth")
        stream.truncate(8 * BLOCK + 512)
    return path


def linuxkit(proxy: Proxy, *args: str, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k in ("PATH", "PYTHONPATH")} | {
        "HOME": str(cwd), "AWS_ENDPOINT_URL": proxy.url, "AWS_REGION": "eu-central-1", "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret", "AWS_EC2_METADATA_DISABLED": "true",
    } | more  # fmt: skip
    return subprocess.run([sys.executable, "-m", "linuxkit", *args], cwd=cwd, env=environment, capture_output=True,
                          text=True, timeout=120)  # fmt: skip


@contextmanager
def job(proxy: Proxy, settings: tuple[Setting, ...], data: bytes | None = None,
        output: Callable[[bytes], None] = lambda data: None, **given: Any) -> Iterator[Job]:  # fmt: skip
    """The same without a command line, and without waiting."""
    environment = {"AWS_ENDPOINT_URL": proxy.url, "AWS_REGION": "eu-central-1", "AWS_ACCESS_KEY_ID": "key",
                   "AWS_SECRET_ACCESS_KEY": "secret"}  # fmt: skip
    said: list[str] = []
    with Journal(said.append) as journal:
        yield Job(settle(settings, given, environment), environment, Transport(sleep=lambda s: None), journal,
                  said.append, output, data=data, sleep=lambda s: None)  # fmt: skip


def registration(proxy: Proxy) -> str:
    """The request that made the image; moto keeps little of it."""
    return next(body for _, _, body in reversed(proxy.seen) if b"Action=RegisterImage" in body).decode()


def client(proxy: Proxy, service: str) -> Any:
    boto3 = pytest.importorskip("boto3")
    return boto3.client(service, region_name="eu-central-1", endpoint_url=proxy.target, aws_access_key_id="key",
                        aws_secret_access_key="secret")  # fmt: skip


def test_a_disk_becomes_an_image_once(aws: Proxy, disk: Path) -> None:
    done = linuxkit(aws, "push", "aws", "--uefi", "--tpm", "web", cwd=disk.parent)
    assert done.returncode == 0, done.stderr
    (image,) = client(aws, "ec2").describe_images(Owners=["self"])["Images"]
    assert done.stdout.strip() == image["ImageId"]
    assert image["Name"] == "web-efi"
    registered = registration(aws)
    for word in ("Architecture=x86_64", "BootMode=uefi", "TpmSupport=v2.0", "EnaSupport=true", "VolumeType=gp3"):
        assert word in registered
    snapshot = registered.partition("Ebs.SnapshotId=")[2].partition("&")[0]
    ebs = client(aws, "ebs")
    blocks = ebs.list_snapshot_blocks(SnapshotId=snapshot)["Blocks"]
    assert sorted(b["BlockIndex"] for b in blocks) == [0, 3]
    token = {b["BlockIndex"]: b["BlockToken"] for b in blocks}
    data = ebs.get_snapshot_block(SnapshotId=snapshot, BlockIndex=3, BlockToken=token[3])["BlockData"].read()
    assert data == b"fourth".ljust(BLOCK, b"\0")

    sent = aws.count("PUT")
    done = linuxkit(aws, "push", "aws", "web", cwd=disk.parent)
    assert (done.returncode, done.stdout.strip()) == (0, image["ImageId"])
    assert "is there already" in done.stderr
    assert aws.count("PUT") == sent

    disk.write_bytes((b"other code".ljust(510, b".") + b"\x55\xaa").ljust(1 << 20, b"."))
    done = linuxkit(aws, "push", "aws", "web", cwd=disk.parent)
    assert (done.returncode, "with other content" in done.stderr) == (2, True), done.stderr


def test_a_dry_run_changes_nothing(aws: Proxy, disk: Path) -> None:
    done = linuxkit(aws, "push", "aws", "--dry-run", "web", cwd=disk.parent)
    assert done.returncode == 0, done.stderr
    assert "would send: 2 blocks of 512 KiB" in done.stderr
    assert "RegisterImage" in done.stderr
    assert client(aws, "ec2").describe_snapshots(OwnerIds=["self"])["Snapshots"] == []


@pytest.mark.parametrize(("where", "status", "skip"), [
    ("/blocks/3", 403, 0), ("/completion/", 400, 0), ("Action=RegisterImage", 400, 1),  # its first is preflight's
])  # fmt: skip
def test_a_failure_half_way_leaves_nothing(aws: Proxy, disk: Path, where: str, status: int, skip: int) -> None:
    aws.spoil(where, status, b'{"message": "no", "code": "ServiceQuotaExceededException"}', after=skip)
    done = linuxkit(aws, "push", "aws", "web", cwd=disk.parent)
    assert done.returncode == 1, done.stderr
    assert "removed: snapshot snap-" in done.stderr
    assert "Traceback" not in done.stderr
    assert client(aws, "ec2").describe_snapshots(OwnerIds=["self"])["Snapshots"] == []


def test_what_is_temporary_is_tried_again(aws: Proxy, disk: Path) -> None:
    aws.spoil("/blocks/0", 500, b"")
    aws.spoil("/blocks/3", 429, b"", headers={"retry-after": "0"})
    aws.cut("/blocks/3", after=1)
    done = linuxkit(aws, "push", "aws", "web", cwd=disk.parent)
    assert done.returncode == 0, done.stderr


def test_with_keep_what_is_left_is_listed(aws: Proxy, disk: Path) -> None:
    aws.spoil("/completion/", 400, b"{}")
    done = linuxkit(aws, "push", "aws", "--keep", "web", cwd=disk.parent)
    (snapshot,) = client(aws, "ec2").describe_snapshots(OwnerIds=["self"])["Snapshots"]
    assert f"aws ec2 delete-snapshot --region eu-central-1 --snapshot-id {snapshot['SnapshotId']}" in done.stderr


@pytest.mark.parametrize(("args", "more", "says"), [
    (["web"], {"AWS_ACCESS_KEY_ID": ""}, "no AWS credentials were found"),
    (["web"], {"AWS_REGION": ""}, "no AWS region is set"),
    (["--tpm", "web"], {}, "--tpm needs --uefi"),
    (["--method", "import", "web"], {}, "give --bucket"),
    (["--method", "import", "--bucket", "none", "web"], {}, "there is no bucket none"),
    (["--img-name", "a", "web"], {}, "cannot be the name of an AMI"),
    (["small"], {}, "is not a raw disk"),
    (["uefi.img"], {}, "is for UEFI only, and AWS starts it as a BIOS does"),
])  # fmt: skip
def test_bad_input_is_said_before_anything_is_sent(aws: Proxy, disk: Path, args: list[str], more: dict[str, str],
                                                   says: str) -> None:  # fmt: skip
    (disk.parent / "small").write_bytes(b"x")
    (disk.parent / "uefi.img").write_bytes(bytes(510) + b"\x55\xaa" + bytes(1 << 20))  # no code for a BIOS
    done = linuxkit(aws, "push", "aws", *args, cwd=disk.parent, **more)
    assert (done.returncode, says in done.stderr) == (2, True), done.stderr
    assert aws.count("PUT") == 0


def test_vm_import_over_s3(aws: Proxy, disk: Path) -> None:
    client(aws, "s3").create_bucket(Bucket="images", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    volume = client(aws, "ec2").create_volume(Size=1, AvailabilityZone="eu-central-1a")["VolumeId"]
    snapshot = client(aws, "ec2").create_snapshot(VolumeId=volume)["SnapshotId"]
    state = iter(["active", "active", "completed"])
    sizes = []

    def begin(body: bytes) -> tuple[int, bytes]:
        listed = client(aws, "s3").list_objects_v2(Bucket="images")["Contents"]
        sizes.extend(o["Size"] for o in listed)
        assert f"DiskContainer.UserBucket.S3Key={listed[0]['Key']}".encode() in body
        return 200, b"<ImportSnapshotResponse><importTaskId>import-snap-1</importTaskId></ImportSnapshotResponse>"

    def poll(body: bytes) -> tuple[int, bytes]:
        detail = f"<status>{next(state)}</status><snapshotId>{snapshot}</snapshotId>"
        return 200, f"<R><item><snapshotTaskDetail>{detail}</snapshotTaskDetail></item></R>".encode()

    aws.answer("Action=ImportSnapshot&", begin)
    aws.answer("Action=DescribeImportSnapshotTasks", poll)
    with job(aws, aws_place.PUSH_SETTINGS, method="import", bucket="images") as work:
        pusher = aws_place.Push(work, LocalImage(disk, "raw-efi"))
        pusher.preflight()
        pusher.push()
    assert sizes == [disk.stat().st_size]
    (image,) = client(aws, "ec2").describe_images(Owners=["self"])["Images"]
    assert f"Ebs.SnapshotId={snapshot}&" in registration(aws)
    assert image["Name"] == "web-efi"
    assert "Contents" not in client(aws, "s3").list_objects_v2(Bucket="images")  # the object was on the way only


def test_an_instance_runs_and_is_removed(aws: Proxy, disk: Path) -> None:
    assert linuxkit(aws, "push", "aws", "web", cwd=disk.parent).returncode == 0
    consoles = iter([b"Linux version\n", b"Linux version\nready\n", b"Linux version\nready\nbye\n"])
    seen = [0]

    def console(body: bytes) -> tuple[int, bytes]:
        seen[0] += 1
        if seen[0] == 3:
            ec2 = client(aws, "ec2")
            running = ec2.describe_instances()["Reservations"][0]["Instances"][0]["InstanceId"]
            data = ec2.describe_instance_attribute(InstanceId=running, Attribute="userData")["UserData"]["Value"]
            assert json.loads(base64.b64decode(data)) == {"a": 1}
            ec2.stop_instances(InstanceIds=[running])
        text = base64.b64encode(next(consoles, b"Linux version\nready\nbye\n")).decode()
        return 200, f"<GetConsoleOutputResponse><output>{text}</output></GetConsoleOutputResponse>".encode()

    aws.answer("Action=GetConsoleOutput", console)
    shown: list[bytes] = []
    with job(aws, aws_place.RUN_SETTINGS, data=b'{"a": 1}', output=shown.append) as work:
        runner = aws_place.Run(work, "web-efi")
        runner.preflight()
        runner.run()
    assert b"".join(shown) == b"Linux version\nready\nbye\n"
    (found,) = client(aws, "ec2").describe_instances()["Reservations"]
    assert found["Instances"][0]["State"]["Name"] == "terminated"
    done = linuxkit(aws, "run", "aws", "nothing", cwd=disk.parent)
    assert (done.returncode, "there is no AMI nothing in eu-central-1" in done.stderr) == (2, True)
