"""A file to a bucket of S3: AWS', or another server that speaks it (MinIO, Ceph, R2, Scaleway, Garage)."""

from __future__ import annotations

from linuxkit.clouds.aws_api import HINTS
from linuxkit.clouds.aws_login import Login
from linuxkit.clouds.aws_xml import message
from linuxkit.clouds.s3_api import Bucket
from linuxkit.errors import InputError
from linuxkit.places.image import LocalImage
from linuxkit.places.place import Job, Pushed, Setting
from linuxkit.places.rest import Rest, Words
from linuxkit.places.sigv4 import SigV4

PUSH_SETTINGS = (
    Setting("bucket", "The bucket.", env=("AWS_BUCKET",), required=True),
    Setting("key", "What the object is called; a folder when it ends in /. Else as the file."),
    Setting("endpoint", "The server, when it isn't AWS.", env=("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
            metavar="URL"),
    Setting("region", "Where; of another server than AWS us-east-1, if it isn't said.",
            env=("AWS_REGION", "AWS_DEFAULT_REGION")),
    Setting("public", "Everybody may read it.", kind=bool, default=False),
)  # fmt: skip


class Push:
    """Sends one file; what was there by its name is replaced."""

    def __init__(self, job: Job, image: LocalImage) -> None:
        self._job, self._image = job, image
        login = Login(job.environment, job.transport)
        self._own = bool(job["endpoint"])
        self._region = job["region"] or login.region() or ("us-east-1" if self._own else "")
        if not self._region:
            raise InputError("no AWS region is set", hint="give --region, set AWS_REGION, or give another --endpoint")
        self._base = str(job["endpoint"] or login.endpoint("s3", self._region)).rstrip("/")
        if not self._base.startswith(("https://", "http://")):
            raise InputError(f"--endpoint {self._base} is not an http or https URL")
        words = Words("S3", credentials=login().source, hints=HINTS, message=message)
        api = Rest(job, self._base, words=words, sign=SigV4(login, self._region, "s3", job.now))
        self._bucket = Bucket(job, api, job["bucket"])
        key = str(job["key"]).lstrip("/")
        self._key = key + image.path.name if not key or key.endswith("/") else key

    def preflight(self) -> None:
        self._bucket.check(self._region)

    def push(self) -> Pushed:
        bucket = self._bucket
        identity = f"{self._base}/{bucket.name}/{self._key}" if self._job["public"] else f"s3://{bucket.name}/{self._key}"
        if bucket.digest(self._key) == self._image.digest:
            return Pushed(self._key, identity, there_before=True)
        bucket.put(self._key, self._image, {"x-amz-acl": "public-read"} if self._job["public"] else {})
        return Pushed(self._key, identity)
