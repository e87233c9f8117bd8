"""The command line: the table of commands, the global flags, and the one place where errors become text.

Each command lives in a module of its own that is imported only when it is called, so that --help stays fast.
"""

from __future__ import annotations

import errno
import importlib
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import click

import linuxkit
from linuxkit.cli import streams
from linuxkit.cli.words import TRUE, adapt, own_words, verbosity
from linuxkit.errors import InputError, LinuxkitError
from linuxkit.foreign import printable

#: name → (module:attribute, one line for the overview)
COMMANDS: dict[str, tuple[str, str]] = {
    "attach": ("linuxkit.cli.attach:attach", "Attach SBOMs and provenance to a pushed image."),
    "build": ("linuxkit.cli.build:build", "Build a bootable image from YAML files."),
    "bundle": ("linuxkit.cli.bundle:bundle", "Put everything that a build takes into one file."),
    "cache": ("linuxkit.cli.cache:cache", "List, import and export the images on this machine."),
    "check": ("linuxkit.cli.check:check", "Say what keeps YAML files from booting."),
    "key": ("linuxkit.cli.sign:key", "Make keys that images are signed with."),
    "kit": ("linuxkit.cli.kit:kit", "List and build the packages of the kit."),
    "lock": ("linuxkit.cli.lock:lock", "Write down which images a build takes, by digest."),
    "metadata": ("linuxkit.cli.metadata:metadata", "Make images with user data for machines."),
    "pkg": ("linuxkit.cli.pkg:pkg", "Build, name, publish and test packages."),
    "push": ("linuxkit.cli.push:push", "Push an image to a cloud, a hypervisor or a server."),
    "run": ("linuxkit.cli.run_places:run", "Boot what build wrote: in QEMU here, or at another place."),
    "sbom": ("linuxkit.cli.sbom:sbom", "Print what is in images: SPDX or CycloneDX."),
    "schema": ("linuxkit.cli.schema:schema", "Print the JSON Schema of the YAML."),
    "serve": ("linuxkit.cli.serve:serve", "Serve a folder to machines that boot from the network."),
    "sign": ("linuxkit.cli.sign:sign", "Sign an image."),
    "verify": ("linuxkit.cli.sign:verify", "Judge an image by its signatures."),
    "update": ("linuxkit.cli.lock:update", "Renew a lock and print what changed."),
    "version": ("linuxkit.cli.version:version", "Print the version."),
}


@dataclass(frozen=True, slots=True)
class Settings:
    """The global flags, and what they default to from the environment. Reaches commands as `ctx.obj`."""

    cache: Path
    quiet: bool
    verbose: int  # 0 errors, 1 info, 2 debug, 3 trace
    mirrors: tuple[str, ...]
    cert_files: tuple[Path, ...]
    policy_file: Path | None = None  # which images have to be signed; None: none
    local_files: bool = False  # YAML that is fetched may name files of this machine
    max_layer: int = 0  # bytes that a layer may have, unpacked; 0: the usual bounds
    rollback: bool = False  # package lists may be older than those seen before

    def with_flags(self, given: dict[str, list[str]]) -> Settings:
        """Global flags that stand behind a command, over those in front of it.

        Raises:
            InputError: --quiet and --verbose together.
        """
        last = {name: Path(given[name][-1]) for name in ("cache", "trust_policy") if name in given}
        quiet = (given["quiet"][-1] in TRUE) if "quiet" in given else self.quiet
        verbose = verbosity(given.get("verbose", []), 1 if self.quiet else self.verbose)
        if quiet and (given.get("verbose") or self.verbose > 1) and verbose:
            raise InputError("--quiet and --verbose cannot be used together", hint="give one of them")
        return Settings(
            cache=last.get("cache", self.cache), quiet=quiet, verbose=0 if quiet else verbose,
            mirrors=(*self.mirrors, *given.get("mirrors", ())),
            cert_files=(*self.cert_files, *map(Path, given.get("cert_files", ()))),
            policy_file=last.get("trust_policy", self.policy_file), local_files=self.local_files,
            rollback=self.rollback, max_layer=self.max_layer,
        )  # fmt: skip


def _noted(name: str, field: str, text: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A flag of some commands that reaches them in Settings."""

    def note(ctx: click.Context, _: click.Parameter, value: bool) -> None:
        changed: dict[str, Any] = {field: value}
        ctx.obj = replace(ctx.obj, **changed)

    return click.option(name, is_flag=True, expose_value=False, callback=note, help=text)


#: Of commands that take YAML by its address.
allow_local_files = _noted("--allow-local-files", "local_files",
                           "YAML from an address may name files of this machine.")  # fmt: skip


def _max_layer(ctx: click.Context, _: click.Parameter, value: str) -> None:
    if not value:
        return
    from linuxkit.platforms.disks import parse_size

    try:
        ctx.obj = replace(ctx.obj, max_layer=parse_size(value, "M"))
    except ValueError:
        raise InputError(f"--max-layer {value!r} is not a size", hint="give it in MB, or as 500M or 20G") from None


#: Of commands that unpack layers.
max_layer = click.option("--max-layer", default="", metavar="N[M|G]", expose_value=False, callback=_max_layer,
                         help="Take layers that unpack to that much, in MB, however small they came.  "
                              "[default: 1 GB, or 200 times what came; at most 16 GB]")  # fmt: skip
#: Of commands that draw on the Debian archive.
allow_release_rollback = _noted("--allow-release-rollback", "rollback",
                                "Take package lists that are older than those seen before.")  # fmt: skip


class _Lazy(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return adapt(command, Settings.with_flags)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, own_words(self, ctx, list(args)))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        name = args[0] if args else ""
        if name not in COMMANDS and not name.startswith("-"):
            import difflib

            close = difflib.get_close_matches(name, COMMANDS, n=1)
            ctx.fail(f"no such command '{name}'." + (f" Did you mean '{close[0]}'?" if close else ""))
        return super().resolve_command(ctx, args)


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--cache", type=click.Path(path_type=Path), metavar="DIR", envvar="LINUXKIT_CACHE", show_envvar=True,
              help="Image cache (an OCI layout).  [default: ~/.linuxkit/cache]")
@click.option("--mirror", "mirrors", multiple=True, metavar="[REGISTRY=]URL",
              help="Pull through this registry mirror; repeatable.")
@click.option("--cert-file", "cert_files", multiple=True, type=click.Path(path_type=Path), metavar="FILE",
              help="Trust this CA certificate (PEM) too; repeatable.")
@click.option("--trust-policy", type=click.Path(path_type=Path), metavar="FILE", envvar="LINUXKIT_TRUST_POLICY",
              show_envvar=True, help="Which images have to be signed, by whom.  "
                                     "[default: ~/.config/linuxkit/policy.yml, if it is there]")
@click.option("-q", "--quiet", is_flag=True, help="Print errors only.")
@click.option("-v", "--verbose", multiple=True, metavar="[N]",
              help="0 errors, 1 info, 2 debug, 3 trace; without N one more, as -vv is two.  [default: 1]")
@click.version_option(linuxkit.__version__, "--version", prog_name="linuxkit")
@click.pass_context
def cli(ctx: click.Context, cache: Path | None, mirrors: tuple[str, ...], cert_files: tuple[Path, ...],
        trust_policy: Path | None, quiet: bool, verbose: tuple[str, ...]) -> None:
    """One YAML file in, a tiny immutable bootable Linux image out.

    \b
    linuxkit build web.yml      writes web-kernel, web-initrd.img and web-cmdline
    linuxkit run web            boots them

    The options below also work after the command. No Docker, no root, no daemon.
    Exit status: 0 done, 1 failed, 2 bad input.
    """
    level = verbosity(list(verbose))
    if quiet and verbose and level:
        raise InputError("--quiet and --verbose cannot be used together", hint="give one of them")
    environment = os.environ.get("LINUXKIT_MIRROR", "").replace(",", " ").split()
    ctx.obj = Settings(
        cache=cache or Path.home() / ".linuxkit" / "cache",
        quiet=quiet,
        verbose=0 if quiet else level,
        mirrors=(*environment, *mirrors),
        cert_files=cert_files,
        policy_file=trust_policy or _own_policy(),
    )


def _own_policy() -> Path | None:
    """The policy in the user's configuration, when there is one."""
    folder = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    path = folder / "linuxkit" / "policy.yml"
    return path if os.path.lexists(path) else None


def _say(text: str) -> None:
    click.echo(text, err=True)


def _printable(text: str) -> str:
    """Without what a terminal would obey: messages quote registries, images and files."""
    return printable(text, lines=True)


def _report(error: LinuxkitError) -> None:
    _say(f"{click.style('error', fg='red', bold=True)}: {_printable(error.message)}")
    hints = Counter(problem.hint for problem in error.problems)
    shown = error.problems[:15]
    for problem in shown:  # a hint that several have stands once, at the end
        _say(f"  {_printable(str(problem if hints[problem.hint] == 1 else replace(problem, hint='')))}")
    if len(error.problems) > len(shown):
        _say(f"  … and {len(error.problems) - len(shown)} more")
    for hint in dict.fromkeys((*(h for h in hints if h and hints[h] > 1), error.hint)):
        if hint:
            _say(f"{click.style('hint', bold=True)}: {_printable(hint)}")


def _os_error(error: OSError) -> LinuxkitError:
    """The everyday failures of a file system, in words."""
    where = error.filename or ("standard output" if error.errno == errno.EBADF else "a file")
    hints = {
        errno.ENOSPC: ("no space left on the device", "free some space, or use --dir or --cache on another disk"),
        errno.EDQUOT: ("disk quota exceeded", "free some space, or use --dir or --cache on another disk"),
        errno.EACCES: ("permission denied", "check the owner and mode, or choose another place with --dir or --cache"),
        errno.EROFS: ("read-only file system", "choose another place with --dir or --cache"),
        errno.ENOENT: ("no such file or directory", ""),
    }
    message, hint = hints.get(error.errno or 0, (error.strerror or str(error), ""))
    return LinuxkitError(f"{where}: {message}", hint=hint)


def _drop_output() -> None:
    """Let what is still to be written go nowhere, so that the interpreter's end has nothing to say about it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def main() -> NoReturn:
    """Run the command line and exit: 0 done, 1 failed, 2 bad input, 130 interrupted."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that clean-up runs
    debug = os.environ.get("LINUXKIT_DEBUG") == "1"
    streams.prepare()
    try:
        status = cli.main(prog_name="linuxkit", standalone_mode=False)
        sys.stdout.flush()
        sys.exit(status if isinstance(status, int) else 0)
    except LinuxkitError as e:
        if debug:
            raise
        _report(e)
        sys.exit(e.exit_code)
    except click.ClickException as e:
        e.show()
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        _say("interrupted")
        sys.exit(130)
    except BrokenPipeError:
        _drop_output()  # the reader has gone: nothing to flush, nothing to say
        sys.exit(1)
    except OSError as e:
        if debug:
            raise
        _report(_os_error(e))
        _drop_output()
        sys.exit(1)
    except Exception as e:
        if debug:
            raise
        what = f"{type(e).__name__}: {e}"[:400]
        _report(LinuxkitError(f"a fault of linuxkit itself: {what}",
                              hint="LINUXKIT_DEBUG=1 in the environment shows where; please report it"))  # fmt: skip
        sys.exit(1)
