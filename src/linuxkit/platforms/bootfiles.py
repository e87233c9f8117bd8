"""What `linuxkit run PREFIX` boots: the files that `linuxkit build` wrote for that prefix."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from linuxkit.errors import InputError

MAX_CMDLINE = 4096


@dataclass(frozen=True, slots=True)
class BootFiles:
    """A kernel with what it is started with. `arch` as QEMU has it, empty when the kernel does not say."""

    kernel: Path
    initrd: Path | None
    cmdline: str
    arch: str


def kernel_arch(head: bytes) -> str:
    """The architecture of a kernel image, from its first kibibyte: the x86 boot protocol's or arm64's magic."""
    if head[0x202:0x206] == b"HdrS":
        return "x86_64"
    if head[0x38:0x3C] == b"ARM\x64":
        return "aarch64"
    return ""


def find(prefix: str) -> BootFiles:
    """The files of a kernel+initrd build.

    Raises:
        InputError: they are not there; the message lists what was looked for, the hint what is there instead.
    """
    kernel, initrd, cmdline = (Path(f"{prefix}{end}") for end in ("-kernel", "-initrd.img", "-cmdline"))
    missing = [path for path in (kernel, initrd) if not path.is_file()]
    if missing:
        raise InputError(
            f"nothing to boot at {prefix!r}: looked for {kernel} and {initrd}"
            + (f"; {missing[0]} is missing" if len(missing) == 1 else ""),
            hint=_instead(prefix, kernel),
        )
    with kernel.open("rb") as f:
        arch = kernel_arch(f.read(1024))
    text = cmdline.read_bytes()[: MAX_CMDLINE + 1].decode(errors="surrogateescape") if cmdline.is_file() else ""
    if len(text) > MAX_CMDLINE or "\0" in text:
        raise InputError(f"{cmdline} is not a kernel command line of at most {MAX_CMDLINE} bytes")
    return BootFiles(kernel, initrd, text.strip("\n"), arch)


def _instead(prefix: str, kernel: Path) -> str:
    import difflib

    plain = Path(prefix)
    for end in ("-kernel", "-initrd.img", "-cmdline", ".yml", ".yaml"):
        if prefix.endswith(end) and Path(f"{prefix.removesuffix(end)}-kernel").is_file():
            return f"give the prefix only: linuxkit run {prefix.removesuffix(end)}"
    if plain.is_file() and plain.suffix in (".yml", ".yaml"):
        return f"build it first: linuxkit build {prefix}, then: linuxkit run {prefix.removesuffix(plain.suffix)}"
    if plain.is_file():
        return "disk images cannot be run yet; build with --format kernel+initrd and give the prefix of its files"
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
