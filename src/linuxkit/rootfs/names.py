"""What a part of the root filesystem puts where, without its contents: kept in the cache, so that a build in which
nothing changed need not look into any image."""

from __future__ import annotations

import json
from typing import NamedTuple

from linuxkit.entry import Entry, Kind, digest_of
from linuxkit.rootfs.content import Content
from linuxkit.rootfs.segment import Segment

KIND = "segments"
#: Raise it when the same entries give another list.
VERSION = 1


class Name(NamedTuple):
    """An entry of a part, in its order. `target` is that of a link; the rest is an Entry's."""

    path: str
    kind: Kind
    target: str = ""
    mode: int = 0
    uid: int = 0
    gid: int = 0
    location: str = ""


def names_of(segment: Segment, content: Content) -> list[Name]:
    """The names of a part.

    Raises:
        ImageError: an image is missing or damaged.
    """
    if segment.path:
        return [Name(segment.path, Kind.FILE, mode=0o644)]
    if segment.generated or not segment.layers:
        return [_name(entry) for entry in segment.entries()]
    key = digest_of([b"names", b"%d" % VERSION, segment.key.encode()])
    kept = content.derived.get(KIND, key)
    if kept is not None:
        try:
            rows = json.loads(kept.read_bytes())
            return [Name(row[0], Kind(row[1]), *row[2:]) for row in rows]
        except (OSError, ValueError, TypeError, IndexError):
            pass  # damaged: made anew
    names = [_name(entry) for entry in segment.entries()]
    with content.derived.put(KIND, key) as out:
        out.write(json.dumps(names, separators=(",", ":")).encode())
    return names


def _name(entry: Entry) -> Name:
    return Name(entry.path, entry.kind, entry.target, entry.mode, entry.uid, entry.gid, entry.origin[1])
