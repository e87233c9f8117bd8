"""What a kit package was cut from, as its image's labels say.

    org.linuxkit.debian.packages = "libc6=2.41-12 nginx=1.26.3-3"
    org.linuxkit.debian.digests  = "libc6=<sha256 of the .deb> …"
    org.linuxkit.debian.suite    = "trixie"
    org.linuxkit.compiler        = "ziglang 0.17.1"      what its own programs were compiled with,
    org.linuxkit.libc            = "musl 1.2.5"          and what is linked into them
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from linuxkit.sbom.model import Database, Distribution, Package, usable

PACKAGES, DIGESTS, SUITE = (f"org.linuxkit.debian.{name}" for name in ("packages", "digests", "suite"))
COMPILER, LIBC = "org.linuxkit.compiler", "org.linuxkit.libc"
_SUITES = {"bullseye": "11", "bookworm": "12", "trixie": "13", "forky": "14"}


def parse(labels: Mapping[str, str], architecture: str) -> Database:
    """The Debian packages that files were taken from.

    Args:
        architecture: of the image, in Go's names.
    """
    digests = dict(_pairs(labels.get(DIGESTS, "")))
    spelled = {"386": "i386", "arm": "armhf"}.get(architecture, architecture)
    packages = []
    for name, version in _pairs(labels.get(PACKAGES, "")):
        digest = digests.get(name, "")
        sums = (("SHA256", digest),) if re.fullmatch(r"[0-9a-f]{64}", digest) else ()
        if usable(name, version):
            packages.append(Package("deb", name, version, spelled, checksums=sums))
    name, mark, version = labels.get(LIBC, "").partition(" ")
    if mark and usable(name, version):
        about = "C library, linked into this image's programs"
        packages.append(Package("generic", name, version, licence="MIT" if name == "musl" else "", about=about))
    return Database(tuple(packages))


def compiler(labels: Mapping[str, str]) -> str:
    """What the image's own programs were compiled with, `ziglang 0.17.1`; empty when there are none."""
    name, mark, version = labels.get(COMPILER, "").partition(" ")
    return f"{name} {version}" if mark and usable(name, version) else ""


def distribution(labels: Mapping[str, str]) -> Distribution:
    """Debian, for an image that says so only by its labels."""
    if PACKAGES not in labels:
        return Distribution()
    return Distribution("debian", _SUITES.get(labels.get(SUITE, ""), ""))


def _pairs(text: str) -> list[tuple[str, str]]:
    return [(name, value) for word in text.split()[:100_000] for name, mark, value in [word.partition("=")] if mark]
