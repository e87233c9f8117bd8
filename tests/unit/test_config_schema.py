"""What is made from the table: the JSON Schema and docs/yaml.md; and that the table fits the model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner

from linuxkit.cli.schema import schema as command
from linuxkit.config import model, schema
from linuxkit.config.docs import yaml_reference
from linuxkit.config.document import Mapping, Node, Scalar, Sequence, read_document
from linuxkit.config.jsonschema import json_schema
from linuxkit.config.parse import parse_config
from linuxkit.config.types import ListOf, Object, Type
from linuxkit.errors import InputError
from support.recordings import CASES

pytestmark = pytest.mark.unit
ROOT = Path(__file__).resolve().parents[2]


def objects(of: Type) -> Iterator[Object]:
    if isinstance(of, ListOf):
        yield from objects(of.item)
    if isinstance(of, Object):
        yield of
        for field in of.fields:
            yield from objects(field.type)


def value(node: Node) -> Any:
    if isinstance(node, Scalar):
        return node.value
    if isinstance(node, Sequence):
        return [value(item) for item in node.items]
    assert isinstance(node, Mapping)
    return {key.text: value(item) for key, item in node.pairs}


def test_docs_yaml_md_is_made_from_the_table() -> None:
    written = (ROOT / "docs" / "yaml.md").read_text()
    assert written == yaml_reference(), "run: linuxkit schema --markdown > docs/yaml.md"


def test_every_link_of_the_reference_has_its_heading() -> None:
    import re

    text = yaml_reference()
    headings = {re.sub(r"[^a-z0-9 -]", "", line.lstrip("# ").lower()).replace(" ", "-")
                for line in text.splitlines() if line.startswith("#")}  # fmt: skip
    assert set(re.findall(r"\]\(#([^)]*)\)", text)) <= headings


def test_the_examples_of_the_reference_are_valid() -> None:
    blocks = [b.split("```")[0] for b in yaml_reference().split("```yaml\n")[1:]]
    assert len(blocks) > 5
    for block in blocks:
        top = block.split(":")[0]
        if schema.TOP.field(top) is None:  # a key of a container
            block = "services:\n  - name: a\n    image: b\n" + "".join(f"    {line}\n" for line in block.splitlines())
        parse_config(block)


def test_every_table_fits_its_dataclass() -> None:
    seen = {of.name: of for of in objects(schema.TOP)} | {"settings": schema.SETTINGS}
    checked = 0
    for of in seen.values():
        names = [f.name for f in of.fields]
        assert len(names) == len(set(names)), of.name
        if isinstance(of.make, type) and of.make is not dict:
            known = {f.name for f in fields(of.make)}
            assert {f.attribute for f in of.fields} <= known, of.name
            ours = {"restart", "onfail", "timeout", "healthcheck"}
            left = known - {f.attribute for f in of.fields} - {"position", "keys"} - ours
            assert not left, of.name
            checked += 1
    assert checked == 11
    for section in (schema.ONBOOT, schema.ONSHUTDOWN, schema.SERVICE):
        attributes = {f.attribute for f in section.fields} - {"name", "image"}
        assert attributes <= {f.name for f in fields(model.ImageSettings)}


def test_the_json_schema_is_valid_and_describes_every_key() -> None:
    found = json_schema()
    jsonschema.Draft202012Validator.check_schema(found)
    assert set(found["$defs"]) == {of.name for of in objects(schema.TOP)} - {""}
    for definition in found["$defs"].values():
        assert definition["additionalProperties"] is False
        assert all(key.get("description") for key in definition["properties"].values())


def test_the_json_schema_agrees_with_the_parser_on_the_recorded_inputs() -> None:
    validator = jsonschema.Draft202012Validator(json_schema())
    rules = {"files-nothing-error", "files-contents-source-error", "files-contents-metadata-error", "service-dup-error",
             "files-source-metadata-error", "files-dir-contents-error", "bad-int-key-error"}  # fmt: skip
    checked = 0
    for path in CASES:
        for name, text in json.loads(path.read_text())["inputs"].items():
            if not name.endswith(".yml") or path.stem in rules or path.stem == "comment-only":
                continue
            try:
                parse_config(text)
                right = True
            except InputError:
                right = False
            assert validator.is_valid(value(read_document(text))) == right, path.stem
            checked += 1
    assert checked > 100


def test_the_command_prints_both() -> None:
    runner = CliRunner()
    plain = runner.invoke(command)
    assert plain.exit_code == 0
    assert json.loads(plain.output) == json_schema()
    assert runner.invoke(command, ["--markdown"]).output == yaml_reference()
