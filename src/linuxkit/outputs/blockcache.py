"""Compressed blocks in the derived cache: a squashfs Shelf that outlives the build.

    derived/blocks/<image>-<number>      all that one image had to compress, end to end
    derived/blocks/<how>-<group>.json    where the contents of one archive (a layer, as a rule) are in such files

So an image is made of runs of a few large files, those of what it shares with an earlier one among them. A file of
blocks is never written again: what names a run of it can rely on it for as long as the cache has the file.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Any, BinaryIO, Self

from linuxkit.encode.pieces import Piece
from linuxkit.encode.squashfs_data import Packed, identity
from linuxkit.entry import Source
from linuxkit.oci.derived import Derived

KIND = "blocks"
VERSION = 1
#: Contents that nothing asked for are kept in an index up to so many times the others, and this many.
SPARE, SPARE_ROWS = 2, 1000
#: Bytes after which the disk is set to work, so that little is left to wait for at the end.
SYNC = 16 << 20


class BlockCache:
    """A Shelf, and a context manager: what it was given counts when it ends without an error.

    Args:
        how: everything but the content that decides a compressed block.
        image: what the file of new blocks is named after.
    """

    def __init__(self, derived: Derived, how: str, image: str) -> None:
        self._derived, self._how = derived, hashlib.sha256(how.encode()).hexdigest()[:16]
        self._groups: dict[str, _Group] = {}
        self._stack = ExitStack()
        self._name = f"{image.removeprefix('sha256:')[:32]}-{os.urandom(8).hex()}"
        self._path = str(derived.path(KIND, self._name))
        self._out: BinaryIO | None = None
        self._at = self._synced = 0
        self._sync: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._sync is not None:
            self._sync.join()
        self._stack.__exit__(kind, error, trace)
        if kind is None:
            for group in self._groups.values():
                group.save()

    def identity(self, source: Source) -> tuple[str, str]:
        group, key = identity(source)
        return group.rpartition("/")[2], key  # these files are named after their content

    def get(self, group: str, key: str) -> Packed | None:
        return self._group(group).get(key)

    def add(self, data: bytes) -> Piece:
        if self._out is None:
            self._out = self._stack.enter_context(self._derived.put(KIND, self._name))
        self._out.write(data)
        self._at += len(data)
        if self._at - self._synced >= SYNC and (self._sync is None or not self._sync.is_alive()):
            self._synced = self._at
            self._out.flush()
            self._sync = threading.Thread(target=_to_disk, args=(self._out.fileno(),))
            self._sync.start()
        return Piece(len(data), self._path, self._at - len(data))

    def note(self, group: str, key: str, packed: Packed) -> None:
        self._group(group).note(key, packed)

    def _group(self, name: str) -> _Group:
        found = self._groups.get(name)
        if found is None:
            key = f"{self._how}-{hashlib.sha256(name.encode(errors='surrogateescape')).hexdigest()[:32]}.json"
            found = self._groups[name] = _Group(self._derived, key)
        return found


def _to_disk(fd: int) -> None:
    with suppress(OSError):  # it comes again at the end, where it counts
        os.fdatasync(fd)


class _Group:
    """The index of one archive: {key: [words, blocks, end, [[file, offset, size], …]]}."""

    def __init__(self, derived: Derived, key: str) -> None:
        self._derived, self._key = derived, key
        self._rows: dict[str, list[Any]] = {}
        self._paths: dict[str, str | None] = {}
        self._used: set[str] = set()
        self._changed = False
        path = derived.get(KIND, key)
        if path is not None:
            try:
                document = json.loads(path.read_bytes())
                if document["version"] == VERSION:
                    self._rows = document["rows"]
            except (OSError, ValueError, KeyError, TypeError):
                pass  # damaged: made anew

    def get(self, key: str) -> Packed | None:
        row = self._rows.get(key)
        if row is None:
            return None
        try:
            words, blocks, end, runs = row
            pieces = tuple(self._piece(*run) for run in runs) if runs else ()
            packed = Packed(bytes.fromhex(words), pieces, bytes.fromhex(blocks), bytes.fromhex(end))
        except (LookupError, ValueError, TypeError):
            del self._rows[key]
            self._changed = True
            return None
        self._used.add(key)
        return packed

    def note(self, key: str, packed: Packed) -> None:
        runs = [[os.path.basename(p.path), p.offset, p.size] for p in packed.pieces]  # noqa: PTH119
        self._rows[key] = [packed.words.hex(), packed.blocks.hex(), packed.end.hex(), runs]
        self._used.add(key)
        self._changed = True

    def save(self) -> None:
        if not self._changed:
            return
        rows = self._rows
        if len(rows) > SPARE * len(self._used) + SPARE_ROWS:
            rows = {key: row for key, row in rows.items() if key in self._used}
        document = {"version": VERSION, "rows": rows}
        with self._derived.put(KIND, self._key) as out:
            out.write(json.dumps(document, separators=(",", ":")).encode())

    def _piece(self, name: str, offset: int, size: int) -> Piece:
        if name not in self._paths:
            found = self._derived.get(KIND, name)
            self._paths[name] = str(found) if found is not None else None
        path = self._paths[name]
        if path is None:
            raise LookupError(name)
        return Piece(int(size), path, int(offset))
