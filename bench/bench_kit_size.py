#!/usr/bin/env python3
"""What a kit package holds against the same Debian packages installed whole, with all that they depend on.

    bench_kit_size.py [NAME...]

Sliced: the bytes of the files in the image. Whole: Installed-Size of the recipe's packages and of everything that they
depend on, as apt would install it without recommendations, of each alternative the first. The package lists are
those that the kit's last build fetched.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from linuxkit.entry import Kind  # noqa: E402
from linuxkit.oci.derived import Derived  # noqa: E402
from linuxkit.oci.layer import LayerCache  # noqa: E402
from linuxkit.oci.media import Platform  # noqa: E402
from linuxkit.oci.store import Store  # noqa: E402
from linuxkit.packages.kit import Kit  # noqa: E402
from support.system import image_cache  # noqa: E402

BAR = 1 / 3
STANZA = re.compile(r"^(Package|Installed-Size|Depends|Pre-Depends|Provides): (.*)$", re.MULTILINE)


def archive(root: Path) -> dict[str, tuple[int, list[str]]]:
    """name → (KiB, what it depends on), of every package and of what packages provide."""
    found: dict[str, tuple[int, list[str]]] = {}
    provided: dict[str, tuple[int, list[str]]] = {}
    for lists in sorted(root.glob("trixie-amd64-*/lists/*_main_binary-amd64_Packages")):
        for stanza in lists.read_text().split("\n\n"):
            fields = dict(STANZA.findall(stanza))
            if "Package" not in fields:
                continue
            relations = ",".join(fields.get(key, "") for key in ("Pre-Depends", "Depends"))
            needs = [name[1] for part in relations.split(",") if (name := re.match(r"\s*([a-z0-9][a-z0-9+.-]*)", part))]
            entry = (int(fields.get("Installed-Size", 0)), needs)
            found[fields["Package"]] = entry
            for name in re.findall(r"(?:^|,)\s*([a-z0-9][a-z0-9+.-]*)", fields.get("Provides", "")):
                provided.setdefault(name, (0, [fields["Package"]]))
    return provided | found


def whole(names: tuple[str, ...], packages: dict[str, tuple[int, list[str]]]) -> int:
    """Bytes."""
    queue, seen = list(names), set[str]()
    while queue:
        name = queue.pop()
        if name not in seen and name in packages:
            seen.add(name)
            queue += packages[name][1]
    return sum(packages[name][0] for name in seen) << 10


def main() -> None:
    store = Store(image_cache())
    kit = Kit(store, store.root / "kit")
    layers, packages = LayerCache(store, Derived(store.root / "derived")), archive(store.root / "kit" / "debian")
    print(f"{'package':<20}{'sliced':>10}{'whole':>12}{'ratio':>8}")
    for name in sys.argv[1:] or kit.names():
        recipe = kit.recipe(name)
        image = kit.find(name, Platform("linux", "amd64"))
        if image is None or not recipe.debian.packages or recipe.debian.suite != "trixie":
            continue
        wanted = tuple(package.replace("{arch}", "amd64") for package in recipe.debian.packages)
        sliced = sum(
            entry.source.size
            for layer, diff_id in zip(image.layers, image.config.diff_ids, strict=True)
            for entry in layers.entries(layer, diff_id)
            if entry.kind is Kind.FILE and entry.source is not None
        )
        ratio = sliced / whole(wanted, packages)
        size, all_of_it = (f"{n / 1e6:.1f} MB" for n in (sliced, whole(wanted, packages)))
        print(f"{name:<20}{size:>10}{all_of_it:>12}{ratio:8.2f}   {'held' if ratio <= BAR else 'MISSED'}")


if __name__ == "__main__":
    main()
