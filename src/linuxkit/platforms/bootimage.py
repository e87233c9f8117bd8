"""What a file can be booted as, told by its content: an EFI program, a CD, a disk, and what starts it.

    0        MZ … PE\\0\\0      an EFI program (UEFI 2.10, 2.1.1)
    32768    CD001            a CD (ECMA-119); what its boot catalogue names (El Torito 1.0) starts it
    510      55 AA            a disk: boot code for a BIOS in front of it, an EFI system partition for UEFI
    else     the file formats of disks, by their magic; qemu-img, if it is there, shows what is inside
"""

from __future__ import annotations

import shutil
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from linuxkit import host
from linuxkit.errors import HostError, InputError
from linuxkit.platforms import otherfiles
from linuxkit.platforms.inside import find_in_fat, find_in_iso, read_at
from linuxkit.platforms.memory import Packed

MAX_CMDLINE = 4096
#: How much of a system partition is looked at: its folders, and the headers of the programs in front.
LOOK = 8 << 20
#: How much of a packed disk is unpacked to be looked at.
PEEK = 48 << 20
MAX_PROGRAMS = 16
SECTOR = 2048  # of a CD
EFI_MACHINES = {0x8664: "x86_64", 0xAA64: "aarch64", 0x5064: "riscv64"}
#: Firmware finds its program by name, so the name tells for which machine a disk is.
EFI_NAMES = {b"BOOTX64 EFI": "x86_64", b"BOOTAA64EFI": "aarch64", b"BOOTRI~1EFI": "riscv64"}
ESP = bytes.fromhex("28732ac11ff8d211ba4b00a0c93ec93b")  # the type's GUID as it stands in the table
#: QEMU's format by a file's first bytes, and by the ends of names.
MAGIC = {b"QFI\xfb": "qcow2", b"KDMV": "vmdk", b"# Disk DescriptorFile": "vmdk", b"vhdxfile": "vhdx",
         b"conectix": "vpc"}  # fmt: skip
SUFFIXES = {".qcow2": "qcow2", ".vmdk": "vmdk", ".vdi": "vdi", ".vhd": "vpc", ".vhdx": "vhdx"}
#: What is not a disk, but holds one or is otherwise known.
OTHERS = {
    b"\x1f\x8b": "is compressed with gzip", b"(\xb5/\xfd": "is compressed with zstd",
    b"\xfd7zXZ": "is compressed with xz", b"BZh": "is compressed with bzip2", b"PK\x03\x04": "is a zip archive",
}  # fmt: skip


class Media(StrEnum):
    """What an image is plugged in as."""

    DISK = "disk"
    CD = "cd"
    USB = "usb"


@dataclass(frozen=True, slots=True)
class Image:
    """What a file is. `format` as QEMU has it; `arch` as QEMU has it, empty when it isn't known.

    `bios`, `uefi`: which firmware can start it; both False when its format hides it. `readonly`: it can't be written.
    """

    program: bool = False
    media: Media = Media.DISK
    format: str = "raw"
    bios: bool = False
    uefi: bool = False
    arch: str = ""
    packed: Packed | None = None  # the initrd inside it
    readonly: bool = False

    @property
    def bootable(self) -> bool:
        return self.bios or self.uefi or self.format != "raw"


def look(path: Path, *, trust: bool = False) -> Image:
    """What a file is.

    Args:
        trust: a disk may lead to other files of this machine.

    Raises:
        InputError: it cannot be read, its name and its content disagree, or it leads to other files.
    """
    named = SUFFIXES.get(path.suffix.lower(), "raw")
    try:
        with path.open("rb") as f:
            head = f.read(36 << 10)
            if named == "raw" or (named == "vpc" and not head.startswith(b"conectix")):  # a fixed VHD is raw
                if not trust:
                    otherfiles.refuse(path, named)
                return replace(_raw(f, path, head), format=named)
    except OSError as e:
        raise InputError(f"{path} cannot be read: {e.strerror or e}") from e
    except struct.error:
        raise InputError(f"{path} is cut short in the middle of its tables", hint="build it again") from None
    found = next((form for magic, form in MAGIC.items() if head.startswith(magic)), "")
    if head[0x40:0x44] == b"\x7f\x10\xda\xbe":
        found = "vdi"
    if found != named:
        raise InputError(f"{path} is no {named} file" + (f", but {found}" if found else ""),
                         hint=f"rename it to {path.stem}.{_ending(found)}" if found else "build it again")  # fmt: skip
    if len(head) < 12:
        raise InputError(f"{path} is cut short: it has {len(head)} bytes", hint="build it again")
    if not trust:
        otherfiles.refuse(path, named)
    compressed = named == "vmdk" and head[:4] == b"KDMV" and bool(head[10] & 1)  # streamOptimized: QEMU reads them only
    return replace(_peek(path, named), format=named, readonly=compressed)


def _peek(path: Path, form: str) -> Image:
    """What the start of a packed disk tells, where qemu-img is there to unpack it; else nothing."""
    tool = shutil.which("qemu-img")
    if tool is None:
        return Image()
    with tempfile.TemporaryDirectory(prefix="linuxkit-") as folder:
        start = Path(folder) / "start"
        copy = [tool, "dd", "-f", form, "-O", "raw", "bs=1M", f"count={PEEK >> 20}", f"if={path.absolute()}"]
        try:
            host.run([*copy, f"of={start}"], timeout=20)
            with start.open("rb") as f:
                head = f.read(36 << 10)
                found = _disk(f, head) if head[510:512] == b"\x55\xaa" else Image()
        except (HostError, OSError):  # QEMU will say what is wrong with it
            return Image()
    return replace(found, packed=None)


def _raw(f: BinaryIO, path: Path, head: bytes) -> Image:
    if head[SECTOR * 16 + 1 : SECTOR * 16 + 6] == b"CD001":
        return _cd(f, path)
    if _pe(head, 0) >= 0 and path.suffix.lower() == ".efi":
        machine, packed = _look_inside(f, 0)
        return Image(program=True, uefi=True, arch=machine, packed=packed)
    for magic, form in MAGIC.items():
        if head.startswith(magic):  # not taken for granted: a guest can write this on a raw disk
            raise InputError(
                f"{path} looks like {form}, and is not called so",
                hint=f"if it is, and no guest wrote that: rename it to {path.stem}.{_ending(form)}",
            )
    if head[510:512] != b"\x55\xaa":
        what = next((text for magic, text in OTHERS.items() if head.startswith(magic)), "")
        if head[257:262] == b"ustar":
            what = "is a tar archive"
        if what:
            raise InputError(
                f"{path} {what}, which no machine boots",
                hint="unpack it, or build a disk: linuxkit build --format raw-bios or raw-efi",
            )
        return Image()
    return _disk(f, head)


def _ending(form: str) -> str:
    return next(end for end, name in SUFFIXES.items() if name == form).removeprefix(".")


def _disk(f: BinaryIO, head: bytes) -> Image:
    """A raw disk: who can start it, for which machine, with which initrd."""
    arch, packed, uefi = "", None, not any(head[:440])
    for start, esp in islice(_partitions(f, head), 8):
        uefi = uefi or esp
        machine, initrd = _volume(f, start)
        arch, packed = arch or machine, packed or initrd
    return Image(bios=any(head[:440]), uefi=uefi, arch=arch, packed=packed)


def _partitions(f: BinaryIO, head: bytes) -> Iterator[tuple[int, bool]]:
    """Where the partitions of a disk start (in bytes), and is it a system partition; a disk without any is one."""
    if head[512:520] == b"EFI PART":
        at, count, size = struct.unpack_from("<QII", head, 512 + 72)[0], *struct.unpack_from("<II", head, 512 + 80)
        table = read_at(f, at * 512, min(count, 128) * min(size, 512))
        for n in range(0, len(table) - 127, max(size, 128)):
            if any(table[n : n + 16]):
                yield int.from_bytes(table[n + 32 : n + 40], "little") * 512, table[n : n + 16] == ESP
        return
    found = False
    for n in range(446, 510, 16):
        kind, start = head[n + 4], int.from_bytes(head[n + 8 : n + 12], "little")
        if kind and start and head[n] in (0, 0x80):
            found = True
            yield start * 512, kind == 0xEF
    if not found:
        yield 0, False


def _cd(f: BinaryIO, path: Path) -> Image:
    """A CD: who can start it is in its boot catalogue."""
    record = read_at(f, 17 * SECTOR, SECTOR)
    bios = uefi = False
    arch, packed = "", None
    if record[:6] == b"\0CD001" and record[7:30] == b"EL TORITO SPECIFICATION":
        catalogue = read_at(f, int.from_bytes(record[0x47:0x4B], "little") * SECTOR, SECTOR)
        for platform, sector in islice(_catalogue(catalogue), 8):
            if platform == 0xEF:
                uefi = True
                machine, initrd = _volume(f, sector * SECTOR)
                arch, packed = arch or machine, packed or initrd
            else:
                bios = bios or platform == 0
    if packed is None and (run := find_in_iso(f, "INITRD.IMG")):
        packed = Packed(path, *run)
    arch = arch or ("x86_64" if bios else "")
    return Image(media=Media.CD, readonly=True, bios=bios, uefi=uefi, arch=arch, packed=packed)


def _catalogue(data: bytes) -> Iterator[tuple[int, int]]:
    """The bootable entries of a boot catalogue: their platform and their first sector."""
    if data[:1] != b"\x01" or data[30:32] != b"\x55\xaa":
        return
    platform = data[1]
    for n in range(32, len(data), 32):
        if data[n] in (0x90, 0x91):
            platform = data[n + 1]
        elif data[n] == 0x88:
            yield platform, int.from_bytes(data[n + 8 : n + 12], "little")


def _volume(f: BinaryIO, start: int) -> tuple[str, Packed | None]:
    """Of a file system with a loader in it: for which machine, and the initrd."""
    head = read_at(f, start, LOOK)
    arch, packed, at = next((a for name, a in EFI_NAMES.items() if name in head), ""), None, -512
    for _ in range(MAX_PROGRAMS):
        at = _pe(head, at + 512)
        if at < 0 or packed is not None:
            break
        machine, packed = _look_inside(f, start + at)
        arch = arch or machine
    if packed is None and (run := find_in_fat(f, start, "INITRD  IMG")):
        packed = Packed(Path(f.name), *run)
    return arch, packed


def _pe(head: bytes, start: int) -> int:
    """Where the next EFI program begins, at a multiple of 512; -1: nowhere."""
    at = head.find(b"MZ", start)
    while at >= 0:
        where = at + int.from_bytes(head[at + 0x3C : at + 0x40], "little")
        if at % 512 == 0 and head[where : where + 4] == b"PE\0\0":
            return at
        at = head.find(b"MZ", at + 1)
    return -1


def _look_inside(f: BinaryIO, at: int) -> tuple[str, Packed | None]:
    """Of the program at a place in a file: its architecture, and the initrd that it holds."""
    head = read_at(f, at, 8192)
    start = int.from_bytes(head[0x3C:0x40], "little")
    table = start + 24 + int.from_bytes(head[start + 20 : start + 22], "little")
    found: dict[bytes, tuple[int, int]] = {}
    for n in range(min(int.from_bytes(head[start + 6 : start + 8], "little"), 96)):  # the most that Windows takes
        row = head[table + 40 * n : table + 40 * n + 40]
        size, _, _, where = (int.from_bytes(row[k : k + 4], "little") for k in (8, 12, 16, 20))
        found[row[:8].rstrip(b"\0")] = at + where, size
    machine = EFI_MACHINES.get(int.from_bytes(head[start + 4 : start + 6], "little"), "")
    where, length = found.get(b".initrd", (0, 0))
    if not length or where + length > f.seek(0, 2):
        return machine, None
    offset, size = found.get(b".cmdline", (0, 0))
    cmdline = read_at(f, offset, min(size, MAX_CMDLINE)).decode(errors="replace")
    return machine, Packed(Path(f.name), where, length, cmdline)
