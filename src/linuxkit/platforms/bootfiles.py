"""What `linuxkit run PREFIX` boots: the files that `linuxkit build` wrote for that prefix."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from linuxkit.errors import InputError
from linuxkit.platforms.memory import Packed

MAX_CMDLINE = 4096
#: How much of a disk image is looked at: its partition table and the folders of its first partition.
LOOK = 8 << 20
EFI_MACHINES = {0x8664: "x86_64", 0xAA64: "aarch64"}


@dataclass(frozen=True, slots=True)
class BootFiles:
    """A kernel with what it is started with, or a disk. `arch` as QEMU has it, empty when the files do not say."""

    kernel: Path | None
    initrd: Path | None
    cmdline: str
    arch: str
    disk: Path | None = None
    uefi: bool = False  # only UEFI firmware starts it
    packed: Packed | None = None  # the initrd inside it

    @property
    def main(self) -> Path | None:
        """The file that says what this is."""
        return self.kernel or self.disk


def kernel_arch(head: bytes) -> str:
    """The architecture of a kernel image, from its first kibibyte: the x86 boot protocol's or arm64's magic."""
    if head[0x202:0x206] == b"HdrS":
        return "x86_64"
    if head[0x38:0x3C] == b"ARM\x64":
        return "aarch64"
    return ""


def find(prefix: str) -> BootFiles:
    """The files of a kernel+initrd build, an EFI program, or a disk image.

    Raises:
        InputError: they are not there; the message lists what was looked for, the hint what is there instead.
    """
    kernel, initrd, cmdline = (Path(f"{prefix}{end}") for end in ("-kernel", "-initrd.img", "-cmdline"))
    missing = [path for path in (kernel, initrd) if not path.is_file()]
    image = Path(prefix)
    if missing and (image.is_file() or image.is_block_device()) and not _misnamed(prefix):
        return _image(image)
    if missing:
        raise InputError(
            f"nothing to boot at {prefix!r}: looked for {kernel} and {initrd}"
            + (f"; {missing[0]} is missing" if len(missing) == 1 else ""),
            hint=_misnamed(prefix) or _instead(prefix, kernel),
        )
    with kernel.open("rb") as f:
        arch = kernel_arch(f.read(1024))
    text = cmdline.read_bytes()[: MAX_CMDLINE + 1].decode(errors="surrogateescape") if cmdline.is_file() else ""
    if len(text) > MAX_CMDLINE or "\0" in text:
        raise InputError(f"{cmdline} is not a kernel command line of at most {MAX_CMDLINE} bytes")
    return BootFiles(kernel, initrd, text.strip("\n"), arch)


def _image(path: Path) -> BootFiles:
    """An EFI program or a disk image, told apart by what is in it."""
    with path.open("rb") as f:
        head = f.read(LOOK)
        at = _program(head)
        machine, packed = _look_inside(f, head, at) if at >= 0 else ("", None)
    if at == 0 and path.suffix.lower() == ".efi":
        return BootFiles(path, None, "", machine, uefi=True, packed=packed)
    # firmware finds its program by name, so the name tells for which machine the disk is
    names = {b"BOOTX64 EFI": "x86_64", b"BOOTAA64EFI": "aarch64"}
    arch = machine or next((arch for name, arch in names.items() if name in head), "")
    no_code = not any(head[:440]) and head[510:512] == b"\x55\xaa"
    uefi = no_code or path.stem.endswith(("-efi", "-efi-initrd")) or arch == "aarch64"
    return BootFiles(None, None, "", arch, path, uefi, packed)


def _program(head: bytes) -> int:
    """Where in the start of a file or disk the first EFI program begins; -1: nowhere."""
    at = head.find(b"MZ")
    while at >= 0:
        start = at + int.from_bytes(head[at + 0x3C : at + 0x40], "little")
        if at % 512 == 0 and head[start : start + 4] == b"PE\0\0":
            return at
        at = head.find(b"MZ", at + 1)
    return -1


def _look_inside(f: BinaryIO, head: bytes, at: int) -> tuple[str, Packed | None]:
    """Of a program in a file: its architecture, and the initrd that it holds."""
    start = at + int.from_bytes(head[at + 0x3C : at + 0x40], "little")
    table = start + 24 + int.from_bytes(head[start + 20 : start + 22], "little")
    found: dict[bytes, tuple[int, int]] = {}
    for n in range(int.from_bytes(head[start + 6 : start + 8], "little")):
        row = head[table + 40 * n : table + 40 * n + 40]
        size, _, _, where = (int.from_bytes(row[k : k + 4], "little") for k in (8, 12, 16, 20))
        found[row[:8].rstrip(b"\0")] = at + where, size
    machine = EFI_MACHINES.get(int.from_bytes(head[start + 4 : start + 6], "little"), "")
    where, length = found.get(b".initrd", (0, 0))
    if not length or where + length > f.seek(0, 2):
        return machine, None
    offset, size = found.get(b".cmdline", (0, 0))
    f.seek(offset)
    cmdline = f.read(min(size, MAX_CMDLINE)).decode(errors="replace")
    return machine, Packed(Path(f.name), where, length, cmdline)


def _misnamed(prefix: str) -> str:
    """What to give in place of a file that isn't booted itself; empty for any other."""
    plain = Path(prefix)
    for end in ("-kernel", "-initrd.img", "-cmdline", ".yml", ".yaml"):
        if prefix.endswith(end) and Path(f"{prefix.removesuffix(end)}-kernel").is_file():
            return f"give the prefix only: linuxkit run {prefix.removesuffix(end)}"
    if plain.is_file() and plain.suffix in (".yml", ".yaml"):
        return f"build it first: linuxkit build {prefix}, then: linuxkit run {prefix.removesuffix(plain.suffix)}"
    return ""


def _instead(prefix: str, kernel: Path) -> str:
    import difflib

    try:
        there = sorted(str(p).removesuffix("-kernel") for p in kernel.parent.glob("*-kernel"))
    except OSError:
        there = []
    close = difflib.get_close_matches(prefix, there, n=1)
    if close:
        return f"did you mean linuxkit run {close[0]}?"
    if Path(f"{prefix}.yml").is_file():
        return f"build it first: linuxkit build {prefix}.yml"
    return f"here is: {', '.join(there[:8])}" if there else "build writes these files: linuxkit build FILE.yml"
