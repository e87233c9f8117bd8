"""What a hypervisor takes, and the disks and kernels that are there, or are to be made, in that form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from linuxkit.errors import InputError
from linuxkit.hypervisors import convert
from linuxkit.hypervisors.guest import Drive
from linuxkit.platforms import bootfiles, disks, otherfiles, vmlinux
from linuxkit.platforms.bootimage import SUFFIXES, Media


@dataclass(frozen=True, slots=True)
class Takes:
    """What a hypervisor runs.

    kernel   it starts kernels: "" no, "file" as they are, "unpacked" (`vmlinux`), "image": that for arm64 only.
    images   ends of the names of images that it starts, the first that is there first.
    formats  of disk files that it reads and writes as they are.
    wrap     what a raw disk is turned into: "" it stays, "vmdk", "vhdx".
    uefi     "": as the image needs; "always".
    foreign  it runs guests of other architectures than this machine's.
    """

    kernel: str = ""
    images: tuple[str, ...] = ()
    formats: tuple[str, ...] = ("raw",)
    wrap: str = ""
    uefi: str = ""
    cds: bool = True
    foreign: bool = False


@dataclass(frozen=True, slots=True)
class Task:
    """Something to make before the machine: what it is, in words, and how."""

    what: str
    work: Callable[[], object]


_FORMATS = {
    "-bios.img": "raw-bios", "-efi.img": "raw-efi", ".img": "raw", ".vmdk": "vmdk", ".vhdx": "vhdx", ".iso": "iso",
    ".qcow2": "qcow2-bios", "-efi.iso": "iso-efi", "-efi-initrd.iso": "iso-efi-initrd",
}  # fmt: skip


def build_hint(takes: Takes) -> str:
    """The command that builds something it takes."""
    known = [_FORMATS[end] for end in takes.images if end in _FORMATS]
    return f"linuxkit build --format {known[0] if known else 'kernel+initrd'} FILE.yml"


def _newer(source: Path, made: Path) -> bool:
    """Is what was made from a file gone, or older than it?"""
    return not made.is_file() or made.stat().st_mtime <= source.stat().st_mtime


def unpacked_kernel(kernel: Path, state: Path, tasks: list[Task]) -> Path:
    """The kernel inside a kernel's file, for hypervisors that don't unpack it."""
    if not vmlinux.payload(kernel).size:
        return kernel
    made = state / "vmlinux"
    if _newer(kernel, made):
        tasks.append(Task(f"{made}: {kernel} unpacked", lambda: vmlinux.extract(kernel, made)))
    return made


def boot_drive(files: bootfiles.BootFiles, takes: Takes, state: Path, tasks: list[Task], what: str) -> Drive:
    """What is booted, or a kernel's root, in the form that is taken.

    Raises:
        InputError: it can't be brought into one.
    """
    path = (files.disk or Path()).absolute()
    if files.media is Media.CD:
        return Drive(path, "raw", Media.CD, readonly=True)
    packed = files.format == "vmdk" and convert.is_stream(path)
    if packed and ("raw" in takes.formats or takes.wrap):
        raw = state / "boot.img"
        if _newer(path, raw):
            tasks.append(Task(f"{raw}: {path} unpacked, so that it can be written on",
                              lambda: convert.unpack_stream(path, raw)))  # fmt: skip
        return _wrapped(raw, state / "boot", takes, tasks, readonly=False, anew=_newer(path, raw))
    if files.format == "raw":
        return _wrapped(path, state / "boot", takes, tasks, readonly=files.readonly)
    if files.format not in takes.formats:
        raise InputError(f"{what} cannot boot {path}: it is {files.format}", hint=build_hint(takes))
    return Drive(path, files.format, readonly=files.readonly)


def _wrapped(raw: Path, base: Path, takes: Takes, tasks: list[Task], *, readonly: bool, anew: bool = False) -> Drive:
    """A raw disk in the form that is taken. `anew`: a task before makes the raw disk."""
    if not takes.wrap:
        return Drive(raw, "raw", readonly=readonly)
    made = base.with_name(f"{base.name}.{takes.wrap}")
    if takes.wrap == "vmdk":
        tasks.append(Task(f"{made}: {raw} as a VMDK", lambda: convert.wrap(raw, made)))
    elif anew or not raw.is_file() or _newer(raw, made):
        tasks.append(Task(f"{made}: a copy of {raw} as a VHDX", lambda: convert.to_vhdx(raw, made)))
    return Drive(made, takes.wrap, readonly=readonly)


def more_drives(
    wanted: Sequence[disks.Wanted], takes: Takes, state: Path, tasks: list[Task], what: str, *, trust: bool = False
) -> list[Drive]:
    """The further disks.

    Args:
        trust: one may lead to other files of this machine.

    Raises:
        InputError: one is in a form that isn't taken, is not there and has no size, or leads to other files.
    """
    found = []
    for number, disk in enumerate(wanted):
        own = takes.wrap or "raw"
        form = disk.format or (SUFFIXES.get(disk.path.suffix.lower(), "raw") if disk.path else own)
        path = (disk.path or state / f"disk{number or ''}.{'img' if form == 'raw' else form}").absolute()
        if form not in takes.formats and form != own and not (form == "raw" and takes.wrap == "vmdk"):
            raise InputError(f"--disk {path}: {what} takes no {form} disks", hint=f"use format={own}")
        if path.exists():
            if not trust and path.is_file():
                otherfiles.refuse(path, form)
            found.append(_there(path, form, disk, state / f"disk{number or ''}", takes, tasks))
            continue
        if not disk.size:
            raise InputError(f"disk {path} does not exist", hint="give it a size to have it made, such as size=10G")
        found.append(_new(path, form, disk, state / f"disk{number or ''}", takes, tasks))
    return found


def _there(path: Path, form: str, disk: disks.Wanted, base: Path, takes: Takes, tasks: list[Task]) -> Drive:
    if form == "raw":
        disks.make_disks([disk if disk.path else replace(disk, path=path)], path.parent)  # refuses what only looks raw
        return _wrapped(path, base, takes, tasks, readonly=False) if takes.wrap else Drive(path)
    return Drive(path, form)


def _new(path: Path, form: str, disk: disks.Wanted, base: Path, takes: Takes, tasks: list[Task]) -> Drive:
    size = disk.size
    if form in ("raw", "vmdk", "vhdx") or form == takes.wrap:
        tasks.append(Task(f"{path}: an empty {form} disk of {size >> 20} MB", lambda: convert.blank(path, size, form)))
        return _wrapped(path, base, takes, tasks, readonly=False) if form == "raw" else Drive(path, form)
    made = replace(disk, path=path, format=form)
    what = f"{path}: an empty {form} disk of {size >> 20} MB"
    tasks.append(Task(what, lambda: disks.make_disks([made], path.parent)))
    return Drive(path, form)
