"""CycloneDX 1.6 as JSON (https://cyclonedx.org/docs/1.6/json/).

    metadata.component      the system, which depends on
    components              its images (type container), each with the packages inside it

Attested SPDX documents are brought in as components: name, version, purl, licence.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from linuxkit.entry import digest_of
from linuxkit.oci.media import Image
from linuxkit.plan.asked import LOADER
from linuxkit.sbom import kit
from linuxkit.sbom import purl as purls
from linuxkit.sbom.licences import licence
from linuxkit.sbom.model import MAX_PACKAGES, Inventory, Package, clean


def document(images: Sequence[tuple[str, Image, Inventory]], created: str) -> dict[str, Any]:
    """The document about some images; arguments as those of spdx.document."""
    components = [_image(n, *each) for n, each in enumerate(images)]
    body: dict[str, Any] = {
        "metadata": {
            "timestamp": created,
            "tools": {"components": [{"type": "application", "name": "linuxkit"}]},
            "component": {"type": "operating-system", "bom-ref": "system", "name": "linuxkit-system"},
        },
        "components": components,
        "dependencies": [{"ref": "system", "dependsOn": [c["bom-ref"] for c in components]}],
    }  # fmt: skip
    digest = digest_of([json.dumps(body, sort_keys=True).encode()])
    serial = uuid.UUID(hex=digest[7:39], version=5)  # a name-based one: of the content
    return {"bomFormat": "CycloneDX", "specVersion": "1.6", "serialNumber": f"urn:uuid:{serial}", "version": 1, **body}


def _image(number: int, prefix: str, image: Image, found: Inventory) -> dict[str, Any]:
    properties = [{"name": "linuxkit:path", "value": prefix if prefix == LOADER else f"/{prefix}"}]
    if compiler := kit.compiler(image.config.labels):
        properties.append({"name": "linuxkit:compiler", "value": compiler})
    properties += [{"name": "linuxkit:note", "value": note} for note in found.notes]
    out: dict[str, Any] = {
        "type": "container", "bom-ref": f"image-{number}", "name": image.reference, "version": image.digest,
        "purl": purls.image_purl(image), "properties": properties,
        "hashes": [{"alg": "SHA-256", "content": image.digest.partition(":")[2]}],
    }  # fmt: skip
    used: set[str] = set()
    inside = []
    if found.distribution.id:
        system = {"type": "operating-system", "bom-ref": f"{number}-os", "name": found.distribution.id}
        inside.append(system | _present(version=found.distribution.version, description=found.distribution.title))
    seen = set()
    for package in (*found.packages, *_attested(found.documents)):
        locator = purls.purl(package, found.distribution) if package.kind else ""
        bare = locator.partition("?")[0] or f"{package.name} {package.version}"
        if bare in seen and (package.purl or not package.kind):
            continue  # attested, and in a database: said once
        seen.add(bare)
        name, n = f"{number}-{locator or package.name}", 1
        while name in used:
            n += 1
            name = f"{number}-{locator or package.name}#{n}"
        used.add(name)
        inside.append(_component(name, package, locator))
    return out | _present(components=inside)


def _component(name: str, package: Package, locator: str) -> dict[str, Any]:
    out: dict[str, Any] = {"type": "library", "bom-ref": name, "name": package.name}
    out |= _present(version=package.version, purl=locator, description=package.about)
    if package.supplier:
        out["supplier"] = {"name": package.supplier}
    declared = licence(package.licence)
    if declared.id:
        out["licenses"] = [{"license": {"id": declared.id}}]
    elif len(declared.texts) == 1 and declared.expression == declared.texts[0][0]:
        called = declared.texts[0][1]
        text = dict(package.texts).get(called, "")
        out["licenses"] = [{"license": {"name": called, **({"text": {"content": text}} if text else {})}}]
    elif declared.expression:
        out["licenses"] = [{"expression": declared.expression}]
    if package.checksums:
        out["hashes"] = [{"alg": a.replace("SHA", "SHA-"), "content": b} for a, b in package.checksums]
    if re.fullmatch(r"https?://[A-Za-z0-9.-]+(?::\d+)?(?:/[A-Za-z0-9._~%/?#=&+-]*)?", package.homepage):
        out["externalReferences"] = [{"type": "website", "url": package.homepage}]
    return out


def _attested(documents: Sequence[Mapping[str, Any]]) -> Iterator[Package]:
    """The packages of SPDX documents."""
    for document in documents:
        listed = document.get("packages")
        for item in listed[:MAX_PACKAGES] if isinstance(listed, list) else ():
            if not isinstance(item, dict) or not isinstance(item.get("name"), str):
                continue
            version, declared = item.get("versionInfo"), item.get("licenseDeclared")
            locator = _locator(item.get("externalRefs"))
            yield Package(
                "attested" if locator else "", clean(item["name"], 512) or "unnamed",
                clean(version, 256) if isinstance(version, str) else "",
                licence=clean(declared) if isinstance(declared, str) else "", purl=locator,
            )  # fmt: skip


def _locator(listed: Any) -> str:
    for reference in listed if isinstance(listed, list) else ():
        if isinstance(reference, dict) and reference.get("referenceType") == "purl":
            text = reference.get("referenceLocator")
            if isinstance(text, str) and re.fullmatch(r"pkg:[a-z0-9.+-]{1,30}/\S{1,2000}", text):
                return clean(text, 2048)
    return ""


def _present(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value}
