"""Pulling: several platforms, broken connections, what is attached, and what each refusal says."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import time
from pathlib import Path

import pytest

from linuxkit.errors import ImageError, NetworkError
from linuxkit.oci import document as doc
from linuxkit.oci.auth import Credentials
from linuxkit.oci.media import OCI_CONFIG, OCI_INDEX, OCI_MANIFEST, Descriptor, Image, Platform
from linuxkit.oci.reference import Reference, parse_reference
from linuxkit.oci.registry import RegistryClient, parse_mirrors
from linuxkit.oci.session import _place
from linuxkit.oci.store import Store
from linuxkit.oci.transport import Transport, origin
from support import registry as faults
from support.client import Login, fill, nothing_kept, transport
from support.images import AMD64, ARM64, digest, make_image, member, tar_of
from support.registry import Handler, Registry

pytestmark = pytest.mark.unit


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


class Keys:
    """A credential helper's identity token."""

    def find(self, registry: str) -> Credentials:
        return Credentials("", "", "helper", identity_token="long-lived")


def name(registry: Registry, rest: str = "test/app:1") -> Reference:
    return parse_reference(f"{registry.host}/{rest}")


def client(store: Store, **options: object) -> RegistryClient:
    return RegistryClient(store, transport(), **options)  # type: ignore[arg-type]


def big(registry: Registry, tmp_path: Path, size: int = 5 << 20) -> Image:
    """An image with one layer that does not fit into the buffers of a connection."""
    source = Store(tmp_path / "big")
    image = make_image(source, "test/big:1", tar_of(member("noise", os.urandom(size))))
    for path in source.blob_path(image.digest).parent.iterdir():
        registry.add_blob(path.read_bytes())
    registry.add_manifest("test/big", source.blob_path(image.digest).read_bytes(), OCI_MANIFEST, "1")
    return image


# -- several platforms


def test_only_the_wanted_platforms_come(tmp_path: Path, store: Store) -> None:
    with Registry() as registry:
        image = fill(registry, tmp_path)
        top = client(store).pull_all(name(registry), [AMD64])
        assert image.index is not None
        assert top.digest == image.index.digest
        assert store.image(top, "x", AMD64).config.cmd == ("amd64",)
        with pytest.raises(ImageError):
            store.image(top, "x", ARM64)
        client(store).pull_all(name(registry))
        assert store.image(top, "x", ARM64).config.cmd == ("arm64",)
        with pytest.raises(ImageError, match="no variant for linux/s390x"):
            client(store).pull_all(name(registry), [AMD64, Platform("linux", "s390x")])


def test_all_platforms_of_one_manifest(tmp_path: Path, store: Store) -> None:
    with Registry() as registry:
        image = fill(registry, tmp_path)
        top = client(store).pull_all(name(registry, f"test/app@{image.digest}"))
        assert (top.digest, top.media_type) == (image.digest, OCI_MANIFEST)
        assert store.image(top, "x", AMD64).layers == image.layers


def test_an_index_in_itself(tmp_path: Path, store: Store) -> None:
    """Indexes nested without end: each names the next one."""
    with Registry() as registry:
        inner = Descriptor(OCI_MANIFEST, digest(b"x"), 1)
        for _ in range(9):
            data = doc.encode({"schemaVersion": 2, "mediaType": OCI_INDEX,
                               "manifests": [doc.descriptor_document(inner)]})  # fmt: skip
            inner = Descriptor(OCI_INDEX, registry.add_manifest("test/app", data, OCI_INDEX, "1"), len(data))
        with pytest.raises(ImageError, match="nested"):
            client(store).pull_all(name(registry))
        assert nothing_kept(store)


@pytest.mark.parametrize("what", ["manifest", "config"])
def test_a_document_with_other_words_of_the_same_length(tmp_path: Path, store: Store, what: str) -> None:
    """Valid JSON, the right size; only the digest tells."""
    with Registry() as registry:
        image = fill(registry, tmp_path)
        manifest = registry.manifests[f"test/app@{image.digest}"][1]
        config = doc.parse_manifest(json.loads(manifest), "x")[0]
        target = image.digest if what == "manifest" else config.digest

        def forge(handler: Handler, body: bytes) -> bool:
            if not handler.path.endswith(target):
                return False
            old, new = (b'"Cmd":["amd64"]', b'"Cmd":["evil!"]') if what == "config" else \
                (image.layers[0].digest.encode(), image.layers[1].digest.encode())  # fmt: skip
            assert old in body
            handler.answer(200, body.replace(old, new), OCI_MANIFEST)
            return True

        registry.faults["manifests"] = registry.faults["blobs"] = forge
        for pull in (lambda made: made.pull(name(registry), AMD64), lambda made: made.pull_all(name(registry))):
            with pytest.raises(ImageError, match="damaged"):
                pull(client(store))
            assert nothing_kept(store)


# -- broken connections


def test_a_blob_is_taken_up_where_it_broke(tmp_path: Path, store: Store) -> None:
    with Registry() as registry:
        image = big(registry, tmp_path)
        registry.faults["blobs"] = faults.drops_after(2 << 20)
        client(store).pull(name(registry, "test/big:1"), AMD64)
        store.verify(image.layers[0])
        asked = [s.headers.get("range", "") for s in registry.requests(f"blobs/{image.layers[0].digest}")]
        assert asked == ["", f"bytes={2 << 20}-", f"bytes={4 << 20}-"]


def test_a_registry_that_gives_no_parts(tmp_path: Path, store: Store) -> None:
    with Registry(ranges=False) as registry:
        layer = big(registry, tmp_path).layers[0]
        registry.faults["blobs"] = faults.once(faults.drops_after(2 << 20))
        client(store).fetch(name(registry, "test/big:1"), layer)
        store.verify(layer)
        assert [s.headers.get("range") for s in registry.seen] == [None, f"bytes={2 << 20}-"]


def test_another_part_than_the_one_asked_for(tmp_path: Path, store: Store) -> None:
    def lies(handler: Handler, body: bytes) -> bool:
        if "Range" not in handler.headers:
            return faults.drops_after(1 << 20)(handler, body)
        handler.answer(206, body[5:], Content_Range=f"bytes 5-{len(body) - 1}/{len(body)}")
        return True

    with Registry() as registry:
        image = big(registry, tmp_path)
        registry.faults["blobs"] = lies
        with pytest.raises(ImageError, match="another part"):
            client(store).fetch(name(registry, "test/big:1"), image.layers[0])
        assert nothing_kept(store)


def test_the_second_half_of_another_blob(tmp_path: Path, store: Store) -> None:
    """What comes after a break is hashed together with what came before it."""
    def swaps(handler: Handler, body: bytes) -> bool:
        if "Range" in handler.headers:
            start = int(handler.headers["Range"][6:-1])
            handler.answer(206, bytes(len(body) - start), Content_Range=f"bytes {start}-{len(body) - 1}/{len(body)}")
            return True
        return faults.drops_after(1 << 20)(handler, body)

    with Registry() as registry:
        image = big(registry, tmp_path)
        registry.faults["blobs"] = swaps
        with pytest.raises(ImageError, match="damaged"):
            client(store).fetch(name(registry, "test/big:1"), image.layers[0])
        assert nothing_kept(store)


def test_a_connection_that_breaks_without_end(tmp_path: Path, store: Store) -> None:
    with Registry() as registry:
        image = big(registry, tmp_path)
        registry.faults["blobs"] = faults.drops_after(1000)
        with pytest.raises(NetworkError):
            client(store).fetch(name(registry, "test/big:1"), image.layers[0])
        assert len(registry.requests("blobs")) == 4
        assert nothing_kept(store)


def test_an_endless_answer_to_a_taken_up_blob(tmp_path: Path, store: Store) -> None:
    def endless(handler: Handler, body: bytes) -> bool:
        if "Range" not in handler.headers:
            return faults.drops_after(1 << 20)(handler, body)
        return faults.endless_body(handler, body)

    with Registry() as registry:
        image = big(registry, tmp_path)
        registry.faults["blobs"] = endless
        with pytest.raises(ImageError, match="larger than"):
            client(store).fetch(name(registry, "test/big:1"), image.layers[0])
        assert nothing_kept(store)


def test_a_body_that_trickles(tmp_path: Path, store: Store) -> None:
    """Each byte comes in time, the blob never."""
    def trickle(handler: Handler, body: bytes) -> bool:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        for n in range(100):
            handler.wfile.write(body[n : n + 1])
            time.sleep(0.05)
        handler.close_connection = True
        return True

    with Registry() as registry:
        layer = big(registry, tmp_path).layers[0]
        registry.faults["blobs"] = trickle
        made = RegistryClient(store, Transport(sleep=lambda s: None, read_timeout=0.2))
        started = time.monotonic()
        with pytest.raises(NetworkError, match="bytes in the last"):
            made.fetch(name(registry, "test/big:1"), layer)
        assert time.monotonic() - started < 4
        assert nothing_kept(store)


# -- single things


def test_find_and_read(tmp_path: Path, store: Store) -> None:
    with Registry() as registry:
        image = fill(registry, tmp_path)
        got = client(store)
        found = got.find(name(registry))
        assert found is not None
        assert image.index is not None
        assert found[0].digest == image.index.digest == digest(found[1])
        assert got.find(name(registry, "test/app:2")) is None
        assert got.find(name(registry, f"test/app@{digest(b'x')}")) is None
        config = doc.parse_manifest(json.loads(registry.manifests[f"test/app@{image.digest}"][1]), "x")[0]
        assert json.loads(got.read(name(registry), config, 1 << 20))["architecture"] == "amd64"
        with pytest.raises(ImageError, match="more than 10"):
            got.read(name(registry), config, 10)
        assert store.names() == []
        assert not store.has_blob(config)
        got.fetch(name(registry), image.layers[0])
        store.verify(image.layers[0])


@pytest.mark.parametrize("api", [True, False])
def test_what_is_attached(store: Store, api: bool) -> None:
    with Registry(referrers=api) as registry:
        got, ref = client(store), name(registry, "test/app:1")
        empty = got.push_bytes(ref, b"{}", "application/vnd.oci.empty.v1+json")
        config = doc.descriptor_document(Descriptor(OCI_CONFIG, empty.digest, 2))
        base = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": []}
        subject = got.push_manifest(ref, OCI_MANIFEST, doc.encode(base))
        assert got.referrers(ref, subject.digest) == ()
        pushed = []
        for kind in ("application/x.signature", "application/x.sbom"):
            document = base | {"subject": doc.descriptor_document(subject), "artifactType": kind}
            by_digest = parse_reference(f"{ref.name}@{digest(doc.encode(document))}")
            pushed += [got.push_manifest(by_digest, OCI_MANIFEST, doc.encode(document)) for _ in range(2)]
        found = got.referrers(ref, subject.digest)
        assert {d.digest for d in found} == {d.digest for d in pushed}
        assert len(found) == 2
        only = got.referrers(ref, subject.digest, "application/x.sbom")
        assert [(d.digest, d.artifact_type) for d in only] == [(pushed[-1].digest, "application/x.sbom")]
        tag = f"test/app:{subject.digest.replace(':', '-')}"
        assert (tag in registry.manifests) is not api


def test_referrers_come_in_pages(store: Store) -> None:
    item = doc.descriptor_document(Descriptor(OCI_MANIFEST, digest(b"x"), 1))
    page = doc.encode({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [item]})

    def pages(handler: Handler, body: bytes) -> bool:
        link = f'<{handler.path.partition("?")[0]}?n=1>; rel="next"'
        handler.answer(200, page, OCI_INDEX, **({} if "n=1" in handler.path else {"Link": link}))
        return True

    with Registry() as registry:
        registry.faults["referrers"] = pages
        assert len(client(store).referrers(name(registry), digest(b"y"))) == 2
        registry.faults["referrers"] = lambda h, b: h.answer(
            200, page, OCI_INDEX, Link=f'<{h.path}>; rel="next"') or True  # fmt: skip
        with pytest.raises(ImageError, match="pages"):
            client(store).referrers(name(registry), digest(b"y"))
        registry.faults["referrers"] = lambda h, b: h.answer(
            200, page, OCI_INDEX, Link='<https://elsewhere.example/x>; rel="next"') or True  # fmt: skip
        assert len(client(store).referrers(name(registry), digest(b"y"))) == 1


# -- refusals


@pytest.mark.parametrize(("status", "words", "hint"), [
    (401, "wants a login", "docker login"), (403, "does not let anybody without a login read it", "other rights"),
    (404, "does not have it", "check the name"), (429, "limits the rate of requests", "--mirror"),
    (500, "is in trouble, it answers 500: because I can", "--offline"), (503, "answers 503", "--mirror"),
    (418, "answers 418 to GET: because I can", ""),
])  # fmt: skip
def test_each_refusal_has_its_message(store: Store, status: int, words: str, hint: str) -> None:
    with Registry() as registry:
        if status == 401:  # the token that it gives is not the one that it wants
            registry.token, registry.faults["token"] = "t", lambda h, b: h.answer(200, b'{"token": "x"}') or True
        else:
            registry.faults["manifests"] = faults.answers(status)
        with pytest.raises((ImageError, NetworkError), match=words) as caught:
            client(store).pull(name(registry), AMD64)
        assert registry.host in caught.value.message
        assert hint in caught.value.hint


def test_a_login_without_the_right(tmp_path: Path, store: Store) -> None:
    with Registry(login=("user", "word")) as registry:
        registry.faults["manifests"] = faults.answers(403)
        keys = Login("user", "word")
        with pytest.raises(NetworkError, match=r"does not let the login from ~/config\.json read it"):
            client(store, keychain=keys).pull(name(registry), AMD64)


def test_a_token_that_expires_is_renewed_once(tmp_path: Path, store: Store) -> None:
    with Registry(token="one") as registry:
        fill(registry, tmp_path)
        got = client(store)
        got.pull(name(registry), AMD64)
        registry.token = "two"
        got.pull(name(registry), ARM64)
        assert len(registry.requests("token")) == 2
        registry.faults["token"] = lambda h, b: h.answer(200, b'{"token": "never right"}') or True
        registry.token = "three"
        with pytest.raises(NetworkError, match="wants a login"):
            got.find(name(registry))
        assert len(registry.requests("token")) == 3  # no circle


def test_an_identity_token_is_exchanged(tmp_path: Path, store: Store) -> None:
    with Registry(token="short", identity="long-lived") as registry:
        fill(registry, tmp_path)
        client(store, keychain=Keys()).pull(name(registry), AMD64)
        assert [s.method for s in registry.requests("token")] == ["POST"]
        registry.identity = "another"
        with pytest.raises(NetworkError, match="does not accept the login from helper") as caught:
            client(store, keychain=Keys()).pull(name(registry), ARM64)
        assert "long-lived" not in caught.value.message + caught.value.hint


def test_a_token_server_may_not_send_an_identity_token_on(tmp_path: Path, store: Store) -> None:
    with Registry() as thief, Registry(token="t") as registry:
        fill(registry, tmp_path)
        registry.faults["POST token"] = faults.redirects_to(f"{thief.url}/token")
        with pytest.raises(NetworkError, match="answers 307"):
            client(store, keychain=Keys()).pull(name(registry), AMD64)
        assert thief.seen == []


@pytest.mark.parametrize("challenge", ['Basic realm="x"', 'Bearer realm="{url}/token",service="test, service"'])
def test_where_a_redirect_leads_may_not_ask_for_a_login(tmp_path: Path, store: Store, challenge: str) -> None:
    """Its challenge names a token server of its choice; nobody is asked, nothing is sent."""
    with Registry() as other, Registry(login=("user", "word")) as registry:
        fill(registry, tmp_path)
        keys, layer = Login("user", "word"), json.loads(registry.manifests["test/app:1"][1])["manifests"][0]
        registry.login = None
        registry.faults["manifests"] = faults.redirects_to(other.url + "{path}")
        other.faults["manifests"] = faults.answers(401, WWW_Authenticate=challenge.format(url=registry.url))
        with pytest.raises(NetworkError, match="wants a login"):
            client(store, keychain=keys).read(name(registry), doc.parse_descriptor(layer, "x"), 9999)
        assert keys.asked == []
        assert registry.requests("token") == []
        assert all("authorization" not in s.headers for s in other.seen)


# -- https


def certificate(tmp_path: Path) -> ssl.SSLContext:
    """A server's side of https; tmp_path/ca.pem is its authority."""
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-days", "2", "-subj", "/CN=test", "-keyout", tmp_path / "key.pem", "-out", tmp_path / "ca.pem",
                    "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost,DNS:registry.example"],
                   check=True, capture_output=True)  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "ca.pem", tmp_path / "key.pem")
    return context


def test_https_through_a_proxy(tmp_path: Path, store: Store) -> None:
    """The proxy sees where to, not what; the login of the registry and that of the proxy stay apart."""
    with Registry(context=certificate(tmp_path), login=("user", "word")) as registry, Registry() as proxy:
        fill(registry, tmp_path)
        proxy.tunnel = ("127.0.0.1", int(registry.host.rpartition(":")[2]))
        environment = {"HTTPS_PROXY": f"http://me:secret@{proxy.host}"}
        made = RegistryClient(store, Transport(cert_files=[tmp_path / "ca.pem"], environment=environment),
                              keychain=Login("user", "word"))  # fmt: skip
        assert made.pull(parse_reference("registry.example/test/app:1"), AMD64).config.cmd == ("amd64",)
        assert {(s.method, s.path) for s in proxy.seen} == {("CONNECT", "registry.example:443")}
        assert all("authorization" not in s.headers for s in proxy.seen)
        assert all("proxy-authorization" in s.headers for s in proxy.seen)
        assert all("proxy-authorization" not in s.headers for s in registry.seen)
        proxy.tunnel = None
        again = RegistryClient(store, transport(cert_files=[tmp_path / "ca.pem"], environment=environment))
        with pytest.raises(NetworkError, match=r"the proxy for registry\.example cannot be used") as caught:
            again.find(parse_reference("registry.example/test/app:1"))
        assert "secret" not in caught.value.message


def test_https_with_an_authority_of_our_own(tmp_path: Path, store: Store) -> None:
    context = certificate(tmp_path)
    with Registry(login=("user", "word"), token="t", context=context) as registry:
        fill(registry, tmp_path)
        mirrors = parse_mirrors([f"{registry.host}={registry.url}"])
        with pytest.raises(NetworkError, match="no secure connection") as caught:
            client(store, mirrors=mirrors).pull(name(registry), AMD64)
        assert "--cert-file" in caught.value.hint
        trusting = Transport(cert_files=[tmp_path / "ca.pem"], sleep=lambda s: None)
        keys = Login("user", "word")
        got = RegistryClient(store, trusting, mirrors=mirrors, keychain=keys)
        assert got.pull(name(registry), AMD64).config.cmd == ("amd64",)
        with Registry() as plain:
            registry.faults["blobs"] = faults.redirects_to(f"http://{plain.host}" + "{path}")
            with pytest.raises(NetworkError, match="which is not https"):
                got.pull(name(registry), ARM64)
            assert plain.seen == []


# -- what an earlier process has left


def left_over(store: Store, layer: Descriptor, data: bytes) -> Path:
    folder = store.root / "derived" / "partial"
    folder.mkdir(parents=True)
    path = folder / layer.digest[7:]
    path.write_bytes(data)
    return path


def test_what_has_come_is_not_asked_for_again(tmp_path: Path, store: Store) -> None:
    """The first process loses its connection for good; the next one asks for the rest."""
    with Registry() as registry:
        layer = big(registry, tmp_path).layers[0]
        registry.faults["blobs"] = lambda h, b: ("Range" in h.headers and faults.answers(503)(h, b)) \
            or faults.drops_after(3 << 20)(h, b)  # fmt: skip
        with pytest.raises(NetworkError):
            client(store).fetch(name(registry, "test/big:1"), layer)
        path = store.root / "derived" / "partial" / layer.digest[7:]
        assert path.stat().st_size == 3 << 20
        assert not store.has_blob(layer)
        registry.faults.clear()
        registry.seen.clear()
        client(store).fetch(name(registry, "test/big:1"), layer)
        assert [s.headers.get("range") for s in registry.seen] == [f"bytes={3 << 20}-"]
        store.verify(layer)
        assert not path.exists()


@pytest.mark.parametrize("left", [b"", b"\0" * (2 << 20), b"x" * (9 << 20)])
def test_what_was_left_is_not_trusted(tmp_path: Path, store: Store, left: bytes) -> None:
    """Wrong bytes or too many: the blob comes whole once more."""
    with Registry() as registry:
        layer = big(registry, tmp_path).layers[0]
        path = left_over(store, layer, left)
        client(store).fetch(name(registry, "test/big:1"), layer)
        store.verify(layer)
        assert not path.exists()


def test_a_whole_blob_was_left(tmp_path: Path, store: Store) -> None:
    with Registry() as registry:
        layer = big(registry, tmp_path).layers[0]
        left_over(store, layer, registry.blobs[layer.digest])
        client(store).fetch(name(registry, "test/big:1"), layer)
        store.verify(layer)
        assert registry.seen == []


def test_the_bytes_are_on_the_disk_before_the_blob_has_its_name(tmp_path: Path, store: Store,
                                                                monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    """After a power cut a blob under its name has to be whole."""
    synced, sync = [], os.fsync

    def note(fd: int) -> None:
        sync(fd)
        synced.append((Path(f"/proc/self/fd/{fd}").readlink(), store.has_blob(layer)))

    with Registry() as registry:
        layer = big(registry, tmp_path).layers[0]
        store.prepare()
        monkeypatch.setattr("os.fsync", note)
        client(store).fetch(name(registry, "test/big:1"), layer)
    blobs = store.blob_path(layer.digest).parent
    assert synced == [(store.root / "derived" / "partial" / layer.digest[7:], False), (blobs, True)]


def test_a_link_in_its_place_is_not_followed(tmp_path: Path, store: Store) -> None:
    from linuxkit.errors import HostError

    with Registry() as registry:
        layer = big(registry, tmp_path).layers[0]
        path = left_over(store, layer, b"")
        path.unlink()
        path.symlink_to(tmp_path / "precious")
        (tmp_path / "precious").write_bytes(b"precious")
        with pytest.raises(HostError):
            client(store).fetch(name(registry, "test/big:1"), layer)
        assert (tmp_path / "precious").read_bytes() == b"precious"


def test_another_process_is_at_it(tmp_path: Path, store: Store) -> None:
    import fcntl

    with Registry() as registry:
        layer = big(registry, tmp_path).layers[0]
        path = left_over(store, layer, b"x" * 100)
        with path.open("r+b") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            client(store).fetch(name(registry, "test/big:1"), layer)
            assert path.read_bytes() == b"x" * 100
        store.verify(layer)


def test_a_failure_stops_the_others(tmp_path: Path, store: Store) -> None:
    """One layer is damaged; the endless one beside it ends too, and its error does not hide the reason."""
    with Registry() as registry:
        image = fill(registry, tmp_path)
        bad, endless = image.layers

        def fault(handler: Handler, body: bytes) -> bool:
            if handler.path.endswith(endless.digest):
                handler.send_response(200)
                handler.send_header("Content-Length", str(endless.size))
                handler.end_headers()
                handler.wfile.write(body[:1])
                handler.wfile.flush()
                time.sleep(0.5)
                handler.wfile.write(body[1:])
                return True
            return handler.path.endswith(bad.digest) and faults.changed_byte(handler, body)

        registry.faults["blobs"] = fault
        with pytest.raises(ImageError, match=bad.digest):
            client(store).pull(name(registry), AMD64)
        assert not store.has_blob(endless)


# -- places


@pytest.mark.parametrize(("address", "host"), [("127.0.0.1", "localhost"), ("::1", "[::1]")])
def test_names_for_this_machine(tmp_path: Path, store: Store, address: str, host: str) -> None:
    with Registry(login=("user", "word"), token="t", address=address) as registry:
        fill(registry, tmp_path, "deep/er/app")
        ref = f"{host}:{registry.host.rpartition(':')[2]}/deep/er/app:1"
        registry.realm = f"http://{ref.partition('/')[0]}/token"
        keys = Login("user", "word")
        image = client(store, keychain=keys).pull(parse_reference(ref), AMD64)
        assert image.reference == ref
        assert keys.asked == [ref.partition("/")[0]]
        pinned = client(store, keychain=keys).pull(parse_reference(f"{ref}@{image.digest}"), AMD64)
        assert pinned.digest == image.digest


@pytest.mark.parametrize(("name", "url"), [
    ("nginx:1", "https://registry-1.docker.io"), ("registry.example/a", "https://registry.example"),
    ("registry.example:5000/a/b", "https://registry.example:5000"), ("localhost/a", "http://localhost"),
    ("127.0.0.1:5/a", "http://127.0.0.1:5"), ("[::1]:5/a", "http://[::1]:5"), ("[2001:db8::1]/a", "https://[2001:db8::1]"),
    ("[2001:db8::1]:5/a", "https://[2001:db8::1]:5"), ("10.0.0.1:5/a", "https://10.0.0.1:5"),
])  # fmt: skip
def test_where_a_registry_is(store: Store, name: str, url: str) -> None:
    assert client(store)._session.base(parse_reference(name).registry) == url


def test_an_origin_has_a_port() -> None:
    assert origin("https://A.example/x") == origin("https://a.example:443/y") != origin("http://a.example")
    assert origin("http://[::1]:80/x") == ("http", "::1", 80)
    assert origin("https://a.example:99999999") == ("", "", 0)


@pytest.mark.parametrize(("base", "given", "url"), [
    ("https://r.example", "/v2/a?x=y", "https://r.example/v2/a?x=y"),
    ("https://r.example", "https://bucket.example/z", "https://bucket.example/z"),
    ("https://r.example", "http://r.example/v2/a", "https://r.example/v2/a"),
    ("https://r.example:5000", "http://r.example:5000/v2/a?x", "https://r.example:5000/v2/a?x"),
    ("http://localhost:5000", "http://localhost:5000/v2/a", "http://localhost:5000/v2/a"),
    ("https://r.example", "http://other.example/v2/a", None), ("https://r.example", "file:///etc/passwd", None),
    ("https://r.example", "ftp://r.example/x", None),
])  # fmt: skip
def test_where_an_upload_goes_on(base: str, given: str, url: str | None) -> None:
    if url is None:
        with pytest.raises(NetworkError, match="sends an upload to"):
            _place(base, given)
    else:
        assert _place(base, given) == url


def test_a_page_where_the_referrers_should_be(store: Store) -> None:
    """Some registries answer everything with their start page."""
    with Registry() as registry:
        registry.faults["referrers"] = lambda h, b: h.answer(200, b"<html>", "text/html") or True
        assert client(store).referrers(name(registry), digest(b"x")) == ()
