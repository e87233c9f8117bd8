"""What is in a root filesystem and its containers that decides whether it boots: programs and kernel modules.

Told from the entries, before anything is encoded, and kept in the derived cache, so that it costs a build nothing the
second time. What can't be told is unknown, never missing.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from linuxkit.encode.pieces import of_source
from linuxkit.entry import Entry, Kind, digest_of
from linuxkit.errors import ImageError
from linuxkit.outputs.bootstage import all_modules
from linuxkit.outputs.build import Build
from linuxkit.outputs.kernelfile import KernelFile, embedded_config, parse_config
from linuxkit.plan.model import BundlePlan, KernelPlan, PlannedFile
from linuxkit.rootfs.content import layers_of
from linuxkit.rootfs.segment import Segment

KIND = "preflight"
#: Raise it when what is kept has other fields, or is told in another way.
VERSION = 3
#: What a configuration is called in a kernel image.
CONFIGS = re.compile(r"(boot/)?(kernel[-_])?config([-_.][^/]*)?")
#: A configuration with fewer options than this is only a part of one.
WHOLE = 300
MAX_CONFIG = 4 << 20
_MODULE = re.compile(r"(?:usr/)?lib/modules/[^/]+/(?:.*/)?([^/]+)\.ko(?:\.\w+)?")
_BUILTIN = re.compile(r"(?:usr/)?lib/modules/[^/]+/modules\.builtin")
_LINKS = 40
_HEAD = 64
#: e_machine of ELF programs that run nowhere but there; 32-bit ones of the same family may run.
MACHINES = {62: "amd64", 183: "arm64", 243: "riscv64", 22: "s390x", 21: "ppc64le", 258: "loong64"}
_ELF, _SCRIPT = b"\x7fELF", b"#!"


@dataclass(frozen=True, slots=True)
class Program:
    """kind: elf, script, other, missing, or empty for what can't be told. `machine`: of an ELF file, as it is in it."""

    kind: str
    machine: int = 0
    executable: bool = True


@dataclass(frozen=True, slots=True)
class Facts:
    """programs    by path, of those of the root filesystem that were asked for.
    containers  for each bundle of the plan what it starts, and what that is.
    modules     names of kernel modules in the root filesystem.
    builtin     names of what its kernel has built in as well; None: no list of them.
    config      of the kernel's configuration what was asked for and is set; None: no telling.
    lacking     of the drivers that were asked for those that the kernel surely hasn't got, as modules or otherwise.
    """

    programs: Mapping[str, Program]
    containers: Sequence[tuple[str, Program]]
    modules: frozenset[str]
    builtin: frozenset[str] | None
    config: Mapping[str, str] | None
    lacking: frozenset[str]


def facts(
    build: Build, kernel: KernelFile, paths: Sequence[str], options: Sequence[str], drivers: Sequence[str]
) -> Facts:
    """What is known of a build.

    Args:
        kernel: the build's own.
        paths: programs in the root filesystem to look at.
        options: of the kernel's configuration, without CONFIG_.
        drivers: names of modules that a root on a device needs, wherever the kernel's image has them.

    Raises:
        ImageError: a layer is missing or damaged.
    """
    plan = build.plan
    assert plan.kernel is not None
    segments = [s for s in build.segments(boot=False) if s.name in ("kernel", "files") or s.name.startswith("init")]
    starts = [arguments(bundle) for bundle in plan.bundles]
    key = digest_of(part.encode(errors="surrogateescape") for part in (
        str(VERSION), build.content.whiteouts, plan.kernel.image.digest, plan.kernel.binary, *paths, *options, *drivers,
        *(segment.key for segment in segments if segment.name != "files"), *map(described, plan.files),
        *(repr((start, bundle.tree.image.config.diff_ids if bundle.tree else ()))
          for start, bundle in zip(starts, plan.bundles, strict=True)),
    ))  # fmt: skip
    derived = build.content.derived
    row = kept(derived.get(KIND, key))
    if row is None:
        _read_ahead(build, segments)
        row = {
            **_root(segments, paths), "config": _config(build, plan.kernel, kernel, options),
            "containers": [_started(build, *both) for both in zip(plan.bundles, starts, strict=True)],
            "lacking": _lacking(build, drivers),
        }  # fmt: skip
        with derived.put(KIND, key) as out:
            out.write(json.dumps(row, separators=(",", ":")).encode())
    builtin = row["builtin"]
    return Facts(
        {path: Program(*one) for path, one in row["programs"].items()},
        [(name, Program(*one)) for name, one in row["containers"]],
        frozenset(row["modules"]), None if builtin is None else frozenset(builtin), row["config"],
        frozenset(row["lacking"]),
    )  # fmt: skip


def described(file: PlannedFile) -> str:
    """All of a file that can make a difference: not the content of one that is neither a program nor about modules."""
    said = [file.path, file.kind, file.mode, file.target]
    if file.mode & 0o111 or "lib/modules/" in file.path:
        said.append(file.source.digest if file.source is not None else hashlib.sha256(file.data).hexdigest())
    return repr(said)


def kept(path: Path | None) -> dict[str, Any] | None:
    if path is None:
        return None
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None  # damaged: made anew
    return found


def _read_ahead(build: Build, segments: Sequence[Segment]) -> None:
    """Unpack the layers that are going to be looked at, side by side."""
    trees = [layers_of(bundle.tree.image) for bundle in build.plan.bundles if bundle.tree is not None]
    try:
        build.content.layers.prefetch([layer for layers in (*(s.layers for s in segments), *trees) for layer in layers])
    except ImageError:
        pass  # comes again where it is known whose layer that is


def _root(segments: Sequence[Segment], paths: Sequence[str]) -> dict[str, Any]:
    entries = {entry.path: entry for segment in segments for entry in segment.entries()}
    modules, builtin = set[str](), None
    for path, entry in entries.items():
        if "lib/modules/" not in path:
            continue
        if found := _MODULE.fullmatch(path):
            modules.add(_name(found[1]))
        elif _BUILTIN.fullmatch(path) and entry.kind is Kind.FILE:
            lines = start_of(entry, MAX_CONFIG).decode("utf-8", "replace").split()
            builtin = (builtin or set()) | {_name(line.rpartition("/")[2].partition(".ko")[0]) for line in lines}
    return {
        "programs": {path: astuple(program(entries, path)) for path in paths},
        "modules": sorted(modules), "builtin": None if builtin is None else sorted(builtin),
    }  # fmt: skip


def _lacking(build: Build, drivers: Sequence[str]) -> list[str]:
    if not drivers:
        return []
    modules = all_modules(build)
    return [name for name in drivers if modules.lacks(name)]


def arguments(bundle: BundlePlan) -> tuple[str, ...]:
    """The program that a container starts, and the paths at which it may be."""
    process = bundle.config.get("process") or {}
    name = str((process.get("args") or [""])[0])
    if not name:
        return ("",)
    if name.startswith("/"):
        return name, name
    if "/" in name:
        return name, f"{process.get('cwd') or '/'}/{name}"
    path = next((str(e)[5:] for e in process.get("env") or [] if str(e).startswith("PATH=")), "")
    return name, *(f"{place}/{name}" for place in (path or "/usr/sbin:/usr/bin:/sbin:/bin").split(":"))


def _started(build: Build, bundle: BundlePlan, start: tuple[str, ...]) -> tuple[str, tuple[Any, ...]]:
    name, *paths = start
    if bundle.tree is None or not paths:  # another container brings its tree
        return name, astuple(Program(""))
    entries = {entry.path: entry for entry in build.content.tree(bundle.tree.image)}
    found = [program(entries, path) for path in paths]
    return name, astuple(next((one for one in found if one.kind != "missing"), Program("missing")))


def _config(build: Build, plan: KernelPlan, kernel: KernelFile, options: Sequence[str]) -> dict[str, str] | None:
    found: dict[str, str] = {}
    for entry in build.content.tree(plan.image):
        if CONFIGS.fullmatch(entry.path) and entry.kind is Kind.FILE:
            found = parse_config(_plain(start_of(entry, MAX_CONFIG)))
            if len(found) >= WHOLE:
                break
    if len(found) < WHOLE:
        found = embedded_config(of_source(build.boot.kernel), kernel)
    if len(found) < WHOLE:
        return None
    return {name: found[name] for name in sorted(options) if name in found}


def _plain(data: bytes) -> bytes:
    """A configuration that may be compressed with gzip; nothing when it is damaged."""
    if data[:2] != b"\x1f\x8b":
        return data
    try:
        return zlib.decompressobj(31).decompress(data, MAX_CONFIG)
    except zlib.error:
        return b""


def program(entries: Mapping[str, Entry], path: str) -> Program:
    """What an absolute path is, in a tree of entries by path."""
    entry = find(entries, path)
    if entry is None or isinstance(entry, str):
        return Program(entry or "")
    if entry.kind is not Kind.FILE:
        return Program("other")
    head = start_of(entry, _HEAD)
    kind = "elf" if head[:4] == _ELF else "script" if head[:2] == _SCRIPT else "other"
    machine = 0
    if kind == "elf" and len(head) >= 20:
        (machine,) = struct.unpack_from("<H" if head[5] != 2 else ">H", head, 18)
    return Program(kind, machine, bool(entry.mode & 0o111))


def find(entries: Mapping[str, Entry], path: str) -> Entry | str | None:
    """The entry at a path, through symlinks; "missing" when nothing is there; None: it is where we don't look."""
    way, left, links = list[str](), [part for part in reversed(path.split("/")) if part], 0
    while left:
        part = left.pop()
        if part == "..":
            way = way[:-1]
            continue
        if part == ".":
            continue
        way.append(part)
        entry = entries.get("/".join(way))
        if entry is None or entry.kind is not Kind.SYMLINK:
            continue
        links += 1
        if links > _LINKS:
            return None
        way = [] if entry.target.startswith("/") else way[:-1]
        left += [p for p in reversed(entry.target.split("/")) if p]
    whole = "/".join(way)
    found = entries.get(whole) or entries.get(posixpath.normpath(path).strip("/"))
    if found is not None and found.kind is Kind.HARDLINK:
        return entries.get(found.target)
    return found if found is not None else None if links else "missing"


def _name(text: str) -> str:
    return text.replace("-", "_")


def start_of(entry: Entry, size: int) -> bytes:
    if entry.source is None:
        return b""
    with entry.source.open() as stream:
        return stream.read(size)
