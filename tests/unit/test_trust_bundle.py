"""Sigstore bundles attached to an image: made with a key, and made with an identity."""

from __future__ import annotations

import base64
import copy
import json
import subprocess
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from linuxkit.errors import HostError, InputError, TrustError
from linuxkit.oci import document as doc
from linuxkit.oci.media import OCI_INDEX, OCI_MANIFEST, Descriptor, Image
from linuxkit.oci.store import Store
from linuxkit.trust.policy import Policy, load
from linuxkit.trust.verify import Guard
from support.images import AMD64, make_image, member, tar_of
from support.keyless import IDENTITY, ISSUER, NOW, World, b64, statement_envelope

pytestmark = pytest.mark.unit
NAME = "registry.example/team/app"
KIND = "application/vnd.dev.sigstore.bundle.v0.3+json"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "cache")
    make_image(store, f"{NAME}:1", tar_of(member("app", b"app")))
    return store


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def image(store: Store) -> Image:
    found = store.find(f"{NAME}:1")
    assert found is not None
    return store.image(found, f"{NAME}:1", AMD64)


def top(store: Store) -> Descriptor:
    found = store.find(f"{NAME}:1")
    assert found is not None
    return found


def attach(store: Store, bundle: bytes, subject: str) -> None:
    """As cosign attaches bundles, found by the list of referrers."""
    empty = store.put_blob(b"{}", "application/vnd.oci.empty.v1+json")
    layer = store.put_blob(bundle, KIND)
    manifest = store.put_blob(doc.encode({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": KIND, "config": doc.descriptor_document(empty),
        "layers": [doc.descriptor_document(layer)],
        "subject": {"mediaType": OCI_INDEX, "digest": subject, "size": 1},
    }), OCI_MANIFEST)  # fmt: skip
    entry = Descriptor(OCI_MANIFEST, manifest.digest, manifest.size, artifact_type=KIND)
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [doc.descriptor_document(entry)]}
    store.put_name(f"{NAME}:{subject.replace(':', '-')}", store.put_blob(doc.encode(index), OCI_INDEX))


def rules(folder: Path, text: str) -> Policy:
    (folder / "p.yml").write_text(f'rules:\n  - images: ["registry.example/**"]\n    {text}\n')
    return load(folder / "p.yml")


def judge(policy: Policy, store: Store, bundle: Any, subject: str = "") -> str:
    """"" when the image is trusted, or why not."""
    attach(store, bundle if isinstance(bundle, bytes) else json.dumps(bundle).encode(), subject or top(store).digest)
    try:
        Guard(policy, store, lambda: None).check(f"{NAME}:1", image(store))
    except TrustError as e:
        return e.message
    return ""


# -- with a key


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    for name in ("k", "other"):
        subprocess.run(["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out",
                        folder / f"{name}.key"], check=True, capture_output=True)  # fmt: skip
        subprocess.run(["openssl", "pkey", "-in", folder / f"{name}.key", "-pubout", "-out", folder / f"{name}.pub"],
                       check=True)  # fmt: skip
    return folder


def signer(folder: Path, name: str = "k") -> Callable[[bytes], bytes]:
    def sign(data: bytes) -> bytes:
        return subprocess.run(["openssl", "dgst", "-sha256", "-sign", folder / f"{name}.key"], input=data,
                              capture_output=True, check=True).stdout  # fmt: skip

    return sign


def keyed(content: dict[str, Any]) -> dict[str, Any]:
    return {"mediaType": KIND, "verificationMaterial": {"publicKey": {"hint": "k"}, "tlogEntries": []}, **content}


def message(store: Store, sign: Callable[[bytes], bytes]) -> dict[str, Any]:
    digest = bytes.fromhex(top(store).digest[7:])
    data = store.read_blob(top(store), 1 << 20)
    return {"messageSignature": {"messageDigest": {"algorithm": "SHA2_256", "digest": b64(digest)},
                                 "signature": b64(sign(data))}}  # fmt: skip


def test_an_envelope_signed_with_a_key(tmp_path: Path, store: Store, pair: Path) -> None:
    policy = rules(tmp_path, f"keys: [{pair}/other.pub, {pair}/k.pub]")
    for digest in (top(store).digest, image(store).digest):
        assert judge(policy, store, keyed({"dsseEnvelope": statement_envelope(digest, signer(pair))}), digest) == ""
        store.remove_name(f"{NAME}:{digest.replace(':', '-')}")


def test_the_signature_of_a_manifest(tmp_path: Path, store: Store, pair: Path) -> None:
    policy = rules(tmp_path, f"keys: [{pair}/k.pub]")
    assert judge(policy, store, keyed(message(store, signer(pair)))) == ""
    assert "signed by another key" in judge(policy, store, keyed(message(store, signer(pair, "other"))))


@pytest.mark.parametrize(("change", "words"), [
    (lambda d, s: {"dsseEnvelope": statement_envelope("sha256:" + "0" * 64, s)}, "for another digest"),
    (lambda d, s: {"dsseEnvelope": statement_envelope(d, s, "https://spdx.dev/Document")}, "an attestation (http"),
    (lambda d, s: {"dsseEnvelope": statement_envelope(d, s, name="registry.example/else")}, "as registry.example/else"),
    (lambda d, s: {"dsseEnvelope": statement_envelope(d, s) | {"payloadType": "text/plain"}}, "signed by another key"),
    (lambda d, s: {"dsseEnvelope": statement_envelope(d, s) | {"signatures": []}}, "signed by another key"),
    (lambda d, s: {"dsseEnvelope": statement_envelope(d, s) | {"payload": "?"}}, "not base64"),
    (lambda d, s: {"dsseEnvelope": []}, "dsseEnvelope must be an object"),
    (lambda d, s: {}, "neither an envelope nor"),
    (lambda d, s: {"mediaType": "text/plain"}, "is not a Sigstore bundle"),
], ids=["digest", "attestation", "name", "type", "none", "base64", "shape", "empty", "media"])  # fmt: skip
def test_what_does_not_count(tmp_path: Path, store: Store, pair: Path, change: Any, words: str) -> None:
    policy = rules(tmp_path, f"keys: [{pair}/k.pub]")
    assert words in judge(policy, store, keyed(change(top(store).digest, signer(pair))))


def test_a_bundle_that_is_none(tmp_path: Path, store: Store, pair: Path) -> None:
    policy = rules(tmp_path, f"keys: [{pair}/k.pub]")
    for data in (b"", b"[]", b"{}", b'{"mediaType": 1}', b"\xff", b"[" * 100_000):
        assert "is not trusted" in judge(policy, store, data)
    assert "over the limit" in judge(policy, store, b" " * (2 << 20))


# -- with an identity


def by_identity(folder: Path, world: World, identity: str = IDENTITY, issuer: str = ISSUER, more: str = "") -> Policy:
    (folder / "root.json").write_bytes(world.trusted_root())
    who = f'issuer: "{issuer}", identity: "{identity}", trusted-root: root.json'
    return rules(folder, f"keyless: [{{{who}}}]\n    {more}")


def test_an_envelope_signed_with_an_identity(tmp_path: Path, store: Store, world: World) -> None:
    bundle = world.statement_bundle(top(store).digest)
    assert judge(by_identity(tmp_path, world), store, bundle) == ""
    assert judge(by_identity(tmp_path, world, "*@team.example"), store, bundle) == ""
    said = judge(by_identity(tmp_path, world, "r@team.example"), store, bundle)
    assert "the certificate is for release@team.example" in said
    said = judge(by_identity(tmp_path, world, issuer="https://else.example"), store, bundle)
    assert "not vouched for by https://else.example" in said
    assert "not signed by" in judge(by_identity(tmp_path, World()), store, bundle)  # other roots


def test_the_identity_of_a_workflow(tmp_path: Path, store: Store, world: World) -> None:
    who = "https://forge.example/org/app/.github/workflows/release.yml@refs/tags/v1.2"
    bundle = world.statement_bundle(top(store).digest, identity=who)
    pattern = "https://forge.example/org/*/.github/workflows/release.yml@refs/tags/*"
    assert judge(by_identity(tmp_path, world, pattern), store, bundle) == ""
    assert judge(by_identity(tmp_path, world, pattern.replace("org/*", "evil/*")), store, bundle) != ""
    assert judge(by_identity(tmp_path, world, "https://forge.example/*"), store, bundle) != ""


def test_the_signature_of_a_manifest_with_an_identity(tmp_path: Path, store: Store, world: World) -> None:
    policy = by_identity(tmp_path, world)
    assert judge(policy, store, world.message_bundle(store.read_blob(top(store), 1 << 20))) == ""
    assert "not signed by" in judge(policy, store, world.message_bundle(b"something else"))


def spoil(path: str, change: Callable[[Any], Any]) -> Callable[[dict[str, Any]], None]:
    def do(bundle: dict[str, Any]) -> None:
        *parts, last = [int(p) if p.isdigit() else p for p in path.split(".")]
        place: Any = bundle
        for part in parts:
            place = place[part]
        place[last] = change(place[last])

    return do


def flip(text: str) -> str:
    data = bytearray(base64.b64decode(text))
    data[len(data) // 2] ^= 1
    return b64(bytes(data))


ENTRY = "verificationMaterial.tlogEntries.0"


@pytest.mark.parametrize("change", [
    spoil("dsseEnvelope.payload", flip), spoil("dsseEnvelope.signatures.0.sig", flip),
    spoil("verificationMaterial.certificate.rawBytes", flip), spoil(f"{ENTRY}.canonicalizedBody", flip),
    spoil(f"{ENTRY}.inclusionPromise.signedEntryTimestamp", flip), spoil(f"{ENTRY}.inclusionProof.rootHash", flip),
    spoil(f"{ENTRY}.inclusionProof.hashes", lambda h: []), spoil(f"{ENTRY}.inclusionProof.hashes.0", flip),
    spoil(f"{ENTRY}.inclusionProof.checkpoint.envelope", lambda e: e.replace("example - 1", "example - 2")),
    spoil(f"{ENTRY}.integratedTime", lambda t: str(int(t) + 3600)),
    spoil("verificationMaterial.tlogEntries", lambda e: []),
    spoil(f"{ENTRY}.inclusionPromise", lambda p: None), spoil("verificationMaterial", lambda v: {"certificate": {}}),
], ids=["payload", "signature", "certificate", "body", "promise", "root", "nohashes", "hash", "checkpoint", "time",
        "nolog", "nopromise", "nothing"])  # fmt: skip
def test_every_part_is_needed(tmp_path: Path, store: Store, world: World,
                              change: Callable[[dict[str, Any]], None]) -> None:  # fmt: skip
    policy, bundle = by_identity(tmp_path, world), world.statement_bundle(top(store).digest)
    spoiled = copy.deepcopy(bundle)
    change(spoiled)
    assert "is not trusted" in judge(policy, store, spoiled)
    assert judge(policy, store, bundle) == ""


def test_who_vouches(tmp_path: Path, store: Store, world: World) -> None:
    """Each of the three authorities by itself, a certificate that had run out, and what the statement is about."""
    policy, digest = by_identity(tmp_path, world), top(store).digest
    stranger = World()
    for one in (World(stranger.ca, world.ct, world.rekor), World(world.ca, stranger.ct, world.rekor),
                World(world.ca, world.ct, stranger.rekor)):  # fmt: skip
        assert "is not trusted" in judge(policy, store, one.statement_bundle(digest))
    assert "is not trusted" in judge(policy, store, world.statement_bundle(digest, at=NOW - timedelta(hours=1)))
    assert "for another digest" in judge(policy, store, world.statement_bundle("sha256:" + "0" * 64))
    assert "an attestation" in judge(policy, store, world.statement_bundle(digest, predicate="https://spdx.dev/Document"))


def test_a_key_is_no_identity_and_an_identity_no_key(tmp_path: Path, store: Store, world: World, pair: Path) -> None:
    bundle = world.statement_bundle(top(store).digest)
    assert "not with a key of the rule" in judge(rules(tmp_path, f"keys: [{pair}/k.pub]"), store, bundle)
    made = keyed({"dsseEnvelope": statement_envelope(top(store).digest, signer(pair))})
    assert "signed by another key" in judge(by_identity(tmp_path, world), store, made)
    assert judge(by_identity(tmp_path, world, more=f"keys: [{pair}/k.pub]"), store, made) == ""
    assert judge(by_identity(tmp_path, world, more=f"keys: [{pair}/k.pub]"), store, bundle) == ""


def test_a_trusted_root_that_is_none(tmp_path: Path, store: Store, world: World) -> None:
    policy = by_identity(tmp_path, world)
    for data in (b"", b"{}", b"[]", b"x", world.trusted_root().replace(b"0.1", b"9.9")):
        (tmp_path / "root.json").write_bytes(data)
        with pytest.raises(InputError, match=r"the trusted root for release@team\.example cannot be used"):
            judge(policy, store, world.statement_bundle(top(store).digest))


def test_the_public_roots_need_no_network(tmp_path: Path, store: Store, world: World,
                                          monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    """Without trusted-root the library's own copy counts, which knows nothing of ours."""
    import socket

    def refuse(*args: object, **options: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    policy = rules(tmp_path, f'keyless: [{{issuer: "{ISSUER}", identity: "{IDENTITY}"}}]')
    assert "not signed by" in judge(policy, store, world.statement_bundle(top(store).digest))


def test_without_the_extra(tmp_path: Path, store: Store, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    bundle, policy = world.statement_bundle(top(store).digest), by_identity(tmp_path, world)
    for name in [n for n in sys.modules if n.partition(".")[0] in ("sigstore", "sigstore_models")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sigstore", None)
    with pytest.raises(HostError) as caught:
        judge(policy, store, bundle)
    assert "linuxkit[keyless]" in caught.value.hint
