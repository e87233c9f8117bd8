"""Scripts for iPXE (https://ipxe.org/cmd): what a machine runs that boots from the network.

    #!ipxe
    isset ${ip} || dhcp
    kernel web-kernel initrd=web-initrd.img console=ttyS0
    initrd web-initrd.img
    boot

Names are relative to the script's own address. `initrd=` is for UEFI, where the kernel asks for its initrd by that
name.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from linuxkit.errors import InputError
from linuxkit.serving.inside import inside

MAX_CMDLINE = 4096
MENU_SECONDS = 10
HEAD = "#!ipxe\nisset ${ip} || dhcp\n"
#: Words that iPXE takes for itself in the middle of a command.
OPERATORS = {"||", "&&", ";"}


def systems(folder: Path) -> list[str]:
    """The names in a folder that a script can be made for, sorted."""
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError:
        return []
    return sorted({name for entry in names for name in [_system(folder, entry)] if name})


def _system(folder: Path, entry: str) -> str:
    if entry.startswith("."):
        return ""
    if entry.endswith("-kernel"):
        name = entry.removesuffix("-kernel")
        return name if _is_file(folder, f"{name}-initrd.img") else ""
    return entry.removesuffix(".efi") if entry.endswith(".efi") else ""


def _is_file(folder: Path, name: str) -> bool:
    try:
        return (folder / name).is_file()
    except (OSError, ValueError):
        return False


def script(root: Path, folder: Path, name: str) -> str | None:
    """The script that boots NAME-kernel with NAME-initrd.img, or NAME.efi; None when neither is there.

    Args:
        root: what is served; a command line outside of it, behind a link, is not read.

    Raises:
        InputError: the command line is one that iPXE can't be told.
    """
    if _is_file(folder, f"{name}-kernel") and _is_file(folder, f"{name}-initrd.img"):
        kernel, initrd = quote(f"{name}-kernel"), quote(f"{name}-initrd.img")
        words = " ".join([kernel, f"initrd={initrd}", *cmdline(_served(root, folder / f"{name}-cmdline"))])
        return f"{HEAD}kernel {words}\ninitrd {initrd}\nboot\n"
    if _is_file(folder, f"{name}.efi"):
        return f"{HEAD}kernel {quote(f'{name}.efi')}\nboot\n"
    return None


def cmdline(path: Path) -> list[str]:
    """The words of a command line; none when there is no such file.

    Raises:
        InputError: iPXE can't be told them.
    """
    if not path.is_file():
        return []
    with path.open("rb") as f:
        data = f.read(MAX_CMDLINE + 1)
    words = data.decode(errors="replace").split()
    if len(data) > MAX_CMDLINE or "\0" in "".join(words):
        raise InputError(f"{path} is not a kernel command line of at most {MAX_CMDLINE} bytes")
    if OPERATORS & set(words) or any("${" in word for word in words):
        raise InputError(f"{path}: iPXE would take ${{…}}, ||, && and ; for itself", hint="write the script yourself")
    return words


def _served(root: Path, path: Path) -> Path:
    if path.is_symlink() and inside(root, path) is None:
        raise InputError(f"{path.name} is a link that leads out of the served folder", hint="put a copy there")
    return inside(root, path) or path


def menu(names: Sequence[str]) -> str:
    """The script that asks which of several to boot, and boots the first when nobody answers."""
    items = "".join(f"item {quote(name)} {quote(name)}\n" for name in names)
    return (
        f"{HEAD}menu Boot\n{items}choose --timeout {MENU_SECONDS * 1000} --default {quote(names[0])} selected\n"
        "chain ${selected}.ipxe\n"
    )
