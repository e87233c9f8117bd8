"""Results that take time, written once into the derived cache: compressed disks, digests of large files.

    key = sha256( the parts that name the work, the identity of each piece it is made from )

A file of the cache or of the store is named after its content, so a piece of one is identified by its name and place;
any other is read and hashed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

from linuxkit.encode.pieces import Piece, read
from linuxkit.entry import digest_of
from linuxkit.outputs.build import Build

KIND = "disks"


def kept(build: Build, pieces: Sequence[Piece], parts: Sequence[str], write: Callable[[BinaryIO], None]) -> Piece:
    """What `write` makes of some pieces, from the cache when it is there.

    Args:
        parts: what else it depends on: the format, its version, its options.
        write: writes it to an empty file, in which it may move about.

    Raises:
        HostError: the cache can't be written.
    """
    derived, key = build.content.derived, key_of(build, pieces, parts)
    path = derived.get(KIND, key)
    if path is None:
        with derived.put(KIND, key) as out:
            write(out)
        path = derived.path(KIND, key)
    return Piece(path.stat().st_size, str(path))


def sha256(build: Build, pieces: Sequence[Piece]) -> str:
    """The SHA-256 of some pieces in hexadecimal, of large ones computed once."""
    if not any(piece.path for piece in pieces):
        return _hash(pieces).hex()

    def write(out: BinaryIO) -> None:
        out.write(_hash(pieces).hex().encode())

    found = kept(build, pieces, ["sha256"], write)
    return Path(found.path).read_bytes().decode()


def key_of(build: Build, pieces: Sequence[Piece], parts: Sequence[str]) -> str:
    """The key of a result."""
    named = (str(build.content.derived.root), str(build.content.store.root))
    found = [part.encode() for part in parts]
    for piece in pieces:
        found.append(b"%d %d" % (piece.size, piece.offset))
        if not piece.path:
            found.append(piece.data)
            continue
        root = next((root for root in named if piece.path.startswith(f"{root}/")), None)
        if root is not None:
            found.append(piece.path.removeprefix(root).encode(errors="surrogateescape"))
        else:
            found += [b"content", _hash([piece])]
    return digest_of(found)


def _hash(pieces: Sequence[Piece]) -> bytes:
    digest = hashlib.sha256()
    for data in read(pieces):
        digest.update(data)
    return digest.digest()
