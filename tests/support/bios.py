"""A syslinux whose marks and tables are right and whose code is none; a kit package of it, a kernel that it takes."""

from __future__ import annotations

import struct

from linuxkit.encode import syslinux
from linuxkit.oci.media import Platform
from linuxkit.oci.store import Store
from linuxkit.packages.kit import Kit
from support.efi import program
from support.images import make_image, member, tar_of

#: Of the made-up ldlinux.sys: its size, where its tables are, and places in the boot sector.
SIZE, AREA, EXTENDED, ADVS, TABLE, ENTRIES = 40 * 512, 24, 1024, 1600, 512, 48
LOW, HIGH = 282, 288


def boot_sector() -> bytes:
    code = b"\xeb\x58\x90SYSLINUX".ljust(90, b"\0") + bytes(range(150)) * 3
    return code[:504] + struct.pack("<IH", syslinux.MAGIC, 0x3718) + b"\x55\xaa"


def ldlinux(size: int = SIZE, *, entries: int = ENTRIES) -> bytes:
    made = bytearray(b"\r\nSYSLINUX 6.04 \0\r\n\x1a".ljust(size, b"\x7f"))
    struct.pack_into("<IIHHIIHH", made, AREA, syslinux.MAGIC, 7, 0, 0, 0, 0, 127, EXTENDED)
    struct.pack_into("<10H", made, EXTENDED, ADVS, 1100, 200, 1300, 200, TABLE, entries, LOW, HIGH, 458)
    made[TABLE : TABLE + 10 * entries] = bytes(10 * entries)
    made[-200:] = b"\x11".ljust(200, b"\0")
    return bytes(made)


def installer(system: bytes | None = None) -> bytes:
    """What the program `syslinux` is: its own code, in which the marks occur by chance, and the parts."""
    chance = b"\x7fELF\x02" + b"\xeb\x58\x90SYSLINUX" + bytes(600) + b"\r\nSYSLINUX "
    chance += struct.pack("<I", syslinux.MAGIC)
    module = b"\x7fELF\x01\x01\x01" + bytes(9) + b"\x03\0\x03\0" + b"module" * 500
    return b"\x7fELF\x02" + chance * 2 + boot_sector() + (ldlinux() if system is None else system) + module


def kernel(size: int = 30000) -> bytes:
    """A program for UEFI that says it is a bzImage, too."""
    made = bytearray(program(text=b"kernel" * (size // 6)))
    made[0x202:0x206] = b"HdrS"
    return bytes(made)


def add_bios(store: Store, size: int = 30000) -> None:
    """What the formats for BIOS need: t/kernel:1, and the kit's loaders."""
    tar = tar_of(member("kernel", kernel(size), mode=0o644), member("kernel.tar", tar_of()),
                 member("ucode.cpio", b"u" * 99))  # fmt: skip
    make_image(store, "docker.io/t/kernel:1", tar)
    parts = {
        "usr/bin/syslinux": installer(),
        "usr/lib/syslinux/modules/bios/ldlinux.c32": b"module" * 500,
        "usr/lib/syslinux/mbr/mbr.bin": b"mbr".ljust(440, b"."),
        "usr/lib/syslinux/mbr/gptmbr.bin": b"gptmbr".ljust(440, b"."),
        "usr/lib/ISOLINUX/isolinux.bin": b"isolinux".ljust(64, b"\0") + struct.pack("<I", 0x7078C0FB) + b"i" * 9000,
        "usr/lib/ISOLINUX/isohdpfx.bin": b"isohybrid".ljust(432, b"."),
    }
    files = (member(path, data, mode=0o644) for path, data in parts.items())
    make_image(store, Kit(store, store.root / "kit").reference("syslinux"), tar_of(*files),
               platform=Platform("linux", "amd64"))  # fmt: skip
