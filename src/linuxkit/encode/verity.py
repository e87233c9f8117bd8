"""dm-verity hash trees: what proves that no block of a read-only device was changed.

Specification: Linux, Documentation/admin-guide/device-mapper/verity.rst; hash format 1, SHA-256, blocks of 4096 bytes.

    data, padded to blocks | [ superblock ] | level N-1, one block | … | level 1 | level 0        root first
    digest = SHA-256(salt | block); 128 digests are a block of the level above, the last of which is padded with zeros
    root hash = digest of level N-1's block; of the data itself when that is a single block, which has no levels

The kernel gets everything on the command line; the superblock, which only `veritysetup` reads, is left out by default.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from linuxkit.encode import fields
from linuxkit.encode.pieces import Piece, became_shorter, hole, literal

#: Goes into cache keys: raise it when the tree of the same data changes.
VERSION = 1
BLOCK = 4096
DIGEST = 32
#: Longest salt that a superblock, and the kernel, can take.
MAX_SALT = 256
_PER_BLOCK = BLOCK // DIGEST
_CHUNK = 256 * BLOCK
_SUPERBLOCK = fields.Record("<8sII16s32sIIQH6x256s168x")


@dataclass(frozen=True)
class Verity:
    """The hash tree of some data.

    levels     root first, each a whole number of blocks; none for a single block of data.
    root_hash  what the tree, and so the data, is proven by.
    salt       what each digest begins with.
    blocks     of data, 4096 bytes each: where, in blocks, a tree behind its data begins.
    """

    levels: tuple[bytes, ...]
    root_hash: bytes
    salt: bytes
    blocks: int

    @cached_property
    def pieces(self) -> tuple[Piece, ...]:
        """The tree as it is stored, without superblock."""
        return tuple(literal(level) for level in self.levels)

    @property
    def size(self) -> int:
        """Bytes of the tree."""
        return sum(map(len, self.levels))

    def argument(self, hash_start: int | None = None) -> str:
        """VERSION:BLOCKS:HASHSTART:SALT:ROOTHASH, for the kernel command line; `-` for no salt.

        Args:
            hash_start: the block of the device at which the tree begins; None is right behind the data.
        """
        start = self.blocks if hash_start is None else hash_start
        return f"1:{self.blocks}:{start}:{self.salt.hex() or '-'}:{self.root_hash.hex()}"

    def superblock(self, uuid: bytes) -> bytes:
        """A block to stand before the tree, for `veritysetup` without parameters.

        Args:
            uuid: 16 bytes.
        """
        return _SUPERBLOCK.pack(
            b"verity\0\0", 1, 1, uuid, b"sha256", BLOCK, BLOCK, self.blocks, len(self.salt), self.salt
        ).ljust(BLOCK, b"\0")


def tree(pieces: Iterable[Piece], salt: bytes) -> Verity:
    """The hash tree of pieces, padded to whole blocks. Needs 1/127 of the data's size in memory; holes cost nothing.

    Raises:
        ImageError: a cached file became shorter.
        ValueError: there is no data, or the salt is too long.
    """
    if len(salt) > MAX_SALT:
        raise ValueError(f"a salt of {len(salt)} bytes is over the limit of {MAX_SALT}")
    base = hashlib.sha256(salt)
    level = _digests(_chunks(pieces), base)
    if not level:
        raise ValueError("no data to make a hash tree of")
    blocks = len(level) // DIGEST
    levels: list[bytes] = []
    while len(level) > DIGEST:
        level += bytes(-len(level) % BLOCK)
        levels.append(bytes(level))
        level = _digests(_chunks([literal(levels[-1])]), base)
    return Verity(tuple(reversed(levels)), bytes(level), salt, blocks)


def padding(pieces: Iterable[Piece]) -> list[Piece]:
    """What is missing behind pieces to whole blocks: the data that `tree` has taken them for."""
    rest = -sum(piece.size for piece in pieces) % BLOCK
    return [hole(rest)] if rest else []


def _digests(chunks: Iterable[memoryview | int], base: hashlib._Hash) -> bytearray:
    zero = base.copy()
    zero.update(bytes(BLOCK))
    of_zeros, made = zero.digest(), bytearray()
    for chunk in chunks:
        if isinstance(chunk, int):
            made += of_zeros * chunk
            continue
        found = []
        for at in range(0, len(chunk), BLOCK):
            state = base.copy()
            state.update(chunk[at : at + BLOCK])
            found.append(state.digest())
        made += b"".join(found)
    return made


def _chunks(pieces: Iterable[Piece]) -> Iterator[memoryview | int]:
    """The bytes of pieces in whole blocks; where they are holes, a number of blocks. A chunk is good until the next."""
    buffer = memoryview(bytearray(_CHUNK))
    filled, path, fd = 0, "", -1
    try:
        for piece in pieces:
            done = 0
            if piece.path and piece.path != path:
                if fd >= 0:
                    os.close(fd)
                fd, path = os.open(piece.path, os.O_RDONLY | os.O_CLOEXEC), piece.path
            while done < piece.size:
                if piece.is_hole and not filled % BLOCK and piece.size - done >= BLOCK:
                    if filled:
                        yield buffer[:filled]
                        filled = 0
                    yield (piece.size - done) // BLOCK
                    done += (piece.size - done) // BLOCK * BLOCK
                    continue
                take = min(piece.size - done, _CHUNK - filled)
                if piece.is_hole:
                    take = min(take, -filled % BLOCK or BLOCK)
                    buffer[filled : filled + take] = bytes(take)
                elif not piece.path:
                    buffer[filled : filled + take] = memoryview(piece.data)[done : done + take]
                elif os.preadv(fd, [buffer[filled : filled + take]], piece.offset + done) != take:
                    raise became_shorter(piece.path)
                done += take
                filled += take
                if filled == _CHUNK:
                    yield buffer
                    filled = 0
        if filled:
            whole = -(-filled // BLOCK) * BLOCK
            buffer[filled:whole] = bytes(whole - filled)
            yield buffer[:whole]
    finally:
        if fd >= 0:
            os.close(fd)
