"""Copy the recorded builds into tests/golden: tools/golden.py MASTER [TARGET]

MASTER is the folder with `cases/`, `images/` and `check.py`. Everything is copied as it is, but for one file: an
executable of another project, which does not belong into this repository. A text stands in its place, in the layer and
in the recorded trees; the digests of the image follow.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shutil
import sys
import tarfile
from pathlib import Path
from typing import Any

FOREIGN = "bin/busybox"
STAND_IN = b"#!/bin/false\nAn executable of another project stood here when the builds were recorded.\n"
IMAGE = "docker.io/library/busybox:latest"


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Images:
    """The OCI layout, with one layer rewritten."""

    def __init__(self, master: Path) -> None:
        blobs = master / "images/blobs/sha256"
        self.blobs = {path.name: path.read_bytes() for path in sorted(blobs.iterdir())}
        self.index = json.loads((master / "images/index.json").read_bytes())
        self.layout = (master / "images/oci-layout").read_bytes()

    def put(self, old: dict[str, Any], data: bytes) -> None:
        """Replace the blob of a descriptor, and the descriptor's digest and size."""
        self.blobs.pop(old["digest"].partition(":")[2], None)
        self.blobs[digest(data)] = data
        old |= {"digest": f"sha256:{digest(data)}", "size": len(data)}

    def json(self, descriptor: dict[str, Any]) -> Any:
        return json.loads(self.blobs[descriptor["digest"].partition(":")[2]])

    def replace(self) -> tuple[int, str]:
        """Put the stand-in into the image; returns the size and the digest of what stood there."""
        (top,) = (d for d in self.index["manifests"] if d["annotations"]["org.opencontainers.image.ref.name"] == IMAGE)
        index, before = self.json(top), (0, "")
        for entry in index["manifests"]:
            manifest = self.json(entry)
            config = self.json(manifest["config"])
            for number, layer in enumerate(manifest["layers"]):
                tar, before = stand_in(gzip.decompress(self.blobs[layer["digest"].partition(":")[2]]), before)
                config["rootfs"]["diff_ids"][number] = f"sha256:{digest(tar)}"
                self.put(layer, tar)
                layer["mediaType"] = layer["mediaType"].removesuffix("+gzip")
            self.put(manifest["config"], json.dumps(config, separators=(",", ":")).encode())
            self.put(entry, json.dumps(manifest, separators=(",", ":")).encode())
        self.put(top, json.dumps(index, separators=(",", ":")).encode())
        return before


def stand_in(tar: bytes, before: tuple[int, str]) -> tuple[bytes, tuple[int, str]]:
    """A layer with the stand-in; what stood there, or `before` when the layer does not have it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(tar)) as source, tarfile.open(
        fileobj=out, mode="w", format=tarfile.GNU_FORMAT
    ) as target:
        for member in source:
            stream = source.extractfile(member) if member.isreg() else None
            content = stream.read() if stream else b""
            if member.name == FOREIGN:
                before, content = (len(content), digest(content)), STAND_IN
                member.size = len(content)
            target.addfile(member, io.BytesIO(content))
    return out.getvalue(), before


def rewrite(value: Any, size: int, sha256: str) -> Any:
    """A recorded case with the stand-in in its trees."""
    if isinstance(value, dict):
        if value.get("sha256") == sha256 and value.get("size") == size:
            return value | {"sha256": digest(STAND_IN), "size": len(STAND_IN)}
        return {key: rewrite(item, size, sha256) for key, item in value.items()}
    return [rewrite(item, size, sha256) for item in value] if isinstance(value, list) else value


def recordings(master: Path) -> dict[str, bytes]:
    """Path below the target → content."""
    images = Images(master)
    size, sha256 = images.replace()
    found = {"check.py": (master / "check.py").read_bytes(), "images/oci-layout": images.layout}
    found["images/index.json"] = json.dumps(images.index, indent=1).encode() + b"\n"
    found |= {f"images/blobs/sha256/{name}": data for name, data in images.blobs.items()}
    for path in sorted((master / "cases").glob("*.json")):
        case = rewrite(json.loads(path.read_bytes()), size, sha256)
        found[f"cases/{path.name}"] = json.dumps(case, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n"
    return found


def main() -> None:
    master = Path(sys.argv[1])
    target = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(__file__).resolve().parents[1] / "tests/golden"
    for folder in ("cases", "images"):
        shutil.rmtree(target / folder, ignore_errors=True)
    for name, data in recordings(master).items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes(data)
    print(f"{len(list((target / 'cases').iterdir()))} cases")


if __name__ == "__main__":
    main()
