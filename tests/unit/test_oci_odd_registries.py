"""Registries as they are: what the specification does not say, and some of them do."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from linuxkit.errors import ImageError, LinuxkitError, NetworkError
from linuxkit.oci import document as doc
from linuxkit.oci.auth import Credentials
from linuxkit.oci.media import OCI_INDEX, OCI_MANIFEST, Descriptor, Platform
from linuxkit.oci.meeting import Meeting
from linuxkit.oci.reference import Reference, parse_reference
from linuxkit.oci.registry import RegistryClient, next_page
from linuxkit.oci.resolve import Resolver
from linuxkit.oci.store import Store
from linuxkit.oci.transport import Transport
from support import registry as faults
from support.client import TARS, fill, nothing_kept, transport
from support.images import AMD64, ARM64, digest, make_image
from support.registry import Handler, Registry

pytestmark = pytest.mark.unit


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


def name(registry: Registry, rest: str = "test/app:1") -> Reference:
    return parse_reference(f"{registry.host}/{rest}")


def client(store: Store, **options: object) -> RegistryClient:
    return RegistryClient(store, transport(), **options)  # type: ignore[arg-type]


def put(registry: Registry, size: int = 3 << 20) -> tuple[Descriptor, bytes]:
    data = os.urandom(size)
    return Descriptor("application/vnd.oci.image.layer.v1.tar+gzip", registry.add_blob(data), size), data


# -- pulling


@pytest.mark.parametrize("status", [400, 416, 501])
def test_a_registry_that_gives_no_parts_after_a_pull_was_killed(store: Store, status: int) -> None:
    with Registry() as registry:
        blob, data = put(registry)
        store.prepare()
        left = store.root / "derived" / "partial" / blob.digest[7:]
        left.parent.mkdir(parents=True)
        left.write_bytes(data[: 2 << 20])
        registry.faults["blobs"] = faults.no_parts(status)
        client(store).fetch(name(registry), blob)
        assert store.blob_path(blob.digest).read_bytes() == data
        assert [s.headers.get("range") for s in registry.requests("blobs")] == [f"bytes={2 << 20}-", None]
        left.write_bytes(bytes(2 << 20))  # what was left is wrong, too
        store.blob_path(blob.digest).unlink()
        client(store).fetch(name(registry), blob)
        assert store.blob_path(blob.digest).read_bytes() == data


def test_a_body_without_a_length_that_is_cut_once(tmp_path: Path, store: Store) -> None:
    with Registry() as registry:
        blob, data = put(registry)
        registry.faults["blobs"] = faults.unframed(1 << 20)
        client(store).fetch(name(registry), blob)
        assert store.blob_path(blob.digest).read_bytes() == data
        assert registry.requests("blobs")[-1].headers["range"].startswith("bytes=")
        fill(registry, tmp_path)
        registry.faults = {"manifests": faults.unframed(100), "blobs": faults.unframed(9)}
        assert client(store).pull(name(registry), AMD64).platform == AMD64


def test_a_length_that_is_wrong_is_the_registrys_error(store: Store) -> None:
    with Registry() as registry:
        blob, _ = put(registry)
        registry.faults["blobs"] = faults.honest_but_short
        with pytest.raises(ImageError, match="sent something else"):
            client(store).fetch(name(registry), blob)


@pytest.mark.parametrize("length", [True, False])
def test_a_content_coding_that_nobody_asked_for(tmp_path: Path, store: Store, length: bool) -> None:
    with Registry() as registry:
        want = fill(registry, tmp_path)
        registry.faults = {"manifests": faults.packed(length=length), "blobs": faults.packed(length=length)}
        assert client(store).pull(name(registry), AMD64).digest == want.digest
        assert all(store.has_blob(layer) for layer in want.layers)
        registry.faults["blobs"] = faults.packed(length=length, itself=True)  # an object store's way to mark them
        for layer in want.layers:
            store.blob_path(layer.digest).unlink()
            client(store).fetch(name(registry), layer)
            store.verify(layer)


# -- pages


@pytest.mark.parametrize(("header", "target"), [
    ('</v2/a/referrers/x?n=1>; rel="next"', "https://r.example/v2/a/referrers/x?n=1"),
    ('<https://r.example/v2/p?n=1>; rel="next"', "https://r.example/v2/p?n=1"),
    ('<https://R.EXAMPLE:443/v2/p?n=1>; rel="next"', "https://R.EXAMPLE:443/v2/p?n=1"),
    ('<http://r.example/v2/p?n=1>; rel="next"', "http://r.example/v2/p?n=1"),  # the session makes it https
    ('<?last=1>; rel="next"', "https://r.example/v2/a/referrers/sha256:0?last=1"),
    ('<y?last=1>;rel=next', "https://r.example/v2/a/referrers/y?last=1"),
    ('</prev>; rel="prev", </next,with;odd=1>; rel="next"', "https://r.example/next,with;odd=1"),
    ('</first>; rel=first; title="a, <b>; rel=next", </next>; REL="Last NEXT"', "https://r.example/next"),
    ('</a>; rel="prev"; rel="next"', ""), ('</prev>; rel="prev"', ""), ("", ""), ("</next>", ""), ("nonsense", ""),
    ('<https://elsewhere.example/x>; rel="next"', ""), ('<http://[>; rel="next"', ""), ('<//o.example/>; rel=next', ""),
])  # fmt: skip
def test_the_next_page(header: str, target: str) -> None:
    assert next_page(header, "https://r.example/v2/a/referrers/sha256:0?artifactType=x") == target


@pytest.mark.parametrize("link", ["<{url}{path}?last=1>; rel=next", '<?last=1>; rel="next"',
                                  '<{path}>; rel="prev", <{path}?last=1>; rel="next"'])  # fmt: skip
def test_later_pages_are_not_dropped(store: Store, link: str) -> None:
    def page(letter: bytes) -> bytes:
        item = doc.descriptor_document(Descriptor(OCI_MANIFEST, digest(letter), 1))
        return doc.encode({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [item]})

    with Registry() as registry:
        def pages(handler: Handler, body: bytes) -> bool:
            path, _, query = handler.path.partition("?")
            more = {} if query else {"Link": link.format(url=registry.url, path=path)}
            handler.answer(200, page(b"b" if query else b"a"), OCI_INDEX, **more)
            return True

        registry.faults["referrers"] = pages
        found = client(store).referrers(name(registry), digest(b"y"))
        assert [d.digest for d in found] == [digest(b"a"), digest(b"b")]


# -- logins


@pytest.mark.parametrize("status", [404, 405])
def test_a_token_server_that_exchanges_no_identity_tokens(tmp_path: Path, store: Store, status: int) -> None:
    class Both:
        def __init__(self, user: str) -> None:
            self.user = user

        def find(self, registry: str) -> Credentials:
            return Credentials(self.user, "word", "config.json", identity_token="long-lived")

    with Registry(login=("user", "word"), token="t", identity="long-lived") as registry:
        fill(registry, tmp_path)
        registry.faults["POST token"] = faults.answers(status)
        client(store, keychain=Both("user")).pull(name(registry), AMD64)
        assert [s.method for s in registry.requests("token")] == ["POST", "GET"]
        with pytest.raises(NetworkError, match=f"answers {status}") as caught:  # there is nothing to fall back to
            client(store, keychain=Both("")).pull(name(registry), ARM64)
        assert "long-lived" not in str(caught.value) + caught.value.hint


# -- pushing


def packed_up(store: Store) -> Descriptor:
    make_image(store, "test/app:1", *TARS, platform=AMD64)
    found = store.find("test/app:1")
    assert found is not None
    return found


def test_a_digest_of_another_algorithm(store: Store) -> None:
    with Registry() as registry:
        def other(handler: Handler, body: bytes) -> bool:
            kind = handler.headers["Content-Type"]
            registry.add_manifest("test/app", body, kind, handler.path.rpartition("/")[2])
            handler.answer(201, b"", Docker_Content_Digest="sha512:" + "0" * 128)
            return True

        registry.faults["PUT manifests"] = other
        client(store).push(name(registry), packed_up(store))
        assert "test/app:1" in registry.manifests


@pytest.mark.parametrize(("status", "asked", "slept"), [(429, "7", 7.0), (503, "2", 2.0), (429, "0", 0.5)])
def test_a_put_waits_as_long_as_it_is_asked_to(store: Store, status: int, asked: str, slept: float) -> None:
    pauses: list[float] = []
    with Registry() as registry:
        registry.faults["PUT blobs"] = faults.once(faults.answers(status, Retry_After=asked))
        RegistryClient(store, Transport(sleep=pauses.append)).push(name(registry), packed_up(store))
        assert pauses == [slept]
        registry.faults["PUT blobs"] = faults.answers(status, Retry_After="3600")
        with pytest.raises(NetworkError):
            RegistryClient(store, Transport(sleep=pauses.append)).push(name(registry, "test/b:1"), packed_up(store))
        assert 3600.0 not in pauses


@pytest.mark.parametrize("kind", ["PUT blobs", "PATCH blobs"])
def test_an_upload_that_is_lost_is_begun_anew(store: Store, kind: str) -> None:
    with Registry() as registry:
        too_large = faults.answers(413)
        registry.faults["PUT blobs"] = lambda h, b: kind == "PATCH blobs" and bool(b) and too_large(h, b)
        registry.faults[kind] = faults.once(faults.answers(404))
        found = packed_up(store)
        client(store).push(name(registry), found)
        assert "test/app:1" in registry.manifests
        registry.faults[kind] = faults.answers(404)
        with pytest.raises(NetworkError, match="loses uploads"):
            client(store).push(name(registry, "test/b:1"), found)


@pytest.mark.parametrize("status", [405, 501])
def test_a_registry_without_head(store: Store, status: int) -> None:
    with Registry() as registry:
        registry.faults = {"blobs": faults.no_head(status), "manifests": faults.no_head(status)}
        found = packed_up(store)
        client(store).push(name(registry), found)
        sent = len(registry.requests("blobs", "PUT"))
        client(store).push(name(registry), found)
        assert len(registry.requests("blobs", "PUT")) == sent  # seen by GET


# -- two at once


@pytest.mark.parametrize("arch_tags", [True, False])
def test_two_pushes_of_two_architectures_at_once(tmp_path: Path, arch_tags: bool) -> None:
    with Registry() as registry:
        for n in range(8):
            failures: list[LinuxkitError] = []
            gate = threading.Barrier(2)

            def push(platform: Platform, n: int = n, gate: threading.Barrier = gate,
                     failures: list[LinuxkitError] = failures) -> None:  # fmt: skip
                store = Store(tmp_path / f"{n}-{platform.architecture}")
                make_image(store, "test/app:1", *TARS, platform=platform)
                top = store.find("test/app:1")
                assert top is not None
                gate.wait()
                try:
                    RegistryClient(store, Transport()).push(name(registry, f"test/app:{n}"), top, merge=True,
                                                            arch_tags=arch_tags)
                except LinuxkitError as e:
                    failures.append(e)

            threads = [threading.Thread(target=push, args=(p,)) for p in (AMD64, ARM64)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert failures == []
            index = doc.decode(registry.manifests[f"test/app:{n}"][1], "")
            assert sorted(i["platform"]["architecture"] for i in index["manifests"]) == ["amd64", "arm64"]


def replaced(registry: Registry, store: Store, times: int) -> faults.Fault:
    """Another push puts its own index each time right after ours."""
    make_image(store, "test/app:1", *TARS, platform=ARM64)
    client(store).push(name(registry, "test/app:other"), store.find("test/app:1"))  # type: ignore[arg-type]
    theirs, left = registry.manifests["test/app:other"], [None] * times

    def fault(handler: Handler, body: bytes) -> bool:
        if not handler.path.endswith("/1") or not left:
            return False
        left.pop()
        handler._put_manifest("test/app", "1", body)
        registry.manifests["test/app:1"] = theirs
        return True

    return fault


def test_an_index_that_is_replaced_is_merged_again(tmp_path: Path, store: Store,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    with Registry() as registry:
        registry.faults["PUT manifests"] = replaced(registry, Store(tmp_path / "b"), 2)
        found = packed_up(store)
        client(store).push(name(registry), found, merge=True)
        index = doc.decode(registry.manifests["test/app:1"][1], "")
        assert sorted(i["platform"]["architecture"] for i in index["manifests"]) == ["amd64", "arm64"]
        registry.faults["PUT manifests"] = replaced(registry, Store(tmp_path / "b"), 99)
        with pytest.raises(NetworkError, match="again and again"):
            client(store).push(name(registry), found, merge=True)
        # without looking back, ours is lost, and nobody says so
        monkeypatch.setattr(Meeting, "merged", lambda self, put: put(self._items))
        client(store).push(name(registry), found, merge=True)
        assert registry.manifests["test/app:1"][1] != registry.manifests[f"test/app@{found.digest}"][1]


# -- messages


def test_the_image_is_named_once_and_no_cache_is_to_be_repaired(tmp_path: Path, store: Store) -> None:
    with Registry() as registry:
        fill(registry, tmp_path)
        text = f"{registry.host}/test/app:1"
        for kind, fault in (("blobs", faults.changed_byte), ("blobs", faults.honest_but_short),
                            ("manifests", faults.changed_byte), ("blobs", faults.answers(403)),
                            ("manifests", faults.answers(500)), ("manifests", faults.answers(429))):  # fmt: skip
            registry.faults = {kind: fault}
            with pytest.raises(LinuxkitError) as caught:
                Resolver(store, registry=client(store)).resolve(text, AMD64)
            said = f"{caught.value.message} {caught.value.hint}"
            assert caught.value.message.count(text) == 1, said
            assert "repair" not in said
            assert nothing_kept(store)
