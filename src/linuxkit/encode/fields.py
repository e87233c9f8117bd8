"""Fields of a fixed width: a value that doesn't fit into its field is an error, never a shifted or a cut byte.

Every writer puts its structures together with these. `struct` alone refuses numbers that are too large, with an error
that no user understands, and cuts texts in silence; `%` widens a field and shifts all that follow.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from linuxkit.entry import MAX_ID, Entry, fault, long_name
from linuxkit.errors import FieldError, ImageError

_CODE = re.compile(r"(\d*)([a-zA-Z?])")


class Record(struct.Struct):
    """A `struct.Struct` whose `pack` and `pack_into` raise FieldError for a value that doesn't fit."""

    def __init__(self, form: str) -> None:
        super().__init__(form)
        self._codes = [(int(count or 1), code) for count, code in _CODE.findall(form) if code != "x"]
        self._texts = [(n, width) for n, width, code in self._places() if code == "s"]

    def _places(self) -> Iterator[tuple[int, int, str]]:
        """Of each run of equal codes the number of its first value, its count or width, and the code."""
        at = 0
        for count, code in self._codes:
            yield at, count, code
            at += 1 if code == "s" else count

    def pack(self, *values: Any) -> bytes:
        """The values as bytes.

        Raises:
            FieldError: one of them doesn't fit into its field.
        """
        for n, width in self._texts:
            if len(values[n]) > width:
                raise _too_long(values[n], width)
        try:
            return super().pack(*values)
        except struct.error as e:
            raise self._unfit(values, e) from None

    def pack_into(self, buffer: Any, offset: int, *values: Any) -> None:
        """The same into a buffer. A buffer that is too small is an error of this program: struct.error."""
        data = self.pack(*values)
        if offset < 0 or offset + len(data) > len(buffer):
            raise struct.error(f"{len(data)} bytes at {offset} do not lie in a buffer of {len(buffer)}")
        buffer[offset : offset + len(data)] = data

    def _unfit(self, values: tuple[Any, ...], error: struct.error) -> FieldError | struct.error:
        for at, count, code in self._places():
            for value in values[at : at + count] if code != "s" else ():
                try:
                    struct.pack("<" + code, value)
                except struct.error:
                    return _too_large(value, 8 * struct.calcsize("<" + code))
        return error  # the number of values is wrong: an error of this program


def pack(form: str, *values: Any) -> bytes:
    """`struct.pack` with FieldError for what doesn't fit."""
    return _record(form).pack(*values)


def pack_into(form: str, buffer: Any, offset: int, *values: Any) -> None:
    """`struct.pack_into` with FieldError for what doesn't fit."""
    _record(form).pack_into(buffer, offset, *values)


@lru_cache(512)
def _record(form: str) -> Record:
    return Record(form)


def number(value: int, width: int, what: str = "") -> int:
    """A number for a field of `width` bits, unsigned.

    Args:
        what: names it in the message: `a/b: the size`.

    Raises:
        FieldError: it doesn't fit.
    """
    if not 0 <= value < 1 << width:
        raise _too_large(value, width, what)
    return value


def octal(value: int, digits: int, what: str = "") -> bytes:
    """A number as that many octal digits.

    Raises:
        FieldError: it has more, or is negative.
    """
    if not 0 <= value < 1 << 3 * digits:
        raise _too_large(value, 3 * digits, what)
    return b"%0*o" % (digits, value)


def big_endian(value: int, width: int, what: str = "") -> bytes:
    """A number in `width` bytes, the highest first.

    Raises:
        FieldError: it doesn't fit.
    """
    return number(value, 8 * width, what).to_bytes(width, "big")


def text(value: bytes, width: int, fill: bytes = b"\0") -> bytes:
    """A text in `width` bytes.

    Args:
        fill: what stands behind it.

    Raises:
        FieldError: it is longer.
    """
    if len(value) > width:
        raise _too_long(value, width)
    return value.ljust(width, fill)


def checked(entry: Entry, most: int = MAX_ID, *, names: bool = False) -> Entry:
    """The entry, when it is one that Linux can have: what every writer asks before it writes the first byte.

    Args:
        most: the highest owner's number.
        names: look at the length of the path, too: for a format that has no limit of its own.

    Raises:
        ImageError: it isn't; the message names it.
    """
    wrong = fault(entry, most) or (long_name(entry.path) if names else "")
    if wrong:
        raise ImageError(f"{entry.path[:200]!r} {wrong}", hint="leave it out of the image, or change it there")
    return entry


def _too_large(value: object, bits: int, what: str = "") -> FieldError:
    shown = value if isinstance(value, int) else f"{value!r:.60}"
    return FieldError(f"{what or 'a number'} {shown} does not fit into its field of {bits} bits",
                      hint="take another --format, or put less into the image")  # fmt: skip


def _too_long(value: bytes, width: int) -> FieldError:
    return FieldError(f"{value[:60]!r} has {len(value)} bytes and does not fit into its field of {width}",
                      hint="make it shorter")  # fmt: skip
