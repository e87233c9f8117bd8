"""What the kit made on this machine: the only images that count as kit packages.

    <store>/kit.json    {"linuxkit.kit/init:HASH": {"linux/amd64": "sha256:<the platform's manifest>"}}

index.json is LinuxKit's file too, and other programs write names into it. This file has one writer, the kit's builder,
and nothing that comes from elsewhere gets into it. A missing or damaged one says that nothing was made here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from linuxkit.errors import ImageError
from linuxkit.oci.container import open_below
from linuxkit.oci.files import host_errors, locked, replacing
from linuxkit.oci.reference import is_digest, is_kit_name

FILE = "kit.json"
MAX_SIZE = 16 << 20
_PLATFORM = re.compile(r"[a-z0-9]+/[a-z0-9]+(/[a-z0-9.]+)?")

Made = dict[str, dict[str, str]]


def read(root: Path) -> Made:
    """Name → platform → digest of the manifest."""
    try:
        with open_below(root, FILE) as stream:
            document = json.loads(stream.read(MAX_SIZE))
    except (ImageError, OSError, ValueError, RecursionError):
        return {}
    found: Made = {}
    for name, platforms in document.items() if isinstance(document, dict) else ():
        if is_kit_name(name) and isinstance(platforms, dict):
            good = {p: d for p, d in platforms.items()
                    if _PLATFORM.fullmatch(p) and isinstance(d, str) and is_digest(d)}  # fmt: skip
            found[name] = good
    return found


def add(root: Path, name: str, platform: str, digest: str, names: Collection[str]) -> None:
    """Note an image that was made.

    Args:
        names: those that the store has; what was noted about others is dropped.

    Raises:
        HostError: the store cannot be written.
    """
    def change(made: Made) -> Made:
        made.setdefault(name, {})[platform] = digest
        return {n: p for n, p in made.items() if n in names or n == name}

    _edit(root, change)


def forget(root: Path, name: str) -> None:
    """Drop what was noted about a name."""
    _edit(root, lambda made: {n: p for n, p in made.items() if n != name})


def digests(made: Mapping[str, Mapping[str, str]], name: str) -> set[str]:
    """The manifests that were made under a name."""
    return set(made.get(name, {}).values())


def _edit(root: Path, change: Callable[[Made], Made]) -> None:
    with host_errors("cannot write the cache at", root), locked(root / ".lock"):
        before = read(root)
        after = change({name: dict(platforms) for name, platforms in before.items()})
        if after != before:
            with replacing(root / FILE) as stream:
                stream.write(json.dumps(after, indent=1, sort_keys=True).encode() + b"\n")
