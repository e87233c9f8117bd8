"""The kernel image: the kernel itself, its modules and the processor's microcode.

A kernel image is an image whose root holds at least the file `kernel` and normally `kernel.tar`, whose members go into
the root filesystem as they are. Members are found by their exact name.
"""

from __future__ import annotations

import mmap
import posixpath
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

from linuxkit.entry import FIXED_MTIME, Bytes, Entry, Extent, Kind, Source, read_all
from linuxkit.errors import ImageError
from linuxkit.oci.media import Image
from linuxkit.oci.merge import at_their_places
from linuxkit.oci.tarread import read_tar
from linuxkit.plan.model import KernelPlan
from linuxkit.rootfs.content import Content

MAX_KERNEL = 1 << 30
MAX_LINKS = 40  # as the kernel follows

@dataclass(frozen=True, slots=True)
class Boot:
    """What boots, beside the root filesystem."""

    cmdline: bytes = b""
    kernel: Source | None = None
    kernel_mode: int = 0o644
    ucode: Source | None = None


def boot_files(plan: KernelPlan | None, content: Content) -> Boot:
    """The kernel, its command line and microcode.

    Raises:
        ImageError: the image lacks one of them, or the kernel cannot be decompressed.
    """
    if plan is None:
        return Boot()
    tree = {entry.path: entry for entry in content.tree(plan.image)}
    kernel = _member(tree, plan.binary, "kernel", plan.image)
    ucode = _member(tree, plan.ucode, "microcode", plan.image).source if plan.ucode else None
    source = kernel.source or Bytes(b"")
    if plan.decompress:
        source = _decompressed(source, plan, content)
    return Boot(plan.cmdline.encode("utf-8", "surrogateescape"), source, kernel.mode, ucode)


def boot_entries(plan: KernelPlan, content: Content) -> Iterator[Entry]:
    """The files of boot/, as an archive of the whole root has them."""
    boot = boot_files(plan, content)
    made = Entry("boot/cmdline", Kind.FILE, 0o644, mtime=FIXED_MTIME, origin=plan.origin)
    yield replace(made, source=Bytes(boot.cmdline))
    yield replace(made, path="boot/kernel", mode=boot.kernel_mode, source=boot.kernel)
    if boot.ucode is not None:
        yield replace(made, path="boot/ucode.cpio", source=boot.ucode)


def module_entries(plan: KernelPlan, content: Content) -> Iterator[Entry]:
    """The directory boot, and what kernel.tar holds.

    Raises:
        ImageError: the image has no such tar, or it is damaged or leads out of the root.
    """
    tree = {entry.path: entry for entry in content.tree(plan.image)}
    _member(tree, plan.binary, "kernel", plan.image)
    yield Entry("boot", Kind.DIRECTORY, 0o755, mtime=FIXED_MTIME, origin=plan.origin)
    if not plan.tar:
        return
    found: dict[str, Entry] = {}
    members = list(_tar_entries(_member(tree, plan.tar, "kernel tar", plan.image), plan))
    for entry in at_their_places([members], f"{plan.tar} of kernel image {plan.image.reference}")[0]:
        found[entry.path] = entry
    links = [e for e in found.values() if e.kind is Kind.HARDLINK]
    yield from (found[path] for path in sorted(found) if found[path].kind is not Kind.HARDLINK)
    yield from sorted(links, key=lambda e: e.path)


def members_of(plan: KernelPlan, tar: str, content: Content) -> list[Entry] | None:
    """The members of any tar in the kernel's image; None when it has no such file.

    Raises:
        ImageError: it is damaged, or leads out of the root.
    """
    tree = {entry.path: entry for entry in content.tree(plan.image)}
    if tar not in tree:
        return None
    return list(_tar_entries(_member(tree, tar, "kernel tar", plan.image), replace(plan, tar=tar)))


def _member(tree: dict[str, Entry], name: str, what: str, image: Image) -> Entry:
    entry, path = tree.get(name), name
    for _ in range(MAX_LINKS):
        if entry is None or entry.kind not in (Kind.HARDLINK, Kind.SYMLINK):
            break
        beside = "" if entry.kind is Kind.HARDLINK or entry.target.startswith("/") else posixpath.dirname(path)
        path = posixpath.normpath(posixpath.join("/", beside, entry.target)).lstrip("/")
        entry = tree.get(path)
    linked = path != name or (entry is not None and entry.kind is Kind.SYMLINK)
    if linked and (entry is None or entry.kind is not Kind.FILE):
        raise ImageError(f"the {what} '{name}' in kernel image {image.reference} is a link to {path}, which is no file",
                         hint="use an image whose link leads to a file of it")  # fmt: skip
    if entry is None or entry.kind is not Kind.FILE:
        raise ImageError(
            f"did not find the {what} '{name}' in kernel image {image.reference}",
            hint=f"it has {', '.join(sorted(p for p in tree if '/' not in p)[:10]) or 'no files'}",
        )
    return entry


def _tar_entries(member: Entry, plan: KernelPlan) -> Iterator[Entry]:
    """The members of a tar inside an image: runs of the very file on disk that the image's layer is."""
    source = member.source
    if source is None:
        return
    where = f"{plan.tar} of kernel image {plan.image.reference}"
    assert isinstance(source, Extent)  # of a layer
    with (
        open(source.file, "rb") as stream,
        mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
        memoryview(mapped) as whole,
        whole[source.offset : source.offset + source.size] as view,
    ):
        rows = read_tar(view, where)
    for row in rows:
        content = Extent(source.file, source.offset + row.offset, row.size) if row.size else None
        yield Entry(
            row.path, Kind(row.kind), row.mode, row.uid, row.gid, row.mtime, row.target, (row.major, row.minor),
            row.xattrs, content, plan.origin,
        )  # fmt: skip


def _decompressed(source: Source, plan: KernelPlan, content: Content) -> Source:
    """The kernel unpacked: through the cache, since it takes as long as the rest of a build."""
    key = f"kernel-1-{plan.image.digest}-{plan.binary}"
    found = content.derived.get("blocks", key)
    if found is None:
        data = decompress_kernel(read_all(source, MAX_KERNEL))
        with content.derived.put("blocks", key) as out:
            out.write(data)
        found = content.derived.path("blocks", key)
    return Extent(str(found), 0, found.stat().st_size)


def decompress_kernel(data: bytes) -> bytes:
    """The gzip stream that `data` is, or that an x86 bzImage carries (Documentation/arch/x86/boot.rst in Linux).

    Raises:
        ImageError: there is no gzip stream in it.
    """
    if data[:2] == b"\x1f\x8b":
        return _gunzip(data)
    if len(data) > 0x250 and data[0x1FE:0x200] == b"\x55\xaa" and data[0x202:0x206] == b"HdrS":
        offset, length = struct.unpack_from("<II", data, 0x248)
        start = (data[0x1F1] + 1) * 512 + offset
        payload = data[start : start + length]
        if payload[:2] == b"\x1f\x8b":
            return _gunzip(payload)
        raise ImageError(
            f"unsupported bzImage payload format: it starts with {payload[:4].hex() or 'nothing'}",
            hint="only gzip can be unpacked; build without --decompress-kernel, every loader takes the kernel as it is",
        )
    raise ImageError("no compressed kernel or no supported format found", hint="build without --decompress-kernel")


def _gunzip(data: bytes) -> bytes:
    unpack = zlib.decompressobj(31)
    try:
        made = unpack.decompress(data, MAX_KERNEL)
    except zlib.error as e:
        raise ImageError(f"the kernel's gzip stream is damaged: {e}") from e
    if not unpack.eof:
        raise ImageError("the kernel's gzip stream is cut off, or larger than 1 GiB")
    return made
