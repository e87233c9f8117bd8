"""The lock file: which images a build takes, by digest. Reading, writing and comparing it; pure.

    {
      "version": 1,
      "documents": {"https://example.com/base.yml": "sha256:…"},         YAML that was fetched
      "images": {
        "docker.io/library/nginx:1.27": {
          "digest": "sha256:…",                                          what the name stood for: an index or a manifest
          "platforms": {"linux/amd64": "sha256:…"}                       the manifest of each platform
        }
      },
      "kit": {
        "sshd": {
          "recipe": "40 hex digits",
          "images": {"linux/amd64": "sha256:…"},                         the manifest of each platform
          "platforms": {"linux/amd64": {"openssh-server": "1:10.0p1-7 sha256:…"}}   the .debs it was made of
        }
      },
      "tools": {"ziglang": "0.17.1", "zlib-ng": "2.3.3", "libzstd": "1.5.7"}        what compiles and compresses
    }

JSON with sorted keys and a line for each value, so that the difference of two of them reads well.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from linuxkit.errors import InputError, Problem
from linuxkit.oci.media import Platform
from linuxkit.oci.reference import canonical_name, is_digest
from linuxkit.plan.asked import ARCHIVES, KIT, Asked, name_of

VERSION = 1
SUFFIX = ".lock"
MAX_SIZE = 16 << 20  # bytes
MAX_ENTRIES = 100_000  # of any one object
_RECIPE = re.compile(r"[0-9a-f]{40}")
_DEB = re.compile(r"(\S+) sha256:([0-9a-f]{64})")
_DEB_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]*")
_TOOL = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_-]{0,60}")
_PLATFORM = re.compile(r"[a-z0-9]+/[a-z0-9]+(/[a-z0-9.]+)?")

#: .deb packages: name → (version, sha256 in hex).
Debs = Mapping[str, tuple[str, str]]


@dataclass(frozen=True, slots=True)
class LockedImage:
    """What a name stood for, and the manifest of each platform in it; both `sha256:<hex>`."""

    digest: str
    platforms: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class LockedPackage:
    """A kit package: its recipe's hash (40 hex), and for each platform the .debs that it is made of.

    `images` has for each platform the digest of its manifest; older locks lack it.
    """

    recipe: str
    platforms: Mapping[str, Debs]
    images: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Lock:
    """A lock. `where` is its file, for messages."""

    images: Mapping[str, LockedImage] = field(default_factory=dict)
    kit: Mapping[str, LockedPackage] = field(default_factory=dict)
    documents: Mapping[str, str] = field(default_factory=dict)
    tools: Mapping[str, str] = field(default_factory=dict)
    where: str = field(default="", compare=False)

    def pin(self, text: str, platform: Platform) -> tuple[str, str]:
        """(digest of what the name stands for, digest of the platform's manifest); `disagreements` found it there."""
        locked = self.images[name_of(text)]
        return locked.digest, locked.platforms[str(platform)]

    def platforms(self) -> list[str]:
        """Every platform that something is locked for, sorted."""
        found = {p for image in self.images.values() for p in image.platforms}
        return sorted(found | {p for package in self.kit.values() for p in package.platforms})


def encode(lock: Lock) -> bytes:
    """The file's content: the same lock, the same bytes."""
    document = {
        "version": VERSION,
        "documents": dict(lock.documents),
        **({"tools": dict(lock.tools)} if lock.tools else {}),
        "images": {n: {"digest": i.digest, "platforms": dict(i.platforms)} for n, i in lock.images.items()},
        "kit": {
            name: {"recipe": p.recipe, **({"images": dict(p.images)} if p.images else {}), "platforms": {
                platform: {n: f"{version} sha256:{digest}" for n, (version, digest) in debs.items()}
                for platform, debs in p.platforms.items()
            }} for name, p in lock.kit.items()
        },
    }  # fmt: skip
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def decode(data: bytes, where: str) -> Lock:
    """The lock in a file's content.

    Raises:
        InputError: it is no lock, or one of another version of the program.
    """
    if len(data) > MAX_SIZE:
        raise _bad(where, f"it is larger than {MAX_SIZE} bytes")
    try:
        document = json.loads(data, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as e:
        raise _bad(where, f"it is not valid JSON: {str(e)[:120] or 'nested too deeply'}") from e
    if not isinstance(document, dict) or "version" not in document:
        raise _bad(where, "it is no lock")
    if document["version"] != VERSION or isinstance(document["version"], bool):
        raise InputError(
            f"{where}: this lock has version {str(document['version'])[:20]}, and this program reads version {VERSION}",
            hint="use a newer linuxkit, or make the lock anew: linuxkit lock FILE",
        )
    unknown = sorted(set(document) - {"version", "documents", "images", "kit", "tools"})
    if unknown:
        raise _bad(where, f"it has an unknown key '{unknown[0][:60]}'")
    documents = _object(document, "documents", where)
    for name, digest in documents.items():
        _digest(digest, f"documents {name!r}", where)
    images: dict[str, LockedImage] = {}
    for name, value in _object(document, "images", where).items():
        image = _image(value, f"images {name!r}", where)
        if images.setdefault(_canonical(name), image) != image:
            raise _bad(where, f"images {name!r}: another entry has this image under another spelling")
    kit = {name: _package(value, f"kit {name!r}", where) for name, value in _object(document, "kit", where).items()}
    tools = _object(document, "tools", where)
    for name, number in tools.items():
        if not _TOOL.fullmatch(name) or not isinstance(number, str) or not _TOOL.fullmatch(number):
            raise _bad(where, f"tools {name[:60]!r}: a version is expected")
    return Lock(images, kit, documents, tools, where)


def _canonical(name: str) -> str:
    return name if "://" in name or name.partition(":")[0] in ARCHIVES else canonical_name(name)


def _image(value: Any, what: str, where: str) -> LockedImage:
    if not isinstance(value, dict) or set(value) != {"digest", "platforms"}:
        raise _bad(where, f"{what}: an object with digest and platforms is expected")
    platforms = _platforms(value, what, where)
    for digest in (value["digest"], *platforms.values()):
        _digest(digest, what, where)
    return LockedImage(value["digest"], platforms)


def _package(value: Any, what: str, where: str) -> LockedPackage:
    if not isinstance(value, dict) or set(value) - {"images"} != {"recipe", "platforms"}:
        raise _bad(where, f"{what}: an object with recipe and platforms is expected")
    recipe = value["recipe"]
    if not isinstance(recipe, str) or not _RECIPE.fullmatch(recipe):
        raise _bad(where, f"{what}: the recipe's hash is not 40 hexadecimal digits")
    platforms: dict[str, Debs] = {}
    for platform, listed in _platforms(value, what, where).items():
        if not isinstance(listed, dict) or len(listed) > MAX_ENTRIES:
            raise _bad(where, f"{what}: {platform}: an object of packages is expected")
        debs = {}
        for name, text in listed.items():
            match = _DEB.fullmatch(text) if isinstance(text, str) else None
            if match is None or not _DEB_NAME.fullmatch(name):
                raise _bad(where, f"{what}: {name[:60]!r} is not \"VERSION sha256:HEX\"")
            debs[name] = (match[1], match[2])
        platforms[platform] = debs
    images = _platforms(value, what, where, "images")
    for digest in images.values():
        _digest(digest, what, where)
    return LockedPackage(recipe, platforms, images)


def _platforms(value: dict[str, Any], what: str, where: str, key: str = "platforms") -> dict[str, Any]:
    platforms = _object(value, key, where)
    for platform in platforms:
        if not _PLATFORM.fullmatch(platform):
            raise _bad(where, f"{what}: '{platform[:60]}' is no platform")
    return platforms


def _object(document: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
    value = document.get(key, {})
    if not isinstance(value, dict) or len(value) > MAX_ENTRIES:
        raise _bad(where, f"'{key}' is not an object, or too large")
    return value


def _digest(value: Any, what: str, where: str) -> None:
    if not isinstance(value, str) or not is_digest(value):
        raise _bad(where, f"{what}: '{str(value)[:100]}' is not a sha256 digest")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is there twice")
    return found


def _bad(where: str, why: str) -> InputError:
    return InputError(f"{where} cannot be used: {why}", hint="make it anew: linuxkit lock FILE")


# -- comparing


def disagreements(lock: Lock, places: Iterable[Asked], recipe: Callable[[str], str] | None) -> list[Problem]:
    """Where YAML and lock say different things, in the order of the YAML.

    Args:
        recipe: a kit package's recipe hash as it is now; None when the images come with the lock.
    """
    found = []
    for place in places:
        for platform in place.platforms:
            why = _disagreement(lock, place.text, platform, recipe)
            if why:
                at = place.position
                found.append(Problem(why, at.file, at.line, at.column, place.path))
    return list(dict.fromkeys(found))


def _disagreement(lock: Lock, text: str, platform: Platform, recipe: Callable[[str], str] | None) -> str:
    if text.startswith(KIT):
        name = text.removeprefix(KIT)
        package = lock.kit.get(name)
        if package is None:
            return f"{text} is not in {lock.where}"
        now = recipe(name) if recipe is not None else package.recipe
        if now != package.recipe:
            return (f"the recipe of {text} changed: it is {now[:12]} now, and kit '{name}' in {lock.where} "
                    f"has {package.recipe[:12]}")  # fmt: skip
        platforms = package.platforms.keys()
    else:
        name = name_of(text)
        image = lock.images.get(name)
        if image is None:
            return _unlisted(lock, name)
        wanted = name.rpartition("@")[2] if "@" in name else ""
        if is_digest(wanted) and image.digest != wanted:
            return f"the digest here is {wanted}, and images '{name}' in {lock.where} has {image.digest}"
        platforms = image.platforms.keys()
    if str(platform) not in platforms:
        return (f"'{name}' is in {lock.where} for {', '.join(sorted(platforms)) or 'no platform'} only, "
                f"not for {platform}")  # fmt: skip
    return ""


def _unlisted(lock: Lock, name: str) -> str:
    """A name that is not there; perhaps with another digest or tag."""
    bare = name.partition("@")[0]
    head, slash, last = bare.rpartition("/")
    repository = f"{head}{slash}{last.partition(':')[0]}"
    for other, image in sorted(lock.images.items()):
        if "@" in name and other.partition("@")[0] == bare:
            here = name.rpartition("@")[2]
            return f"the digest here is {here}, and images '{other}' in {lock.where} has {image.digest}"
    same = sorted(o for o in lock.images if o.startswith((f"{repository}:", f"{repository}@")))
    return f"{name} is not in {lock.where}" + (f", which has {', '.join(same[:3])}" if same else "")


def changes(old: Lock, new: Lock) -> list[str]:
    """What is different, a line for each value: `NAME PLATFORM OLD -> NEW`; sorted."""
    before, after = _values(old), _values(new)
    return [
        f"{key}: {before.get(key, '(none)')} -> {after.get(key, '(none)')}"
        for key in sorted({*before, *after}) if before.get(key) != after.get(key)
    ]  # fmt: skip


def _values(lock: Lock) -> dict[str, str]:
    found = {f"document {name}": digest for name, digest in lock.documents.items()}
    found |= {f"tool {name}": number for name, number in lock.tools.items()}
    for name, image in lock.images.items():
        found[name] = image.digest
        found |= {f"{name} {p}": digest for p, digest in image.platforms.items() if digest != image.digest}
    for name, package in lock.kit.items():
        found[f"{KIT}{name} recipe"] = package.recipe
        found |= {f"{KIT}{name} {platform} image": digest for platform, digest in package.images.items()}
        for platform, debs in package.platforms.items():
            found |= {f"{KIT}{name} {platform} {deb}": f"{version} {digest[:12]}"
                      for deb, (version, digest) in debs.items()}  # fmt: skip
    return found
