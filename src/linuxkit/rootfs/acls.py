"""POSIX access control lists of files: EROFS, ext4 and archives keep them; an initrd, a squashfs and an ISO can't.

Linux has them as the attributes system.posix_acl_access and system.posix_acl_default. What can't hold them leaves them
out, all in the same way, and a build says so once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace

from linuxkit.encode.tree import Node, walk
from linuxkit.entry import Entry
from linuxkit.errors import ImageError
from linuxkit.oci.media import Image
from linuxkit.plan.model import BuildPlan
from linuxkit.rootfs.content import Content, layers_of

ATTRIBUTES = frozenset(("system.posix_acl_access", "system.posix_acl_default"))
KIND, VERSION = "layers", 1


def left_out(plan: BuildPlan, content: Content) -> str:
    """How many files of the build's images have any, and which is the first; empty: none has."""
    trees = [*plan.init, *(v.tree for v in plan.volumes if v.tree), *(b.tree for b in plan.bundles if b.tree)]
    pairs = [pair for tree in trees for pair in layers_of(tree.image)]
    if new := [pair for pair in pairs if content.derived.get(KIND, _key(pair[1])) is None]:
        with suppress(ImageError):  # comes again below, where it is known whose layer that is
            content.layers.prefetch(new)
    total, first = 0, ""
    for tree in trees:
        count, path = _of_image(tree.image, content)
        first = first or (f"/{path} of {tree.image.reference}" if path else "")
        total += count
    return f"{total} files have access control lists, the first is {first}" if total else ""


def _of_image(image: Image, content: Content) -> tuple[int, str]:
    total, first = 0, ""
    for layer, diff_id in layers_of(image):
        key = _key(diff_id)
        kept = content.derived.get(KIND, key)
        try:
            count, path = json.loads(kept.read_bytes()) if kept is not None else (None, "")
        except (OSError, ValueError, TypeError):
            count, path = None, ""  # damaged: made anew
        if count is None:
            try:
                found = [entry.path for entry in content.layers.entries(layer, diff_id) if _has(entry)]
            except ImageError as e:
                raise ImageError(f"image {image.reference}: {e.message}", hint=e.hint) from e
            count, path = len(found), (found or [""])[0]
            with content.derived.put(KIND, key) as out:
                out.write(json.dumps([count, path]).encode())
        total, first = total + count, first or path
    return total, first


def _key(diff_id: str) -> str:
    return f"{diff_id[7:]}.acls.{VERSION}.json"


def _has(entry: Entry) -> bool:
    return any(name in ATTRIBUTES for name, _ in entry.xattrs)


def without(root: Node) -> Node:
    """The same tree without any."""
    if not any(_has(node.entry) for _, node in walk(root)):
        return root
    made: dict[int, Node] = {}
    for _, node in walk(root):
        if id(node) not in made:
            kept = tuple(one for one in node.entry.xattrs if one[0] not in ATTRIBUTES)
            made[id(node)] = Node(replace(node.entry, xattrs=kept), {}, node.links, node.inode)
    for _, node in walk(root):
        made[id(node)].children = {name: made[id(child)] for name, child in node.children.items()}
    return made[id(root)]


def dropped_by(filesystems: Iterable[str]) -> bool:
    """Whether any of some root file systems can't hold them; empty is an initrd."""
    return any(one not in ("erofs", "ext4") for one in filesystems)
