"""Take from some Debian packages what a recipe names, and what that needs to run.

Kept: the files that the globs name, what kept symbolic links lead to, the interpreter and shared libraries of every
kept ELF file (where the dynamic linker looks without a configuration), and the copyright file of each package that
anything was taken from. Nothing else: no documentation, no locales, no maintainer scripts.

Debian's root has /bin, /lib and /sbin as links into /usr; paths here are always the real ones, below usr/. The
interpreter alone is put at the very path that programs ask for (/lib64/…), so that no such links are needed.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

from linuxkit.encode import elf
from linuxkit.entry import FIXED_MTIME, Entry, Kind
from linuxkit.errors import ImageError, InputError

#: glibc loads the second when a program ends a thread; what a library does is left to who uses it
_GLIBC, _UNWINDER = "libc.so.6", "libgcc_s.so.1"
_MERGED = re.compile(r"^(bin|sbin|lib|lib32|lib64|libx32)/")


@dataclass(frozen=True, slots=True)
class Tree:
    """The nodes of several packages as one tree, and which package each came from."""

    entries: Mapping[str, Entry]
    owner: Mapping[str, str]


@cache
def glob(pattern: str) -> re.Pattern[str]:
    """A path glob as a regular expression: `*` and `?` stay within a folder, `**` does not, `{a,b}` is either."""
    out, depth = "", 0
    for part in re.split(r"(\*\*/|\*\*|[*?{},])", pattern):
        depth += (part == "{") - (part == "}")
        if part == "," and not depth:
            out += ","
            continue
        signs = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]", "{": "(?:", "}": ")", ",": "|"}
        out += signs.get(part) or re.escape(part)
    return re.compile(out + r"\Z")


def real(path: str) -> str:
    """A path with the first folder as it is since /usr was merged."""
    return _MERGED.sub(r"usr/\1/", path)


def merge(packages: Iterable[tuple[str, Mapping[str, Entry]]]) -> Tree:
    """One tree of (package name, its nodes). The first package to bring a path has it."""
    entries: dict[str, Entry] = {}
    owner: dict[str, str] = {}
    for name, nodes in packages:
        for path, entry in nodes.items():
            path = real(path)
            if path not in entries or (entries[path].kind is Kind.DIRECTORY and entry.kind is not Kind.DIRECTORY):
                target = real(entry.target) if entry.kind is Kind.HARDLINK else entry.target
                entries[path] = replace(entry, path=path, target=target, mtime=FIXED_MTIME)
                owner[path] = name
    return Tree(entries, owner)


def resolve(tree: Tree, path: str) -> str | None:
    """The real path of `path` inside the tree, following links; None when it leads out of it or in a circle."""
    parts, seen, done = path.split("/"), 0, ""
    while parts:
        part = parts.pop(0)
        if part in ("", "."):
            continue
        if part == "..":
            done = done.rpartition("/")[0]
            continue
        here = real(f"{done}/{part}" if done else part)
        entry = tree.entries.get(here)
        if entry is not None and entry.kind is Kind.SYMLINK:
            seen += 1
            if seen > 40:
                return None
            if entry.target.startswith("/"):
                done = ""
            parts = entry.target.split("/") + parts
            continue
        done = here
    done = real(done)
    if done not in tree.entries:
        return None
    entry = tree.entries[done]
    return entry.target if entry.kind is Kind.HARDLINK else done


def keep(tree: Tree, patterns: Sequence[str], moves: Mapping[str, str]) -> dict[str, Entry]:
    """The nodes that the globs name, moved as told, by path; links bring what they lead to.

    Raises:
        InputError: a glob that names nothing.
    """
    chosen: dict[str, None] = {}
    places = {real(old): new for old, new in moves.items()}
    for pattern in (*patterns, *moves):
        match = glob(real(pattern)).match
        hits = [path for path, entry in tree.entries.items() if entry.kind is not Kind.DIRECTORY and match(path)]
        if not hits:
            close = [p for p in tree.entries if p.rpartition("/")[2] == pattern.rpartition("/")[2]]
            raise InputError(f"no file of the packages is called {pattern!r}",
                             hint=f"did you mean {close[0]!r}?" if close else "")  # fmt: skip
        chosen.update(dict.fromkeys(hits))
    out: dict[str, Entry] = {}
    for path in chosen:
        entry = tree.entries[path]
        if entry.kind is Kind.HARDLINK:
            entry = replace(tree.entries[entry.target], path=path)
        elif entry.kind is Kind.SYMLINK:
            target = resolve(tree, path)
            if target is not None and target not in chosen and tree.entries[target].kind is Kind.FILE:
                out.setdefault(target, tree.entries[target])
        new = places.get(path, path)
        out[new] = replace(entry, path=new)
    return out


def closure(tree: Tree, kept: Mapping[str, Entry], triplet: str, machine: str,
            inherent: str = "") -> dict[str, tuple[Entry, str]]:  # fmt: skip
    """The interpreters and libraries that the ELF files among `kept` need: path → (node, package).

    Args:
        triplet: the GNU name of the architecture, as in usr/lib/x86_64-linux-gnu.
        machine: the architecture in Go's names, which every program must be for.
        inherent: libraries whose names start so are the interpreter itself; "" where there are none.

    Raises:
        ImageError: a library that no package has, a damaged program, or one for another machine.
    """
    standard = [f"usr/lib/{triplet}", "usr/lib", "usr/lib64"]
    found: dict[str, tuple[Entry, str]] = {}
    loaded: set[str] = set()
    queue = [(path, entry, path) for path, entry in kept.items() if entry.kind is Kind.FILE]
    while queue:
        path, entry, place = queue.pop(0)
        assert entry.source is not None
        try:
            header = elf.read(entry.source)
        except elf.ElfError as e:
            raise ImageError(f"{path}: {e}") from e
        if header is None or path.startswith("usr/lib/modules/"):
            continue
        if elf.MACHINES.get(header.machine) != machine:
            raise ImageError(f"{path} is a program for another machine than {machine}")
        wanted: list[tuple[str, str | None]] = []
        if header.interpreter:  # it is also the library that others ask for by its base name: loaded already
            loaded.add(header.interpreter.rpartition("/")[2])
            wanted.append((header.interpreter, header.interpreter.lstrip("/")))
        needed = header.needed
        if header.unwinds and header.interpreter and _GLIBC in needed:
            needed = (*needed, _UNWINDER)
        wanted += [(soname, _search(tree, soname, header.runpath, place, standard))
                   for soname in needed
                   if soname not in loaded and not (inherent and soname.startswith(inherent))]  # fmt: skip
        for name, at in wanted:
            if at is not None and (at in found or at in kept):
                continue
            target = resolve(tree, at) if at is not None else None
            if at is None or target is None:
                raise ImageError(f"{path} needs {name}, which none of the packages has",
                                 hint="name the package that has it under libraries")  # fmt: skip
            node = replace(tree.entries[target], path=at)
            found[at] = (node, tree.owner[target])
            queue.append((at, node, target))
    return found


def _search(tree: Tree, soname: str, runpath: Sequence[str], place: str, standard: Sequence[str]) -> str | None:
    if "/" in soname:
        return soname.lstrip("/")
    folder = place.rpartition("/")[0]
    own = [p.replace("${ORIGIN}", folder).replace("$ORIGIN", folder).lstrip("/") for p in runpath]
    for where in (*own, *standard):
        candidate = real(posixpath.normpath(f"{where}/{soname}"))
        if resolve(tree, candidate) is not None:
            return candidate
    return None


def licences(tree: Tree, packages: Iterable[str]) -> dict[str, Entry]:
    """The copyright files of some packages, by path.

    Raises:
        ImageError: a package without one.
    """
    out: dict[str, Entry] = {}
    for name in sorted(set(packages)):
        path = f"usr/share/doc/{name}/copyright"
        target = resolve(tree, path)
        if target is None:
            raise ImageError(f"package {name} has no copyright file, which must go with its files")
        out[path] = replace(tree.entries[target], path=path)
    return out
