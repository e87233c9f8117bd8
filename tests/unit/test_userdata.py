"""User data that a guest will not understand is told where it is written; the guest's own tests say that it agrees."""

from __future__ import annotations

from pathlib import Path

import pytest

from linuxkit.encode.config_iso import config_image
from linuxkit.machine.userdata import faults
from support.builds import linuxkit

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    "data",
    [
        b"", b"plain", b"#cloud-config\n", b"[1", b'{"a": {"content": "x", "perm": "0600"}, "b": {"entries": {}}}',
        b'{"a": {"CONTENT": "x", "entries": null}}', b'{"a": {"content": "x", "more": [1, {"q": null}]}}',
    ],
)  # fmt: skip
def test_what_a_guest_understands_or_does_not_look_at_is_no_fault(data: bytes) -> None:
    assert faults(data) == []


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b'{"a": {"content": "x"},}', "user data: not JSON, so it will not be unpacked: "),
        (b'{"a": {"content": NaN}}', "NaN is not a value"),
        (b'{"a": "x"}', "user data: JSON, but no tree of entries, so it will not be unpacked"),
        (b'{"ssh": {"sshd_config": {"content": "x"}}}', "'ssh' is invalid: an entry has either content or entries"),
        (b'{"a": {"entries": {"../b": {"content": "x"}}}}', "'a/../b': not a name for a file"),
        (b'{"a": {"content": "x", "perm": "rw"}}', "'a': perm is not an octal mode"),
        (b'{"a": ' + b"[" * 64 + b"]" * 64 + b"}", "nested too deeply"),
        (b'{"a": ' + b"[" * 9999 + b"]" * 9999 + b"}", "not be unpacked"),
    ],
    ids=range(8),
)
def test_a_fault_is_one_line(data: bytes, fault: str) -> None:
    (line,) = faults(data)
    assert fault in line


def test_metadata_create_writes_it_all_the_same(tmp_path: Path) -> None:
    text = '{"ssh": {}}'
    done = linuxkit("metadata", "create", "c.iso", text, cwd=tmp_path, cache=tmp_path / "cache")
    assert "note: user data: 'ssh' is invalid" in done.stderr
    assert (tmp_path / "c.iso").read_bytes() == config_image(text.encode())
