"""Bare machines that boot over the network, as Equinix Metal had them: files below an address, a device for them.

    push  writes kernel, initrd and a script for iPXE into a folder, or to a server by HTTP PUT
    run   a device with custom iPXE, its serial console over ssh, until the user has enough; then it is removed
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from linuxkit.clouds import metal_files
from linuxkit.clouds.metal_files import BASE_URL, IMG_NAME
from linuxkit.clouds.metal_run import RUN_SETTINGS, Run
from linuxkit.places.image import LocalImage
from linuxkit.places.place import Job, Pushed, Setting

__all__ = ["PUSH_SETTINGS", "RUN_SETTINGS", "Push", "Run"]
PUSH_SETTINGS = (
    BASE_URL, IMG_NAME,
    Setting("destination", "Where the files are put: a folder, file:///PATH, or the address of one that takes HTTP PUT "
            "(with the login of push http).", required=True, metavar="FOLDER|URL"),
    Setting("decompress", "Unpack what gzip packed; for arm64 it is done in any case.", kind=bool, default=False),
)  # fmt: skip


class Push:
    """Writes the files."""

    def __init__(self, job: Job, image: LocalImage) -> None:
        self._job = job
        self._base = metal_files.check_base(job["base-url"])
        self._files = metal_files.find(image.path, job["img-name"])
        self._place = metal_files.destination(job, job["destination"])

    def preflight(self) -> None:
        self._files.script(self._base)
        self._place.check()

    def push(self) -> Pushed:
        with tempfile.TemporaryDirectory(prefix="linuxkit-") as folder:
            images = self._files.stage(Path(folder), self._base, unpack=self._job["decompress"])
            # the script last: whoever finds it finds the rest
            sent = [self._place.put(image) for image in images]
        name = self._files.name
        return Pushed(name, f"{self._base}/{images[-1].path.name}", not any(sent),
                      f"linuxkit run equinixmetal --base-url {self._base} {name}")  # fmt: skip
