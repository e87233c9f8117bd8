"""Every output format at once: a cache with all that they need, and how to ask for them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from linuxkit.oci.media import Platform
from linuxkit.oci.store import Store
from linuxkit.outputs.table import FORMATS
from linuxkit.packages.kit import Kit
from support.bios import add_bios
from support.builds import YAML, make_cache
from support.efi import add_efi, program
from support.images import make_image, member, tar_of

BOARD = """\
kernel:
  image: t/board:1
  cmdline: console=ttyS1,115200
files: [{path: init, contents: "#!", mode: "0755"}]
"""


class Group(NamedTuple):
    """Formats that one build makes, of what, and for which architecture."""

    formats: tuple[str, ...]
    text: str = YAML
    architecture: str = "amd64"


def cache_for_all(root: Path) -> Path:
    """A store with what the groups' YAML names and every boot loader, in `root`/cache."""
    cache = make_cache(root)
    add_efi(Store(cache))
    add_bios(Store(cache))
    _add_board(Store(cache))
    return cache


def _add_board(store: Store) -> None:
    """What the formats for the Raspberry Pi need: t/board:1, and the kit's firmware."""
    arm64 = Platform("linux", "arm64")
    kernel = bytearray(program(0xAA64, b"kernel" * 5000))
    kernel[56:60] = b"ARM\x64"
    boards = ("bcm2837-rpi-3-b.dtb", "bcm2711-rpi-4-b.dtb", "bcm2712-rpi-5-b.dtb")
    trees = [member(f"usr/lib/linux-image-1/broadcom/{name}", name.encode()) for name in boards]
    tar = tar_of(member("kernel", bytes(kernel)), *trees, member("kernel.tar", tar_of()))
    make_image(store, "docker.io/t/board:1", tar, platform=arm64)
    names = ("bootcode.bin", "start.elf", "fixup.dat", "start4.elf", "fixup4.dat")
    files = [member(f"usr/lib/raspi-firmware/{name}", name.encode()) for name in names]
    files.append(member("usr/share/doc/raspi-firmware/copyright", b"(c)"))
    kit = Kit(store, store.root / "kit")
    make_image(store, kit.reference("rpi-boot"), tar_of(*files), platform=arm64)
    make_image(store, kit.reference("bootstage"), tar_of(member("init", b"stage", mode=0o755)), platform=arm64)


def groups() -> list[Group]:
    """All formats in few builds: those that make files of the same name apart, streams and other machines alone."""
    found: list[tuple[list[str], set[str]]] = []
    board = tuple(name for name, one in FORMATS.items() if "rpi-boot" in one.loaders)
    for name, one in FORMATS.items():
        if name in board:
            continue
        for names, endings in found if not one.stream else ():
            if not endings & set(one.endings):
                names.append(name)
                endings.update(one.endings)
                break
        else:
            found.append(([name], set(one.endings) if not one.stream else {*one.endings, *_ALL}))
    return [*(Group(tuple(names)) for names, _ in found), Group(board, BOARD, "arm64")]


_ALL = {ending for one in FORMATS.values() for ending in one.endings}
