"""Images → the bytes of a bill of materials."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from linuxkit.oci.media import Image
from linuxkit.sbom import cyclonedx, spdx
from linuxkit.sbom.layers import Contents, inventory
from linuxkit.sbom.model import Inventory

FIXED_CREATED = "2017-04-18T16:30:00Z"
#: --sbom-format → its place in the image
NAMES = {"spdx": "sbom.spdx.json", "cyclonedx": "sbom.cdx.json"}
MEDIA_TYPES = {"spdx": "application/spdx+json", "cyclonedx": "application/vnd.cyclonedx+json"}


def document(
    images: Sequence[tuple[str, Image]], content: Contents, *, format: str = "spdx", created: str = ""
) -> dict[str, Any]:
    """The document about some images.

    Args:
        images: where each is in the root filesystem ("" at the root), and the image, its layers in the store.
        format: spdx or cyclonedx.
        created: RFC 3339; LinuxKit's fixed time when empty.

    Raises:
        ImageError: a layer is missing, damaged or hostile.
    """
    found: dict[str, Inventory] = {}
    for _, image in images:
        if image.digest not in found:
            found[image.digest] = inventory(image, content)
    listed = [(prefix, image, found[image.digest]) for prefix, image in images]
    make = cyclonedx.document if format == "cyclonedx" else spdx.document
    return make(listed, created or FIXED_CREATED)


def encode(document: dict[str, Any]) -> bytes:
    """A document as it is written: indented, UTF-8, with a newline at its end."""
    return json.dumps(document, indent=2, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
