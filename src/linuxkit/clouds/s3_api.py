"""Objects in S3, AWS' or another that speaks it: put in parts, several at once, each with its SHA-256 in the signature.

    PUT  /BUCKET/KEY                            a file of one part
    POST /BUCKET/KEY?uploads=                   begins an upload in parts: its UploadId
    PUT  /BUCKET/KEY?partNumber=N&uploadId=ID   a part: its ETag
    POST /BUCKET/KEY?uploadId=ID                puts them together; the object is there from then on, or not at all

Reference: Amazon S3 API 2006-03-01. The bucket is in the path, which every server understands.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from urllib.parse import quote

from linuxkit.errors import InputError, NetworkError
from linuxkit.places.image import LocalImage, side_by_side
from linuxkit.places.place import Job
from linuxkit.places.rest import Answer, RefusedError, Rest
from linuxkit.places.strict_xml import parse_xml

PART = 8 << 20  # at least; twice as many are in memory as there are workers
MAX_PARTS, MAX_PART = 10_000, 5 << 30
WORKERS = 4
DIGEST = "x-amz-meta-linuxkit-sha256"
BUSY = (429, 503)  # refused before anything was done
TRIES = 5


class Bucket:
    """A bucket.

    Args:
        api: signs for S3.
    """

    def __init__(self, job: Job, api: Rest, name: str) -> None:
        self._job, self._api, self.name = job, api, name

    def check(self, region: str) -> None:
        """See that it is there, as far as the login may know.

        Raises:
            InputError: it is not, or in another region than `region`.
        """
        found = self._api.call("GET", f"/{self.name}", query={"list-type": 2, "max-keys": 0}, allow=(400, 403, 404))
        there = found.headers.get("x-amz-bucket-region") or region
        if found.status == 404:
            raise InputError(f"there is no bucket {self.name}", hint="give --bucket one that exists")
        if found.status in (301, 307) or (found.status != 200 and there != region):
            raise InputError(f"the bucket {self.name} is not in {region}" + (f", but in {there}" * (there != region)),
                             hint=f"--region {there}" if there != region else "give its --region")  # fmt: skip
        if found.status != 200 and b"<Code>AccessDenied</Code>" not in found.body:  # that is: it may not be listed
            raise self._api.refused("GET", f"/{self.name}", found.status, found.body)

    def digest(self, key: str) -> str:
        """The SHA-256 of what an object was made of; empty when there is none, or it doesn't say."""
        found = self._api.call("HEAD", self._path(key), allow=(403, 404))
        return found.headers.get(DIGEST, "") if found.status == 200 else ""

    def put(self, key: str, image: LocalImage, headers: Mapping[str, str] | None = None) -> None:
        """A file as an object. What has been sent of it is removed when it fails; what was there stays until then.

        Args:
            headers: of the object, such as x-amz-acl.
        """
        path = self._path(key)
        sent = {"content-type": "application/octet-stream", DIGEST: image.digest, **(headers or {})}
        size = max(PART, -(-image.size // MAX_PARTS))
        if size > MAX_PART:
            raise InputError(f"{image.path} has {image.size} bytes, and an object at most {MAX_PARTS * MAX_PART}")
        if image.size <= size:
            self._api.call("PUT", path, body=image.read(0, image.size), headers=sent,
                           shown=f"{image.path} ({image.size} bytes)")  # fmt: skip
            self._job.progress(image.path.name, image.size, image.size)
            return
        begun = self._patiently(path, {"uploads": ""}, sent, shown=f"{image.path} ({image.size} bytes) in parts")
        upload = parse_xml(begun.body).find("UploadId").text() if begun.body else "<upload>"
        what = f"half an upload of s3://{self.name}/{key}"
        self._job.journal.made(
            what, lambda: self._api.delete(path, query={"uploadId": upload}),
            f"aws s3api abort-multipart-upload --bucket {self.name} --key {key} --upload-id {upload}",
        )  # fmt: skip
        self._complete(key, upload, self._parts(path, upload, image, size), image.digest)
        self._job.journal.forget(what)

    def delete(self, key: str) -> None:
        self._api.delete(self._path(key))

    def _parts(self, path: str, upload: str, image: LocalImage, size: int) -> list[str]:
        """Send all parts; their ETags."""
        tags = [""] * -(-image.size // size)
        done, lock = [0], threading.Lock()
        if self._job.dry_run:
            self._job.log(f"would send: {len(tags)} parts of {size} bytes")
            return tags

        def send(number: int) -> None:
            data = image.read(number * size, size)
            query = {"partNumber": number + 1, "uploadId": upload}
            tags[number] = self._api.call("PUT", path, query=query, body=data).headers.get("etag", "")
            with lock:
                done[0] += len(data)
                self._job.progress(image.path.name, done[0], image.size)

        side_by_side(range(len(tags)), send, workers=WORKERS)
        return tags

    def _complete(self, key: str, upload: str, tags: list[str], digest: str) -> None:
        parts = "".join(f"<Part><PartNumber>{n}</PartNumber><ETag>{tag}</ETag></Part>" for n, tag in enumerate(tags, 1))
        body = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()
        path, failed = self._path(key), NetworkError(f"s3://{self.name}/{key} was not put together")
        for _ in range(TRIES):
            try:
                answer = self._patiently(path, {"uploadId": upload}, {"content-type": "application/xml"}, body)
            except RefusedError as e:
                if e.code == "NoSuchUpload" and self.digest(key) == digest:  # it was done, and the answer got lost
                    return
                if e.status < 500:
                    raise
                failed = e
            except NetworkError as e:
                failed = e
            else:
                if self._job.dry_run or b"<Error>" not in answer.body:  # which can be in an answer of status 200
                    return
                failed = self._api.refused("POST", path, 500, answer.body)
            self._job.sleep(1)
        raise failed

    def _patiently(self, path: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes = b"",
                   shown: str = "") -> Answer:  # fmt: skip
        """A POST, again while the server is too busy to begin with it."""
        for attempt in range(TRIES):
            try:
                return self._api.call("POST", path, query=query, headers=headers, body=body, shown=shown)
            except RefusedError as e:
                if e.status not in BUSY or attempt == TRIES - 1:
                    raise
            self._job.sleep(0.5 * 2**attempt)
        raise AssertionError("unreachable")

    def _path(self, key: str) -> str:
        return f"/{self.name}/{quote(key)}"
