"""What a manifest is when it is no container image, said before its content is taken for a broken one.

https://github.com/opencontainers/image-spec v1.1: manifest.md ("Guidelines for Artifact Usage"), layer.md
("Non-Distributable Layers").
"""

from __future__ import annotations

from collections.abc import Sequence

from linuxkit.errors import ImageError
from linuxkit.oci.media import DOCKER_CONFIG, OCI_CONFIG, Descriptor

#: What configurations of images are called; the last two are those of old registries, and none at all.
CONFIGS = frozenset((OCI_CONFIG, DOCKER_CONFIG, "application/octet-stream", "", "text/plain"))
NYDUS = "containerd.io/snapshot/nydus-blob", "containerd.io/snapshot/nydus-bootstrap"


def check_kind(reference: str, artifact_type: str, config: Descriptor, layers: Sequence[Descriptor]) -> None:
    """Refuse what only looks like an image.

    Raises:
        ImageError: it is an artifact, or an image whose layers only another program can read.
    """
    if config.media_type not in CONFIGS:
        kind = artifact_type or config.media_type
        raise ImageError(f"{reference} is an artifact ({kind[:120]}), not a container image",
                         hint="check the name and the tag")  # fmt: skip
    for layer in layers:
        kind = layer.media_type
        if "nydus" in kind or any(name in layer.annotations for name in NYDUS):
            raise ImageError(f"{reference} is a nydus image, whose files only nydus can read",
                             hint="use the tag of the OCI image")  # fmt: skip
        if ".foreign." in kind or ".nondistributable." in kind:
            raise ImageError(f"{reference}: layer {layer.digest} is a foreign (non-distributable) layer",
                             hint="use an image that has all its layers in the registry")  # fmt: skip
        if kind.endswith("+encrypted"):
            raise ImageError(f"{reference}: layer {layer.digest} is encrypted",
                             hint="decrypt the image first: skopeo copy --decryption-key KEY")  # fmt: skip
        if kind.endswith(("+json", "/json", "+wasm")) or kind == "application/wasm":
            raise ImageError(f"{reference} is not a container image: its layer {layer.digest} is {kind[:120]}",
                             hint="check the name and the tag")  # fmt: skip
