"""What a guest makes of user data: guest/src/kit/metadata_store.c, foretold where the data is written.

    {"NAME": {"content": TEXT, "perm": "0644"}, "FOLDER": {"entries": {…}, "perm": "0755"}}

Text that does not begin with a brace is nobody's tree and no fault.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

MAX_DEPTH = 64
MAX_VALUES = 100_000
_NEW = ".metadata.new"  # the guest's own name for a file that it writes
Pairs = list[tuple[str, Any]]


class _Object:
    """A JSON object with its members as they stand, twice if they do."""

    def __init__(self, members: Pairs) -> None:
        self.members = members

    def field(self, name: str) -> Any:
        """The last one; the case of the name is not looked at, and null is as good as missing."""
        found = [value for key, value in self.members if key.lower() == name]
        return found[-1] if found else None


def faults(data: bytes) -> list[str]:
    """What a guest will complain about, one line each; none when the data is plain text, or a tree without fault."""
    if not data.lstrip(b" \t\r\n").startswith(b"{"):
        return []
    try:
        tree = json.loads(data.decode("utf-8", "surrogateescape"), object_pairs_hook=_Object, parse_constant=_refuse)
    except (ValueError, RecursionError) as e:
        return [f"user data: not JSON, so it will not be unpacked: {e or 'nested too deeply'}"]
    if _depth(tree) > MAX_DEPTH or _count(tree) > MAX_VALUES:
        return ["user data: too many values, or nested too deeply, so it will not be unpacked"]
    if not _is_entries(tree):
        return ["user data: JSON, but no tree of entries, so it will not be unpacked"]
    return list(_entries(tree, ""))


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is not a value")


def _inside(value: Any) -> list[Any]:
    return [v for _, v in value.members] if isinstance(value, _Object) else value if isinstance(value, list) else []


def _depth(value: Any) -> int:
    """How many brackets are open at the deepest place."""
    depth, level = 0, [value]
    while level := [v for v in level if isinstance(v, _Object | list)]:
        depth, level = depth + 1, [inner for v in level for inner in _inside(v)]
    return depth


def _count(value: Any) -> int:
    count, rest = 0, [value]
    while rest:
        count += 1
        rest += _inside(rest.pop())
    return count


def _is_entries(entries: Any) -> bool:
    if not isinstance(entries, _Object):
        return False
    for _, entry in entries.members:
        if entry is None:
            continue
        if not isinstance(entry, _Object):
            return False
        texts, inner = (entry.field("perm"), entry.field("content")), entry.field("entries")
        if any(not isinstance(text, str | None) for text in texts) or (inner is not None and not _is_entries(inner)):
            return False
    return True


def _entries(entries: _Object, where: str) -> list[str]:
    found = []
    for name, given in entries.members:
        entry = given if given is not None else _Object([])
        path, perm = f"{where}{name}", entry.field("perm")
        if not _is_name(name):
            found.append(f"user data: {path!r}: not a name for a file")
        elif (entry.field("content") is None) == (entry.field("entries") is None):
            found.append(f"user data: {path!r} is invalid: an entry has either content or entries")
        elif perm and not _is_mode(perm):
            found.append(f"user data: {path!r}: perm is not an octal mode")
        elif entry.field("entries") is not None:
            found += _entries(entry.field("entries"), path + "/")
    return found


def _is_name(name: str) -> bool:
    size = len(name.encode("utf-8", "surrogatepass"))
    return 0 < size <= 255 and "/" not in name and "\0" not in name and name not in (".", "..", _NEW)


def _is_mode(perm: str) -> bool:
    return len(perm) <= 8 and not perm.strip("01234567") and int(perm, 8) <= 0o7777
