"""Packages in registries: what is there, pushing, further tags, indexes of what several machines pushed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from linuxkit.errors import ImageError, InputError, LinuxkitError
from linuxkit.oci import document as doc
from linuxkit.oci import publish
from linuxkit.oci.media import OCI_INDEX, Descriptor
from linuxkit.oci.reference import Reference, expand, parse_reference
from linuxkit.oci.registry import RegistryClient
from linuxkit.oci.store import Store

#: Architectures whose TAG-ARCH names `pkg index` looks for.
INDEXED = ("amd64", "arm64", "s390x", "riscv64", "ppc64le")
Say = Callable[[str], None]


def published(client: RegistryClient, reference: Reference) -> dict[str, str]:
    """architecture → digest of what the registry has under a name; empty when it has nothing.

    Raises:
        NetworkError: it cannot be asked.
    """
    items = _items(client, reference)
    listed = [doc.parse_descriptor(item, reference.text) for item in items]
    return {d.platform.architecture: d.digest for d in listed
            if d.platform is not None and d.platform.os == "linux"}  # fmt: skip


def _items(client: RegistryClient, reference: Reference) -> list[publish.Item]:
    found = client.find(reference)
    if found is None:
        return []
    top, data = found
    config = publish.config_of(top, data)
    read = client.read(reference, config, doc.MAX_CONFIG) if config is not None else b""
    return list(publish.listing(top, data, read).items)


def push(client: RegistryClient, store: Store, name: str, arch_tags: bool, say: Say) -> Descriptor | None:
    """Send a package of the store, merged into what the registry has; None when there is nothing to send."""
    found = store.find(name)
    if found is None:
        return None
    reference = parse_reference(name)
    if client.compare(reference, found) == "same" and not arch_tags:
        say(f"{name}: the registry has it already")
        return found
    return client.push(reference, found, merge=True, arch_tags=arch_tags, say=say)


def tag_again(client: RegistryClient, source: Reference, target: Reference, arch_tags: bool, say: Say) -> None:
    """Give an image of a registry another tag in the same repository, unless that tag is taken.

    Raises:
        ImageError: the registry has no such image.
    """
    found = client.find(source)
    if found is None:
        raise ImageError(f"{source.text} is not in its registry", hint="push it first")
    there = client.find(target)
    if there is not None:
        same = there[0].digest == found[0].digest
        say(f"{target.text}: {'has that image already' if same else 'is another image: left as it is'}")
        return
    if arch_tags:
        for tag, item in publish.arch_tags(_items(client, source), target.tag).items():
            one = doc.parse_descriptor(item, source.text)
            client.push_manifest(_tagged(target, tag), one.media_type, client.read(source, one, doc.MAX_MANIFEST))
    client.push_manifest(target, found[0].media_type, found[1])
    say(f"{target.text}: pushed")


def index(client: RegistryClient, name: str) -> Descriptor:
    """Make an index of the TAG-ARCH images that are in the registry, and push it as TAG.

    Raises:
        ImageError: there are none.
    """
    target = parse_reference(name)
    items: list[dict[str, Any]] = []
    for arch in INDEXED:
        found = _items(client, _tagged(target, f"{target.tag}-{arch}"))
        items += [dict(item) for item in found]
    if not items:
        names = ", ".join(f"{target.tag}-{arch}" for arch in INDEXED)
        raise ImageError(f"{target.name} has none of {names}", hint="push them first: linuxkit pkg build --push")
    data = doc.encode({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": publish.combine(items, [])})
    return client.push_manifest(target, OCI_INDEX, data)


def remote_tag(client: RegistryClient, source: str, target: str, say: Say) -> Descriptor:
    """Give an image another name: a tag in its repository, or a copy elsewhere.

    Raises:
        InputError: the new name has a digest. ImageError: there is no such image.
    """
    old, new = (parse_reference(parse_reference(text).tagged) for text in (source, target))
    if new.digest:
        raise InputError(f"'{target}' has a digest: an image gets a tag")
    found = client.find(old)
    if found is None:
        raise ImageError(f"{old.text} is not in its registry")
    there = client.find(new)
    if there is not None and there[0].digest == found[0].digest:
        say(f"{new.text}: has that image already")
        return found[0]
    if old.name == new.name:
        return client.push_manifest(new, found[0].media_type, found[1])
    return client.push(new, client.pull_all(old))


def release_reference(name: str, release: str) -> Reference:
    """The name of a release of a package.

    Raises:
        InputError: `release` is no tag.
    """
    plain = parse_reference(expand(name))
    try:
        return _tagged(plain, release)
    except InputError as e:
        raise InputError(f"--release {release}: {e.message}", hint=e.hint) from None


def refuse_dirty(name: str, what: str) -> LinuxkitError:
    """The error for a package whose files are not what is committed."""
    return LinuxkitError(f"{what}, refusing to push dirty package {name}",
                         hint="commit what has changed (git status shows it), then push")  # fmt: skip


def _tagged(reference: Reference, tag: str) -> Reference:
    return parse_reference(f"{reference.name}:{tag}")
