"""Attested SBOMs that do not count: about something else, or not signed where a policy wants signatures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from linuxkit.oci.media import Image
from linuxkit.oci.reference import parse_reference
from linuxkit.oci.store import Store
from linuxkit.rootfs.content import Content
from linuxkit.sbom.layers import inventory
from linuxkit.sbom.make import document
from linuxkit.sources import Sources
from linuxkit.trust.policy import load
from linuxkit.trust.sign import sign_stored
from support.databases import attest, content_of, image_with
from support.keypairs import make_pair

pytestmark = pytest.mark.unit
NAME = "registry.example/team/app"
SPDX = "https://spdx.dev/Document"
BOM = {"packages": [{"SPDXID": "SPDXRef-go", "name": "go", "versionInfo": "1.2", "downloadLocation": "NONE"}]}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


def plain(store: Store) -> Image:
    return image_with(store, f"{NAME}:1", {"a": b"a"})


@pytest.mark.parametrize(("change", "says"), [
    ({}, ""),  # the control
    ({"subject": [{"name": "x", "digest": {"sha256": "f" * 64}}]}, "it is about another image (ffff"),
    ({"subject": []}, "it is about another image (none)"),
    ({"subject": [{"name": "x", "digest": {"sha512": "f" * 128}}]}, "it is about another image"),
    ({"predicateType": "https://slsa.dev/provenance/v1"}, "it holds 'https://slsa.dev/provenance/v1'"),
    ({"predicateType": ""}, "it holds ''"), ({"_type": "x"}, "it is no in-toto statement"),
])  # fmt: skip
def test_a_statement_is_about_the_image_and_what_it_is_called(
    store: Store, tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    image = plain(store)
    statement = {"_type": "https://in-toto.io/Statement/v1", "predicateType": SPDX, "predicate": BOM,
                 "subject": [{"name": "_", "digest": {"sha256": image.digest[7:]}}]}  # fmt: skip
    image = attest(store, image, (SPDX, json.dumps(statement | change).encode()))
    found = inventory(image, content_of(store, tmp_path))
    assert bool(found.documents) == (not says)
    assert [note for note in found.notes if says in note] if says else not found.notes


@pytest.mark.parametrize(("signed", "rule", "counts"), [
    ("index", "keys", True), ("manifest", "keys", False), ("index", "digests", True), ("manifest", "digests", False),
    ("", "allow", True), ("", "", True),
])  # fmt: skip
def test_under_a_policy_the_index_is_signed(
    store: Store, tmp_path: Path, signed: str, rule: str, counts: bool
) -> None:
    """Both times the image passes the policy; the control is a policy that asks for nothing, and none at all."""
    pair = make_pair(tmp_path, "release")
    image = attest(store, plain(store), (SPDX, BOM))
    assert image.index is not None
    digest = image.index.digest if signed == "index" else image.digest
    if rule == "keys":
        sign_stored(store, parse_reference(f"{NAME}@{digest}"), pair.key, {})
    asks = {"keys": f"keys: [{pair.public}]", "digests": f"digests: ['{digest}']", "allow": "allow: true", "": ""}[rule]
    (tmp_path / "policy.yml").write_text(f"default: deny\nrules:\n  - images: ['{NAME}']\n    {asks}\n")
    said: list[str] = []
    sources = Sources(store.root, offline=True, policy=load(tmp_path / "policy.yml") if rule else None, log=said.append)
    sources.guard.check(f"{NAME}:1", image)
    content = Content(store, content_of(store, tmp_path).derived, attested=sources.unsigned)
    found = inventory(image, content)
    assert bool(found.documents) == counts
    if not counts:
        assert any(note.startswith("1 attested SBOMs are left out: image registry.example") for note in found.notes)
        assert len([line for line in said if "SBOMs that are attached" in line]) == 1
        assert "left out" in json.dumps(document([("", image)], content))
