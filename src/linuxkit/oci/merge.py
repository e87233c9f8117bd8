"""Merging layers into one tree, without touching a disk: whiteouts, replaced nodes, hard links across layers. Pure.

https://github.com/opencontainers/image-spec v1.1, layer.md: `.wh.NAME` hides NAME of the layers below, `.wh..wh..opq`
hides everything that the layers below have in its directory. A member whose parent is a symbolic link goes where the
link leads, inside the root, and the link stays, as umoci and buildah unpack it; a directory over a link replaces it. A
layer that writes through a link of its own to a place that is nowhere in the image is refused, as buildah does.

LinuxKit's own merge (of go-containerregistry) differs in three points: it ignores opaque whiteouts, a whiteout also
hides what stands after it in the same layer, and it does nothing when a layer above has a node of that name.
`Whiteouts` says which of the two is wanted.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import replace
from enum import StrEnum

from linuxkit.entry import Entry, Kind
from linuxkit.errors import ImageError
from linuxkit.follow import follow

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
    layers: Sequence[Sequence[Entry]], *, whiteouts: Whiteouts = Whiteouts.LINUXKIT, where: str = "the image",
    some: bool = False,
) -> list[Entry]:  # fmt: skip
    """The tree that the layers make together.

    Args:
        layers: bottom first, each as LayerCache.entries gives it.
        where: the image, for messages.
        some: these are not all members, so that a link may lead to a place that is not among them.

    Returns:
        Every path once, sorted, so that a directory stands before what is in it; hard links last, each naming a FILE
        that stands before it. Directories that no layer lists are not added.

    Raises:
        ImageError: a hard link names nothing, or a layer puts nodes below something that is not a directory.
    """
    layers = at_their_places(layers, where, some=some)
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


def at_their_places(
    layers: Sequence[Sequence[Entry]], where: str, *, some: bool = False
) -> Sequence[Sequence[Entry]]:
    """The layers with the path of every member as the place that it leads to through the links that are there then.

    Raises:
        ImageError: links lead in a circle, or to something that is not a directory.
    """
    links = {entry.path for layer in layers for entry in layer if entry.kind is Kind.SYMLINK}
    if not links or links.isdisjoint(_folders(layers)):
        return layers
    named = None if some else _folders(layers) | {entry.path for layer in layers for entry in layer}
    places = _Places(where, named)
    return [places.layer(level, layer) for level, layer in enumerate(layers)]


def _folders(layers: Sequence[Sequence[Entry]]) -> set[str]:
    """Every directory on the way to a member, or to what a hard link names."""
    found = {entry.path.rpartition("/")[0] for layer in layers for entry in layer}
    found |= {e.target.rpartition("/")[0] for layer in layers for e in layer if e.kind is Kind.HARDLINK}
    todo = list(found)
    while todo:
        above = todo.pop().rpartition("/")[0]
        if above not in found:
            found.add(above)
            todo.append(above)
    return found


class _Places:
    """The tree so far, as far as it decides where members go."""

    def __init__(self, where: str, named: Set[str] | None) -> None:
        self._where, self._level = where, 0
        self._named = named  # paths of members and of the directories above them; None: not all are known
        self._nodes: dict[str, tuple[int, Entry]] = {}  # place → its layer, and what is there
        self._closed: dict[str, int] = {}  # at and under these nothing of the layers below that one is left
        self._emptied: dict[str, int] = {}  # under these the same
        self._known: dict[str, str] = {}  # directory as written → its place
        self._own_link = ""  # the last link of the layer itself that was followed

    def layer(self, level: int, layer: Sequence[Entry]) -> list[Entry]:
        self._level = level
        return [self._member(entry) for entry in layer]

    def _member(self, entry: Entry) -> Entry:
        folder, _, name = entry.path.rpartition("/")
        path = self._place(folder, name, entry.path)
        if name == OPAQUE:
            self._emptied[path.rpartition("/")[0]] = self._level
            self._known.clear()
        elif name.startswith(WHITEOUT):
            self._closed[path[: len(path) - len(name)] + name[len(WHITEOUT) :]] = self._level
            self._known.clear()
        else:
            before = self._nodes.get(path)
            self._nodes[path] = self._level, entry
            if entry.kind is not Kind.DIRECTORY:
                self._closed[path] = self._level
            if entry.kind is Kind.SYMLINK or (before is not None and before[1].kind is not entry.kind):
                self._known.clear()
        target = entry.target
        if entry.kind is Kind.HARDLINK:
            above, _, last = target.rpartition("/")
            target = self._place(above, last, entry.path)
        return entry if (path, target) == (entry.path, entry.target) else replace(entry, path=path, target=target)

    def _place(self, folder: str, name: str, path: str) -> str:
        place = self._known.get(folder)
        if place is None:
            self._own_link = ""
            try:
                place = follow(folder, self._target_of) if folder else ""
            except ImageError as e:
                raise ImageError(f"{self._where}: layer {self._level + 1}: '{path}': {e.message}") from e
            if place != folder:
                self._check(place, path)
            if self._own_link and self._named is not None and place not in self._named:
                raise ImageError(f"{self._where}: layer {self._level + 1}: '{path}' lies below '{self._own_link}', a "
                                 f"link to '/{place}', which is not a directory of the image")  # fmt: skip
            self._known[folder] = place
        return f"{place}/{name}" if place else name

    def _check(self, place: str, path: str) -> None:
        """Refuse a way that leads through a file."""
        while place:
            node = self._seen(place)
            if node is not None and node.kind is not Kind.DIRECTORY:
                raise ImageError(f"{self._where}: layer {self._level + 1}: '{path}' lies below a link to '{place}', "
                                 "which is not a directory")  # fmt: skip
            place = place.rpartition("/")[0]

    def _target_of(self, path: str) -> str | None:
        node = self._seen(path) if path in self._nodes else None
        if node is None or node.kind is not Kind.SYMLINK:
            return None
        if self._nodes[path][0] == self._level:
            self._own_link = path
        return node.target

    def _seen(self, path: str) -> Entry | None:
        """What is at a place, unless a later layer has hidden it."""
        level, entry = self._nodes.get(path, (-1, None))
        if self._closed.get(path, -1) > level:
            return None
        above = path
        while above:
            above = above.rpartition("/")[0]
            if self._closed.get(above, -1) > level or self._emptied.get(above, -1) > level:
                return None
        return entry


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
    """Refuse a member below a file of its own layer, or below a link that came after it. Whiteouts may stand there."""
    seen: set[str] = set()
    for path in layer:
        folder, _, name = path.rpartition("/")
        if name.startswith(WHITEOUT):
            continue
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
