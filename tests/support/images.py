"""Small layers and images for tests, made with tarfile so that our own writer is not its own judge."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

from linuxkit.oci.media import OCI_LAYER_GZIP, Descriptor, Image, Platform
from linuxkit.oci.reference import is_kit_name
from linuxkit.oci.store import Store

AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")


def member(name: str, data: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    """A member; `type`, `linkname`, `mode`, `uid`, `pax_headers` and so on as keywords."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def directory(name: str, mode: int = 0o755) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=tarfile.DIRTYPE, mode=mode)


def symlink(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=tarfile.SYMTYPE, linkname=target, mode=0o777)


def hardlink(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=tarfile.LNKTYPE, linkname=target)


def tar_of(*members: tuple[tarfile.TarInfo, bytes], format: int = tarfile.PAX_FORMAT) -> bytes:
    """A plain archive."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def pack(tar: bytes) -> bytes:
    return gzip.compress(tar, mtime=0)


def put(store: Store, blob: bytes, media_type: str = OCI_LAYER_GZIP) -> Descriptor:
    return store.put_blob(blob, media_type)


def make_image(store: Store, name: str, *tars: bytes, platform: Platform = AMD64, config: dict | None = None,
               ) -> Image:  # fmt: skip
    """An image of gzip layers in `store`."""
    layers = [put(store, pack(tar)) for tar in tars]
    document = {"config": config or {"Cmd": ["/bin/app"]}, "rootfs": {"diff_ids": [digest(tar) for tar in tars]}}
    return store.put_image(name, platform, document, layers, kit=is_kit_name(name))  # as the kit's builder does


def write_layout(root: Path, blobs: Sequence[bytes], index: dict) -> None:
    """An OCI layout directory, as bare as it gets."""
    folder = root / "blobs" / "sha256"
    folder.mkdir(parents=True)
    for blob in blobs:
        (folder / digest(blob)[7:]).write_bytes(blob)
    (root / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (root / "index.json").write_text(json.dumps(index))
