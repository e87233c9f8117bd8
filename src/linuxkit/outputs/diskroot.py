"""What the kernel of a bootable disk is started with: the whole system in its initrd, or a root on a partition.

    --root initrd (the default)          initrd = root filesystem
    --root squashfs, erofs, ext4         initrd = boot initrd; the root filesystem, and its hash tree, in a partition
"""

from __future__ import annotations

from linuxkit.outputs.bootstage import Start, on_device
from linuxkit.outputs.build import Build
from linuxkit.outputs.filesystems import filesystem


def for_disk(build: Build, spec: str) -> Start:
    """Initrd and command line of a disk; with `root`, the content of the partition that `spec` names.

    Args:
        spec: how that partition is found, as behind root=: PARTUUID=…

    Raises:
        LinuxkitError: of any kind: the image doesn't fit that kind of filesystem, or the kernel can't read it.
    """
    if not build.disk_root:
        return Start(build.initrd, build.boot.cmdline)
    return on_device(build, build.disk_root, spec, filesystem(build, build.disk_root))
