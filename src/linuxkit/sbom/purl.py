"""Package URLs: pkg:TYPE/NAMESPACE/NAME@VERSION?QUALIFIERS (https://github.com/package-url/purl-spec). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from linuxkit.oci.media import Image
from linuxkit.sbom.model import Distribution, Package

#: Whose packages these are when the image does not say.
_VENDORS = {"deb": "debian", "apk": "alpine"}
#: os-release's ID → the name that the purl specification uses.
_NAMESPACES = {"rhel": "redhat", "opensuse-leap": "opensuse", "opensuse-tumbleweed": "opensuse", "sles": "suse"}


def purl(package: Package, distribution: Distribution) -> str:
    """The package's own purl, or one made of its fields."""
    if package.purl:
        return package.purl
    qualifiers = {"arch": package.architecture, "epoch": package.epoch}
    vendor = _VENDORS.get(package.kind, "")
    if distribution.id and package.kind in ("deb", "apk", "rpm"):
        vendor = _NAMESPACES.get(distribution.id, distribution.id)
        qualifiers["distro"] = "-".join(p for p in (distribution.id, distribution.version) if p)
    own = (package.name, package.version)
    if package.source and (package.source, package.source_version or package.version) != own:
        version = f"@{package.source_version}" if package.source_version else ""
        qualifiers["upstream"] = package.source + version
    name = package.name if package.kind == "rpm" else package.name.lower()
    return make(package.kind, vendor.lower(), name, package.version, qualifiers)


def image_purl(image: Image) -> str:
    """pkg:oci/NAME@DIGEST?arch=…&repository_url=…&tag=…"""
    head, slash, last = image.reference.partition("@")[0].rpartition("/")
    base, _, tag = last.partition(":")
    repository = f"{head}{slash}{base}".lower()
    qualifiers = {"arch": image.platform.architecture, "repository_url": repository, "tag": tag}
    return make("oci", "", base.lower() or "image", image.digest, qualifiers)


def make(kind: str, namespace: str, name: str, version: str, qualifiers: Mapping[str, str]) -> str:
    """A purl of parts as they are; each is percent-encoded here."""
    parts = [kind, *(_encode(p) for p in namespace.split("/") if p), _encode(name)]
    text = f"pkg:{'/'.join(parts)}" + (f"@{_encode(version)}" if version else "")
    listed = "&".join(f"{key}={_encode(value, '/')}" for key, value in sorted(qualifiers.items()) if value)
    return f"{text}?{listed}" if listed else text


def _encode(text: str, safe: str = "") -> str:
    return quote(text, safe=safe + ":", errors="replace")
