"""Pushing to a registry that checks what it gets, and to one that fails in the middle."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from linuxkit.errors import ImageError, NetworkError
from linuxkit.oci import document as doc
from linuxkit.oci import publish
from linuxkit.oci.media import DOCKER_INDEX, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST, Descriptor, Image, Platform
from linuxkit.oci.reference import Reference, parse_reference
from linuxkit.oci.registry import RegistryClient
from linuxkit.oci.store import Store
from support import registry as faults
from support.client import Login, transport
from support.images import AMD64, ARM64, digest, make_image, member, put, tar_of
from support.registry import Handler, Registry

pytestmark = pytest.mark.unit
BASE = tar_of(member("base", b"base" * 9999))
RISCV = Platform("linux", "riscv64")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "cache")
    for platform in (ARM64, AMD64):
        make_image(store, "test/app:1", BASE, tar_of(member(platform.architecture)), platform=platform)
    return store


def top(store: Store, name: str = "test/app:1") -> Descriptor:
    found = store.find(name)
    assert found is not None
    return found


def name(registry: Registry, rest: str = "test/app:1") -> Reference:
    return parse_reference(f"{registry.host}/{rest}")


def client(store: Store, **options: object) -> RegistryClient:
    return RegistryClient(store, transport(), **options)  # type: ignore[arg-type]


def pulled(registry: Registry, tmp_path: Path, platform: Platform = AMD64, rest: str = "test/app:1") -> Image:
    return client(Store(tmp_path / f"pulled-{os.urandom(4).hex()}")).pull(name(registry, rest), platform)


def listed(registry: Registry, rest: str = "test/app:1") -> dict[str, str]:
    """platform → digest of an index in the registry."""
    kind, data = registry.manifests[rest]
    assert kind == OCI_INDEX
    return {str(doc.parse_descriptor(i, "x").platform): i["digest"] for i in json.loads(data)["manifests"]}


# -- good behaviour


@pytest.mark.parametrize("token", ["", "t"])
def test_an_index_arrives_as_it_is(tmp_path: Path, store: Store, token: str) -> None:
    with Registry(token=token) as registry:
        found = client(store).push(name(registry), top(store))
        assert found == top(store) or found.digest == top(store).digest
        for platform in (AMD64, ARM64):
            assert pulled(registry, tmp_path, platform).layers == store.image(found, "x", platform).layers
        writes = [s.path for s in registry.seen if s.method == "PUT"]
        assert writes[-1].endswith("/manifests/1")  # the name is last
        manifests = [n for n, path in enumerate(writes) if "/manifests/" in path]
        assert min(manifests) == len(writes) - 3  # two manifests and the index, after all blobs


def test_what_is_there_is_not_sent_again(store: Store) -> None:
    with Registry(login=("user", "word")) as registry:
        pushing = client(store, keychain=Login("user", "word"))
        pushing.push(name(registry), top(store))
        count = len([s for s in registry.seen if s.method in ("POST", "PUT", "PATCH")])
        moved: list[tuple[str, int, int]] = []
        client(store, keychain=Login("user", "word"), progress=lambda *p: moved.append(p)).push(
            name(registry, "test/app:2"), top(store))  # fmt: skip
        assert len([s for s in registry.seen if s.method in ("POST", "PUT", "PATCH")]) == count + 1  # the new tag
        assert {done for _, done, _ in moved} == {0, -1}


def test_progress_counts_to_the_end(store: Store) -> None:
    moved: list[tuple[str, int, int]] = []
    with Registry() as registry:
        client(store, progress=lambda *p: moved.append(p)).push(name(registry), top(store))
    sizes = {d: size for d, _, size in moved}
    assert all(max(done for d, done, _ in moved if d == one) == size for one, size in sizes.items())


def test_a_neighbour_lends_its_blobs(tmp_path: Path, store: Store) -> None:
    with Registry(token="t") as registry:
        client(store).push(name(registry), top(store))
        other = Store(tmp_path / "other")
        client(other).pull_all(name(registry))
        before = len(registry.requests("blobs/uploads/", "PUT"))
        client(other).push(name(registry, "another/app:2"), top(other, f"{registry.host}/test/app:1"))
        assert len(registry.requests("blobs/uploads/", "PUT")) == before
        assert all("mount=" in s.path for s in registry.requests("blobs/uploads/", "POST")[-5:])
        assert pulled(registry, tmp_path, rest="another/app:2").config.cmd == ("/bin/app",)


def test_a_neighbour_that_lends_nothing(tmp_path: Path, store: Store) -> None:
    """No blob there (any more): the upload that the registry begins instead is used."""
    with Registry() as registry:
        client(store).push(name(registry), top(store))
        other = Store(tmp_path / "other")
        client(other).pull_all(name(registry))
        registry.held.clear()
        client(other).push(name(registry, "another/app:2"), top(other, f"{registry.host}/test/app:1"))
        assert pulled(registry, tmp_path, rest="another/app:2").config.cmd == ("/bin/app",)


def test_pieces_where_one_request_is_too_large(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("linuxkit.oci.push.PIECE", 1 << 20)
    make_image(store, "test/big:1", tar_of(member("noise", os.urandom((5 << 20) + 5))))
    with Registry(max_put=2 << 20) as registry:
        client(store).push(name(registry, "test/big:1"), top(store, "test/big:1"))
        assert len(registry.requests("blobs/uploads/", "PATCH")) >= 6
        layer = pulled(registry, tmp_path, rest="test/big:1").layers[0]
        assert registry.blobs[layer.digest] == store.blob_path(layer.digest).read_bytes()


def test_bytes_and_manifests(store: Store) -> None:
    with Registry() as registry:
        got = client(store)
        blob = got.push_bytes(name(registry), b"{}", OCI_CONFIG)
        assert (blob.digest, blob.size, registry.blobs[blob.digest]) == (digest(b"{}"), 2, b"{}")
        got.push_bytes(name(registry), b"{}", OCI_CONFIG)
        assert len(registry.requests("blobs/uploads/", "POST")) == 1
        data = doc.encode({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": [],
                           "config": doc.descriptor_document(blob)})  # fmt: skip
        by_digest = parse_reference(f"{registry.host}/test/app@{digest(data)}")
        assert got.push_manifest(by_digest, OCI_MANIFEST, data).digest == digest(data)
        assert "test/app:1" not in registry.manifests
        got.push_manifest(name(registry), OCI_MANIFEST, data)
        assert registry.manifests["test/app:1"] == (OCI_MANIFEST, data)
        with pytest.raises(ImageError, match="another digest"):
            got.push_manifest(by_digest, OCI_MANIFEST, data + b"\n")


# -- merging


def test_machines_of_two_kinds_push_one_name(tmp_path: Path) -> None:
    with Registry() as registry:
        digests = {}
        for platform in (AMD64, ARM64):
            here = Store(tmp_path / platform.architecture)
            image = make_image(here, "test/app:1", BASE, platform=platform)
            assert client(here).compare(name(registry), top(here)) == ("adds" if digests else "absent")
            client(here).push(name(registry), top(here), merge=True)
            assert client(here).compare(name(registry), top(here)) == "same"
            digests[str(platform)] = image.digest
        assert listed(registry) == digests
        again = Store(tmp_path / "again")
        image = make_image(again, "test/app:1", tar_of(member("new")))
        assert client(again).compare(name(registry), top(again)) == "differs"
        client(again).push(name(registry), top(again), merge=True)
        assert listed(registry) == digests | {"linux/amd64": image.digest}
        client(again).push(name(registry), top(again))  # without merge: what is here, and nothing else
        assert listed(registry) == {"linux/amd64": image.digest}


def test_a_manifest_joins_an_index_and_an_index_a_manifest(tmp_path: Path, store: Store) -> None:
    arm = store.image(top(store), "x", ARM64)
    single = Descriptor(OCI_MANIFEST, arm.digest, store.blob_path(arm.digest).stat().st_size)
    with Registry() as registry:
        client(store).push(name(registry), single, merge=True)
        assert registry.manifests["test/app:1"][0] == OCI_MANIFEST
        here = Store(tmp_path / "amd64")
        amd = make_image(here, "test/app:1", BASE)
        client(here).push(name(registry), top(here), merge=True)
        assert listed(registry) == {"linux/amd64": amd.digest, "linux/arm64": arm.digest}
        client(store).push(name(registry), single, merge=True)
        assert listed(registry) == {"linux/amd64": amd.digest, "linux/arm64": arm.digest}


def test_what_the_cache_lacks_is_left_out(tmp_path: Path, store: Store) -> None:
    with Registry() as registry:
        client(store).push(name(registry), top(store))
        half, said = Store(tmp_path / "half"), list[str]()
        client(half).pull_all(name(registry), [AMD64])
        found = top(half, f"{registry.host}/test/app:1")
        client(half).push(name(registry, "new/app:1"), found, merge=True, say=said.append)
        assert list(listed(registry, "new/app:1")) == ["linux/amd64"]
        assert said == ["left out, not in the cache: linux/arm64"]
        again = client(half).push(name(registry, "test/app:1"), found, merge=True, say=said.append)
        assert again.digest == found.digest  # the registry has the other one
        with pytest.raises(ImageError):
            client(half).push(name(registry, "new/app:2"), found)
        assert "new/app:2" not in registry.manifests
        empty = Store(tmp_path / "empty")
        empty.put_blob(half.blob_path(found.digest).read_bytes(), OCI_INDEX)
        with pytest.raises(ImageError, match="none of its platforms"):
            client(empty).push(name(registry, "fresh/app:3"), found, merge=True)


def test_chosen_platforms_and_names_for_each(store: Store) -> None:
    with Registry() as registry:
        client(store).push(name(registry), top(store), platforms=[ARM64], merge=True, arch_tags=True)
        assert list(listed(registry)) == ["linux/arm64"]
        assert registry.manifests["test/app:1-arm64"][0] == OCI_MANIFEST
        assert "test/app:1-amd64" not in registry.manifests
        with pytest.raises(ImageError, match="no variant for linux/riscv64"):
            client(store).push(name(registry), top(store), platforms=[RISCV])


def test_a_name_for_a_platform_that_only_the_registry_has(tmp_path: Path, store: Store) -> None:
    with Registry() as registry:
        client(store).push(name(registry), top(store))
        half = Store(tmp_path / "half")
        client(half).pull_all(name(registry), [AMD64])
        client(half).push(name(registry), top(half, f"{registry.host}/test/app:1"), merge=True, arch_tags=True)
        assert {"test/app:1-amd64", "test/app:1-arm64"} <= set(registry.manifests)


def test_without_a_tag_it_is_the_latest(store: Store) -> None:
    with Registry() as registry:
        client(store).push(name(registry, "test/app"), top(store), arch_tags=True)
        assert {"test/app:latest", "test/app:latest-amd64"} <= set(registry.manifests)


def item(letter: str, platform: str = "", of: str = "") -> dict:
    found = {"mediaType": OCI_MANIFEST, "digest": digest(letter.encode()), "size": 1}
    if platform:
        found["platform"] = doc.platform_document(Platform(*platform.split("/")))
    if of:
        found["annotations"] = {publish.ATTESTED: digest(of.encode())}
    return found


def test_attestations_stay_with_what_they_speak_of() -> None:
    ours = [item("a", "linux/amd64"), item("b", "unknown/unknown", of="a"), item("c", "unknown/unknown", of="gone")]
    theirs = [item("d", "linux/amd64"), item("e", "unknown/unknown", of="d"), item("f", "linux/arm64"),
              item("g", "unknown/unknown", of="f")]  # fmt: skip
    assert publish.combine(ours, theirs) == [ours[0], ours[1], theirs[2], theirs[3]]


def test_names_for_variants() -> None:
    items = [item("a", "linux/arm/v6"), item("b", "linux/arm/v7"), item("c", "linux/arm64/v8"), item("d"),
             item("e", "unknown/unknown", of="a")]  # fmt: skip
    assert list(publish.arch_tags(items, "1")) == ["1-arm-v6", "1-arm-v7", "1-arm64"]


def test_a_list_of_docker_stays_one() -> None:
    docker = {**item("a", "linux/amd64"), "mediaType": "application/vnd.docker.distribution.manifest.v2+json"}
    data = doc.encode({"schemaVersion": 2, "mediaType": DOCKER_INDEX, "manifests": [docker, item("b", "linux/arm64")]})
    like = publish.listing(Descriptor(DOCKER_INDEX, digest(data), len(data)), data)
    assert publish.index_of(like.items, like) == (DOCKER_INDEX, data)
    assert publish.index_of([docker], like)[0] == DOCKER_INDEX
    assert publish.index_of([item("b", "linux/arm64")], like)[0] == OCI_INDEX


# -- misbehaviour


def test_a_damaged_blob_never_arrives(store: Store) -> None:
    layer = store.image(top(store), "x", AMD64).layers[0]
    path = store.blob_path(layer.digest)
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
    with Registry() as registry:
        with pytest.raises(ImageError, match="damaged"):
            client(store).push(name(registry), top(store))
        assert layer.digest not in registry.blobs
        assert "test/app:1" not in registry.manifests


def test_a_missing_blob_is_named(store: Store) -> None:
    layer = store.image(top(store), "x", AMD64).layers[0]
    store.blob_path(layer.digest).unlink()
    with Registry() as registry:
        with pytest.raises(ImageError, match=layer.digest[7:]):
            client(store).push(name(registry), top(store))
        assert registry.manifests == {}


@pytest.mark.parametrize("kind", ["POST blobs", "PUT blobs", "PUT manifests"])
@pytest.mark.parametrize("fault", [faults.answers(503), faults.answers(429, Retry_After="1")])
def test_what_is_temporary_is_tried_again(tmp_path: Path, store: Store, kind: str, fault: faults.Fault) -> None:
    with Registry() as registry:
        registry.faults[kind] = faults.once(fault)
        client(store).push(name(registry), top(store))
        assert pulled(registry, tmp_path).config.cmd == ("/bin/app",)


def hangs_up(handler: Handler, body: bytes) -> bool:
    handler.close_connection = True
    return True


def test_a_connection_that_breaks_begins_a_new_upload(tmp_path: Path, store: Store) -> None:
    with Registry() as registry:
        registry.faults["PUT blobs"] = faults.once(hangs_up)
        client(store).push(name(registry), top(store))
        assert pulled(registry, tmp_path).config.cmd == ("/bin/app",)
        registry.faults["PUT blobs"] = registry.faults["PATCH blobs"] = hangs_up
        make_image(store, "test/new:1", tar_of(member("new")))
        with pytest.raises(NetworkError):
            client(store).push(name(registry, "test/new:1"), top(store, "test/new:1"))
        assert "test/new:1" not in registry.manifests


def test_a_refusal_of_the_size_that_gets_lost(tmp_path: Path, store: Store) -> None:
    """A proxy that hangs up instead of reading what is too large for it: the last attempt is in pieces."""
    with Registry() as registry:
        registry.faults["PUT blobs"] = lambda handler, body: bool(body) and hangs_up(handler, body)
        client(store).push(name(registry), top(store))
        assert pulled(registry, tmp_path).config.cmd == ("/bin/app",)


@pytest.mark.parametrize(("kind", "status", "words"), [
    ("POST blobs", 401, "wants a login"), ("POST blobs", 403, "push to it"), ("POST blobs", 404, "no such repository"),
    ("PUT blobs", 400, "answers 400 to PUT: because I can"), ("PUT manifests", 403, "push to it"),
    ("PUT manifests", 413, "answers 413"), ("POST blobs", 500, "is in trouble"), ("PUT blobs", 429, "rate"),
])  # fmt: skip
def test_each_refusal_has_its_message(store: Store, kind: str, status: int, words: str) -> None:
    with Registry() as registry:
        registry.faults[kind] = faults.answers(status, WWW_Authenticate='Digest realm="x"') if status != 401 else \
            faults.answers(401, WWW_Authenticate='Basic realm="x"')  # fmt: skip
        with pytest.raises(NetworkError, match=words) as caught:
            client(store).push(name(registry), top(store))
        assert registry.host in caught.value.message
        assert "test/app:1" not in registry.manifests


def test_a_registry_that_does_not_say_where(store: Store) -> None:
    with Registry() as registry:
        registry.faults["POST blobs"] = lambda handler, body: handler.answer(202, b"") or True
        with pytest.raises(NetworkError, match="where to upload"):
            client(store).push(name(registry), top(store))


def test_an_upload_elsewhere_goes_without_the_login(store: Store) -> None:
    """The place of an upload may be on another host (a bucket); our login stays here."""
    with Registry() as other, Registry(login=("user", "word")) as registry:
        place = f"{other.url}/v2/test/app/blobs/uploads/5?x=y"
        registry.faults["POST blobs"] = lambda handler, body: handler.answer(202, b"", Location=place) or True
        with pytest.raises(NetworkError):
            client(store, keychain=Login("user", "word")).push(name(registry), top(store))
        assert other.requests("blobs/uploads", "PUT")
        assert all("authorization" not in s.headers for s in other.seen)


def test_a_manifest_kept_under_another_digest(store: Store) -> None:
    def lies(handler: Handler, body: bytes) -> bool:
        handler.answer(201, b"", Docker_Content_Digest=digest(b"other"))
        return True

    with Registry() as registry:
        registry.faults["PUT manifests"] = lies
        with pytest.raises(ImageError, match="kept a manifest with the digest"):
            client(store).push(name(registry), top(store))


def test_a_mirror_is_not_pushed_to(store: Store) -> None:
    with Registry() as mirror, Registry() as registry:
        made = client(store, mirrors={"*": mirror.url})
        with pytest.raises(ImageError):
            made.pull(name(registry), AMD64)
        assert mirror.seen
        count = len(mirror.seen)
        made.push(name(registry), top(store))
        made.push(name(registry), top(store), merge=True)
        assert made.compare(name(registry), top(store)) == "same"
        assert len(mirror.seen) == count
        assert "test/app:1" in registry.manifests


def test_a_layer_without_compression_and_one_of_zstd(tmp_path: Path, store: Store) -> None:
    import shutil
    import subprocess

    assert shutil.which("zstd")
    packed = subprocess.run(["zstd", "-q"], input=BASE, capture_output=True, check=True).stdout
    layers = [put(store, BASE, "application/vnd.oci.image.layer.v1.tar"),
              put(store, packed, "application/vnd.oci.image.layer.v1.tar+zstd")]  # fmt: skip
    store.put_image("test/mixed:1", AMD64, {"rootfs": {"diff_ids": [digest(BASE)] * 2}}, layers)
    with Registry() as registry:
        client(store).push(name(registry, "test/mixed:1"), top(store, "test/mixed:1"))
        assert [d.media_type for d in pulled(registry, tmp_path, rest="test/mixed:1").layers] == [
            d.media_type for d in layers]  # fmt: skip
