"""User data becomes files below one folder, whatever it says."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from linuxkit.machine.userdata import faults
from support.metadata import Metadata, files, from_file, metadata, metadata_program, service

__all__ = ["metadata", "metadata_program"]

pytestmark = pytest.mark.guest
FEW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
SAYS = "metadata: user data: "
NAMES = ["content", "entries", "perm", "a", "..", "b/c", ""]
PIECES = b'{ } [ ] " : , \\u d83d \\ a 1 - e+ null {"a": "content" \xff'.split()


def test_entries_become_files_and_folders(metadata: Metadata, tmp_path: Path) -> None:
    tree = {
        "a": {"content": "x"}, "b": {"perm": "0600", "content": ""}, "c": {"entries": {}},
        "d": {"perm": "711", "entries": {"e": {"entries": {"f": {"Content": "deep\0😀\n", "Perm": "4755"}}}}},
        "g": {"content": None, "entries": {"h": {"content": "null is nothing", "perm": ""}}, "more": [1, 2.5e3, True]},
    }  # fmt: skip
    from_file(metadata, tmp_path, b" \n" + json.dumps(tree).encode() + b"\n")
    config = tmp_path / "config"
    made = files(config)
    del made["userdata"], made["provider"]
    assert made == {
        "a": (0o644, b"x"), "b": (0o600, b""), "d/e/f": (0o755, "deep\0😀\n".encode()),
        "g/h": (0o644, b"null is nothing"),
    }  # fmt: skip
    assert [(config / name).stat().st_mode & 0o7777 for name in ("c", "d", "d/e")] == [0o755, 0o711, 0o755]
    assert (config / "provider").read_text() == f"{tmp_path}/data"


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("..", {"content": "x"}),
        (".", {"entries": {}}),
        ("", {"content": "x"}),
        ("../outside", {"content": "x"}),
        ("/outside", {"content": "x"}),
        ("a/../../outside", {"content": "x"}),
        ("..", {"entries": {"outside": {"content": "x"}}}),
        ("x\u0000y", {"content": "x"}),
        ("n" * 256, {"content": "x"}),
        ("a", {}),
        ("a", None),
        ("a", {"content": "x", "entries": {}}),
        ("a", {"content": "x", "perm": "rwx"}),
        ("a", {"content": "x", "perm": "0888"}),
        ("a", {"content": "x", "perm": "-1"}),
        ("a", {"content": "x", "perm": "77777"}),
        ("a", {"content": "x", "perm": "0x1ff"}),
    ],
)
def test_an_entry_that_makes_no_sense_is_named_and_the_others_are_made(
    metadata: Metadata, tmp_path: Path, name: str, entry: object
) -> None:
    text = json.dumps({name: entry, "good": {"content": "made"}}).encode()
    said = from_file(metadata, tmp_path, text)
    assert said.count("user data: ") == len(faults(text)) == 1
    assert set(files(tmp_path / "config")) == {"userdata", "provider", "good"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config", "data", "root"]


def test_no_link_leads_out(metadata: Metadata, tmp_path: Path) -> None:
    config, outside = tmp_path / "config", tmp_path / "outside"
    config.mkdir()
    outside.mkdir()
    (outside / "file").write_text("kept")
    (config / "file").symlink_to(outside / "file")
    (config / "folder").symlink_to(outside)
    (config / "userdata").symlink_to(outside / "file")
    (config / "ssh").symlink_to(outside)
    tree = {"file": {"content": "new"}, "folder": {"entries": {"a": {"content": "x"}}}}
    with service("hetzner", json.dumps(tree).encode()) as cloud:
        said = metadata("hetzner", base=cloud.url, status=1).stderr
    assert "folder" in said and "ssh/authorized_keys" in said
    assert [p.name for p in outside.iterdir()] == ["file"] and (outside / "file").read_text() == "kept"
    assert (config / "file").read_text() == "new" and not (config / "file").is_symlink()


@pytest.mark.parametrize(
    "text",
    [
        b"#cloud-config\n", b"#!/bin/sh\n", b"plain", b"{", b'{"a": {"content": "x"}', b'{"a": {"content": "x"}} more',
        b'{"a": {"content": 5}}', b'{"a": 5}', b'{"a": {"content": "x"}, "b": {"entries": []}}',
        b'{"a": {"perm": 420, "content": "x"}}', b'{"a": {"content": "x",}}', b'{"a": {"content": "\n"}}',
        b'{"a": {"content": "\\x41"}}', b'{a: {"content": "x"}}', b'{"a": {"content": "x"}, "n": 01}',
        b'{"a": {"content": "x"}, "n": {"q": nul}}', b'{"a": {"content": "\\u12"}}',
        b'{"a": {"content": "x"}, "z": ' + b"[" * 5000 + b"]" * 5000 + b"}", b'["a"]', b"5", b'"a"', b"\xff\xfe{}",
        b"{\0}",
        b'{"a": {"content": "x"}, "z": {"q": [' + b"0," * 200_000 + b"0]}}",
    ],
    ids=range(24),
)  # fmt: skip
def test_what_is_no_tree_is_kept_as_it_is(metadata: Metadata, tmp_path: Path, text: bytes) -> None:
    said = from_file(metadata, tmp_path, text)
    assert len(faults(text)) == ("so it is not unpacked" in said)
    assert files(tmp_path / "config")["userdata"] == (0o644, text)
    assert set(files(tmp_path / "config")) == {"userdata", "provider"}


@FEW
@given(st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=20,
))  # fmt: skip
def test_no_json_upsets_it_gets_out_or_is_another_surprise_than_foretold(
    metadata: Metadata, tmp_path: Path, value: object
) -> None:
    shutil.rmtree(tmp_path / "config", ignore_errors=True)
    text = json.dumps({"x": value} if not isinstance(value, dict) else value).encode()
    said = [line for line in from_file(metadata, tmp_path, text).splitlines() if line.startswith(SAYS)]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config", "data", "root"]
    assert len(said) == len(faults(text)), (said, faults(text))
    assert (said == []) == (faults(text) == [])


@FEW
@given(st.lists(st.sampled_from(PIECES), max_size=40))
def test_no_text_upsets_the_reader(metadata: Metadata, tmp_path: Path, parts: list[bytes]) -> None:
    from_file(metadata, tmp_path, b"{" + b"".join(parts))


def test_what_the_console_shows_has_no_strangers_control_characters(metadata: Metadata, tmp_path: Path) -> None:
    said = from_file(metadata, tmp_path, json.dumps({"\x1b[31m\nred": {}}).encode())
    assert "\x1b" not in said and "?[31m?red is invalid" in said


def test_user_data_as_large_as_metadata_create_takes(metadata: Metadata, tmp_path: Path) -> None:
    from linuxkit.cli.run import MAX_DATA

    (tmp_path / "data").write_bytes(b"")
    os.truncate(tmp_path / "data", MAX_DATA + 1)
    assert "File too large" in metadata(f"file={tmp_path}/data", status=1).stderr
    os.truncate(tmp_path / "data", MAX_DATA)
    metadata(f"file={tmp_path}/data")
    assert (tmp_path / "config/userdata").stat().st_size == MAX_DATA
