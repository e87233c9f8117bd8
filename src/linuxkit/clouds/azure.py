"""Azure: a disk becomes a page blob, the blob an image, the image a machine.

    push  the VHD as a page blob: ranges of 4 MiB that are not zero, several at once; then a managed image of it, or
          with --gallery a version of an image in a gallery; the blob is removed afterwards. --vhd-only: the blob alone
    run   a machine of the image with a network of its own (platforms.azure_run)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from linuxkit.clouds.azure_api import Arm, tagged, tags
from linuxkit.clouds.azure_blob import Blobs, SharedKey
from linuxkit.clouds.azure_gallery import Gallery
from linuxkit.clouds.azure_login import STORAGE, Bearer, Login
from linuxkit.clouds.azure_run import RUN_SETTINGS, SUBSCRIPTION, Run
from linuxkit.errors import InputError
from linuxkit.places.image import LocalImage
from linuxkit.places.place import Job, Pushed, Setting
from linuxkit.places.rest import RefusedError
from linuxkit.platforms.bootimage import Image, Media, look

__all__ = ["PUSH_SETTINGS", "RUN_SETTINGS", "Push", "Run"]

MIB = 1 << 20
#: The largest disk that a machine starts from.
MAX_SIZE = 4095 << 30
PUSH_SETTINGS = (
    Setting("resource-group", "The resource group of the image.", env=("AZURE_RESOURCE_GROUP",), required=True),
    Setting("storage-account", "The storage account where the disk is put on the way.",
            env=("AZURE_STORAGE_ACCOUNT",), required=True),
    SUBSCRIPTION,
    Setting("container", "Its container; made when it is missing.", default="linuxkitcontainer"),
    Setting("img-name", "What the image is called; else as the file.", env=("AZURE_IMAGE_NAME",)),
    Setting("generation", "V1 (BIOS) or V2 (UEFI); else V2 for what UEFI starts."),
    Setting("gallery", "A gallery: the image becomes a version in it, instead of a managed image.",
            env=("AZURE_GALLERY",)),
    Setting("vhd-only", "Leave the disk in the container as NAME.vhd, and make no image.", kind=bool, default=False),
    Setting("storage-key", "The key of the storage account; else it is asked for, or the login itself is used.",
            env=("AZURE_STORAGE_KEY",), secret=True),
    Setting("timeout", "Seconds to wait for Azure.", env=("LINUXKIT_UPLOAD_TIMEOUT",), kind=int, default=3600),
)  # fmt: skip


class Push:
    """Makes an image."""

    def __init__(self, job: Job, image: LocalImage) -> None:
        self._job, self._image = job, image
        self._name = str(job["img-name"] or image.path.name.partition(".")[0])
        self._login = Login(job.environment, job.transport, job.now)
        self._arm = Arm(job, self._login, job["subscription"])
        self._group = self._arm.group(job["resource-group"])
        self._has_container = True

    def preflight(self) -> None:
        job = self._job
        if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,78}[A-Za-z0-9_])?", self._name):
            raise InputError(f"'{self._name}' cannot be the name of an image",
                             hint="--img-name: up to 80 of A-Z a-z 0-9 _ . -, a letter or digit in front")  # fmt: skip
        if not re.fullmatch(r"(?!.*--)[a-z0-9][a-z0-9-]{1,61}[a-z0-9]", job["container"]):
            raise InputError(f"--container {job['container']} cannot be the name of a container",
                             hint="3 to 63 of a-z 0-9 and single hyphens")  # fmt: skip
        if job["gallery"] and job["vhd-only"]:
            raise InputError("--gallery and --vhd-only cannot be used together", hint="give one of them")
        self._check_file()
        if self._arm.get(self._group) is None:
            raise InputError(f"there is no resource group {job['resource-group']}",
                             hint=f"make it: az group create --name {job['resource-group']} --location …")  # fmt: skip
        self._check_permissions()
        self._has_container = self._blobs.container_exists()
        if job["vhd-only"]:
            there = self._blobs.look(f"{self._name}.vhd") if self._has_container else None
            if there is not None and there.digest != self._image.digest:
                raise InputError(f"there is a {self._name}.vhd in {job['container']} already, with other content",
                                 hint="give another --img-name, or remove it")  # fmt: skip
        elif job["gallery"]:
            self._gallery.preflight()
        else:
            self._check_image()

    def push(self) -> Pushed:
        job, blobs = self._job, self._blobs
        if not job["vhd-only"] and (there := self._there()):
            return Pushed(self._name, there, True, self._command(there))
        name = f"{self._name}.vhd" if job["vhd-only"] else f"{self._name}-{self._image.digest[:16]}.vhd"
        url = f"{blobs.url}/{name}"
        if not self._has_container:
            blobs.make_container()
        there_now = blobs.look(name) if self._has_container else None
        before = there_now is not None and there_now.whole and there_now.digest == self._image.digest
        if not before:
            command = f"az storage blob delete --blob-url {url}"
            job.journal.made(f"blob {url}", lambda: blobs.delete(name), command, temporary=not job["vhd-only"])
            blobs.put(name, self._image)
        job.journal.result(f"container {blobs.url}")
        if job["vhd-only"]:
            job.journal.result(f"blob {url}")
            return Pushed(self._name, url, before)
        made = self._version(url) if job["gallery"] else self._managed_image(url)
        return Pushed(self._name, made, False, self._command(made))

    @property
    def location(self) -> str:
        """Where the image will be: where the storage account is."""
        return str(self._account["location"])

    def _command(self, identity: str) -> str:
        return f"linuxkit run azure {identity if self._job['gallery'] else self._name}"

    # -- the file

    @cached_property
    def _disk(self) -> Image:
        return look(self._image.path)

    @property
    def _generation(self) -> str:
        return str(self._job["generation"] or ("V2" if self._disk.uefi else "V1"))

    def _check_file(self) -> None:
        job, image = self._job, self._image
        hint = "linuxkit build --format vhd FILE.yml"
        footer = image.read(max(image.size - 512, 0), 512)
        size = int.from_bytes(footer[48:56], "big")
        if not footer.startswith(b"conectix") or image.size % 512:
            raise InputError(f"{image.path} is not a VHD", hint=hint)
        if footer[60:64] != b"\0\0\0\2" or size != image.size - 512:
            raise InputError(f"{image.path} is a VHD that grows, and Azure takes fixed ones only", hint=hint)
        if (sum(footer) - sum(footer[64:68]) + int.from_bytes(footer[64:68], "big")) & 0xFFFFFFFF != 0xFFFFFFFF:
            raise InputError(f"{image.path} is damaged: its footer has another checksum", hint="build it again")
        if size % MIB:
            raise InputError(f"{image.path} is a disk of {size} bytes, and Azure wants whole MiB", hint=hint)
        if size > MAX_SIZE:
            raise InputError(f"{image.path} is a disk of {size >> 30} GiB, and Azure starts machines from at most 4095")
        disk = self._disk
        if disk.media is not Media.DISK or not (disk.bios or disk.uefi):
            raise InputError(f"{image.path} is not a disk that boots", hint=hint)
        if job["generation"] not in ("", "V1", "V2"):
            raise InputError(f"--generation {job['generation']} is not known", hint="V1 (BIOS) or V2 (UEFI)")
        if not (disk.uefi if self._generation == "V2" else disk.bios):
            starts, other = ("UEFI", "V1") if self._generation == "V2" else ("a BIOS", "V2")
            raise InputError(f"{starts} cannot start {image.path}, and generation {self._generation} has nothing else",
                             hint=f"give --generation {other}, or build --format vhd, which both start")  # fmt: skip
        if disk.arch == "aarch64" and not job["gallery"] and not job["vhd-only"]:
            raise InputError(f"{image.path} is for arm64, and Azure has images for it in galleries only",
                             hint="give --gallery")  # fmt: skip

    # -- the storage account

    @cached_property
    def _account(self) -> Mapping[str, Any]:
        """What Azure says about the storage account.

        Raises:
            InputError: it is not there, or takes no disks.
        """
        name = self._job["storage-account"]
        if not re.fullmatch(r"[a-z0-9]{3,24}", name):
            raise InputError(f"--storage-account {name} cannot be the name of one", hint="3 to 24 of a-z 0-9")
        group = self._job["resource-group"]
        found = self._arm.get(f"{self._group}/providers/Microsoft.Storage/storageAccounts/{name}")
        if found is None:  # it may be in another group
            every = self._arm.each(f"{self._arm.subscription}/providers/Microsoft.Storage/storageAccounts")
            found = next((one for one in every if one.get("name") == name), None)
        if found is None:
            raise InputError(f"there is no storage account {name}", hint=f"make it: az storage account create "
                             f"--name {name} --resource-group {group} --sku Standard_LRS --kind StorageV2")  # fmt: skip
        properties = found.get("properties", {})
        if found.get("kind") not in ("Storage", "StorageV2") or properties.get("isHnsEnabled"):
            raise InputError(f"the storage account {name} takes no page blobs", hint="take one of the kind StorageV2 "
                             "without a hierarchical namespace: az storage account create")  # fmt: skip
        return dict(found)

    @cached_property
    def _blobs(self) -> Blobs:
        """The container, with the account's key where there is one to have, else with the login."""
        job, account = self._job, self._account
        name, key = job["storage-account"], job["storage-key"]
        if not key and account["properties"].get("allowSharedKeyAccess") is not False:
            try:
                keys = self._arm.post(f"{account['id']}/listKeys", reads=True)
                key = next((one["value"] for one in keys["keys"]), "")
            except RefusedError as e:
                if e.status not in (403, 409):  # not allowed; locked
                    raise
        endpoint = account["properties"]["primaryEndpoints"]["blob"]
        if key:
            source = "AZURE_STORAGE_KEY" if job["storage-key"] else f"the keys of {name}"
            return Blobs(job, endpoint, job["container"], SharedKey(name, key, job.now), source)
        return Blobs(job, endpoint, job["container"], Bearer(self._login, STORAGE), self._login.source)

    def _check_permissions(self) -> None:
        wanted = []
        if self._job["gallery"]:
            wanted += [f"Microsoft.Compute/galleries/{part}" for part in (
                "read", "images/read", "images/write", "images/versions/read", "images/versions/write")]  # fmt: skip
        elif not self._job["vhd-only"]:
            wanted += ["Microsoft.Compute/images/read", "Microsoft.Compute/images/write"]
        if missing := self._arm.may(self._group, wanted) if wanted else []:
            raise InputError(f"the login may not {', '.join(missing)} in {self._job['resource-group']}",
                             hint="it needs the role Contributor there; see docs/platforms/azure.md")  # fmt: skip

    # -- a managed image

    @property
    def _image_path(self) -> str:
        return f"{self._group}/providers/Microsoft.Compute/images/{self._name}"

    def _check_image(self) -> None:
        there = self._arm.get(self._image_path)
        if there is None:
            return
        what = ""
        if tagged(there) != self._image.digest:
            what = "with other content"
        elif there["properties"].get("hyperVGeneration") != self._generation:
            what = "of another generation"
        elif there["properties"].get("provisioningState") == "Failed":
            what = "which failed"
        if what:
            raise InputError(f"there is an image {self._name} already, {what}",
                             hint="give another --img-name, or remove it: "
                                  f"az image delete --ids {self._image_path}")  # fmt: skip

    def _there(self) -> str:
        """The image or version that has the same content; empty: none."""
        if self._job["gallery"]:
            return self._gallery.version_of(self._image.digest)
        there = self._arm.get(self._image_path)
        return str(there["id"]) if there is not None and tagged(there) == self._image.digest else ""

    def _made(self, path: str, what: str) -> None:
        """Into the journal, before it is asked for; what has another digest is somebody else's, and stays."""

        def undo() -> None:
            there = self._arm.get(path)
            if there is not None and tagged(there) == self._image.digest:
                self._arm.delete(path)

        self._job.journal.made(what, undo, f"az resource delete --ids {path}")

    def _managed_image(self, url: str) -> str:
        what = f"image {self._name}"
        self._made(self._image_path, what)
        self._arm.put(self._image_path, {
            "location": self._account["location"], "tags": tags(self._image.digest),
            "properties": {"hyperVGeneration": self._generation, "storageProfile": {"osDisk": {
                "osType": "Linux", "osState": "Generalized", "blobUri": url, "storageAccountType": "StandardSSD_LRS"}}},
        }, f"the image {self._name}", limit=self._job["timeout"])  # fmt: skip
        self._job.journal.result(what)
        return self._image_path

    # -- a gallery

    @cached_property
    def _gallery(self) -> Gallery:
        architecture = "Arm64" if self._disk.arch == "aarch64" else "x64"
        return Gallery(self._arm, self._group, self._job["gallery"], self._name, self._generation, architecture)

    def _version(self, url: str) -> str:
        gallery, location = self._gallery, self.location
        gallery.make_definition(location)
        path = gallery.next_version()
        what = f"version {path.rpartition('/')[2]} of {self._name}"
        self._made(path, what)
        gallery.make_version(path, what, location, self._account["id"], url, self._image.digest, self._job["timeout"])
        self._job.journal.result(what)
        self._job.journal.result(gallery.definition_name)
        return path
