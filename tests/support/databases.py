"""Package databases as distributions write them, and images that have them."""

from __future__ import annotations

import json
import sqlite3
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from linuxkit.oci.derived import Derived
from linuxkit.oci.media import OCI_INDEX, OCI_MANIFEST, Descriptor, Image, Platform
from linuxkit.oci.store import Store
from linuxkit.rootfs.content import Content
from support.images import AMD64, make_image, member, tar_of

DPKG = b"""\
Package: bash
Essential: yes
Status: install ok installed
Priority: required
Installed-Size: 7164
Maintainer: Matthias Example <doko@debian.example.org>
Architecture: amd64
Multi-Arch: foreign
Version: 5.2.15-2+b7
Source: bash (5.2.15-2)
Description: GNU Bourne Again SHell
 Bash is an sh-compatible command language interpreter
 Package: not-a-package
Homepage: http://tiswww.case.edu/php/chet/bash/bashtop.html

Package: gone
Status: deinstall ok config-files
Architecture: all
Version: 1.0

Package: libc6
Status: install ok installed
Architecture: amd64
Source: glibc
Version: 1:2.36-9
"""
APK = b"""\
C:Q1qKcZ+j23xssAXmgQhkOO8dHnbWw=
P:musl
V:1.2.5-r0
A:x86_64
S:404233
I:667648
T:the musl c library (libc) implementation
U:https://musl.libc.org/
L:MIT
o:musl
m:Timo Example <timo@example.org>
t:1718360128
c:4b5d4a5c
p:so:libc.musl-x86_64.so.1=1
F:lib
R:ld-musl-x86_64.so.1
a:0:0:755
Z:Q1BYcLTsnNJpHu4w5NOt3WfVrLqSA=
V:9.9.9

C:Q1gy2nAWCyJNbrvjDcIpb+uqiEUZI=
P:busybox
V:1.36.1-r29
A:x86_64
L:GPL-2.0-only
o:busybox
"""


def rpm_header(**tags: str | int) -> bytes:
    """A header blob with the tags of one package, by the names in NUMBERS."""
    index, store = b"", b""
    for name, value in tags.items():
        tag = NUMBERS[name]
        if isinstance(value, int):
            store += b"\0" * (-len(store) % 4)
            index += struct.pack(">IIII", tag, 4, len(store), 1)
            store += struct.pack(">I", value)
        else:
            index += struct.pack(">IIII", tag, 9 if name == "summary" else 6, len(store), 1)
            store += value.encode() + b"\0"
    return struct.pack(">II", len(tags), len(store)) + index + store


NUMBERS = {"name": 1000, "version": 1001, "release": 1002, "epoch": 1003, "summary": 1004, "vendor": 1011,
           "license": 1014, "url": 1020, "arch": 1022, "sourcerpm": 1044}  # fmt: skip
RPM_SCHEMA = "CREATE TABLE 'Packages' (hnum INTEGER PRIMARY KEY AUTOINCREMENT,blob BLOB NOT NULL)"


def rpmdb(*headers: bytes, schema: str = RPM_SCHEMA, wal: bool = True) -> bytes:
    """An rpmdb.sqlite, marked as one in WAL mode as rpm leaves it."""
    connection = sqlite3.connect(":memory:")
    connection.execute(schema)
    for header in headers:
        connection.execute("INSERT INTO Packages (blob) VALUES (?)", (header,))
    connection.commit()
    data = connection.serialize()
    connection.close()
    return data[:18] + b"\2\2" + data[20:] if wal else data


BASH_RPM = rpm_header(
    name="bash", version="5.2.26", release="3.fc40", epoch=1, summary="The GNU Bourne Again shell", arch="x86_64",
    vendor="Fedora Project", license="GPL-3.0-or-later", url="https://www.gnu.org/software/bash",
    sourcerpm="bash-5.2.26-3.fc40.src.rpm",
)  # fmt: skip


def image_with(store: Store, name: str, *layers: Mapping[str, bytes], labels: Mapping[str, str] | None = None,
               platform: Platform = AMD64) -> Image:  # fmt: skip
    """An image of layers that are files by path."""
    tars = [tar_of(*(member(path, data) for path, data in layer.items())) for layer in layers]
    return make_image(store, name, *tars, platform=platform, config={"Cmd": ["/a"], "Labels": dict(labels or {})})


def attest(store: Store, image: Image, *predicates: tuple[str, Any]) -> Image:
    """The image under an index that has (predicate type, predicate) attested about it, the way BuildKit does."""
    layers = []
    for kind, predicate in predicates:
        statement = predicate if isinstance(predicate, bytes) else json.dumps({
            "_type": "https://in-toto.io/Statement/v0.1", "predicateType": kind, "predicate": predicate,
            "subject": [{"name": "_", "digest": {"sha256": image.digest[7:]}}],
        }).encode()  # fmt: skip
        blob = store.put_blob(statement, "application/vnd.in-toto+json")
        layers.append({"mediaType": blob.media_type, "digest": blob.digest, "size": blob.size,
                       "annotations": {"in-toto.io/predicate-type": kind}})  # fmt: skip
    empty = store.put_blob(b"{}", "application/vnd.oci.image.config.v1+json")
    manifest = store.put_blob(json.dumps({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": layers,
        "config": {"mediaType": empty.media_type, "digest": empty.digest, "size": empty.size},
    }).encode(), OCI_MANIFEST)  # fmt: skip
    size = store.blob_path(image.digest).stat().st_size
    return under_index(store, image, [
        {"mediaType": OCI_MANIFEST, "digest": image.digest, "size": size,
         "platform": {"os": "linux", "architecture": image.platform.architecture}},
        {"mediaType": OCI_MANIFEST, "digest": manifest.digest, "size": manifest.size,
         "platform": {"os": "unknown", "architecture": "unknown"},
         "annotations": {"vnd.docker.reference.type": "attestation-manifest",
                         "vnd.docker.reference.digest": image.digest}},
    ])  # fmt: skip


def under_index(store: Store, image: Image, manifests: Sequence[Mapping[str, Any]]) -> Image:
    """The image, found by way of an index."""
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(manifests)}
    index: Descriptor = store.put_blob(json.dumps(document).encode(), OCI_INDEX)
    store.put_name(image.reference, index)
    return store.image(index, image.reference, image.platform)


def content_of(store: Store, root: Path, **options: str) -> Content:
    return Content(store, Derived(root / "derived"), **options)  # type: ignore[arg-type]
