"""A file to a bucket of Google Cloud Storage."""

from __future__ import annotations

from linuxkit.clouds.gcs_api import DIGEST, Storage
from linuxkit.clouds.google_login import KEYS, Login
from linuxkit.places.image import LocalImage
from linuxkit.places.place import Job, Pushed, Setting

PUSH_SETTINGS = (
    KEYS,
    Setting("bucket", "The bucket.", env=("CLOUDSDK_IMAGE_BUCKET",), required=True),
    Setting("object", "What the object is called; a folder when it ends in /. Else as the file."),
    Setting("public", "Everybody may read it.", env=("CLOUDSDK_IMAGE_PUBLIC",), kind=bool, default=False),
)


class Push:
    """Sends one file; what was there by its name is replaced."""

    def __init__(self, job: Job, image: LocalImage) -> None:
        self._job, self._image = job, image
        login = Login(job.environment, job.transport, keys=job["keys"], now=job.now)
        self._storage = Storage(job, login, job["bucket"])
        name = str(job["object"]).lstrip("/")
        self._name = name + image.path.name if not name or name.endswith("/") else name

    def preflight(self) -> None:
        self._storage.check(public=self._job["public"])

    def push(self) -> Pushed:
        what = f"gs://{self._storage.bucket}/{self._name}"
        identity = self._storage.address(self._name) if self._job["public"] else what
        there = self._storage.find(self._name)
        if there is not None and there.get("metadata", {}).get(DIGEST) == self._image.digest:
            return Pushed(self._name, identity, there_before=True)
        self._storage.send(self._name, self._image, public=self._job["public"])
        self._job.journal.result(what)
        return Pushed(self._name, identity)
