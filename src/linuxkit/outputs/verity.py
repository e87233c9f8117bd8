"""A filesystem with its hash tree behind it, on one device: what --verity adds.

    filesystem, padded to blocks of 4096 bytes | hash tree, root first

The tree is made once and kept in the derived cache, its root hash at the end of the file.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from linuxkit.encode import verity
from linuxkit.encode.pieces import Piece, size_of
from linuxkit.entry import digest_of
from linuxkit.outputs.build import Build

KIND = "filesystems"
_DIGEST = verity.DIGEST


def with_tree(build: Build, image: Sequence[Piece]) -> tuple[list[Piece], str]:
    """A filesystem and its tree, and what stands behind linuxkit.verity= on the command line for them.

    Raises:
        ImageError: a file of the cache is damaged.
    """
    data = [*image, *verity.padding(image)]
    salt = bytes.fromhex(digest_of([b"verity", build.seed.encode()]).removeprefix("sha256:"))
    key = digest_of([b"verity tree", b"%d" % verity.VERSION, salt, *(repr(piece).encode() for piece in image)])
    derived, counts = build.content.derived, build.encoder.counts
    counts.segments += 1
    path = derived.get(KIND, key)
    counts.cached += path is not None
    if path is None:
        made = verity.tree(data, salt)
        with derived.put(KIND, key) as out:
            out.writelines([*made.levels, made.root_hash])
        path = derived.path(KIND, key)
    size = path.stat().st_size - _DIGEST
    with path.open("rb") as stream:
        root_hash = os.pread(stream.fileno(), _DIGEST, size)
    blocks = size_of(data) // verity.BLOCK
    word = verity.Verity((), root_hash, salt, blocks).argument()
    return [*data, Piece(size, str(path))] if size else data, word
