"""The kernel modules of an image, as the indexes beside them tell (modules.dep(5)): what is there, what needs what.

    lib/modules/RELEASE/modules.dep      PATH: PATH …       from depmod, or from the kit
                        modules.alias    alias PATTERN NAME
                        modules.softdep  softdep NAME pre: … post: …
                        modules.builtin  PATH               of what is in the kernel itself
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from linuxkit.entry import FIXED_MTIME, Bytes, Entry, Kind, read_all
from linuxkit.errors import ImageError

MAX_INDEX = 64 << 20


def module_name(path: str) -> str:
    """The name that a module's file has when it is loaded."""
    return path.rpartition("/")[2].partition(".ko")[0].replace("-", "_")


@dataclass(frozen=True)
class Modules:
    """The modules of one kernel.

    folder   lib/modules/RELEASE; empty when there are none.
    entries  all that is in it, by path below it.
    where    for messages: which tar of which image.
    """

    folder: str
    entries: dict[str, Entry]
    where: str

    def _lines(self, name: str) -> list[str]:
        entry = self.entries.get(name)
        return read_all(entry.source, MAX_INDEX).decode(errors="replace").splitlines() if entry is not None else []

    @cached_property
    def needs(self) -> dict[str, tuple[str, ...]]:
        """By a module's path: the paths of all that it needs."""
        if "modules.dep" not in self.entries and any(".ko" in path for path in self.entries):
            raise ImageError(f"{self.where} has kernel modules and no modules.dep", hint="depmod makes it")
        found = {}
        for line in self._lines("modules.dep"):
            path, colon, rest = line.partition(":")
            if colon and path in self.entries:
                found[path] = tuple(rest.split())
        return found

    @cached_property
    def by_name(self) -> dict[str, str]:
        """By name: the path."""
        return {module_name(path): path for path in self.needs}

    @cached_property
    def builtin(self) -> frozenset[str] | None:
        """Names of what the kernel itself has; None when nothing says so."""
        if "modules.builtin" not in self.entries:
            return None
        return frozenset(module_name(line) for line in self._lines("modules.builtin"))

    @cached_property
    def _soft(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for line in self._lines("modules.softdep"):
            words = line.split()
            if len(words) > 2 and words[0] == "softdep":
                names = [word for word in words[2:] if not word.endswith(":")]
                found.setdefault(words[1].replace("-", "_"), []).extend(names)
        return found

    @cached_property
    def _aliases(self) -> list[tuple[str, str]]:
        rows = (line.split() for line in self._lines("modules.alias"))
        return [(row[1], row[2]) for row in rows if len(row) == 3 and row[0] == "alias"]

    def lacks(self, name: str) -> bool:
        """Whether the kernel can't do it: neither a module nor, as far as can be told, built in."""
        return name not in self.by_name and self.builtin is not None and name not in self.builtin

    def closure(self, names: Iterable[str]) -> list[str]:
        """The paths of some modules and of all that they need, those that aren't there left out; sorted."""
        chosen: dict[str, None] = {}
        queue = [self.by_name[name] for name in names if name in self.by_name]
        while queue:
            path = queue.pop()
            if path in chosen or path not in self.needs:
                continue
            chosen[path] = None
            queue += self.needs[path]
            for soft in self._soft.get(module_name(path), ()):
                queue += self._named(soft)
        return sorted(chosen)

    def _named(self, text: str) -> list[str]:
        """By a module's name or an alias of it."""
        path = self.by_name.get(text.replace("-", "_"))
        found = [path] if path else [self.by_name.get(name.replace("-", "_"), "")
                                     for alias, name in self._aliases if alias == text]  # fmt: skip
        return [path for path in found if path]

    def subset(self, paths: Sequence[str]) -> list[Entry]:
        """Entries of a tree with only these modules, and indexes that know of no others."""
        if not paths:
            return []
        chosen = set(paths)
        names = {module_name(path) for path in paths}
        indexes = {
            "modules.dep": [f"{path}:{''.join(f' {n}' for n in self.needs[path] if n in chosen)}" for path in paths],
            "modules.alias": [f"alias {alias} {name}" for alias, name in self._aliases
                              if name.replace("-", "_") in names],
            "modules.softdep": [line for line in self._lines("modules.softdep")
                                if len(line.split()) > 1 and line.split()[1].replace("-", "_") in names],
            "modules.builtin": self._lines("modules.builtin"),
        }  # fmt: skip
        folders = {"/".join(parts[:n]) for path in paths for parts in [f"{self.folder}/{path}".split("/")]
                   for n in range(1, len(parts))}  # fmt: skip
        made = [Entry(path, Kind.DIRECTORY, 0o755, mtime=FIXED_MTIME) for path in folders]
        made += [Entry(f"{self.folder}/{path}", Kind.FILE, 0o644, mtime=FIXED_MTIME, source=self.entries[path].source)
                 for path in paths]  # fmt: skip
        made += [Entry(f"{self.folder}/{name}", Kind.FILE, 0o644, mtime=FIXED_MTIME,
                       source=Bytes("".join(f"{line}\n" for line in lines).encode()))
                 for name, lines in indexes.items()]  # fmt: skip
        return sorted(made, key=lambda entry: entry.path)


def modules_in(entries: Iterable[Entry], where: str) -> Modules:
    """The modules among the members of a tar.

    Raises:
        ImageError: they are of more than one kernel.
    """
    found: dict[str, dict[str, Entry]] = {}
    for entry in entries:
        parts = entry.path.split("/")
        at = 2 if parts[:2] == ["lib", "modules"] else 3 if parts[:3] == ["usr", "lib", "modules"] else 0
        if at and len(parts) > at + 1 and entry.kind is Kind.FILE:
            found.setdefault("/".join(["lib", "modules", parts[at]]), {})["/".join(parts[at + 1 :])] = entry
    if len(found) > 1:
        raise ImageError(f"{where} has modules of {len(found)} kernels: {', '.join(sorted(found))}")
    folder, files = next(iter(found.items()), ("", {}))
    return Modules(folder, files, where)
