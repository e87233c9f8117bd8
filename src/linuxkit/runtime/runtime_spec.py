"""runtime.json: what the guest prepares around a container, in LinuxKit's form: every key present. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from linuxkit.config.model import ImageSettings, Interface, Json, Mount, Runtime
from linuxkit.runtime.mounts import mount_json

NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")


def runtime_spec(settings: ImageSettings, rootfs_mounts: Sequence[Mount]) -> Json:
    """The runtime.json of a container as a dict in the order it is written; `go_json` makes the bytes.

    Args:
        settings: the YAML's merged over the label's.
        rootfs_mounts: what makes its root filesystem; they come before its own mounts.
    """
    runtime = settings.runtime or Runtime()
    return {
        "cgroups": list(runtime.cgroups or ()),
        "mounts": [_mount(m) for m in (*rootfs_mounts, *(runtime.mounts or ()))],
        "mkdir": list(runtime.mkdir or ()),
        "interfaces": [_interface(i) for i in runtime.interfaces or ()],
        "bindNS": {name: (runtime.bind_ns or {}).get(name, "") for name in NAMESPACES},
        "namespace": runtime.namespace or "",
    }


def _mount(mount: Mount) -> Json:
    return mount_json(mount)


def _interface(interface: Interface) -> Json:
    pairs = (("name", interface.name), ("add", interface.add), ("peer", interface.peer))
    return {key: value for key, value in pairs if value} | {"createInRoot": interface.create_in_root}
