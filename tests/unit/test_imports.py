"""The import rules of docs/design/overview.md, kept by walking the sources."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit
SRC = Path(__file__).resolve().parents[2] / "src" / "linuxkit"
BASE = {"errors", "entry", "data", "host", "follow", "room"}
ALLOWED = {
    "errors": set(), "foreign": set(), "entry": set(), "data": set(), "host": {"errors", "room"}, "room": {"errors"},
    "follow": {"errors"},
    "config": {"errors"},
    "encode": {"errors", "entry", "follow"},
    "oci": {"errors", "entry", "follow", "encode", "host", "room"},
    "runtime": {"errors", "entry", "config", "oci.media"},
    "trust": {"errors", "config", "oci"},
    "plan": {"errors", "entry", "config", "runtime", "oci.media", "oci.reference"},
    "sbom": {"errors", "entry", "follow", "encode", "oci", "plan"},
    "rootfs": {"errors", "entry", "follow", "config", "runtime", "oci", "encode", "plan", "sbom"},
    "outputs": {"errors", "entry", "follow", "plan", "rootfs", "encode", "oci"},
    "packages": {*BASE, "oci", "encode", "config"},
    "pkg": {*BASE, "oci", "encode", "config", "packages"},
    "machine": {"errors", "host"},
    "places": {*BASE, "oci.transport", "packages.rsa"},
    "clouds": {*BASE, "places", "encode", "oci.transport", "packages.rsa", "serving", "platforms"},
    "platforms": {*BASE, "machine", "encode", "oci.unpack"},
    "hypervisors": {*BASE, "machine", "encode", "platforms", "places"},
    "serving": {"errors"},
    "cluster": {"errors", "config", "machine", "platforms"},
    "sources": {"errors", "oci", "packages", "sbom", "trust"},
    "hostfiles": {"errors", "config", "plan", "sources"},
    "locking": {"errors", "sources", "oci", "packages", "plan", "config", "outputs"},
    "bundling": {"*"}, "testing": {"*"}, "checking": {"*"},
    "api": {"*"}, "cli": {"*"}, "__main__": {"cli"}, "__init__": {"*"},
}  # fmt: skip
#: module → the standard library it alone may use
ONLY = {
    "subprocess": {"host", "machine/process"},
    "socket": {"oci/connections", "oci/transport", "machine", "clouds", "hypervisors", "places", "platforms", "serving",
               "cluster"},
    "http": {"oci/transport", "serving"},
    "urllib3": {"oci/connections", "oci/response", "oci/transport"},
}


def imports(path: Path) -> list[tuple[str, int]]:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.append((node.module, node.lineno))
            if node.module == "linuxkit" or node.module.startswith("linuxkit."):
                found += [(f"{node.module}.{alias.name}", node.lineno) for alias in node.names]
    return found


def modules() -> list[Path]:
    return sorted(p for p in SRC.rglob("*.py") if "_data" not in p.parts)


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(SRC)))
def test_a_module_imports_only_what_its_layer_may(path: Path) -> None:
    here = path.relative_to(SRC).with_suffix("")
    layer = here.parts[0]
    allowed = ALLOWED[layer] | {"foreign"}
    wrong = []
    for name, line in imports(path):
        if name.startswith("linuxkit."):
            target = name.removeprefix("linuxkit.")
            top = target.split(".")[0]
            if not (SRC / top).is_dir() and not (SRC / f"{top}.py").is_file():
                continue  # an attribute of the package itself, such as __version__
            near = any((target + ".").startswith(a + ".") or a.startswith(target + ".") for a in allowed)
            if not ("*" in allowed or top in allowed | {layer} or near):
                wrong.append(f"{here}:{line} imports {name}")
        else:
            top = name.split(".")[0]
            users = ONLY.get(top)
            if users and not any(str(here) == u or str(here).startswith(u + "/") for u in users):
                wrong.append(f"{here}:{line} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_modules_stay_small() -> None:
    long = {str(p.relative_to(SRC)): n for p in modules() if (n := len(p.read_text().splitlines())) > 400}
    assert not long


@pytest.mark.parametrize("path", sorted((SRC / "cli").glob("*.py")), ids=lambda p: p.stem)
def test_every_command_can_be_imported(path: Path) -> None:
    """A name that only type checkers see is no name at run time."""
    import importlib

    assert importlib.import_module(f"linuxkit.cli.{path.stem}")


#: Who reads JSON by itself: what the program wrote, what is the user's own, and what bounds it in another way.
OWN_JSON = {
    "foreign.py", "machine/userdata.py", "oci/kitmade.py", "oci/layer.py", "outputs/blockcache.py",
    "outputs/filesystems.py", "outputs/recall.py", "outputs/rootfacts.py", "plan/lock.py", "rootfs/acls.py",
    "rootfs/names.py", "sbom/attach.py", "sbom/layers.py",
}  # fmt: skip


def test_foreign_json_is_read_in_one_place() -> None:
    found = set()
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in ("loads", "load") and isinstance(node.value, ast.Name) \
                    and node.value.id == "json":  # fmt: skip
                found.add(str(path.relative_to(SRC)))
    assert found == OWN_JSON
