"""Every option of `build` that decides bytes is in the provenance and in the key of the rebuild shortcut."""

from __future__ import annotations

from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import click
import pytest

from linuxkit.cli import build as command
from linuxkit.cli.parameters import DECIDE, DO_NOT_DECIDE, parameters
from linuxkit.outputs.recall import inputs_key

pytestmark = pytest.mark.unit
OPTIONS = {option.name: option for option in command.build.params if option.name is not None}
SETTINGS = command.Settings(Path("cache"), False, 1, (), ())
DEFAULTS = command.build.make_context("build", ["a.yml"], obj=SETTINGS).params


def other(name: str, tmp_path: Path) -> Any:
    """A value that is not the default."""
    option = OPTIONS[name]
    if isinstance(option.type, click.Choice):
        return next(c for c in option.type.choices if c != DEFAULTS[name])
    if isinstance(option, click.Option) and option.is_flag:
        return True
    if isinstance(option.type, click.Path):
        (tmp_path / "file").write_bytes(b"certificate")
        return tmp_path / "file"
    if option.type is click.INT:
        return 7
    return ("raw-efi",) if option.multiple else "7"  # type: ignore[attr-defined]


def said(changed: dict[str, Any]) -> dict[str, Any]:
    return parameters(DEFAULTS | changed, {})


def test_every_option_is_in_one_of_the_two_lists() -> None:
    assert {*DECIDE, *DO_NOT_DECIDE} == set(OPTIONS)
    assert not {*DECIDE} & {*DO_NOT_DECIDE} and all(DO_NOT_DECIDE.values())
    assert len(set(DECIDE.values())) == len(DECIDE)


@pytest.mark.parametrize("option", DECIDE)
def test_the_provenance_says_it(option: str, tmp_path: Path) -> None:
    value = other(option, tmp_path)
    changed = said({option: value})
    assert changed != said({})
    if option not in ("output", "formats", "no_sbom"):
        assert DECIDE[option] in changed
    assert str(tmp_path) not in str(changed)  # a certificate by its digest


@pytest.mark.parametrize("option", DECIDE)
def test_the_shortcut_heeds_it(option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the command line: the key that it asks for is another one."""
    seen: list[dict[str, Any]] = []

    class SeenError(Exception):
        pass

    def note(files: object, flags: dict[str, Any], *rest: object, **more: object) -> None:
        seen.append(flags)
        raise SeenError

    monkeypatch.setattr("linuxkit.outputs.recall.inputs_key", note)
    (tmp_path / "a.yml").write_text("files: []\n")
    monkeypatch.chdir(tmp_path)
    settings = replace(SETTINGS, cache=tmp_path / "cache")
    value = other(option, tmp_path)
    for changed in ({}, {option: value}):
        words = [str(tmp_path / "a.yml")]
        for name, given in changed.items():
            flag = next(f for f in OPTIONS[name].opts if f.startswith("--"))
            words += [flag] if given is True else [flag, *([given[0]] if isinstance(given, tuple) else [str(given)])]
        try:
            command.build.main(words, obj=settings, standalone_mode=False)
            seen.append({"no": "shortcut with that option"})
        except SeenError:
            continue
    assert len(seen) == 2 and seen[0] != seen[1]


def test_flags_are_in_the_key(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text("{}")

    def key(flags: dict[str, Any]) -> str | None:
        return inputs_key([], flags, tmp_path / "index.json", [], tmp_path)

    assert key({"mem": ""}) != key({"mem": "1G"}) != key({}) and key({"mem": ""}) == key({"mem": ""})


def test_what_is_not_given_is_not_there() -> None:
    assert said({}) == {"formats": ["kernel+initrd"], "sbomFormat": "spdx", "whiteouts": "linuxkit"}
    assert "sbomFormat" not in said({"no_sbom": True})


def test_a_level_of_zero_is_said() -> None:
    assert said({"level": 0})["level"] == 0 and "level" not in said({})
    assert "size" not in parameters(DEFAULTS, {"size": None})


def test_another_wheel_ends_the_shortcut(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Through the command line: what the key is made of has each wheel's version."""
    seen: list[dict[str, Any]] = []

    class SeenError(Exception):
        pass

    def note(files: object, flags: dict[str, Any], *rest: object, **more: object) -> None:
        seen.append(flags)
        raise SeenError

    monkeypatch.setattr("linuxkit.outputs.recall.inputs_key", note)
    (tmp_path / "a.yml").write_text("files: []\n")
    real = metadata.version
    for name in ("", "zlib-ng", "zstandard", "lz4", "ziglang"):
        monkeypatch.setattr(metadata, "version", lambda n, name=name: "0.0" if n == name else real(n))
        with pytest.raises(SeenError):
            command.build.main([str(tmp_path / "a.yml")], obj=SETTINGS, standalone_mode=False)
    assert len(seen) == 5 and all(one != seen[0] for one in seen[1:])
