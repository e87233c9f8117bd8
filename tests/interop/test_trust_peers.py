"""Signatures in Debian's docker-registry: kept there, carried by skopeo, judged by openssl.

Debian's skopeo is built without Sigstore, so it carries signatures and neither makes nor verifies them.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from linuxkit.errors import TrustError
from linuxkit.oci.media import OCI_MANIFEST
from linuxkit.oci.reference import Reference, parse_reference
from linuxkit.oci.registry import RegistryClient
from linuxkit.oci.store import Store
from linuxkit.sources import Sources
from linuxkit.trust.keys import private_key
from linuxkit.trust.policy import load
from linuxkit.trust.sign import sign_pushed
from support.client import transport
from support.images import AMD64, ARM64, make_image, member, tar_of
from support.peers import docker_registry, run, skopeo, tool

pytestmark = pytest.mark.interop


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with docker_registry(tmp_path_factory.mktemp("registry")) as host:
        yield host


@pytest.fixture
def name(registry: str, request: pytest.FixtureRequest) -> Reference:
    own = request.node.name.lower().translate(str.maketrans("[]_", "---")).strip("-")
    return parse_reference(f"{registry}/{os.getpid()}/{own}:1")


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """k.key and k.pub, and other.pub, of openssl's."""
    for one in ("k", "other"):
        run(tool("openssl"), "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out",
            tmp_path / f"{one}.key")  # fmt: skip
        run(tool("openssl"), "pkey", "-in", tmp_path / f"{one}.key", "-pubout", "-out", tmp_path / f"{one}.pub")
    return tmp_path


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "cache")
    for platform in (ARM64, AMD64):
        make_image(store, "test/app:1", tar_of(member("app", platform.architecture.encode())), platform=platform)
    return store


def signed(store: Store, name: Reference, keys: Path, refer: bool = False) -> str:
    """Pushed and signed; its digest."""
    client = RegistryClient(store, transport())
    top = store.find("test/app:1")
    assert top is not None
    client.push(name, top)
    key = private_key((keys / "k.key").read_bytes(), "k.key", lambda: b"")
    assert sign_pushed(client, name, key, {}, refer=refer) == (top.digest, True)
    return top.digest


def resolves(cache: Path, keys: Path, key: str, name: Reference, *, offline: bool) -> bool:
    (keys / "p.yml").write_text(f'rules: [{{images: ["127.0.0.1:*/**"], keys: [{key}]}}]')
    try:
        Sources(cache, offline=offline, policy=load(keys / "p.yml")).resolver.resolve(name.text, AMD64)
    except TrustError:
        return False
    return True


@pytest.mark.parametrize("refer", [False, True], ids=["tag", "referrers"])
def test_signed_and_verified_in_a_real_registry(name: Reference, store: Store, keys: Path, tmp_path: Path,
                                                refer: bool) -> None:  # fmt: skip
    signed(store, name, keys, refer)
    mine = tmp_path / "mine"
    assert not resolves(mine, keys, "other.pub", name, offline=False)
    assert resolves(mine, keys, "k.pub", name, offline=False)
    assert resolves(mine, keys, "k.pub", name, offline=True)
    assert not resolves(mine, keys, "other.pub", name, offline=True)


def test_signatures_that_skopeo_carries(name: Reference, store: Store, keys: Path, tmp_path: Path) -> None:
    """skopeo copies image and signatures out of the registry into a cache directory, where they count offline."""
    digest = signed(store, name, keys)
    mine = tmp_path / "mine"
    skopeo("copy", "--all", "--src-tls-verify=false", f"docker://{name}", f"oci:{mine}:{name}")
    assert not resolves(mine, keys, "k.pub", name, offline=True)
    place = f"{name.name}:{digest.replace(':', '-')}.sig"
    skopeo("copy", "--src-tls-verify=false", f"docker://{place}", f"oci:{mine}:{place}")
    assert resolves(mine, keys, "k.pub", name, offline=True)
    assert not resolves(mine, keys, "other.pub", name, offline=True)


@pytest.mark.parametrize("refer", [False, True], ids=["tag", "referrers"])
def test_the_bytes_in_a_real_registry(name: Reference, store: Store, keys: Path, refer: bool) -> None:
    """What stands there, read with skopeo, judged with openssl; the index of both platforms is signed."""
    digest = signed(store, name, keys, refer)
    tag = digest.replace(":", "-")
    place = f"docker://{name.name}:{tag}" + ("" if refer else ".sig")
    found = json.loads(skopeo("inspect", "--raw", "--tls-verify=false", place))
    if refer:
        (entry,) = found["manifests"]
        assert entry["artifactType"] == "application/vnd.dev.cosign.artifact.sig.v1+json"
        place = f"docker://{name.name}@{entry['digest']}"
        found = json.loads(skopeo("inspect", "--raw", "--tls-verify=false", place))
        assert found["subject"]["digest"] == digest
    assert found["mediaType"] == OCI_MANIFEST
    (layer,) = found["layers"]
    assert layer["mediaType"] == "application/vnd.dev.cosign.simplesigning.v1+json"
    skopeo("copy", "--src-tls-verify=false", place, f"dir:{keys}/raw")
    payload = keys / "raw" / layer["digest"][7:]
    (keys / "sig").write_bytes(base64.b64decode(layer["annotations"]["dev.cosignproject.cosign/signature"]))
    judged = run(tool("openssl"), "dgst", "-sha256", "-verify", keys / "k.pub", "-signature", keys / "sig", payload)
    assert judged == "Verified OK\n"
    assert json.loads(payload.read_bytes()) == {
        "critical": {"identity": {"docker-reference": name.name}, "image": {"docker-manifest-digest": digest},
                     "type": "cosign container image signature"},
        "optional": None,
    }  # fmt: skip
