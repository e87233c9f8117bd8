"""The segment with the bill of materials; what it says is made by the package sbom."""

from __future__ import annotations

from collections.abc import Iterator

from linuxkit.entry import FIXED_MTIME, Bytes, Entry, Kind, digest_of
from linuxkit.plan.model import SbomPlan
from linuxkit.rootfs.content import Content
from linuxkit.rootfs.segment import Segment

#: Raise it when the same images give another document.
VERSION = 5


def sbom_segment(plan: SbomPlan, content: Content) -> Segment:
    """The segment with the one file."""
    from linuxkit.sbom.attested import present

    parts: list[object] = [VERSION, plan.path, plan.format, plan.created, content.whiteouts]
    for prefix, image in plan.images:
        there = present(image, content.store)
        parts += [prefix, image.reference, image.digest, *there]
        if there and content.unsigned(image):
            parts.append("left out")
    key = digest_of([b"sbom", *(str(p).encode() for p in parts)])

    def entries() -> Iterator[Entry]:
        from linuxkit.sbom.make import document, encode

        data = encode(document(plan.images, content, format=plan.format, created=plan.created))
        yield Entry(plan.path, Kind.FILE, 0o644, mtime=FIXED_MTIME, source=Bytes(data))

    return Segment("sbom", key, entries, path=plan.path)
