"""An image → its Inventory: what matters of each layer is parsed once, and kept in the derived cache.

    derived/sbom/<diff id>.<VERSION>.json
        nodes   [path, kind, target]: databases, licences, os-release; what hides those of the layers below; links above
        files   path → {packages, notes} | {os} | {licence}

The layers are merged by the rules of the build, so a database that an upper layer replaces or deletes does not count.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from linuxkit.entry import Entry, Kind, Source
from linuxkit.errors import ImageError
from linuxkit.oci.derived import Derived
from linuxkit.oci.layer import LayerCache
from linuxkit.oci.media import Descriptor, Image
from linuxkit.oci.merge import OPAQUE, WHITEOUT, Whiteouts, merge_layers
from linuxkit.oci.store import Store
from linuxkit.sbom import apk, copyright, dpkg, kit, model, rpm
from linuxkit.sbom.attested import attested
from linuxkit.sbom.licences import licence
from linuxkit.sbom.model import Database, Distribution, Inventory, Package

KIND = "sbom"
#: Raise it when the same layer gives another record.
VERSION = 3
MAX_READ = 512 << 20  # bytes of databases in one layer
MAX_FILES = 50_000  # databases and licences in one layer

_RPM = r"(?:var/lib/rpm|usr/lib/sysimage/rpm)"
_TEXT: list[tuple[re.Pattern[str], Callable[[bytes], Database], int]] = [
    (re.compile(r"var/lib/dpkg/status"), dpkg.parse, model.MAX_DATABASE),
    (re.compile(r"var/lib/dpkg/status\.d/[^/]+(?<!\.md5sums)"), dpkg.parse, model.MAX_DATABASE),
    (re.compile(r"(?:usr/)?lib/apk/db/installed"), apk.parse, model.MAX_DATABASE),
    (re.compile(rf"{_RPM}/rpmdb\.sqlite"), rpm.parse, rpm.MAX_DATABASE),
]
_UNREADABLE = {
    re.compile(rf"{_RPM}/Packages"): "a Berkeley DB, which cannot be read here: its packages are not listed",
    re.compile(rf"{_RPM}/Packages\.db"): "an ndb database, which cannot be read here: its packages are not listed",
    re.compile(rf"{_RPM}/rpmdb\.sqlite-wal"): "it has changes that are not in rpmdb.sqlite: they are not listed",
}
_RELEASES = ("etc/os-release", "usr/lib/os-release")
_COPYRIGHT = re.compile(r"usr/share/doc/([^/]+)/copyright")
_WANTED = re.compile("|".join(
    (*(pattern.pattern for pattern, _, _ in _TEXT), *(p.pattern for p in _UNREADABLE), *_RELEASES, _COPYRIGHT.pattern)
))  # fmt: skip
_ABOVE = re.compile(r"|".join((
    r"var(?:/lib(?:/(?:dpkg(?:/status\.d)?|rpm))?)?", r"lib(?:/apk(?:/db)?)?", r"etc",
    r"usr(?:/lib(?:/(?:sysimage(?:/rpm)?|apk(?:/db)?))?)?", r"usr/share(?:/doc(?:/[^/]+)?)?",
)))  # fmt: skip


class Contents(Protocol):
    """Where layers come from: rootfs.content.Content."""

    store: Store
    derived: Derived
    whiteouts: str

    def unsigned(self, image: Image) -> str: ...

    @property
    def layers(self) -> LayerCache: ...


def inventory(image: Image, content: Contents) -> Inventory:
    """What is in one image, by its databases, its labels and what is attested about it.

    Raises:
        ImageError: a layer is missing, damaged or hostile. HostError: the cache cannot be written.
    """
    pairs = list(zip(image.layers, image.config.diff_ids, strict=True))
    missing = [p for p in pairs if content.derived.get(KIND, _key(p[1])) is None]
    if missing:
        content.layers.prefetch(missing)
    records = [_record(layer, diff_id, content) for layer, diff_id in pairs]
    nodes = [
        [Entry(path, Kind(kind), target=target, origin=(str(level), path)) for path, kind, target in record["nodes"]]
        for level, record in enumerate(records)
    ]
    files: dict[str, dict[str, Any]] = {}
    for entry in merge_layers(nodes, whiteouts=Whiteouts(content.whiteouts), where=image.reference, some=True):
        files[entry.path] = records[int(entry.origin[0])]["files"].get(entry.origin[1], {})
    return _combine(image, files, content)


def _combine(image: Image, files: dict[str, dict[str, Any]], content: Contents) -> Inventory:
    labels = image.config.labels
    notes, packages = [], []
    licences: dict[str, tuple[str, tuple[tuple[str, str], ...]]] = {}
    release = kit.distribution(labels)
    for path in sorted(files):
        found = files[path]
        packages += [model.from_json(p) for p in found.get("packages", ())]
        notes += [f"/{path}: {note}" for note in found.get("notes", ())]
        if match := _COPYRIGHT.fullmatch(path):
            licences[match[1]] = (found.get("licence", ""), tuple((a, b) for a, b in found.get("texts", ())))
    for path in reversed(_RELEASES):
        if os_ := files.get(path, {}).get("os"):
            release = Distribution(*os_)
    packages += kit.parse(labels, image.platform.architecture).packages
    documents, more, said = attested(image, content.store, content.unsigned(image))
    packages += more
    notes += said
    if len(packages) > model.MAX_PACKAGES:
        notes.append(f"more than {model.MAX_PACKAGES} packages: the rest is left out")
    return Inventory(release, _unique(packages[: model.MAX_PACKAGES], licences), tuple(notes), tuple(documents))


def _unique(
    packages: Sequence[Package], licences: dict[str, tuple[str, tuple[tuple[str, str], ...]]]
) -> tuple[Package, ...]:
    """Every package once, sorted; Debian's with the licences of their copyright files."""
    found: dict[tuple[str, ...], Package] = {}
    for package in packages:
        if package.kind == "deb" and not package.licence:
            named, texts = licences.get(package.name, ("", ()))
            package = replace(package, licence=named, texts=texts)
        found.setdefault((package.kind, package.name, package.version, package.architecture), package)
    return tuple(found[key] for key in sorted(found))


def _record(layer: Descriptor, diff_id: str, content: Contents) -> dict[str, Any]:
    kept = content.derived.get(KIND, _key(diff_id))
    if kept is not None:
        try:
            record = json.loads(kept.read_bytes())
            if isinstance(record, dict) and record.keys() == {"nodes", "files"}:
                return record
        except (OSError, ValueError):
            pass  # damaged: made anew
    record = _scan(content.layers.entries(layer, diff_id))
    with content.derived.put(KIND, _key(diff_id)) as out:
        out.write(json.dumps(record, separators=(",", ":")).encode())
    return record


def _key(diff_id: str) -> str:
    return f"{diff_id[7:]}.{VERSION}.json"


def _scan(entries: Sequence[Entry]) -> dict[str, Any]:
    """The record of one layer."""
    tree = {entry.path: entry for entry in entries}
    nodes: list[list[str]] = []
    files: dict[str, dict[str, Any]] = {}
    left, count = MAX_READ, 0
    for path, entry in tree.items():
        folder, _, name = path.rpartition("/")
        if name == OPAQUE:
            if not folder or _ABOVE.fullmatch(folder):
                nodes.append([path, str(Kind.FILE), ""])
            continue
        if name.startswith(WHITEOUT):
            hidden = f"{folder}/{name[len(WHITEOUT):]}".lstrip("/")
            if _ABOVE.fullmatch(hidden) or _wanted(hidden):
                nodes.append([path, str(Kind.FILE), ""])
            continue
        if _wanted(path):
            if entry.kind is Kind.HARDLINK:
                entry = tree.get(entry.target, entry)
            nodes.append([path, str(Kind.FILE), ""])
            left -= min(entry.size, rpm.MAX_DATABASE)
            if left < 0 or len(nodes) > MAX_FILES or count > model.MAX_PACKAGES:
                files[path] = {"notes": ["the layer has more databases than any honest one: the rest is not read"]}
                break
            files[path] = _read(path, entry)
            count += len(files[path].get("packages", ()))
        elif entry.kind is not Kind.DIRECTORY and _ABOVE.fullmatch(path):
            nodes.append([path, str(Kind.SYMLINK if entry.target else Kind.FILE), entry.target])
    return {"nodes": nodes, "files": files}


def _wanted(path: str) -> bool:
    return _WANTED.fullmatch(path) is not None


def _parser(path: str) -> tuple[Callable[[bytes], Database], int] | None:
    return next(((parse, limit) for pattern, parse, limit in _TEXT if pattern.fullmatch(path)), None)


def _unreadable(path: str) -> str:
    return next((note for pattern, note in _UNREADABLE.items() if pattern.fullmatch(path)), "")


def _read(path: str, entry: Entry) -> dict[str, Any]:
    """What one file says, as JSON values."""
    if entry.kind not in (Kind.FILE, Kind.HARDLINK):
        return {}  # what a link leads to is looked at under its own name
    if _COPYRIGHT.fullmatch(path):
        data = _bytes(entry.source, copyright.MAX_FILE)
        named = copyright.parse(data)
        wanted = {name for _, name in licence(named).texts}
        return {"licence": named, "texts": [[n, t] for n, t in sorted(copyright.texts(data).items()) if n in wanted]}
    if path in _RELEASES:
        return {"os": _release(_bytes(entry.source, 64 << 10))}
    if note := _unreadable(path):
        return {"notes": [note] if entry.size else []}
    parser = _parser(path)
    if parser is None or entry.kind is not Kind.FILE:
        return {"notes": ["it is no file of its own layer: not read"]}
    parse, limit = parser
    if entry.size > limit:
        return {"notes": [f"{entry.size} bytes are more than the {limit} that are read: its packages are not listed"]}
    database = parse(_bytes(entry.source, limit))
    return {"packages": [model.to_json(p) for p in database.packages], "notes": list(database.notes)}


def _bytes(source: Source | None, limit: int) -> bytes:
    """The beginning of a file, at most `limit` bytes."""
    if source is None:
        return b""
    want, pieces = min(source.size, limit), []
    with source.open() as stream:
        while want and (piece := stream.read(want)):
            pieces.append(piece)
            want -= len(piece)
    if want:
        raise ImageError("a layer in the cache became shorter", hint="run it again")
    return b"".join(pieces)


def _release(data: bytes) -> list[str]:
    """ID, VERSION_ID and PRETTY_NAME of an os-release file."""
    values = {}
    for line in data.decode("utf-8", "replace").splitlines()[:200]:
        key, mark, value = line.strip().partition("=")
        if mark:
            values[key] = model.clean(value, model.MAX_NAME).strip("\"'")
    id_ = re.sub(r"[^a-z0-9._-]", "", values.get("ID", "").lower())
    return [id_, re.sub(r"[^A-Za-z0-9._~-]", "", values.get("VERSION_ID", "")), values.get("PRETTY_NAME", "")]
