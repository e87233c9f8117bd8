"""From what the user asked for to a Guest: what a hypervisor takes of the files that are there, and what is to be made.

Nothing is written here. What has to be made first, disks in another form or a kernel unpacked, is a list of tasks.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from linuxkit.encode.config_iso import write_config
from linuxkit.errors import InputError
from linuxkit.hypervisors import convert
from linuxkit.hypervisors.drives import Takes, Task, boot_drive, build_hint, more_drives, unpacked_kernel
from linuxkit.hypervisors.guest import Guest
from linuxkit.places.place import Job, Setting
from linuxkit.platforms import accel, bootfiles, disks, memory, ports
from linuxkit.platforms.bootimage import Media
from linuxkit.platforms.qemu import parse_ports

#: Longest path of a state folder in which sockets have room (sockaddr_un has 104 bytes on macOS).
MAX_STATE = 70

SETTINGS = (
    Setting("cpus", "Processors of the machine.", default=1, kind=int),
    Setting("mem", "Memory, N[M|G], in MB; by default what the image needs.", metavar="N[M|G]"),
    Setting("disk", "PATH or file=PATH,size=N[M|G],format=FMT; made when it is not there. Repeatable.", many=True,
            metavar="DISK"),
    Setting("trust-disk", "Take disks that lead to other files of this machine: a backing file, a parent, extents.",
            default=False, kind=bool),
    Setting("name", "The machine's name; by default the image's."),
    Setting("state", "Folder for logs and disks; by default NAME-state, beside the image.", metavar="DIR"),
    Setting("stop-timeout", "Seconds that the guest may take to shut down when asked.", default=15, kind=int),
)  # fmt: skip
PUBLISH = Setting("publish", "Forward a port, or a range: [ADDR:]HOST:GUEST[/udp]. Repeatable.",
                  many=True, metavar="PORTS")  # fmt: skip
KERNEL = Setting("kernel", "Boot NAME-kernel with NAME-initrd.img.", default=False, kind=bool)
SQUASHFS = Setting("squashfs", "Boot NAME-kernel, its root NAME-squashfs.img.", default=False, kind=bool)
EROFS = Setting("erofs", "Boot NAME-kernel, its root NAME-erofs.img.", default=False, kind=bool)
ISO = Setting("iso", "Boot NAME.iso.", default=False, kind=bool)


@dataclass(frozen=True, slots=True)
class Ready:
    """A machine, what has to be made for it first, and what the user should know."""

    guest: Guest
    tasks: tuple[Task, ...]
    notes: tuple[str, ...]


def kind_of(job: Job) -> bootfiles.Kind | None:
    """Which of a prefix's files the user chose.

    Raises:
        InputError: several.
    """
    chosen = [kind for kind in bootfiles.Kind if job.settings.get(kind.value)]
    if len(chosen) > 1:
        raise InputError(f"--{chosen[0]} and --{chosen[1]} cannot be used together", hint="give one of them")
    return chosen[0] if chosen else None


def prepare(job: Job, target: str, takes: Takes, what: str) -> Ready:
    """Look at what is there, and refuse what can't work.

    Args:
        what: the hypervisor, in words.

    Raises:
        InputError: there is nothing to boot, or nothing that this hypervisor takes.
    """
    trust = bool(job.settings.get("trust_disk"))
    files = _find(target, takes, kind_of(job), what, trust=trust)
    wanted = [disks.parse_disk(text) for text in job["disk"]]
    published = [port for text in job.settings.get("publish", ()) for port in parse_ports(text)]
    size = _memory(job["mem"])
    prefix = Path(target.removesuffix(".iso"))
    state = Path(job["state"] or f"{prefix}-state").absolute()
    host = accel.this_host()
    arch = files.arch or host.arch
    if arch != host.arch and not takes.foreign:
        raise InputError(f"{files.main} is for {arch}, and this machine is {host.arch}",
                         hint=f"linuxkit run qemu {target}")  # fmt: skip
    tasks: list[Task] = []
    kernel = files.kernel.absolute() if files.kernel is not None else None
    if kernel is not None and (takes.kernel == "unpacked" or (takes.kernel == "image" and arch == "aarch64")):
        kernel = unpacked_kernel(kernel, state, tasks)
    first = (boot_drive(files, takes, state, tasks, what),) if files.disk is not None else ()
    more = more_drives(wanted, takes, state, tasks, what, trust=trust)
    data = state / "data.iso" if job.data is not None else None
    if data is not None:
        content = job.data or b""
        write = write_config if takes.cds else convert.data_disk
        tasks.append(Task(f"{data}: user data", lambda: write(data, content)))
    if files.disk is not None and files.kernel is None and files.format != "raw":
        given = memory.memory_for_disk(files.disk, size)
    else:
        given = memory.memory_for(files.initrd or files.packed, files.cmdline, size)
    name = job["name"] or (prefix.stem if Path(target).is_file() else prefix.name)
    guest = Guest(
        name=name, state=state, arch=arch, cpus=_cpus(job["cpus"]), memory=given.mib,
        kernel=kernel, initrd=files.initrd.absolute() if files.initrd is not None else None, cmdline=files.cmdline,
        drives=(*first, *more), data=data, ports=ports.claim(published),
        uefi=takes.uefi == "always" or files.uefi or (arch == "aarch64" and kernel is None),
    )  # fmt: skip
    notes = [f"memory: {given.mib} MB ({given.why})"]
    if files.others:
        notes.insert(0, f"booting: {files.main}; also there: {', '.join(files.others)}")
    if kernel is not None and arch == "x86_64" and takes.kernel != "image" and "console=ttyS" not in files.cmdline:
        notes.append("note: the kernel command line has no console=ttyS0, so the console stays empty")
    notes += [
        f"published: {p.address or '127.0.0.1'}:{p.host} -> port {p.guest}/{p.protocol} of the machine"
        for p in guest.ports
    ]
    return Ready(guest, tuple(tasks), tuple(notes))


def with_sockets(guest: Guest) -> Guest:
    """The guest with a folder of its own for sockets, where they have no room in the state folder."""
    if len(os.fsencode(guest.state)) <= MAX_STATE:
        return guest
    return replace(guest, sockets=Path(tempfile.mkdtemp(prefix="linuxkit-")))


def _find(
    target: str, takes: Takes, kind: bootfiles.Kind | None, what: str, *, trust: bool
) -> bootfiles.BootFiles:
    """What is booted: a kernel where it takes one, else the first image that it takes."""
    if not takes.kernel and not Path(target).is_file():
        there = [Path(f"{target}{end}") for end in takes.images if Path(f"{target}{end}").is_file()]
        if kind is bootfiles.Kind.ISO:
            there = [path for path in there if path.suffix == ".iso"]
        if not there:
            looked = ", ".join(f"{target}{end}" for end in takes.images)
            raise InputError(f"there is nothing at {target!r} that {what} boots: looked for {looked}",
                             hint=build_hint(takes))  # fmt: skip
        return replace(bootfiles.find(str(there[0]), trust=trust), others=tuple(str(path) for path in there[1:]))
    files = bootfiles.find(target, kind, trust=trust)
    if files.kernel is not None and (not takes.kernel or files.uefi):
        raise InputError(f"{what} cannot start {files.kernel} by itself", hint=build_hint(takes))
    if files.kernel is None and not takes.images:
        raise InputError(f"{what} starts kernels, and {files.main} is an image",
                         hint="linuxkit build --format kernel+initrd FILE.yml")  # fmt: skip
    if files.media is Media.CD and files.disk is not None and not takes.cds:
        files = replace(files, media=Media.DISK, cmdline=files.cmdline.replace("root=/dev/sr0", "root=/dev/vda"))
    return files


def _cpus(count: int) -> int:
    if not 1 <= count <= 255:
        raise InputError(f"--cpus {count}: a machine has 1 to 255 processors")
    return count


def _memory(text: str) -> int | None:
    if not text:
        return None
    try:
        return disks.parse_size(text, "M") // disks.MIB
    except ValueError:
        raise InputError(f"--mem {text!r} is not a size", hint="use 1024, 512M or 2G") from None
