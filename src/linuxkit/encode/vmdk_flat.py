"""monolithicFlat VMDK: a raw disk with a page of text beside it, which VMware and VirtualBox read and write.

    # Disk DescriptorFile … RW SECTORS FLAT "disk.img" 0 … ddb.geometry.*

Virtual Disk Format 5.0 (VMware), "The Descriptor File". The raw disk stays what it is.
"""

from __future__ import annotations

from linuxkit.entry import digest_of
from linuxkit.errors import InputError

SECTOR = 512


def descriptor(size: int, *, extent: str, seed: str) -> bytes:
    """The text.

    Args:
        size: of the raw disk in bytes: whole sectors.
        extent: its file: a name in the same folder, or a path.
        seed: what the content's id is derived from.

    Raises:
        InputError: the size is no whole number of sectors, or the name can't be written.
    """
    if size % SECTOR or not size:
        raise InputError(f"{extent} is no disk: its {size} bytes are not whole sectors of {SECTOR}")
    if any(ord(c) < 32 or c == '"' or 0xD800 <= ord(c) < 0xE000 for c in extent):
        raise InputError(f"a VMDK can't name a file {extent!r}", hint="rename it")
    identity = int(digest_of([b"vmdk", seed.encode()])[7:15], 16) & 0x7FFFFFFF
    sectors = size // SECTOR
    return f"""\
# Disk DescriptorFile
version=1
encoding="UTF-8"
CID={identity:08x}
parentCID=ffffffff
createType="monolithicFlat"

# Extent description
RW {sectors} FLAT "{extent}" 0

# The Disk Data Base
#DDB

ddb.adapterType = "pvscsi"
ddb.geometry.cylinders = "{min(65535, max(1, sectors // 255 // 63))}"
ddb.geometry.heads = "255"
ddb.geometry.sectors = "63"
ddb.virtualHWVersion = "12"
""".encode()
