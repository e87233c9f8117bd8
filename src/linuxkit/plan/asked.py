"""Every image that a configuration asks for, and where it does. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from linuxkit.config.model import Config, Position, VolumeFormat
from linuxkit.oci.media import Platform
from linuxkit.oci.reference import parse_reference

KIT = "kit://"
#: Schemes of images in files on this machine; oci.archive reads them.
ARCHIVES = ("oci", "oci-archive", "docker-archive")
#: Kit packages with boot loaders, and their architectures: on others, a format does without one, or is refused.
BOOTSTAGE, EFI_BOOT, RPI_BOOT, SYSLINUX = "bootstage", "efi-boot", "rpi-boot", "syslinux"
LOADER_ARCHITECTURES = {
    BOOTSTAGE: ("amd64", "arm64", "riscv64"), EFI_BOOT: ("amd64", "arm64", "riscv64"), RPI_BOOT: ("arm64",),
    SYSLINUX: ("amd64",),
}  # fmt: skip
#: A format that brings each of them into a lock or a bundle.
LOADER_FORMATS = {BOOTSTAGE: "kernel+squashfs", EFI_BOOT: "raw-efi", RPI_BOOT: "rpi", SYSLINUX: "raw-bios"}
LOADER = "boot loader"  # the place of an image that a format asks for


@dataclass(frozen=True, slots=True)
class Asked:
    """One place that names an image.

    path       in the document: services[0].image.
    text       as it stands there.
    platforms  that the build needs it for; the build's own comes first.
    """

    path: str
    text: str
    position: Position
    platforms: tuple[Platform, ...]


def asked(config: Config, platform: Platform, loaders: Sequence[str] = ()) -> list[Asked]:
    """All places, in the order of a build: kernel, init, onboot, onshutdown, services, volumes.

    Args:
        loaders: kit packages that the output formats need beside.
    """
    own = (platform,)
    found = [Asked("kernel.image", config.kernel.image, config.kernel.position, own)] if config.kernel.image else []
    found += [Asked(f"init[{n}]", item.image, item.position, own) for n, item in enumerate(config.init)]
    for section in ("onboot", "onshutdown", "services"):
        entries = getattr(config, section)
        found += [Asked(f"{section}[{n}].image", c.image, c.position, own) for n, c in enumerate(entries)]
    for n, volume in enumerate(config.volumes):
        if volume.image:
            also = volume.platforms if volume.format is VolumeFormat.OCI else ()
            platforms = dict.fromkeys((platform, *map(parse_platform, also)))
            found.append(Asked(f"volumes[{n}].image", volume.image, volume.position, tuple(platforms)))
    needed = loaders_for(loaders, platform.architecture)
    return found + [Asked(LOADER, f"{KIT}{name}", Position(), own) for name in needed]


def loaders_for(names: Iterable[str], architecture: str) -> list[str]:
    """Those of some boot loaders that there are for an architecture, sorted."""
    return sorted(name for name in names if architecture in LOADER_ARCHITECTURES.get(name, (architecture,)))


def parse_platform(text: str) -> Platform:
    """`OS/ARCH[/VARIANT]`."""
    os, _, rest = text.partition("/")
    architecture, _, variant = rest.partition("/")
    return Platform(os, architecture, variant)


def name_of(text: str) -> str:
    """The one name of an image, however short it was written: the key in a lock.

    Raises:
        InputError: it cannot name an image.
    """
    if "://" in text or text.partition(":")[0] in ARCHIVES:
        return text
    return parse_reference(text).tagged
