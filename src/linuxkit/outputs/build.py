"""What every output is made from: the plan, its segments, and the way to encode them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from linuxkit.encode.authenticode import Signer
from linuxkit.encode.compress import Codec
from linuxkit.encode.pieces import Piece
from linuxkit.encode.tree import Node
from linuxkit.entry import FIXED_MTIME, Entry, Kind, read_all
from linuxkit.errors import ImageError
from linuxkit.outputs.encoder import Encoder
from linuxkit.outputs.root import root_key, root_tree
from linuxkit.plan.model import BuildPlan
from linuxkit.rootfs.assemble import assemble, generated
from linuxkit.rootfs.content import Content
from linuxkit.rootfs.join import Joined, join
from linuxkit.rootfs.kernel import Boot, boot_files
from linuxkit.rootfs.segment import Segment

MAX_LOADER = 16 << 20


class DataPartition(NamedTuple):
    """A partition with an empty file system, of `size` bytes."""

    size: int
    label: str


@dataclass(frozen=True)
class Build:
    """One build. `codec` and `level` are for initrds and squashfs; a level of None is the codec's default.
    `erofs` is the codec of an EROFS: none, as with mkfs.erofs, unless one was asked for.

    `size` is that of a disk in bytes, as asked for: 0 is as small as its content. `signer` signs EFI programs. `qcow2`
    is how qcow2 files are compressed: zlib, zstd, or empty for not at all.
    `disk_root` is the filesystem of a disk's root partition; empty: the root is in an initrd. With `verity`, every
    root on a device has a hash tree. `data` is a partition of disks for what the machine keeps. `one_archive` is for
    initrds.
    """

    plan: BuildPlan
    content: Content
    encoder: Encoder
    codec: Codec = Codec.ZSTD
    level: int | None = None
    size: int = 0
    signer: Signer | None = None
    erofs: Codec = Codec.NONE
    qcow2: str = ""
    disk_root: str = ""
    verity: bool = False
    data: DataPartition | None = None
    one_archive: bool = False

    def segments(self, *, boot: bool) -> list[Segment]:
        """The root filesystem in parts; with the kernel under boot/ or without.

        Raises:
            ImageError: the parts make no tree together; an image is missing or damaged.
        """
        return (self._with_boot if boot else self.joined).segments

    @cached_property
    def joined(self) -> Joined:
        """The parts without the kernel, and what they change of each other."""
        return join(assemble(self.plan, self.content, boot=False), self.content)

    @cached_property
    def _with_boot(self) -> Joined:
        return join(assemble(self.plan, self.content, boot=True), self.content)

    @cached_property
    def boot(self) -> Boot:
        """The kernel, its command line and microcode."""
        return boot_files(self.plan.kernel, self.content)

    @cached_property
    def initrd(self) -> tuple[Piece, ...]:
        """The root filesystem as an initrd, without microcode; for our own guest with marks at both ends, by which it
        sees that Linux unpacked all of it (guest/src/unpacked.c)."""
        segments = self.segments(boot=False)
        if self.plan.guest:
            segments = [_mark("begin"), *segments, _mark("end")]
        return tuple(self.encoder.cpio(segments, self.codec, self.level, one=self.one_archive))

    @cached_property
    def root(self) -> Node:
        """The root filesystem as one tree, boot/ empty."""
        return self.tree()

    def tree(self, more: Iterable[Entry] = ()) -> Node:
        """The same with further entries, which replace others of their path."""
        return root_tree(self.segments(boot=False), self.content, more)

    @cached_property
    def root_key(self) -> str:
        """What `root` depends on."""
        return root_key(self.segments(boot=False))

    @property
    def seed(self) -> str:
        """What GUIDs and serial numbers are derived from."""
        return self.plan.seed

    def loader(self, package: str, path: str) -> bytes:
        """A file of a kit package that holds boot loaders.

        Raises:
            ImageError: the package hasn't got it.
        """
        image = dict(self.plan.loaders)[package]
        for entry in self.content.tree(image):
            if entry.path == path:
                return read_all(entry.source, MAX_LOADER)
        raise ImageError(f"kit://{package} has no {path} for {self.plan.architecture}")


def _mark(name: str) -> Segment:
    return generated(f"initramfs.{name}", [Entry(f".initramfs-{name}", Kind.FILE, 0o400, mtime=FIXED_MTIME)])
