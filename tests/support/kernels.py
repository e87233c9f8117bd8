"""Kernels that are nothing but their headers, and configurations."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Iterable

#: Enough options for a whole configuration, none of which anything asks for.
FILLER = "".join(f"CONFIG_FILLER_{n}=y\n" for n in range(400))
#: What a kernel for containers has.
USUAL = (
    "BLK_DEV_INITRD", "RD_GZIP", "RD_ZSTD", "RD_XZ", "RD_LZ4", "OVERLAY_FS", "PACKET", "SQUASHFS", "SQUASHFS_ZSTD",
    "EROFS_FS", "EROFS_FS_ZIP", "ISO9660_FS", "SERIAL_8250_CONSOLE", "VT_CONSOLE", "SECCOMP_FILTER",
)  # fmt: skip


def config(without: Iterable[str] = (), modules: Iterable[str] = ()) -> bytes:
    """A configuration: USUAL but for some, and others as modules."""
    lines = [f"CONFIG_{name}=y\n" for name in USUAL if name not in {*without, *modules}]
    lines += [f"# CONFIG_{name} is not set\n" for name in without]
    lines += [f"CONFIG_{name}=m\n" for name in modules]
    return ('CONFIG_CC_VERSION_TEXT="gcc"\n' + FILLER + "".join(lines)).encode()


def embedded(text: bytes) -> bytes:
    """A configuration as a kernel carries it, amidst other things."""
    return b"\0" * 70_000 + b"IKCFG_ST" + gzip.compress(text, mtime=0) + b"IKCFG_ED" + b"\1" * 5000


def bzimage(payload: bytes = b"", *, version: int = 0x20F, cmdline: int = 2047, initrd_end: int = 1 << 31,
            wide: bool = True, efi: bool = True) -> bytes:  # fmt: skip
    """A kernel for a PC whose compressed part is `payload`."""
    head = bytearray(4096)
    head[:2] = b"MZ" if efi else b"\0\0"
    head[0x1F1] = 3
    head[0x1FE:0x200] = b"\x55\xaa"
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", head, 0x206, version)
    struct.pack_into("<I", head, 0x22C, initrd_end - 1)
    struct.pack_into("<HI", head, 0x236, wide, cmdline)
    struct.pack_into("<II", head, 0x248, 2048, len(payload))
    return bytes(head) + payload


def arm64_image(payload: bytes = b"") -> bytes:
    """A kernel for arm64, not compressed."""
    head = bytearray(4096)
    head[:2] = b"MZ"
    head[0x38:0x3C] = b"ARM\x64"
    return bytes(head) + payload


def zboot(payload: bytes, machine: int = 0xAA64) -> bytes:
    """A kernel that is an EFI program which unpacks itself."""
    head = bytearray(4096)
    head[:8] = b"MZ\0\0zimg"
    struct.pack_into("<II", head, 8, len(head), len(payload))
    struct.pack_into("<I", head, 0x3C, 0x80)
    head[0x80:0x86] = b"PE\0\0" + struct.pack("<H", machine)
    return bytes(head) + payload


def elf(machine: int) -> bytes:
    """The start of a program."""
    return b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HH", 2, machine) + bytes(44)
