"""EFI programs for tests, whose headers and sections are right and whose code is none; a kit package of them."""

from __future__ import annotations

import struct

from linuxkit.oci.media import Platform
from linuxkit.oci.store import Store
from linuxkit.packages.kit import Kit
from support.images import make_image, member, tar_of

MACHINES = {"amd64": 0x8664, "arm64": 0xAA64}


def program(machine: int = 0x8664, text: bytes = b"\xcc" * 700) -> bytes:
    """A program with two sections: 0x400 bytes of header, room for a dozen more sections."""
    raw = -(-len(text) // 512) * 512
    optional = struct.pack("<HBBIII", 0x20B, 2, 0, raw, 512, 0) + struct.pack("<IIQ", 0x1000, 0x1000, 0x10000)
    optional += struct.pack("<II6HIIII", 4096, 512, 0, 0, 0, 0, 1, 0, 0, 0x3000, 0x400, 0x1234)
    optional += struct.pack("<HHQQQQII", 10, 0x160, 1 << 20, 4096, 1 << 20, 4096, 0, 16) + bytes(128)
    rows = [
        (b".text", len(text), 0x1000, raw, 0x400, 0, 0, 0, 0, 0x60000020),
        (b".data", 100, 0x2000, 512, 0x400 + raw, 0, 0, 0, 0, 0xC0000040),
    ]
    head = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x80) + bytes(64)
    head += b"PE\0\0" + struct.pack("<HHIIIHH", machine, len(rows), 0, 0, 0, len(optional), 0x22E) + optional
    head += b"".join(struct.pack("<8sIIIIIIHHI", *row) for row in rows)
    return head.ljust(0x400, b"\0") + text.ljust(raw, b"\0") + b"d".ljust(512, b"\0")


def sections(data: bytes) -> dict[str, tuple[int, int, int, int, int]]:
    """Of a program: (virtual size, address, raw size, place in the file, flags) by name."""
    start = struct.unpack_from("<I", data, 0x3C)[0]
    assert data[:2] == b"MZ" and data[start : start + 4] == b"PE\0\0"
    count, optional = struct.unpack_from("<H12xH", data, start + 6)
    found = {}
    for n in range(count):
        row = struct.unpack_from("<8sIIIIIIHHI", data, start + 24 + optional + 40 * n)
        found[row[0].rstrip(b"\0").decode()] = (*row[1:5], row[9])
    return found


def content(data: bytes, name: str) -> bytes:
    """A section's content."""
    size, _, _, at, _ = sections(data)[name]
    return data[at : at + size]


def add_efi(store: Store, architecture: str = "amd64") -> None:
    """What the formats for UEFI need: a kernel that is an EFI program, as t/kernel:1, and the kit's loaders."""
    kernel = program(MACHINES[architecture], b"kernel" * 5000)
    platform = Platform("linux", architecture)
    tar = tar_of(member("kernel", kernel, mode=0o644), member("kernel.tar", tar_of()), member("ucode.cpio", b"u" * 99))
    make_image(store, "docker.io/t/kernel:1", tar, platform=platform)
    short = {"amd64": "x64", "arm64": "aa64"}[architecture]
    stub = member(f"usr/lib/systemd/boot/efi/linux{short}.efi.stub", program(MACHINES[architecture]), mode=0o644)
    make_image(store, Kit(store, store.root / "kit").reference("efi-boot"), tar_of(stub), platform=platform)
