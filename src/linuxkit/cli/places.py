"""linuxkit push PLACE, linuxkit run PLACE: commands made from the table of places."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from linuxkit.config.convert import did_you_mean
from linuxkit.errors import InputError, NetworkError
from linuxkit.places.place import Place, Setting
from linuxkit.places.table import PLACES

if TYPE_CHECKING:
    from linuxkit.cli.main import Settings
    from linuxkit.places.image import LocalImage
    from linuxkit.places.place import Job

COMMON = (
    click.Option(["--dry-run"], is_flag=True,
                 help="Check everything, print the calls that change something, and send none."),
    click.Option(["--keep"], is_flag=True, help="When it fails, or is over, remove nothing; list what is there."),
)  # fmt: skip


class Places(click.Group):
    """The places of one verb, each a command that is made when it is called.

    Args:
        verb: "push" or "run".
        default: a command for what names no place.
        own: (module:attribute, one line) of commands that are no places, by name.
        choose: names the command for arguments that name no place; with a `default` only.
    """

    def __init__(self, verb: str, make: Callable[[Place], click.Command], default: click.Command | None = None,
                 own: Mapping[str, tuple[str, str]] | None = None, choose: Callable[[list[str]], str] | None = None,
                 **more: Any) -> None:  # fmt: skip
        super().__init__(name=verb, **more)
        self._verb, self._make, self._default, self._own = verb, make, default, own or {}
        self._choose = choose or (lambda args: "qemu")

    def list_commands(self, ctx: click.Context) -> list[str]:
        own = ["qemu"] if self._default is not None else []
        return sorted([*own, *self._own, *(p.name for p in PLACES.values() if getattr(p, self._verb))])

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name == "qemu" and self._default is not None:
            return self._default
        if name in self._own:
            module, _, attribute = self._own[name][0].partition(":")
            command = getattr(importlib.import_module(module), attribute)
            assert isinstance(command, click.Command)
            return command
        place = PLACES.get(name)
        return self._make(place) if place is not None and getattr(place, self._verb) else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Places"):
            formatter.write_dl([(p.name, p.summary) for p in PLACES.values() if getattr(p, self._verb)])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if self._default is not None and (not args or args[0] not in self.list_commands(ctx)):
            args = [self._choose(args), *args]
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and self.get_command(ctx, args[0]) is None:
            raise InputError(f"there is no place '{args[0]}' to {self._verb} {'to' if self._verb == 'push' else 'at'}",
                             hint=did_you_mean(args[0], self.list_commands(ctx)) or
                             f"there are {', '.join(self.list_commands(ctx))}")  # fmt: skip
        return super().resolve_command(ctx, args)


def options(settings: tuple[Setting, ...]) -> list[click.Parameter]:
    """A flag for every setting that is no secret."""
    made: list[click.Parameter] = []
    for setting in settings:
        if setting.secret:
            continue
        shown = "" if setting.default in ("", False, ()) else f"  [default: {setting.default}]"
        known = f"  [env: {', '.join(setting.env)}]" if setting.env else ""
        kind: dict[str, Any] = {"type": setting.kind}
        if setting.kind is bool:
            kind |= {"is_flag": True, "flag_value": True}
        if setting.many:
            kind["multiple"] = True
        made.append(click.Option(
            [setting.key, setting.flag, *setting.also], default=None, help=setting.help + shown + known,
            metavar=setting.metavar or None, **kind,
        ))  # fmt: skip
    return made


def secrets(settings: tuple[Setting, ...]) -> str:
    """What the help says about settings that have no flag."""
    found = [s for s in settings if s.secret]
    lines = "".join(f"  {', '.join(s.env)}: {s.help}\n" for s in found)
    return f"\b\nFrom the environment:\n{lines}" if found else ""


def job(ctx: click.Context, settings: tuple[Setting, ...], given: dict[str, Any], verb: str,
        data: bytes | None = None) -> Job:  # fmt: skip
    """What the place is given. Its journal is used as a context manager by the caller."""
    from linuxkit.cli.progress import Progress
    from linuxkit.cli.run import show
    from linuxkit.oci.transport import Transport
    from linuxkit.places.journal import Journal
    from linuxkit.places.place import Job, settle

    program: Settings = ctx.obj
    progress = Progress(sys.stderr, verb, quiet=not program.verbose)
    ctx.call_on_close(progress.clear)
    keep, dry_run = bool(given.pop("keep", False)), bool(given.pop("dry_run", False))
    return Job(
        settings=settle(settings, given, os.environ), environment=os.environ,
        transport=Transport(cert_files=program.cert_files, environment=os.environ, instead=""),
        journal=Journal(progress.line, keep=keep, dry_run=dry_run), log=progress.line, output=show, progress=progress,
        dry_run=dry_run, keep=keep, data=data,
    )  # fmt: skip


@contextmanager
def understood(place: Place, work: Job) -> Iterator[None]:
    """Put into words that an answer is not what the place's API promises: of another server, or another version."""
    try:
        yield
    except (LookupError, TypeError, AttributeError, ValueError, SyntaxError) as e:  # the last one is XML's
        if place.local or work.environment.get("LINUXKIT_DEBUG") == "1":
            raise
        said = f"{type(e).__name__}: {' '.join(str(e).split())[:200]}"
        raise NetworkError(f"an answer of {place.name} is not what its API promises ({said})",
                           hint="is it the right address? LINUXKIT_DEBUG=1 shows where it was met") from e  # fmt: skip


def local_image(ctx: click.Context, place: Place, text: str, arch: str = "") -> LocalImage:
    """The file to push: named itself, or by its prefix, or built from YAML in the format that the place takes.

    Raises:
        InputError: there is none, and nothing to build it from.
    """
    from linuxkit.outputs.table import FORMATS
    from linuxkit.places.image import LocalImage

    path = Path(text)
    if path.suffix in (".yml", ".yaml"):
        if not path.is_file():
            raise InputError(f"there is no {path}")
        return _built(ctx, place.formats[0], path, arch)
    if path.is_file():
        return LocalImage(path, "")
    for name in place.formats:
        for ending in FORMATS[name].endings:
            if Path(f"{text}{ending}").is_file():
                return LocalImage(Path(f"{text}{ending}"), name)
    yaml = Path(f"{text}.yml")
    if yaml.is_file():
        return _built(ctx, place.formats[0], yaml, arch)
    looked = ", ".join(f"{text}{e}" for name in place.formats for e in FORMATS[name].endings)
    raise InputError(f"nothing to push at '{text}': looked for {text}, {looked} and {yaml}",
                     hint=f"linuxkit build --format {place.formats[0]} FILE.yml")  # fmt: skip


def local_target(ctx: click.Context, place: Place, text: str) -> str:
    """What a hypervisor of this machine runs: a file or a prefix, or what is built from YAML in a format it takes."""
    yaml = Path(text) if text.endswith((".yml", ".yaml")) else Path(f"{text}.yml")
    if not yaml.is_file():
        return text
    from linuxkit.cli.build import build
    from linuxkit.outputs.table import FORMATS

    there = [f"{text}{ending}" for name in place.formats for ending in FORMATS[name].endings]
    if yaml != Path(text) and any(Path(path).exists() for path in (text, *there)):
        return text
    ctx.invoke(build, files=(str(yaml),), formats=(place.formats[0],), directory=yaml.parent)
    return str(yaml.with_suffix(""))


def _built(ctx: click.Context, format_: str, yaml: Path, arch: str) -> LocalImage:
    from linuxkit.cli.build import build
    from linuxkit.outputs.table import FORMATS
    from linuxkit.places.image import LocalImage

    directory, base = yaml.parent, yaml.stem
    ctx.invoke(build, files=(str(yaml),), formats=(format_,), directory=directory, arch=arch)
    return LocalImage(directory / f"{base}{FORMATS[format_].endings[0]}", format_)
