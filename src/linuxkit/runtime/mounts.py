"""A container's mounts: the defaults, then tmpfs, binds and mounts, each replacing what has its destination. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from linuxkit.config.convert import did_you_mean
from linuxkit.config.model import Container, IdMapping, ImageSettings, Mount, Security, Volume
from linuxkit.runtime.faults import Faults

#: Types that are their own source, with their usual place.
_USUAL = {"proc": "/proc", "devpts": "/dev/pts", "sysfs": "/sys", "cgroup": "/sys/fs/cgroup", "mqueue": "/dev/mqueue"}


def _defaults(readonly: bool, contained: bool) -> list[Mount]:
    ro = ("ro",) if readonly else ()
    sys_ro = ("ro",) if readonly or contained else ()  # uid 0 commands the kernel there, too
    return [
        Mount("/proc", "proc", "proc", ("nosuid", "nodev", "noexec", "relatime")),
        Mount("/dev", "tmpfs", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k", *ro)),
        Mount("/dev/pts", "devpts", "devpts", ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620")),
        Mount("/sys", "sysfs", "sysfs", ("nosuid", "noexec", "nodev", *sys_ro)),
        Mount("/sys/fs/cgroup", "cgroup", "cgroup", ("nosuid", "noexec", "nodev", "relatime", "ro")),
    ]


def container_mounts(
    container: Container, settings: ImageSettings, volumes: Mapping[str, Volume], faults: Faults
) -> list[dict[str, Any]]:
    """The `mounts` of config.json, sorted by destination.

    A relative source in the YAML's own binds and bind mounts is the name of a volume; one in a label is left alone.
    """
    own = container.settings
    contained = settings.security is Security.DEFAULT
    found = {mount.destination: mount for mount in _defaults(bool(settings.readonly), contained)}
    for n, text in enumerate(settings.tmpfs or ()):
        destination, _, options = text.partition(":")
        if ":" in options:
            faults.add(f"'{text}' has more than one ':'", "tmpfs", n, "destination[:options]")
            continue
        found[destination] = Mount(destination, "tmpfs", "tmpfs", tuple(options.split(",")) if options else ())
    for n, text in enumerate(settings.binds or ()):
        bind = _bind(text, n, faults)
        if bind is not None:
            if own.binds is not None or text in (own.binds_add or ()):
                bind = _volume(bind, text, volumes, faults, "binds", n)
            found[bind.destination] = bind
    for n, mount in enumerate(settings.mounts or ()):
        filled = _filled(mount, n, faults)
        if filled is not None:
            if own.mounts is not None and filled.type == "bind":
                filled = _volume(filled, filled.source, volumes, faults, "mounts", n)
            found[filled.destination] = filled
    return [mount_json(found[destination]) for destination in sorted(found)]


def _bind(text: str, n: int, faults: Faults) -> Mount | None:
    parts = text.split(":")
    if not 2 <= len(parts) <= 3:
        what = "no ':'" if len(parts) < 2 else "more than two ':'"
        faults.add(f"'{text}' has {what}", "binds", n, "source:destination[:options]")
        return None
    options = (*parts[2].split(","), "rbind") if len(parts) == 3 else ("rw", "rbind", "rshared")
    return Mount(parts[1], "bind", parts[0], options)


def _filled(mount: Mount, n: int, faults: Faults) -> Mount | None:
    """With what follows from the rest filled in."""
    type_ = mount.type or (mount.source if mount.source in _USUAL else "")
    if not type_ and mount.destination == "/dev":
        type_ = "tmpfs"
    if not type_:
        faults.add(f"the mount for {mount.destination or 'nowhere'} has no type", "mounts", n, "write `type:`")
        return None
    destination = mount.destination or _USUAL.get(type_, "")
    if not destination:
        faults.add(f"the {type_} mount has no destination", "mounts", n, "write `destination:`")
        return None
    return Mount(destination, type_, mount.source or type_, mount.options, mount.uid_mappings, mount.gid_mappings)


def _volume(mount: Mount, text: str, volumes: Mapping[str, Volume], faults: Faults, key: str, n: int) -> Mount:
    """`mount` with the name of a volume replaced by its directory."""
    name = mount.source
    if name.startswith("/"):
        return mount
    if name not in volumes:
        hint = did_you_mean(name, volumes) or "define it under `volumes:`, or give an absolute path"
        faults.add(f"there is no volume '{name}'", key, n, hint, text)
        return mount
    access = next((o for o in mount.options if o in ("ro", "rw")), "rw")
    if volumes[name].readonly and access != "ro":
        faults.add(f"the volume '{name}' is read-only", key, n, "mount it with the option `ro`", text)
    return Mount(mount.destination, mount.type, f"/containers/volumes/{name}/merged", mount.options,
                 mount.uid_mappings, mount.gid_mappings)  # fmt: skip


def mount_json(mount: Mount) -> dict[str, Any]:
    """A mount in the OCI runtime specification's spelling; what is empty is left out."""
    found: dict[str, Any] = {"destination": mount.destination}
    pairs = (("type", mount.type), ("source", mount.source), ("options", list(mount.options)),
             ("uidMappings", [mapping_json(m) for m in mount.uid_mappings]),
             ("gidMappings", [mapping_json(m) for m in mount.gid_mappings]))  # fmt: skip
    return found | {key: value for key, value in pairs if value}


def mapping_json(mapping: IdMapping) -> dict[str, int]:
    return {"containerID": mapping.container_id, "hostID": mapping.host_id, "size": mapping.size}
