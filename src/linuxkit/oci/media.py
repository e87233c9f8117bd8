"""OCI image-spec nouns: descriptors, platforms, image configurations, resolved images. Pure.

Names and JSON keys are those of https://github.com/opencontainers/image-spec v1.1 (descriptor.md, config.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = OCI_LAYER + "+gzip"
OCI_LAYER_ZSTD = OCI_LAYER + "+zstd"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"

INDEX_TYPES = frozenset({OCI_INDEX, DOCKER_INDEX})
MANIFEST_TYPES = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})


#: Names of architectures as uname and others spell them → Go's, which the OCI specification asks for.
_SPELLINGS = {
    "x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "armv8l": "arm64", "armv7l": "arm", "armv6l": "arm",
    "armhf": "arm", "i386": "386", "i486": "386", "i586": "386", "i686": "386", "x86": "386", "rv64gc": "riscv64",
    "powerpc64le": "ppc64le", "ppc64el": "ppc64le", "loongarch64": "loong64",
}  # fmt: skip


def go_architecture(name: str) -> str:
    """An architecture in Go's spelling, whatever a manifest or configuration calls it."""
    return _SPELLINGS.get(name.lower(), name)


@dataclass(frozen=True, slots=True, order=True)
class Platform:
    """os/architecture[/variant], in Go's names: linux/amd64, linux/arm64."""

    os: str = "linux"
    architecture: str = "amd64"
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(p for p in (self.os, self.architecture, self.variant) if p)


@dataclass(frozen=True, slots=True)
class Descriptor:
    media_type: str
    digest: str  # sha256:<64 hex>
    size: int  # bytes
    platform: Platform | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)
    artifact_type: str = ""  # what an attached manifest is


@dataclass(frozen=True, slots=True)
class ImageHealthcheck:
    """Docker's `Healthcheck` of an image's configuration; times in nanoseconds, 0: not given."""

    test: tuple[str, ...] = ()
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    retries: int = 0


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """The parts of an image's configuration that a build looks at."""

    architecture: str = ""
    os: str = ""
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    working_dir: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    diff_ids: tuple[str, ...] = ()
    user: str = ""  # only told of: LinuxKit's containers are root unless their settings say otherwise
    healthcheck: ImageHealthcheck | None = None


@dataclass(frozen=True, slots=True)
class Image:
    """An image for one platform, pinned: everything a build needs to know without opening a layer."""

    reference: str  # as the store names it, expanded: docker.io/library/busybox:latest
    digest: str  # of the image manifest
    platform: Platform
    config: ImageConfig
    layers: tuple[Descriptor, ...]  # bottom first
    index: Descriptor | None = None  # what the name points at, when that is an index
