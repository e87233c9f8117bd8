"""BuildPlan → Segments: the root filesystem in parts, each of which can be cached.

    kernel            boot, and kernel.tar's members
    boot              boot/cmdline, boot/kernel, boot/ucode.cpio     (archives of the whole root only)
    init[N]           one for each init image
    init.apk          the package databases of several init images as one
    volume/NAME       an image's tree, or an OCI layout
    SECTION/NAME      a container's tree
    containers        everything small around the trees: config.json, runtime.json, empty directories, the boot plan
    files             the section of that name
    mount points      of read-only containers, where their images have none
    sbom

A later segment's entry replaces an earlier one's of the same path.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from linuxkit.entry import FIXED_MTIME, MAX_MODE, Bytes, Entry, Kind, digest_of, read_all
from linuxkit.follow import follow
from linuxkit.plan.model import (
    BuildPlan,
    BundlePlan,
    KernelPlan,
    PlannedFile,
    Tree,
    VolumePlan,
    canonical,
    content_of,
)
from linuxkit.rootfs import flatten as flat
from linuxkit.rootfs import kernel as krn
from linuxkit.rootfs.content import Content, HostFile, layers_of
from linuxkit.rootfs.mountpoints import mount_points
from linuxkit.rootfs.segment import Segment
from linuxkit.runtime.json import go_json

#: Raise it when the same plan gives other entries for a reason that flatten.VERSION does not cover.
VERSION = 1
APK_DATABASE = "lib/apk/db/installed"
#: A `files:` section over this many bytes is worth a place in the cache.
SMALL = 4 << 20


def assemble(plan: BuildPlan, content: Content, *, boot: bool) -> list[Segment]:
    """The segments of a plan, in order.

    Args:
        boot: with the kernel and its command line as files.
    """
    segments: list[Segment] = []
    if plan.kernel is not None:
        segments += _kernel(plan.kernel, content, boot)
    segments += [_tree(tree, f"init[{n}]", content) for n, tree in enumerate(plan.init)]
    if len(plan.init) > 1:
        segments.append(_apk(plan.init, content))
    for volume in plan.volumes:
        if volume.layout is not None:
            from linuxkit.rootfs.layout import layout_segment

            segments.append(layout_segment(volume, content))
        elif volume.tree is not None:
            segments.append(_tree(volume.tree, f"volume/{volume.name}", content))
    segments += [_tree(b.tree, f"{b.section}/{b.name}", content) for b in plan.bundles if b.tree is not None]
    if plan.volumes or plan.bundles or plan.guest:
        around = [*_around_volumes(plan.volumes), *_around_bundles(plan.bundles), *_nodes(plan.guest)]
        segments.append(generated("containers", around))
    if plan.files:
        small = sum(f.source.size if f.source else len(f.data) for f in plan.files) <= SMALL
        segments.append(_files(plan.files, small))
    if plan.guest and (points := list(mount_points(plan.bundles))):  # others get LinuxKit's tree
        segments.append(replace(generated("mount points", points), missing=True))
    if plan.sbom is not None:
        from linuxkit.rootfs.sbom import sbom_segment

        segments.append(sbom_segment(plan.sbom, content))
    return segments


def generated(name: str, entries: Sequence[Entry]) -> Segment:
    """A segment of small entries that are at hand. Its key is made of them, so that nothing can be forgotten."""
    return Segment(name, _key("generated", *map(_identity, entries)), lambda: entries, generated=True)


def _key(*parts: object) -> str:
    return digest_of(p if isinstance(p, bytes) else str(p).encode(errors="surrogateescape") for p in (VERSION, *parts))


def _identity(entry: Entry) -> bytes:
    body = read_all(entry.source, SMALL)
    return digest_of([repr((
        entry.path, entry.kind, entry.mode, entry.uid, entry.gid, entry.mtime, entry.target, entry.device, entry.xattrs,
    )).encode(), body]).encode()  # fmt: skip


def _tree(tree: Tree, name: str, content: Content) -> Segment:
    layers = layers_of(tree.image)
    key = _key("tree", flat.VERSION, content.whiteouts, tree.bundle, tree.prefix, *(diff_id for _, diff_id in layers))
    return Segment(
        name, key,
        lambda: flat.flatten(content.tree(tree.image), tree.prefix, tree.origin, bundle=tree.bundle),
        tree.origin, layers, prefix=tree.prefix,
    )  # fmt: skip


def _kernel(plan: KernelPlan, content: Content, boot: bool) -> Iterator[Segment]:
    layers = layers_of(plan.image)
    parts = ("kernel", content.whiteouts, *(diff_id for _, diff_id in layers), plan.binary, plan.tar)
    yield Segment("kernel", _key(*parts), lambda: krn.module_entries(plan, content), plan.origin, layers)
    if boot:
        key = _key("boot", *parts, plan.ucode, plan.decompress, plan.cmdline)
        yield Segment("boot", key, lambda: krn.boot_entries(plan, content), plan.origin, layers)


def _apk(trees: Sequence[Tree], content: Content) -> Segment:
    """One package database out of several: each image brings only its own, and the last would hide the others."""
    origin = ("LINUXKIT.apkinit", "init")
    layers = tuple(layer for tree in trees for layer in layers_of(tree.image))

    def entries() -> Iterator[Entry]:
        found = []
        for tree in trees:
            entries = {e.path: e for e in content.tree(tree.image)}
            entry = entries.get(follow(APK_DATABASE, flat.link_in(entries)))
            if entry is not None and entry.kind is Kind.FILE:
                found.append(read_all(entry.source, 256 << 20))
        if len(found) > 1:
            data = b"".join(text + b"\n\n" for text in found)
            yield Entry(APK_DATABASE, Kind.FILE, 0o644, mtime=FIXED_MTIME, source=Bytes(data), origin=origin)

    key = _key("apk", content.whiteouts, *(diff_id for _, diff_id in layers))
    return Segment("init.apk", key, entries, origin, layers)


def _directory(path: str, origin: tuple[str, str]) -> Entry:
    return Entry(path, Kind.DIRECTORY, 0o755, mtime=FIXED_MTIME, origin=origin)


def _around_volumes(volumes: Iterable[VolumePlan]) -> Iterator[Entry]:
    for volume in volumes:
        if volume.tree is None and volume.layout is None:
            yield from flat.leading(f"{volume.directory}/lower", volume.origin)
        yield _directory(f"{volume.directory}/tmp", volume.own_origin)
        yield _directory(f"{volume.directory}/merged", volume.own_origin)


def _around_bundles(bundles: Iterable[BundlePlan]) -> Iterator[Entry]:
    for bundle in bundles:
        made = Entry("", Kind.FILE, 0o644, mtime=FIXED_MTIME, origin=bundle.origin)
        yield from flat.leading(bundle.directory, bundle.origin)
        yield _file(made, f"{bundle.directory}/config.json", go_json(bundle.config))
        if not bundle.readonly:
            yield _directory(f"{bundle.directory}/tmp", bundle.origin)
        if not (bundle.readonly and bundle.tree is not None):
            yield _directory(f"{bundle.directory}/rootfs", bundle.origin)
        yield _file(made, f"{bundle.directory}/runtime.json", go_json(bundle.runtime))


def _file(like: Entry, path: str, data: bytes) -> Entry:
    return replace(like, path=path, source=Bytes(data))


def _nodes(files: Iterable[PlannedFile]) -> Iterator[Entry]:
    for file in files:
        source: Bytes | HostFile | None = None
        if file.source is not None:
            source = HostFile(file.source.path, file.source.size, file.source.digest)
        elif file.kind is Kind.FILE:
            source = Bytes(file.data)
        yield Entry(
            file.path, file.kind, file.mode & MAX_MODE, file.uid, file.gid, FIXED_MTIME, file.target, source=source,
            origin=file.origin,
        )  # fmt: skip


def _files(files: Sequence[PlannedFile], small: bool) -> Segment:
    described = canonical([content_of(files), [file.origin for file in files]])
    return Segment("files", _key("files", described), lambda: _nodes(files), generated=small)
