"""Whether an image may be used: what the policy asks, and what the signatures say.

The check is made on every image that is resolved, before anything of it is used, each time: what was fetched, planned
or built before doesn't count. A signature counts when it was made by one of the rule's keys, is about the digest in
use (of the manifest, or of the index that the name points at and that leads to it), and says the image's own name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from linuxkit.config.document import printable
from linuxkit.errors import ImageError, InputError, TrustError
from linuxkit.oci import kitmade
from linuxkit.oci.media import Image
from linuxkit.oci.reference import Reference, expand, is_kit_name, parse_reference
from linuxkit.oci.resolve import Resolver
from linuxkit.oci.store import Store
from linuxkit.trust import source
from linuxkit.trust.bundle import open_bundle
from linuxkit.trust.payload import Claim, parse_simple
from linuxkit.trust.policy import Identity, Policy, Rule, canonical, has_scheme, matches
from linuxkit.trust.source import MAX_SIGNATURES, Found, Registry

MAX_REASONS = 5  # that a message has


@dataclass(frozen=True, slots=True)
class Accepted:
    """A signature that counts: `by` is the key or identity, for people."""

    by: str
    claim: Claim


@dataclass(frozen=True, slots=True)
class Subject:
    """An image in question.

    text       as it was asked for.
    name       that rules are about: REGISTRY/REPOSITORY, `kit://NAME` or what names an archive.
    reference  for one that has a registry.
    digests    any of which a signature may be about: of the index, and of the manifest.
    """

    text: str
    name: str
    reference: Reference | None
    digests: tuple[str, ...] = ()


def subject_of(text: str, image: Image | None = None, *, whole: bool = False) -> Subject:
    """What stands in the YAML, and the image that it was resolved to.

    Args:
        whole: every platform of it is used, so a signature of one manifest is not enough.

    Raises:
        InputError: it is no image name.
    """
    digests: tuple[str, ...] = (image.digest,) if image else ()
    if image and image.index:
        digests = (image.index.digest,) if whole else tuple(dict.fromkeys((image.index.digest, image.digest)))
    if has_scheme(text):
        return Subject(text, text, None, digests)
    reference = parse_reference(text)
    return Subject(reference.text, reference.name, reference, digests)


class Guard:
    """Applies a policy to images.

    Args:
        policy: None lets everything pass.
        registry: gives the client that signatures are fetched with; None when there is none, with --offline.
        strange_kit: kit packages come from a bundle that nobody but itself vouches for.
    """

    def __init__(self, policy: Policy | None, store: Store, registry: Callable[[], Registry | None],
                 strange_kit: bool = False) -> None:  # fmt: skip
        self._policy, self._store, self._registry, self._strange_kit = policy, store, registry, strange_kit
        self._passed: set[Subject] = set()

    def before(self, text: str) -> None:
        """Refuse what is refused by its name, before anything is fetched.

        Raises:
            TrustError: no signature could make the policy allow it.
        """
        if self._policy is not None:
            self._refused(self._policy, subject_of(text))

    def check(self, text: str, image: Image, *, whole: bool = False) -> None:
        """Refuse an image unless the policy allows it.

        Args:
            whole: every platform of it is used.

        Raises:
            TrustError: the image, its digest, the rule, and what was found.
        """
        if self._policy is None:
            return
        subject = subject_of(text, image, whole=whole)
        if subject not in self._passed:
            self.examine(subject)
            self._passed.add(subject)  # this name, with these digests, under this policy

    def examine(self, subject: Subject) -> str:
        """Judge an image.

        Returns:
            what speaks for it, in words.

        Raises:
            TrustError: the policy does not allow it.
        """
        if self._policy is None:
            return "there is no policy"
        rule = self._refused(self._policy, subject)
        if (rule is None or rule.allow) and self._strange_kit and subject.name.startswith("kit://"):
            self._own_kit(subject)
        if rule is None:
            return f"allowed by the default of {self._policy.file}"
        if rule.allow:
            return f"allowed by {rule.where}"
        if set(rule.digests) & set(subject.digests):
            return f"pinned by {rule.where}"
        if not rule.keys and not rule.keyless:
            raise TrustError(f"image {subject.text} is not trusted: {rule.where} pins it to "
                             f"{_some(rule.digests)}, and it is {subject.digests[0]}",
                             hint="name the image by that digest, or add the new one to the rule")  # fmt: skip
        accepted = self.signed(subject, rule)
        extra = "".join(f", {key}={value}" for key, value in sorted(accepted.claim.annotations.items()))
        return f"signed by {accepted.by}{printable(extra)}"

    def unsigned(self, image: Image) -> str:
        """Why what hangs on the index of an image does not count; empty when it does.

        A policy that wants signatures wants one of the index then: that of a manifest says nothing of its neighbours.
        """
        if self._policy is None or image.index is None or is_kit_name(image.reference):
            return ""
        try:
            self.examine(subject_of(image.reference, image, whole=True))
        except TrustError as e:
            return e.message
        return ""

    def signed(self, subject: Subject, rule: Rule) -> Accepted:
        """The first signature that counts, from the store or else from the registry.

        Raises:
            TrustError: there is none.
        """
        reasons: list[str] = []
        found = judge(source.stored(self._store, subject.reference, subject.digests), subject, rule, reasons)
        registry = self._registry() if found is None and subject.reference is not None else None
        if found is None and registry is not None and subject.reference is not None:
            fetched = source.fetched(self._store, registry, subject.reference, subject.digests)
            found = judge(fetched, subject, rule, reasons)
        if found is not None:
            return found
        asked = "in the cache or at the registry" if registry else "in the cache"
        several = list(dict.fromkeys(printable(reason) for reason in reasons))
        what = "; ".join(several[:MAX_REASONS]) or f"there is no signature {asked}"
        what += f"; and {len(several) - MAX_REASONS} more" if len(several) > MAX_REASONS else ""
        wanted = [f"{key.name} ({key.identity})" for key in rule.keys] + [i.identity for i in rule.keyless]
        hint = f"it has to be signed by {_some(wanted)}"
        if subject.reference is not None and rule.keys:
            hint += f"; linuxkit sign {subject.reference.name}@{subject.digests[0]} --key FILE does that"
        raise TrustError(f"image {subject.text} ({subject.digests[0]}) is not trusted by {rule.where}: {what}",
                         hint=hint)  # fmt: skip

    def _own_kit(self, subject: Subject) -> None:
        """Raises: TrustError, for what calls itself a kit package and is not what the kit made on this machine."""
        made = kitmade.read(self._store.root)
        known = {digest for name in made for digest in kitmade.digests(made, name)}
        if not known & set(subject.digests):
            raise TrustError(
                f"image {subject.text} ({subject.digests[-1]}) is not trusted: it comes from a bundle, and nothing but "
                "the bundle says that it is the kit's",
                hint="give a lock of your own: --lock FILE; or pin it in the policy: "
                     f"images: [{subject.name}], digests: [{subject.digests[-1]}]",
            )  # fmt: skip

    def required(self, texts: Iterable[str], images: Sequence[str], orgs: Sequence[str]) -> list[str]:
        """The `trust:` section: images that it names have to be signed or pinned, whatever the policy's default is.

        Returns:
            without a policy, the names that nothing can be said about.

        Raises:
            TrustError: the policy asks for nothing.
        """
        named = [text for text in texts if in_section(subject_of(text), images, orgs)]
        if self._policy is None:
            return named
        for text in named:
            subject = subject_of(text)
            rule = self._policy.rule(subject.name)
            if rule is None or rule.allow:
                where = rule.where if rule else f"the default of {self._policy.file}"
                raise TrustError(f"image {subject.text} is not trusted: `trust:` wants it signed, and {where} "
                                 "lets it pass without", hint="add a rule with its keys to the policy")  # fmt: skip
        return []

    def _refused(self, policy: Policy, subject: Subject) -> Rule | None:
        rule = policy.rule(subject.name)
        digest = f" ({subject.digests[0]})" if subject.digests else ""
        if rule is None and not policy.default:
            raise TrustError(f"image {subject.text}{digest} is not trusted: no rule of {policy.file} is about "
                             f"{subject.name}, and its default is deny",
                             hint=f'add a rule for images: ["{subject.name}"]')  # fmt: skip
        if rule is not None and rule.allow is False:
            raise TrustError(f"image {subject.text}{digest} is not trusted: {rule.where} denies it",
                             hint="use another image, or change that rule")  # fmt: skip
        return rule


def guarded(guard: Guard) -> type[Resolver]:
    """A Resolver that gives out no image without asking the guard: not from what it remembers, nor by a lock's pins."""

    class Guarded(Resolver):
        def resolve(self, text: str, *args: Any, **options: Any) -> Image:
            guard.before(text)
            image = super().resolve(text, *args, **options)
            guard.check(text, image)
            return image

    return Guarded


def judge(found: Iterable[Found], subject: Subject, rule: Rule, reasons: list[str]) -> Accepted | None:
    """The first signature that counts; why the others don't is added to `reasons`."""
    for n, one in enumerate(found):
        if n >= MAX_SIGNATURES:
            reasons.append(f"more than {MAX_SIGNATURES} signatures, the others were not looked at")
            return None
        try:
            accepted = _judge(one, subject, rule)
            fault = _claim_fault(accepted.claim, subject, rule)
        except ImageError as e:
            fault = e.message
        else:
            if not fault:
                return accepted
            fault = f"signed by {accepted.by}, but {fault}"
        reasons.append(fault)
    return None


def _judge(found: Found, subject: Subject, rule: Rule) -> Accepted:
    """Who made a signature, and what it says. Raises ImageError when it is nobody that the rule names."""
    if found.fault:
        raise ImageError(f"a signature cannot be read: {found.fault}")
    if not found.bundle:
        for key in rule.keys:
            if key.verifies(found.signature, found.data):
                return Accepted(f"{key.name} ({key.identity})", parse_simple(found.data))
        if found.certificate:
            raise ImageError("a signature with a certificate in cosign's older form, which is not verified"
                             if rule.keyless else "signed with a certificate, not with a key of the rule")  # fmt: skip
        raise ImageError("signed by another key")
    bundle = open_bundle(found.data)
    if bundle.certificate:
        return _keyless(found.data, bundle.statement, subject, rule.keyless)
    for key in rule.keys:
        claim = bundle.claim(key, subject.digests)
        if claim is not None:
            return Accepted(f"{key.name} ({key.identity})", claim)
    raise ImageError("signed by another key")


def _keyless(data: bytes, statement: bool, subject: Subject, identities: Sequence[Identity]) -> Accepted:
    if not identities:
        raise ImageError("signed with a certificate, not with a key of the rule")
    from linuxkit.trust.keyless import verify_bundle

    reasons = []
    for identity in identities:
        try:
            return Accepted(identity.identity, verify_bundle(data, identity, subject.digests, statement=statement))
        except ImageError as e:
            reasons.append(e.message)
    raise ImageError("; ".join(dict.fromkeys(reasons)))


def _claim_fault(claim: Claim, subject: Subject, rule: Rule) -> str:
    """Why a genuine signature doesn't count for this image; empty when it does."""
    if not set(claim.digests) & set(subject.digests):
        return f"for another digest, {_some(claim.digests)}"
    if "**" in rule.signed_as or (claim.nameless and not claim.name and not rule.signed_as):
        return ""
    if not claim.name:
        return "it says no image name"
    name = _repository(claim.name)
    if rule.signed_as:
        return "" if any(matches(p, name) for p in rule.signed_as) else f"as {name}, which signed-as does not list"
    if subject.reference is None:
        return f"as {name}, and this has no such name (signed-as in the rule allows names)"
    return "" if name == subject.name else f"as {name}, not as {subject.name} (signed-as in the rule allows that)"


def _repository(name: str) -> str:
    """REGISTRY/REPOSITORY of a name as it was signed."""
    try:
        return parse_reference(name).name
    except InputError:
        return name[:300]


def in_section(subject: Subject, images: Sequence[str], orgs: Sequence[str]) -> bool:
    """Whether the `trust:` section names an image: in `image` by its name, in `org` by the first part of its path."""
    if subject.reference is None:
        return False
    for text in images:
        try:
            wanted = parse_reference(text)
        except InputError:
            continue
        same = wanted.name == subject.name
        if same and wanted.tag in ("", subject.reference.tag) and wanted.digest in ("", subject.reference.digest):
            return True
    prefixes = [canonical(expand(f"{org.strip('/')}/x")).removesuffix("x") for org in orgs]
    return any(subject.name.startswith(prefix) for prefix in prefixes)


def _some(values: Sequence[str]) -> str:
    shown = " or ".join(values[:3])
    return shown if len(values) <= 3 else f"{shown} or {len(values) - 3} others"
