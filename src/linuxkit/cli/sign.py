"""linuxkit sign, verify and key."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from linuxkit.cli.main import Settings

if TYPE_CHECKING:
    from linuxkit.api import Sources
    from linuxkit.oci.media import Descriptor
    from linuxkit.oci.reference import Reference
    from linuxkit.trust.policy import Policy
    from linuxkit.trust.verify import Subject

PASSWORDS = ("LINUXKIT_KEY_PASSWORD", "COSIGN_PASSWORD")


def policy_of(settings: Settings) -> Policy | None:
    """The policy that applies: of --trust-policy, or the one in the user's configuration; None when there is none.

    Raises:
        InputError: it cannot be used.
    """
    if settings.policy_file is None:
        return None
    from linuxkit.trust.policy import load

    return load(settings.policy_file)


def _sources(settings: Settings, offline: bool = False) -> Sources:
    from linuxkit import api

    return api.Sources(settings.cache, settings.mirrors, settings.cert_files, offline, environment=os.environ,
                       log=lambda line: _note(settings, line))  # fmt: skip


def _note(settings: Settings, line: str) -> None:
    if settings.verbose >= 1:
        click.echo(line, err=True)


def ask_password(confirm: bool = False) -> bytes:
    for name in PASSWORDS:
        if name in os.environ:
            return os.environ[name].encode("utf-8", "surrogateescape")
    if not sys.stdin.isatty():
        from linuxkit.errors import InputError

        raise InputError("the key needs a password, and there is no terminal to ask on",
                         hint=f"put it into {PASSWORDS[0]}")  # fmt: skip
    answer = click.prompt("Password of the key", hide_input=True, confirmation_prompt=confirm, default="",
                          show_default=False, err=True)  # fmt: skip
    return str(answer).encode()


@click.command()
@click.argument("name", metavar="IMAGE")
@click.option("--key", "key_file", required=True, type=click.Path(path_type=Path), metavar="FILE",
              help="The private key, PEM. If it is encrypted, its password is asked for, or taken from "
                   "LINUXKIT_KEY_PASSWORD or COSIGN_PASSWORD.")
@click.option("-a", "--annotation", "annotations", multiple=True, metavar="KEY=VALUE",
              help="Sign this with it; repeatable.")
@click.option("--cache-only", is_flag=True, help="Sign the image of the cache, and keep the signature there.")
@click.option("--referrers", is_flag=True, help="Attach the signature as OCI 1.1 has it, not under a tag.")
@click.pass_obj
def sign(settings: Settings, name: str, key_file: Path, annotations: tuple[str, ...], cache_only: bool,
         referrers: bool) -> None:  # fmt: skip
    """Sign an image of a registry, or of the cache, as cosign does.

    \b
    linuxkit key generate release
    linuxkit sign registry.example/team/app:1.2 --key release.key
    linuxkit verify registry.example/team/app:1.2 --key release.pub
    """
    from linuxkit.oci.reference import parse_reference
    from linuxkit.trust.keys import private_key, read_key
    from linuxkit.trust.sign import parse_annotations, sign_pushed, sign_stored

    reference, extra = parse_reference(name), parse_annotations(annotations)
    key = private_key(read_key(key_file), str(key_file), ask_password)
    sources = _sources(settings)
    if cache_only:
        digest, new = sign_stored(sources.store, reference, key, extra, refer=referrers)
    else:
        digest, new = sign_pushed(sources.registry, reference, key, extra, refer=referrers)
    done = "signed" if new else "was signed already:"
    _note(settings, f"{done} {reference.name}@{digest} with {key.public.name} ({key.public.identity})")


@click.command()
@click.argument("name", metavar="IMAGE")
@click.option("--key", "key_files", multiple=True, type=click.Path(path_type=Path), metavar="FILE",
              help="A public key, PEM; repeatable: any of them will do.  [default: what the policy says]")
@click.option("--signed-as", multiple=True, metavar="NAME", help="With --key: take signatures of this name, too.")
@click.option("--arch", default="", metavar="ARCH", help="Take a signature of this variant, too.")
@click.option("--offline", is_flag=True, envvar="LINUXKIT_OFFLINE", show_envvar=True,
              help="Judge the image of the cache, without the network.")
@click.pass_obj
def verify(settings: Settings, name: str, key_files: tuple[Path, ...], signed_as: tuple[str, ...], arch: str,
           offline: bool) -> None:  # fmt: skip
    """Judge an image by public keys, or by the trust policy. Exit status 1: it is not trusted."""
    from linuxkit.config.model import Position
    from linuxkit.errors import InputError
    from linuxkit.trust.keys import public_key, read_key
    from linuxkit.trust.policy import Policy, Rule, expand_pattern
    from linuxkit.trust.verify import Guard

    if signed_as and not key_files:
        raise InputError("--signed-as needs --key", hint="a policy has signed-as in its rules")
    if key_files:
        keys = tuple(public_key(read_key(path), str(path)) for path in key_files)
        rule = Rule(("**",), Position(), keys, signed_as=tuple(expand_pattern(p) for p in signed_as))
        policy: Policy | None = Policy("", False, (rule,))
    else:
        policy = policy_of(settings)
    if policy is None:
        raise InputError("there is neither a key nor a trust policy", hint="give --key FILE, or --trust-policy FILE")
    sources = _sources(settings, offline)
    subject = _subject(sources, name, arch)
    guard = Guard(policy, sources.store, lambda: None if offline else sources.registry)
    click.echo(f"{subject.text} ({subject.digests[0]}): {guard.examine(subject)}")


def _subject(sources: Sources, name: str, arch: str) -> Subject:
    """The image that a name points at now: in the registry, or offline in the cache."""
    from linuxkit.cli.build import architecture
    from linuxkit.errors import ImageError
    from linuxkit.oci.media import INDEX_TYPES, Platform
    from linuxkit.oci.reference import parse_reference
    from linuxkit.oci.select import manifests, match
    from linuxkit.trust.verify import Subject

    reference: Reference = parse_reference(name)
    store = sources.store
    if sources.offline:
        top = store.find_reference(reference)
    else:
        found = sources.registry.find(reference)
        top = found[0] if found else None
    if top is None:
        where = "the cache" if sources.offline else "the registry"
        hint = "check the name" if sources.offline else "with --offline the cache's is judged"
        hint = "check the name" if sources.offline else "with --offline the cache's is judged"
        raise ImageError(f"image {reference.tagged} is not in {where}", hint=hint)
    digests = [top.digest]
    if arch and top.media_type in INDEX_TYPES:
        def read(blob: Descriptor, limit: int) -> bytes:
            return store.read_blob(blob, limit) if sources.offline else sources.registry.read(reference, blob, limit)

        chosen = match(list(manifests(read, top, reference.text)), Platform("linux", architecture(arch)))
        digests += [chosen.digest] if chosen else []
    return Subject(reference.text, reference.name, reference, tuple(digests))


@click.group()
def key() -> None:
    """Make keys that images are signed with."""


@key.command()
@click.argument("name", metavar="NAME", type=click.Path(path_type=Path))
@click.option("--no-password", is_flag=True, help="Do not encrypt the private key.")
@click.pass_obj
def generate(settings: Settings, name: Path, no_password: bool) -> None:
    """Write NAME.key (private, to sign with) and NAME.pub (public, to verify with). Nothing is overwritten."""
    from linuxkit.errors import InputError
    from linuxkit.trust.keys import generate as make

    password = b"" if no_password else ask_password(confirm=True)
    if not password and not no_password:
        raise InputError("the password is empty", hint="give one, or --no-password")
    private, public = make(name, password)
    _note(settings, f"wrote {private} and {public}")
