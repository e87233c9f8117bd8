"""A gallery at Azure: an image in it has a definition, which says what it is, and versions, which have the content.

    galleries/GALLERY/images/NAME                  made with the first version
    galleries/GALLERY/images/NAME/versions/1.0.N   from a VHD in a storage account
"""

from __future__ import annotations

import re
from typing import Any

from linuxkit.clouds.azure_api import Arm, tagged, tags
from linuxkit.errors import InputError


class Gallery:
    """One image of a gallery.

    Args:
        group: the path of the resource group.
        generation: V1 or V2.
        architecture: x64 or Arm64.
    """

    def __init__(self, arm: Arm, group: str, gallery: str, name: str, generation: str, architecture: str) -> None:
        self._arm, self._group, self._name = arm, group, name
        self._what = (generation, architecture)
        self._path = f"{group}/providers/Microsoft.Compute/galleries/{gallery}"
        self._definition = f"{self._path}/images/{name}"
        #: What the journal calls it.
        self.definition_name = f"image definition {name}"

    def preflight(self) -> None:
        """That the gallery is there, and the image, if it is, of the same kind.

        Raises:
            InputError: they are not.
        """
        gallery = self._path.rpartition("/")[2]
        if self._arm.get(self._path) is None:
            raise InputError(f"there is no gallery {gallery}", hint="make it: az sig create --gallery-name "
                             f"{gallery} --resource-group {self._group.rpartition('/')[2]}")  # fmt: skip
        there = self._arm.get(self._definition)
        if there is None:
            return
        kind = (there["properties"].get("hyperVGeneration", "V1"), there["properties"].get("architecture", "x64"))
        if kind != self._what:
            raise InputError(f"{self._name} in {gallery} is for {' '.join(kind)}, and this disk for "
                             f"{' '.join(self._what)}", hint="give another --img-name")  # fmt: skip

    def version_of(self, digest: str) -> str:
        """The version that has this content, whole; empty: none."""
        return next((str(one["id"]) for one in self._versions() if tagged(one) == digest
                     and one["properties"].get("provisioningState") == "Succeeded"), "")  # fmt: skip

    def make_definition(self, location: str) -> None:
        """If it isn't there."""
        if self._arm.get(self._definition) is not None:
            return
        generation, architecture = self._what
        self._arm.made(self._definition, self.definition_name)
        identifier = {"publisher": "linuxkit", "offer": self._name, "sku": f"{generation}-{architecture}"}
        self._arm.put(self._definition, {"location": location, "properties": {
            "osType": "Linux", "osState": "Generalized", "hyperVGeneration": generation, "architecture": architecture,
            "identifier": identifier,
        }}, f"the {self.definition_name}")  # fmt: skip

    def next_version(self) -> str:
        """The path of the version after the highest."""
        taken = [tuple(int(n) for n in one["name"].split(".")) for one in self._versions()
                 if re.fullmatch(r"\d+\.\d+\.\d+", str(one["name"]))]  # fmt: skip
        first, second, third = max(taken, default=(1, 0, -1))
        return f"{self._definition}/versions/{first}.{second}.{third + 1}"

    def make_version(self, path: str, what: str, location: str, account: str, url: str, digest: str,
                     limit: float) -> None:  # fmt: skip
        """A version of a VHD.

        Args:
            account, url: the id of its storage account, and its address.
            limit: seconds to wait.
        """
        self._arm.put(path, {
            "location": location, "tags": tags(digest),
            "properties": {
                "publishingProfile": {"targetRegions": [{"name": location, "regionalReplicaCount": 1}]},
                "storageProfile": {"osDiskImage": {"source": {"storageAccountId": account, "uri": url}}},
            },
        }, what, limit=limit)  # fmt: skip

    def _versions(self) -> list[Any]:
        there = self._arm.get(self._definition)
        return [] if there is None else list(self._arm.each(f"{self._definition}/versions"))
