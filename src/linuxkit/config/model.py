"""What the user said: the YAML as frozen dataclasses. Field meanings: docs/yaml.md, made from config/schema.py.

`None` means "the key was absent", which matters where an image's label may fill it in. Names are LinuxKit's.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

Id = int | str  # a uid or gid: a number, or the name of an onboot, onshutdown or service entry
Json = dict[str, Any]


class Restart(StrEnum):
    """What happens when a service's process ends."""

    NO = "no"
    ON_FAILURE = "on-failure"
    ALWAYS = "always"


class OnFail(StrEnum):
    """What happens when an onboot container ends with a status other than 0."""

    CONTINUE = "continue"
    HALT = "halt"


class Security(StrEnum):
    """What containers may touch."""

    DEFAULT = "default"
    LINUXKIT = "linuxkit"


class VolumeFormat(StrEnum):
    FILESYSTEM = "filesystem"
    OCI = "oci"


@dataclass(frozen=True, slots=True)
class Position:
    """Where a value stands, counted from 1; file "" is generated input."""

    file: str = ""
    line: int = 0
    column: int = 0


@dataclass(frozen=True, slots=True)
class Kernel:
    image: str = ""
    cmdline: str = ""
    binary: str = "kernel"
    tar: str = "kernel.tar"  # "" or "none": no modules
    ucode: str = ""
    keys: frozenset[str] = field(default=frozenset(), compare=False)  # those given: a merge overrides with them
    position: Position = field(default=Position(), compare=False)


@dataclass(frozen=True, slots=True)
class InitImage:
    image: str
    position: Position = field(default=Position(), compare=False)


@dataclass(frozen=True, slots=True)
class Mount:
    """OCI runtime-spec mount; "" and () where not given."""

    destination: str = ""
    type: str = ""
    source: str = ""
    options: tuple[str, ...] = ()
    uid_mappings: tuple[IdMapping, ...] = ()
    gid_mappings: tuple[IdMapping, ...] = ()


@dataclass(frozen=True, slots=True)
class IdMapping:
    host_id: int = 0
    container_id: int = 0
    size: int = 0


@dataclass(frozen=True, slots=True)
class Device:
    path: str = ""
    type: str = ""
    major: int = 0
    minor: int = 0
    mode: str = ""  # octal text


@dataclass(frozen=True, slots=True)
class Interface:
    name: str = ""
    add: str = ""
    peer: str = ""
    create_in_root: bool = False


@dataclass(frozen=True, slots=True)
class Runtime:
    """What the guest prepares around a container. None: not given, the label or the default decides."""

    cgroups: tuple[str, ...] | None = None
    mounts: tuple[Mount, ...] | None = None
    mkdir: tuple[str, ...] | None = None
    interfaces: tuple[Interface, ...] | None = None
    bind_ns: Mapping[str, str] | None = None  # cgroup ipc mnt net pid user uts → path
    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class Healthcheck:
    """How to find out whether a service works; times as text (`1m30s`). None: not given."""

    test: str | tuple[str, ...] | None = None
    http: str | None = None  # PORT/PATH
    tcp: int | None = None
    interval: str | None = None
    timeout: str | None = None
    retries: int | None = None
    start_period: str | None = None
    disable: bool = False


@dataclass(frozen=True, slots=True)
class ImageSettings:
    """The settings of an onboot, onshutdown or service entry that its image's label may also carry."""

    capabilities: tuple[str, ...] | None = None
    capabilities_add: tuple[str, ...] | None = None
    ambient: tuple[str, ...] | None = None
    mounts: tuple[Mount, ...] | None = None
    binds: tuple[str, ...] | None = None
    binds_add: tuple[str, ...] | None = None
    devices: tuple[Device, ...] | None = None
    tmpfs: tuple[str, ...] | None = None
    command: tuple[str, ...] | None = None
    env: tuple[str, ...] | None = None
    cwd: str | None = None
    net: str | None = None
    pid: str | None = None
    ipc: str | None = None
    uts: str | None = None
    userns: str | None = None
    readonly: bool | None = None
    masked_paths: tuple[str, ...] | None = None
    readonly_paths: tuple[str, ...] | None = None
    uid: Id | None = None
    gid: Id | None = None
    additional_gids: tuple[Id, ...] | None = None
    no_new_privileges: bool | None = None
    security: Security | None = None  # ours, not LinuxKit's; so is the next
    seccomp: str | None = None  # default, unconfined, or a file
    hostname: str | None = None
    oom_score_adj: int | None = None
    rootfs_propagation: str | None = None
    cgroups_path: str | None = None
    resources: Json | None = None  # OCI linux.resources, already in the OCI spelling
    sysctl: Mapping[str, str] | None = None
    rlimits: tuple[str, ...] | None = None
    uid_mappings: tuple[IdMapping, ...] | None = None
    gid_mappings: tuple[IdMapping, ...] | None = None
    annotations: Mapping[str, str] | None = None
    runtime: Runtime | None = None
    restart: Restart | None = None  # services; ours, not LinuxKit's
    onfail: OnFail | None = None  # onboot; ours, not LinuxKit's
    timeout: str | None = None  # onshutdown; ours
    healthcheck: Healthcheck | None = None  # services; ours


@dataclass(frozen=True, slots=True)
class Container:
    """One entry of onboot, onshutdown or services."""

    name: str
    image: str
    settings: ImageSettings = ImageSettings()
    position: Position = field(default=Position(), compare=False)
    path: str = field(default="", compare=False)  # in the document: services[0]
    # where each key and list item stands, by its path below this entry: binds[0]
    positions: Mapping[str, Position] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True)
class Volume:
    name: str = ""
    image: str = ""
    readonly: bool = False
    format: VolumeFormat = VolumeFormat.FILESYSTEM
    platforms: tuple[str, ...] = ()
    position: Position = field(default=Position(), compare=False)


@dataclass(frozen=True, slots=True)
class File:
    path: str
    contents: str | None = None
    source: str | None = None
    metadata: str | None = None  # yaml | json
    directory: bool = False
    symlink: str | None = None
    optional: bool = False
    mode: str | None = None  # octal text
    uid: Id | None = None
    gid: Id | None = None
    position: Position = field(default=Position(), compare=False)

    def source_names(self) -> tuple[str, ...]:
        """Where `source` may be, the first that is there counts: beside the YAML, in the current directory."""
        return beside(self.source, self.position) if self.source is not None else ()


def beside(text: str, at: Position) -> tuple[str, ...]:
    """A file that the YAML names at a place: relative to the YAML's folder, then to the current directory."""
    folder = "" if "://" in at.file else posixpath.dirname(at.file)
    if not folder or text.startswith(("/", "~/")):
        return (text,)
    return (posixpath.normpath(posixpath.join(folder, text)), text)


@dataclass(frozen=True, slots=True)
class Trust:
    image: tuple[str, ...] = ()
    org: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Config:
    kernel: Kernel = Kernel()
    init: tuple[InitImage, ...] = ()
    onboot: tuple[Container, ...] = ()
    onshutdown: tuple[Container, ...] = ()
    services: tuple[Container, ...] = ()
    volumes: tuple[Volume, ...] = ()
    files: tuple[File, ...] = ()
    trust: Trust = Trust()
    security: Security | None = None
