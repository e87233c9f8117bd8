"""One bucket of a store that speaks Amazon's S3 (API 2006-03-01): a file as an object, in parts when it is large."""

from __future__ import annotations

from urllib.parse import quote
from xml.sax.saxutils import escape

from linuxkit.errors import NetworkError
from linuxkit.platforms.image import LocalImage, side_by_side
from linuxkit.platforms.place import Job
from linuxkit.platforms.rest import Rest
from linuxkit.platforms.strict_xml import parse_xml

PART = 16 << 20
WORKERS = 3  # parts in memory at a time


class Bucket:
    """Below an endpoint, by path: works with every such store, and needs no name in DNS."""

    def __init__(self, job: Job, rest: Rest, name: str) -> None:
        self.job, self._rest, self.name = job, rest, name

    def exists(self) -> bool:
        """Whether it is there, and ours to use.

        Raises:
            RefusedError: it is somebody else's.
        """
        return self._rest.call("HEAD", f"/{self.name}", allow=(404,)).status != 404

    def create(self, region: str) -> None:
        where = f"<LocationConstraint>{escape(region)}</LocationConstraint>"
        body = f"<CreateBucketConfiguration>{where}</CreateBucketConfiguration>"
        self._rest.call("PUT", f"/{self.name}", body=body.encode(), headers={"content-type": "application/xml"},
                        shown="a bucket for the time being")  # fmt: skip

    def remove(self) -> None:
        """It has to be empty."""
        self._rest.delete(f"/{self.name}")

    def put(self, key: str, image: LocalImage) -> None:
        """A file as an object. When it fails, what has been sent of it is removed with the journal."""
        path = f"/{self.name}/{quote(key)}"
        if self.job.dry_run or image.size <= PART:
            self._rest.call("PUT", path, body=b"" if self.job.dry_run else image.read(0, image.size),
                            shown=f"{image.path} ({image.size} bytes)")  # fmt: skip
            return
        begun = self._rest.call("POST", path + "?uploads=")
        upload = parse_xml(begun.body).text("UploadId")
        if not upload:
            raise NetworkError(f"the bucket {self.name} does not begin an upload in parts")
        what, query = f"half an upload of {key}", {"uploadId": upload}
        self.job.journal.made(what, lambda: self._rest.delete(path, query=query),
                              f"aws s3api abort-multipart-upload --bucket {self.name} --key {key} --upload-id {upload}")
        tags: dict[int, str] = {}
        sent = [0]

        def send(number: int) -> None:
            data = image.read((number - 1) * PART, PART)
            answer = self._rest.call("PUT", path, query={"partNumber": number, **query}, body=data)
            tags[number] = answer.headers.get("etag", "")
            sent[0] += len(data)
            self.job.progress(image.path.name, sent[0], image.size)

        side_by_side(range(1, -(-image.size // PART) + 1), send, workers=WORKERS)
        parts = [f"<PartNumber>{n}</PartNumber><ETag>{escape(tags[n])}</ETag>" for n in sorted(tags)]
        listed = "".join(f"<Part>{part}</Part>" for part in parts)
        body = f"<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>".encode()
        done = self._rest.call("POST", path, query=query, body=body, headers={"content-type": "application/xml"})
        if parse_xml(done.body).name == "Error":  # of this call alone, an error can come with status 200
            raise NetworkError(f"the bucket {self.name} could not put the parts of {key} together", hint="run it again")
        self.job.journal.forget(what)

    def delete(self, key: str) -> None:
        self._rest.delete(f"/{self.name}/{quote(key)}")
