"""Image names: the grammar of the `distribution` project and LinuxKit's expansion of short names. Pure.

    reference  = name [ ":" tag ] [ "@" digest ]
    name       = [ registry "/" ] part *( "/" part )
    registry   = host [ ":" port ]            host: a DNS name, an IPv4 address or an IPv6 address in brackets
    part       = alnum *( ( "." / "_" / "__" / 1*"-" ) alnum )     alnum: 1*( a-z / 0-9 )
    tag        = 1 word character, then at most 127 of word characters, "." and "-"
    digest     = "sha256:" 64 hexadecimal digits

A parsed name has one canonical form: the host in lower case, without the port that is the default, Docker Hub by one of
its names, official images below library/. Policies, mirrors, logins, locks and the store compare that form only.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from dataclasses import dataclass

from linuxkit.errors import InputError, ReservedNameError

DEFAULT_REGISTRY = "docker.io"
HUB_NAMES = (DEFAULT_REGISTRY, "index.docker.io", "registry-1.docker.io")  # of one registry
#: How the store calls what the kit made here. No such registry exists; nobody else can give an image that name.
KIT_REGISTRY = "linuxkit.kit"
MAX_NAME = 255  # of registry and repository together, as the registries have it

_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_REGISTRY = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:.]+\])(?::[0-9]{{1,5}})?", re.ASCII)
_PART = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Reference:
    """A parsed image name.

    text        the whole name in canonical form: the name under which the store keeps the image.
    registry    host[:port] as `canonical_registry` has it; docker.io when the name has none.
    repository  the path in the registry; docker.io's official images are under library/.
    tag, digest what follows; empty when absent.
    """

    text: str
    registry: str
    repository: str
    tag: str = ""
    digest: str = ""

    @property
    def name(self) -> str:
        """registry/repository, without tag and digest."""
        return f"{self.registry}/{self.repository}"

    @property
    def tagged(self) -> str:
        """The full name with `:latest` where there is neither tag nor digest."""
        return self.text if self.tag or self.digest else f"{self.text}:latest"

    def __str__(self) -> str:
        return self.text


def expand(text: str) -> str:
    """The full form of a short name, as LinuxKit has it: `nginx` is `docker.io/library/nginx`. No tag is added."""
    if "/" not in text:
        return f"{DEFAULT_REGISTRY}/library/{text}"
    first, rest = text.split("/", 1)
    if "/" not in rest and "." not in first and ":" not in first and first != "localhost":
        return f"{DEFAULT_REGISTRY}/{text}"
    return text


def is_digest(text: str) -> bool:
    """Whether this is `sha256:` and 64 lower-case hexadecimal digits, and so safe as a file name."""
    return _DIGEST.fullmatch(text) is not None


def canonical_registry(text: str) -> str:
    """The one spelling of `host[:port]`: lower case, no default port (443; 80 of a loopback host), one name for Docker
    Hub, an address without zeros that mean nothing. What is no host stays as it is."""
    host, colon, port = text.lower().rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or (host.startswith("[") and not host.endswith("]")):
        host, port = text.lower(), ""
    if host.startswith("[") and host.endswith("]"):
        try:
            address = ipaddress.IPv6Address(host[1:-1])
        except ValueError:
            return text
        host = str(address.ipv4_mapped) if address.ipv4_mapped else f"[{address.compressed}]"
    if port:
        port = port.lstrip("0") or "0"
        local = host in ("localhost", "[::1]") or re.fullmatch(r"127(\.[0-9]+){3}", host) is not None
        # without a port, `ghcr` would be part of a path
        if port == ("80" if local else "443") and (local or "." in host or host.startswith("[")):
            port = ""
    host = DEFAULT_REGISTRY if host in HUB_NAMES and not port else host
    return f"{host}:{port}" if port else host


def is_kit_name(text: str) -> bool:
    """Whether a name is one that only the kit's own builder gives, however it is spelled."""
    host = canonical_registry(text.partition("/")[0])
    return host.partition(":")[0].rstrip(".") == KIT_REGISTRY


def parse_reference(text: str, *, kit: bool = False) -> Reference:
    """Parse an image name.

    Args:
        kit: take also a name of the kit's own images, as they stand in the store.

    Raises:
        InputError: it is not one; the message says which part is wrong and why.
        ReservedNameError: it is one that only the kit gives.
    """
    if not text:
        raise InputError("an image name is empty", hint="write NAME:TAG, for example nginx:1.27")
    blank = next((n for n, c in enumerate(text) if c.isspace()), -1)
    if blank >= 0:
        raise _bad(text, "it contains white space", "remove the blanks", blank)
    if "://" in text:
        raise _bad(text, "it starts with a URL scheme", f"leave out {text.split('://')[0]}://", 0)
    if len(text) > 1000:
        raise _bad(text[:60] + "…", f"it is {len(text)} characters long", "")
    full = expand(text)
    added = len(full) - len(text)  # in front
    rest, at, digest = full.partition("@")
    if at and not is_digest(digest):
        raise _bad(text, f"'{digest}' is not a digest", "a digest is sha256: and 64 hexadecimal digits (0-9, a-f)",
                   len(rest) + 1 - added)  # fmt: skip
    slash = rest.rfind("/")
    last, colon, tag = rest[slash + 1 :].partition(":")
    if colon and not _TAG.fullmatch(tag):
        why = "the tag is empty" if not tag else f"'{tag}' is not a tag"
        good = _TAG.match(tag)
        raise _bad(text, why, "a tag has letters, digits, '_', '.' and '-', starts with none of the last two, "
                              "and is at most 128 long",
                   len(rest) - len(tag) + (good.end() if good else 0) - added)  # fmt: skip
    path = rest[: slash + 1] + last
    registry, repository = _split(path)
    if not _REGISTRY.fullmatch(registry) or not _port_ok(registry) or not _host_ok(registry):
        raise _bad(text, f"'{registry}' is not a registry", "a registry is HOST or HOST:PORT", 0)
    place = len(path) - len(repository)
    for part in repository.split("/"):
        if not _PART.fullmatch(part):
            why, hint, within = _part_fault(part)
            raise _bad(text, why, hint, max(0, place + within - added))
        place += len(part) + 1
    if is_kit_name(f"{registry}/") and not kit:
        raise ReservedNameError(f"image name '{text}': {KIT_REGISTRY} is no registry; only images that the kit made "
                                "on this machine have such names",
                                hint=f"write kit://{repository}, or give the image another name")  # fmt: skip
    registry = canonical_registry(registry)
    if registry == DEFAULT_REGISTRY and "/" not in repository:
        repository = f"library/{repository}"
    if len(registry) + 1 + len(repository) > MAX_NAME:
        raise _bad(text[:60] + "…", f"the name is longer than {MAX_NAME} characters", "")
    full = f"{registry}/{repository}" + (f":{tag}" if tag else "") + (f"@{digest}" if digest else "")
    return Reference(full, registry, repository, tag, digest)


@functools.lru_cache(maxsize=4096)
def canonical_name(text: str) -> str:
    """The canonical form of a whole name of the store; text that names no image stays as it is."""
    try:
        return parse_reference(text, kit=True).text
    except InputError:
        return text


def _split(path: str) -> tuple[str, str]:
    """(registry, repository). A first part that does not look like a host belongs to docker.io."""
    first, _, rest = path.partition("/")
    if rest and ("." in first or ":" in first or first == "localhost" or first != first.lower()):
        return first, rest
    return DEFAULT_REGISTRY, path


def _port_ok(registry: str) -> bool:
    port = re.search(r":([0-9]+)$", registry)
    return port is None or 0 < int(port.group(1)) < 65536


def _host_ok(registry: str) -> bool:
    """Whether a host has one meaning: 127.1 and 0x7f.0.0.1 are other spellings of an address, and `Ghcr` of a path."""
    if registry.startswith("["):
        try:
            ipaddress.IPv6Address(registry[1 : registry.index("]")])
        except ValueError:
            return False
        return True
    host, colon, _ = registry.partition(":")
    if re.fullmatch(r"[0-9]+|0[xX][0-9a-fA-F]*", host.rpartition(".")[2]):
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            return False
    return bool(colon) or "." in host or host.lower() == "localhost"


def _part_fault(part: str) -> tuple[str, str, int]:
    """(what is wrong, what to do, where in the part)."""
    if not part:
        return "it has an empty part", "there is a '/' too many", 0
    if part.lower() != part:
        upper = next((n for n, c in enumerate(part) if c.lower() != c), 0)
        return f"'{part}' has upper-case letters", f"image names are lower case: {part.lower()}", upper
    wrong = re.search(r"[^a-z0-9._-]", part)
    if wrong:
        return (f"'{part}' contains {wrong.group()!r}", "use a-z, 0-9 and, between them, '.', '_' and '-'",
                wrong.start())  # fmt: skip
    good = _PART.match(part)
    return (f"'{part}' has a separator in the wrong place", "'.', '_' and '-' stand between letters or digits",
            good.end() if good else 0)  # fmt: skip


def _bad(text: str, why: str, hint: str, at: int = -1) -> InputError:
    """The error; `at` is the place in the text, from 0."""
    where = f" at character {at + 1}" if at >= 0 else ""
    return InputError(_printable(f"invalid image name '{text}'{where}: {why}"), hint=_printable(hint))


def _printable(text: str) -> str:
    """Nothing that a terminal would obey."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
