"""The shortcut of a build in which nothing changed: what the last one was made of, kept under all that it depended on.

    inputs  = the program's own files, the flags, the YAML files' bytes, the store's index.json, the kit's recipes
    record  = the digest of each `source:` file, and of each output the pieces it consists of

When the inputs are the same, every source file has the digest it had, and every piece is still in the cache whole, then
planning again would give these very pieces: they are copied. In any doubt there is no shortcut, only the usual way.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from linuxkit.encode.pieces import Piece
from linuxkit.oci.derived import Derived
from linuxkit.outputs.pieces import OutputFile

KIND = "builds"
#: In a YAML file these refer to what a digest of the file doesn't cover.
_ELSEWHERE = (b"@pkg:", b"oci:", b"oci-archive:", b"docker-archive:")
#: Most bytes of pieces that a record holds itself.
SMALL = 4 << 20


class Recorded(NamedTuple):
    """The digest of a build's plan, its number of segments, the digests of its source files, outputs and warnings."""

    plan: str
    segments: int
    sources: Mapping[str, str]
    files: Sequence[OutputFile]
    warnings: Sequence[str] = ()


def inputs_key(
    files: Sequence[str], flags: Mapping[str, Any], index: Path, folders: Iterable[Path], program: Path,
    *, loaders: bool = False,
) -> str | None:
    """What a build depends on, as a key; None when that cannot be told from files.

    Args:
        files: YAML files.
        flags: everything from the command line that the result depends on.
        index: the store's index.json.
        folders: whose files' contents count; used only when a YAML file names the kit, or with `loaders`.
        program: the folder of the program: names, sizes and times of its files count.
    """
    digest = hashlib.sha256()

    def add(data: bytes) -> None:
        digest.update(b"%d " % len(data))
        digest.update(data)

    add(json.dumps(flags, sort_keys=True, default=str).encode())
    add(os.fsencode(Path.cwd()))
    try:
        kit = loaders
        for file in files:
            if file == "-" or "://" in file:
                return None
            data = Path(file).read_bytes()
            if any(word in data for word in _ELSEWHERE):
                return None
            kit = kit or b"kit://" in data
            add(os.fsencode(file))  # outputs are named after it
            add(data)
        add(index.read_bytes())
        for path in _walk(program, ".py"):
            stat = Path(path).stat()
            add(f"{path} {stat.st_size} {stat.st_mtime_ns}".encode(errors="surrogateescape"))
        for folder in folders if kit else ():
            for path in _walk(folder, ""):
                add(os.fsencode(path))
                add(Path(path).read_bytes())
    except OSError:
        return None
    return digest.hexdigest()


def _walk(folder: Path, suffix: str) -> list[str]:
    found = []
    for where, _, names in os.walk(folder):
        found += [f"{where}/{name}" for name in names if name.endswith(suffix)]
    return sorted(found)


def recall(derived: Derived, key: str) -> Recorded | None:
    """The build of that key, if all it was made of is still there."""
    path = derived.get(KIND, key)
    if path is None:
        return None
    try:
        record = json.loads(path.read_bytes())
        for source, digest in record["sources"].items():
            if _digest(source) != digest:
                return None
        files = [
            OutputFile(name, format_, tuple(Piece(n, p, at, base64.b64decode(data)) for n, p, at, data in pieces))
            for name, format_, pieces in record["files"]
        ]
        pieces = [piece for file in files for piece in file.pieces if piece.path]
        if not all(whole(derived, piece) for piece in pieces):
            return None
        return Recorded(record["plan"], record["segments"], record["sources"], files, tuple(record["warnings"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None  # damaged: made anew


def remember(derived: Derived, key: str, build: Recorded) -> None:
    """Keep a build for `recall`, unless much of it is in no file."""
    if sum(len(piece.data) for file in build.files for piece in file.pieces) > SMALL:
        return
    files = [
        [f.name, f.format, [[p.size, p.path, p.offset, base64.b64encode(p.data).decode()] for p in f.pieces]]
        for f in build.files
    ]
    record = {"plan": build.plan, "segments": build.segments, "sources": dict(build.sources), "files": files,
              "warnings": list(build.warnings)}  # fmt: skip
    with derived.put(KIND, key) as out:
        out.write(json.dumps(record, separators=(",", ":")).encode())


def whole(derived: Derived, piece: Piece) -> bool:
    """Whether the file of a piece is there, and all of it. OSError: it isn't there."""
    where, _, name = piece.path.rpartition("/")
    folder, _, kind = where.rpartition("/")
    if folder == str(derived.root):
        return derived.get(kind, name) is not None
    return Path(piece.path).stat().st_size >= piece.offset + piece.size


def _digest(path: str) -> str:
    """As the plan has it; empty for what isn't there."""
    try:
        with open(path, "rb") as stream:
            return f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}"
    except FileNotFoundError:
        return ""
