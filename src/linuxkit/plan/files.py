"""`files:` → the nodes it makes, in order, with the directories that lead to them. Pure.

LinuxKit's rules: a missing leading directory comes first, with the owner of the file and the file's mode plus an
execute bit wherever the mode has any; a directory once made by this section isn't made again.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence

from linuxkit.config.model import File
from linuxkit.entry import MAX_MODE, Entry, Kind, fault, long_name
from linuxkit.errors import InputError, Problem
from linuxkit.plan.model import PlannedFile, SourceFile
from linuxkit.runtime.ids import resolve_id

SOURCE = "linuxkit.files"


def plan_files(
    files: Sequence[File], sources: Mapping[str, SourceFile], metadata: Mapping[str, bytes], ids: Mapping[str, int]
) -> tuple[PlannedFile, ...]:
    """The nodes of the section.

    Args:
        sources: by one of `File.source_names`; what is missing there does not exist on the build host.

    Raises:
        InputError: faults that the parser cannot see; all of them.
    """
    planned: list[PlannedFile] = []
    made: set[str] = set()
    problems = []
    for number, file in enumerate(files):
        try:
            planned += _plan(number, file, sources, metadata, ids, made)
        except InputError as e:
            p = file.position
            problems.append(Problem(e.message, p.file, p.line, p.column, f"files[{number}]", e.hint))
    if problems:
        raise InputError("the files: section is not right", problems=problems)
    return tuple(planned)


def _plan(
    number: int, file: File, sources: Mapping[str, SourceFile], metadata: Mapping[str, bytes], ids: Mapping[str, int],
    made: set[str],
) -> list[PlannedFile]:  # fmt: skip
    origin = (SOURCE, f"files[{number}]")
    path = file.path.removeprefix("/")
    if not path.strip("/"):
        raise InputError("did not specify path for file", hint="give path: with the place in the image")
    mode = int(file.mode, 8) if file.mode else 0o700 if file.directory else 0o600
    uid, gid = resolve_id(file.uid, ids), resolve_id(file.gid, ids)
    source, data, target = None, b"", ""
    kind = Kind.FILE
    if file.directory:
        kind = Kind.DIRECTORY
    elif file.symlink is not None:
        kind, target = Kind.SYMLINK, file.symlink
    elif file.contents is not None:
        data = file.contents.encode("utf-8", "surrogateescape")
    elif file.metadata is not None:
        data = metadata[file.metadata]
    elif file.source is not None:
        names = file.source_names()
        source = next((sources[name] for name in names if name in sources), None)
        if source is None:
            if file.optional:
                return []
            raise InputError(f"{file.source} does not exist",
                             hint="looked for " + " and ".join(dict.fromkeys(names)))  # fmt: skip
    nodes = []
    for directory in _leading(path):
        if directory not in made:
            made.add(directory)
            nodes.append(PlannedFile(directory, Kind.DIRECTORY, _directory_mode(mode), uid, gid, origin=origin))
    if file.directory:
        path = path.rstrip("/")
        made.add(path)
    wrong = fault(Entry(path, kind, mode & MAX_MODE, uid, gid, target=target)) or long_name(path)
    if wrong:
        raise InputError(f"{path[:200]!r} {wrong}", hint="change it")
    nodes.append(PlannedFile(path, kind, mode, uid, gid, target, data, source, origin))
    return nodes


def _leading(path: str) -> list[str]:
    """The directories on the way, outermost first, spelt as they stand."""
    found = []
    parent = posixpath.dirname(path.rstrip("/"))
    while parent and parent not in (".", "/"):
        found.append(parent)
        parent = posixpath.dirname(parent)
    return found[::-1]


def _directory_mode(mode: int) -> int:
    for bits in (0o700, 0o070, 0o007):
        if mode & bits:
            mode |= bits & 0o111
    return mode
