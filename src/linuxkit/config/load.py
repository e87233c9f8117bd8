"""Arguments of `build` to one Config: files, `-` for standard input, http(s) addresses; read, parsed, merged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from linuxkit.config.convert import CheckReference
from linuxkit.config.document import MAX_SIZE
from linuxkit.config.merge import merge
from linuxkit.config.model import Config
from linuxkit.config.parse import parse_config
from linuxkit.errors import InputError, Problem


@dataclass(frozen=True, slots=True)
class Readers:
    """What the outside world lends to `load_documents`.

    stdin            reads standard input to its end, but no more than the number of bytes it is given.
    fetch            gets an address: (address, most bytes) → content; raises NetworkError unless the status is 200.
    package          `@pkg:DIR` of a local file: the directory, joined to the file's → the package's full image name;
                     raises InputError.
    check_reference  raises InputError for what cannot be an image's name.
    seen             told of every source and its content.
    local            YAML that was fetched may name files of this machine.
    """

    stdin: Callable[[int], bytes] | None = None
    fetch: Callable[[str, int], bytes] | None = None
    package: Callable[[Path], str] | None = None
    check_reference: CheckReference | None = None
    seen: Callable[[str, bytes], None] = lambda source, content: None
    local: bool = False


#: Schemes of images in files of this machine.
_FILES = ("oci:", "oci-archive:", "docker-archive:")


def is_url(source: str) -> bool:
    return source.lower().startswith(("http://", "https://"))


def load_documents(sources: Sequence[str], readers: Readers = Readers()) -> Config:
    """Read and merge, left to right.

    Raises:
        InputError: a source is not there or not readable, or what it says is wrong. Faults of all files are reported
            together.
        NetworkError: from `fetch`.
    """
    if not sources:
        raise InputError("no YAML file was named", hint="linuxkit build FILE.yml…, or - for standard input")
    configs: list[Config] = []
    problems: list[Problem] = []
    failures: list[InputError] = []
    for source in sources:
        try:
            configs.append(load_document(source, readers))
        except InputError as e:
            failures.append(e)
            problems += e.problems or [Problem(e.message, file=source, hint=e.hint)]
    if len(failures) == 1:
        raise failures[0]
    if failures:
        raise InputError(f"{len(failures)} files have problems", problems=problems)
    return merge(configs)


def load_document(source: str, readers: Readers) -> Config:
    """One source by itself. Raises as load_documents."""
    check = readers.check_reference
    if source == "-":
        if readers.stdin is None:
            raise InputError("standard input cannot be read here", hint="name a file")
        data = readers.stdin(MAX_SIZE + 1)
        readers.seen(source, data)
        return parse_config(data, "<stdin>", check_reference=check)
    if is_url(source):
        if readers.fetch is None:
            raise InputError(f"{source} cannot be fetched here", hint="fetch it and name the file")
        data = readers.fetch(source, MAX_SIZE)
        readers.seen(source, data)
        config = parse_config(data, source, check_reference=check)
        if not readers.local:
            _check_remote(config, source)
        return config
    data = read_file(source)
    readers.seen(source, data)
    package = readers.package
    if package is None:
        return parse_config(data, source, check_reference=check)
    folder = Path(source).parent
    return parse_config(data, source, substitute=lambda text: package(folder / text), check_reference=check)


def _check_remote(config: Config, source: str) -> None:
    """Raises: InputError, for everything by which YAML from elsewhere would read files of this machine."""
    problems = [
        Problem(f"source: {file.source} is a file of this machine", at.file, at.line, at.column, f"files[{n}].source")
        for n, file in enumerate(config.files) if file.source is not None for at in (file.position,)
    ]  # fmt: skip
    images = [("kernel.image", config.kernel.image, config.kernel.position)]
    for section in ("init", "onboot", "onshutdown", "services", "volumes"):
        images += [(f"{section}[{n}].image", one.image, one.position)
                   for n, one in enumerate(getattr(config, section))]  # fmt: skip
    found = [one for one in images if one[1] and one[1].startswith(_FILES)]
    for section in ("onboot", "onshutdown", "services"):
        for n, one in enumerate(getattr(config, section)):
            if (name := one.settings.seccomp) not in (None, "", "default", "unconfined"):
                found.append((f"{section}[{n}].seccomp", name, one.positions.get("seccomp", one.position)))
    problems += [Problem(f"{text} is a file of this machine", at.file, at.line, at.column, path)
                 for path, text, at in found]  # fmt: skip
    if problems:
        raise InputError(f"{source} comes from the network and asks for files of this machine", problems=problems,
                         hint="--allow-local-files lets it have them, if you trust who wrote it")  # fmt: skip


def read_file(name: str) -> bytes:
    """The content of a local file, at most one byte over the limit.

    Raises:
        InputError: it cannot be read; the hint offers a neighbour of a similar name.
    """
    path = Path(name)
    try:
        with path.open("rb") as stream:
            return stream.read(MAX_SIZE + 1)
    except FileNotFoundError:
        raise InputError(f"{name}: there is no such file", hint=_neighbour(path)) from None
    except IsADirectoryError:
        inside = sorted(p.name for p in path.glob("*.y*ml"))[:3]
        hint = f"name a file in it: {', '.join(inside)}" if inside else "name a YAML file"
        raise InputError(f"{name} is a directory", hint=hint) from None
    except (OSError, ValueError) as e:
        raise InputError(f"{name} cannot be read: {getattr(e, 'strerror', None) or e}") from None


def _neighbour(path: Path) -> str:
    import difflib

    try:
        names = {p.stem: p.name for p in sorted(path.parent.iterdir()) if p.suffix in (".yml", ".yaml")}
    except OSError:
        return f"there is no directory {path.parent} either"
    close = difflib.get_close_matches(path.stem, names, n=1, cutoff=0.5)
    return f"did you mean '{path.parent / names[close[0]]}'?" if close else ""
