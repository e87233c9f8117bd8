"""SPDX 2.3 as JSON (https://spdx.github.io/spdx-spec/v2.3/).

    DOCUMENT ─DESCRIBES─► Image-0 ─CONTAINS─► 0-deb-bash, 0-os-debian, …     one for each image of the system
                          Image-1 ─CONTAINS─► …, and all that is attested about the image

Nothing in it is random: identifiers are made of names, the name space of the content.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from linuxkit.entry import digest_of
from linuxkit.oci.media import Image
from linuxkit.plan.asked import LOADER
from linuxkit.sbom import kit
from linuxkit.sbom import purl as purls
from linuxkit.sbom.licences import licence
from linuxkit.sbom.merge import Merged, merge_attested
from linuxkit.sbom.model import Distribution, Inventory, Package

LIST_VERSION = "3.20"
_NONE = "NOASSERTION"
_USER, _DOMAIN = re.compile(r"[A-Za-z0-9._+-]+"), re.compile(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+")
_SUPPLIERS = {"rpm": "Organization"}


def document(images: Sequence[tuple[str, Image, Inventory]], created: str) -> dict[str, Any]:
    """The document about some images.

    Args:
        images: where each is in the root filesystem ("" at the root), the image, what is in it.
        created: RFC 3339, in UTC.
    """
    merged = Merged()
    for number, (prefix, image, found) in enumerate(images):
        _image(merged, number, prefix, image, found, created)
    body = merged.sections()
    digest = digest_of([json.dumps(body, sort_keys=True).encode()])
    return {
        "spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT", "name": "sbom",
        "documentNamespace": f"https://github.com/linuxkit/linuxkit/sbom-{digest[7:39]}",
        "creationInfo": {
            "licenseListVersion": LIST_VERSION, "creators": ["Organization: LinuxKit", "Tool: linuxkit"],
            "created": created,
        },
        **body,
    }  # fmt: skip


def _image(merged: Merged, number: int, prefix: str, image: Image, found: Inventory, created: str) -> None:
    own = merged.identifier(f"SPDXRef-Image-{number}")
    described: dict[str, Any] = {
        "SPDXID": own, "name": image.reference, "versionInfo": image.digest, "packageFileName": f"./{prefix}",
        "downloadLocation": _NONE, "filesAnalyzed": False, "licenseConcluded": _NONE, "licenseDeclared": _NONE,
        "copyrightText": _NONE, "primaryPackagePurpose": "CONTAINER",
        "checksums": [{"algorithm": "SHA256", "checksumValue": image.digest.partition(":")[2]}],
        "externalRefs": [_purl(purls.image_purl(image))],
    }  # fmt: skip
    if prefix == LOADER:
        del described["packageFileName"]
        described["comment"] = "a boot loader: in the boot program or on the disk, not in the root filesystem"
    merged.packages.append(described)
    merged.relate("SPDXRef-DOCUMENT", "DESCRIBES", own)
    if compiler := kit.compiler(image.config.labels):
        tool, version = compiler.split()
        name = merged.identifier(f"SPDXRef-{number}-compiler-{_safe(tool)}")
        merged.packages.append(_package(name, Package("pypi", tool, version), f"pkg:pypi/{tool}@{version}", merged))
        merged.relate(name, "BUILD_TOOL_OF", own)
    known = {}
    for package in found.packages:
        name = merged.identifier(f"SPDXRef-{number}-{package.kind}-{_safe(package.name)}")
        locator = purls.purl(package, found.distribution)
        known[_bare(locator)] = name
        merged.packages.append(_package(name, package, locator, merged))
        merged.relate(own, "CONTAINS", name)
    if found.distribution.id:
        name = merged.identifier(f"SPDXRef-{number}-os-{_safe(found.distribution.id)}")
        merged.packages.append(_system(name, found.distribution))
        merged.relate(own, "CONTAINS", name)
    notes = list(found.notes)
    for attested in found.documents:
        notes += merge_attested(merged, attested, number, own, prefix, known)
    if notes:
        described["annotations"] = [
            {"annotationType": "OTHER", "annotator": "Tool: linuxkit", "annotationDate": created, "comment": note}
            for note in notes
        ]


def _package(name: str, package: Package, locator: str, merged: Merged) -> dict[str, Any]:
    declared = licence(package.licence)
    expression = declared.expression
    for key, text in declared.texts:
        key, expression = _with_text(merged, key, text, dict(package.texts).get(text, ""), expression)
    out: dict[str, Any] = {
        "SPDXID": name, "name": package.name, "versionInfo": package.version, "downloadLocation": _NONE,
        "filesAnalyzed": False, "licenseConcluded": _NONE, "licenseDeclared": expression or _NONE,
        "copyrightText": _NONE, "externalRefs": [_purl(locator)],
    }  # fmt: skip
    if package.supplier:
        out["supplier"] = _supplier(package)
    if re.fullmatch(r"https?://[A-Za-z0-9.-]+(?::\d+)?(?:/[A-Za-z0-9._~%/?#=&+-]*)?", package.homepage):
        out["homepage"] = package.homepage
    if package.about:
        out["summary"] = package.about
    if package.source:
        version = f" {package.source_version}" if package.source_version else ""
        out["sourceInfo"] = f"built from the source package {package.source}{version}"
    if package.checksums:
        out["checksums"] = [{"algorithm": a, "checksumValue": b} for a, b in package.checksums]
    return out


def _with_text(merged: Merged, key: str, called: str, text: str, expression: str) -> tuple[str, str]:
    """List a LicenseRef with its text, under a name of its own for every text; the name, and the expression with it."""
    if text:
        name = f"{key}-{digest_of([text.encode()])[7:15]}"
        expression = re.sub(rf"(?<![A-Za-z0-9.-]){re.escape(key)}(?![A-Za-z0-9.-])", name, expression)
        key = name
    merged.licence(key, called, text or f"Its text is not in the image. The package's database calls it: {called}")
    return key, expression


def _system(name: str, distribution: Distribution) -> dict[str, Any]:
    out = {
        "SPDXID": name, "name": distribution.id, "downloadLocation": _NONE, "filesAnalyzed": False,
        "licenseConcluded": _NONE, "licenseDeclared": _NONE, "copyrightText": _NONE,
        "primaryPackagePurpose": "OPERATING-SYSTEM",
    }  # fmt: skip
    if distribution.version:
        out["versionInfo"] = distribution.version
    if distribution.title:
        out["description"] = distribution.title
    return out


def _supplier(package: Package) -> str:
    """`Person: Name (mail)`: the only forms that the specification has."""
    name, mark, mail = package.supplier.rstrip(" >").partition("<")
    user, _, domain = mail.partition("@")
    if not (mark and _USER.fullmatch(user) and _DOMAIN.fullmatch(domain)):
        mail = ""
    name = re.sub(r"[()<>\"]", "", name).strip() or mail
    if not name:
        return _NONE
    kind = _SUPPLIERS.get(package.kind, "Person")
    return f"{kind}: {name}" + (f" ({mail})" if mail and name != mail else "")


def _purl(locator: str) -> dict[str, str]:
    return {"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": locator}


def _bare(locator: str) -> str:
    return locator.partition("?")[0]


def _safe(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "-", text)[:100]
