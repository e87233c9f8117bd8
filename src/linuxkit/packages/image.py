"""The nodes of a package's image that do not come from elsewhere: files, links, accounts, folders; and their order."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from linuxkit.entry import FIXED_MTIME, Bytes, Entry, Extent, Kind, Source
from linuxkit.packages.inside import copy_inside
from linuxkit.packages.recipe import Recipe


def own(recipe: Recipe, scratch: Path) -> dict[str, Entry]:
    """What the recipe itself writes, by path.

    Args:
        scratch: a folder for copies of its files.

    Raises:
        InputError: a file is not there, or a link leads out of the recipe's folder.
    """
    out: dict[str, Entry] = {}
    for file in recipe.files:
        if file.symlink:
            entry = Entry(file.path, Kind.SYMLINK, 0o777, file.uid, file.gid, FIXED_MTIME, file.symlink)
        elif file.directory:
            entry = Entry(file.path, Kind.DIRECTORY, file.mode, file.uid, file.gid, FIXED_MTIME)
        else:
            source: Source = Bytes(file.contents.encode())
            if file.source:
                place = scratch / f"own-{len(out)}"
                source = Extent(str(place), 0, copy_inside(recipe.folder, file.source, place))
            entry = Entry(file.path, Kind.FILE, file.mode, file.uid, file.gid, FIXED_MTIME, source=source)
        out[file.path] = entry
    for target, paths in recipe.links.items():
        for path in paths:
            out[path] = Entry(path, Kind.SYMLINK, 0o777, mtime=FIXED_MTIME, target=target)
    if recipe.users or recipe.groups:
        lines = ["root:x:0:0:root:/root:/bin/sh", *(
            f"{u.name}:x:{u.id}:{u.gid or u.id}:{u.name}:{u.home}:{u.shell}" for u in recipe.users if u.name != "root"
        )]  # fmt: skip
        out["etc/passwd"] = text("etc/passwd", "\n".join(lines) + "\n")
        groups = {"root": 0} | {u.name: u.id for u in recipe.users if not u.gid} | {g.name: g.id for g in recipe.groups}
        out["etc/group"] = text("etc/group", "".join(f"{name}:x:{gid}:\n" for name, gid in groups.items()))
    return out


def text(path: str, content: str, mode: int = 0o644) -> Entry:
    return Entry(path, Kind.FILE, mode, mtime=FIXED_MTIME, source=Bytes(content.encode()))


def ordered(entries: Mapping[str, Entry]) -> list[Entry]:
    """All nodes sorted by path, each folder before what is in it; folders that nobody named are made, 0755."""
    nodes = dict(entries)
    for path in entries:
        folder = path.rpartition("/")[0]
        while folder and folder not in nodes:
            nodes[folder] = Entry(folder, Kind.DIRECTORY, 0o755, mtime=FIXED_MTIME)
            folder = folder.rpartition("/")[0]
    return [nodes[path] for path in sorted(nodes, key=lambda p: p.split("/"))]
