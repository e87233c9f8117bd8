"""AWS: a disk image becomes a snapshot, the snapshot an AMI, the AMI a machine.

    push  EBS direct: the blocks that are not zero, straight into a snapshot (no bucket, no role, no conversion); or
          --method import: an object in S3, which EC2 turns into a snapshot (needs the role vmimport)
    run   an instance of the AMI, its console on this terminal, until it is stopped
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from functools import cached_property
from typing import Any

from linuxkit.clouds.aws_api import BLOCK, Api
from linuxkit.clouds.aws_xml import text
from linuxkit.errors import InputError, MachineError
from linuxkit.places.image import LocalImage, side_by_side
from linuxkit.places.place import Job, Pushed, Setting
from linuxkit.places.rest import gone_is_fine
from linuxkit.platforms.bootimage import Image, Media, look

GIB = 1 << 30
_REGION = Setting("region", "Where.", env=("AWS_REGION", "AWS_DEFAULT_REGION"))
PUSH_SETTINGS = (
    _REGION,
    Setting("method", "direct (EBS direct APIs) or import (VM import, over S3).", default="direct"),
    Setting("bucket", "With --method import: where the image is put on the way.", env=("AWS_BUCKET",)),
    Setting("img-name", "What the image is called; else as the file.", env=("AWS_IMAGE_NAME",)),
    Setting("uefi", "Start with UEFI.", kind=bool, default=False),
    Setting("tpm", "Machines get a TPM 2.0; with --uefi.", kind=bool, default=False),
    Setting("ena", "Say that the image has the driver of the enhanced network.", kind=bool, default=True),
    Setting("sriov", "simple: the older enhanced network.", default=""),
    Setting("timeout", "Seconds to wait for AWS.", env=("LINUXKIT_UPLOAD_TIMEOUT",), kind=int, default=600),
)
RUN_SETTINGS = (
    _REGION,
    Setting("machine", "The type of the instance.", env=("AWS_MACHINE",), default="t3.micro"),
    Setting("zone", "The letter of the availability zone.", env=("AWS_ZONE",)),
    Setting("disk-size", "GB of a second, empty disk.", env=("AWS_DISK_SIZE",), kind=int, default=0),
    Setting("disk-type", "Its type.", env=("AWS_DISK_TYPE",), default="gp3"),
    Setting("security-group", "Its id; else the network's own."),
    Setting("subnet", "Its id; else the default network's."),
    Setting("public-ip", "Give it a public address.", kind=bool, default=False),
    Setting("timeout", "Seconds to wait until it runs.", kind=int, default=600),
)


class Push:
    """Makes an AMI."""

    def __init__(self, job: Job, image: LocalImage) -> None:
        self._job, self._image = job, image
        self._api = Api(job, job["region"])
        self._name = job["img-name"] or image.path.name.partition(".")[0]

    def preflight(self) -> None:
        job, image = self._job, self._image
        if job["method"] not in ("direct", "import"):
            raise InputError(f"--method {job['method']} is not known", hint="direct or import")
        if job["tpm"] and not job["uefi"]:
            raise InputError("--tpm needs --uefi", hint="give both: AWS has no TPM for machines that start by BIOS")
        if not re.fullmatch(r"[A-Za-z0-9()\[\] ./'@_-]{3,128}", self._name):
            raise InputError(f"'{self._name}' cannot be the name of an AMI",
                             hint="--img-name: 3 to 128 of A-Z a-z 0-9 ( ) [ ] . / - ' @ _ and blanks")  # fmt: skip
        disk = self._disk
        if disk.format != "raw" or disk.media is not Media.DISK or not disk.bootable or image.size % 512:
            raise InputError(f"{image.path} is not a raw disk that boots", hint="linuxkit build --format aws FILE.yml")
        if disk.arch != "aarch64" and not disk.bios and not job["uefi"]:
            raise InputError(f"{image.path} is for UEFI only, and AWS starts it as a BIOS does",
                             hint="give --uefi, or build --format aws, which both start")  # fmt: skip
        if image.size > 64 << 40:
            raise InputError(f"{image.path} has {image.size} bytes, and a volume of AWS at most 64 TiB")
        self._api.identity()
        if job["method"] == "import":
            if not job["bucket"]:
                raise InputError("--method import needs a bucket", hint="give --bucket, or --method direct")
            self._api.bucket(job["bucket"]).check(self._api.region)
        there = self._api.image(name=self._name)
        if there is not None and there[1] != image.digest:
            raise InputError(f"there is an AMI named {self._name} already ({there[0]}), with other content",
                             hint="give another --img-name, or remove it: "
                                  f"aws ec2 deregister-image --image-id {there[0]}")  # fmt: skip
        # the answer is an error in any case: a permission that is missing, or that it would have worked
        self._api.ec2("RegisterImage", reads=True, Name=self._name, DryRun=True, RootDeviceName="/dev/sda1",
                      allow=("DryRunOperation", "InvalidSnapshot.NotFound", "InvalidParameterValue", "MissingParameter",
                             "InvalidAMIName.Duplicate", "InvalidRequest", "InvalidBlockDeviceMapping"))  # fmt: skip

    def push(self) -> Pushed:
        there = self._api.image(name=self._name)
        if there is not None and there[1] == self._image.digest:
            return Pushed(self._name, there[0], True, f"linuxkit run aws {self._name}")
        snapshot = self._direct() if self._job["method"] == "direct" else self._import()
        what = f"snapshot {snapshot}"
        answer = self._api.ec2(
            "RegisterImage", Name=self._name, VirtualizationType="hvm",
            Architecture="arm64" if self._disk.arch == "aarch64" else "x86_64",
            RootDeviceName="/dev/sda1", EnaSupport=self._job["ena"], SriovNetSupport=self._job["sriov"],
            BootMode="uefi" if self._job["uefi"] else "", TpmSupport="v2.0" if self._job["tpm"] else "",
            BlockDeviceMapping=[{"DeviceName": "/dev/sda1", "Ebs": {
                "SnapshotId": snapshot, "VolumeType": "gp3", "DeleteOnTermination": True}}],
        )  # fmt: skip
        identity = text(answer, "imageId")
        self._job.journal.made(f"image {identity}", lambda: self._api.ec2("DeregisterImage", ImageId=identity),
                               f"aws ec2 deregister-image --image-id {identity}")  # fmt: skip
        self._api.ec2("CreateTags", ResourceId=[identity], Tag=self._tags())
        self._job.journal.result(f"image {identity}")
        self._job.journal.result(what)
        return Pushed(self._name, identity, False, f"linuxkit run aws {self._name}")

    @cached_property
    def _disk(self) -> Image:
        return look(self._image.path)

    def _tags(self) -> list[dict[str, str]]:
        return [{"Key": "Name", "Value": self._name}, {"Key": "linuxkit-sha256", "Value": self._image.digest}]

    def _made_snapshot(self, snapshot: str) -> None:
        self._job.journal.made(
            f"snapshot {snapshot}", gone_is_fine(lambda: self._api.ec2(
                "DeleteSnapshot", SnapshotId=snapshot, allow=("InvalidSnapshot.NotFound",))),
            f"aws ec2 delete-snapshot --region {self._api.region} --snapshot-id {snapshot}",
        )  # fmt: skip

    def _direct(self) -> str:
        """A snapshot of the blocks that are not zero."""
        job, image, api = self._job, self._image, self._api
        # a token of the content: asking twice after a lost answer doesn't make two
        started = api.ebs.post("/snapshots", json={
            "VolumeSize": -(-image.size // GIB), "Description": f"linuxkit {self._name}", "Timeout": 60,
            "ClientToken": f"linuxkit-{image.digest[:40]}-{int(job.now())}", "Tags": self._tags(),
        })  # fmt: skip
        snapshot = str(started["SnapshotId"])
        self._made_snapshot(snapshot)
        blocks = list(image.blocks(BLOCK))
        sent = [0]
        total = sum(length for _, length in blocks)

        def send(block: tuple[int, int]) -> None:
            index, length = block
            api.put_block(snapshot, index, image.read(index * BLOCK, length))
            sent[0] += length
            job.progress(image.path.name, min(sent[0], total), total)

        if job.dry_run:
            job.log(f"would send: {len(blocks)} blocks of 512 KiB, {total} bytes; the others are zero")
        else:
            side_by_side(blocks, send)
        count = {"x-amz-changedblockscount": str(len(blocks))}
        api.ebs.call("POST", f"/snapshots/completion/{snapshot}", headers=count)
        self._wait_snapshot(snapshot)
        return snapshot

    def _wait_snapshot(self, snapshot: str) -> None:
        def ready() -> bool:
            state = text(self._api.ec2("DescribeSnapshots", SnapshotId=[snapshot]), "status")
            if state == "error":
                raise MachineError(f"AWS could not make the snapshot {snapshot}")
            return state == "completed"

        if not self._job.dry_run:
            self._job.wait(f"the snapshot {snapshot}", ready, limit=self._job["timeout"])

    def _import(self) -> str:
        """A snapshot that EC2 makes of an object in S3."""
        job, api, bucket = self._job, self._api, str(self._job["bucket"])
        objects = api.bucket(bucket)
        key = f"{self._name}-{self._image.digest[:16]}.raw"
        command = f"aws s3 rm s3://{bucket}/{key}"
        job.journal.made(f"s3://{bucket}/{key}", lambda: objects.delete(key), command, temporary=True)
        objects.put(key, self._image)
        task = text(api.ec2("ImportSnapshot", Description=f"linuxkit {self._name}", DiskContainer={
            "Format": "raw", "UserBucket": {"S3Bucket": bucket, "S3Key": key}}), "importTaskId")  # fmt: skip
        what = f"import task {task}"
        job.journal.made(what, lambda: api.ec2("CancelImportTask", ImportTaskId=task),
                         f"aws ec2 cancel-import-task --import-task-id {task}")  # fmt: skip

        def ready() -> str:
            answer = api.ec2("DescribeImportSnapshotTasks", ImportTaskId=[task])
            state, why = text(answer, "status"), text(answer, "statusMessage")
            if state in ("deleted", "deleting", "cancelled"):
                raise MachineError(f"AWS gave up importing: {why or state}",
                                   hint="the role vmimport must exist, and may read the bucket")
            return text(answer, "snapshotId") if state == "completed" else ""

        snapshot = str(job.wait(f"the import {task}", ready, every=15, limit=job["timeout"]) or "<snapshot>")
        job.journal.forget(what)
        self._made_snapshot(snapshot)
        if not job.dry_run:
            api.ec2("CreateTags", ResourceId=[snapshot], Tag=self._tags())
        return snapshot


class Run:
    """An instance of an AMI, by its name or id."""

    def __init__(self, job: Job, target: str) -> None:
        self._job, self._target = job, target
        self._api = Api(job, job["region"])
        self._image = ""

    def preflight(self) -> None:
        self._api.identity()
        by_id = self._target.startswith("ami-")
        found = self._api.image(identity=self._target) if by_id else self._api.image(name=self._target)
        if found is None:
            raise InputError(f"there is no AMI {self._target} in {self._api.region}",
                             hint=f"linuxkit push aws --img-name {self._target} FILE.yml, or another --region")
        self._image = found[0]
        if len(self._job.data or b"") > 16384:
            raise InputError("user data is larger than the 16 KB that AWS takes", hint="put an address into it instead")

    def run(self) -> None:
        job, api = self._job, self._api
        instance = text(api.ec2("RunInstances", **self._parameters()), "instanceId")
        job.journal.made(
            f"instance {instance}", lambda: api.ec2("TerminateInstances", InstanceId=[instance]),
            f"aws ec2 terminate-instances --region {api.region} --instance-ids {instance}", temporary=True,
        )  # fmt: skip
        if job.dry_run:
            return
        job.log(f"started {instance}")
        job.wait(f"the instance {instance}", lambda: self._state(instance) not in ("pending",), limit=job["timeout"])
        shown = b""
        while True:
            state = self._state(instance)
            answer = api.ec2("GetConsoleOutput", InstanceId=instance, Latest=True, allow=("UnsupportedOperation",))
            if answer is None:  # only some types show it while they run
                answer = api.ec2("GetConsoleOutput", InstanceId=instance)
            shown = self._show(b64decode(text(answer, "output") or ""), shown)
            if state in ("stopped", "terminated", "shutting-down"):
                return
            job.sleep(5)

    def _show(self, console: bytes, shown: bytes) -> bytes:
        """Print what is new: AWS sends the last 64 KB each time."""
        if not console or console == shown:
            return shown
        tail = shown[-256:]
        at = console.rfind(tail) + len(tail) if tail and tail in console else 0
        self._job.output(console[at:])
        return console

    def _state(self, instance: str) -> str:
        answer = self._api.ec2("DescribeInstances", InstanceId=[instance], allow=("InvalidInstanceID.NotFound",))
        found = answer.find(".//{*}instanceState/{*}name") if answer is not None else None
        return (found.text or "") if found is not None else "pending"

    def _parameters(self) -> dict[str, Any]:
        job = self._job
        network: dict[str, Any] = {}
        if job["public-ip"]:
            network["NetworkInterface"] = [{
                "DeviceIndex": 0, "AssociatePublicIpAddress": True, "SubnetId": job["subnet"],
                "SecurityGroupId": [job["security-group"]] if job["security-group"] else []}]  # fmt: skip
        else:
            network["SubnetId"] = job["subnet"]
            network["SecurityGroupId"] = [job["security-group"]] if job["security-group"] else []
        disk = [{"DeviceName": "/dev/sdb", "Ebs": {
            "VolumeSize": job["disk-size"], "VolumeType": job["disk-type"], "DeleteOnTermination": True,
        }}] if job["disk-size"] else []  # fmt: skip
        return {
            "ImageId": self._image, "InstanceType": job["machine"], "MinCount": 1, "MaxCount": 1,
            "InstanceInitiatedShutdownBehavior": "stop", **network, "BlockDeviceMapping": disk,
            "Placement": {"AvailabilityZone": f"{self._api.region}{job['zone']}"} if job["zone"] else {},
            "UserData": b64encode(job.data).decode() if job.data else "",
            "MetadataOptions": {"HttpTokens": "optional"},
            "TagSpecification": [{
                "ResourceType": "instance", "Tag": [{"Key": "Name", "Value": f"linuxkit {self._target}"}]}],
        }  # fmt: skip


