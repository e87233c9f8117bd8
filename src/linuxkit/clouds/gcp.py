"""Google Cloud: an archive with a disk becomes an object, the object an image, the image an instance.

    push  uploads NAME.img.tar.gz to a bucket in chunks, makes an image of it, removes the object again
    run   an instance of the image, its serial port on this terminal, until it is stopped; then it is removed
"""

from __future__ import annotations

import re
from typing import Any

from linuxkit.clouds.gce_api import Compute
from linuxkit.clouds.gcp_archive import Disk, look
from linuxkit.clouds.gcp_run import RUN_SETTINGS, Run
from linuxkit.clouds.gcs_api import DIGEST, Storage
from linuxkit.clouds.google_login import KEYS, PROJECT, Login
from linuxkit.errors import InputError
from linuxkit.places.image import LocalImage
from linuxkit.places.place import Job, Pushed, Setting

__all__ = ["PUSH_SETTINGS", "RUN_SETTINGS", "Push", "Run"]
NESTED = "projects/vm-options/global/licenses/enable-vmx"
NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
PUSH_SETTINGS = (
    KEYS, PROJECT,
    Setting("bucket", "Where the archive is put on the way.", env=("CLOUDSDK_IMAGE_BUCKET",), required=True),
    Setting("public", "Everybody may read the archive, which stays in the bucket.", env=("CLOUDSDK_IMAGE_PUBLIC",),
            kind=bool, default=False),
    Setting("family", "The image's family: its newest image is found by this name.", env=("CLOUDSDK_IMAGE_FAMILY",)),
    Setting("img-name", "What the image is called; else as the file.", env=("CLOUDSDK_IMAGE_NAME",)),
    Setting("nested-virt", "Machines of it may run virtual machines.", kind=bool, default=False),
    Setting("uefi-compatible", "Machines start with UEFI, and can have a TPM.", kind=bool, default=False),
    Setting("replace", "Replace an image of this name that is another one.", kind=bool, default=False),
    Setting("timeout", "Seconds to wait for Google.", env=("LINUXKIT_UPLOAD_TIMEOUT",), kind=int, default=600),
)  # fmt: skip
PUSH_PERMISSIONS = ("compute.images.create", "compute.images.delete", "compute.images.get", "compute.images.setLabels",
                    "compute.projects.get")  # fmt: skip


class Push:
    """Makes an image."""

    def __init__(self, job: Job, image: LocalImage) -> None:
        self._job, self._image = job, image
        self._name = job["img-name"] or image.path.name.partition(".")[0]
        self._login = Login(job.environment, job.transport, keys=job["keys"], now=job.now)
        self._compute = Compute(job, self._login, job["project"] or self._login.project())
        self._storage = Storage(job, self._login, job["bucket"])
        self._path = f"/global/images/{self._name}"
        self._disk: Disk | None = None

    def preflight(self) -> None:
        job, compute = self._job, self._compute
        for what, name in (("--img-name", self._name), *((("--family", job["family"]),) if job["family"] else ())):
            if not NAME.fullmatch(name):
                raise InputError(f"'{name}' can't be a name at Google",
                                 hint=f"{what}: up to 63 of a-z 0-9 -, a letter first and no - at the end")
        self._disk = disk = look(self._image.path)
        if not disk.bios and not self._uefi(disk):
            raise InputError(f"{self._image.path} is for UEFI only, and Google starts it as a BIOS does",
                             hint="give --uefi-compatible, or build --format gcp, which both start")  # fmt: skip
        if self._uefi(disk) and not disk.uefi:
            raise InputError(f"{self._image.path} can't be started by UEFI", hint="leave --uefi-compatible out")
        project = compute.find("")
        if project is None:
            raise InputError(f"there is no project {compute.project}, or the login has nothing to do with it",
                             hint=f"--project; the login comes from {self._login.source}")  # fmt: skip
        compute.check_permissions(PUSH_PERMISSIONS, self._login.source)
        self._storage.check(public=job["public"])
        there = compute.find(self._path)
        if there is None:
            compute.check_quota(project, "IMAGES", 1, "remove an image: gcloud compute images delete NAME")
        elif not self._same(there, disk) and not job["replace"]:
            other = "made in another way" if self._has(there) else "with other content"
            raise InputError(f"there is an image named {self._name} already, {other}",
                             hint="give another --img-name, or --replace")  # fmt: skip
        if job["public"] and not job["replace"] and not self._holds(self._storage.find(self._object)) \
                and self._storage.find(self._object) is not None:  # fmt: skip
            raise InputError(f"there is gs://{self._storage.bucket}/{self._object} already, with other content",
                             hint="give another --img-name, or --replace")

    def push(self) -> Pushed:
        job, compute, image = self._job, self._compute, self._image
        disk = self._disk or look(image.path)
        identity = f"projects/{compute.project}{self._path}"
        run_with = f"linuxkit run gcp {self._name}"
        there = compute.find(self._path)
        if there is not None and self._same(there, disk):
            return Pushed(self._name, identity, True, run_with)
        if not self._holds(self._storage.find(self._object)):
            self._storage.send(self._object, image, public=job["public"], temporary=not job["public"],
                               content_type="application/gzip")  # fmt: skip
        if there is not None:
            job.log(f"replacing the image {self._name}")
            compute.delete(self._path, limit=job["timeout"])
        what = f"image {self._name}"
        operation = compute.insert("/global/images", self._body(disk))
        job.journal.made(what, lambda: compute.delete(self._path),
                         f"gcloud compute images delete {self._name} --project {compute.project}")  # fmt: skip
        compute.finish(operation, f"making the image {self._name}", job["timeout"])
        job.journal.result(what)
        return Pushed(self._name, identity, False, run_with)

    @property
    def _object(self) -> str:
        """What is on the way only has a name that nobody else uses."""
        own = "" if self._job["public"] else f"-{self._image.digest[:16]}"
        return f"{self._name}{own}.img.tar.gz"

    def _holds(self, found: Any) -> bool:
        return found is not None and found.get("metadata", {}).get(DIGEST) == self._image.digest

    @property
    def _label(self) -> str:
        return self._image.digest[:63]  # as long as a label can be

    def _uefi(self, disk: Disk) -> bool:
        return bool(self._job["uefi-compatible"]) or disk.arch == "aarch64"

    def _has(self, there: Any) -> bool:
        return bool(there.get("labels", {}).get(DIGEST) == self._label)

    def _same(self, there: Any, disk: Disk) -> bool:
        """Whether an image is what would be made, family and all."""
        features = {f.get("type") for f in there.get("guestOsFeatures", [])}
        nested = any(str(licence).endswith("/licenses/enable-vmx") for licence in there.get("licenses", []))
        return (self._has(there) and there.get("status", "READY") == "READY"
                and ("UEFI_COMPATIBLE" in features) == self._uefi(disk) and nested == self._job["nested-virt"]
                and self._job["family"] in ("", there.get("family", "")))  # fmt: skip

    def _body(self, disk: Disk) -> dict[str, Any]:
        body: dict[str, Any] = {
            "name": self._name, "description": f"linuxkit, sha256 {self._image.digest}",
            "rawDisk": {"source": self._storage.address(self._object)}, "labels": {DIGEST: self._label},
        }  # fmt: skip
        if disk.arch:
            body["architecture"] = "ARM64" if disk.arch == "aarch64" else "X86_64"
        if self._job["family"]:
            body["family"] = self._job["family"]
        if self._job["nested-virt"]:
            body["licenses"] = [NESTED]
        if self._uefi(disk):
            body["guestOsFeatures"] = [{"type": "UEFI_COMPATIBLE"}]
        return body
