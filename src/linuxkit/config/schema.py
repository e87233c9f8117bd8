"""Every key of the YAML, once: its type, its meaning, and where it goes in the model.

config/parse.py, the JSON Schema (`linuxkit schema`) and docs/yaml.md are made from this table; so is the order of keys
that config/render.py writes.
"""

from __future__ import annotations

from linuxkit.config import model
from linuxkit.config.types import AnyOf, Bool, Field, Int, ListOf, MapOf, Object, Str

STR, STRS, BOOL, INT = Str(), ListOf(Str()), Bool(), Int()
UNSIGNED = Int(0, 2**63 - 1)
U32, U16 = Int(0, 2**32 - 1), Int(0, 2**16 - 1)
ID = AnyOf((Int(0, 2**32 - 1), Str()))
IMAGE = Str(image=True)
PLATFORM = Str(pattern="[a-z0-9_]+/[a-z0-9_]+(?:/[a-z0-9_.]+)?", form="os/arch or os/arch/variant")
TEXTS = MapOf(STR)

# fmt: off
ID_MAPPING = Object("idmapping", (
    Field("hostID", "host_id", U32, "First id outside the container.", "0"),
    Field("containerID", "container_id", U32, "First id inside.", "0"),
    Field("size", "size", U32, "How many ids.", "0"),
), model.IdMapping, "A range of ids in a user namespace.")

MOUNT = Object("mount", (
    Field("destination", "destination", STR, "Where in the container. May be left out for proc, sysfs, devpts, cgroup "
          "and mqueue, which have a usual place.", example="/data"),
    Field("type", "type", STR, "Filesystem type; may be left out when `source` says it.", example="tmpfs"),
    Field("source", "source", STR, "Device, directory, or the name of a volume (with `type: bind`).", "the type"),
    Field("options", "options", STRS, "Mount options.", "none", example='["nosuid", "size=10m"]'),
    Field("uidmappings", "uid_mappings", ListOf(ID_MAPPING), "User ids of an id-mapped mount."),
    Field("gidmappings", "gid_mappings", ListOf(ID_MAPPING), "Group ids of an id-mapped mount."),
), model.Mount, "A mount, as in the OCI runtime specification.")

DEVICE = Object("device", (
    Field("path", "path", STR, "Node to make, or `all`: allow every device of the type and make none.",
          example="/dev/console", always=True),
    Field("type", "type", STR, "`c` character, `b` block, `a` all, `p` FIFO, `u` unbuffered character.", example="c",
          always=True),
    Field("major", "major", INT, "Major number.", "0", always=True),
    Field("minor", "minor", INT, "Minor number.", "0", always=True),
    Field("mode", "mode", STR, "Permissions in octal, in quotes. Needed unless `path` is `all`.", example='"0666"'),
), model.Device, "A device node and the permission to use it.")

INTERFACE = Object("interface", (
    Field("name", "name", STR, "Interface to move into the container's network namespace.", example="wg0"),
    Field("add", "add", STR, "Make it first, of this type: `veth`, `wireguard`, `dummy`, …", example="wireguard"),
    Field("peer", "peer", STR, "Name of the other end of a veth pair."),
    Field("createInRoot", "create_in_root", BOOL, "Make it in the root namespace and move it.", "false",
          always=True),
), model.Interface, "A network interface given to a container.")

BIND_NS = Object("bindNS", tuple(
    Field(name, name, STR, f"Path to keep the container's {what} namespace at.") for name, what in (
        ("cgroup", "cgroup"), ("ipc", "IPC"), ("mnt", "mount"), ("net", "network"), ("pid", "process id"),
        ("user", "user"), ("uts", "host name"))
), dict, "Paths to bind the namespaces of a running container to, so that others can enter them.")

RUNTIME = Object("runtime", (
    Field("cgroups", "cgroups", STRS, "Control groups to make before it starts.", "none"),
    Field("mounts", "mounts", ListOf(MOUNT), "Mounts made in the root namespace before it starts.", "none"),
    Field("mkdir", "mkdir", STRS, "Directories to make in the root filesystem before it starts.", "none",
          example='["/var/lib/data"]'),
    Field("interfaces", "interfaces", ListOf(INTERFACE), "Network interfaces to make or move.", "none"),
    Field("bindNS", "bind_ns", BIND_NS, "Where to keep its namespaces.", "nowhere"),
    Field("namespace", "namespace", STR, "containerd namespace that the service runs in.", "services.linuxkit"),
), model.Runtime, "What the guest prepares around a container. Each key by itself overrides the image's label.")

#: `pageSize` of hugepageLimits is an integer (bytes) in LinuxKit's schema and text (2MB) in the OCI specification
_BLKIO_RATE = Object("throttleDevice", (
    Field("major", "major", INT, "Major number.", "0", always=True),
    Field("minor", "minor", INT, "Minor number.", "0", always=True),
    Field("rate", "rate", UNSIGNED, "Bytes or operations a second.", "0", always=True)))
_BLKIO_WEIGHT = Object("weightDevice", (
    Field("major", "major", INT, "Major number.", "0", always=True),
    Field("minor", "minor", INT, "Minor number.", "0", always=True),
    Field("weight", "weight", U16, "10 to 1000."), Field("leafWeight", "leafWeight", U16, "10 to 1000.")))

RESOURCES = Object("resources", (
    Field("devices", "devices", ListOf(Object("resources.devices", (
        Field("allow", "allow", BOOL, "Allow, or deny.", "false", always=True),
        Field("type", "type", STR, "`a`, `c` or `b`.", "a"),
        Field("major", "major", INT, "Major number.", "any"),
        Field("minor", "minor", INT, "Minor number.", "any"),
        Field("access", "access", STR, "Of `r`, `w` and `m` (mknod).", example="rwm")))),
        "Device rules, before those of `devices`."),
    Field("memory", "memory", Object("resources.memory", (
        Field("limit", "limit", INT, "Bytes."),
        Field("reservation", "reservation", INT, "Soft limit, bytes."),
        Field("swap", "swap", INT, "Memory and swap together, bytes."),
        Field("kernel", "kernel", INT, "Kernel memory, bytes."),
        Field("kernelTCP", "kernelTCP", INT, "TCP buffers, bytes."),
        Field("swappiness", "swappiness", UNSIGNED, "0 to 100."),
        Field("disableOOMKiller", "disableOOMKiller", BOOL, "Wait instead of killing.", "false"))), "Memory."),
    Field("cpu", "cpu", Object("resources.cpu", (
        Field("shares", "shares", UNSIGNED, "Weight against others."),
        Field("quota", "quota", INT, "Microseconds in each period."),
        Field("period", "period", UNSIGNED, "Microseconds."),
        Field("realtimeRuntime", "realtimeRuntime", INT, "Microseconds in each real-time period."),
        Field("realtimePeriod", "realtimePeriod", UNSIGNED, "Microseconds."),
        Field("cpus", "cpus", STR, "CPUs to use.", example='"0-1"'),
        Field("mems", "mems", STR, "Memory nodes to use.", example='"0"'))), "Processor time."),
    Field("pids", "pids", Object("resources.pids", (
        Field("limit", "limit", INT, "Most processes."),)), "Processes."),
    Field("blockio", "blockIO", Object("resources.blockio", (
        Field("weight", "weight", U16, "10 to 1000."),
        Field("leafWeight", "leafWeight", U16, "10 to 1000."),
        Field("weightDevice", "weightDevice", ListOf(_BLKIO_WEIGHT), "Weights of single devices."),
        Field("throttleReadBpsDevice", "throttleReadBpsDevice", ListOf(_BLKIO_RATE), "Bytes read a second."),
        Field("throttleWriteBpsDevice", "throttleWriteBpsDevice", ListOf(_BLKIO_RATE), "Bytes written a second."),
        Field("throttleReadIOPSDevice", "throttleReadIOPSDevice", ListOf(_BLKIO_RATE), "Reads a second."),
        Field("throttleWriteIOPSDevice", "throttleWriteIOPSDevice", ListOf(_BLKIO_RATE), "Writes a second."))),
        "Block devices."),
    Field("hugepageLimits", "hugepageLimits", ListOf(Object("resources.hugepageLimits", (
        Field("pageSize", "pageSize", AnyOf((Int(1), Str())), "Page size: bytes, or text such as `2MB`.",
              required=True),
        Field("limit", "limit", UNSIGNED, "Bytes.", "0", always=True)))), "Huge pages."),
    Field("network", "network", Object("resources.network", (
        Field("classID", "classID", U32, "Class id of its packets."),
        Field("priorities", "priorities", ListOf(Object("resources.network.priorities", (
            Field("name", "name", STR, "Interface.", required=True),
            Field("priority", "priority", U32, "Priority.", "0", always=True)))),
            "Priorities of its packets."))), "Packets."),
), doc="Limits, as `linux.resources` of the OCI runtime specification.")

SECURITY = Str(choices=tuple(model.Security), enum=model.Security)

_CAPS = "`CAP_NAME`s, or exactly `all` or `none`"
#: what an onboot, onshutdown or services entry and an image's label have in common
SETTINGS = Object("settings", (
    Field("capabilities", "capabilities", STRS, f"Capabilities of the process: {_CAPS}.", "none at all",
          example='["CAP_NET_ADMIN"]'),
    Field("capabilities.add", "capabilities_add", STRS, "Added to those of the image's label. Without effect next to "
          "`capabilities`, and in a label."),
    Field("ambient", "ambient", STRS, f"Ambient capabilities, for processes that are not root: {_CAPS}.", "none"),
    Field("mounts", "mounts", ListOf(MOUNT), "Mounts; each replaces a default one with the same destination."),
    Field("binds", "binds", STRS, "Bind mounts, `source:destination[:options]`; a source without a leading `/` is the "
          "name of a volume. Options are `rw,rbind,rshared` unless given.", example='["/var/log:/var/log"]'),
    Field("binds.add", "binds_add", STRS, "Added to those of the image's label. Without effect next to `binds`, and in "
          "a label."),
    Field("devices", "devices", ListOf(DEVICE), "Device nodes.", "the runtime's usual ones"),
    Field("tmpfs", "tmpfs", STRS, "Temporary filesystems, `destination[:options]`.", example='["/tmp:size=10m"]'),
    Field("command", "command", STRS, "What runs, in place of the image's entry point and command.",
          "the image's", example='["/usr/bin/app", "--port", "80"]'),
    Field("env", "env", STRS, "Environment, `NAME=value`, in place of the image's.", "the image's"),
    Field("cwd", "cwd", STR, "Working directory.", "the image's, or `/`"),
    Field("net", "net", STR, "Network namespace: `root` (or `host`), `new` (or `none`), or the path of one.", "root"),
    Field("pid", "pid", STR, "Process namespace: `new`, `host` (or `root`), or a path.", "new"),
    Field("ipc", "ipc", STR, "IPC namespace: `root` (or `host`), `new`, or a path.", "root"),
    Field("uts", "uts", STR, "Host name namespace: `root` (or `host`), `new`, or a path.", "root"),
    Field("userns", "userns", STR, "User namespace: `root` (or `host`), `new`, or a path.", "root"),
    Field("hostname", "hostname", STR, "Host name; needs `uts: new`."),
    Field("readonly", "readonly", BOOL, "Mount its root filesystem read-only.", "false"),
    Field("maskedPaths", "masked_paths", STRS, "Paths hidden from it.", "those of engines; see `security`"),
    Field("readonlyPaths", "readonly_paths", STRS, "Paths made read-only in it.", "those of engines; see `security`"),
    Field("uid", "uid", ID, "User: a number, or the name of an entry of this file, which stands for a number of its "
          "own (from 100 up).", "0"),
    Field("gid", "gid", ID, "Group, likewise.", "0"),
    Field("additionalGids", "additional_gids", ListOf(ID), "Further groups, likewise.", "none"),
    Field("noNewPrivileges", "no_new_privileges", BOOL, "No gain of privilege by exec.", "true; see `security`"),
    Field("security", "security", SECURITY, "`default`: kernel settings are read-only, tell-tale paths hidden, system "
          "calls filtered, no privilege gained by exec; each by itself can be set otherwise. `linuxkit`: nothing but "
          "what is asked for, as in LinuxKit. Not in LinuxKit.",
          "that of the whole; `linuxkit` with `CAP_SYS_ADMIN`"),
    Field("seccomp", "seccomp", Str(nonempty=True), "System calls that it may make: `default`, `unconfined`, or a file "
          "with `linux.seccomp` of the OCI runtime specification; a label names no file. Not in LinuxKit.",
          "`default`; see `security`"),
    Field("oomScoreAdj", "oom_score_adj", Int(-1000, 1000), "Which process the kernel kills first: -1000 to 1000."),
    Field("rootfsPropagation", "rootfs_propagation", STR, "Mount propagation of its root filesystem.",
          example="shared"),
    Field("cgroupsPath", "cgroups_path", STR, "Control group."),
    Field("resources", "resources", RESOURCES, "Limits."),
    Field("sysctl", "sysctl", TEXTS, "Kernel settings of its namespaces; values are text.",
          example='{net.ipv4.ip_forward: "1"}'),
    Field("rlimits", "rlimits", STRS, "`name,soft,hard`; a number or `unlimited`.", example='["nofile,1024,4096"]'),
    Field("uidMappings", "uid_mappings", ListOf(ID_MAPPING), "User ids in a new user namespace."),
    Field("gidMappings", "gid_mappings", ListOf(ID_MAPPING), "Group ids in a new user namespace."),
    Field("annotations", "annotations", TEXTS, "Annotations for the runtime."),
    Field("runtime", "runtime", RUNTIME, "What the guest prepares around it."),
), model.ImageSettings, "Settings of a container. The image's label `org.mobyproject.config` may carry them as "
   "well; what stands here wins.")

RESTART = Field("restart", "restart", Str(choices=tuple(model.Restart), enum=model.Restart),
                "When its process ends: start it again or not. Services only; not in LinuxKit.", "no")
ONFAIL = Field("onfail", "onfail", Str(choices=tuple(model.OnFail), enum=model.OnFail),
               "When it ends with another status than 0: go on, or stop the boot. onboot only; not in LinuxKit.",
               "continue")
TIME = Str(pattern="(?:[0-9]{1,12}(?:[.][0-9]{1,9})?(?:us|ms|s|m|h)){1,5}", form="a time such as 30s, 500ms or 1m30s")
_PORT = "(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
TIMEOUT = Field("timeout", "timeout", TIME, "How long it may take; then it is ended, and the shutdown goes on. "
                "onshutdown only; not in LinuxKit.", "90s")
HEALTHCHECK = Object("healthcheck", (
    Field("test", "test", AnyOf((STR, ListOf(STR))), "A command in the container; it works when that ends with 0. "
          "`[CMD, program, argument, …]`, `[CMD-SHELL, command]` or a string for /bin/sh, `[NONE]` for none.",
          "the image's", example='["CMD", "/bin/check", "--fast"]'),
    Field("http", "http", Str(pattern=_PORT + "(?:/[!-~]*)?", form="PORT or PORT/PATH"), "For images without a shell: "
          "GET this port and path on the container's loopback; it works when the answer's status is below 400.",
          example="8080/health"),
    Field("tcp", "tcp", Int(1, 65535), "For images without a shell: connect to this port.", example="5432"),
    Field("interval", "interval", TIME, "Time between two checks. Until the first that succeeds they come every "
          "second, if that is sooner.", "30s"),
    Field("timeout", "timeout", TIME, "How long a check may take.", "30s"),
    Field("retries", "retries", Int(1, 1000), "So many failures in a row make it unhealthy.", "3"),
    Field("start_period", "start_period", TIME, "Failures count only after this time.", "0s"),
    Field("disable", "disable", BOOL, "Do without the image's check.", "false"),
), model.Healthcheck, "How to find out whether a service works, in Compose's words. What is not given comes from the "
   "image's own health check, if it has one. The boot report and `service status` say what came of it; `run --once` "
   "waits for it.")
HEALTH = Field("healthcheck", "healthcheck", HEALTHCHECK, "How to find out whether it works. Services only; not in "
               "LinuxKit.", "the image's")


def _entry(name: str, doc: str, *more: Field) -> Object:
    return Object(name, (
        Field("name", "name", Str(nonempty=True), "Its name.", required=True, example="web"),
        Field("image", "image", Str(image=True, nonempty=True), "The image.", required=True, example="nginx:1.27"),
        *SETTINGS.fields, *more,
    ), doc=doc)


ONBOOT = _entry("onboot", "Runs once, in order, before the services.", ONFAIL)
ONSHUTDOWN = _entry("onshutdown", "Runs once, in order, at a clean shutdown.", TIMEOUT)
SERVICE = _entry("services", "Runs for as long as the machine does. Names are unique.", RESTART, HEALTH)

KERNEL = Object("kernel", (
    Field("image", "image", IMAGE, "Image that holds the kernel; empty: none.", "none", example="kit://kernel"),
    Field("cmdline", "cmdline", STR, "Kernel command line.", "empty", example='"console=ttyS0"'),
    Field("binary", "binary", STR, "Name of the kernel file in the image.", "kernel"),
    Field("tar", "tar", STR, "Name of the tar of modules in the image; empty or `none`: no modules.", "kernel.tar"),
    Field("ucode", "ucode", STR, "Name of a cpio of CPU microcode in the image, put in front of the initrd.", "none"),
), model.Kernel, "The kernel.")

VOLUME = Object("volumes", (
    Field("name", "name", Str(pattern="[a-z0-9_-]+", form="of a-z, 0-9, _ and - only"),
          "Its name: `a-z`, `0-9`, `_` and `-`; unique.", example="data"),
    Field("image", "image", IMAGE, "Image that it is filled with.", "none: it starts empty"),
    Field("readonly", "readonly", BOOL, "Refuse to give it to a container writable.", "false"),
    Field("format", "format", Str(choices=tuple(model.VolumeFormat), enum=model.VolumeFormat),
          "`filesystem`: the image's files. `oci`: the image itself, as an OCI layout.", "filesystem"),
    Field("platforms", "platforms", ListOf(PLATFORM), "Platforms to keep, `os/arch[/variant]`; for `format: oci`.",
          "all of the image", example='["linux/arm64"]'),
), model.Volume, "A directory that containers share, at `/containers/volumes/NAME`. Use it by its name in `binds`.")

FILE = Object("files", (
    Field("path", "path", Str(nonempty=True), "Where in the image; a leading `/` changes nothing.", required=True,
          example="etc/motd"),
    Field("directory", "directory", BOOL, "Make a directory.", "false", always=True),
    Field("symlink", "symlink", STR, "Make a symbolic link to this.", example="/proc/mounts"),
    Field("contents", "contents", Str(binary=True), "The content.", example='"hello\\n"'),
    Field("source", "source", STR, "A file of this machine, relative to the YAML, then to the current directory; "
          "`~/` is home."),
    Field("metadata", "metadata", Str(choices=("yaml", "json")), "Put the merged configuration there, in this form."),
    Field("optional", "optional", BOOL, "With `source`: leave it out when there is no such file.", "false",
          always=True),
    Field("mode", "mode", Str(pattern="0*[0-7]{0,4}", form="an octal mode such as 0644"),
          "Permissions in octal, in quotes.", '"0600", for directories "0700"', example='"0644"'),
    Field("uid", "uid", ID, "Owner: a number, or the name of an entry of onboot, onshutdown or services.", "0"),
    Field("gid", "gid", ID, "Group, likewise.", "0"),
), model.File, "A file, directory or link written into the image. Exactly one of `contents`, `source`, `metadata`, "
   "`directory` and `symlink`. Missing parents are made with the same owner and mode, with `x` added to "
   "each class that may do anything.")

TRUST = Object("trust", (
    Field("image", "image", STRS, "Images, by name.", "none", example='["nginx", "registry.example/team/app"]'),
    Field("org", "org", STRS, "All images below these.", "none", example='["linuxkit", "registry.example/team"]'),
), model.Trust, "Images that have to be signed. The trust policy says by whom ([trust.md](trust.md)): with one, an "
   "image named here that it lets pass unsigned is refused; without one, a note says that it was used unverified.")

TOP = Object("", (
    Field("kernel", "kernel", KERNEL, "The kernel and its command line."),
    Field("init", "init", ListOf(Str(image=True, nonempty=True)), "Images unpacked straight into `/`, in order.",
          example='["kit://init", "kit://crun"]'),
    Field("onboot", "onboot", ListOf(ONBOOT), "Containers run once, in order, before the services."),
    Field("onshutdown", "onshutdown", ListOf(ONSHUTDOWN), "Containers run once, in order, at shutdown."),
    Field("services", "services", ListOf(SERVICE), "Containers that keep running."),
    Field("files", "files", ListOf(FILE), "Files written into the image."),
    Field("volumes", "volumes", ListOf(VOLUME), "Directories that containers share."),
    Field("trust", "trust", TRUST, "Images that have to be signed."),
    Field("security", "security", SECURITY, "What containers may touch unless they say otherwise: `default`, or "
          "`linuxkit` for exactly the config.json of LinuxKit. Of several files the last one that says it counts. Not "
          "in LinuxKit.", "`default` when the kernel or an init image is the kit's, else `linuxkit`"),
), doc="One YAML document. Every key may be left out; an unknown key is an error, and so is a key without a value.")
# fmt: on
