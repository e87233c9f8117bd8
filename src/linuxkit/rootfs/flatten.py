"""An image's merged tree → what LinuxKit puts into the root filesystem for it. Pure.

Some nodes of every image are dropped, because the guest or the container runtime makes them; some are the same in every
image: the mount points dev, dev/pts, dev/shm, proc, sys and the directory etc; etc/hosts; etc/mtab when the image has
none; etc/resolv.conf, which outside of containers is a link to what a DHCP client writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from linuxkit.entry import FIXED_MTIME, Bytes, Entry, Kind

#: Raise it when the same image gives other entries.
VERSION = 1
DROPPED = frozenset({".dockerenv", "Dockerfile", "dev/console", "dev/pts", "dev/shm", "etc/hostname"})
DIRECTORIES = ("dev", "dev/pts", "dev/shm", "etc", "proc", "sys")
HOSTS = b"""\
127.0.0.1       localhost
::1     localhost ip6-localhost ip6-loopback
fe00::0 ip6-localnet
ff00::0 ip6-mcastprefix
ff02::1 ip6-allnodes
ff02::2 ip6-allrouters
"""
RESOLV_BUNDLE = b"\n# no resolv.conf configured\n"
RESOLV_LINK = "/run/resolvconf/resolv.conf"


def leading(prefix: str, origin: tuple[str, str]) -> Iterator[Entry]:
    """The directories that make up a path, outermost first."""
    parts = prefix.split("/") if prefix else []
    for n in range(len(parts)):
        yield Entry("/".join(parts[: n + 1]), Kind.DIRECTORY, 0o755, mtime=FIXED_MTIME, origin=origin)


def flatten(entries: Iterable[Entry], prefix: str, origin: tuple[str, str], *, bundle: bool) -> Iterator[Entry]:
    """The nodes of an image below `prefix`: parents before children, hard links after everything else.

    Args:
        entries: the image's layers, merged; at most one entry a path.
        bundle: the image is a container's root.
    """
    tree = {entry.path: entry for entry in entries}
    fixed = {path: Entry(path, Kind.DIRECTORY, 0o755, mtime=FIXED_MTIME) for path in DIRECTORIES}
    fixed["etc/hosts"] = Entry("etc/hosts", Kind.FILE, 0o644, mtime=FIXED_MTIME, source=Bytes(HOSTS))
    fixed["etc/resolv.conf"] = (
        Entry("etc/resolv.conf", Kind.FILE, 0o644, mtime=FIXED_MTIME, source=Bytes(RESOLV_BUNDLE))
        if bundle
        else Entry("etc/resolv.conf", Kind.SYMLINK, 0o777, mtime=FIXED_MTIME, target=RESOLV_LINK)
    )
    if "etc/mtab" not in tree:
        fixed["etc/mtab"] = Entry("etc/mtab", Kind.SYMLINK, 0o777, mtime=FIXED_MTIME, target="/proc/mounts")
    replaced = {path: tree[path] for path in DROPPED | fixed.keys() if path in tree}
    shown = {path: entry for path, entry in tree.items() if path not in DROPPED} | fixed
    yield from leading(prefix, origin)
    base = f"{prefix}/" if prefix else ""
    links = []
    for path in sorted(shown):
        entry = shown[path]
        if entry.kind is Kind.HARDLINK:
            links.append(entry)
        else:
            yield replace(entry, path=base + path, origin=origin)
    for link in links:
        lost = replaced.get(link.target)
        if lost is not None:  # the file it named is not in the image any more: carry on with its content
            replaced[link.target] = replace(lost, kind=Kind.HARDLINK, target=link.path)
            if lost.kind is not Kind.HARDLINK:
                yield replace(lost, path=base + link.path, origin=origin)
                continue
            link = replace(link, target=lost.target)
        yield replace(link, path=base + link.path, target=base + link.target, origin=origin)
