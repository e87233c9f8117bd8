"""Where everything is in an ext4 file system: block groups, and the runs of blocks that are free.

    group 0                                                          group 1                  group 2
    superblock | descriptors | reserved | bitmaps, inodes | data …   superblock | … | data    data …

A group has 32768 blocks of 4096 bytes. Groups 0, 1 and the powers of 3, 5 and 7 begin with the superblock, all group
descriptors, and blocks reserved for more of them. The bitmaps and inode tables of a run of groups (flex_bg) follow in
its first one. Data fill what is left, in order; so what a group has in use is always a run from its start.
Documentation/filesystems/ext4/blockgroup.rst
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

BLOCK = 4096
GROUP = 32768  # blocks
INODE = 256
DESCRIPTOR = 64
PER_BLOCK = BLOCK // INODE
#: Most groups for which growth has room in the descriptors' reserve: 2 TiB. Linux has another way beyond.
MAX_RESERVED = 16384
#: Fewest blocks of data for which a last, shorter group is worth having.
LEAST = 50


class Run(NamedTuple):
    """`blocks` blocks from `start`."""

    start: int
    blocks: int


@dataclass(frozen=True)
class Layout:
    """Of a file system with `blocks` blocks and `per_group` inodes in each group, a multiple of 16.

    reserve  leave room for the descriptors of later groups.
    """

    blocks: int
    per_group: int
    reserve: bool = False

    @property
    def groups(self) -> int:
        return -(-self.blocks // GROUP)

    @property
    def inodes(self) -> int:
        return self.groups * self.per_group

    @property
    def descriptors(self) -> int:
        """Blocks of group descriptors."""
        return -(-self.groups * DESCRIPTOR // BLOCK)

    @cached_property
    def reserved(self) -> int:
        """Blocks for the descriptors of later groups: up to 1024 times the size."""
        grown = min(1024 * self.groups, MAX_RESERVED)
        return max(0, -(-grown * DESCRIPTOR // BLOCK) - self.descriptors) if self.reserve else 0

    @property
    def table(self) -> int:
        """Blocks of a group's inode table."""
        return self.per_group // PER_BLOCK

    @cached_property
    def flex(self) -> int:
        """Groups whose bitmaps and inodes are together."""
        found = 16
        while found > 1 and 1 + self.descriptors + self.reserved + found * (2 + self.table) > GROUP // 2:
            found //= 2
        return found

    def length(self, group: int) -> int:
        """Blocks of a group: fewer in the last."""
        return min(GROUP, self.blocks - group * GROUP)

    def copies(self, group: int) -> int:
        """Blocks at a group's start for the superblock and the descriptors, 0 where there are none."""
        return 1 + self.descriptors + self.reserved if has_superblock(group) else 0

    def backups(self) -> list[int]:
        """The groups with copies of the superblock."""
        return [group for group in _sparse(self.groups) if group]

    def members(self, group: int) -> int:
        """Of how many groups the bitmaps and inodes are in this one."""
        return min(self.flex, self.groups - group) if group % self.flex == 0 else 0

    def overhead(self, group: int) -> int:
        """Blocks at a group's start that are no data."""
        return self.copies(group) + self.members(group) * (2 + self.table)

    def places(self, group: int) -> tuple[int, int, int]:
        """The block bitmap, the inode bitmap and the first block of the inode table of a group."""
        home = group - group % self.flex
        start, count, n = home * GROUP + self.copies(home), self.members(home), group % self.flex
        return start + n, start + count + n, start + 2 * count + n * self.table

    def metadata(self) -> int:
        """Blocks that are no data, in all."""
        return len(_sparse(self.groups)) * self.copies(0) + self.groups * (2 + self.table)

    def is_sound(self) -> bool:
        """Whether every group has room for what must be in it."""
        last = self.groups - 1
        if self.blocks < 1 or any(self.overhead(g) > self.length(g) for g in {0, last}):
            return False
        return 1 + self.descriptors + self.reserved + self.flex * (2 + self.table) <= GROUP

    def free(self) -> Iterator[Run]:
        """The runs of blocks for data, in order, those that touch as one."""
        start = end = 0
        for group in range(self.groups):
            first = group * GROUP
            at = first + self.overhead(group)
            if at > end:
                if end > start:
                    yield Run(start, end - start)
                start = at
            end = first + self.length(group)
        if end > start:
            yield Run(start, end - start)


def has_superblock(group: int) -> bool:
    """Whether a group begins with a copy of the superblock (sparse_super)."""
    if group <= 1:
        return True
    for base in (3, 5, 7):
        power = base
        while power < group:
            power *= base
        if power == group:
            return True
    return False


def _sparse(groups: int) -> list[int]:
    found = {0, 1}
    for base in (3, 5, 7):
        power = base
        while power < groups:
            found.add(power)
            power *= base
    return sorted(group for group in found if group < groups)


def trimmed(layout: Layout) -> Layout:
    """The layout without a last group that is too short to be of use."""
    last = layout.groups - 1
    if last and layout.length(last) < layout.overhead(last) + LEAST:
        return Layout(last * GROUP, layout.per_group, layout.reserve)
    return layout


class FullError(Exception):
    """There are no more free blocks."""


class Allocator:
    """Hands out the free blocks of a layout, in order."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._free = layout.free()
        self._at, self._left = 0, 0
        self.used = 0

    @property
    def next(self) -> int:
        """The block after the last that was handed out."""
        return self._at

    def take(self, count: int) -> list[Run]:
        """`count` blocks, in as few runs as there can be.

        Raises:
            FullError: there are fewer.
        """
        runs = []
        while count:
            if not self._left:
                following = next(self._free, None)
                if following is None:
                    raise FullError
                self._at, self._left = following
            size = min(count, self._left)
            runs.append(Run(self._at, size))
            self._at += size
            self._left -= size
            self.used += size
            count -= size
        return runs

    def in_use(self, group: int) -> int:
        """How many blocks of a group, from its start, are in use."""
        first = group * GROUP
        return max(self._layout.overhead(group), min(self._at - first, self._layout.length(group)))
