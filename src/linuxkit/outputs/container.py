"""oci: the root filesystem as a container image, a tar of an OCI layout.

    NAME.oci.tar = oci-layout | index.json | blobs/sha256/ { manifest, configuration, the one layer, a tar }

For what takes such archives: skopeo and podman (oci-archive:), containerd, Docker with its image store, this program.
It starts what the format docker starts. The layer is not compressed: whoever sends it to a registry does that.

OCI image specification 1.1, image-layout.md.
"""

from __future__ import annotations

from linuxkit.encode import tar
from linuxkit.encode.pieces import Piece, literal, size_of
from linuxkit.entry import FIXED_MTIME, Entry, Kind
from linuxkit.errors import InputError
from linuxkit.oci import document as doc
from linuxkit.oci.archive import IMAGE_NAME
from linuxkit.oci.media import OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST, Descriptor, Platform
from linuxkit.oci.reference import parse_reference
from linuxkit.oci.store import REF_NAME
from linuxkit.outputs.build import Build
from linuxkit.outputs.initrd import member
from linuxkit.outputs.kept import sha256
from linuxkit.outputs.pieces import OutputFile

ENTRYPOINT = "/bin/rc.init"
TAG = "latest"
_CREATED = "2017-04-18T16:30:00Z"  # FIXED_MTIME


def make_oci(build: Build, base: str) -> list[OutputFile]:
    """BASE.oci.tar"""
    layer = [*build.encoder.tar(build.segments(boot=False)), literal(tar.END)]
    layer_digest = f"sha256:{sha256(build, layer)}"
    platform = Platform("linux", build.plan.architecture)
    config = _blob(build, OCI_CONFIG, {
        "created": _CREATED, **doc.platform_document(platform), "config": {"Entrypoint": [ENTRYPOINT]},
        "rootfs": {"type": "layers", "diff_ids": [layer_digest]},
    })  # fmt: skip
    manifest = _blob(build, OCI_MANIFEST, {
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": doc.descriptor_document(config[0]),
        "layers": [doc.descriptor_document(Descriptor(OCI_LAYER, layer_digest, size_of(layer)))],
    })  # fmt: skip
    top = doc.descriptor_document(manifest[0]) | {
        "platform": doc.platform_document(platform), "annotations": {REF_NAME: TAG, **_name(base)},
    }  # fmt: skip
    index = doc.encode({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [top]})
    pieces = [
        *member("oci-layout", [literal(b'{"imageLayoutVersion":"1.0.0"}')]),
        *member("index.json", [literal(index)]),
        *_directory("blobs"),
        *_directory("blobs/sha256"),
    ]
    for digest, content in ((manifest[0].digest, manifest[1]), (config[0].digest, config[1]), (layer_digest, layer)):
        pieces += member(f"blobs/sha256/{digest.removeprefix('sha256:')}", content)
    return [OutputFile(f"{base}.oci.tar", "oci", (*pieces, literal(tar.END)))]


def _name(base: str) -> dict[str, str]:
    """What to call the image where archives bring names; nothing when the files' name is none for an image."""
    try:
        return {IMAGE_NAME: parse_reference(f"{base}:{TAG}").tagged}
    except InputError:
        return {}


def _blob(build: Build, media_type: str, document: dict[str, object]) -> tuple[Descriptor, list[Piece]]:
    content = [literal(doc.encode(document))]
    return Descriptor(media_type, f"sha256:{sha256(build, content)}", size_of(content)), content


def _directory(path: str) -> list[Piece]:
    return [literal(tar.member_header(Entry(path, Kind.DIRECTORY, 0o755, mtime=FIXED_MTIME)))]
