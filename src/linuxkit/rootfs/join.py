"""The parts of a root filesystem as one tree: what a link, directory or file of one part means for the others.

A part is encoded by itself and cached; Linux unpacks an initrd's archives one over the other, a file system takes them
as one tree, and whoever unpacks a tar does it his own way. So that all of them come to the same:

    below a link of another part        the path goes where the link leads, and the link stays
    a directory over such a link        the link stays, when it leads to a directory or to nothing
    a link over a directory             what is in the directory moves to where the link leads
    a file over a directory             the directory is gone, with all that is in it
    a directory over a file             the file is gone
    a hard link to what is replaced     becomes a copy
    a directory that nobody names       is made (`Entry.implied`)

In all other cases a later entry replaces an earlier one, and the parts stay what they are, byte for byte. A link in the
tree of a container or volume leads nowhere out of it.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from linuxkit.entry import Entry, Kind, digest_of
from linuxkit.errors import ImageError
from linuxkit.follow import follow
from linuxkit.rootfs.content import Content
from linuxkit.rootfs.flatten import implied
from linuxkit.rootfs.mountpoints import looks_like_a_file
from linuxkit.rootfs.names import Name, names_of
from linuxkit.rootfs.segment import Segment

#: Raise it when the same parts give other entries.
VERSION = 1


@dataclass(eq=False, slots=True)
class _Row:
    """An entry of a part. `place` is where it ends up, None: nowhere; `named` is what it is a hard link to, `under` the
    entry of an earlier part that it replaces, and that goes where it goes."""

    part: int
    number: int  # in its part; -1: a directory that nothing names
    path: str
    kind: Kind
    place: str | None
    name: Name | None = None
    named: _Row | None = None
    under: _Row | None = None
    copy_of: str = ""  # the path of the file that a hard link has to be a copy of
    target: str = ""  # what a hard link names then


@dataclass(frozen=True, slots=True)
class Change:
    """A directory that a later part gives another mode or owner: `before` and `after` are (mode, uid, gid)."""

    path: str
    part: str
    location: str
    owner: str  # the part that brought it
    before: tuple[int, int, int]
    after: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Joined:
    """The parts as they are to be encoded, and the directories that change from one to another."""

    segments: list[Segment]
    changes: list[Change]


class _Inside(Exception):  # noqa: N818  no error: what is below a prefix has to be known
    def __init__(self, part: int) -> None:
        self.part = part


def join(segments: Sequence[Segment], content: Content) -> Joined:
    """The parts, changed where they meet.

    Raises:
        ImageError: something lies below a file, or below links in a circle; an image is missing or damaged.
    """
    opened: set[int] = set()
    known: dict[int, list[Name]] = {}
    while True:
        try:
            tree = _Tree(segments, content, opened, known)
            return Joined(tree.parts(), tree.changes)
        except _Inside as inside:
            opened.add(inside.part)


@dataclass
class _Tree:
    segments: Sequence[Segment]
    content: Content
    opened: set[int]
    known: dict[int, list[Name]]
    at: dict[str, _Row] = field(default_factory=dict)
    below: dict[str, set[str]] = field(default_factory=dict)  # directory → names in it
    rows: list[list[_Row]] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.closed = {s.prefix: n for n, s in enumerate(self.segments) if s.prefix and n not in self.opened}
        self.roots = {s.prefix for s in self.segments if s.prefix}
        for part, segment in enumerate(self.segments):
            self.rows.append([])
            for number, name in enumerate(self._names(part, segment)):
                row = _Row(part, number, name.path, name.kind, None, name)
                self.rows[part].append(row)
                try:
                    self._add(row, name)
                except ImageError as e:
                    who = f"{segment.name} ({segment.origin[0]})" if segment.origin[0] else segment.name
                    raise ImageError(f"{who}: {e.message}", hint=e.hint) from e

    def _names(self, part: int, segment: Segment) -> list[Name]:
        if segment.prefix in self.closed:
            return [Name(segment.prefix, Kind.DIRECTORY)]
        if part not in self.known:
            self.known[part] = names_of(segment, self.content)
        return self.known[part]

    # -- where things are

    def _link(self, path: str) -> str | None:
        row = self.at.get(path)
        return row.name.target if row is not None and row.kind is Kind.SYMLINK and row.name is not None else None

    def _root(self, path: str) -> str:
        while path := path.rpartition("/")[0]:
            if path in self.roots:
                return path
        return ""

    def _follow(self, path: str) -> str:
        """Where a path leads, links in the last name included."""
        row = self.at.get(path)
        if row is not None and row.kind is Kind.DIRECTORY and path not in self.closed:
            return path  # nearly always: all that is above it is a directory then
        return self._look(follow(path, self._link, self._root))

    def _look(self, place: str) -> str:
        """The same place; what a container's tree holds there is not known yet: begin again."""
        above = place
        while self.closed and above:
            if above in self.closed:
                raise _Inside(self.closed[above])
            above = above.rpartition("/")[0]
        return place

    def _place(self, path: str) -> str:
        """Where an entry of that path is put."""
        path = posixpath.normpath("/" + path).strip("/")
        folder, _, name = path.rpartition("/")
        above = self._follow(folder) if folder else ""
        return f"{above}/{name}" if above else name

    # -- one entry after the other

    def _add(self, row: _Row, name: Name) -> None:
        place = self._place(row.path)
        if not place:
            row.place = ""
            return  # the root itself
        if row.kind is Kind.HARDLINK:
            row.named = self.at.get(self._place(name.target))
        existing = self.at.get(place)
        if self.segments[row.part].missing:
            place = self._look(follow(place, self._link, self._root))
            if place not in self.at and (row.kind is Kind.FILE) is self._is_file(name.target):
                self._put(row, place)
        elif existing is None:
            self._put(row, place)
        elif row.kind is Kind.DIRECTORY:
            self._directory(row, name, place, existing)
        elif existing.kind is not Kind.DIRECTORY:
            self._put(row, place)
        elif row.kind is Kind.SYMLINK:
            self._link_over(row, name, place)
        else:
            self._drop(place)
            self._put(row, place)

    def _is_file(self, source: str) -> bool:
        """Whether the source of a bind is no directory, as far as can be told; empty: it is a file system."""
        if not source.startswith("/"):
            return False
        try:
            there = self.at.get(follow(posixpath.normpath(source).strip("/"), self._link, self._root))
        except ImageError:
            return False
        return there.kind is not Kind.DIRECTORY if there is not None else looks_like_a_file(source)

    def _put(self, row: _Row, place: str) -> None:
        missing, folder = list[str](), place.rpartition("/")[0]
        while folder and folder not in self.at:
            missing.append(folder)
            folder = folder.rpartition("/")[0]
        if folder and self.at[folder].kind is not Kind.DIRECTORY:
            raise ImageError(f"{row.path} lies below {folder}, which is no directory")
        for folder in reversed(missing):
            self._insert(_Row(row.part, -1, folder, Kind.DIRECTORY, None), folder)
        self._insert(row, place)

    def _insert(self, row: _Row, place: str) -> None:
        folder, _, last = place.rpartition("/")
        self.below.setdefault(folder, set()).add(last)
        if row.place is None:
            row.under = self.at.get(place)
        _set(row, place)
        self.at[place] = row

    def _directory(self, row: _Row, name: Name, place: str, existing: _Row) -> None:
        if existing.kind is Kind.DIRECTORY:
            before = existing.name
            if before is not None and existing.part != row.part and place not in self.roots:
                self._note(row, name, place, existing.part, before)
            self._put(row, place)
        elif existing.kind is Kind.SYMLINK and (lead := self._lead(place)):
            if lead not in self.at:
                self._put(row, lead)
        else:
            _set(self.at.pop(place), None)
            self._put(row, place)

    def _lead(self, place: str) -> str:
        """Where a link leads, when a directory is or can be there; else nothing."""
        try:
            lead = self._look(follow(place, self._link, self._root))
        except ImageError:  # a circle
            return ""
        there = self.at.get(lead)
        return lead if there is None or there.kind is Kind.DIRECTORY else ""

    def _link_over(self, row: _Row, name: Name, place: str) -> None:
        """A link in the place of a directory: what is in it goes where the link leads."""
        moving = sorted(self.below.pop(place, ()))
        directory = self.at.pop(place)
        self.at[place] = row  # for the moment: to see where it leads
        lead = self._lead(place)
        if moving and (not lead or f"{lead}/".startswith(f"{place}/")):
            raise ImageError(f"the link {place} → {name.target} takes the place of a directory with {moving[0]} in it, "
                             f"of {self.segments[directory.part].name}, and leads to no directory")  # fmt: skip
        if moving and lead not in self.at:
            self._put(directory, lead)
        else:
            _set(directory, None)
        self._move([(f"{place}/{last}", f"{lead}/{last}") for last in moving])
        del self.at[place]
        self._put(row, place)

    def _move(self, moves: list[tuple[str, str]]) -> None:
        """Move entries with what is below them, the first first."""
        moves.reverse()
        while moves:
            place, to = moves.pop()
            children = sorted(self.below.pop(place, ()))
            row, there = self.at.pop(place), self.at.get(to)
            if there is None:
                self._put(row, to)
            elif row.kind is Kind.DIRECTORY and there.kind is Kind.DIRECTORY:
                _set(row, to)
            elif row.part > there.part:  # the later part's stays
                self._drop(to)
                self._put(row, to)
            else:
                _set(row, None)
            if row.place is None:
                for last in children:
                    self._drop(f"{place}/{last}")
            else:
                moves += [(f"{place}/{last}", f"{to}/{last}") for last in reversed(children)]

    def _drop(self, place: str) -> None:
        """Take away what is at a place, and all that is below it."""
        gone = [place]
        while gone:
            place = gone.pop()
            gone += [f"{place}/{last}" for last in self.below.pop(place, ())]
            _set(self.at.pop(place, None), None)

    def _note(self, row: _Row, name: Name, place: str, owner: int, before: Name) -> None:
        was, now = (before.mode, before.uid, before.gid), (name.mode, name.uid, name.gid)
        if was != now:
            self.changes.append(
                Change(place, self.segments[row.part].name, name.location, self.segments[owner].name, was, now)
            )

    # -- what came of it

    def parts(self) -> list[Segment]:
        """The parts, those that meet nothing as they were."""
        self._hard_links()
        made = set[str]()
        found = []
        for part, segment in enumerate(self.segments):
            rows, missing = self.rows[part], dict[int, list[str]]()
            for row in rows:
                if row.place is None:
                    continue
                above, place = list[str](), row.place
                while (place := place.rpartition("/")[0]) and place not in made:
                    above.append(place)
                made.update(above)
                if above:
                    missing[row.number] = above[::-1]
                if row.kind is Kind.DIRECTORY:
                    made.add(row.place)
            if segment.prefix in self.closed:
                found.append(_whole(segment, rows[0].place, missing.get(0, [])))
                continue
            edits = {row.number: row for row in rows if _edited(row)}
            found.append(_edit(segment, edits, missing) if edits or missing else segment)
        return found

    def _hard_links(self) -> None:
        """Links whose target moved name its new place; of those whose target is gone, the first becomes the file."""
        first: dict[_Row, _Row] = {}
        for rows in self.rows:
            for row in rows:
                of = row.named
                if of is None or of.name is None or row.place is None or row.part != of.part:
                    continue
                if of.place is not None and self.at.get(of.place) is of:
                    row.target = of.place
                elif self.at.get(row.place) is not row:
                    row.place = None  # replaced itself
                elif of in first:
                    row.target = first[of].place or ""
                else:
                    first[of] = row
                    row.copy_of = of.path


def _set(row: _Row | None, place: str | None) -> None:
    """Put an entry somewhere, and those that it replaces."""
    while row is not None:
        row.place, row = place, row.under


def _edited(row: _Row) -> bool:
    if row.place is None or row.copy_of:
        return True
    moved = row.place != posixpath.normpath("/" + row.path).strip("/")
    return moved or (row.target != "" and row.name is not None and row.target != row.name.target)


def _whole(segment: Segment, new: str | None, missing: Sequence[str]) -> Segment:
    """A tree below a prefix, which may have moved or gone as a whole."""
    if new == segment.prefix:
        return segment
    old = segment.prefix

    def entries() -> Iterator[Entry]:
        yield from map(implied, missing)
        for entry in segment.entries():
            if entry.path != old and not entry.path.startswith(f"{old}/"):
                continue  # the directories above it
            target = f"{new}{entry.target[len(old) :]}" if entry.kind is Kind.HARDLINK else entry.target
            yield replace(entry, path=f"{new}{entry.path[len(old) :]}", target=target)

    return _changed(segment, entries if new is not None else tuple, repr((new, missing)))


def _edit(segment: Segment, edits: dict[int, _Row], missing: dict[int, list[str]]) -> Segment:
    def entries() -> Iterator[Entry]:
        kept: dict[str, Entry] = {}
        wanted = {row.copy_of for row in edits.values()} - {""}
        late: list[Entry] = []
        for number, entry in enumerate(segment.entries()):
            if entry.path in wanted:
                kept[entry.path] = entry
            yield from map(implied, missing.get(number, ()))
            row = edits.get(number)
            if row is None:
                yield entry
            elif row.place is None:
                continue
            elif row.copy_of:
                yield replace(kept[row.copy_of], path=row.place, origin=entry.origin)
            elif entry.kind is Kind.HARDLINK:
                late.append(replace(entry, path=row.place, target=row.target or entry.target))
            else:
                yield replace(entry, path=row.place)
        yield from late

    told = [(n, row.place, row.copy_of, row.target) for n, row in sorted(edits.items())]
    return _changed(segment, entries, repr((told, missing)))


def _changed(segment: Segment, entries: Callable[[], Iterable[Entry]], how: str) -> Segment:
    key = digest_of([b"joined", b"%d" % VERSION, segment.key.encode(), how.encode(errors="surrogateescape")])
    return replace(segment, key=key, entries=entries)
