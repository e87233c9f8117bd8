"""Disk files that lead a hypervisor to further files of this machine. A stranger's disk must not.

    qcow2   a backing file; an external data file (incompatible feature bit 2, extension "DATA")
    VMDK    a descriptor with extents (FLAT "/etc/shadow"), or a parent: alone, or inside a sparse file
    VHD     a differencing disk, with a parent locator; its footer stands at both ends of the file
    VHDX    the same: has-parent, or a parent locator among its metadata
    VDI     a differencing disk

QEMU, qemu-img, libvirt, VirtualBox and the others open what such a file names, with the rights of the user. Only the
structures that name files are read here; what is damaged otherwise is the hypervisor's to say.

Specifications: QEMU, docs/interop/qcow2.txt; Virtual Disk Format 5.0 (VMware); Virtual Hard Disk Image Format 1.0;
[MS-VHDX] 8.0.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import BinaryIO

from linuxkit.errors import InputError

SECTOR = 512
#: Longest descriptor of a VMDK: a page of text.
MAX_DESCRIPTOR = 1 << 20
_EMBEDDED = 20 * SECTOR
_EXTENT = re.compile(
    r'^[ \t\r\v\f]*(?:RW|RDONLY|NOACCESS)[ \t\r\v\f]+\d+[ \t\r\v\f]+([^ \t\r\v\f\n"]+)[ \t\r\v\f]*(?:"([^"\n]*))?',
    re.MULTILINE | re.IGNORECASE,
)
_PARENT = re.compile(r'parentFileNameHint[ \t]*=[ \t]*"?([^"\n]*)', re.IGNORECASE)
_REGIONS = (192 << 10, 256 << 10)
_METADATA = bytes.fromhex("06a27c8b90479a4bb8fe575f050f886e")
_PARENT_LOCATOR = bytes.fromhex("2d5fd3a80bb34d45abf7d3d84834ab0c")
_FILE_PARAMETERS = bytes.fromhex("3767a1ca36fa434db3b633f0aa44e76b")


def refuse(path: Path, form: str) -> None:
    """Refuse a disk that leads to other files.

    Args:
        form: as QEMU has it: raw, qcow2, vmdk, vpc, vhdx, vdi.

    Raises:
        InputError: it does, or it can't be read.
    """
    try:
        with path.open("rb") as disk:
            found = leads_to(disk, path, form)
    except OSError as e:
        raise InputError(f"{path} cannot be read: {e.strerror or e}") from e
    if found:
        raise InputError(
            f"{path} is not whole: it {found}, which would be opened with your rights",
            hint="ask for one that is whole; or, when you know who made it: linuxkit run --trust-disk",
        )


def leads_to(disk: BinaryIO, path: Path, form: str) -> str:
    """Which file a disk leads to, as the rest of a sentence that begins with it; empty: none."""
    look = {"qcow2": _qcow2, "vmdk": _vmdk, "vpc": _vhd, "vhdx": _vhdx, "vdi": _vdi}.get(form)
    try:
        return look(disk, path) if look is not None else ""
    except struct.error:
        return ""  # too short to be one


def _shown(name: bytes | str) -> str:
    text = name.decode(errors="replace") if isinstance(name, bytes) else name
    return repr(text[:200])


def _at(disk: BinaryIO, offset: int, size: int) -> bytes:
    if not 0 <= offset < 1 << 62:
        return b""
    disk.seek(offset)
    return disk.read(size)


def _qcow2(disk: BinaryIO, path: Path) -> str:
    head = _at(disk, 0, 1 << 16)
    version, backing, length = struct.unpack_from(">IQI", head, 4)
    if backing or length:
        return f"has a backing file, {_shown(_at(disk, backing, min(length, 1023)))}"
    if version < 3:
        return ""
    features, size = struct.unpack_from(">Q", head, 72)[0], struct.unpack_from(">I", head, 100)[0]
    name = b""
    while size + 8 <= len(head):
        kind, length = struct.unpack_from(">II", head, size)
        if kind == 0x44415441:
            name = head[size + 8 : size + 8 + length]
        if not kind:
            break
        size += 8 + -(-length // 8) * 8
    return f"keeps its data in another file, {_shown(name)}" if features >> 2 & 1 or name else ""


def _vmdk(disk: BinaryIO, path: Path) -> str:
    head = _at(disk, 0, SECTOR)
    if head[:4] not in (b"KDMV", b"COWD"):
        text = _at(disk, 0, MAX_DESCRIPTOR + 1)
        if len(text) > MAX_DESCRIPTOR:
            return "is a descriptor that is too long to be looked at"
        return _descriptor(text, path, own=False)
    if head[:4] == b"COWD":
        return "is of VMware's old kind, which may have a parent"
    capacity, at = struct.unpack_from("<Q8xQ", head, 12)
    texts = [_at(disk, SECTOR, _EMBEDDED)]  # QEMU looks for a parent there, whatever the header says
    if at:
        texts.append(_at(disk, at * SECTOR, _EMBEDDED))
    if not capacity:
        return next((found for text in texts if (found := _descriptor(text, path, own=False))), "")
    return next((found for text in texts if (found := _descriptor(text, path, own=True))), "")


def _descriptor(data: bytes, path: Path, *, own: bool) -> str:
    """What a descriptor leads to. `own`: it is inside of the one extent that there is."""
    text = data.replace(b"\0", b"\n").decode("latin-1")
    parent = _PARENT.search(text)
    if parent is not None:
        return f"has a parent, {_shown(parent[1])}"
    extents = _EXTENT.findall(text)
    for kind, name in extents:
        if own and len(extents) == 1 and kind.upper() == "SPARSE" and "/" not in name and "\\" not in name:
            continue
        if kind.upper() != "ZERO" and not _beside(path, name):
            return f"has its content in another file, {_shown(name)}"
    return ""


def _beside(path: Path, name: str) -> bool:
    """Is an extent a plain file beside its descriptor, with the name that every program gives it?"""
    if "/" in name or "\\" in name or not re.fullmatch(rf"{re.escape(path.stem)}-(flat|[sf][0-9]+)\.\w+", name):
        return False
    there = path.with_name(name)
    return there.is_file() and not there.is_symlink()


def _vhd(disk: BinaryIO, path: Path) -> str:
    disk.seek(0, 2)
    end = disk.tell()
    for offset in (0, end - 512, end - 511):
        footer = _at(disk, max(offset, 0), 512)
        if footer[:8] == b"conectix" and struct.unpack_from(">I", footer, 60)[0] == 4:
            return "is a differencing disk: it has a parent"
    return ""


def _vhdx(disk: BinaryIO, path: Path) -> str:
    for place in _REGIONS:
        table = _at(disk, place, 64 << 10)
        for at in range(16, len(table) - 31, 32):
            if table[at : at + 16] != _METADATA:
                continue
            (offset,) = struct.unpack_from("<Q", table, at + 16)
            items = _at(disk, offset, 64 << 10)
            if items.find(_PARENT_LOCATOR) >= 0:
                return "is a differencing disk: it has a parent"
            known = items.find(_FILE_PARAMETERS)
            if known >= 0:
                (where,) = struct.unpack_from("<I", items, known + 16)
                flags = _at(disk, offset + where + 4, 4)
                if len(flags) == 4 and flags[0] & 2:
                    return "is a differencing disk: it has a parent"
    return ""


def _vdi(disk: BinaryIO, path: Path) -> str:
    (kind,) = struct.unpack_from("<I", _at(disk, 0, SECTOR), 0x4C)
    return "" if kind in (1, 2) else "is a differencing disk: it has a parent"
