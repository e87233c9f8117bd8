"""SBOMs that come with an image: attestation manifests in its index, as BuildKit attaches them.

    index ─► manifest { vnd.docker.reference.type: attestation-manifest, vnd.docker.reference.digest: DIGEST }
               └► layer { in-toto.io/predicate-type: https://spdx.dev/Document | https://cyclonedx.org/bom }
                    └► in-toto statement { predicate: the document }

They are strangers' documents: one that is damaged becomes a note, and never stops a build. One counts when its
statement is about this very image and is what the manifest says; and, under a policy that wants signatures, when the
index that it hangs on is signed. The others are named in a note.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from linuxkit.errors import ImageError
from linuxkit.oci import document as doc
from linuxkit.oci.media import MANIFEST_TYPES, Descriptor, Image
from linuxkit.oci.store import Store
from linuxkit.sbom.model import MAX_PACKAGES, Package, clean, usable

MAX_DOCUMENT = 32 << 20
#: Most objects and lists, and most values, of a document: what they take in memory is many times their text.
MAX_OBJECTS, MAX_VALUES = 1_000_000, 8_000_000
MAX_DEPTH = 40
SPDX, CYCLONEDX = "https://spdx.dev/Document", "https://cyclonedx.org/bom"
STATEMENTS = "https://in-toto.io/Statement/v"
MAX_SUBJECTS = 10_000
_PREDICATE = "in-toto.io/predicate-type"
_TYPE, _FOR = "vnd.docker.reference.type", "vnd.docker.reference.digest"

Found = tuple[list[dict[str, Any]], list[Package], list[str]]


def attested(image: Image, store: Store, refused: str = "") -> Found:
    """SPDX documents whole; the packages of CycloneDX documents; what could not be read, or does not count.

    Args:
        refused: why nothing that hangs on the image's index counts; empty when it may.
    """
    documents: list[dict[str, Any]] = []
    packages: list[Package] = []
    notes: list[str] = []
    if image.index is None:
        return documents, packages, notes
    try:
        if refused:
            if there := [layer for _, layer in _layers(image, store) if store.has_blob(layer)]:
                notes.append(f"{len(there)} attested SBOMs are left out: {clean(refused, 300)}")
            return documents, packages, notes
        for kind, layer in _layers(image, store):
            if layer.size > MAX_DOCUMENT:
                notes.append(f"attestation {layer.digest}: {layer.size} bytes are more than the {MAX_DOCUMENT} read")
            elif store.has_blob(layer):
                data = store.read_blob(layer, MAX_DOCUMENT)
                if not small(data):
                    notes.append(f"attestation {layer.digest}: it has more values than are read")
                    continue
                statement = doc.decode(data, f"attestation {layer.digest}")
                predicate = doc.mapping(statement, "predicate", f"attestation {layer.digest}")
                if fault := _fault(statement, kind, image.digest, f"attestation {layer.digest}"):
                    notes.append(f"attestation {layer.digest}: {fault}")
                elif not shallow(predicate):
                    notes.append(f"attestation {layer.digest}: nested more than {MAX_DEPTH} deep")
                elif kind == SPDX:
                    documents.append(predicate)
                else:
                    packages += list(_components(predicate))[:MAX_PACKAGES]
    except ImageError as e:
        notes.append(f"its attestations are damaged: {clean(e.message, 300)}")
    return documents, packages, notes


def _fault(statement: dict[str, Any], kind: str, digest: str, where: str) -> str:
    """Why a statement does not count for an image: in-toto's attestation framework, spec/v1/statement.md."""
    if not doc.text(statement, "_type", where).startswith(STATEMENTS):
        return "it is no in-toto statement"
    said = doc.text(statement, "predicateType", where)
    if not (said == SPDX if kind == SPDX else said.startswith(CYCLONEDX)):
        return f"it holds '{clean(said, 80)}', and its manifest says {kind}"
    subjects = [doc.text(doc.mapping(s, "digest", where), "sha256", where)
                for s in doc.objects(statement, "subject", where)[:MAX_SUBJECTS]]  # fmt: skip
    if digest.removeprefix("sha256:") not in subjects:
        return f"it is about another image ({clean(subjects[0], 64) if subjects else 'none'}), not about {digest}"
    return ""


def attestations(image: Image, store: Store) -> list[Descriptor]:
    """The attestation manifests about the image in its index, whether they are in the store or not."""
    if image.index is None:
        return []
    where = f"image {image.reference}: index"
    listed = doc.objects(doc.decode(store.read_blob(image.index, doc.MAX_MANIFEST), where), "manifests", where)
    found = [doc.parse_descriptor(item, where) for item in listed]
    return [
        d for d in found
        if d.annotations.get(_TYPE) == "attestation-manifest" and d.annotations.get(_FOR) == image.digest
        and (d.media_type in MANIFEST_TYPES or not d.media_type)
    ]  # fmt: skip


def present(image: Image, store: Store) -> list[str]:
    """The digests of the attestation manifests that the store has: a pull of one platform may leave them out."""
    try:
        return [found.digest for found in attestations(image, store) if store.has_blob(found)]
    except ImageError:
        return []  # a note in the document says so


def _layers(image: Image, store: Store) -> Iterator[tuple[str, Descriptor]]:
    for pointer in attestations(image, store):
        if not store.has_blob(pointer):
            continue  # fetched without its attestations
        where = f"attestation {pointer.digest}"
        manifest = doc.decode(store.read_blob(pointer, doc.MAX_MANIFEST), where)
        for layer in doc.objects(manifest, "layers", where)[: doc.MAX_LAYERS]:
            parsed = doc.parse_descriptor(layer, where)
            kind = parsed.annotations.get(_PREDICATE, "")
            if kind == SPDX or kind.startswith(CYCLONEDX):
                yield SPDX if kind == SPDX else CYCLONEDX, parsed


def small(data: bytes) -> bool:
    """Whether a JSON text, parsed, is going to take a sensible amount of memory."""
    return data.count(b"{") + data.count(b"[") <= MAX_OBJECTS and data.count(b",") <= MAX_VALUES


def shallow(value: Any) -> bool:
    """Whether a document nests no deeper than MAX_DEPTH, found without recursion."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            inner for outer in level if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]  # fmt: skip
        if not level:
            return True
    return False


def _components(bom: dict[str, Any]) -> Iterator[Package]:
    """The components of a CycloneDX document, nested ones included, that have a package URL."""
    todo = [bom]
    while todo:
        listed = todo.pop().get("components")
        for item in listed if isinstance(listed, list) else ():
            if not isinstance(item, dict):
                continue
            todo.append(item)
            name, version, purl = (item.get(key) for key in ("name", "version", "purl"))
            if not (isinstance(name, str) and isinstance(version, str) and isinstance(purl, str)):
                continue
            kind = re.match(r"pkg:([a-z0-9.+-]{1,30})/\S{1,2000}\Z", purl)
            if kind and usable(name, version):
                yield Package(kind[1], name, version, licence=_licence(item.get("licenses")), purl=clean(purl, 2048))


def _licence(value: Any) -> str:
    names = []
    for item in value if isinstance(value, list) else ():
        if isinstance(item, dict):
            inner = item.get("license") if isinstance(item.get("license"), dict) else {}
            said = item.get("expression") or (inner or {}).get("id") or (inner or {}).get("name")
            if isinstance(said, str):
                names.append(clean(said, 200))
    return "\n".join(sorted(set(names)))
