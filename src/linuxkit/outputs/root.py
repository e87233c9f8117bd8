"""The root filesystem as one tree: what file systems are made from. boot/ stays empty, as in an initrd."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from linuxkit.encode.tree import Node, tree
from linuxkit.entry import Entry, Extent, digest_of
from linuxkit.errors import ImageError
from linuxkit.rootfs.content import Content, HostFile
from linuxkit.rootfs.segment import Segment

#: Files of the build host up to this many bytes are read where they stand.
SMALL = 1 << 20
MAX_OWNER = 0xFFFFFFFF


def root_key(segments: Iterable[Segment]) -> str:
    """`sha256:…` of all that the tree depends on."""
    return digest_of([b"root", *(segment.key.encode() for segment in segments)])


def root_tree(segments: Sequence[Segment], content: Content, more: Iterable[Entry] = ()) -> Node:
    """The segments as one tree.

    Args:
        more: further entries, which replace others of their path, under boot/ too.

    Raises:
        ImageError: a layer is missing or damaged, or something lies below a file.
        HostError: a file of the build host changed since the build was planned.
    """
    layers = {diff_id: (layer, diff_id) for segment in segments for layer, diff_id in segment.layers}
    if any(content.derived.get("layers", f"{diff_id[7:]}.tar") is None for diff_id in layers):
        try:
            content.layers.prefetch(list(layers.values()))
        except ImageError:
            pass  # comes again below, where it is known whose layer that is
    return tree([*_entries(segments, content), *more])


def _entries(segments: Sequence[Segment], content: Content) -> Iterator[Entry]:
    for segment in segments:
        try:
            for entry in segment.entries():
                if not (0 <= entry.uid <= MAX_OWNER and 0 <= entry.gid <= MAX_OWNER):
                    raise ImageError(f"{entry.path} belongs to user {entry.uid}, group {entry.gid}: more than 32 bits")
                if not entry.path.startswith("boot/"):
                    yield _kept(entry, content)
        except ImageError as e:
            if not segment.layers or not segment.origin[0]:
                raise
            raise ImageError(f"image {segment.origin[0]}: {e.message}", hint=e.hint) from e


def _kept(entry: Entry, content: Content) -> Entry:
    """A large file of the build host, as a copy in the cache: it can be a run of an image then, and can't change."""
    source = entry.source
    if not isinstance(source, HostFile) or source.size <= SMALL:
        return entry
    key = f"file-{source.digest[7:]}"
    found = content.derived.get("blocks", key)
    if found is None:
        with content.derived.put("blocks", key) as out, source.open() as stream:
            while data := stream.read(1 << 20):
                out.write(data)
        found = content.derived.path("blocks", key)
    return replace(entry, source=Extent(str(found), 0, source.size))
