"""Our pulls and pushes against Debian's docker-registry; what skopeo and umoci make of them, and we of theirs."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from linuxkit.entry import Kind, read_all
from linuxkit.errors import ImageError, NetworkError
from linuxkit.oci import document as doc
from linuxkit.oci.archive import import_archive
from linuxkit.oci.derived import Derived
from linuxkit.oci.layer import LayerCache
from linuxkit.oci.media import OCI_CONFIG, OCI_MANIFEST, Descriptor, Image
from linuxkit.oci.merge import Whiteouts, merge_layers
from linuxkit.oci.reference import Reference, parse_reference
from linuxkit.oci.registry import RegistryClient, connect
from linuxkit.oci.store import Store
from linuxkit.oci.transport import Transport
from support.images import AMD64, ARM64, digest, directory, hardlink, make_image, member, symlink, tar_of
from support.peers import docker_registry, run, skopeo, tool
from support.registry import Registry

pytestmark = pytest.mark.interop
LOGIN = ("somebody", "pass:word")
LOWER = tar_of(directory("bin"), member("bin/app", b"app" * 999, mode=0o755), hardlink("bin/hard", "bin/app"),
               symlink("sh", "bin/app"), member("gone"), member("noise", bytes(range(256)) * 20_000))  # fmt: skip
UPPER = tar_of(member(".wh.gone"), member("new", b"new"))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with docker_registry(tmp_path_factory.mktemp("plain")) as host:
        yield host


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with docker_registry(tmp_path_factory.mktemp("guarded"), LOGIN) as host:
        yield host


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "cache")
    for platform in (ARM64, AMD64):
        config = {"Cmd": [platform.architecture], "Labels": {"k": "v"}}
        make_image(store, "test/app:1", LOWER, UPPER, platform=platform, config=config)
    return store


@pytest.fixture
def repository(request: pytest.FixtureRequest) -> str:
    """Of each test its own."""
    return f"{os.getpid()}/" + request.node.name.lower().translate(str.maketrans("[]_", "---")).strip("-")


def top(store: Store, name: str = "test/app:1") -> Descriptor:
    found = store.find(name)
    assert found is not None
    return found


def client(store: Store, home: Path | None = None) -> RegistryClient:
    return connect(store, Transport(), environment={"DOCKER_CONFIG": str(home)} if home else {})


def ref(host: str, repository: str, tag: str = "1") -> Reference:
    return parse_reference(f"{host}/{repository}:{tag}")


def logged_in(folder: Path, host: str, password: str = LOGIN[1]) -> Path:
    folder.mkdir(exist_ok=True)
    packed = base64.b64encode(f"{LOGIN[0]}:{password}".encode()).decode()
    (folder / "config.json").write_text(json.dumps({"auths": {host: {"auth": packed}}}))
    return folder


def tree(store: Store, of: Image) -> dict[str, tuple[str, int, bytes]]:
    """path → (kind, mode, content or link target)."""
    layers = LayerCache(store, Derived(store.root / "derived"))
    return {e.path: (str(e.kind), e.mode, read_all(e.source, 8 << 20) if e.kind is Kind.FILE else e.target.encode())
            for e in merge_layers(layers.image_entries(of), whiteouts=Whiteouts.OCI)}  # fmt: skip


def test_what_we_push_we_and_skopeo_pull(plain: str, repository: str, store: Store, tmp_path: Path) -> None:
    name = ref(plain, repository)
    assert client(store).find(name) is None
    pushed = client(store).push(name, top(store))
    assert pushed.digest == top(store).digest
    found = json.loads(skopeo("inspect", "--tls-verify=false", "--override-arch", "arm64", f"docker://{name}"))
    assert (found["Architecture"], found["Labels"]) == ("arm64", {"k": "v"})
    assert skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{name}").encode() == \
        store.blob_path(pushed.digest).read_bytes()  # fmt: skip
    other = Store(tmp_path / "other")
    image = client(other).pull(name, AMD64)
    assert tree(other, image) == tree(store, store.image(top(store), "x", AMD64))
    with pytest.raises(ImageError):
        other.image(pushed, "x", ARM64)
    client(other).pull_all(name)
    assert other.image(pushed, "x", ARM64).config.cmd == ("arm64",)


@pytest.mark.parametrize("schema", ["oci", "v2s2"])
def test_what_skopeo_pushes_we_pull(plain: str, repository: str, store: Store, tmp_path: Path, schema: str) -> None:
    """From our cache directory, as OCI and as Docker's schema 2."""
    name = ref(plain, repository)
    skopeo("copy", "--override-arch", "amd64", "--format", schema, "--dest-tls-verify=false",
           f"oci:{store.root}:docker.io/test/app:1", f"docker://{name}")  # fmt: skip
    other = Store(tmp_path / "other")
    image = client(other).pull(name, AMD64)
    assert ("docker" in image.layers[0].media_type) == (schema == "v2s2")
    assert tree(other, image) == tree(store, store.image(top(store), "x", AMD64))
    # and from one repository to the next, schema 2 as it is
    second = ref(plain, f"{repository}-again")
    client(other).push(second, top(other, name.text))
    assert skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{second}") == \
        skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{name}")  # fmt: skip


def test_skopeo_copies_all_platforms_to_our_cache(plain: str, repository: str, store: Store, tmp_path: Path) -> None:
    name = ref(plain, repository)
    client(store).push(name, top(store))
    other = Store(tmp_path / "other")
    other.prepare()
    skopeo("copy", "--all", "--src-tls-verify=false", f"docker://{name}", f"oci:{other.root}:{name}")
    assert other.image(top(other, name.text), "x", ARM64).config.cmd == ("arm64",)
    skopeo("copy", "--override-arch", "amd64", "--src-tls-verify=false", f"docker://{name}",
           f"docker-archive:{tmp_path}/a.tar:{name}")  # fmt: skip
    assert import_archive(Store(tmp_path / "third"), tmp_path / "a.tar") == [str(name)]


def test_umoci_unpacks_what_we_pushed(plain: str, repository: str, store: Store, tmp_path: Path) -> None:
    name = ref(plain, repository)
    client(store).push(name, top(store), platforms=[AMD64], merge=True)
    skopeo("copy", "--override-arch", "amd64", "--src-tls-verify=false", f"docker://{name}",
           f"oci:{tmp_path}/layout:one")  # fmt: skip
    run(tool("umoci"), "unpack", "--rootless", "--image", tmp_path / "layout:one", tmp_path / "bundle")
    root = tmp_path / "bundle" / "rootfs"
    assert (root / "bin/app").read_bytes() == b"app" * 999
    assert (root / "bin/hard").samefile(root / "bin/app")
    assert (root / "new").read_text() == "new"
    assert not (root / "gone").exists()


def test_zstd_layers(plain: str, repository: str, store: Store, tmp_path: Path) -> None:
    name = ref(plain, repository)
    skopeo("copy", "--override-arch", "amd64", "--dest-compress-format", "zstd", "--format", "oci",
           "--dest-tls-verify=false", "--dest-compress", f"oci:{store.root}:docker.io/test/app:1",
           f"oci:{tmp_path}/zstd:one")  # fmt: skip
    skopeo("copy", "--dest-tls-verify=false", f"oci:{tmp_path}/zstd:one", f"docker://{name}")
    other = Store(tmp_path / "other")
    image = client(other).pull(name, AMD64)
    assert all(layer.media_type.endswith("+zstd") for layer in image.layers)
    assert tree(other, image) == tree(store, store.image(top(store), "x", AMD64))


def test_skopeo_pushes_to_the_registry_of_our_tests(store: Store, tmp_path: Path) -> None:
    """So that what our pushes are tested with is a registry that other clients take; with a token."""
    with Registry(login=LOGIN, token="t0ken") as registry:
        name = ref(registry.host, "test/app")
        skopeo("copy", "--all", "--dest-tls-verify=false", "--dest-creds", ":".join(LOGIN),
               f"oci:{store.root}:docker.io/test/app:1", f"docker://{name}")  # fmt: skip
        other, home = Store(tmp_path / "other"), logged_in(tmp_path / "home", registry.host)
        top_ = client(other, home).pull_all(name)
        assert other.image(top_, "x", ARM64).layers == store.image(top(store), "x", ARM64).layers


def test_basic_authentication(guarded: str, repository: str, store: Store, tmp_path: Path) -> None:
    name = ref(guarded, repository)
    for home, words in ((None, "wants a login"), (logged_in(tmp_path / "wrong", guarded, "no"), "does not accept")):
        with pytest.raises(NetworkError, match=words) as caught:
            client(store, home).push(name, top(store))
        assert LOGIN[1] not in f"{caught.value.message} {caught.value.hint}"
    home = logged_in(tmp_path / "home", guarded)
    client(store, home).push(name, top(store))
    with pytest.raises(NetworkError, match="wants a login"):
        client(Store(tmp_path / "other")).pull(name, AMD64)
    other = Store(tmp_path / "other")
    assert tree(other, client(other, home).pull(name, AMD64)) == tree(store, store.image(top(store), "x", AMD64))
    copy = ["inspect", "--tls-verify=false", "--override-arch", "amd64", "--authfile", home / "config.json"]
    assert json.loads(skopeo(*copy, f"docker://{name}"))["Architecture"] == "amd64"


def test_skopeo_logs_in_for_us(guarded: str, repository: str, store: Store, tmp_path: Path) -> None:
    """Its login file is Docker's."""
    folder = tmp_path / "home"
    folder.mkdir()
    run(tool("skopeo"), "login", "--tls-verify=false", "--authfile", folder / "config.json", "-u", LOGIN[0],
        "--password-stdin", guarded, stdin=LOGIN[1])  # fmt: skip
    assert client(store, folder).push(ref(guarded, repository), top(store)).digest == top(store).digest


def test_a_blob_is_mounted_from_a_neighbour(plain: str, repository: str, store: Store, tmp_path: Path) -> None:
    first = ref(plain, repository)
    client(store).push(first, top(store))
    other, moved = Store(tmp_path / "other"), list[tuple[str, int, int]]()
    client(other).pull_all(first)
    pushing = RegistryClient(other, Transport(), progress=lambda *p: moved.append(p))
    second = ref(plain, f"{repository}-copy")
    pushing.push(second, top(other, first.text))
    assert {done for _, done, _ in moved} == {0, -1}  # nothing went over the line
    assert tree(other, client(Store(tmp_path / "third")).pull(second, AMD64)) == \
        tree(store, store.image(top(store), "x", AMD64))  # fmt: skip


def test_machines_of_two_kinds_push_one_name(plain: str, repository: str, tmp_path: Path) -> None:
    name = ref(plain, repository)
    for platform in (AMD64, ARM64):
        here = Store(tmp_path / platform.architecture)
        make_image(here, "test/app:1", LOWER, platform=platform)
        client(here).push(name, top(here), merge=True, arch_tags=True)
    raw = json.loads(skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{name}"))
    assert [m["platform"]["architecture"] for m in raw["manifests"]] == ["arm64", "amd64"]
    tags = json.loads(skopeo("list-tags", "--tls-verify=false", f"docker://{plain}/{repository}"))["Tags"]
    assert sorted(tags) == ["1", "1-amd64", "1-arm64"]


def test_a_large_blob_in_pieces(plain: str, repository: str, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """docker-registry takes PATCH, whatever the size."""
    from linuxkit.oci.push import Pusher

    monkeypatch.setattr("linuxkit.oci.push.PIECE", 1 << 20)
    monkeypatch.setattr(Pusher, "_send", Pusher._send_pieces)
    name = ref(plain, repository)
    client(store).push(name, top(store))
    assert client(store).find(name) is not None


def test_a_blob_is_taken_up_where_it_broke(plain: str, repository: str, store: Store, tmp_path: Path) -> None:
    """Its answer to a Range request is what we take it for."""
    from linuxkit.oci.pull import Puller

    name = ref(plain, repository)
    client(store).push(name, top(store))
    layer = max(store.image(top(store), "x", AMD64).layers, key=lambda d: d.size)
    whole = store.blob_path(layer.digest).read_bytes()
    made, out = client(Store(tmp_path / "other")), bytearray(whole[:1000])
    Puller(made._store, made._session, lambda *p: None, name)._piece(layer, out.extend, 1000)
    assert bytes(out) == whole


def test_what_is_attached_is_found_without_the_referrers_api(plain: str, repository: str, store: Store) -> None:
    name, made = ref(plain, repository), client(store)
    subject = made.push(name, top(store))
    empty = made.push_bytes(name, b"{}", "application/vnd.oci.empty.v1+json")
    document = {
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": "application/x.sbom", "layers": [],
        "config": doc.descriptor_document(Descriptor(OCI_CONFIG, empty.digest, empty.size)),
        "subject": doc.descriptor_document(subject),
    }  # fmt: skip
    data = doc.encode(document)
    made.push_manifest(parse_reference(f"{name.name}@{digest(data)}"), OCI_MANIFEST, data)
    assert [d.digest for d in made.referrers(name, subject.digest, "application/x.sbom")] == [digest(data)]
    assert made.referrers(name, subject.digest, "application/x.other") == ()


def test_a_changed_byte_on_its_disk_is_noticed(store: Store, tmp_path: Path) -> None:
    with docker_registry(tmp_path / "registry") as host:
        name = ref(host, "test/app")
        client(store).push(name, top(store))
        layer = store.image(top(store), "x", AMD64).layers[0]
        hexes = layer.digest[7:]
        data = tmp_path / "registry/files/docker/registry/v2/blobs/sha256" / hexes[:2] / hexes / "data"
        damaged = bytearray(data.read_bytes())
        damaged[len(damaged) // 2] ^= 1
        data.write_bytes(damaged)
        other = Store(tmp_path / "other")
        with pytest.raises(ImageError, match="damaged"):
            client(other).pull(name, AMD64)
        assert not other.has_blob(layer)
        assert other.names() == []
