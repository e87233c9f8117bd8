"""The guest's boot plan: LinuxKit's runtime.json files and the volumes as lines that C reads without a JSON parser.

    linuxkit-plan 1|2                            one record a line, fields separated by a tab
    volume        data  /containers/volumes/data  rw
    container     onboot  000-dhcp  /containers/onboot/000-dhcp
    onfail        continue
    mount         tmpfs  tmpfs  /containers/onboot/000-dhcp/tmp  0
    mkdir         /containers/onboot/000-dhcp/tmp/upper
    ...

The format is fixed in docs/design/guest.md; guest/src/plan.c reads it. Everything in here is pure.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from linuxkit.config.model import OnFail, Position, Restart
from linuxkit.errors import InputError, Problem
from linuxkit.runtime.health import Health
from linuxkit.runtime.planrules import MAX_PLAN, NAME_RULE, NAMESPACES, fault, good_name

Json = dict[str, Any]
Kind = Literal["onboot", "onshutdown", "service"]

GUEST_LABEL = "org.linuxkit.guest"  # on an init image whose guest reads this plan
GUEST_VERSIONS = {"plan/1": 1, "plan/2": 2}  # its value, and the newest plan that such a guest reads
PLAN_PATH = "etc/linuxkit/plan"
SPEC_FOLDER = "etc/linuxkit/containerd"
NOWHERE = Position()

# mount(2) flags, from the kernel's uapi/linux/mount.h
RDONLY, NOSUID, NODEV, NOEXEC, SYNCHRONOUS, REMOUNT, MANDLOCK, DIRSYNC = (1 << bit for bit in range(8))
NOATIME, NODIRATIME, BIND, REC = 1 << 10, 1 << 11, 1 << 12, 1 << 14
UNBINDABLE, PRIVATE, SLAVE, SHARED, RELATIME, STRICTATIME = 1 << 17, 1 << 18, 1 << 19, 1 << 20, 1 << 21, 1 << 24

#: word → (flags it sets, flags it clears); any other word is data for the file system
WORDS: dict[str, tuple[int, int]] = {
    "defaults": (0, 0),
    "ro": (RDONLY, 0), "rw": (0, RDONLY),
    "nosuid": (NOSUID, 0), "suid": (0, NOSUID),
    "nodev": (NODEV, 0), "dev": (0, NODEV),
    "noexec": (NOEXEC, 0), "exec": (0, NOEXEC),
    "sync": (SYNCHRONOUS, 0), "async": (0, SYNCHRONOUS),
    "dirsync": (DIRSYNC, 0),
    "remount": (REMOUNT, 0),
    "mand": (MANDLOCK, 0), "nomand": (0, MANDLOCK),
    "noatime": (NOATIME, 0), "atime": (0, NOATIME),
    "nodiratime": (NODIRATIME, 0), "diratime": (0, NODIRATIME),
    "relatime": (RELATIME, 0), "norelatime": (0, RELATIME),
    "strictatime": (STRICTATIME, 0), "nostrictatime": (0, STRICTATIME),
    "bind": (BIND, 0), "rbind": (BIND | REC, 0),
    "private": (PRIVATE, 0), "rprivate": (PRIVATE | REC, 0),
    "shared": (SHARED, 0), "rshared": (SHARED | REC, 0),
    "slave": (SLAVE, 0), "rslave": (SLAVE | REC, 0),
    "unbindable": (UNBINDABLE, 0), "runbindable": (UNBINDABLE | REC, 0),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class PlannedVolume:
    """A volume of the image; `directory` is absolute: /containers/volumes/NAME."""

    name: str
    directory: str
    readonly: bool = False
    position: Position = NOWHERE


@dataclass(frozen=True, slots=True)
class PlannedContainer:
    """A container as the guest sees it.

    `name` is what the YAML says; `directory` the bundle's absolute path, whose last part (000-dhcp) is the container's
    id. `runtime` and `spec` are the documents of its runtime.json and config.json.
    """

    kind: Kind
    name: str
    directory: str
    runtime: Json
    spec: Json
    restart: Restart = Restart.NO
    onfail: OnFail = OnFail.CONTINUE
    position: Position = NOWHERE
    path: str = ""  # in the YAML
    timeout: int = 0  # seconds that an onshutdown container may take; 0: the guest's default
    health: Health | None = None

    @property
    def id(self) -> str:
        return posixpath.basename(self.directory.rstrip("/"))


def boot_plan(volumes: Iterable[PlannedVolume], containers: Iterable[PlannedContainer]) -> bytes:
    """The text of /etc/linuxkit/plan; the order given is the order of work.

    Raises:
        InputError: what the guest would refuse, for instance a name or a mount without destination; all of it.
    """
    containers = tuple(containers)
    lines = [_line("linuxkit-plan", str(plan_version(containers)))]
    problems: list[Problem] = []
    for volume in volumes:
        try:
            lines.append(_line("volume", volume.name, volume.directory, "ro" if volume.readonly else "rw"))
        except InputError as e:
            at = volume.position
            problems.append(Problem(f"'{volume.name}' cannot be the name of a volume", at.file, at.line, at.column,
                                    f"volumes.{volume.name}", e.hint or NAME_RULE))  # fmt: skip
    seen: set[tuple[str, str]] = set()
    for container in containers:
        try:
            if (container.kind, container.id) in seen:
                raise InputError(f"there is another {container.kind} '{container.id}' for the guest",
                                 hint="what follows the last '/' of a name is what it is called by")  # fmt: skip
            seen.add((container.kind, container.id))
            lines += _container(container)
        except InputError as e:
            at = container.position
            problems.append(Problem(e.message, at.file, at.line, at.column, container.path, e.hint))
    text = "".join(lines).encode("utf-8", "surrogateescape")
    if len(text) > MAX_PLAN:
        problems.append(Problem(f"the boot plan has {len(text)} bytes, and the guest takes {MAX_PLAN}"))
    if len(problems) == 1 and not problems[0].file:
        raise InputError(problems[0].message, hint=problems[0].hint)
    if problems:
        raise InputError("the guest cannot carry this out", problems=problems)
    return text


def plan_version(containers: Iterable[PlannedContainer]) -> int:
    """What a guest has to read: 2 when one of these has a limit or a health check."""
    return 2 if any(container.timeout or container.health for container in containers) else 1


def containerd_specs(containers: Iterable[PlannedContainer]) -> dict[str, bytes]:
    """File name below /etc/linuxkit/containerd → config.json for `ctr run --config`, for every service.

    `root.path` is absolute, for containerd knows no bundle folder. Interfaces and kept namespaces must be ready before
    the container's process runs, and ctr creates and starts in one go: a hook does that part.
    """
    made = {}
    for container in containers:
        if container.kind != "service":
            continue
        spec = {**container.spec, "root": {**container.spec.get("root", {}), "path": f"{container.directory}/rootfs"}}
        if _needs_process(container.runtime):
            hook = {"path": "/usr/bin/service", "args": ["service", "prepare", container.id]}
            hooks = spec.get("hooks") or {}
            spec["hooks"] = {**hooks, "createRuntime": [*(hooks.get("createRuntime") or ()), hook]}
        made[f"{container.id}.json"] = json.dumps(spec, indent=4, ensure_ascii=False).encode()
    return made


def mount_flags(options: Sequence[str]) -> tuple[int, str]:
    """(flags for mount(2), data): each known word in `options` as its flag, the others joined by commas."""
    flags, data = 0, []
    for option in options:
        if option in WORDS:
            on, off = WORDS[option]
            flags = (flags | on) & ~off
        elif option:
            data.append(option)
    return flags, ",".join(data)


def _container(container: PlannedContainer) -> list[str]:
    runtime, directory = container.runtime, container.directory.rstrip("/")
    if not good_name(container.id):
        raise InputError(f"'{container.name}' cannot be the name of a container for the kit's guest", hint=NAME_RULE)
    lines = [_line("container", container.kind, container.id, directory)]
    if container.kind == "service":
        lines.append(_line("restart", container.restart.value))
    elif container.kind == "onboot":
        lines.append(_line("onfail", container.onfail.value))
    if container.timeout:
        lines.append(_line("timeout", str(container.timeout)))
    lines += _health(container.health)
    for mount in runtime.get("mounts") or ():
        lines += _mount(container, mount)
    lines += [_line("mkdir", _inside(directory, path)) for path in runtime.get("mkdir") or ()]
    lines += [_line("cgroup", name.strip("/")) for name in runtime.get("cgroups") or ()]
    lines += [_interface(container, one) for one in runtime.get("interfaces") or ()]
    kept = runtime.get("bindNS") or {}
    lines += [_line("bindns", kind, kept[kind]) for kind in NAMESPACES if kept.get(kind)]
    if container.kind == "service" and runtime.get("namespace"):
        lines.append(_line("namespace", runtime["namespace"]))
    return lines


def _health(health: Health | None) -> list[str]:
    if health is None:
        return []
    times = (health.interval, health.timeout, health.start_period, health.retries)
    lines = [_line("health", *map(str, times))]
    if health.kind == "exec":
        return lines + [_line("test", word) for word in health.test]
    where = (str(health.port), health.path) if health.kind == "http" else (str(health.port),)
    return [*lines, _line(health.kind, *where)]


def _mount(container: PlannedContainer, mount: Json) -> list[str]:
    if not mount.get("destination"):
        raise InputError(f"{container.name}: a mount in runtime.mounts has no destination")
    destination = _inside(container.directory.rstrip("/"), mount["destination"])
    flags, data = mount_flags(mount.get("options") or ())
    # overlay's scratch folders lie on a tmpfs that is empty until now
    made = [part.partition("=")[2] for part in data.split(",") if part.startswith(("upperdir=", "workdir="))]
    lines = [_line("mkdir", path) for path in made]
    source, kind = mount.get("source") or "", mount.get("type") or ""
    if kind == "bind" and not flags & REMOUNT:
        flags |= BIND
    if not kind and source and not flags & (BIND | REMOUNT):
        raise InputError(f"{container.name}: the mount on {mount['destination']} in runtime.mounts has no type",
                         hint="give it a type, or the option bind")  # fmt: skip
    lines.append(_line("mount", kind, source, destination, str(flags), data))
    return lines


def _interface(container: PlannedContainer, interface: Json) -> str:
    name, add, peer = (interface.get(key) or "" for key in ("name", "add", "peer"))
    if not name:
        raise InputError(f"{container.name}: an interface in runtime.interfaces has no name")
    for word in (name, peer):
        if len(word.encode()) > 15:
            raise InputError(f"{container.name}: interface name {word} is longer than 15 bytes")
    if add == "veth" and not peer:
        raise InputError(f"{container.name}: interface {name} is a veth without a peer")
    if peer and add not in ("", "veth"):
        raise InputError(f"{container.name}: interface {name} has a peer, but {add} interfaces have none")
    return _line("interface", name, "veth" if peer else add, peer, "1" if interface.get("createInRoot") else "0")


def _needs_process(runtime: Json) -> bool:
    return bool(runtime.get("interfaces") or any((runtime.get("bindNS") or {}).values()))


def _inside(directory: str, path: str) -> str:
    """Relative paths are below the container's root; `..` stays inside."""
    if path.startswith("/"):
        return posixpath.normpath(path).replace("//", "/")
    return f"{directory}/rootfs" + posixpath.normpath("/" + path).replace("//", "/").rstrip("/")


def _line(*fields: str) -> str:
    for field in fields:
        if "\0" in field:
            raise InputError(f"a zero byte in {field!r}")
    if fields[0] != "linuxkit-plan" and (wrong := fault(fields)):
        raise InputError(f"the guest refuses '{' '.join(fields)}': {wrong}")
    return "\t".join(f.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n") for f in fields) + "\n"
