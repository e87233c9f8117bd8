"""The calls of AWS that push and run make: EC2 (a query API that answers XML), EBS direct (JSON), S3 (bytes).

References: Amazon EC2 API 2016-11-15; Amazon EBS direct APIs 2019-11-02; Amazon S3 2006-03-01.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode
from xml.etree import ElementTree

from linuxkit.errors import InputError
from linuxkit.platforms.aws_login import Login
from linuxkit.platforms.image import LocalImage
from linuxkit.platforms.place import Job
from linuxkit.platforms.rest import Rest, Unknown, Words
from linuxkit.platforms.sigv4 import SigV4

VERSION = "2016-11-15"
FORM = {"content-type": "application/x-www-form-urlencoded; charset=utf-8"}
BLOCK = 512 << 10  # of EBS direct
PART = 64 << 20  # of an upload to S3
HINTS: Mapping[str | int, str] = {
    "UnauthorizedOperation": "a permission of EC2 is missing; docs/platforms/aws.md lists those that are needed",
    "AccessDeniedException": "needed are ebs:StartSnapshot, ebs:PutSnapshotBlock and ebs:CompleteSnapshot",
    "AuthFailure": "the keys are not AWS', or this machine's clock is wrong",
    "InvalidAMIName.Duplicate": "give another --img-name, or deregister the other image",
    "VcpuLimitExceeded": "ask AWS for a higher quota, or take another --machine",
    "SnapshotLimitExceeded": "delete old snapshots, or ask AWS for a higher quota",
    "ServiceQuotaExceededException": "delete old snapshots, or ask AWS for a higher quota",
    "InvalidParameter": "see docs/platforms/aws.md",
    "NoSuchBucket": "give --bucket the name of one that exists",
    "RequestExpired": "this machine's clock is wrong, or the login has expired",
}  # fmt: skip


class Api:
    """The three services in one region."""

    def __init__(self, job: Job, region: str = "") -> None:
        login = Login(job.environment, job.transport)
        self.region = region or login.region()
        if not self.region:
            raise InputError("no AWS region is set", hint="give --region, or set AWS_REGION")
        self.job = job
        credentials = login()
        self.source = credentials.source

        def rest(service: str, base: str = "") -> Rest:
            signer = SigV4(login, self.region, service, job.now)
            words = Words("AWS", credentials=credentials.source, hints=HINTS, message=_message)
            return Rest(job, base or login.endpoint(service, self.region), words=words, sign=signer)

        self._ec2, self.ebs, self._s3, self._sts = rest("ec2"), rest("ebs"), rest("s3"), rest("sts")

    # -- EC2

    def ec2(self, action: str, *, reads: bool | None = None, allow: tuple[str, ...] = (), **parameters: Any) -> Any:
        """One action; the root of its answer, or an Unknown in a dry run.

        Args:
            reads: None: actions whose names begin with Describe or Get read.
            allow: error codes for which the answer is None.
            parameters: lists become NAME.1, NAME.2, …; mappings NAME.KEY.
        """
        from linuxkit.platforms.rest import RefusedError

        body = urlencode({"Action": action, "Version": VERSION, **_flat(parameters)}).encode()
        reads = action.startswith(("Describe", "Get")) if reads is None else reads
        try:
            answer = self._ec2.call(
                "POST", "/", body=body, reads=reads, shown=f"{action} {_flat(parameters)}",
                headers=FORM,
            )  # fmt: skip
        except RefusedError as e:
            if e.code in allow:
                return None
            raise
        return answer.json if isinstance(answer.json, Unknown) else ElementTree.fromstring(answer.body)

    def identity(self) -> str:
        """Who we are: the ARN. Fails when the login does."""
        body = urlencode({"Action": "GetCallerIdentity", "Version": "2011-06-15"}).encode()
        answer = self._sts.call("POST", "/", body=body, reads=True, headers=FORM)
        return text(ElementTree.fromstring(answer.body), ".//Arn")

    def image(self, *, name: str = "", identity: str = "") -> tuple[str, str] | None:
        """(id, digest of its content) of an own image by its name, or of any by its id."""
        filters = [{"Name": "name", "Value": [name]}] if name else []
        found = self.ec2("DescribeImages", Owner=[] if identity else ["self"], Filter=filters,
                         ImageId=[identity] if identity else [],
                         allow=("InvalidAMIID.NotFound", "InvalidAMIID.Malformed"))  # fmt: skip
        items = found.findall("{*}imagesSet/{*}item") if found is not None else []
        if not items:
            return None
        tags = {text(t, "key"): text(t, "value") for t in items[0].findall("{*}tagSet/{*}item")}
        return text(items[0], "imageId"), tags.get("linuxkit-sha256", "")

    # -- EBS direct

    def put_block(self, snapshot: str, index: int, data: bytes) -> None:
        """One block of a snapshot; the last one of an image is filled up with zeros."""
        data = data.ljust(BLOCK, b"\0")
        checksum = b64encode(hashlib.sha256(data).digest()).decode()
        self.ebs.call("PUT", f"/snapshots/{snapshot}/blocks/{index}", body=data, headers={
            "x-amz-data-length": str(BLOCK), "x-amz-checksum": checksum, "x-amz-checksum-algorithm": "SHA256",
            "content-type": "application/octet-stream",
        })  # fmt: skip

    # -- S3

    def bucket_exists(self, bucket: str) -> bool:
        return self._s3.call("HEAD", f"/{bucket}", allow=(404,)).status != 404

    def put_object(self, bucket: str, key: str, image: LocalImage) -> None:
        """A file as an object, in parts when it is large. What has been sent of it is removed when it fails."""
        path = f"/{bucket}/{quote(key)}"
        if image.size <= PART:
            self._s3.call("PUT", path, body=image.read(0, image.size), shown=f"{image.path} ({image.size} bytes)")
            return
        begun = self._s3.call("POST", path + "?uploads=", shown=f"an upload of {image.path} in parts")
        upload = text(ElementTree.fromstring(begun.body), "UploadId") if begun.body else "<upload>"
        what = f"half an upload of s3://{bucket}/{key}"
        query = {"uploadId": upload}
        self.job.journal.made(
            what, lambda: self._s3.delete(path, query=query),
            f"aws s3api abort-multipart-upload --bucket {bucket} --key {key} --upload-id {upload}",
        )  # fmt: skip
        tags = []
        for number in range(-(-image.size // PART)):
            data = image.read(number * PART, PART)
            sent = self._s3.call("PUT", path, query={"partNumber": number + 1, **query}, body=data,
                                 shown=f"part {number + 1} of {image.path}")  # fmt: skip
            tags.append(sent.headers.get("etag", ""))
            self.job.progress(image.path.name, min((number + 1) * PART, image.size), image.size)
        parts = "".join(f"<Part><PartNumber>{n}</PartNumber><ETag>{tag}</ETag></Part>" for n, tag in enumerate(tags, 1))
        body = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()
        self._s3.call("POST", path, query=query, body=body, headers={"content-type": "application/xml"})
        self.job.journal.forget(what)

    def delete_object(self, bucket: str, key: str) -> None:
        self._s3.delete(f"/{bucket}/{quote(key)}")


def text(element: Any, name: str) -> str:
    """The text of a child, whatever its namespace; empty when there is none. Of an Unknown, an Unknown."""
    if isinstance(element, Unknown):
        return element[name]
    found = element.find(f".//{{*}}{name.removeprefix('.//')}")
    return (found.text or "") if found is not None else ""


def _flat(parameters: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested parameters as the query API spells them."""
    flat: dict[str, str] = {}
    for name, value in parameters.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{key}.")
        elif isinstance(value, list | tuple):
            for number, item in enumerate(value, 1):
                flat |= _flat({str(number): item}, f"{key}.")
        elif isinstance(value, bool):
            flat[key] = str(value).lower()
        elif value not in ("", None):
            flat[key] = str(value)
    return flat


def _message(body: bytes) -> tuple[str, str]:
    """Code and message of an error: XML of EC2 and S3, JSON of EBS."""
    if body.lstrip().startswith(b"<"):
        root = ElementTree.fromstring(body)
        found = {e.tag.rpartition("}")[2]: e.text or "" for e in root.iter()}
        return found.get("Code", ""), found.get("Message", "")
    import json

    said = json.loads(body)
    code = str(said.get("__type") or said.get("code") or "").rpartition("#")[2].partition(":")[0]
    return code, str(said.get("message") or said.get("Message") or "")
