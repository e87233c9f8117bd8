"""The names of files on an ISO 9660 volume, besides their real ones, which Rock Ridge keeps.

    ISO 9660  level 3: up to 31 of A-Z 0-9 _ and one dot, then ";1" for a file     ECMA-119, 7.5 and 10.3
    Joliet    up to 103 UCS-2 characters, without * / : ; ? and \\                 Joliet 1995, as readers take it

Both are for systems that know nothing better. A name that is taken already gets a number instead of its end.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

ISO_MAX, JOLIET_MAX = 31, 103
_NOT_ISO = re.compile(rb"[^A-Z0-9_]")
_NOT_JOLIET = re.compile(r"[\x00-\x1f*/:;?\\\ud800-\udfff]|[^\x00-\uffff]")


def iso_names(names: Iterable[tuple[str, bool]]) -> dict[str, bytes]:
    """Name → identifier for the nodes of one directory, in the order given; the flag says that it is a directory."""

    def plain(name: str, *, directory: bool) -> tuple[str, str]:
        raw = name.upper().encode("ascii", "replace")
        stem, dot, end = (raw, b"", b"") if directory else raw.rpartition(b".")
        if not dot:
            stem, end = raw, b""
        end = _NOT_ISO.sub(b"_", end)[:8]
        room = ISO_MAX - (0 if directory else 1 + len(end))
        return _NOT_ISO.sub(b"_", stem)[:room].decode(), "" if directory else "." + end.decode()

    return {name: made.encode("ascii") for name, made in _unique(names, plain, ISO_MAX, ";1").items()}


def joliet_names(names: Iterable[tuple[str, bool]]) -> dict[str, bytes]:
    """The same for a Joliet tree: identifiers in UCS-2, big-endian."""

    def plain(name: str, *, directory: bool) -> tuple[str, str]:
        text = _NOT_JOLIET.sub("_", name)
        stem, dot, end = text.rpartition(".")
        if directory or not dot or not stem or len(end) > 16:
            return text[:JOLIET_MAX], ""
        return stem[: JOLIET_MAX - len(end) - 1], "." + end

    return {name: made.encode("utf-16-be") for name, made in _unique(names, plain, JOLIET_MAX, ";1").items()}


def _unique(
    names: Iterable[tuple[str, bool]], plain: Callable[..., tuple[str, str]], limit: int, version: str
) -> dict[str, str]:
    made: dict[str, str] = {}
    taken: set[str] = set()
    numbers: dict[tuple[str, str], int] = {}
    for name, directory in names:
        stem, end = plain(name, directory=directory)
        found = stem + end
        while found.upper() in taken:
            number = numbers[stem, end] = numbers.get((stem, end), -1) + 1
            digits = f"{number:03d}"
            found = stem[: limit - len(end) - len(digits)] + digits + end
        taken.add(found.upper())
        made[name] = found if directory else found + version
    return made
