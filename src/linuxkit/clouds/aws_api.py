"""The calls of AWS that push and run make: EC2 (a query API that answers XML), EBS direct (JSON), S3 (bytes).

References: Amazon EC2 API 2016-11-15; Amazon EBS direct APIs 2019-11-02; Amazon S3 2006-03-01.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode
from xml.etree import ElementTree

from linuxkit.clouds.aws_login import Login
from linuxkit.clouds.aws_xml import message, text
from linuxkit.clouds.s3_api import Bucket
from linuxkit.errors import InputError
from linuxkit.places.place import Job
from linuxkit.places.rest import Rest, Unknown, Words
from linuxkit.places.sigv4 import SigV4

VERSION = "2016-11-15"
FORM = {"content-type": "application/x-www-form-urlencoded; charset=utf-8"}
BLOCK = 512 << 10  # of EBS direct
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
    "SignatureDoesNotMatch": "the secret key is not the one of this access key",
    "InvalidAccessKeyId": "the keys are not of this server",
    "AuthorizationHeaderMalformed": "give --region the one of the bucket",
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
            words = Words("AWS", credentials=credentials.source, hints=HINTS, message=message)
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
        from linuxkit.places.rest import RefusedError

        body = urlencode({"Action": action, "Version": VERSION, **_flat(parameters)}).encode()
        reads = action.startswith(("Describe", "Get")) if reads is None else reads
        try:
            answer = self._ec2.call(
                "POST", "/", body=body, reads=reads, shown=f"{action} {self.job.veil(_flat(parameters))}",
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

    def bucket(self, name: str) -> Bucket:
        return Bucket(self.job, self._s3, name)


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
