"""onboot, onshutdown and services → bundles: layout, config.json and runtime.json; and the boot plan. Pure.

    writable   <bundle>/lower/  the image     + config.json, tmp/, rootfs/, runtime.json      overlay at boot
    read-only  <bundle>/rootfs/ the image     + config.json, runtime.json                     bind mount at boot

The first bundle of a build that uses an image holds its tree; the others point to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from linuxkit.config.model import Config, Container, Json, Mount, OnFail, Restart, Security, Volume
from linuxkit.entry import Kind as FileKind
from linuxkit.errors import InputError, Problem
from linuxkit.oci.media import Image
from linuxkit.plan.model import BuildPlan, BundlePlan, PlannedFile, Tree, VolumePlan
from linuxkit.runtime.bootplan import (
    GUEST_LABEL,
    GUEST_VERSIONS,
    PLAN_PATH,
    SPEC_FOLDER,
    Kind,
    PlannedContainer,
    PlannedVolume,
    boot_plan,
    containerd_specs,
    plan_version,
)  # fmt: skip
from linuxkit.runtime.containment import contain
from linuxkit.runtime.health import health_of, seconds
from linuxkit.runtime.label import merge_settings, settings_from_label
from linuxkit.runtime.oci_spec import oci_spec
from linuxkit.runtime.runtime_spec import runtime_spec

MAX_TIMEOUT = 24 * 3600
SECTIONS = ("onboot", "onshutdown", "services")


@dataclass(frozen=True, slots=True)
class Around:
    """What all containers of a build have in common."""

    ids: Mapping[str, int]
    volumes: Mapping[str, Volume]
    architecture: str
    security: Security
    profiles: Mapping[str, Json]


def plan_bundles(
    config: Config, images: Mapping[str, Image], ids: Mapping[str, int], architecture: str, security: Security,
    profiles: Mapping[str, Json],
) -> tuple[BundlePlan, ...]:  # fmt: skip
    """All bundles, in the order onboot, onshutdown, services.

    Args:
        security: of containers that don't say.
        profiles: seccomp profiles by the name of their file.

    Raises:
        InputError: settings, or an image's label, are not right; `problems` has the faults of all containers.
    """
    owners: dict[str, str] = {}  # digest of an image, whatever its name → where its tree is
    volumes = {volume.name: volume for volume in config.volumes}
    around = Around(ids, volumes, architecture, security, profiles)
    bundles, failed = [], []
    for section in SECTIONS:
        containers: Sequence[Container] = getattr(config, section)
        for number, container in enumerate(containers):
            try:
                bundles.append(_bundle(section, number, container, images[container.image], around, owners))
            except InputError as e:
                failed.append(e)
    if len(failed) > 1:
        every = [problem for e in failed for problem in e.problems or [Problem(e.message, hint=e.hint)]]
        raise InputError(f"{len(failed)} containers cannot work", problems=list(dict.fromkeys(every)))
    if failed:
        raise failed[0]
    return tuple(bundles)


def _bundle(
    section: str, number: int, container: Container, image: Image, around: Around, owners: dict[str, str]
) -> BundlePlan:  # fmt: skip
    directory = container_directory(section, number, container)
    origin = (container.image, f"{section}[{number}]")
    settings = merge_settings(container.settings, settings_from_label(image.config.labels, container.image))
    settings = contain(settings, around.security)
    readonly = bool(settings.readonly)
    root, tree = owners.get(image.digest), None
    if root is None:
        root = owners[image.digest] = f"{directory}/" + ("rootfs" if readonly else "lower")
        tree = Tree(image, root, origin, bundle=True)
    spec = oci_spec(
        container, settings, image.config, around.ids, around.volumes, around.architecture, around.profiles
    )  # fmt: skip
    runtime = runtime_spec(settings, rootfs_mounts(directory, root, readonly))
    health = health_of(container, image.config.healthcheck) if section == "services" else None
    timeout = seconds(container.settings.timeout) if container.settings.timeout is not None else 0
    return BundlePlan(
        section, container.name, directory, origin, readonly, spec, runtime, tree, settings.restart, settings.onfail,
        min(timeout, MAX_TIMEOUT), health,
    )  # fmt: skip


def container_directory(section: str, number: int, container: Container) -> str:
    """Where a container's bundle is in the image.

    Raises:
        InputError: the name would lead out of its directory.
    """
    name = container.name
    if name.startswith("/") or not name or any(part in ("", ".", "..") for part in name.split("/")):
        raise InputError(f"{section}[{number}].name: '{name}' cannot be the name of a directory",
                         hint="use letters, digits, '-' and '_'")  # fmt: skip
    return f"containers/{section}/" + (name if section == "services" else f"{number:03d}-{name}")


def rootfs_mounts(directory: str, root: str, readonly: bool) -> tuple[Mount, ...]:
    """What the guest mounts so that a bundle has its root filesystem."""
    rootfs = f"/{directory}/rootfs"
    if readonly:
        return (Mount(rootfs, source=f"/{root}", options=("bind",)),)
    tmp = f"/{directory}/tmp"
    return (
        Mount(tmp, "tmpfs", "tmpfs"),
        Mount(tmp, options=("remount", "private")),
        Mount(rootfs, "overlay", "overlay", (f"lowerdir=/{root}", f"upperdir={tmp}/upper", f"workdir={tmp}/work")),
    )


def guest_tree(plan: BuildPlan) -> Tree | None:
    """The init image that brings the kit's guest."""
    return next((t for t in plan.init if t.image.config.labels.get(GUEST_LABEL) in GUEST_VERSIONS), None)


def guest_files(
    config: Config, volumes: Sequence[VolumePlan], bundles: Sequence[BundlePlan], newest: int
) -> tuple[PlannedFile, ...]:
    """What our own guest reads: etc/linuxkit/plan, and a config.json for containerd for each service.

    Args:
        newest: the newest plan that the init image reads.

    Raises:
        InputError: runtime settings that cannot be carried out, also because the init image is too old.
    """
    kinds: dict[str, Kind] = {"onboot": "onboot", "onshutdown": "onshutdown", "services": "service"}
    containers = [
        PlannedContainer(
            kinds[b.section], b.name, f"/{b.directory}", b.runtime, b.config, b.restart or Restart.NO,
            b.onfail or OnFail.CONTINUE, entry.position, f"{entry.path}.name" if entry.path else "",
            b.timeout, b.health,
        )
        for b, entry in zip(bundles, (*config.onboot, *config.onshutdown, *config.services), strict=True)
    ]  # fmt: skip
    if plan_version(containers) > newest:
        raise InputError("the init image is older than this program: it knows neither healthcheck nor timeout",
                         hint="update the lock, or use kit://init; or leave these keys out")  # fmt: skip
    kept = [
        PlannedVolume(v.name, f"/{v.directory}", v.readonly, entry.position)
        for v, entry in zip(volumes, config.volumes, strict=True)
    ]
    data = {PLAN_PATH: boot_plan(kept, containers)}
    data |= {f"{SPEC_FOLDER}/{name}": text for name, text in sorted(containerd_specs(containers).items())}
    origin = ("linuxkit.plan", "plan")
    folders = sorted({parent for path in data for parent in _parents(path)})
    return (
        *(PlannedFile(path, FileKind.DIRECTORY, 0o755, origin=origin) for path in folders),
        *(PlannedFile(path, FileKind.FILE, 0o644, data=text, origin=origin) for path, text in data.items()),
    )


def _parents(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[: n + 1]) for n in range(len(parts))]
