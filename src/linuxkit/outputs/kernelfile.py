"""What a Linux kernel's file says of itself: for which machine it is, and what its loaders have to keep to.

    x86      0x202 "HdrS" 0x206 version … 0x22C initrd_addr_max … 0x236 xloadflags 0x238 cmdline_size … 0x248 payload
    arm64    0x38 "ARM\\x64"
    riscv    0x38 "RSC\\x05"
    zboot    0x04 "zimg", offset, size … 0x18 name of the compression        inside a PE file
    gzip     of one of them

Documentation/arch/x86/boot.rst, arch/arm64/booting.rst, arch/riscv/boot-image-header.rst in Linux;
drivers/firmware/efi/libstub/zboot-header.S. What is none of these is unknown, and nothing is said about it.
"""

from __future__ import annotations

import lzma
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from linuxkit.encode.pieces import Piece, cut, read, size_of
from linuxkit.oci.unpack import zstd_module

HEAD = 64 << 10
#: Longest command lines where the file doesn't say (COMMAND_LINE_SIZE, with a zero byte at the end).
CMDLINES = {"amd64": 2047, "arm64": 2047, "riscv64": 1023}
#: A kernel's configuration, between these, as a gzip stream (kernel/configs.c).
_START, _END = b"IKCFG_ST", b"IKCFG_ED"
_MOST_CONFIG = 4 << 20
#: Most bytes that a kernel may unpack to.
_MOST = 512 << 20
_PART = 1 << 20
_PE = {0x8664: "amd64", 0xAA64: "arm64", 0x5064: "riscv64"}


@dataclass(frozen=True, slots=True)
class KernelFile:
    """What is known of a kernel. `payload`: where in the file the compressed kernel is, for `embedded_config`.

    architecture  in Go's names; 386 for a kernel that starts only 32-bit programs.
    cmdline       longest command line in bytes.
    initrd_end    the address below which an initrd has to end on a PC without UEFI; 0 where there is no such rule.
    efi           it is an EFI program.
    gzip          it is compressed as a whole.
    """

    architecture: str
    cmdline: int
    initrd_end: int = 0
    efi: bool = False
    gzip: bool = False
    payload: tuple[int, int] = (0, 0)


def inspect(kernel: Sequence[Piece]) -> KernelFile | None:
    """The kernel in some bytes; None when it is none that is known here."""
    head = next(iter(read(cut(kernel, 0, HEAD), HEAD)), b"")
    if head[:2] != b"\x1f\x8b":
        return _plain(head, size_of(kernel))
    try:
        found = _plain(zlib.decompressobj(31).decompress(head, HEAD), 0)
    except zlib.error:
        return None
    return replace(found, gzip=True, payload=(0, size_of(kernel))) if found is not None else None


def _plain(head: bytes, size: int) -> KernelFile | None:
    if len(head) < 0x260:
        return None
    if head[0x1FE:0x200] == b"\x55\xaa" and head[0x202:0x206] == b"HdrS":
        return _x86(head)
    if head[:2] == b"MZ" and head[4:8] == b"zimg":
        architecture = _pe_machine(head)
        payload = struct.unpack_from("<II", head, 8)
        return KernelFile(architecture, CMDLINES[architecture], efi=True, payload=payload) if architecture else None
    for magic, architecture in ((b"ARM\x64", "arm64"), (b"RSC\x05", "riscv64")):
        if head[0x38:0x3C] == magic:
            return KernelFile(architecture, CMDLINES[architecture], efi=head[:2] == b"MZ", payload=(0, size))
    return None


def _x86(head: bytes) -> KernelFile:
    (version,) = struct.unpack_from("<H", head, 0x206)
    architecture, cmdline, end, payload = "amd64", 255, 0x38000000, (0, 0)
    if version >= 0x203:
        end = struct.unpack_from("<I", head, 0x22C)[0] + 1
    if version >= 0x206:
        (cmdline,) = struct.unpack_from("<I", head, 0x238)
    if version >= 0x208:
        offset, length = struct.unpack_from("<II", head, 0x248)
        payload = ((head[0x1F1] or 4) + 1) * 512 + offset, length
    if version >= 0x20C and not struct.unpack_from("<H", head, 0x236)[0] & 1:
        architecture = "386"
    return KernelFile(architecture, cmdline, end, efi=head[:2] == b"MZ", payload=payload)


def _pe_machine(head: bytes) -> str:
    (at,) = struct.unpack_from("<I", head, 0x3C)
    if head[at : at + 4] != b"PE\0\0" or len(head) < at + 6:
        return ""
    return _PE.get(struct.unpack_from("<H", head, at + 4)[0], "")


def parse_config(data: bytes) -> dict[str, str]:
    """A kernel's .config: option without CONFIG_ → y, m or a value; what is not set isn't there. Empty: it is none."""
    found = {}
    for line in data.decode("utf-8", "replace").splitlines():
        name, equals, value = line.partition("=")
        if equals and name.startswith("CONFIG_"):
            found[name[7:]] = value.strip('"')
    return found


def embedded_config(kernel: Sequence[Piece], about: KernelFile) -> dict[str, str]:
    """The configuration that a kernel carries (CONFIG_IKCONFIG); empty when it has none or can't be unpacked here."""
    found, inside = b"", False
    try:
        for part in _unpacked(cut(kernel, *about.payload)):
            found = found + part if inside else found[1 - len(_START) :] + part
            if not inside:
                at = found.find(_START)
                if at < 0:
                    continue
                found, inside = found[at + len(_START) :], True
            end = found.find(_END)
            if end >= 0:
                return parse_config(zlib.decompressobj(31).decompress(found[:end], _MOST_CONFIG))
            inside = len(found) <= _MOST_CONFIG
    except (zlib.error, lzma.LZMAError, ValueError, EOFError, zstd_module().ZstdError):
        pass
    return {}


def _unpacked(payload: Sequence[Piece]) -> Iterator[bytes]:
    """The kernel itself, in parts; as it is when it isn't compressed. ValueError: in a way that isn't known here."""
    magic = b"".join(islice(read(cut(payload, 0, 6)), 1))
    unpack: Any
    if magic[:2] == b"\x1f\x8b":
        unpack = zlib.decompressobj(31)
    elif magic == b"\xfd7zXZ\0":
        unpack = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=256 << 20)
    elif magic[:4] == b"\x28\xb5\x2f\xfd":
        unpack = zstd_module().ZstdDecompressor()
    elif magic[:4] in (b"\x02\x21\x4c\x18", b"\x89LZO") or magic[:3] in (b"]\0\0", b"BZh"):
        raise ValueError("compressed in another way")
    else:
        yield from read(payload, _PART)
        return
    total = 0
    for data in read(payload, _PART):
        while not unpack.eof:
            made = unpack.decompress(data, _PART)
            total += len(made)
            if total > _MOST:
                raise ValueError("more than a kernel has")
            yield made
            data = getattr(unpack, "unconsumed_tail", b"")  # zlib's; the others keep it themselves
            if not data and getattr(unpack, "needs_input", len(made) < _PART):
                break
        if unpack.eof:
            return
