"""EFI programs for tests: headers and sections that are right, code that is none."""

from __future__ import annotations

import struct


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
