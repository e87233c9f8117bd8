"""config.json: what runc, crun and containerd run. OCI runtime specification 1.2, in LinuxKit's key order. Pure.

image config + label + YAML ──label.merge_settings──► ImageSettings ──oci_spec──► config.json
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from linuxkit.config.convert import did_you_mean
from linuxkit.config.model import Container, Id, ImageSettings, Json, Volume
from linuxkit.errors import InputError
from linuxkit.oci.media import ImageConfig
from linuxkit.runtime.containment import SECCOMP_DEFAULT, SECCOMP_UNCONFINED
from linuxkit.runtime.faults import Faults
from linuxkit.runtime.ids import resolve_id
from linuxkit.runtime.json import go_json
from linuxkit.runtime.mounts import container_mounts, mapping_json
from linuxkit.runtime.seccomp import default_profile

OCI_VERSION = "1.2.1"
#: In the order of their numbers, 0 to 40 (capabilities(7)).
_CAPABILITY_NAMES = """
    CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE
    NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT
    SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL
    SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
"""
CAPABILITIES = tuple("CAP_" + name for name in _CAPABILITY_NAMES.split())
_RLIMIT_NAMES = """
    CPU FSIZE DATA STACK CORE RSS NPROC NOFILE MEMLOCK AS LOCKS SIGPENDING MSGQUEUE NICE RTPRIO RTTIME
"""
RLIMITS = tuple(_RLIMIT_NAMES.split())
UNLIMITED = 2**64 - 1
_DEVICE_TYPES = ("a", "b", "c", "p", "u")


def oci_spec(
    container: Container,
    settings: ImageSettings,
    image: ImageConfig,
    ids: Mapping[str, int],
    volumes: Mapping[str, Volume],
    architecture: str = "amd64",
    profiles: Mapping[str, Json] | None = None,
) -> Json:
    """The config.json of a container as a dict in the order it is written.

    Args:
        container: as the YAML has it; gives names and positions for messages.
        settings: the YAML's merged over the label's (`label.merge_settings`), contained or not (`containment.contain`).
        image: the image's configuration; its User is ignored, as in LinuxKit.
        ids: from `ids.id_map`.
        volumes: by name.
        architecture: of the image.
        profiles: seccomp profiles by the name of their file; None: they are not known yet.

    Raises:
        InputError: settings that cannot work; every fault of this container is listed.
    """
    faults = Faults(container)
    mounts = container_mounts(container, settings, volumes, faults)
    process = _process(settings, image, ids, faults)
    linux = _linux(settings, faults)
    given = {name for names in process["capabilities"].values() for name in names}
    seccomp = _seccomp(container, settings, given, architecture, profiles, faults)
    if seccomp:
        linux["seccomp"] = seccomp
    faults.check()
    spec: Json = {"ociVersion": OCI_VERSION, "process": process, "root": {"path": "rootfs"}}
    if settings.readonly:
        spec["root"]["readonly"] = True
    if settings.hostname:
        spec["hostname"] = settings.hostname
    spec["mounts"] = mounts
    if settings.annotations:
        spec["annotations"] = dict(sorted(settings.annotations.items()))
    return spec | {"linux": linux}


def to_json(spec: Json) -> bytes:
    """The bytes of config.json."""
    return go_json(spec)


def _process(settings: ImageSettings, image: ImageConfig, ids: Mapping[str, int], faults: Faults) -> Json:
    args = settings.command if settings.command is not None else (*image.entrypoint, *image.cmd)
    env = settings.env if settings.env is not None else image.env
    user: Json = {
        "uid": _id(settings.uid, ids, faults, "uid", None),
        "gid": _id(settings.gid, ids, faults, "gid", None),
    }
    if settings.additional_gids:
        gids = settings.additional_gids
        user["additionalGids"] = [_id(gid, ids, faults, "additionalGids", n) for n, gid in enumerate(gids)]
    process: Json = {"user": user}
    if args:
        process["args"] = list(args)
    if env:
        process["env"] = list(env)
    process["cwd"] = settings.cwd or image.working_dir or "/"
    process["capabilities"] = _capabilities(settings, faults)
    if settings.rlimits:
        process["rlimits"] = [_rlimit(text, n, faults) for n, text in enumerate(settings.rlimits)]
    if settings.no_new_privileges:
        process["noNewPrivileges"] = True
    if settings.oom_score_adj is not None:
        process["oomScoreAdj"] = settings.oom_score_adj
    return process


def _id(value: Id | None, ids: Mapping[str, int], faults: Faults, key: str, n: int | None) -> int:
    try:
        return resolve_id(value, ids)
    except InputError as e:
        faults.add(e.message, key, n, e.hint)
        return 0


def _capabilities(settings: ImageSettings, faults: Faults) -> Json:
    own = _capability_list(settings.capabilities or (), "capabilities", faults)
    ambient = _capability_list(settings.ambient or (), "ambient", faults)
    both = sorted({*own, *ambient})
    sets = {"bounding": both, "effective": own, "inheritable": both, "permitted": both, "ambient": ambient}
    return {name: list(caps) for name, caps in sets.items() if caps}


def _capability_list(names: Sequence[str], key: str, faults: Faults) -> list[str]:
    """In the given order, each once."""
    if len(names) == 1 and names[0].lower() in ("all", "none"):
        return list(CAPABILITIES) if names[0].lower() == "all" else []
    for n, name in enumerate(names):
        if name not in CAPABILITIES:
            alone = name.lower() in ("all", "none")
            hint = f"'{name}' has to stand alone" if alone else _capability_hint(name)
            faults.add(f"unknown capability '{name}'", key, n, hint, name)
    return list(dict.fromkeys(names))


def _capability_hint(name: str) -> str:
    hint = did_you_mean(name.upper().removeprefix("CAP_"), _CAPABILITY_NAMES.split())
    return hint.replace("'", "'CAP_", 1)


def _rlimit(text: str, n: int, faults: Faults) -> Json:
    parts = [part.strip() for part in text.split(",", 2)]
    if len(parts) != 3:
        faults.add(f"'{text}' is not a limit", "rlimits", n, "name,soft,hard")
        return {}
    name = parts[0].upper().removeprefix("RLIMIT_")
    if name not in RLIMITS:
        faults.add(f"unknown limit '{parts[0]}'", "rlimits", n, did_you_mean(name, RLIMITS))
    soft, hard = (_limit(part, n, faults) for part in parts[1:])
    return {"type": f"RLIMIT_{name}", "hard": hard, "soft": soft}


def _limit(text: str, n: int, faults: Faults) -> int:
    if text.lower() == "unlimited":
        return UNLIMITED
    if re.fullmatch("[0-9]{1,20}", text) and int(text) <= UNLIMITED:
        return int(text)
    faults.add(f"'{text}' is not a limit's value", "rlimits", n, "a whole number, or unlimited")
    return 0


def _linux(settings: ImageSettings, faults: Faults) -> Json:
    devices, rules = _devices(settings, faults)
    resources: Json = {**(settings.resources or {})}
    rules = [*resources.pop("devices", ()), *rules]
    if rules:
        resources = {"devices": rules, **resources}
    for limit in (huge := [dict(h) for h in resources.get("hugepageLimits", ())]):
        limit["pageSize"] = _page_size(limit["pageSize"])
    if huge:
        resources["hugepageLimits"] = huge
    optional = (
        ("uidMappings", [mapping_json(m) for m in settings.uid_mappings or ()]),
        ("gidMappings", [mapping_json(m) for m in settings.gid_mappings or ()]),
        ("sysctl", dict(sorted((settings.sysctl or {}).items()))),
    )
    linux: Json = {key: value for key, value in optional if value}
    linux["resources"] = _lists(resources)
    if settings.cgroups_path:
        linux["cgroupsPath"] = settings.cgroups_path
    linux["namespaces"] = _namespaces(settings)
    last = (
        ("devices", devices),
        ("rootfsPropagation", settings.rootfs_propagation),
        ("maskedPaths", list(settings.masked_paths or ())),
        ("readonlyPaths", list(settings.readonly_paths or ())),
    )
    return linux | {key: value for key, value in last if value}


def _seccomp(
    container: Container, settings: ImageSettings, capabilities: Collection[str], architecture: str,
    profiles: Mapping[str, Json] | None, faults: Faults,
) -> Json:  # fmt: skip
    """Empty: no filter."""
    wanted = settings.seccomp or SECCOMP_UNCONFINED
    if wanted == SECCOMP_UNCONFINED:
        return {}
    if wanted == SECCOMP_DEFAULT:
        return default_profile(architecture, capabilities)
    if container.settings.seccomp != wanted:
        faults.add(f"'{wanted}' is no profile that a label can name", "seccomp", hint="default, or unconfined")
    elif profiles is not None:
        if wanted in profiles:
            return profiles[wanted]
        faults.add(f"there is no file '{wanted}'", "seccomp", hint="default, unconfined, or a file's name")
    return {}


def _lists(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _lists(v) for key, v in value.items()}
    return [_lists(v) for v in value] if isinstance(value, tuple | list) else value


def _page_size(size: int | str) -> str:
    """As the kernel names huge pages: bytes become 64KB, 2MB or 1GB."""
    if isinstance(size, str):
        return size
    for unit, bits in (("GB", 30), ("MB", 20), ("KB", 10)):
        if size % (1 << bits) == 0:
            return f"{size >> bits}{unit}"
    return str(size)


def _namespaces(settings: ImageSettings) -> list[Json]:
    """Order of LinuxKit. `root` and `host` mean the machine's own; only the process namespace is new by default."""
    found: list[Json] = []
    for type_, value in (("network", settings.net), ("ipc", settings.ipc), ("uts", settings.uts),
                         ("pid", settings.pid or "new"), ("user", settings.userns)):  # fmt: skip
        if value in (None, "", "root", "host"):
            continue
        if value == "new" or (value == "none" and type_ == "network"):
            found.append({"type": type_})
        else:
            found.append({"type": type_, "path": value})
    return [*found, {"type": "mount"}]


def _devices(settings: ImageSettings, faults: Faults) -> tuple[list[Json], list[Json]]:
    """(nodes, cgroup rules)."""
    nodes: list[Json] = []
    rules: list[Json] = []
    for n, device in enumerate(settings.devices or ()):
        if device.type not in _DEVICE_TYPES and (device.type or device.path != "all"):
            faults.add(f"'{device.type}' is not a type of device", "devices", n, "one of a, b, c, p, u")
        if device.path == "all":
            kind = {"type": device.type} if device.type else {}
            rules.append({"allow": True, **kind, "access": "rwm"})
            continue
        if not re.fullmatch("0*[0-7]{1,4}", device.mode):
            faults.add(f"'{device.mode}' is not an octal mode", "devices", n, 'write it in quotes: mode: "0666"')
            continue
        numbers = {"major": device.major, "minor": device.minor}
        nodes.append({"path": device.path, "type": device.type, **numbers, "fileMode": int(device.mode, 8)})
        rules.append({"allow": True, "type": device.type, **numbers, "access": "rwm"})
    return nodes, rules
