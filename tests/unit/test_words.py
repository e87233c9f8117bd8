"""Flags as LinuxKit's users write them: global ones anywhere, Go's booleans, single-dash long ones of old tutorials."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from linuxkit.cli.main import COMMANDS, Settings, cli
from linuxkit.cli.words import GLOBALS, adapt, verbosity

pytestmark = pytest.mark.unit
SETTINGS = Settings(Path("/c"), False, 1, (), ())


def command() -> click.Group:
    @click.group()
    @click.option("--depth", default="")
    def top(depth: str) -> None:
        pass

    @top.command()
    @click.option("--gui/--no-gui", default=True)
    @click.option("--offline", is_flag=True, envvar="W_OFFLINE")
    @click.option("--name", default="")
    @click.option("-f", "--format", "formats", multiple=True)
    @click.argument("files", nargs=-1)
    @click.pass_context
    def build(ctx: click.Context, **given: Any) -> None:
        click.echo(repr((ctx.obj, given)))

    adapt(top, Settings.with_flags)
    return top


def call(*args: str, environment: dict[str, str] | None = None) -> tuple[Settings, dict[str, Any]]:
    done = CliRunner().invoke(command(), list(args), obj=SETTINGS, env=environment)
    assert done.exit_code == 0, done.output or done.exception
    from pathlib import PosixPath

    found = eval(done.output, {"Settings": Settings, "PosixPath": PosixPath})
    assert isinstance(found, tuple)
    return found


def test_global_flags_stand_before_and_behind() -> None:
    for args in (("--cache", "/d", "build", "a"), ("build", "--cache", "/d", "a"), ("build", "a", "--cache=/d")):
        settings, given = call(*args)
        assert (settings.cache, given["files"]) == (Path("/d"), ("a",))
    more = ("--mirror=x=http://b", "--cert-file", "c", "--trust-policy", "p")
    settings, _ = call("build", "--mirror", "http://a", "a", *more)
    assert (settings.mirrors, settings.cert_files) == (("http://a", "x=http://b"), (Path("c"),))
    assert settings.policy_file == Path("p")
    assert call("build", "-q")[0].verbose == 0
    assert call("build", "--quiet=false")[0] == SETTINGS


def test_verbosity_is_counted_and_said() -> None:
    for words, level in (("-v", 2), ("-vv", 3), ("-v -v", 3), ("-v 0", 0), ("-v3", 3), ("--verbose 2", 2),
                         ("--verbose=2", 2), ("--verbose", 2), ("-vvvv", 3)):  # fmt: skip
        settings, given = call("build", *words.split(), "a.yml")
        assert (settings.verbose, given["files"]) == (level, ("a.yml",)), words
    with pytest.raises(click.BadParameter):
        verbosity(["9"])
    assert CliRunner().invoke(cli, ["-vv", "version"]).exit_code == 0
    assert CliRunner().invoke(cli, ["version", "-v", "7"]).exit_code == 2
    assert CliRunner().invoke(cli, ["build", "-q", "-v", "x.yml"]).exit_code != 0


def test_what_belongs_to_another_flag_or_stands_behind_two_dashes_is_left_alone() -> None:
    assert call("build", "--name", "--cache", "a")[1]["name"] == "--cache"
    settings, given = call("build", "--", "--cache", "-v", "-format")
    assert (settings, given["files"]) == (SETTINGS, ("--cache", "-v", "-format"))
    assert call("build", "--name", "-format")[1]["name"] == "-format"


def test_booleans_as_go_writes_them() -> None:
    assert call("build", "--gui=false")[1]["gui"] is False
    assert call("build", "--gui=T")[1]["gui"] is True
    assert call("build", "--offline=1")[1]["offline"] is True
    assert call("build", "--offline=0", environment={"W_OFFLINE": "1"})[1]["offline"] is False
    assert call("build", "--offline=false", "--offline")[1]["offline"] is True
    assert call(*["build", "--name=false"])[1]["name"] == "false"
    assert CliRunner().invoke(command(), ["build", "--gui=maybe"], obj=SETTINGS).exit_code == 2


def test_one_dash_in_front_of_a_long_flag() -> None:
    for word in ("-format", "-format=iso", "-name", "-cache", "-quiet"):
        done = CliRunner().invoke(command(), ["build", word, "iso"], obj=SETTINGS)
        assert done.exit_code == 2
        assert f"Use -{word.partition('=')[0]}." in done.output
    assert call("build", "-fiso")[1]["formats"] == ("iso",)


def tree(group: click.Command, ctx: click.Context) -> list[click.Command]:
    if not isinstance(group, click.Group):
        return [group]
    found = [group.get_command(ctx, name) for name in group.list_commands(ctx)]
    return [group, *(c for below in found if below for c in tree(below, ctx))]


def test_every_command_takes_them() -> None:
    """No command may have a flag of its own that means something else than the global one."""
    ctx = click.Context(cli)
    found = tree(cli, ctx)[1:]
    assert len(found) > len(COMMANDS)
    for each in found:
        assert getattr(each, "speaks_go", False), each.name
        own = {name for p in each.params if isinstance(p, click.Option) for name in p.opts}
        assert own & GLOBALS.keys() <= {"--cache"}, each.name


def test_the_help_of_build_has_every_format() -> None:
    from linuxkit.outputs.table import FORMATS

    shown = CliRunner().invoke(cli, ["build", "--help"]).output.partition("Formats:")[2]
    listed = [line.split()[0] for line in shown.splitlines() if line.startswith("  ") and line[2:3].strip()]
    assert sorted(listed) == sorted(FORMATS)
