"""What a container may not touch unless its YAML or its image's label says so. Pure; docs/design/containment.md."""

from __future__ import annotations

from dataclasses import replace

from linuxkit.config.model import Config, ImageSettings, Position, Security

#: Read as empty: what tells about the machine or its other programs, and is of no use to a contained one.
MASKED_PATHS = (
    "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap",
    "/sys/firmware",
)  # fmt: skip
#: Where the kernel takes commands from whoever is uid 0, with no capability asked for.
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
SECCOMP_DEFAULT, SECCOMP_UNCONFINED = "default", "unconfined"
#: Values of `capabilities` that have CAP_SYS_ADMIN in them.
_MASTERS = ("CAP_SYS_ADMIN", "all")


def contain(settings: ImageSettings, security: Security) -> ImageSettings:
    """The settings with what holds for a container filled in; `security` of the result is never None.

    Each key that is given stays. A container with CAP_SYS_ADMIN could undo all of this: it is left as LinuxKit has it,
    unless its own `security` says `default`.

    Args:
        settings: the YAML's merged over the label's.
        security: of the whole image.
    """
    own = settings.security
    if own is None:
        own = Security.LINUXKIT if grants_admin(settings) else security
    if own is Security.LINUXKIT:
        return replace(settings, security=own)
    return replace(
        settings,
        security=own,
        masked_paths=MASKED_PATHS if settings.masked_paths is None else settings.masked_paths,
        readonly_paths=READONLY_PATHS if settings.readonly_paths is None else settings.readonly_paths,
        no_new_privileges=True if settings.no_new_privileges is None else settings.no_new_privileges,
        seccomp=settings.seccomp or SECCOMP_DEFAULT,
    )


def profile_files(config: Config) -> dict[str, Position]:
    """Files with seccomp profiles that the YAML names, and where each is named first."""
    found: dict[str, Position] = {}
    for container in (*config.onboot, *config.onshutdown, *config.services):
        name = container.settings.seccomp
        if name and name not in (SECCOMP_DEFAULT, SECCOMP_UNCONFINED):
            found.setdefault(name, container.positions.get("seccomp", container.position))
    return found


def grants_admin(settings: ImageSettings) -> bool:
    """Whether a container has CAP_SYS_ADMIN."""
    given = [*(settings.capabilities or ()), *(settings.ambient or ())]
    return any(name in _MASTERS or name.lower() == "all" for name in given)
