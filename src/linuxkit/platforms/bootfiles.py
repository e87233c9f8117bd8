"""What `linuxkit run PREFIX` boots: a file, or the files that `linuxkit build` wrote for that prefix."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from linuxkit.errors import InputError
from linuxkit.platforms.bootimage import MAX_CMDLINE, Image, Media, look
from linuxkit.platforms.memory import Packed


class Kind(StrEnum):
    """What the files of one prefix can be; by LinuxKit's names, which are also the options that choose."""

    KERNEL = "kernel"
    SQUASHFS = "squashfs"
    EROFS = "erofs"
    ISO = "iso"


#: Filesystems that a kernel mounts as its root: the end of their name, and how the kernel gets at them.
ROOTS = {
    Kind.SQUASHFS: ("-squashfs.img", "root=/dev/vda"), Kind.EROFS: ("-erofs.img", "root=/dev/vda"),
    Kind.ISO: (".iso", "root=/dev/sr0"),
}  # fmt: skip
#: Ends of the names of images that boot by themselves, the first that is there first.
IMAGES = (
    "-efi.img", "-bios.img", ".img", ".raw", "-efi.qcow2", ".qcow2", ".vmdk", ".vhdx", ".vhd",
    ".iso", "-efi.iso", "-efi-initrd.iso", ".efi",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class BootFiles:
    """A kernel with what it is started with, or an image. `arch` as QEMU has it, empty when the files do not say.

    disk    the image to boot from, or with a kernel its root filesystem; in `format`, plugged in as `media`.
    uefi    only UEFI firmware starts it.
    others  what else is there under that prefix, and how it is chosen.
    """

    kernel: Path | None
    initrd: Path | None
    cmdline: str
    arch: str
    disk: Path | None = None
    uefi: bool = False
    packed: Packed | None = None  # the initrd inside it
    format: str = "raw"
    media: Media = Media.DISK
    readonly: bool = False
    others: tuple[str, ...] = field(default=(), compare=False)

    @property
    def main(self) -> Path | None:
        """The file that says what this is."""
        return self.kernel or self.disk


def kernel_arch(head: bytes) -> str:
    """The architecture of a kernel image, from its first kibibyte: what its boot protocol has for a magic."""
    if head[0x202:0x206] == b"HdrS":
        return "x86_64"
    if head[0x38:0x3C] == b"ARM\x64":
        return "aarch64"
    if head[0x38:0x3C] == b"RSC\x05":
        return "riscv64"
    return ""


def find(prefix: str, kind: Kind | None = None, *, trust: bool = False) -> BootFiles:
    """What there is to boot: the file of that name, else what was built for that prefix.

    Args:
        kind: the user's choice; None to see.
        trust: a disk may lead to other files of this machine.

    Raises:
        InputError: there is nothing, and the message lists what was looked for, the hint what is there instead; or a
            disk leads to other files.
    """
    path = Path(prefix)
    try:
        whole = (path.is_file() or path.is_block_device()) and not _misnamed(prefix)
    except OSError as e:  # a name that is too long, a loop of links
        raise InputError(f"{prefix!r} cannot be booted: {os.strerror(e.errno or errno.EIO)}") from e
    if whole and kind in (None, Kind.ISO):
        return _image(path, kind, trust=trust)
    found = list(_built(prefix))
    if kind is not None:
        chosen = [name for name in found if name == kind]
        if not chosen:
            raise InputError(f"nothing to boot at {prefix!r} for --{kind}: looked for {_looked_for(prefix, kind)}",
                             hint=_misnamed(prefix) or _instead(prefix))  # fmt: skip
        found = chosen + [name for name in found if name != kind]
    images = [p for p in (Path(f"{prefix}{end}") for end in IMAGES) if p.is_file() and not _belongs(p, prefix, found)]
    if found:
        return _kernel(prefix, found[0], (*(f"--{name}" for name in found[1:]), *(str(p) for p in images)))
    if images:
        return _image(images[0], None, tuple(str(p) for p in images[1:]), trust=trust)
    kernel, initrd = _name(prefix, "-kernel"), _name(prefix, "-initrd.img")
    missing = [p for p in (kernel, initrd) if not p.is_file()]
    raise InputError(
        f"nothing to boot at {prefix!r}: looked for {kernel} and {initrd}"
        + (f"; {missing[0]} is missing" if len(missing) == 1 else ", and for images")
        + (" (a folder is there)" if path.is_dir() else ""),
        hint=_misnamed(prefix) or _instead(prefix),
    )


def _name(prefix: str, end: str) -> Path:
    return Path(f"{prefix}{end}")


def _looked_for(prefix: str, kind: Kind) -> str:
    return f"{prefix}-kernel and {prefix}{'-initrd.img' if kind is Kind.KERNEL else ROOTS[kind][0]}"


def _built(prefix: str) -> Sequence[Kind]:
    """Which kinds of a kernel with something are there, what is to be taken first.

    An initrd beside a filesystem is either a system of its own or only the way to that filesystem. The command line
    tells: the latter's names a root.
    """
    if not _name(prefix, "-kernel").is_file():
        return []
    kinds = [kind for kind, (end, _) in ROOTS.items() if _name(prefix, end).is_file()]
    if Kind.ISO in kinds and look(_name(prefix, ROOTS[Kind.ISO][0])).bootable:
        kinds.remove(Kind.ISO)  # iso-bios has that name as well, and needs no kernel beside it
    if not _name(prefix, "-initrd.img").is_file():
        return kinds
    own = not any(word.startswith("root=") for word in _cmdline(prefix).split())
    return [Kind.KERNEL, *kinds] if own else [*kinds, Kind.KERNEL]


def _belongs(path: Path, prefix: str, found: Sequence[Kind]) -> bool:
    """Is an image only one half of a kernel and its root?"""
    return Kind.ISO in found and path == _name(prefix, ".iso")


def _cmdline(prefix: str) -> str:
    path = _name(prefix, "-cmdline")
    text = path.read_bytes()[: MAX_CMDLINE + 1].decode(errors="surrogateescape") if path.is_file() else ""
    if len(text) > MAX_CMDLINE or "\0" in text:
        raise InputError(f"{path} is not a kernel command line of at most {MAX_CMDLINE} bytes")
    return text.strip("\n")


def _kernel(prefix: str, kind: Kind, others: tuple[str, ...]) -> BootFiles:
    kernel, initrd = _name(prefix, "-kernel"), _name(prefix, "-initrd.img")
    with kernel.open("rb") as f:
        arch = kernel_arch(f.read(1024))
    cmdline = _cmdline(prefix)
    if kind is Kind.KERNEL:
        return BootFiles(kernel, initrd, cmdline, arch, others=others)
    end, root = ROOTS[kind]
    if not any(word.startswith("root=") for word in cmdline.split()):
        cmdline = f"{cmdline} {root}".strip()
    return BootFiles(
        kernel, initrd if initrd.is_file() else None, cmdline, arch, _name(prefix, end),
        media=Media.CD if kind is Kind.ISO else Media.DISK, readonly=True, others=others,
    )  # fmt: skip


def _image(path: Path, kind: Kind | None, others: tuple[str, ...] = (), *, trust: bool) -> BootFiles:
    """A file that is booted by itself."""
    image = look(path, trust=trust)
    prefix = str(path.with_suffix("")) if path.suffix.lower() == ".iso" else ""
    if image.media is Media.CD and not image.bootable and _name(prefix, "-kernel").is_file():
        return _kernel(prefix, Kind.ISO, ())
    if kind is Kind.ISO and image.media is not Media.CD:
        raise InputError(f"{path} is not an ISO image", hint="leave --iso out")
    if not image.bootable:
        what = "a CD without a boot catalogue" if image.media is Media.CD else "neither a disk nor a CD nor a program"
        raise InputError(f"{path} cannot be booted: it is {what}", hint=_instead(str(path)))
    if image.program:
        return BootFiles(path, None, "", image.arch, uefi=True, packed=image.packed, others=others)
    return BootFiles(
        None, None, "", image.arch, path, _needs_uefi(path, image), image.packed, image.format, image.media,
        readonly=image.readonly, others=others,
    )  # fmt: skip


def _needs_uefi(path: Path, image: Image) -> bool:
    """What both can start is started by a BIOS, and what tells nothing by what its name says."""
    if image.arch == "aarch64" or path.stem.endswith(("-efi", "-efi-initrd")):
        return True
    return image.uefi and not image.bios


def _misnamed(prefix: str) -> str:
    """What to give in place of a file that isn't booted itself; empty for any other."""
    plain = Path(prefix)
    for end in ("-kernel", "-initrd.img", "-cmdline", "-squashfs.img", "-erofs.img", ".yml", ".yaml"):
        if prefix.endswith(end) and Path(f"{prefix.removesuffix(end)}-kernel").is_file():
            return f"give the prefix only: linuxkit run {prefix.removesuffix(end)}"
    if plain.is_file() and plain.suffix in (".yml", ".yaml"):
        return f"build it first: linuxkit build {prefix}, then: linuxkit run {prefix.removesuffix(plain.suffix)}"
    return ""


def _instead(prefix: str) -> str:
    import difflib

    folder = _name(prefix, "-kernel").parent
    ends = ("-kernel", *IMAGES)
    try:
        there = sorted({str(p).removesuffix("-kernel") for end in ends for p in folder.glob(f"*{end}")})[:100]
    except OSError:
        there = []
    there = [name for name in there if not name.endswith(("-initrd.img", "-squashfs.img", "-erofs.img", "data.iso"))]
    close = difflib.get_close_matches(prefix, [name for name in there if name != prefix], n=1)
    if Path(f"{prefix}.yml").is_file():
        return f"build it first: linuxkit build {prefix}.yml"
    if close:
        return f"did you mean linuxkit run {close[0]}?"
    return f"here is: {', '.join(there[:8])}" if there else "build writes these files: linuxkit build FILE.yml"
