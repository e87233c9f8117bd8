"""A Config back to text: the recorded bytes, and back again for anything."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from linuxkit.config import schema
from linuxkit.config.emit import emit_yaml
from linuxkit.config.merge import merge
from linuxkit.config.model import Config, Trust
from linuxkit.config.parse import parse_config
from linuxkit.config.render import DRY_RUN, METADATA, dry_run, metadata
from linuxkit.errors import InputError
from linuxkit.oci.reference import expand
from linuxkit.runtime.check import check_settings
from support.config_values import REPEATABLE, values
from support.recordings import GOLDEN

pytestmark = pytest.mark.unit


def case(name: str) -> tuple[dict[str, Any], Config]:
    found = json.loads((GOLDEN / f"cases/{name}.json").read_text())
    return found, merge([parse_config(found["inputs"][a], a) for a in found["args"] if a.endswith(".yml")])


@pytest.mark.parametrize(("name", "path", "kind"), [
    ("files-metadata-json", "etc/linuxkit-config", "json"),
    ("files-metadata-yaml", "etc/linuxkit-config", "yaml"),
    ("merge-metadata", "etc/m", "yaml"),
])  # fmt: skip
def test_metadata_is_the_recorded_bytes(name: str, path: str, kind: Any) -> None:
    found, config = case(name)
    data = metadata(config, kind, expand)
    assert hashlib.sha256(data).hexdigest() == found["outputs"]["out.tar"][path]["sha256"], data.decode()


@pytest.mark.parametrize("name", ["dry-run", "dry-run-merge"])
def test_a_dry_run_prints_the_recorded_text(name: str) -> None:
    found, config = case(name)
    assert dry_run(config) == found["stdout"].removesuffix("\n")


FULL = r"""
kernel: {image: k, cmdline: "a=b", binary: vmlinuz, tar: "", ucode: u.cpio}
init: [a, "b:1"]
onboot:
  - name: one
    image: i
    command: ["/bin/sh", "-c", "echo 'hi'\n  x: y\n"]
    env: ["A=1", "yes", "1", "", " lead", "trail ", "tab\there", "multi\nline", "- x", "# c", "a: b", "a #b", "x:"]
    mounts: [{type: bind, source: vola, destination: /d, options: [ro]}]
    binds: []
    devices: [{path: /dev/x, type: c, major: 1, minor: 2, mode: "0600"}]
    uid: 0
    gid: one
    additionalGids: [1, one, "7"]
    readonly: false
    oomScoreAdj: 0
    sysctl: {b: "1", a: "2"}
    annotations: {}
    resources: {blockio: {weight: 3, throttleReadIOPSDevice: [{major: 1, rate: 4}]}, memory: {limit: -1, kernelTCP: 5}}
    uidMappings: [{hostID: 1, containerID: 2, size: 3}]
    runtime: {mkdir: [], bindNS: {net: /run/x}, interfaces: [{name: e, createInRoot: true}], namespace: ""}
    onfail: halt
services: [{name: s, image: j, restart: on-failure, cwd: ""}]
files:
  - {path: a, contents: ""}
  - {path: b, contents: "line one\nline two\n", mode: "0644", uid: 5, optional: true}
  - {path: c, symlink: /x}
  - {path: d, directory: true}
  - {path: e, contents: "  indented\n\n"}
  - {path: f, contents: "\ttabs\n\tmore\n"}
  - {path: g, metadata: json}
volumes: [{name: vola, image: v, readonly: true, format: oci, platforms: [linux/arm64]}]
"""


def test_everything_reads_back_the_same() -> None:
    config = parse_config(FULL)
    assert parse_config(dry_run(config)) == config
    for kind in ("yaml", "json"):
        text = metadata(config, kind, str)  # type: ignore[arg-type]
        if kind == "json":  # Go's null for an empty section is not a valid one
            text = json.dumps({k: v for k, v in json.loads(text).items() if v is not None}).encode()
        again = parse_config(text)
        assert again.kernel == config.kernel
        assert again.services == config.services
        assert again.files == config.files
        assert again.volumes == config.volumes


AWKWARD = [
    "yes", "1:30", "0755", "~", "null", "", " ", "\n", "\n\n", "a\n", "a\n\n", " a\nb", "a \nb", "-", "- a", "? a",
    "...", "---", "a: b", "a:", "'", '"', "#", "a #", "@x", "%a", "<<", "=", "2020-01-01", ".5", "1e3", "+1", "0x1",
    "\x85", "\U0001f600", "\ufeff", "a\tb", "\t", "\ta\n", "a\r\nb", "[", "{}", "!x", "&a", "*a", "|", ">", "1_000",
]  # fmt: skip
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.sampled_from(AWKWARD)
nested = st.recursive(
    texts | st.integers(-(10**20), 10**20) | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(texts, nested, max_size=4))
@settings(REPEATABLE, max_examples=150)
def test_what_is_emitted_is_read_by_another_reader_as_it_was(value: dict[str, Any]) -> None:
    for style in (DRY_RUN, METADATA):
        text = emit_yaml(value, style)
        read = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)) if text else {}
        assert read == value, text


@given(values(schema.TOP))
@settings(REPEATABLE, max_examples=80)
def test_any_config_reads_back_the_same_and_its_faults_have_places(document: dict[str, Any]) -> None:
    try:
        config = parse_config(json.dumps(document), "f")
    except InputError:
        return
    assert parse_config(dry_run(config)) == replace(config, trust=Trust())
    assert metadata(config, "json", str)
    assert parse_config(metadata(config, "yaml", str)) == replace(config, trust=Trust())
    try:
        check_settings(config)
    except InputError as e:
        assert e.problems
        assert all(p.line for p in e.problems)
