"""What tests of the registry client share: an image in a registry, logins, a client that does not wait."""

from __future__ import annotations

import json
from pathlib import Path

from linuxkit.oci.auth import Credentials
from linuxkit.oci.media import OCI_INDEX, OCI_MANIFEST, Image
from linuxkit.oci.store import Store
from linuxkit.oci.transport import Transport
from support.images import AMD64, ARM64, digest, make_image, member, tar_of
from support.registry import Registry

TARS = [tar_of(member("a", b"lower" * 20_000)), tar_of(member("b", b"upper" * 20_000))]


class Login:
    """A keychain of one, that notes who was asked for."""

    def __init__(self, user: str, password: str) -> None:
        self.found, self.asked = Credentials(user, password, "~/config.json"), list[str]()

    def find(self, registry: str) -> Credentials | None:
        self.asked.append(registry)
        return self.found


def fill(registry: Registry, tmp_path: Path, name: str = "test/app", tag: str = "1") -> Image:
    """Put an image for two platforms into the registry."""
    source = Store(tmp_path / "source")
    for platform in (ARM64, AMD64):
        image = make_image(source, f"{name}:{tag}", *TARS, platform=platform, config={"Cmd": [platform.architecture]})
        document = source.blob_path(image.digest).read_bytes()
        registry.add_manifest(name, document, OCI_MANIFEST)
        registry.add_blob(source.blob_path(json.loads(document)["config"]["digest"]).read_bytes())
    for layer in image.layers:
        registry.add_blob(source.blob_path(layer.digest).read_bytes())
    assert image.index is not None
    registry.add_manifest(name, source.blob_path(image.index.digest).read_bytes(), OCI_INDEX, tag)
    return image


def transport(**options: object) -> Transport:
    return Transport(sleep=lambda seconds: None, read_timeout=5, **options)  # type: ignore[arg-type]


def nothing_kept(store: Store) -> bool:
    """No name, no blob but whole ones, no temporary file."""
    for path in (store.root / "blobs" / "sha256").glob("*") if store.root.exists() else ():
        assert f"sha256:{path.name}" == digest(path.read_bytes())
    return store.names() == []
