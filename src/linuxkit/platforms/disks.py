"""`--disk`: what it means, and the image files that it asks for.

Raw images are sparse files that need no tool. Other formats are made by qemu-img.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from linuxkit import host
from linuxkit.errors import InputError
from linuxkit.platforms import otherfiles
from linuxkit.platforms.bootimage import SUFFIXES
from linuxkit.platforms.qemu import Disk

MIB = 1 << 20
HINT = "use PATH, or file=PATH,size=N[M|G],format=raw|qcow2; with only a size the disk is kept in the state folder"


@dataclass(frozen=True, slots=True)
class Wanted:
    """One `--disk` as it was written. `size` in bytes, 0 when not given."""

    path: Path | None = None
    size: int = 0
    format: str = ""


def parse_size(text: str, unit: str) -> int:
    """`N`, `NM` or `NG` in bytes; `unit` (M or G) is that of a plain number.

    Raises:
        ValueError: something else.
    """
    found = re.fullmatch(r"([0-9]{1,9})\s*([MG]?)(?:i?B)?", text.strip(), re.ASCII | re.IGNORECASE)
    if not found or not int(found[1]):
        raise ValueError(text)
    return int(found[1]) * MIB * (1024 if (found[2] or unit).upper() == "G" else 1)


def parse_disk(text: str) -> Wanted:
    """One `--disk`.

    Raises:
        InputError: it is not understood.
    """
    path, size, form = None, 0, ""
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if not equals or key == "file":
            path = Path(value if equals else key)
            if not os.fspath(path) or os.fspath(path) == ".":
                raise InputError(f"--disk {text!r} has an empty path", hint=HINT)
        elif key == "size":
            try:
                size = parse_size(value, "G")
            except ValueError:
                raise InputError(f"--disk {text!r}: {value!r} is not a size", hint=HINT) from None
        elif key == "format":
            form = value
        else:
            raise InputError(f"unknown disk config: {key}", hint=HINT)
    if path is None and not size:
        raise InputError("disk specified with no size or name", hint=HINT)
    return Wanted(path, size, form)


def make_disks(wanted: Sequence[Wanted], state: Path, *, trust: bool = False) -> tuple[Disk, ...]:
    """The disks, made when they are not there yet; a disk without a path is `disk.img`, `disk1.img`, … in `state`.

    Args:
        trust: a disk may lead to other files of this machine.

    Raises:
        InputError: a disk that has no size is not there, its format is not clear, or it leads to other files.
        HostError: qemu-img is needed and missing, or fails.
    """
    return tuple(
        _make(disk, disk.path or state / f"disk{number or ''}.img", trust=trust) for number, disk in enumerate(wanted)
    )


def _make(disk: Wanted, path: Path, *, trust: bool) -> Disk:
    form = disk.format or SUFFIXES.get(path.suffix.lower(), "raw")
    if path.exists():
        if not disk.format and form == "raw" and path.is_file():
            with path.open("rb") as f:
                if f.read(4) == b"QFI\xfb":  # not taken for granted: a guest can write this on a raw disk
                    raise InputError(f"{path} looks like qcow2", hint="say which it is: format=qcow2 or format=raw")
        if not trust and path.is_file():
            otherfiles.refuse(path, form)
        return Disk(path, form)
    if not disk.size:
        raise InputError(f"disk {path} does not exist", hint="give it a size to have it made, such as size=10G")
    partial = path.with_name(path.name + ".partial")
    try:
        if form == "raw":
            with partial.open("wb") as f:
                f.truncate(disk.size)
        else:
            tool = host.find_tool("qemu-img", why=f"to make a {form} disk")
            host.run([tool, "create", "-q", "-f", form, partial, str(disk.size)])
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return Disk(path, form)
