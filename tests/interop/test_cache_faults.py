"""Pulls and imports that are killed in the middle, several at once, never leave a cache that is not whole."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from linuxkit.oci.derived import Derived
from linuxkit.oci.export import export_image
from linuxkit.oci.layer import LayerCache
from linuxkit.oci.media import OCI_MANIFEST
from linuxkit.oci.store import Store
from support.images import make_image, member, tar_of
from support.registry import Registry

pytestmark = pytest.mark.interop
ROOT = Path(__file__).resolve().parent.parent
NAMES = ["test/a", "test/b"]


NOISE = random.Random(7)


def noise(count: int) -> list[bytes]:
    """Layers that do not compress, so that writing one takes a moment."""
    return [tar_of(member(f"file{n}", NOISE.randbytes(400_000))) for n in range(count)]


def publish(registry: Registry, store: Store, name: str) -> None:
    image = make_image(store, f"{name}:1", *noise(4))
    manifest = store.blob_path(image.digest).read_bytes()
    registry.add_manifest(name, manifest, OCI_MANIFEST, "1")
    for blob in (json.loads(manifest)["config"]["digest"], *(layer.digest for layer in image.layers)):
        registry.add_blob(store.blob_path(blob).read_bytes())


@pytest.fixture
def killed(tmp_path: Path):
    """Runs the harness."""
    store = Store(tmp_path / "made")
    image = make_image(store, "example.com/c:1", *noise(4))
    archive = tmp_path / "c.tar"
    with open(archive, "wb") as out:
        export_image(store, LayerCache(store, Derived(tmp_path / "derived")), image, out, "oci", "example.com/c:1")

    def run(kills: int, *words: str) -> dict[str, Any]:
        with Registry() as registry:
            for name in NAMES:
                publish(registry, store, name)
            done = subprocess.run(
                [sys.executable, "-m", "support.faults", tmp_path, registry.host, ",".join(f"{n}:1" for n in NAMES),
                 archive, str(kills), *words], capture_output=True, text=True, cwd=ROOT, timeout=80,
            )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    return run


def test_two_hundred_kills_damage_nothing(killed) -> None:
    found = killed(200)
    assert found["damage"] == []
    assert found["kills"] >= 200
    assert found["finished"] > 0, found  # some come to their end
    assert found["blobs"] > 50, found  # and all do something
    assert not found.get("failed"), found


def test_the_harness_notices_blobs_that_are_written_in_place(killed) -> None:
    for kills in (60, 120, 240):  # the moments are random
        found = killed(kills, "in-place")
        if found["damage"]:
            break
    assert any("instead of" in line or "its bytes have the digest" in line for line in found["damage"]), found
