"""Where a path leads when names on its way are symbolic links: one answer for layers, parts and writers. Pure.

A link never leads out of its root: an absolute target starts at the root, and `..` stops there, as path_resolution(7)
has it after chroot(2), and as umoci and buildah unpack layers.
"""

from __future__ import annotations

from collections.abc import Callable

from linuxkit.errors import ImageError

#: Links on one way, as Linux has it (MAXSYMLINKS).
MAX_LINKS = 40


def follow(
    path: str, target_of: Callable[[str], str | None], root_of: Callable[[str], str] = lambda path: ""
) -> str:
    """The place that a path leads to, every link on its way followed, the last name's too.

    Args:
        path: from the root, without a leading `/`.
        target_of: the target of the symbolic link at a place; None where there is none.
        root_of: the directory that a link at a place can't leave; the root of everything unless it is given.

    Returns:
        A normalised path, which need not exist; "" for the root.

    Raises:
        ImageError: more than MAX_LINKS links, as in a circle.
    """
    done: list[str] = []
    left, links, floor = path.split("/")[::-1], 0, 0
    while left:
        part = left.pop()
        if part in ("", "."):
            continue
        if part == "..":
            if len(done) > floor:
                done.pop()
            continue
        done.append(part)
        here = "/".join(done)
        target = target_of(here)
        if target is None:
            continue
        links += 1
        if links > MAX_LINKS:
            raise ImageError(f"the link '{here}' leads in a circle, and is not a directory")
        root = root_of(here)
        inside = root.split("/") if root else []
        floor = len(inside)
        done = inside if target.startswith("/") else done[:-1]
        left += target.split("/")[::-1]
    return "/".join(done)


def follow_parent(
    path: str, target_of: Callable[[str], str | None], root_of: Callable[[str], str] = lambda path: ""
) -> str:
    """The same for all of a path but its last name: where a node of that path is put.

    Raises:
        ImageError: as `follow`.
    """
    folder, _, name = path.rpartition("/")
    above = follow(folder, target_of, root_of) if folder else ""
    return f"{above}/{name}" if above else name
