"""The policy file: which images have to be signed, and by whom.

    default: deny                      # images that no rule is about: deny (the default) or allow
    keys:
      release: release.pub             # a PEM file, relative to this one, or the PEM text itself
    rules:                             # the first that fits an image counts
      - images: ["registry.example/team/**"]
        keys: [release]
      - images: [alpine]
        digests: ["sha256:…"]
      - images: ["ghcr.io/org/*"]
        keyless:
          - issuer: https://token.actions.githubusercontent.com
            identity: https://github.com/org/*
            trusted-root: trusted_root.json
      - images: ["kit://*"]
        allow: true

In a pattern `*` is anything but a slash and `**` anything at all. Every fault is reported with its place.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TypeVar

from linuxkit.config.document import Mapping, Node, Scalar, Sequence, read_document
from linuxkit.config.model import Position
from linuxkit.errors import InputError, Problem
from linuxkit.oci.reference import DEFAULT_REGISTRY, canonical_registry, is_digest
from linuxkit.oci.resolve import ARCHIVES
from linuxkit.trust.keys import MAX_PEM, PublicKey, public_key

MAX_POLICY = 1 << 20
MAX_ROOT = 4 << 20
_EXAMPLE = 'for example images: ["registry.example/team/**"]'
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who signed without a key of their own.

    issuer        of the identity: the URL of an OpenID provider.
    identity      a pattern of an e-mail address or URI in the certificate.
    trusted_root  a trusted_root.json; None for the public one that the library brings.
    """

    issuer: str
    identity: str
    trusted_root: Path | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """What is asked of some images: any one of the keys, identities and digests is enough.

    allow      True or False: nothing is asked, or nothing helps.
    signed_as  patterns of the name that a signature must say; empty: the image's own.
    position   where the rule stands.
    """

    images: tuple[str, ...]
    position: Position
    keys: tuple[PublicKey, ...] = ()
    keyless: tuple[Identity, ...] = ()
    digests: tuple[str, ...] = ()
    signed_as: tuple[str, ...] = ()
    allow: bool | None = None

    @property
    def where(self) -> str:
        return f"{self.position.file}:{self.position.line}" if self.position.file else "the keys given"


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy file. `fingerprint` covers it and every file that it names."""

    file: str
    default: bool
    rules: tuple[Rule, ...]
    fingerprint: str = ""

    def rule(self, name: str) -> Rule | None:
        """The first rule about an image: REGISTRY/REPOSITORY, `kit://NAME`, or what names an archive."""
        return next((r for r in self.rules if any(matches(p, name) for p in r.images)), None)


def canonical(name: str) -> str:
    """REGISTRY/REST with the registry in its one spelling, as oci.reference has it."""
    first, slash, rest = name.partition("/")
    return f"{canonical_registry(first)}{slash}{rest}" if slash else name


def has_scheme(text: str) -> bool:
    """Whether a name, or a pattern, is about what does not come from a registry. `kit:1` is an image of Docker Hub."""
    return text.startswith("kit://") or text.partition(":")[0] in ARCHIVES


def expand_pattern(pattern: str) -> str:
    """The full form of a pattern: `alpine` is `docker.io/library/alpine`; `*` and `**` are everything."""
    if pattern in ("*", "**"):
        return "**"
    if has_scheme(pattern):
        return pattern
    first, slash, rest = pattern.partition("/")
    if slash and (first.lower() == "localhost" or any(c in first for c in ".:*[")):
        if canonical(f"{first}/") == f"{DEFAULT_REGISTRY}/" and "/" not in rest and "*" not in rest:
            return f"{DEFAULT_REGISTRY}/library/{rest}"
        return canonical(pattern)
    return f"{DEFAULT_REGISTRY}/{pattern}" if slash else f"{DEFAULT_REGISTRY}/library/{pattern}"


def matches(pattern: str, name: str) -> bool:
    """Whether an expanded pattern is about a name."""
    return glob(pattern, name if has_scheme(name) else canonical(name))


def glob(pattern: str, text: str) -> bool:
    """`*` is anything but a slash, `**` anything."""
    parts = re.split(r"(\*+)", pattern)
    regex = "".join("[^/]*" if p == "*" else ".*" if p.startswith("**") else re.escape(p) for p in parts)
    return re.fullmatch(regex, text, re.DOTALL) is not None


def load(path: Path) -> Policy:
    """Read a policy file and the keys that it names.

    Raises:
        InputError: `problems` has every fault. HostError: it has keys and the extra is not installed.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_POLICY + 1)
    except OSError as e:
        raise InputError(f"trust policy {path}: {e.strerror or e}", hint="--trust-policy names the file") from None
    if len(data) > MAX_POLICY:
        raise InputError(f"trust policy {path} is larger than {MAX_POLICY} bytes")
    return parse(data, path)


def parse(data: bytes, path: Path) -> Policy:
    """`load` for a text; files that it names are looked up beside `path`."""
    reader = _Reader(path)
    node = read_document(data, str(path))
    policy = reader.policy(node)
    if reader.problems or policy is None:
        found = sorted(reader.problems, key=lambda p: (p.line, p.column))
        raise InputError(f"the trust policy {path} cannot be used", problems=found)
    digest = hashlib.sha256(hashlib.sha256(data).digest())
    for content in reader.files:
        digest.update(hashlib.sha256(content).digest())
    return Policy(policy.file, policy.default, policy.rules, digest.hexdigest())


class _BadError(Exception):
    """A value could not be read; the problem has been noted."""


class _Reader:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems: list[Problem] = []
        self.files: list[bytes] = []
        self.keys: dict[str, PublicKey] = {}

    def bad(self, node: Node, where: str, message: str, hint: str = "") -> NoReturn:
        at = node.position
        self.problems.append(Problem(message, at.file, at.line, at.column, where, hint))
        raise _BadError

    # -- values

    def mapping(self, node: Node, where: str, known: tuple[str, ...]) -> dict[str, tuple[Scalar, Node]]:
        if not isinstance(node, Mapping):
            self.bad(node, where, f"{node.kind} where a mapping is needed")
        for key, _ in node.pairs:
            if key.text not in known:
                import difflib

                close = difflib.get_close_matches(key.text, known, n=1)
                hint = f"did you mean '{close[0]}'?" if close else f"there are {', '.join(known)}"
                message, at = f"unknown key '{key.text[:60]}'", key.position
                self.problems.append(Problem(message, at.file, at.line, at.column, where, hint))
        return {key.text: (key, value) for key, value in node.pairs}

    def text(self, node: Node, where: str) -> str:
        if not isinstance(node, Scalar) or not isinstance(node.value, str) or not node.value:
            self.bad(node, where, f"{node.kind} where a text is needed")
        return node.value

    def flag(self, node: Node, where: str) -> bool:
        if not isinstance(node, Scalar) or not isinstance(node.value, bool):
            self.bad(node, where, f"{node.kind} where true or false is needed")
        return node.value

    def each(self, node: Node, where: str, read: Callable[[Node, str], T]) -> tuple[T, ...]:
        """Every item of a list that is not empty; what is wrong with one does not hide the next."""
        if not isinstance(node, Sequence) or not node.items:
            self.bad(node, where, "a list with at least one item is needed")
        found = []
        for n, item in enumerate(node.items):
            try:
                found.append(read(item, f"{where}[{n}]"))
            except _BadError:
                continue
        return tuple(found)

    def file(self, node: Node, where: str, name: str, limit: int) -> bytes:
        try:
            with (self.path.parent / Path(name).expanduser()).open("rb") as stream:
                data = stream.read(limit + 1)
        except (OSError, ValueError, RuntimeError) as e:
            self.bad(node, where, f"{name[:200]}: {getattr(e, 'strerror', None) or 'not a file name'}",
                     "names are relative to the policy file")  # fmt: skip
        if len(data) > limit:
            self.bad(node, where, f"{name[:200]} is larger than {limit} bytes")
        self.files.append(data)
        return data

    # -- the document

    def policy(self, node: Node) -> Policy | None:
        try:
            found = self.mapping(node, "", ("default", "keys", "rules"))
        except _BadError:
            return None
        default, rules = False, []
        try:
            if "default" in found:
                word = self.text(found["default"][1], "default")
                if word not in ("deny", "allow"):
                    self.bad(found["default"][1], "default", f"'{word[:40]}' is neither deny nor allow")
                default = word == "allow"
        except _BadError:
            pass
        if "keys" in found:
            self.named_keys(found["keys"][1])
        listed = found["rules"][1] if "rules" in found else None
        try:
            if listed is not None and not (isinstance(listed, Sequence) and not listed.items):
                rules = list(self.each(listed, "rules", self.rule))
        except _BadError:
            pass
        return Policy(str(self.path), default, tuple(rules))

    def named_keys(self, node: Node) -> None:
        if not isinstance(node, Mapping):
            at = node.position
            self.problems.append(Problem(f"{node.kind} where a mapping of names to keys is needed", at.file, at.line,
                                         at.column, "keys"))  # fmt: skip
            return
        for key, value in node.pairs:
            try:
                self.keys[key.text] = self.pem(value, f"keys.{key.text}", key.text)
            except _BadError:
                self.keys.setdefault(key.text, PublicKey(key.text, "", None))  # reported once, not where it is used

    def pem(self, node: Node, where: str, name: str = "") -> PublicKey:
        text = self.text(node, where)
        if "-----BEGIN" in text:
            data, name = text.encode(), name or "the key in the policy"
        else:
            data, name = self.file(node, where, text, MAX_PEM), name or text
        try:
            return public_key(data, name)
        except InputError as e:
            self.bad(node, where, e.message, e.hint)

    def key(self, node: Node, where: str) -> PublicKey:
        text = self.text(node, where)
        if text in self.keys:
            return self.keys[text]
        if not ("-----BEGIN" in text or "/" in text or "." in text):
            self.bad(node, where, f"no key is named '{text[:60]}'",
                     f"named are {', '.join(self.keys)}" if self.keys else "give a PEM file")  # fmt: skip
        return self.pem(node, where)

    def rule(self, node: Node, where: str) -> Rule:
        known = ("images", "keys", "keyless", "digests", "signed-as", "allow")
        found = self.mapping(node, where, known)
        if "images" not in found:
            self.bad(node, where, "a rule without images", _EXAMPLE)
        images = self.each(found["images"][1], f"{where}.images", self.pattern)
        asks = [k for k in ("keys", "keyless", "digests", "allow") if k in found]
        if not asks:
            self.bad(node, where, "a rule that asks for nothing", "add keys, keyless or digests; or allow: true")
        if "allow" in asks and len(asks) > 1:
            self.bad(found["allow"][0], f"{where}.allow", f"allow cannot stand beside {asks[0]}", "keep one of them")
        if "signed-as" in found and not {"keys", "keyless"} & set(asks):
            self.bad(found["signed-as"][0], f"{where}.signed-as", "signed-as needs keys or keyless beside it")

        def get(key: str, read: Callable[[Node, str], T]) -> tuple[T, ...]:
            return self.each(found[key][1], f"{where}.{key}", read) if key in found else ()

        allow = self.flag(found["allow"][1], f"{where}.allow") if "allow" in found else None
        return Rule(images, node.position, get("keys", self.key), get("keyless", self.identity),
                    get("digests", self.digest), get("signed-as", self.pattern), allow)  # fmt: skip

    def pattern(self, node: Node, where: str) -> str:
        text = self.text(node, where)
        if any(c.isspace() for c in text) or "@" in text or len(text) > 1000:
            self.bad(node, where, f"'{text[:60]}' is not a pattern of image names", _EXAMPLE)
        if ":" in text.rpartition("/")[2] and not has_scheme(text):
            self.bad(node, where, "a pattern names repositories, without tags", "leave out the tag; digests: pins")
        return expand_pattern(text)

    def digest(self, node: Node, where: str) -> str:
        text = self.text(node, where)
        if not is_digest(text):
            self.bad(node, where, f"'{text[:80]}' is not a digest", "it is sha256: and 64 hexadecimal digits")
        return text

    def identity(self, node: Node, where: str) -> Identity:
        found = self.mapping(node, where, ("issuer", "identity", "trusted-root"))
        for key in ("issuer", "identity"):
            if key not in found:
                self.bad(node, where, f"{key} is missing", "issuer is a URL, identity an e-mail address or a URI")
        root = None
        if "trusted-root" in found:
            name = self.text(found["trusted-root"][1], f"{where}.trusted-root")
            self.file(found["trusted-root"][1], f"{where}.trusted-root", name, MAX_ROOT)
            root = self.path.parent / Path(name).expanduser()
        return Identity(self.text(found["issuer"][1], f"{where}.issuer"),
                        self.text(found["identity"][1], f"{where}.identity"), root)  # fmt: skip
