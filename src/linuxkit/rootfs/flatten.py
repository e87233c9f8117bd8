"""An image's merged tree → what LinuxKit puts into the root filesystem for it. Pure.

Some nodes of every image are dropped, because the guest or the container runtime makes them; some are the same in every
image: the mount points dev, dev/pts, dev/shm, proc, sys and the directory etc; etc/hosts; etc/mtab when the image has
none; etc/resolv.conf, which outside of containers is a link to what a DHCP client writes. Where etc is a link to a
directory of the image, they stand there. Directories that no layer names are made: Linux makes none for an initrd.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

from linuxkit.entry import FIXED_MTIME, Bytes, Entry, Kind
from linuxkit.errors import ImageError
from linuxkit.follow import follow

#: Raise it when the same image gives other entries.
VERSION = 2
DROPPED = frozenset({".dockerenv", "Dockerfile", "dev/console", "dev/pts", "dev/shm"})
DIRECTORIES = ("dev", "dev/pts", "dev/shm", "proc", "sys")
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


def missing_parents(paths: Iterable[str]) -> set[str]:
    """The directories above some paths that are not among them."""
    known = set(paths)
    missing: set[str] = set()
    for path in known:
        while (path := path.rpartition("/")[0]) and path not in known and path not in missing:
            missing.add(path)
    return missing


def implied(path: str) -> Entry:
    """A directory that nothing names."""
    return replace(_directory(path), implied=True)


def _directory(path: str) -> Entry:
    return Entry(path, Kind.DIRECTORY, 0o755, mtime=FIXED_MTIME)


def _fixed(tree: Mapping[str, Entry], bundle: bool) -> dict[str, Entry]:
    """What is the same in every image."""
    etc = _etc(tree)
    fixed = {path: _directory(path) for path in DIRECTORIES}
    if etc == "etc":
        fixed["etc"] = _directory("etc")
    hosts, resolv, mtab = f"{etc}/hosts", f"{etc}/resolv.conf", f"{etc}/mtab"
    fixed[hosts] = Entry(hosts, Kind.FILE, 0o644, mtime=FIXED_MTIME, source=Bytes(HOSTS))
    fixed[resolv] = (
        Entry(resolv, Kind.FILE, 0o644, mtime=FIXED_MTIME, source=Bytes(RESOLV_BUNDLE))
        if bundle
        else Entry(resolv, Kind.SYMLINK, 0o777, mtime=FIXED_MTIME, target=RESOLV_LINK)
    )
    if mtab not in tree:
        fixed[mtab] = Entry(mtab, Kind.SYMLINK, 0o777, mtime=FIXED_MTIME, target="/proc/mounts")
    return fixed


def _etc(tree: Mapping[str, Entry]) -> str:
    """The directory that etc is: where its link leads, when that is a directory of the image."""
    etc = tree.get("etc")
    if etc is None or etc.kind is not Kind.SYMLINK:
        return "etc"
    try:
        place = follow("etc", link_in(tree))
    except ImageError:
        return "etc"
    at = tree.get(place)
    return place if at is not None and at.kind is Kind.DIRECTORY else "etc"


def link_in(tree: Mapping[str, Entry]) -> Callable[[str], str | None]:
    """For `follow`: the target of the symbolic link at a path of a tree."""

    def target_of(path: str) -> str | None:
        entry = tree.get(path)
        return entry.target if entry is not None and entry.kind is Kind.SYMLINK else None

    return target_of


def flatten(entries: Iterable[Entry], prefix: str, origin: tuple[str, str], *, bundle: bool) -> Iterator[Entry]:
    """The nodes of an image below `prefix`: parents before children, hard links after everything else.

    Args:
        entries: the image's layers, merged; at most one entry a path.
        bundle: the image is a container's root.
    """
    tree = {entry.path: entry for entry in entries}
    fixed = _fixed(tree, bundle)
    dropped = DROPPED | {path.removesuffix("hosts") + "hostname" for path in fixed if path.endswith("/hosts")}
    replaced = {path: tree[path] for path in dropped | fixed.keys() if path in tree}
    shown = {path: entry for path, entry in tree.items() if path not in dropped} | fixed
    shown |= {path: implied(path) for path in missing_parents(shown)}
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
