"""docs/packages.md has every key of build.yml, and none that isn't there."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from linuxkit.config.docs import type_name
from linuxkit.config.types import Field
from linuxkit.packages import recipe
from linuxkit.pkg import schema
from linuxkit.pkg.engines.table import ENGINES

pytestmark = pytest.mark.unit
TEXT = (Path(__file__).resolve().parents[2] / "docs/packages.md").read_text()


def section(title: str) -> str:
    return re.split(r"^##+ ", TEXT.split(f" {title}\n", 1)[1], maxsplit=1, flags=re.M)[0]


def keys(title: str) -> set[str]:
    """What stands in the first column of a section's table."""
    lines = [line.split("|")[1] for line in section(title).splitlines() if line.startswith("| `")]
    return {name for line in lines for name in re.findall(r"`([^`]+)`", line)}


def row(field: Field) -> str:
    kinds = {"depends": "see below", "config": "keys of a container"}
    doc = field.doc + (f" Example: `{field.example}`" if field.example else "")
    cells = (f"`{field.name}`", kinds.get(field.name) or type_name(field.type),
             "required" if field.required else field.default, doc)  # fmt: skip
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def test_the_keys_of_every_package() -> None:
    assert [line for line in section("Keys of every package").splitlines() if line.startswith("| `")] == [
        row(field) for field in schema.PACKAGE.fields]  # fmt: skip
    assert all(row(field) in section("Dockerfiles") for field in schema.DOCKER_IMAGES.fields)


@pytest.mark.parametrize(("title", "of"), [
    ("debian", recipe.FromDebian), ("alpine", recipe.FromAlpine), ("c", recipe.Program), ("files", recipe.RecipeFile),
    ("users, groups", recipe.Account), ("kernel", recipe.KernelPart),
])  # fmt: skip
def test_the_keys_of_a_part_of_a_recipe(title: str, of: type) -> None:
    assert keys(title) == {field.name for field in fields(of)}


def test_the_keys_of_a_recipe_and_the_engines() -> None:
    assert keys("Native recipes") == recipe.KEYS - {field.name for field in schema.PACKAGE.fields}
    assert keys("Engines") == set(ENGINES)
    assert {field.name for field in fields(recipe.Recipe)} - {"name", "folder", "programs"} <= recipe.KEYS


def test_the_example_is_one(tmp_path: Path) -> None:
    from linuxkit.pkg.parse import read_package

    text = re.search(r"```yaml\n(.*?)```", section("Native recipes"), re.S)
    assert text is not None
    (tmp_path / "build.yml").write_text(text[1])
    (tmp_path / "hello.conf").write_text("x")
    package = read_package(tmp_path)
    assert package.recipe is not None
    assert (package.org, package.recipe.base) == ("registry.example/team", "kit://busybox")
