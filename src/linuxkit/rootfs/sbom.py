"""sbom.spdx.json: what is in the image, as an SPDX 2.3 document (https://spdx.github.io/spdx-spec/v2.3/).

Each image is one package of the document, with its digest. Where an image's index carries an SPDX document about it
(an in-toto attestation, as BuildKit attaches it), that document's packages, files and relationships are merged in,
with file names as they are in the built root filesystem.

LinuxKit gives each document a random name space; ours is made of the content, so that builds can be compared.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from linuxkit.entry import FIXED_MTIME, Bytes, Entry, Kind, digest_of
from linuxkit.errors import ImageError
from linuxkit.oci.media import Descriptor, Image
from linuxkit.plan.model import SbomPlan
from linuxkit.rootfs.content import Content
from linuxkit.rootfs.segment import Segment

VERSION = 1
MAX_DOCUMENT = 256 << 20
MAX_MANIFEST = 4 << 20
FIXED_CREATED = "2017-04-18T16:30:00Z"
_PREDICATE, _SPDX = "in-toto.io/predicate-type", "https://spdx.dev/Document"
_TYPE, _FOR = "vnd.docker.reference.type", "vnd.docker.reference.digest"


def sbom_segment(plan: SbomPlan, content: Content) -> Segment:
    """The segment with the one file."""
    parts = [f"{prefix} {image.reference} {image.digest} {image.index.digest if image.index else ''}"
             for prefix, image in plan.images]  # fmt: skip
    key = digest_of([b"sbom", b"%d" % VERSION, plan.path.encode(), plan.created.encode(), *(p.encode() for p in parts)])

    def entries() -> Iterator[Entry]:
        data = json.dumps(document(plan, content), indent=2, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        yield Entry(plan.path, Kind.FILE, 0o644, mtime=FIXED_MTIME, source=Bytes(data))

    return Segment("sbom", key, entries)


def document(plan: SbomPlan, content: Content) -> dict[str, Any]:
    """The merged document.

    Raises:
        ImageError: an attestation is damaged.
    """
    merged: dict[str, list[dict[str, Any]]] = {
        "packages": [], "files": [], "relationships": [], "hasExtractedLicensingInfos": [], "annotations": [],
        "externalDocumentRefs": [],
    }  # fmt: skip
    for number, (prefix, image) in enumerate(plan.images):
        own = f"SPDXRef-Image-{number}"
        merged["packages"].append({
            "SPDXID": own, "name": image.reference, "versionInfo": image.digest, "downloadLocation": "NOASSERTION",
            "filesAnalyzed": False, "licenseConcluded": "NOASSERTION", "licenseDeclared": "NOASSERTION",
            "copyrightText": "NOASSERTION", "primaryPackagePurpose": "CONTAINER",
        })  # fmt: skip
        merged["relationships"].append(_relation("SPDXRef-DOCUMENT", "DESCRIBES", own))
        for attested in _attested(image, content):
            _merge(merged, attested, number, own, prefix)
    body = {key: value for key, value in merged.items() if value}
    digest = digest_of([json.dumps(body, sort_keys=True).encode()])
    return {
        "spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT", "name": "sbom",
        "documentNamespace": f"https://github.com/linuxkit/linuxkit/sbom-{digest[7:39]}",
        "creationInfo": {
            "licenseListVersion": "3.20", "creators": ["Organization: LinuxKit", "Tool: linuxkit"],
            "created": plan.created or FIXED_CREATED,
        },
        **body,
    }  # fmt: skip


def _relation(one: str, kind: str, other: str) -> dict[str, Any]:
    return {"spdxElementId": one, "relationshipType": kind, "relatedSpdxElement": other}


def _merge(
    merged: dict[str, list[dict[str, Any]]], attested: dict[str, Any], number: int, own: str, prefix: str
) -> None:
    """Add one image's document: its identifiers get the image's number, its file names the image's place."""

    def renamed(value: Any) -> Any:
        if isinstance(value, str) and value.startswith("SPDXRef-"):
            return own if value == "SPDXRef-DOCUMENT" else f"SPDXRef-{number}-{value.removeprefix('SPDXRef-')}"
        if isinstance(value, list):
            return [renamed(v) for v in value]
        if isinstance(value, dict):
            return {k: renamed(v) for k, v in value.items()}
        return value

    base = f"/{prefix}" if prefix else ""
    for section in merged:
        for item in attested.get(section) or ():
            item = renamed(item)
            for key in ("fileName", "packageFileName"):
                if isinstance(item.get(key), str):
                    item[key] = f"{base}/{item[key].removeprefix('./').lstrip('/')}"
            if item.get("relationshipType") == "DESCRIBES" and item.get("spdxElementId") == own:
                item["relationshipType"] = "CONTAINS"
            merged[section].append(item)


def _attested(image: Image, content: Content) -> Iterator[dict[str, Any]]:
    """The SPDX documents that the image's index holds about this very manifest."""
    if image.index is None:
        return
    try:
        index = json.loads(content.store.read_blob(image.index, MAX_MANIFEST))
        for entry in index.get("manifests") or ():
            notes = entry.get("annotations") or {}
            if notes.get(_TYPE) != "attestation-manifest" or notes.get(_FOR) != image.digest:
                continue
            pointer = Descriptor(entry.get("mediaType", ""), entry["digest"], entry["size"])
            if not content.store.has_blob(pointer):
                continue  # fetched without its attestations
            for layer in json.loads(content.store.read_blob(pointer, MAX_MANIFEST))["layers"]:
                if (layer.get("annotations") or {}).get(_PREDICATE) == _SPDX:
                    blob = Descriptor(layer["mediaType"], layer["digest"], layer["size"])
                    statement = json.loads(content.store.read_blob(blob, MAX_DOCUMENT))
                    yield statement["predicate"]
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise ImageError(f"{image.reference}: its SBOM attestation is damaged: {e}",
                         hint="build with --no-sbom") from e  # fmt: skip
