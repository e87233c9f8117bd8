"""Files that the YAML names: of this machine, or out of a bundle."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from linuxkit.config.model import Config, Position
from linuxkit.errors import HostError, InputError
from linuxkit.foreign import open_file
from linuxkit.plan.model import SourceFile
from linuxkit.sources import Sources, host_path


def read_sources(config: Config, sources: Sources) -> dict[str, SourceFile]:
    """Every file that `files:` names, by the name that it was found under.

    Raises:
        InputError: it has to come from the bundle, and is not there. HostError: it can't be read, or is no file.
    """
    found: dict[str, SourceFile] = {}
    for file in config.files:
        if file.source is not None:
            one = first_file(file.source_names(), file.position, sources)
            if one is not None:  # else optional, or an error with its place in the YAML
                found[one[0]] = one[1]
            elif sources.opened is not None and not sources.own_yaml and not file.optional:
                raise InputError(f"{file.source} is not in {sources.opened.where}, and its build reads no other files",
                                 hint="make the bundle anew, or name your own YAML behind --bundle FILE")  # fmt: skip
    return found


def first_file(names: Sequence[str], at: Position, sources: Sources) -> tuple[str, SourceFile] | None:
    """The first of some files that is there. LinuxKit would take that of the current directory: so another is said."""
    found: tuple[str, SourceFile] | None = None
    for name in dict.fromkeys(names):
        one = source_file(name, at, sources)
        if one is not None and found is None:
            found = name, one
        elif one is not None and found is not None and one.digest != found[1].digest:
            sources.log(f"{at.file}:{at.line}: {found[0]} is used, not {name} of the current directory, which differs")
    return found


def source_file(text: str, at: Position, sources: Sources) -> SourceFile | None:
    """A file of this machine, or of the bundle, whose own YAML reads nothing beside it; None: there is none."""
    bundled = sources.opened.contents.files.get(text) if sources.opened is not None else None
    if bundled is not None:
        return SourceFile(os.fspath(sources.store.blob_path(bundled.digest)), bundled.size, bundled.digest)
    if sources.opened is not None and not sources.own_yaml:
        return None
    path = host_path(text, sources)
    try:
        return _digest(path)
    except FileNotFoundError:
        return None
    except OSError as e:
        where = f" ({at.file}:{at.line})" if at.file else ""
        raise HostError(f"cannot read {path}{where}: {(e.strerror or str(e)).lower()}",
                        hint="it names a file of this machine") from e  # fmt: skip


def _digest(path: Path) -> SourceFile:
    with open_file(path) as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return SourceFile(os.fspath(path), stream.tell(), f"sha256:{digest}")
