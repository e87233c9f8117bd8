"""Extended attributes of an ext4 inode: behind its fields, and what has no room there in one block.

    in the inode   magic | entry … | 0 | … values        offsets of values from the first entry
    in a block     magic references blocks hash checksum | entry … | 0 | … values        from the block's start

Documentation/filesystems/ext4/attributes.rst. An entry has the name without its prefix, for which it has a number.
Access control lists are kept in a form of their own: identifiers only where they mean something.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from linuxkit.encode import fields
from linuxkit.encode.ext4_layout import BLOCK
from linuxkit.errors import InputError

_MAGIC = 0xEA020000
#: Prefixes, longest first where one begins with another.
_PREFIXES = (
    ("system.posix_acl_access", 2), ("system.posix_acl_default", 3), ("user.", 1), ("trusted.", 4),
    ("security.", 6), ("system.", 7),
)  # fmt: skip
_ENTRY = fields.Record("<BBHIII")
_HEADER = fields.Record("<IIIII12x")
#: Bytes for attributes in an inode, the magic among them.
ROOM = 96


class _Attribute(NamedTuple):
    prefix: int
    length: int
    name: bytes
    value: bytes

    @property
    def size(self) -> int:
        return _ENTRY.size + -(-self.length // 4) * 4 + -(-len(self.value) // 4) * 4


class Stored(NamedTuple):
    """`inside` goes behind the inode's fields, `block` (with a checksum of zero) into a block; either may be empty."""

    inside: bytes
    block: bytes


_NONE = Stored(b"", b"")


def stored(xattrs: Sequence[tuple[str, bytes]], path: str) -> Stored:
    """The attributes of one inode.

    Raises:
        InputError: a name that ext4 has no number for, or more than one block can hold.
    """
    if not xattrs:
        return _NONE
    inside, outside = list[_Attribute](), list[_Attribute]()
    left = ROOM - 8  # the magic and the end's zeros
    for attribute in sorted(_attribute(name, value, path) for name, value in xattrs):
        if attribute.size <= left:
            left -= attribute.size
            inside.append(attribute)
        else:
            outside.append(attribute)
    if sum(a.size for a in outside) > BLOCK - _HEADER.size - 4:
        total = sum(len(value) for _, value in xattrs)
        raise InputError(f"{path[:200]}: its extended attributes have {total} bytes, and ext4 has {BLOCK} for them",
                         hint="remove some")  # fmt: skip
    kept = b""
    if inside:
        kept = fields.pack("<I", _MAGIC) + _packed(inside, ROOM - 4, 0, hashed=False)
    if not outside:
        return Stored(kept, b"")
    digest = 0
    for one in outside:
        digest = (digest << 16 ^ digest >> 16 ^ _hash(one)) & 0xFFFFFFFF
    head = _HEADER.pack(_MAGIC, 1, 1, digest, 0)
    return Stored(kept, head + _packed(outside, BLOCK - len(head), len(head), hashed=True))


def _attribute(name: str, value: bytes, path: str) -> _Attribute:
    for prefix, number in _PREFIXES:
        if not name.startswith(prefix):
            continue
        rest = name[len(prefix) :].encode("utf-8", "surrogateescape")
        is_list = number in (2, 3)
        if is_list == bool(rest) or len(rest) > 255:
            break
        return _Attribute(number, len(rest), rest, _acl(value, path) if is_list else value)
    raise InputError(f"{path[:200]}: ext4 can't hold an extended attribute with the name {name[:80]!r}",
                     hint="remove it")  # fmt: skip


def _acl(value: bytes, path: str) -> bytes:
    """A POSIX access control list as ext4 keeps it, from the form in which programs see it."""
    out = [fields.pack("<I", 1)]
    if len(value) % 8 != 4 or value[:4] != fields.pack("<I", 2):
        raise InputError(f"{path[:200]}: its access control list is damaged", hint="remove it, or set it anew")
    for tag, permissions, identity in struct.iter_unpack("<HHI", value[4:]):
        named = tag in (0x02, 0x08)  # a user, a group
        out.append(fields.pack("<HHI", tag, permissions, identity) if named else fields.pack("<HH", tag, permissions))
    return b"".join(out)


def _packed(attributes: Iterable[_Attribute], room: int, origin: int, *, hashed: bool) -> bytes:
    """Entries from the front, values from the back. `origin` is where the room is, seen from where offsets count."""
    entries, values = list[bytes](), b""
    for one in attributes:
        padded = one.value.ljust(-(-len(one.value) // 4) * 4, b"\0")
        values = padded + values
        at = origin + room - len(values) if one.value else 0
        digest = _hash(one) if hashed else 0
        entries.append(_ENTRY.pack(one.length, one.prefix, at, 0, len(one.value), digest))
        entries.append(one.name.ljust(-(-one.length // 4) * 4, b"\0"))
    head = b"".join(entries)
    return head + bytes(room - len(head) - len(values)) + values


def _hash(attribute: _Attribute) -> int:
    """What the kernel and e2fsck recognise a damaged entry by; bytes of names count as signed, as they always did."""
    digest = 0
    for byte in attribute.name:
        digest = (digest << 5 ^ digest >> 27 ^ (byte - 256 if byte > 127 else byte)) & 0xFFFFFFFF
    padded = attribute.value.ljust(-(-len(attribute.value) // 4) * 4, b"\0")
    for (word,) in struct.iter_unpack("<I", padded):
        digest = (digest << 16 ^ digest >> 16 ^ word) & 0xFFFFFFFF
    return digest
