"""Every output format at once: a cache with all that they need, and how to ask for them."""

from __future__ import annotations

from pathlib import Path

from linuxkit.oci.store import Store
from linuxkit.outputs.table import FORMATS
from support.bios import add_bios
from support.builds import make_cache
from support.efi import add_efi


def cache_for_all(root: Path) -> Path:
    """A store with what support.builds.YAML names and every boot loader, in `root`/cache."""
    cache = make_cache(root)
    add_efi(Store(cache))
    add_bios(Store(cache))
    return cache


def groups() -> list[str]:
    """All formats, as few values of --format as can be: those that make files of the same name apart, streams alone."""
    found: list[tuple[list[str], set[str]]] = []
    for name, one in FORMATS.items():
        if "rpi-boot" in one.loaders:  # there is no Raspberry Pi of this architecture: tests/unit/test_rpi_outputs.py
            continue
        for names, endings in found if not one.stream else ():
            if not endings & set(one.endings):
                names.append(name)
                endings.update(one.endings)
                break
        else:
            found.append(([name], set(one.endings) if not one.stream else {*one.endings, *ALL}))
    return [",".join(names) for names, _ in found]


ALL = {ending for one in FORMATS.values() for ending in one.endings}
