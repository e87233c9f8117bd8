"""Which compiler is taken, and what is said when there is none. That it compiles is seen where the guest boots."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from linuxkit.errors import HostError
from linuxkit.packages import toolchain

pytestmark = pytest.mark.unit


def played(monkeypatch: pytest.MonkeyPatch, folder: Path, text: str) -> None:
    """A script as the compiler."""
    path = folder / "cc"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    monkeypatch.setattr(toolchain, "compiler", lambda architecture: [path])


def test_zig_compiles_for_every_target(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain, "find_spec", lambda name: object())
    for architecture, target in toolchain.TARGETS.items():
        command = toolchain.compiler(architecture)
        assert command[:6] == [sys.executable, "-m", "ziglang", "cc", "-target", target]


def test_without_a_compiler_the_way_out_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain, "find_spec", lambda _: None)
    for architecture in toolchain.TARGETS:
        with pytest.raises(HostError, match=f"no C compiler for {architecture}") as caught:
            toolchain.compiler(architecture)
        assert "linuxkit[kit]" in caught.value.hint


def test_a_compiler_has_a_name_and_a_version() -> None:
    assert re.fullmatch(r"ziglang \d+(\.\d+)+\S*", toolchain.identity())


def compile_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, sources: tuple[str, ...] = ("*.c",)
) -> Path:
    (tmp_path / "bin").mkdir()
    (tmp_path / "guest").mkdir()
    for name in ("b.c", "a.c"):
        (tmp_path / "guest" / name).write_text("int x;\n")
    played(monkeypatch, tmp_path / "bin", script)
    output = tmp_path / "out"
    toolchain.compile_program("amd64", tmp_path / "guest", sources, ["-DX"], output, cache=tmp_path / "cache")
    return output


def test_the_command_is_static_and_names_no_place_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = compile_with(tmp_path, monkeypatch, f'echo "$@" >{tmp_path}/out').read_text().split()
    assert {"-static", "-Werror", "-Wl,--build-id=none", "-ffile-prefix-map=.=guest", "-DX"} <= set(words)
    assert words[-2:] == ["a.c", "b.c"]
    assert [w for w in words if str(tmp_path) in w] == [str(tmp_path / "out")]


def test_what_the_compiler_says_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(HostError, match=r"a\.c:1: error: no") as caught:
        compile_with(tmp_path, monkeypatch, "echo 'a.c:1: error: no' >&2; exit 1")
    assert "cc failed with exit status 1" in caught.value.message


def test_sources_that_are_not_there_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(HostError, match=r"no C source matches src/\*\.c"):
        compile_with(tmp_path, monkeypatch, "", ("src/*.c",))
