"""How flags may be written: global flags anywhere, Go's `--flag=false`, `-v` with or without a number.

LinuxKit's users type what its command line takes: its global flags are valid before and after the command, its
booleans take a value, its verbosity is a number. Click knows none of that. `adapt` puts it into a command, and into all
below it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

TRUE = frozenset(("1", "t", "T", "TRUE", "true", "True"))
FALSE = frozenset(("0", "f", "F", "FALSE", "false", "False"))
#: flag → (name in Settings, whether it takes a value)
GLOBALS = {
    "--cache": ("cache", True), "--mirror": ("mirrors", True), "--cert-file": ("cert_files", True),
    "--trust-policy": ("trust_policy", True), "--quiet": ("quiet", False), "-q": ("quiet", False),
    "--verbose": ("verbose", True), "-v": ("verbose", True),
}  # fmt: skip

#: Makes new settings of old ones and of global flags; main.py has it.
Apply = Callable[[Any, dict[str, list[str]]], Any]
_ADAPTED: dict[tuple[type, Apply], Any] = {}


class _Words:
    """One command's arguments, read from left to right."""

    def __init__(self, command: click.Command, ctx: click.Context, own_globals: bool) -> None:
        options = [p for p in command.get_params(ctx) if isinstance(p, click.Option)]
        self.by_name = {name: p for p in options for name in (*p.opts, *p.secondary_opts)}
        self.group = isinstance(command, click.Group)
        self.own_globals = own_globals
        self.out: list[str] = []
        self.given: dict[str, list[str]] = {}
        self.off: list[str] = []  # parameters that are said to be false

    def read(self, args: list[str]) -> None:
        at = 0
        while at < len(args):
            word = args[at]
            if word == "--" or (self.group and not word.startswith("-")):
                break
            name, mark, value = word.partition("=")
            option = self.by_name.get(name)
            if (level := _verbosity(args, at)) is not None:
                amount, used = level
                self._global("--verbose", amount)
                at += used
            elif option is not None:
                at += self._own(option, name, value if mark else None, args[at + 1 : at + 2])
            elif name in GLOBALS and not self.own_globals:
                takes = GLOBALS[name][1]
                if takes and not mark and at + 1 == len(args):
                    raise click.BadOptionUsage(name, f"Option {name!r} requires an argument.")
                self._global(name, value if mark else args[at + 1] if takes else "true")
                at += 2 if takes and not mark else 1
            else:
                self._refuse_single_dash(word, name)
                if self.group:
                    break
                self.out.append(word)
                at += 1
        self.out += args[at:]

    def _own(self, option: click.Option, name: str, value: str | None, after: list[str]) -> int:
        """A flag of the command itself; the number of words that it took."""
        if option.is_flag and value is not None and option.name and value in TRUE | FALSE:
            if value in TRUE:
                self.out.append(name)
                self.off = [n for n in self.off if n != option.name]
            elif name in option.opts and option.secondary_opts:
                self.out.append(option.secondary_opts[0])
            elif name in option.opts:
                self.off.append(option.name)
            return 1
        self.out.append(name if value is None else f"{name}={value}")
        if option.is_flag or option.count:
            self.off = [n for n in self.off if n != option.name]
            return 1
        if value is None:
            self.out += after
            return 2
        return 1

    def _global(self, name: str, value: str) -> None:
        if self.own_globals:
            self.out.append(f"{name}={value}")
        else:
            self.given.setdefault(GLOBALS[name][0], []).append(value)

    def _refuse_single_dash(self, word: str, name: str) -> None:
        if len(name) > 2 and name[1] != "-" and (f"-{name}" in self.by_name or f"-{name}" in GLOBALS):
            raise click.UsageError(f"No such option: {name}. Use -{name}.")


def _verbosity(args: list[str], at: int) -> tuple[str, int] | None:
    """(what --verbose gets, words used) when a word is -v, -vv, -v2, --verbose or --verbose=2."""
    word, after = args[at], args[at + 1] if at + 1 < len(args) else ""
    if word.startswith("--verbose="):
        return word.partition("=")[2], 1
    if word in ("-v", "--verbose"):
        return (after, 2) if after.isascii() and after.isdigit() else ("+1", 1)
    if word[:2] == "-v" and word[2:].isdigit() and word.isascii():
        return word[2:], 1
    if len(word) > 2 and word[0] == "-" and set(word[1:]) == {"v"}:
        return f"+{len(word) - 1}", 1
    return None


def verbosity(given: list[str], start: int = 1) -> int:
    """The level that some --verbose give: numbers set it, -v adds to it.

    Raises:
        click.BadParameter: one is no number from 0 to 3.
    """
    level = start
    for text in given:
        if text.startswith("+") and set(text[1:]) <= set("123456789") and len(text) == 2:
            level = min(level + int(text), 3)
        elif text in ("0", "1", "2", "3"):
            level = int(text)
        else:
            raise click.BadParameter(f"{text!r} is not a number from 0 to 3", param_hint="--verbose")
    return level


def adapt(command: click.Command, apply: Apply) -> click.Command:
    """Let a command, and all below it, be called as LinuxKit's are. The same object is returned."""
    kind = type(command)
    if not getattr(kind, "speaks_go", False):
        if (kind, apply) not in _ADAPTED:
            _ADAPTED[kind, apply] = _adapted(kind, apply)
        command.__class__ = _ADAPTED[kind, apply]
    return command


def own_words(command: click.Command, ctx: click.Context, args: list[str]) -> list[str]:
    """The arguments of the program itself, whose own options the global flags are."""
    words = _Words(command, ctx, own_globals=True)
    words.read(args)
    return words.out


def _adapted(kind: type[click.Command], apply: Apply) -> Any:
    def parse_args(self: Any, ctx: click.Context, args: list[str]) -> list[str]:
        words = _Words(self, ctx, own_globals=False)
        words.read(list(args))
        if words.given:
            ctx.obj = apply(ctx.obj, words.given)
        rest = kind.parse_args(self, ctx, words.out)
        for name in words.off:
            if name in ctx.params:
                ctx.params[name] = False
        return rest

    def get_command(self: Any, ctx: click.Context, name: str) -> click.Command | None:
        found = kind.get_command(self, ctx, name)  # type: ignore[attr-defined]
        return adapt(found, apply) if found is not None else None

    body: dict[str, Any] = {"parse_args": parse_args, "speaks_go": True}
    if issubclass(kind, click.Group):
        body["get_command"] = get_command
    return type(kind.__name__, (kind,), body)
