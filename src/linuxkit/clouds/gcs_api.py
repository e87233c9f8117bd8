"""Google Cloud Storage: objects, and uploads that go on where they were cut.

    POST /upload/storage/v1/b/BUCKET/o?uploadType=resumable     begins an upload; its address is in Location
    PUT  ADDRESS  content-range: bytes 0-8388607/20000000       a chunk; answered by 308 and a range until the last one
    PUT  ADDRESS  content-range: bytes */20000000               asks how much is there, after a failure

Reference: Cloud Storage JSON API v1, "Resumable uploads".
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from linuxkit.clouds.google_login import Login
from linuxkit.errors import InputError, NetworkError
from linuxkit.foreign import number_or, read_json
from linuxkit.oci.transport import TEMPORARY
from linuxkit.places.image import LocalImage
from linuxkit.places.place import Job
from linuxkit.places.rest import RefusedError, Rest, Unknown, Words

CHUNK = 8 << 20  # a multiple of 256 KiB, as they have to be
PATIENCE = 6  # failures one after the other without a byte of progress
DIGEST = "linuxkit-sha256"
CANCELLED = 499  # the answer to the end of an upload that was given up
NEEDED = ("storage.objects.create", "storage.objects.delete", "storage.objects.get")
HINTS: Mapping[str | int, str] = {
    "accessNotConfigured": "switch the API on: gcloud services enable storage.googleapis.com compute.googleapis.com",
    "rateLimitExceeded": "wait, and run it again",
    "quotaExceeded": "ask Google for a higher quota, or remove what isn't needed",
    403: "a role is missing; docs/platforms/gcp.md lists the permissions that are needed",
}  # fmt: skip


def google_words(login: Login) -> Words:
    """How failures of Google's APIs are put."""
    return Words("Google", credentials=login.source, hints=HINTS, message=_message)


class Storage:
    """Objects in one bucket."""

    def __init__(self, job: Job, login: Login, bucket: str) -> None:
        self._job, self._login, self.bucket = job, login, bucket
        env = job.environment
        base = env.get("CLOUDSDK_API_ENDPOINT_OVERRIDES_STORAGE") or env.get("STORAGE_EMULATOR_HOST") or \
            "https://storage.googleapis.com"  # fmt: skip
        base = (base if "://" in base else f"http://{base}").rstrip("/").removesuffix("/storage/v1")
        self._api = Rest(job, base, words=google_words(login), sign=login)
        # the address of an upload is the right to it: no token goes there
        self._uploads = Rest(job, "", words=google_words(login))

    def check(self, *, public: bool = False) -> None:
        """See that objects can be put there.

        Raises:
            InputError: there is no such bucket, a permission is missing, or it has no public objects.
        """
        if not self.bucket:
            raise InputError("no bucket is named", hint="give --bucket")
        path = f"/storage/v1/b/{quote(self.bucket, safe='')}"
        needed = [*NEEDED, *(["storage.objects.setIamPolicy"] if public else [])]
        found = self._api.call("GET", f"{path}/iam/testPermissions", query={"permissions": needed}, allow=(404,))
        if found.status == 404:
            raise InputError(f"there is no bucket {self.bucket}",
                             hint=f"give --bucket one that exists, or: gcloud storage buckets create gs://{self.bucket}")
        if public:
            said = self._api.call("GET", path, query={"fields": "iamConfiguration"}, allow=(403,))
            ruled = (said.json or {}).get("iamConfiguration", {}) if said.status == 200 else {}
            if ruled.get("uniformBucketLevelAccess", {}).get("enabled"):
                raise InputError(f"the bucket {self.bucket} has uniform access: a single object can't be made public",
                                 hint="leave --public out, or take another --bucket")  # fmt: skip
            if ruled.get("publicAccessPrevention") == "enforced":
                raise InputError(f"the bucket {self.bucket} allows nothing to be public", hint="leave --public out")
        granted = (found.json or {}).get("permissions", [])
        if missing := [p for p in needed if p not in granted]:
            raise InputError(
                f"the login lacks permissions in the bucket {self.bucket}: {', '.join(missing)}",
                hint=f"the role roles/storage.objectAdmin has them; the login comes from {self._login.source}")

    def find(self, name: str) -> Any:
        """The metadata of an object; None when there is none."""
        found = self._api.call("GET", self._path(name), allow=(404,))
        return found.json if found.status == 200 else None

    def address(self, name: str) -> str:
        """Where everybody finds an object that is public."""
        return f"https://storage.googleapis.com/{self.bucket}/{quote(name)}"

    def delete(self, name: str) -> None:
        self._api.delete(self._path(name))

    def command(self, name: str) -> str:
        """What removes an object by hand."""
        return f"gcloud storage rm gs://{self.bucket}/{name}"

    def send(self, name: str, image: LocalImage, *, public: bool = False, temporary: bool = False,
             content_type: str = "application/octet-stream") -> None:
        """A file as an object, in the journal from its first byte; what was there by this name is replaced.

        Args:
            public: everybody may read it.
            temporary: it is removed in the end.

        Raises:
            NetworkError: it didn't get there, or not as it was.
        """
        job, what = self._job, f"gs://{self.bucket}/{name}"
        query = {"uploadType": "resumable", "name": name} | ({"predefinedAcl": "publicRead"} if public else {})
        begun = self._api.call(
            "POST", f"/upload/storage/v1/b/{quote(self.bucket, safe='')}/o", query=query,
            json={"name": name, "contentType": content_type, "metadata": {DIGEST: image.digest}},
            headers={"x-upload-content-type": content_type, "x-upload-content-length": str(image.size)},
            attempts=4,  # one that nobody uses costs nothing and ends by itself
        )  # fmt: skip
        if isinstance(begun.json, Unknown):
            job.log(f"would send: {image.path} ({image.size} bytes) to {what}")
            return
        url = begun.headers.get("location", "")
        if not url:
            raise NetworkError(f"Google gives no address for the upload of {what}", hint="run it again later")
        half = f"half an upload of {what}"
        job.journal.made(half, lambda: self._uploads.delete(url, allow=(404, CANCELLED)),
                         "nothing: Google drops it within a week")  # fmt: skip
        made, summed = self._chunks(url, image)
        job.journal.forget(half)
        job.journal.made(what, lambda: self.delete(name), self.command(name), temporary=temporary)
        if made.get("md5Hash", summed) != summed:
            raise NetworkError(f"{what} is not what was sent: the checksums differ", hint="run it again")

    def _chunks(self, url: str, image: LocalImage) -> tuple[Any, str]:
        """Send all of a file; the metadata of the object, and the MD5 of what was sent."""
        at, failures, size = 0, 0, image.size
        whole, summed = hashlib.md5(usedforsecurity=False), 0  # Google keeps no other checksum of all of it but a CRC
        while True:
            data = image.read(at, CHUNK)
            if at + len(data) > summed:
                whole.update(data[summed - at :])
                summed = at + len(data)
            span = f"{at}-{at + len(data) - 1}" if data else "*"
            done = self._put(url, f"bytes {span}/{size}", data)
            while done is None:  # what became of it is not known: ask
                failures += 1
                if failures > PATIENCE:
                    raise NetworkError(f"the upload to gs://{self.bucket} was cut {failures} times at byte {at}",
                                       hint="check the network, and run it again")  # fmt: skip
                self._job.sleep(min(2.0**failures / 2, 30))
                done = self._put(url, f"bytes */{size}", b"")
            if done.status != 308:
                self._job.progress(image.path.name, size, size)
                return done.json or {}, b64encode(whole.digest()).decode()
            last = done.headers.get("range", "").rpartition("-")[2]
            there = number_or(last, -1) + 1
            if there > at + len(data):
                raise NetworkError(f"Google has {there} bytes of {at + len(data)} that were sent", hint="run it again")
            failures = 0 if there > at else failures + 1
            if failures > PATIENCE:
                raise NetworkError(f"the upload to gs://{self.bucket} does not go on after byte {at}")
            at = there
            self._job.progress(image.path.name, at, size)

    def _put(self, url: str, span: str, data: bytes) -> Any:
        """A chunk, or the question what is there; None when the answer was lost."""
        try:
            return self._uploads.call("PUT", url, body=data, headers={"content-range": span}, attempts=1)
        except RefusedError as e:
            if e.status in TEMPORARY:
                return None
            if e.status in (404, 410):
                raise NetworkError("Google has forgotten the upload", hint="run it again") from e
            raise
        except NetworkError as e:
            if e.temporary:
                return None
            raise

    def _path(self, name: str) -> str:
        return f"/storage/v1/b/{quote(self.bucket, safe='')}/o/{quote(name, safe='')}"


def _message(body: bytes) -> tuple[str, str]:
    """Reason and message of an error of Google's."""

    error = read_json(body)["error"]
    reasons = [e.get("reason", "") for e in error.get("errors", [])]
    return str(next(filter(None, reasons), "")), str(error.get("message", ""))
