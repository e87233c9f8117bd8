"""Other tools' SPDX documents merged into ours. What they say is kept; what would make ours invalid is not.

Identifiers get the image's number, names of files its place in the root filesystem. Entries without what SPDX demands,
and relationships that lead nowhere, are left out and counted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from linuxkit.sbom.model import MAX_PACKAGES

_ID = re.compile(r"SPDXRef-[A-Za-z0-9.-]{1,300}")
_LICENCE_REF = re.compile(r"(?<![A-Za-z0-9.:-])LicenseRef-")
_LICENCE_FIELDS = frozenset({"licenseConcluded", "licenseDeclared", "licenseInfoFromFiles", "licenseInfoInFiles",
                             "licenseId"})  # fmt: skip
_OPEN = ("NONE", "NOASSERTION")
MAX_ITEMS = 200_000  # of any other list


class Merged:
    """The lists of a document under construction."""

    def __init__(self) -> None:
        self.packages: list[dict[str, Any]] = []
        self.files: list[dict[str, Any]] = []
        self.relationships: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []
        self.external: list[dict[str, Any]] = []
        self._licences: dict[str, dict[str, Any]] = {}
        self._used: set[str] = {"SPDXRef-DOCUMENT"}

    def identifier(self, wanted: str) -> str:
        """`wanted`, or with a number when it is taken."""
        name, n = wanted, 1
        while name in self._used:
            n += 1
            name = f"{wanted}-{n}"
        self._used.add(name)
        return name

    def has(self, identifier: str) -> bool:
        return identifier in self._used

    def relate(self, one: str, kind: str, other: str) -> None:
        self.relationships.append({"spdxElementId": one, "relationshipType": kind, "relatedSpdxElement": other})

    def licence(self, identifier: str, name: str, text: str) -> None:
        """What a LicenseRef is called, and its text."""
        self._licences.setdefault(identifier, {"licenseId": identifier, "name": name[:200], "extractedText": text})

    def licence_item(self, item: dict[str, Any]) -> None:
        self._licences.setdefault(item["licenseId"], item)

    def sections(self) -> dict[str, Any]:
        """The document's lists, those that have anything."""
        licences = [self._licences[key] for key in sorted(self._licences)]
        return {key: value for key, value in (
            ("packages", self.packages), ("files", self.files), ("relationships", self.relationships),
            ("hasExtractedLicensingInfos", licences), ("annotations", self.annotations),
            ("externalDocumentRefs", self.external),
        ) if value}  # fmt: skip


def merge_attested(merged: Merged, document: Mapping[str, Any], number: int, own: str, prefix: str,
                   known: Mapping[str, str]) -> list[str]:  # fmt: skip
    """Add a document about one image.

    Args:
        number: of the image; own: its identifier; prefix: its place.
        known: package URLs, without qualifiers, of what the image's databases list → identifier: said once is enough.

    Returns:
        What was left out, in words.
    """
    base = f"./{prefix}" if prefix else "."  # SPDX wants names relative to the root
    same = {"SPDXRef-DOCUMENT": own}
    left_out = 0

    def renamed(value: Any, key: str = "") -> Any:
        if isinstance(value, str):
            if value.startswith("SPDXRef-"):
                return same.get(value, f"SPDXRef-{number}-{value[8:]}")
            if value.startswith("DocumentRef-"):
                return f"DocumentRef-{number}-{value[12:]}"
            if key in _LICENCE_FIELDS:
                return _LICENCE_REF.sub(f"LicenseRef-{number}-", value)
            if key in ("fileName", "packageFileName"):
                return f"{base}/{value.removeprefix('./').lstrip('/')}"
            return value
        if isinstance(value, list):
            return [renamed(v, key) for v in value]
        if isinstance(value, dict):
            return {str(k): renamed(v, str(k)) for k, v in value.items()}
        return value

    def items(section: str) -> list[dict[str, Any]]:
        nonlocal left_out
        listed = document.get(section)
        if not isinstance(listed, list):
            left_out += bool(listed)
            return []
        most = MAX_PACKAGES if section == "packages" else MAX_ITEMS
        fit = [item for item in listed[:most] if isinstance(item, dict)]
        left_out += len(listed) - len(fit)
        return fit

    for item in items("packages"):
        there = known.get(_package_url(item))
        if there is not None and isinstance(item.get("SPDXID"), str):
            same[item["SPDXID"]] = there
    new: list[str] = []
    for section, into in (("packages", merged.packages), ("files", merged.files)):
        for item in items(section):
            identifier = item.get("SPDXID")
            if isinstance(identifier, str) and identifier in same:
                continue
            item = renamed(item)
            if not _fit(item, section) or merged.has(item["SPDXID"]):
                left_out += 1
                continue
            merged.identifier(item["SPDXID"])
            if section == "packages":
                item.setdefault("downloadLocation", "NOASSERTION")
                new.append(item["SPDXID"])
            into.append(item)
    for item in items("hasExtractedLicensingInfos"):
        item = renamed(item)
        if _texts(item, "licenseId", "extractedText") and str(item["licenseId"]).startswith("LicenseRef-"):
            merged.licence_item(item)
        else:
            left_out += 1
    reached = set()
    for item in items("relationships"):
        item = renamed(item)
        if not _texts(item, "spdxElementId", "relationshipType", "relatedSpdxElement") or not all(
            merged.has(end) or end.startswith("DocumentRef-") or end in _OPEN
            for end in (item["spdxElementId"], item["relatedSpdxElement"])
        ):
            left_out += 1
            continue
        if item["relationshipType"] == "DESCRIBES" and item["spdxElementId"] == own:
            item["relationshipType"] = "CONTAINS"
        if item["spdxElementId"] == item["relatedSpdxElement"]:
            continue
        if item["relationshipType"] == "CONTAINS" and item["relatedSpdxElement"] in known.values():
            continue  # said already
        reached.add(item["relatedSpdxElement"])
        merged.relationships.append(item)
    for identifier in new:
        if identifier not in reached:
            merged.relate(own, "CONTAINS", identifier)
    for item in items("annotations"):
        if _texts(item, "annotationType", "annotator", "annotationDate", "comment"):
            merged.annotations.append(renamed(item))
        else:
            left_out += 1
    for item in items("externalDocumentRefs"):
        if _texts(item, "externalDocumentId", "spdxDocument") and isinstance(item.get("checksum"), dict):
            merged.external.append(renamed(item))
        else:
            left_out += 1
    return [f"{left_out} entries of its attested SBOM are left out: not valid, or too many"] if left_out else []


def _texts(item: Mapping[str, Any], *keys: str) -> bool:
    return all(isinstance(item.get(key), str) for key in keys)


def _fit(item: Mapping[str, Any], section: str) -> bool:
    if not _texts(item, "SPDXID", "name" if section == "packages" else "fileName"):
        return False
    return bool(_ID.fullmatch(item["SPDXID"])) and (section == "packages" or bool(item.get("checksums")))


def _package_url(item: Mapping[str, Any]) -> str:
    """The package URL of an SPDX package, without qualifiers; "" when it has none."""
    listed = item.get("externalRefs")
    for reference in listed if isinstance(listed, list) else ():
        if isinstance(reference, dict) and reference.get("referenceType") == "purl":
            return str(reference.get("referenceLocator", "")).partition("?")[0]
    return ""
