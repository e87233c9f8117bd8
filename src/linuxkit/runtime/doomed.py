"""Settings with which no runtime starts a container, told from its config.json. Pure.

runc's and crun's own rules: what they refuse, or what the kernel refuses them. In doubt nothing is said.
"""

from __future__ import annotations

import re
from typing import Any

from linuxkit.config.model import Container, Json
from linuxkit.errors import Problem
from linuxkit.runtime.bootplan import mount_flags
from linuxkit.runtime.faults import Faults

#: fs.nr_open of every kernel, unless somebody sets it
MOST_FILES = 1 << 20
_NAMESPACES = {"network": "net", "ipc": "ipc", "uts": "uts", "pid": "pid", "user": "userns"}
_NEW = {"network": "new, or root for the machine's own", "pid": "new, or host for the machine's own"}
_IPC = frozenset((
    "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax", "kernel.shmmni",
    "kernel.shm_rmid_forced",
))  # fmt: skip
_PROPAGATION = frozenset((
    "private", "rprivate", "shared", "rshared", "slave", "rslave", "unbindable", "runbindable",
))  # fmt: skip
_SIZE = re.compile(r"[0-9]{1,18}(?:[kKmMgGtTpPeE]|%)?")
_NUMBER = re.compile(r"[0-9]{1,18}[kKmMgG]?")
#: tmpfs(5): option → what its value looks like; None: it has none
_TMPFS: dict[str, re.Pattern[str] | None] = {
    "size": _SIZE, "nr_blocks": _NUMBER, "nr_inodes": _NUMBER, "mode": re.compile("[0-7]{1,5}"),
    "uid": re.compile("[0-9]{1,10}"), "gid": re.compile("[0-9]{1,10}"), "mpol": re.compile(".+"),
    "huge": re.compile("never|always|within_size|advise|deny|force"), "inode32": None, "inode64": None, "noswap": None,
    "quota": None, "usrquota": None, "grpquota": None, "usrquota_block_hardlimit": _NUMBER,
    "usrquota_inode_hardlimit": _NUMBER, "grpquota_block_hardlimit": _NUMBER, "grpquota_inode_hardlimit": _NUMBER,
    "casefold": None, "strict_encoding": None,
}  # fmt: skip
#: what runtimes take for themselves, and labels of SELinux
_OWN_OPTIONS = frozenset((
    "tmpcopyup", "copy-symlink", "idmap", "ridmap", "rro", "rrw", "silent", "loud", "iversion", "noiversion",
    "lazytime", "nolazytime", "acl", "noacl", "nosymfollow", "symfollow",
))  # fmt: skip
_LABELS = ("context", "fscontext", "defcontext", "rootcontext", "idmap", "ridmap")


def doomed(container: Container, spec: Json) -> list[Problem]:
    """What keeps a container from starting, each with its place in the YAML.

    Args:
        container: as the YAML has it.
        spec: its config.json.
    """
    faults = Faults(container)
    process, linux = spec["process"], spec["linux"]
    owned = {one["type"]: one.get("path", "") for one in linux.get("namespaces", ())}
    args = process.get("args") or []
    if not args or not args[0]:
        faults.add("there is nothing to run: neither the image nor the YAML has a command", "command",
                   hint='write command: ["/path/of/a/program"]')  # fmt: skip
    if not str(process.get("cwd", "/")).startswith("/"):
        faults.add(f"the working directory '{process['cwd']}' is not absolute", "cwd", hint="begin it with '/'")
    _namespaces(owned, faults)
    if spec.get("hostname") and "uts" not in owned:
        faults.add("a host name of its own needs a uts namespace of its own", "hostname", hint="add uts: new")
    for key in linux.get("sysctl") or {}:
        _sysctl(key, owned, faults)
    for n, limit in enumerate(process.get("rlimits") or ()):
        _limit(limit, n, faults)
    for key in ("uidMappings", "gidMappings"):
        if linux.get(key) and "user" not in owned:
            faults.add("ids can be mapped in a user namespace only", key, hint="add userns: new")
    propagation = linux.get("rootfsPropagation")
    if propagation and propagation not in _PROPAGATION:
        faults.add(f"'{propagation}' is no propagation", "rootfsPropagation", hint="shared, slave, private, unbindable")
    _tmpfs(container, spec, faults)
    return faults.found


def _namespaces(owned: dict[str, str], faults: Faults) -> None:
    for kind, path in owned.items():
        if path and not path.startswith("/") and kind in _NAMESPACES:
            hint = _NEW.get(kind, "new, or root for the machine's own") + "; or the absolute path of one"
            faults.add(f"'{path}' is no {kind} namespace", _NAMESPACES[kind], hint=hint)


def _sysctl(name: str, owned: dict[str, str], faults: Faults) -> None:
    key = name.replace("/", ".") if "/" in name else name
    if key.startswith("net."):
        needs, say = "network", "net: new"
    elif key.startswith("fs.mqueue.") or key in _IPC:
        needs, say = "ipc", "ipc: new"
    elif key == "kernel.domainname":
        needs, say = "uts", "uts: new"
    elif key.startswith("user."):
        return
    elif key == "kernel.hostname":
        faults.add("no runtime sets the host name by a sysctl", "sysctl", hint="hostname: NAME and uts: new")
        return
    else:
        faults.add(f"'{name}' belongs to the whole machine and not to a container", "sysctl",
                   hint="set it with kit://sysctl and a file in /etc/sysctl.d")  # fmt: skip
        return
    if needs not in owned:
        faults.add(f"'{name}' belongs to the {needs} namespace, and this container has the machine's", "sysctl",
                   hint=f"add {say}, or set it with kit://sysctl")  # fmt: skip


def _limit(limit: Json, n: int, faults: Faults) -> None:
    if limit["soft"] > limit["hard"]:
        faults.add(f"the soft limit {limit['soft']} is above the hard one, {limit['hard']}", "rlimits", n)
    elif limit["type"] == "RLIMIT_NOFILE" and limit["hard"] > MOST_FILES:
        faults.add(f"a kernel opens {MOST_FILES} files at most", "rlimits", n, f"nofile,{MOST_FILES},{MOST_FILES}")


def _tmpfs(container: Container, spec: Json, faults: Faults) -> None:
    texts = [*(container.settings.tmpfs or ())]
    places = [text.partition(":")[0] for text in texts]
    mounts = [mount.destination for mount in container.settings.mounts or ()]
    for mount in spec.get("mounts", ()):
        if mount.get("type") != "tmpfs":
            continue
        wrong = bad_tmpfs_option(mount.get("options") or ())
        if not wrong:
            continue
        at: tuple[str, int | None] = ("tmpfs", None)
        if mount["destination"] in mounts:
            at = ("mounts", mounts.index(mount["destination"]))
        elif mount["destination"] in places:
            at = ("tmpfs", places.index(mount["destination"]))
        faults.add(f"the kernel's tmpfs has no option '{wrong}'", *at, hint="such as size=10m, mode=1777, noexec")


def bad_tmpfs_option(options: Any) -> str:
    """The first option that the kernel refuses for a tmpfs; empty: none."""
    for option in mount_flags([o for o in options if o not in _OWN_OPTIONS])[1].split(","):
        name, equals, value = option.partition("=")
        if not option or name in _LABELS:
            continue
        if name not in _TMPFS:
            return option
        pattern = _TMPFS[name]
        if bool(equals) != (pattern is not None) or (pattern is not None and not pattern.fullmatch(value)):
            return option
    return ""
