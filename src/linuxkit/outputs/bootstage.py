"""A root filesystem on a device: the boot initrd that finds it, and the command line that says where it is.

    boot initrd = /init, /sbin/modprobe (kit://bootstage) | lib/modules/RELEASE: what is between the kernel and its root

The modules are those of the image's own kernel, with all that they need and indexes that know of no others. A kernel
that finds its root by itself gets no boot initrd. docs/design/root-on-disk.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from linuxkit.encode.pieces import Piece
from linuxkit.entry import Entry, digest_of
from linuxkit.errors import ImageError, InputError
from linuxkit.outputs.build import Build
from linuxkit.outputs.modules import Modules, modules_in
from linuxkit.plan.asked import BOOTSTAGE
from linuxkit.rootfs.content import layers_of
from linuxkit.rootfs.kernel import members_of
from linuxkit.rootfs.segment import Segment

#: Raise it when the same inputs give another boot initrd.
VERSION = 1
#: The tar of a kernel image that has every module, where there is one.
ALL_MODULES = "kernel-all.tar"
VERITY_WORD = "linuxkit.verity"
#: Filesystems that a root can have, and the kernel's modules for them.
FILESYSTEMS = {"squashfs": "squashfs", "erofs": "erofs", "iso9660": "isofs", "ext4": "ext4"}
#: Where roots are found: drivers of which a kernel has to have those of its machine built in, or as modules.
DRIVERS = (
    "virtio_blk", "virtio_scsi", "virtio_pci", "nvme", "sd_mod", "sr_mod", "ahci", "ata_piix", "hv_storvsc",
    "xen_blkfront", "vmw_pvscsi",
)  # fmt: skip
#: Further ones, taken when they are modules: no reason for a boot initrd by themselves.
MORE_DRIVERS = (
    "virtio_mmio", "virtio_console", "ata_generic", "hv_vmbus", "pci_hyperv", "xen_scsifront", "mptspi", "mptsas",
    "megaraid_sas", "mpt3sas", "xhci_pci", "xhci_plat_hcd", "ehci_pci", "ehci_platform", "ohci_pci", "uhci_hcd",
    "usb_storage", "uas", "mmc_block", "sdhci_pci", "sdhci_acpi", "sdhci_iproc", "bcm2835", "pcie_brcmstb",
)  # fmt: skip
#: What dm-verity is made of; the hash is asked for by name only.
VERITY = ("dm_mod", "dm_verity")
HASHES = ("sha256_generic", "sha256_ssse3", "sha256_arm64", "sha2_ce", "libsha256")


@dataclass(frozen=True, slots=True)
class Root:
    """A root filesystem on a device.

    fstype  squashfs, erofs, iso9660 or ext4.
    spec    what goes behind root=, unless the YAML's command line has one: PARTUUID=…, LABEL=…, /dev/vda.
    verity  what goes behind linuxkit.verity=; empty: the root isn't verified.
    """

    fstype: str
    spec: str
    verity: str = ""


class Start(NamedTuple):
    """What a kernel is started with; and what is on the device or partition of its root, if there is one."""

    initrd: tuple[Piece, ...]
    cmdline: bytes
    root: tuple[Piece, ...] = ()


def cmdline_with(build: Build, root: Root) -> bytes:
    """The build's command line, and on it where the root is.

    Raises:
        InputError: the YAML's command line says something about verity.
    """
    text = build.boot.cmdline
    if any(word.partition(b"=")[0] == VERITY_WORD.encode() for word in text.split()):
        raise InputError(f"the kernel command line has {VERITY_WORD}=, which only the builder knows",
                         hint="take it out of kernel.cmdline; --verity adds it")  # fmt: skip
    added = [] if _root_of(text) else [b"root=" + root.spec.encode()]
    added += [f"{VERITY_WORD}={root.verity}".encode()] if root.verity else []
    return b" ".join([text, *added] if text else added)


def boot_initrd(build: Build, root: Root) -> tuple[Piece, ...]:
    """The boot initrd; empty when the kernel needs none to mount this root.

    It is the same for every kind of filesystem, so that formats that differ only in that can share it.

    Raises:
        ImageError: the kernel can't read that filesystem, or can't verify it.
    """
    modules = all_modules(build)
    wanted = [FILESYSTEMS[root.fstype], *(VERITY if root.verity else ())]
    for name in wanted:
        if modules.lacks(name):
            raise ImageError(
                f"{modules.where} has no module {name}, and the kernel needs it for its root "
                f"({'--verity' if name in VERITY else root.fstype})",
                hint="take a kernel that has it (kit://kernel does), or in kernel: a tar: that has it; "
                     "with the root in an initrd no such module is needed",
            )  # fmt: skip
    spec = _root_of(build.boot.cmdline).decode(errors="replace") or root.spec
    by_itself = spec.startswith(("/dev/", "PARTUUID=", "PARTLABEL=")) and not root.verity
    if by_itself and not any(name in modules.by_name for name in (*wanted, *DRIVERS)):
        return ()
    hashes = HASHES if root.verity else ()
    paths = modules.closure((*wanted, *FILESYSTEMS.values(), *hashes, *DRIVERS, *MORE_DRIVERS))
    return tuple(build.encoder.cpio([_segment(build, modules, paths)], build.codec, build.level))


def on_device(build: Build, fstype: str, spec: str, image: Sequence[Piece]) -> Start:
    """What a kernel is started with whose root is a filesystem on a device; with its hash tree when the build wants it.

    Args:
        fstype, spec: as in Root.
        image: the filesystem.
    """
    word = ""
    if build.plan.kernel is None and not build.verity:
        return Start((), b"", tuple(image))  # who takes only the filesystem knows what starts it
    if build.verity:
        from linuxkit.outputs.verity import with_tree

        image, word = with_tree(build, image)
    root = Root(fstype, spec, word)
    return Start(boot_initrd(build, root), cmdline_with(build, root), tuple(image))


def _root_of(cmdline: bytes) -> bytes:
    """What stands behind root= on a command line."""
    found = [word[5:] for word in cmdline.split() if word.startswith(b"root=")]
    return found[-1] if found else b""


def all_modules(build: Build) -> Modules:
    """The modules of the image's kernel: all that it has, not only those that the root filesystem gets."""
    kernel = build.plan.kernel
    if kernel is None:
        raise ImageError("a root filesystem on a device needs a kernel, and this build has none",
                         hint="add kernel: to the YAML")  # fmt: skip
    for tar in filter(None, (ALL_MODULES, kernel.tar)):
        entries = members_of(kernel, tar, build.content)
        if entries is not None:
            found = modules_in(entries, f"{tar} of {kernel.image.reference}")
            if found.folder or tar == kernel.tar:
                return found
    return Modules("", {}, kernel.image.reference)


def _segment(build: Build, modules: Modules, paths: Sequence[str]) -> Segment:
    image = dict(build.plan.loaders).get(BOOTSTAGE)
    if image is None:
        raise ImageError(f"there is no boot stage for {build.plan.architecture}, and the kernel needs one",
                         hint="take a kernel with its drivers built in, or a format with an initrd")  # fmt: skip
    assert build.plan.kernel is not None
    key = digest_of([
        b"boot initrd", b"%d" % VERSION, image.digest.encode(), build.plan.kernel.image.digest.encode(),
        modules.where.encode(), *(path.encode() for path in paths),
    ])  # fmt: skip

    def entries() -> Iterator[Entry]:
        for entry in build.content.tree(image):
            if not entry.path.startswith("usr/share"):  # its licence, which the initrd is no place for
                yield replace(entry, origin=("", ""))
        yield from modules.subset(paths)

    return Segment("boot initrd", key, entries, layers=(*layers_of(image), *layers_of(build.plan.kernel.image)))
