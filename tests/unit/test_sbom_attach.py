"""linuxkit attach: documents that refer to an image in a registry."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from linuxkit.errors import InputError
from linuxkit.oci.auth import Anonymous
from linuxkit.oci.media import Descriptor
from linuxkit.oci.reference import parse_reference
from linuxkit.oci.registry import RegistryClient
from linuxkit.oci.store import Store
from linuxkit.oci.transport import Transport
from linuxkit.sbom.attach import encoding, envelope, read
from linuxkit.sbom.layers import inventory
from support.builds import linuxkit
from support.client import fill
from support.databases import attest, content_of, image_with
from support.registry import Registry

pytestmark = pytest.mark.unit
SPDX = b'{"spdxVersion": "SPDX-2.3", "name": "x"}'
CYCLONEDX = b'{"bomFormat": "CycloneDX", "specVersion": "1.6"}'
PROVENANCE = json.dumps({
    "_type": "https://in-toto.io/Statement/v1", "predicateType": "https://slsa.dev/provenance/v1",
    "subject": [{"name": "a", "digest": {"sha256": "a" * 64}}], "predicate": {},
}).encode()  # fmt: skip
SUBJECT = Descriptor("application/vnd.oci.image.manifest.v1+json", "sha256:" + "b" * 64, 100)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    for name, data in (("a.spdx.json", SPDX), ("a.cdx.json", CYCLONEDX), ("p.json", PROVENANCE)):
        (tmp_path / name).write_bytes(data)
    return tmp_path


@pytest.mark.parametrize("api", [True, False], ids=["referrers API", "tag"])
def test_what_is_attached_is_found_again(work: Path, api: bool) -> None:
    with Registry(referrers=api) as registry:
        fill(registry, work)
        name = f"{registry.host}/test/app:1"
        args = ["attach", name, "--sbom", "a.spdx.json", "--sbom", "a.cdx.json", "--provenance", "p.json"]
        done = linuxkit(*args, cwd=work, cache=work / "cache")
        assert "does not name" in done.stderr
        assert done.stdout == linuxkit(*args, cwd=work, cache=work / "cache").stdout, "twice is once"
        client = RegistryClient(Store(work / "cache"), Transport(), keychain=Anonymous())
        reference = parse_reference(name)
        top = client.find(reference)
        assert top is not None
        found = sorted(client.referrers(reference, top[0].digest), key=lambda d: d.artifact_type)
        assert [f"{reference.name}@{d.digest}" for d in found] == done.stdout.split()
        assert [d.artifact_type for d in found] == [
            "application/spdx+json", "application/vnd.cyclonedx+json", "application/vnd.in-toto+json",
        ]  # fmt: skip
        for descriptor, data in zip(found, (SPDX, CYCLONEDX, PROVENANCE), strict=True):
            manifest = json.loads(client.read(reference, descriptor, 1 << 20))
            assert manifest["subject"]["digest"] == top[0].digest
            assert manifest["config"]["mediaType"] == "application/vnd.oci.empty.v1+json"
            (layer,) = manifest["layers"]
            assert client.read(reference, Descriptor("", layer["digest"], layer["size"]), 1 << 20) == data
        arm = linuxkit("attach", name, "--platform", "linux/arm64", "--sbom", "a.spdx.json", cwd=work,
                       cache=work / "cache").stdout  # fmt: skip
        assert arm.strip().rpartition("@")[2] not in {d.digest for d in found}


@pytest.mark.parametrize(("args", "said"), [
    ([], "nothing to attach"), (["--sbom", "p.json"], "p.json is SLSA provenance, not an SPDX"),
    (["--provenance", "a.cdx.json"], "a.cdx.json is a CycloneDX document, not SLSA"),
    (["--sbom", "no.json"], "no.json cannot be read: no such file"), (["--sbom", "bad.json"], "bad.json is not JSON"),
    (["--sbom", "deep.json"], "something else"), (["--sbom", "a.spdx.json", "--platform", "x"], "invalid platform"),
])  # fmt: skip
def test_what_cannot_be_attached(work: Path, args: list[str], said: str) -> None:
    (work / "bad.json").write_bytes(b"\xff{")
    (work / "deep.json").write_text('{"spdxVersion": "SPDX-2.3", "a": ' + "[" * 200 + "]" * 200 + "}")
    with Registry() as registry:
        fill(registry, work)
        done = linuxkit("attach", f"{registry.host}/test/app:1", *args, cwd=work, cache=work / "c", check=False)
    assert done.returncode == 2
    assert said in done.stderr


def test_an_image_that_is_not_there(work: Path) -> None:
    with Registry() as registry:
        done = linuxkit("attach", f"{registry.host}/no/image:1", "--sbom", "a.spdx.json", cwd=work, cache=work / "c",
                        check=False)  # fmt: skip
    assert done.returncode == 1
    assert "is not in its registry" in done.stderr


def test_documents_are_told_apart() -> None:
    assert [read(d, "x", w).kind for d, w in ((SPDX, "sbom"), (CYCLONEDX, "sbom"), (PROVENANCE, "provenance"))] == [
        "spdx", "cyclonedx", "provenance",
    ]  # fmt: skip
    with pytest.raises(InputError, match="not JSON"):
        read(b"[" * 100_000, "x", "sbom")


def test_signed_statements_are_dsse() -> None:
    assert encoding("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    ), "the example of the specification"
    seen = []

    def sign(data: bytes) -> bytes:
        seen.append(data)
        return b"signature"

    made = json.loads(envelope(read(SPDX, "x", "sbom"), SUBJECT, "example.com/app", sign, "k"))
    payload = base64.b64decode(made["payload"])
    assert seen == [encoding("application/vnd.in-toto+json", payload)]
    assert made["signatures"] == [{"keyid": "k", "sig": base64.b64encode(b"signature").decode()}]
    statement = json.loads(payload)
    assert statement["predicate"] == json.loads(SPDX)
    assert statement["subject"] == [{"name": "example.com/app", "digest": {"sha256": "b" * 64}}]
    made = json.loads(envelope(read(PROVENANCE, "x", "provenance"), SUBJECT, "example.com/app", sign))
    subjects = json.loads(base64.b64decode(made["payload"]))["subject"]
    assert [s["digest"]["sha256"][0] for s in subjects] == ["b", "a"]


@pytest.mark.parametrize("limit", [None, 10])
def test_a_pull_brings_what_is_attested(work: Path, limit: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    from linuxkit.oci import pull

    if limit is not None:
        monkeypatch.setattr(pull, "MAX_ATTESTED", limit)
    source = Store(work / "source")
    image = attest(source, image_with(source, "docker.io/t/app:1", {"a": b"a"}),
                   ("https://spdx.dev/Document", {"packages": [{"SPDXID": "SPDXRef-x", "name": "x"}]}))  # fmt: skip
    with Registry() as registry:
        for blob in (work / "source" / "blobs" / "sha256").iterdir():
            data = blob.read_bytes()
            registry.add_blob(data)
            if b'"schemaVersion"' in data:
                tag = "1" if image.index and blob.name == image.index.digest[7:] else ""
                registry.add_manifest("t/app", data, json.loads(data)["mediaType"], tag)
        store = Store(work / "cache")
        client = RegistryClient(store, Transport(), keychain=Anonymous())
        got = client.pull(parse_reference(f"{registry.host}/t/app:1"), image.platform)
    found = inventory(got, content_of(store, work))
    assert found.notes == ()
    assert len(found.documents) == (1 if limit is None else 0)


def test_what_is_signed_can_be_checked(work: Path) -> None:
    """By the library itself, not by the code that signs."""
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

    key = ec.generate_private_key(ec.SECP256R1())
    secret = BestAvailableEncryption(b"pass")
    (work / "k.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, secret))
    with Registry() as registry:
        fill(registry, work)
        name = f"{registry.host}/test/app:1"
        for file, flag in (("a.spdx.json", "--sbom"), ("p.json", "--provenance")):
            done = linuxkit("attach", name, flag, file, "--key", "k.pem", cwd=work, cache=work / "c",
                            LINUXKIT_KEY_PASSWORD="pass")  # fmt: skip
            assert "does not name" not in done.stderr
        wrong = linuxkit("attach", name, "--sbom", "a.spdx.json", "--key", "k.pem", cwd=work, cache=work / "c",
                         check=False, LINUXKIT_KEY_PASSWORD="no")  # fmt: skip
        assert (wrong.returncode, "the password is wrong" in wrong.stderr) == (2, True)
        client = RegistryClient(Store(work / "c"), Transport(), keychain=Anonymous())
        reference = parse_reference(name)
        top = client.find(reference)
        assert top is not None
        found = client.referrers(reference, top[0].digest, "application/vnd.dsse.envelope.v1+json")
        assert len(found) == 2
        tagged = client.find(parse_reference(f"{reference.name}:{top[0].digest.replace(':', '-')}.att"))
        assert tagged is not None
        layers = json.loads(tagged[1])["layers"]
        assert [layer["annotations"]["predicateType"] for layer in layers] == [
            "https://spdx.dev/Document", "https://slsa.dev/provenance/v1",
        ]  # fmt: skip
        for layer in layers:
            blob = client.read(reference, Descriptor("", layer["digest"], layer["size"]), 1 << 20)
            made = json.loads(blob)
            payload = base64.b64decode(made["payload"])
            signed = b"DSSEv1 28 application/vnd.in-toto+json %d %s" % (len(payload), payload)
            key.public_key().verify(base64.b64decode(made["signatures"][0]["sig"]), signed, ec.ECDSA(SHA256()))
            about = {"name": reference.name, "digest": {"sha256": top[0].digest[7:]}}
            assert json.loads(payload)["subject"][0] == about
