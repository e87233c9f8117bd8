"""Where inodes stand in an EROFS volume, and the blocks they make up. Used by encode.erofs.

An inode is followed by its attributes, a table of addresses and the end of its data. All of it stays within a block
where it fits into one; Linux wants that of the end. Small ones fill what larger ones leave free, in the last blocks
only: what is near in the tree stays near on the disk.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from linuxkit.encode.erofs_format import BLOCK, SLOT
from linuxkit.encode.pieces import Piece, literal

_OPEN_BLOCKS = 32


class Places:
    """Gives out places from block 1 on. `end` is the first byte behind all blocks in use."""

    def __init__(self) -> None:
        self.end = BLOCK
        self._free: list[tuple[int, int]] = []  # (bytes, where), each to the end of its block

    def place(self, size: int) -> int:
        """A place for some bytes: within a block, or from the start of one on if they are more than a block."""
        size = -(-size // SLOT) * SLOT
        best = (BLOCK + 1, 0)
        for gap in self._free:
            if size <= gap[0] < best[0]:
                best = gap
        if best[0] <= BLOCK:
            self._free.remove(best)
        else:
            best = (-(-size // BLOCK) * BLOCK, self.end)
            self.end += best[0]
        room, at = best
        if room > size:
            self._free.append((room - size, at + size))
            del self._free[:-_OPEN_BLOCKS]
        return at


class Placed(NamedTuple):
    """An inode as it is written: `data` at the byte `at`, and right behind it the end of its data."""

    at: int
    data: bytes
    tail: list[Piece]


def blocks_of(items: Iterable[Placed], end: int) -> list[Piece]:
    """The blocks from 1 to `end`: what is at hand as bytes, ends of files as runs of their sources."""
    made: list[Piece] = []
    pending, at = bytearray(), BLOCK
    for item in sorted(items, key=lambda item: item.at):
        pending += bytes(item.at - at)
        pending += item.data
        at = item.at + len(item.data)
        for piece in item.tail:
            at += piece.size
            if not piece.path:
                pending += piece.data or bytes(piece.size)
                continue
            made += [literal(bytes(pending)), piece]
            pending.clear()
    pending += bytes(end - at)
    return [*made, literal(bytes(pending))] if pending else made
