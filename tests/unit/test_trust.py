"""Signatures and the policy: what counts, what does not, and that no cache is a way around it."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from linuxkit.errors import ImageError, InputError, NetworkError, TrustError
from linuxkit.oci.media import Image
from linuxkit.oci.reference import parse_reference
from linuxkit.oci.registry import RegistryClient
from linuxkit.oci.store import Store
from linuxkit.sources import Sources
from linuxkit.trust import keys, source
from linuxkit.trust.keys import PublicKey
from linuxkit.trust.policy import Policy, load
from linuxkit.trust.sign import sign_pushed, sign_stored
from linuxkit.trust.verify import Guard
from support.client import transport
from support.images import AMD64, ARM64, make_image, member, tar_of
from support.keypairs import Pair, make_pair, openssl
from support.registry import Registry

pytestmark = pytest.mark.unit
NAME = "registry.example/team/app"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(tmp_path_factory.mktemp("keys"), "release")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(tmp_path_factory.mktemp("others"), "other")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "cache")
    make_image(store, f"{NAME}:1", tar_of(member("app", b"arm")), platform=ARM64)
    make_image(store, f"{NAME}:1", tar_of(member("app", b"app")))
    return store


def top(store: Store, name: str = f"{NAME}:1") -> str:
    found = store.find(name)
    assert found is not None
    return found.digest


def image(store: Store, name: str = f"{NAME}:1") -> Image:
    found = store.find(name)
    assert found is not None
    return store.image(found, name, AMD64)


def policy(folder: Path, text: str) -> Policy:
    path = folder / "policy.yml"
    path.write_text(text)
    return load(path)


def by_keys(folder: Path, *pairs: Pair, more: str = "") -> Policy:
    listed = ", ".join(str(p.public) for p in pairs)
    return policy(folder, f'rules:\n  - images: ["registry.example/team/*"]\n    keys: [{listed}]\n{more}')


def check(policy: Policy | None, store: Store, name: str = f"{NAME}:1", registry: RegistryClient | None = None) -> None:
    Guard(policy, store, lambda: registry).check(name, image(store, name))


def put_signature(store: Store, layers: list[tuple[bytes, dict[str, str]]], digest: str, name: str = NAME,
                  media_type: str = source.SIMPLE) -> None:  # fmt: skip
    """A manifest of signatures made by hand, as another tool would."""
    def blob(data: bytes, kind: str) -> dict[str, Any]:
        found = store.put_blob(data, kind)
        return {"mediaType": kind, "digest": found.digest, "size": found.size}

    manifest = {
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob(b"{}", "application/vnd.oci.image.config.v1+json"),
        "layers": [blob(data, media_type) | {"annotations": annotations} for data, annotations in layers],
    }
    kept = store.put_blob(json.dumps(manifest).encode(), manifest["mediaType"])  # type: ignore[arg-type]
    store.put_name(f"{name}:{digest.replace(':', '-')}.sig", kept)


def payload(digest: str, name: str = NAME, kind: str = "cosign container image signature") -> bytes:
    critical = {"identity": {"docker-reference": name}, "image": {"docker-manifest-digest": digest}, "type": kind}
    return json.dumps({"critical": critical, "optional": None}).encode()


def by_openssl(pair: Pair, data: bytes) -> dict[str, str]:
    signature = openssl("dgst", "-sha256", "-sign", pair.private, data=data)
    return {"dev.cosignproject.cosign/signature": base64.b64encode(signature).decode()}


# -- what counts


def test_a_signature_of_ours_counts_and_is_openssls_too(tmp_path: Path, store: Store, pair: Pair) -> None:
    digest, new = sign_stored(store, parse_reference(f"{NAME}:1"), pair.key, {"build": "7"})
    assert new
    assert digest == top(store)
    check(by_keys(tmp_path, pair), store)
    signatures = store.find(f"{NAME}:{digest.replace(':', '-')}.sig")
    assert signatures is not None
    layer = json.loads(store.read_blob(signatures, 1 << 20))["layers"][0]
    data = store.blob_path(layer["digest"]).read_bytes()
    assert data == (b'{"critical":{"identity":{"docker-reference":"registry.example/team/app"},'
                    b'"image":{"docker-manifest-digest":"' + digest.encode() + b'"},'
                    b'"type":"cosign container image signature"},"optional":{"build":"7"}}')  # fmt: skip
    (tmp_path / "sig").write_bytes(base64.b64decode(layer["annotations"]["dev.cosignproject.cosign/signature"]))
    assert b"OK" in openssl("dgst", "-sha256", "-verify", pair.public, "-signature", tmp_path / "sig", data=data)


@pytest.mark.parametrize("options", [
    ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"),
    ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"),
    ("-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"), ("-algorithm", "ED25519"),
], ids=["p256", "p384", "rsa", "ed25519"])  # fmt: skip
def test_every_kind_of_key_signs_and_verifies(tmp_path: Path, store: Store, options: tuple[str, ...]) -> None:
    made = make_pair(tmp_path, "k", *options)
    sign_stored(store, parse_reference(f"{NAME}:1"), made.key, {})
    check(by_keys(tmp_path, made), store)


def test_what_openssl_signed_counts(tmp_path: Path, store: Store, pair: Pair, other: Pair) -> None:
    """The index is signed, or the manifest that it leads to; the other signatures don't matter."""
    for digest in (top(store), image(store).digest):
        data = payload(digest)
        put_signature(store, [(data, by_openssl(other, data)), (data, by_openssl(pair, data))], digest)
        check(by_keys(tmp_path, pair), store)
        store.remove_name(f"{NAME}:{digest.replace(':', '-')}.sig")


def test_signing_again_adds_nothing_and_another_key_adds_one(store: Store, pair: Pair, other: Pair,
                                                             tmp_path: Path) -> None:  # fmt: skip
    reference = parse_reference(f"{NAME}:1")
    assert sign_stored(store, reference, pair.key, {})[1]
    before = store.entries()
    assert not sign_stored(store, reference, pair.key, {})[1]
    assert store.entries() == before
    assert sign_stored(store, reference, other.key, {})[1]
    check(by_keys(tmp_path, pair), store)
    check(by_keys(tmp_path, other), store)


# -- what does not


def refused(policy: Policy, store: Store, name: str = f"{NAME}:1", registry: RegistryClient | None = None) -> str:
    with pytest.raises(TrustError) as caught:
        check(policy, store, name, registry)
    assert caught.value.exit_code == 1
    assert name in caught.value.message
    return caught.value.message


def test_no_signature(tmp_path: Path, store: Store, pair: Pair) -> None:
    message = refused(by_keys(tmp_path, pair), store)
    assert f"{tmp_path}/policy.yml:2" in message
    assert top(store) in message
    assert "there is no signature in the cache" in message


def test_another_key(tmp_path: Path, store: Store, pair: Pair, other: Pair) -> None:
    sign_stored(store, parse_reference(f"{NAME}:1"), other.key, {})
    assert "signed by another key" in refused(by_keys(tmp_path, pair), store)


@pytest.mark.parametrize(("about", "words"), [
    (lambda d: payload("sha256:" + "0" * 64), "for another digest, sha256:" + "0" * 64),
    (lambda d: payload(d, "registry.example/team/else"), "as registry.example/team/else, not as"),
    (lambda d: payload(d, ""), "it says no image name"),
    (lambda d: payload(d, kind="atomic container signature"), "is not a signature of an image"),
    (lambda d: b"[]", "a JSON object is expected"),
    (lambda d: b"\xff", "not valid JSON"),
    (lambda d: b"[" * 100_000, "not valid JSON"),
    (lambda d: payload("sha256:short"), "is not a digest"),
    (lambda d: b'{"critical": []}', "critical must be an object"),
], ids=["digest", "name", "noname", "type", "list", "binary", "deep", "nodigest", "shape"])  # fmt: skip
def test_a_good_signature_of_something_else(tmp_path: Path, store: Store, pair: Pair, about: Any, words: str) -> None:
    data = about(top(store))
    put_signature(store, [(data, by_openssl(pair, data))], top(store))
    assert words in refused(by_keys(tmp_path, pair), store)


def test_a_changed_byte(tmp_path: Path, store: Store, pair: Pair) -> None:
    data = payload(top(store))
    put_signature(store, [(data + b" ", by_openssl(pair, data))], top(store))
    assert "signed by another key" in refused(by_keys(tmp_path, pair), store)


@pytest.mark.parametrize("annotations", [{}, {"dev.cosignproject.cosign/signature": "no!"},
                                         {"dev.cosignproject.cosign/signature": ""}])  # fmt: skip
def test_a_damaged_signature_does_not_hide_a_good_one(tmp_path: Path, store: Store, pair: Pair,
                                                      annotations: dict[str, str]) -> None:  # fmt: skip
    data = payload(top(store))
    put_signature(store, [(data, annotations)], top(store))
    refused(by_keys(tmp_path, pair), store)
    put_signature(store, [(data, annotations), (data, by_openssl(pair, data))], top(store))
    check(by_keys(tmp_path, pair), store)


def test_there_is_an_end_to_signatures(tmp_path: Path, store: Store, pair: Pair) -> None:
    """A flood of them is cut off, and a payload without end is not read."""
    good, bad = payload(top(store)), payload(top(store)) + b" "
    flood = [(bad, by_openssl(pair, good))] * source.MAX_SIGNATURES
    put_signature(store, [*flood, (good, by_openssl(pair, good))], top(store))
    refused(by_keys(tmp_path, pair), store)
    large = good + b" " * (300 << 10)
    put_signature(store, [(large, by_openssl(pair, large))], top(store))
    assert "over the limit" in refused(by_keys(tmp_path, pair), store)


def test_a_message_is_fit_for_a_terminal(tmp_path: Path, store: Store, pair: Pair) -> None:
    """What strangers wrote has no escape sequences in it, and does not go on for ever."""
    odd = [payload(top(store), f"\x1b[2Jnot/a/Name{n}") for n in range(20)]
    put_signature(store, [(data, by_openssl(pair, data)) for data in odd], top(store))
    message = refused(by_keys(tmp_path, pair), store)
    assert "\x1b" not in message
    assert message.endswith("; and 15 more")


def test_names_of_the_rule(tmp_path: Path, store: Store, pair: Pair) -> None:
    data = payload(top(store), "docker.io/team/app")
    put_signature(store, [(data, by_openssl(pair, data))], top(store))
    check(by_keys(tmp_path, pair, more="    signed-as: [team/app]\n"), store)
    assert "signed-as does not list" in refused(by_keys(tmp_path, pair, more="    signed-as: [team/b]\n"), store)


def test_digests_and_defaults(tmp_path: Path, store: Store) -> None:
    rule = 'rules:\n  - images: ["registry.example/**"]\n    digests: ["{}"]\n'
    check(policy(tmp_path, rule.format(top(store))), store)
    check(policy(tmp_path, rule.format(image(store).digest)), store)
    assert "pins it to sha256:000" in refused(policy(tmp_path, rule.format("sha256:" + "0" * 64)), store)
    assert "its default is deny" in refused(policy(tmp_path, "rules: []\n"), store)
    assert "denies it" in refused(policy(tmp_path, 'rules: [{images: ["*"], allow: false}]'), store)
    check(policy(tmp_path, "default: allow\n"), store)
    check(None, store)


# -- the registry


def pushed(registry: Registry, store: Store) -> tuple[str, RegistryClient]:
    """The image in a registry; the store knows it by that name, too."""
    found = store.find(f"{NAME}:1")
    assert found is not None
    name = f"{registry.host}/team/app:1"
    store.put_name(name, found)
    client = RegistryClient(store, transport())
    client.push(parse_reference(name), found)
    return name, client


@pytest.mark.parametrize("api", [True, False], ids=["api", "tag"])
@pytest.mark.parametrize("refer", [True, False], ids=["referrers", "sig"])
def test_signed_in_a_registry_verified_from_it_then_offline(tmp_path: Path, store: Store, pair: Pair, other: Pair,
                                                            refer: bool, api: bool) -> None:  # fmt: skip
    with Registry(referrers=api) as registry:
        name, client = pushed(registry, store)
        rules = policy(tmp_path, f'rules: [{{images: ["127.0.0.1:*/**"], keys: [{pair.public}]}}]')
        assert "there is no signature in the cache or at the registry" in refused(rules, store, name, client)
        assert sign_pushed(client, parse_reference(name), other.key, {}, refer=refer)[1]
        assert "signed by another key" in refused(rules, store, name, client)
        assert sign_pushed(client, parse_reference(name), pair.key, {}, refer=refer)[1]
        assert sign_pushed(client, parse_reference(name), pair.key, {}, refer=refer) == (top(store), False)
        check(rules, store, name, client)
    check(rules, store, name, None)  # the registry is gone: it was kept
    assert source.stored_names(store, parse_reference(name), [top(store)])


def test_a_registry_in_trouble_is_said(tmp_path: Path, store: Store, pair: Pair) -> None:
    with Registry() as registry:
        name, client = pushed(registry, store)
        registry.faults["manifests"] = lambda handler, body: handler.error(403, "DENIED", "no") or True
        rules = policy(tmp_path, f'rules: [{{images: ["127.0.0.1:*/**"], keys: [{pair.public}]}}]')
        assert "403" in refused(rules, store, name, client)


def test_signing_what_is_not_there(store: Store, pair: Pair) -> None:
    with Registry() as registry, pytest.raises(ImageError, match="is not in the registry"):
        sign_pushed(RegistryClient(store, transport()), parse_reference(f"{registry.host}/no:1"), pair.key, {})
    with pytest.raises(ImageError, match="is not in the cache"):
        sign_stored(store, parse_reference("registry.example/no:1"), pair.key, {})


# -- no way around


def test_what_was_resolved_before_is_judged_again(tmp_path: Path, store: Store, pair: Pair) -> None:
    sources = Sources(store.root, offline=True, policy=by_keys(tmp_path, pair))
    for _ in range(2):
        with pytest.raises(TrustError):
            sources.resolver.resolve(f"{NAME}:1", AMD64)
    sign_stored(store, parse_reference(f"{NAME}:1"), pair.key, {})
    assert sources.resolver.resolve(f"{NAME}:1", AMD64).digest == image(store).digest


def test_a_name_that_means_something_else_later(tmp_path: Path, store: Store, pair: Pair) -> None:
    """The signature is about a digest: an image put under the name of a signed one does not count."""
    sign_stored(store, parse_reference(f"{NAME}:1"), pair.key, {})
    sources = Sources(store.root, offline=True, policy=by_keys(tmp_path, pair))
    sources.resolver.resolve(f"{NAME}:1", AMD64)
    old = top(store)
    make_image(store, f"{NAME}:1", tar_of(member("app", b"evil")))
    assert top(store) != old
    with pytest.raises(TrustError):
        Sources(store.root, offline=True, policy=by_keys(tmp_path, pair)).resolver.resolve(f"{NAME}:1", AMD64)
    assert source.stored_names(store, parse_reference(NAME), [old])


def test_what_is_denied_is_not_even_fetched(tmp_path: Path) -> None:
    with Registry() as registry:
        sources = Sources(tmp_path / "cache", policy=policy(tmp_path, "default: deny\n"))
        with pytest.raises(TrustError):
            sources.resolver.resolve(f"{registry.host}/team/app:1", AMD64)
        assert registry.seen == []


def test_archives_have_rules_too(tmp_path: Path, store: Store) -> None:
    from linuxkit.oci.resolve import Resolver

    found = store.find(f"{NAME}:1")
    assert found is not None
    place = f"oci:{store.root}:{NAME}:1"
    assert Resolver(Store(tmp_path / "x")).resolve(place, AMD64).digest == image(store).digest
    for rules, good in (("rules: []", False), ('rules: [{images: ["oci:**"], allow: true}]', True)):
        sources = Sources(tmp_path / "y", offline=True, policy=policy(tmp_path, rules))
        if good:
            assert sources.resolver.resolve(place, AMD64).digest == image(store).digest
        else:
            with pytest.raises(TrustError, match="no rule"):
                sources.resolver.resolve(place, AMD64)


def test_a_damaged_signature_of_the_cache_is_not_believed(tmp_path: Path, store: Store, pair: Pair) -> None:
    digest, _ = sign_stored(store, parse_reference(f"{NAME}:1"), pair.key, {})
    found = store.find(f"{NAME}:{digest.replace(':', '-')}.sig")
    assert found is not None
    layer = json.loads(store.read_blob(found, 1 << 20))["layers"][0]["digest"]
    path = store.blob_path(layer)
    path.write_bytes(path.read_bytes().replace(b"team/app", b"team/apq"))
    assert hashlib.sha256(path.read_bytes()).hexdigest() != layer[7:]
    assert "cannot be read" in refused(by_keys(tmp_path, pair), store)


def test_what_needs_what(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        load(tmp_path / "none.yml")
    with pytest.raises(NetworkError):
        _ = Sources(tmp_path, offline=True).registry
    assert isinstance(keys.PublicKey("a", "b", None), PublicKey)
