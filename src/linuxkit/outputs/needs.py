"""What a program needs in its root filesystem to start: itself, its interpreter or loader, its libraries. Pure.

In doubt nothing is said: about what a mount may bring, what lies behind a link that leads out, a damaged ELF file.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence

from linuxkit.encode import elf
from linuxkit.entry import Entry, Kind
from linuxkit.outputs.rootfacts import MACHINES, find, start_of

#: How far interpreters of interpreters are followed, and how many libraries are read.
_DEPTH, _LIBRARIES = 4, 200
#: Most bytes of a program that is compared whole.
_OWN = 16 << 20
#: What musl's loader is by itself, whatever it is called (its own list of reserved names).
_MUSL = tuple(f"lib{name}." for name in ("c", "pthread", "rt", "m", "dl", "util", "xnet"))
#: Where programs do not lie, and mounts change nothing for them.
_ASIDE = ("/dev", "/etc", "/home", "/mnt", "/proc", "/root", "/run", "/srv", "/sys", "/tmp", "/var")


class Root:
    """A tree of entries by path, some of it hidden by mounts."""

    def __init__(self, entries: Mapping[str, Entry], mounts: Sequence[str] = (), path: str = "") -> None:
        self._entries = entries
        self._mounts = [posixpath.normpath("/" + place.lstrip("/")).rstrip("/") for place in mounts]
        # a link may lead to what such a mount brings
        self._outside = any(not place.startswith(_ASIDE) for place in self._mounts)
        self._path = path or "/usr/sbin:/usr/bin:/sbin:/bin"
        self._names: dict[str, Entry] | None = None

    def fault(self, name: str, candidates: Sequence[str]) -> str:
        """Why a program cannot start; empty: nothing is known against it.

        Args:
            name: as it is asked for.
            candidates: absolute paths at which it may be; the first one that can be run counts.
        """
        refused = ""
        for path in candidates:
            found = self.at(path)
            if found is None:
                return ""
            if isinstance(found, str) or found.kind is Kind.DIRECTORY:
                if isinstance(found, Entry) and len(candidates) == 1:
                    refused = f"{name} is a directory"
            elif found.kind is Kind.FILE and found.mode & 0o111:
                return self._needs(path, found, 0)
            elif found.kind is Kind.FILE:
                refused = refused or f"{path} is not executable"
            else:
                return ""
        return refused or f"there is no {name}" + (f" in {self._path}" if "/" not in name else "")

    def content(self, path: str) -> bytes | None:
        """The bytes of a file, through links; None: there is no telling, or it is none."""
        found = self.at(f"/{path}")
        if not isinstance(found, Entry) or found.kind is not Kind.FILE or found.source is None or found.size > _OWN:
            return None
        return start_of(found, found.size)

    def at(self, path: str) -> Entry | str | None:
        """The entry, "missing", or None: no telling."""
        whole = posixpath.normpath(path)
        if any(whole == place or whole.startswith(f"{place}/") for place in self._mounts):
            return None
        found = find(self._entries, whole)
        return None if found == "missing" and self._outside else found

    def _needs(self, path: str, entry: Entry, depth: int) -> str:
        head = start_of(entry, 256)
        if head[:4] == elf.MAGIC:
            return self._elf(path, entry)
        if head[:2] != b"#!":
            return f"{path} is no program: neither ELF nor a script with #!"
        line = head[2:].partition(b"\n")[0].decode(errors="replace")
        words = line.strip(" \t").split(None, 1)
        interpreter = words[0] if words else ""
        if not interpreter.startswith("/") or depth >= _DEPTH:
            return ""
        ended = " (its lines end like those of Windows)" if line.endswith("\r") else ""
        asked = interpreter if len(words) > 1 or not ended else interpreter + "\r"
        found = self.at(asked)
        if found is None:
            return ""
        if isinstance(found, str):
            return f"{path} needs {interpreter}{ended}, which is not there"
        if found.kind is Kind.FILE and not found.mode & 0o111:
            return f"{path} needs {interpreter}, which is not executable"
        if found.kind is not Kind.FILE:
            return ""
        if posixpath.basename(interpreter) == "env" and len(words) > 1:
            wanted = words[1].removeprefix("-S ").split()[:1]
            if wanted and "=" not in wanted[0] and not wanted[0].startswith("-") and "/" not in wanted[0]:
                places = [f"{place}/{wanted[0]}" for place in self._path.split(":")]
                if all(isinstance(self.at(place), str) for place in places):
                    return f"{path} needs {wanted[0]}{ended}, which is not in {self._path}"
            return ""
        return self._needs(interpreter, found, depth + 1)

    def _elf(self, path: str, entry: Entry) -> str:
        read = self._read(entry)
        if read is None or read.machine not in MACHINES:
            return ""
        if read.interpreter:
            loader = self.at(read.interpreter)
            if isinstance(loader, str):
                return f"{path} needs the loader {read.interpreter}, which is not there"
            if loader is None:
                return ""
            if loader.kind is Kind.FILE and not loader.mode & 0o111:
                return f"{path} needs the loader {read.interpreter}, which is not executable"
        if self._outside:
            return ""
        musl = "ld-musl" in read.interpreter
        left, seen = list(read.needed), set[str]()
        while left and len(seen) < _LIBRARIES:
            name = posixpath.basename(left.pop(0))
            if name in seen or (musl and name.startswith(_MUSL)):
                continue
            seen.add(name)
            library = self._named(name)
            if library is None:
                return f"{path} needs the library {name}, which is not there"
            more = self._read(library)
            left += more.needed if more is not None and more.machine == read.machine else ()
        return ""

    def _named(self, name: str) -> Entry | None:
        """A file of that name anywhere: where libraries are looked for has too many rules to be sure of."""
        if self._names is None:
            self._names = {}
            for path, entry in self._entries.items():
                if ".so" in path:
                    known = self._names.get(posixpath.basename(path))
                    if known is None or known.kind is not Kind.FILE:
                        found = find(self._entries, path)
                        self._names[posixpath.basename(path)] = found if isinstance(found, Entry) else entry
        return self._names.get(name)

    def _read(self, entry: Entry) -> elf.Elf | None:
        if entry.kind is not Kind.FILE or entry.source is None:
            return None
        try:
            return elf.read(entry.source)
        except elf.ElfError:
            return None
