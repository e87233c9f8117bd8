"""Which programs of a build cannot start: those of containers, the files of init.d, the guest's own once replaced.

Told from the entries and kept in the derived cache, as outputs.rootfacts.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from linuxkit.entry import Entry, Kind, digest_of
from linuxkit.outputs.build import Build
from linuxkit.outputs.needs import Root
from linuxkit.outputs.rootfacts import arguments, described, kept, program
from linuxkit.plan.model import BundlePlan, Tree

KIND = "starts"
#: Raise it when what is kept is told in another way.
VERSION = 1
_DEFAULT_MOUNTS = frozenset(("/proc", "/dev", "/dev/pts", "/sys", "/sys/fs/cgroup"))
#: What the guest's plan takes: these have to be the guest's own program.
OWN = ("init", "usr/bin/service")
_SCRIPTS = ("etc/init.d/", "etc/shutdown.d/")
_X86_32 = 3


class Starts(NamedTuple):
    """containers  for each bundle of the plan why its program cannot start; empty: nothing is known against it.
    root        path in the root filesystem → the same, of its first programs and the files of init.d and shutdown.d.
    replaced    programs of the kit's guest in whose place something else stands.
    sources     for each bundle paths that it binds and that nobody makes.
    """

    containers: Sequence[str]
    root: Mapping[str, str]
    replaced: Sequence[str]
    sources: Sequence[Sequence[str]]


def starts(build: Build, first: Sequence[str], guest: Tree | None) -> Starts:
    """What is known of a build.

    Args:
        first: programs of the root filesystem that may be the first.
        guest: the init image that brings the kit's guest.

    Raises:
        ImageError: a layer is missing or damaged.
    """
    plan = build.plan
    segments = [s for s in build.segments(boot=False) if s.name in ("kernel", "files") or s.name.startswith("init")]
    trees = [tree_of(plan.bundles, bundle) for bundle in plan.bundles]
    asked = [_asked(bundle) for bundle in plan.bundles]
    key = digest_of(part.encode(errors="surrogateescape") for part in (
        "starts", str(VERSION), build.content.whiteouts, *first, guest.image.digest if guest else "",
        *(segment.key for segment in segments if segment.name != "files"), *map(described, plan.files),
        *(repr((one, tree.image.config.diff_ids if tree else ())) for one, tree in zip(asked, trees, strict=True)),
        *(repr((volume.name, volume.directory)) for volume in plan.volumes),
    ))  # fmt: skip
    derived = build.content.derived
    row = kept(derived.get(KIND, key))
    if row is None:
        entries = {entry.path: entry for segment in segments for entry in segment.entries()}
        row = {
            "containers": [_container(build, *both) for both in zip(plan.bundles, trees, strict=True)],
            "root": _root(entries, first), "replaced": _replaced(build, entries, guest),
            "sources": [_unmade(build, bundle, entries) for bundle in plan.bundles],
        }  # fmt: skip
        with derived.put(KIND, key) as out:
            out.write(json.dumps(row, separators=(",", ":")).encode())
    return Starts(row["containers"], row["root"], row["replaced"], row["sources"])


def tree_of(bundles: Sequence[BundlePlan], bundle: BundlePlan) -> Tree | None:
    """A container's root, which may be laid out for another container of the same image."""
    if bundle.tree is not None:
        return bundle.tree
    places = set()
    for mount in bundle.runtime.get("mounts") or ():
        places.add(str(mount.get("source", "")).strip("/"))
        places |= {o[9:].strip("/") for o in mount.get("options") or () if o.startswith("lowerdir=")}
    return next((one.tree for one in bundles if one.tree is not None and one.tree.prefix in places), None)


def _asked(bundle: BundlePlan) -> Any:
    config = bundle.config
    process, linux = config.get("process") or {}, config.get("linux") or {}
    seccomp = (linux.get("seccomp") or {}).get("architectures")
    return bundle.directory, process.get("args"), process.get("cwd"), process.get("env"), config.get("mounts"), \
        bundle.runtime, seccomp  # fmt: skip


def _container(build: Build, bundle: BundlePlan, tree: Tree | None) -> str:
    name, *paths = arguments(bundle)
    if tree is None or not name:
        return ""
    entries = {entry.path: entry for entry in build.content.tree(tree.image)}
    given = [str(mount["destination"]) for mount in bundle.config.get("mounts") or ()]
    mounts = [place for place in given if place not in _DEFAULT_MOUNTS]
    inside = f"/{bundle.directory}/rootfs"
    for mount in (bundle.runtime.get("mounts") or ())[1 if bundle.readonly else 3 :]:
        place = str(mount.get("destination", ""))
        if place.startswith(inside) or not place.startswith("/"):
            mounts.append(place.removeprefix(inside) or "/")
    env = (bundle.config.get("process") or {}).get("env") or ()
    path = next((str(e)[5:] for e in env if str(e).startswith("PATH=")), "")
    said = Root(entries, mounts, path).fault(name, paths)
    if said:
        return said
    allowed = (bundle.config["linux"].get("seccomp") or {}).get("architectures")
    if allowed and "SCMP_ARCH_X86_64" in allowed and "SCMP_ARCH_X86" not in allowed:
        found = [program(entries, one) for one in paths]
        if any(one.kind == "elf" and one.machine == _X86_32 for one in found):
            return f"{name} is a 32-bit program, which the seccomp profile stops (seccomp: unconfined lets it run)"
    return ""


def _root(entries: Mapping[str, Entry], first: Sequence[str]) -> dict[str, str]:
    root = Root(entries)
    known = [path for path in first if program(entries, path).kind in ("elf", "script")]
    said = {path: root.fault(f"/{path}", [f"/{path}"]) for path in known}
    for path, entry in entries.items():
        script = path.startswith(_SCRIPTS) and path.count("/") == 2 and entry.kind is Kind.FILE and entry.mode & 0o111
        if script:
            said[path] = root.fault(f"/{path}", [f"/{path}"])
    return {path: text for path, text in said.items() if text}


def _replaced(build: Build, entries: Mapping[str, Entry], guest: Tree | None) -> list[str]:
    """Compared by content: a link or a copy of the same program is as good."""
    if guest is None:
        return []
    own = {entry.path: entry for entry in build.content.tree(guest.image)}
    found = []
    for path in OWN:
        theirs, ours = Root(entries).content(path), Root(own).content(path)
        if ours is not None and theirs is not None and theirs != ours:
            found.append(path)
    return found


def _unmade(build: Build, bundle: BundlePlan, entries: Mapping[str, Entry]) -> list[str]:
    """Binds whose source is in the part of the root that nothing can be made in, and is not there."""
    made = [m for b in build.plan.bundles for m in _made(b)]
    found = []
    for mount in bundle.config.get("mounts") or ():
        source = posixpath.normpath(str(mount.get("source", "")))
        if mount.get("type") != "bind" or not source.startswith("/") or source == "/":
            continue
        if source.startswith(("/dev", "/proc", "/run", "/sys", "/tmp", "/var", "/containers", "/mnt")):
            continue
        if any(source == place or place.startswith(f"{source}/") or source.startswith(f"{place}/") for place in made):
            continue
        if source.strip("/") not in entries and isinstance(Root(entries).at(source), str):
            inner = any(path.startswith(f"{source.strip('/')}/") for path in entries)
            found += [] if inner else [source]
    return found


def _made(bundle: BundlePlan) -> list[str]:
    runtime = bundle.runtime
    places = [str(place) for place in runtime.get("mkdir") or ()]
    places += [str(mount.get("destination", "")) for mount in runtime.get("mounts") or ()]
    places += [str(path) for path in (runtime.get("bindNS") or {}).values() if path]
    return [posixpath.normpath(place) for place in places if place.startswith("/")]
