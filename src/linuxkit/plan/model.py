"""The BuildPlan: everything that decides the bytes of a build, as frozen dataclasses. Pure, and JSON-able."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from linuxkit.config.model import OnFail, Restart
from linuxkit.entry import Kind
from linuxkit.oci.media import Image
from linuxkit.runtime.health import Health

#: Raise it when the same inputs give other bytes.
VERSION = 2
SBOM_NAME = "sbom.spdx.json"


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file of the build host that `files:` names, as it was when the plan was made."""

    path: str
    size: int
    digest: str


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line decides about the content.

    sbom            path of the SBOM in the image; empty leaves it out.
    sbom_created    when it says it was made, RFC 3339; empty is LinuxKit's fixed time.
    sbom_format     spdx or cyclonedx.
    loaders         kit packages that hold the boot loaders of the output formats.
    signer          SHA-256 of the certificate that EFI programs are signed with.
    whiteouts       whose reading of them: linuxkit, or oci for the specification's (oci/merge.py).
    """

    architecture: str = "amd64"
    decompress_kernel: bool = False
    sbom: str = SBOM_NAME
    sbom_created: str = ""
    whiteouts: str = "linuxkit"
    sbom_format: str = "spdx"
    loaders: tuple[str, ...] = ()
    signer: str = ""


@dataclass(frozen=True, slots=True)
class Tree:
    """An image's filesystem, laid out below `prefix` ("" is the root)."""

    image: Image
    prefix: str
    origin: tuple[str, str]
    bundle: bool = False  # a container's root: its own resolv.conf instead of the link to /run


@dataclass(frozen=True, slots=True)
class KernelPlan:
    image: Image
    cmdline: str
    binary: str
    tar: str  # "": no modules
    ucode: str
    decompress: bool
    origin: tuple[str, str]


@dataclass(frozen=True, slots=True)
class VolumePlan:
    name: str
    directory: str
    origin: tuple[str, str]  # of the image's entries, or of the blank volume
    own_origin: tuple[str, str]  # of tmp/ and merged/
    readonly: bool = False
    tree: Tree | None = None
    layout: Image | None = None  # format oci: the whole image as an OCI layout
    platforms: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BundlePlan:
    """A container: its directory, its two JSON files, and its tree unless an earlier bundle has the same image."""

    section: str  # onboot, onshutdown, services
    name: str
    directory: str
    origin: tuple[str, str]
    readonly: bool
    config: dict[str, Any]
    runtime: dict[str, Any]
    tree: Tree | None = None
    restart: Restart | None = None
    onfail: OnFail | None = None
    timeout: int = 0  # seconds; onshutdown
    health: Health | None = None


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """One node of `files:`, or one that the builder adds. Content is `data`, or that of `source`."""

    path: str
    kind: Kind
    mode: int
    uid: int = 0
    gid: int = 0
    target: str = ""
    data: bytes = b""
    source: SourceFile | None = None
    origin: tuple[str, str] = ("", "")


@dataclass(frozen=True, slots=True)
class SbomPlan:
    path: str
    created: str
    images: tuple[tuple[str, Image], ...]  # prefix, image
    format: str = "spdx"


@dataclass(frozen=True, slots=True)
class BuildPlan:
    architecture: str
    kernel: KernelPlan | None
    init: tuple[Tree, ...]
    volumes: tuple[VolumePlan, ...]
    bundles: tuple[BundlePlan, ...]
    guest: tuple[PlannedFile, ...]
    files: tuple[PlannedFile, ...]
    sbom: SbomPlan | None
    whiteouts: str = "linuxkit"
    loaders: tuple[tuple[str, Image], ...] = ()  # kit packages by name
    signer: str = ""
    version: int = field(default=VERSION)

    def images(self) -> list[Image]:
        """Whose filesystems are laid out, in order; one may come twice."""
        trees = (*self.init, *(v.tree for v in self.volumes), *(b.tree for b in self.bundles))
        return [tree.image for tree in trees if tree is not None]

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON values; contents of files appear as digest and size."""
        value = _jsonable(self)
        assert isinstance(value, dict)
        return value

    @property
    def seed(self) -> str:
        """What identifiers on disks are derived from: the digest without what only other formats of the build need."""
        return replace(self, loaders=(), signer="").digest

    @property
    def digest(self) -> str:
        """`sha256:<hex>` of the content: the same in every cache and home, and from a bundle or a lock."""
        return f"sha256:{hashlib.sha256(canonical(content_of(self))).hexdigest()}"


def canonical(value: Any) -> bytes:
    """JSON that is the same for equal values."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def _jsonable(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"sha256": hashlib.sha256(value).hexdigest(), "size": len(value)}
    if isinstance(value, str | int | float | bool | None):
        return value
    if isinstance(value, Mapping):
        return {str(k): _jsonable(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(v) for v in value]
    if isinstance(value, Image):
        return {
            "reference": value.reference, "digest": value.digest, "platform": str(value.platform),
            "layers": [layer.digest for layer in value.layers], "index": value.index.digest if value.index else None,
        }  # fmt: skip
    return {name: _jsonable(getattr(value, name)) for name in value.__dataclass_fields__}


def content_of(value: Any) -> Any:
    """What the bytes are made of, as JSON values: not where it was found, nor by which name it was asked for.

    An image is the digests of its unpacked layers, whatever index, name, or compression it came with. A file of this
    machine is its content. An image that is laid out as it is (`format: oci`) counts with its name and manifest.
    """
    if isinstance(value, SourceFile):
        return {"sha256": value.digest.removeprefix("sha256:"), "size": value.size}
    if isinstance(value, Image):
        return {"platform": str(value.platform), "layers": list(value.config.diff_ids)}
    if isinstance(value, PlannedFile):
        data = value.data if value.source is None else value.source
        return {
            "path": value.path, "kind": value.kind, "mode": value.mode, "uid": value.uid, "gid": value.gid,
            "target": value.target, "data": content_of(data),
        }  # fmt: skip
    if isinstance(value, Mapping):
        return {str(k): content_of(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [content_of(v) for v in value]
    if not hasattr(value, "__dataclass_fields__"):
        return _jsonable(value)
    found = {name: content_of(getattr(value, name)) for name in value.__dataclass_fields__ if name not in _ORIGINS}
    if isinstance(value, VolumePlan) and value.layout is not None:
        top = value.layout.index or value.layout
        found["layout"] = {"reference": value.layout.reference, "digest": top.digest}
    return found


#: Fields that say where in the YAML something stands.
_ORIGINS = ("origin", "own_origin")
