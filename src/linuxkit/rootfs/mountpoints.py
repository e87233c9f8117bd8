"""Mount points that a read-only container's image lacks: nobody can make them when it starts. Pure.

Docker makes them in a layer of its own; here they are made when the image is built, in every format, and only where
there is nothing yet. What the source of a bind is decides whether the mount point is a file: as far as it is in the
image, that is known; else the ending of its name tells.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator

from linuxkit.entry import FIXED_MTIME, Entry, Kind
from linuxkit.plan.model import BundlePlan
from linuxkit.rootfs.flatten import DIRECTORIES

_FILES = re.compile(r".\.(sock|socket|conf|cfg|json|ya?ml|toml|pid|pem|crt|cert|key|txt|log|env)")


def looks_like_a_file(source: str) -> bool:
    """Whether a path that is not in the image is most likely not a directory's."""
    return _FILES.search(posixpath.basename(source)) is not None


def mount_points(bundles: Iterable[BundlePlan]) -> Iterator[Entry]:
    """For each mount point a directory and a file, whose `target` is the mount's source: rootfs.join takes one of them,
    or none."""
    for bundle in bundles:
        root = _root(bundle) if bundle.readonly else ""
        mounts = {_clean(str(m.get("destination", ""))): m for m in bundle.config.get("mounts") or () if root}
        for place in sorted(mounts):
            above = place
            while above and (above := above.rpartition("/")[0]) not in mounts:
                pass
            if not place or above or place in DIRECTORIES:
                continue  # inside another mount; or every tree has it
            bind = mounts[place].get("type") == "bind" or "bind" in "".join(mounts[place].get("options") or ())
            source = str(mounts[place].get("source", "")) if bind else ""
            made = Entry(f"{root}/{place}", Kind.DIRECTORY, 0o755, 0, 0, FIXED_MTIME, source, origin=bundle.origin)
            yield made
            if source:
                yield Entry(made.path, Kind.FILE, 0o644, 0, 0, FIXED_MTIME, source, origin=bundle.origin)


def _clean(path: str) -> str:
    return posixpath.normpath("/" + path).strip("/")


def _root(bundle: BundlePlan) -> str:
    """Where the container's tree is: its own, or that of another one with the same image."""
    if bundle.tree is not None:
        return bundle.tree.prefix
    for mount in bundle.runtime.get("mounts") or ():
        if mount.get("destination") == f"/{bundle.directory}/rootfs":
            return _clean(str(mount.get("source", "")))
    return ""
