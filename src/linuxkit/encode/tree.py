"""One tree from entries in archive order: what a file system is written from. Knows no format.

A later entry replaces an earlier one, as unpacking an archive over another does: a directory keeps its children when a
directory replaces it. Directories that no entry names are made. A hard link is the very node it names, under another
name. The order of everything is that of the names' bytes, not of the entries.
"""

from __future__ import annotations

import dataclasses
import posixpath
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from linuxkit.entry import FIXED_MTIME, Entry, Kind
from linuxkit.errors import ImageError
from linuxkit.follow import follow

MAX_DEPTH = 1000


@dataclass(eq=False)
class Node:
    """A file, directory or other thing. `entry.path` is the first of its names.

    children  of a directory, by name, in the order of their bytes.
    links     how many names it has; of a directory: two and one for each of its directories.
    inode     its number, from 1, in the order of `walk`.
    """

    entry: Entry
    children: dict[str, Node] = field(default_factory=dict)
    links: int = 0
    inode: int = 0

    @property
    def is_directory(self) -> bool:
        return self.entry.kind is Kind.DIRECTORY


def tree(entries: Iterable[Entry]) -> Node:
    """The root of all entries.

    Raises:
        ImageError: something lies below a file; a hard link names nothing, or a directory.
    """
    root = _directory("")
    for entry in entries:
        path = posixpath.normpath("/" + entry.path).strip("/")
        if path:
            _put(root, entry if path == entry.path else dataclasses.replace(entry, path=path))
        elif entry.kind is Kind.DIRECTORY:
            root.entry = dataclasses.replace(entry, path="")
    _settle(root)
    return root


def walk(root: Node) -> Iterator[tuple[str, Node]]:
    """Every name with its node, directories before what is in them; a node with several names comes several times."""
    stack = [("", root)]
    while stack:
        path, node = stack.pop()
        yield path, node
        prefix = path + "/" if path else ""
        stack += [(prefix + name, child) for name, child in reversed(node.children.items())]


def _directory(path: str) -> Node:
    return Node(Entry(path, Kind.DIRECTORY, 0o755, mtime=FIXED_MTIME))


def _put(root: Node, entry: Entry) -> None:
    *above, name = entry.path.split("/")
    if len(above) > MAX_DEPTH:
        raise ImageError(f"{entry.path[:80]}… is {len(above)} directories deep", hint=f"at most {MAX_DEPTH} are read")
    parent = _parent(root, above, entry.path)
    if entry.kind is Kind.HARDLINK:
        target = _find(root, entry.target)
        if target is None or target.is_directory:
            what = "a directory" if target is not None else "not in the image"
            raise ImageError(f"{entry.path[:200]} is a hard link to {entry.target}, which is {what}")
        parent.children[name] = target
        return
    there = parent.children.get(name)
    if there is not None and there.is_directory and entry.kind is Kind.DIRECTORY:
        there.entry = entry
    else:
        parent.children[name] = Node(entry)


def _parent(root: Node, parts: Sequence[str], path: str) -> Node:
    """The directory that `parts` lead to, made where it is missing; symlinks on the way are followed inside it."""
    at = root
    for part in parts:  # nearly always there, and no symlink
        node = at.children.get(part)
        if node is None or node.entry.kind is not Kind.DIRECTORY:
            break
        at = node
    else:
        return at
    try:
        place = follow("/".join(parts), lambda path: _target(root, path))
    except ImageError as e:
        raise ImageError(f"{path} lies below links in a circle: {e.message}") from e
    at, here = root, ""
    for part in place.split("/") if place else ():
        here = f"{here}/{part}" if here else part
        node = at.children.get(part)
        if node is None:
            node = at.children[part] = _directory(here)
        if not node.is_directory:
            raise ImageError(f"{path} lies below {node.entry.path}, which is no directory")
        at = node
    return at


def _target(root: Node, path: str) -> str | None:
    node = _find(root, path)
    return node.entry.target if node is not None and node.entry.kind is Kind.SYMLINK else None


def _find(root: Node, path: str) -> Node | None:
    at: Node | None = root
    for part in posixpath.normpath("/" + path).strip("/").split("/"):
        at = at.children.get(part) if at is not None else None
    return at


def _settle(root: Node) -> None:
    """Sort, number, count."""
    number = 0
    stack = [root]
    while stack:
        node = stack.pop()
        if not node.is_directory:
            node.links += 1
        if node.inode:
            continue
        number += 1
        node.inode = number
        node.children = dict(sorted(node.children.items(), key=lambda item: item[0].encode("utf-8", "surrogateescape")))
        if node.is_directory:
            node.links = 2 + sum(child.is_directory for child in node.children.values())
        stack += reversed(node.children.values())
