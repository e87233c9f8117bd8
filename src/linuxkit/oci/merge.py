"""Merging layers into one tree, without touching a disk: whiteouts, replaced nodes, hard links across layers. Pure.

https://github.com/opencontainers/image-spec v1.1, layer.md: `.wh.NAME` hides NAME of the layers below, `.wh..wh..opq`
hides everything that the layers below have in its directory. No link is ever followed: a path is a key, not a place.

LinuxKit's own merge (of go-containerregistry) differs in three points: it ignores opaque whiteouts, a whiteout also
hides what stands after it in the same layer, and it does nothing when a layer above has a node of that name.
`Whiteouts` says which of the two is wanted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum

from linuxkit.entry import Entry, Kind
from linuxkit.errors import ImageError

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"


class Whiteouts(StrEnum):
    """Whose reading of whiteouts."""

    LINUXKIT = "linuxkit"
    OCI = "oci"


def has_whiteouts(layers: Sequence[Sequence[Entry]]) -> bool:
    """Whether any layer deletes anything."""
    return any(entry.path.rpartition("/")[2].startswith(WHITEOUT) for layer in layers for entry in layer)


def merge_layers(
    layers: Sequence[Sequence[Entry]], *, whiteouts: Whiteouts = Whiteouts.LINUXKIT, where: str = "the image"
) -> list[Entry]:
    """The tree that the layers make together.

    Args:
        layers: bottom first, each as LayerCache.entries gives it.
        where: the image, for messages.

    Returns:
        Every path once, sorted, so that a directory stands before what is in it; hard links last, each naming a FILE
        that stands before it. Directories that no layer lists are not added.

    Raises:
        ImageError: a hard link names nothing, or a layer puts nodes below something that is not a directory.
    """
    latest = [_last_of_each(layer) for layer in layers]
    chosen: dict[str, int] = {}  # path → number of its layer
    closed: set[str] = set()  # nothing of the layers below may be at or under these
    emptied: set[str] = set()  # nothing of the layers below may be under these
    for level in range(len(layers) - 1, -1, -1):
        own_closed: set[str] = set()
        own_emptied: set[str] = set()
        immediate = whiteouts is Whiteouts.LINUXKIT
        for path, entry in latest[level].items():
            folder, _, name = path.rpartition("/")
            if name == OPAQUE:
                if not immediate:
                    own_emptied.add(folder)
                continue
            if name.startswith(WHITEOUT):
                if len(name) == len(WHITEOUT):
                    raise ImageError(f"{where}: layer {level + 1}: '{path}' is a whiteout of nothing")
                hidden = f"{folder}/{name[4:]}" if folder else name[4:]
                if not immediate:
                    own_closed.add(hidden)
                elif hidden not in chosen:
                    closed.add(hidden)
                continue
            if path in chosen or path in closed or _hidden(path, closed, emptied):
                continue
            chosen[path] = level
            if entry.kind is not Kind.DIRECTORY:
                own_closed.add(path)
        _check_nesting(latest[level], where, level)
        closed |= own_closed
        emptied |= own_emptied
        closed -= {""}
    _drop_non_directories_with_children(chosen, latest)
    return _ordered(chosen, latest, where)


def _last_of_each(layer: Sequence[Entry]) -> dict[str, Entry]:
    """A member that is repeated counts as its last."""
    return {entry.path: entry for entry in layer}


def _hidden(path: str, closed: set[str], emptied: set[str]) -> bool:
    if "" in emptied:
        return True
    at = path.rfind("/")
    while at > 0:
        path = path[:at]
        if path in closed or path in emptied:
            return True
        at = path.rfind("/")
    return False


def _check_nesting(layer: dict[str, Entry], where: str, level: int) -> None:
    """Refuse a member below a link or file of its own layer: extracting would write through the link."""
    seen: set[str] = set()
    for path in layer:
        folder = path.rpartition("/")[0]
        while folder and folder not in seen:
            seen.add(folder)
            above = layer.get(folder)
            if above is not None and above.kind is not Kind.DIRECTORY:
                raise ImageError(
                    f"{where}: layer {level + 1}: '{path}' lies below '{folder}', which is not a directory"
                )
            folder = folder.rpartition("/")[0]


def _drop_non_directories_with_children(chosen: dict[str, int], latest: list[dict[str, Entry]]) -> None:
    """A layer above put `a/b` over a file or link `a` of a layer below: then `a` is a directory."""
    folders = {path.rpartition("/")[0] for path in chosen}
    todo = list(folders)
    while todo:
        folder = todo.pop()
        if folder in chosen and latest[chosen[folder]][folder].kind is not Kind.DIRECTORY:
            del chosen[folder]
        above = folder.rpartition("/")[0]
        if above and above not in folders:
            folders.add(above)
            todo.append(above)


def _ordered(chosen: dict[str, int], latest: list[dict[str, Entry]], where: str) -> list[Entry]:
    nodes: dict[str, Entry] = {}
    links: list[str] = []
    for path in sorted(chosen):
        entry = latest[chosen[path]][path]
        if entry.kind is Kind.HARDLINK:
            links.append(path)
        else:
            nodes[path] = entry
    named: list[Entry] = []
    rescued: dict[tuple[int, str], str] = {}  # a target that is gone → the first link, which has its content now
    for path in links:
        link = latest[chosen[path]][path]
        level, target = _target(link, chosen[path], latest, where)
        node = latest[level][target]
        if node.kind is not Kind.FILE:
            if node.kind is Kind.DIRECTORY:
                raise ImageError(f"{where}: hard link '{path}' points at the directory '{target}'")
            nodes[path] = replace(node, path=path)
        elif chosen.get(target) == level:
            named.append(replace(link, target=target))
        elif (level, target) in rescued:
            named.append(replace(link, target=rescued[level, target]))
        else:
            rescued[level, target] = path
            nodes[path] = replace(node, path=path)
    return [nodes[path] for path in sorted(nodes)] + named


def _target(link: Entry, level: int, latest: list[dict[str, Entry]], where: str) -> tuple[int, str]:
    """(layer, path) of the node that a hard link names, through other links: in its own layer, else below it."""
    path, seen = link.target, {link.path}
    while path not in seen:
        seen.add(path)
        while level >= 0 and path not in latest[level]:
            level -= 1
        if level < 0:
            raise ImageError(f"{where}: hard link '{link.path}' points at '{link.target}', which is not in the image")
        node = latest[level][path]
        if node.kind is not Kind.HARDLINK:
            return level, path
        path = node.target
    raise ImageError(f"{where}: hard link '{link.path}' points at itself")
