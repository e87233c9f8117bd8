"""Extended attributes in EROFS: behind their inode, or once for all in the shared area. Used by encode.erofs.

    behind the inode  filter u32 (0: none) | number of shared ones u8 | 0 x 7 | their places u32 … | entries
    entry             length of the name u8 | namespace u8 | length of the value u16 | name | value, padded to 4 bytes

Specification: Linux, fs/erofs/erofs_fs.h. A place is counted in 4 bytes from the shared area's start.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from linuxkit.encode import fields
from linuxkit.entry import Entry
from linuxkit.errors import InputError

_HEADER = 12
_MAX_SHARED, _MAX_VALUE, _MAX_SIZE = 255, 65535, _HEADER + 4 * 65534
#: Names that have a number of their own, and prefixes.
_WHOLE = {"system.posix_acl_access": 2, "system.posix_acl_default": 3}
_PREFIXES = {"user.": 1, "trusted.": 4, "security.": 6}


class Attributes:
    """The extended attributes of all files of a tree.

    Args:
        entries: one for each inode.

    Raises:
        InputError: one is too long, or of a namespace that has no number.
    """

    def __init__(self, entries: Iterable[Entry]) -> None:
        counts = Counter(data for entry in entries if entry.xattrs for data in _encoded(entry))
        self._places: dict[bytes, int] = {}
        area = bytearray()
        for data, count in counts.items():
            if count * len(data) > len(data) + 4 * count:
                self._places[data] = len(area) // 4
                area += data
        #: The shared area.
        self.area = bytes(area)

    def of(self, entry: Entry) -> bytes:
        """What stands behind an inode; empty without attributes.

        Raises:
            InputError: there is more than fits.
        """
        encoded = _encoded(entry) if entry.xattrs else []
        if not encoded:
            return b""
        shared = [self._places[data] for data in encoded if data in self._places][:_MAX_SHARED]
        used = set(shared)
        own = b"".join(data for data in encoded if self._places.get(data) not in used)
        made = fields.pack(f"<IB7x{len(shared)}I", 0, len(shared), *shared) + own
        if len(made) > _MAX_SIZE:
            raise InputError(f"{entry.path[:200]}: {len(made)} bytes of extended attributes are too many for EROFS",
                             hint=f"at most {_MAX_SIZE}")  # fmt: skip
        return made


def _encoded(entry: Entry) -> list[bytes]:
    return [_attribute(entry.path, name, value) for name, value in entry.xattrs]


def _attribute(path: str, name: str, value: bytes) -> bytes:
    index, rest = _WHOLE.get(name, 0), ""
    if not index:
        prefix = name[: name.find(".") + 1]
        index, rest = _PREFIXES.get(prefix, 0), name[len(prefix) :]
    if not index:
        raise InputError(f"{path[:200]}: EROFS can't hold the attribute {name[:80]}",
                         hint=f"only those that start with {', '.join(_PREFIXES)}, and ACLs")  # fmt: skip
    raw = rest.encode("utf-8", "surrogateescape")
    if len(raw) > 255 or len(value) > _MAX_VALUE:
        raise InputError(f"{path[:200]}: the extended attribute {name[:80]} is too long for EROFS",
                         hint=f"a name has at most 255 bytes, a value {_MAX_VALUE}")  # fmt: skip
    data = fields.pack("<BBH", len(raw), index, len(value)) + raw + value
    return data + bytes(-len(data) % 4)
