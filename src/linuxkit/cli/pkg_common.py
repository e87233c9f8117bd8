"""linuxkit pkg: the flags that its commands share, and the short commands."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from linuxkit.pkg.model import Package
    from linuxkit.pkg.naming import Naming

DIRECTORY = click.Path(path_type=Path)
Command = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Common:
    """The flags that all commands on packages have."""

    disable_cache: bool | None = None  # None: as build.yml says
    network: bool | None = None
    org: str = ""
    build_yml: str = "build.yml"
    hash: str = ""
    tag: str = ""
    hash_commit: str = "HEAD"
    hash_path: Path | None = None
    force_dirty: bool = False
    dev: bool = False
    registry_creds: tuple[str, ...] = ()

    def naming(self) -> Naming:
        """The part of them that decides names."""
        from linuxkit.errors import InputError
        from linuxkit.pkg.naming import Naming

        user = (os.environ.get("USER") or os.environ.get("LOGNAME") or "") if self.dev else ""
        if self.dev and not user:
            raise InputError("--dev names images after you, and $USER is empty", hint="set USER, or give --org")
        return Naming(self.build_yml, self.org, self.tag, self.hash, self.hash_commit, self.hash_path,
                      self.force_dirty, user)  # fmt: skip

    def packages(self, directories: tuple[Path, ...]) -> list[Package]:
        """The packages of some directories, with the flags in place of what build.yml says.

        Raises:
            InputError: one of them is none; every fault of all of them is in `problems`.
        """
        from dataclasses import replace

        from linuxkit.errors import InputError, Problem
        from linuxkit.pkg.parse import read_package

        found, failures = [], []
        for directory in directories:
            try:
                package = read_package(directory, self.build_yml)
                network = package.network if self.network is None else self.network
                off = package.disable_cache if self.disable_cache is None else self.disable_cache
                found.append(replace(package, network=network, disable_cache=off))
            except InputError as e:
                failures.append(e)
        if len(failures) == 1:
            raise failures[0]
        if failures:
            problems = [p for e in failures for p in (e.problems or [Problem(e.message, hint=e.hint)])]
            raise InputError(f"{len(failures)} packages have problems", problems=problems)
        return found


_OPTIONS = (
    click.option("--disable-cache", is_flag=True, default=None, help="Run every step of a Dockerfile again."),
    click.option("--enable-cache", is_flag=True, default=None, help="Use what is cached of its steps."),
    click.option("--network", is_flag=True, default=None, help="Let a Dockerfile's RUN steps use the network."),
    click.option("--nonetwork", is_flag=True, default=None, help="Keep them from it."),
    click.option("--org", default=None, metavar="ORG", envvar="LINUXKIT_PKG_ORG", show_envvar=True,
                 help="What stands in front of the image's name.  [default: build.yml's]"),
    click.option("--build-yml", default=None, metavar="FILE", help="Name of build.yml.  [default: build.yml]"),
    click.option("--hash", "hash_", default=None, metavar="TEXT", help="Instead of the hash that git gives."),
    click.option("--tag", default=None, metavar="TEMPLATE",
                 help="The tag, with {{.Hash}} for the hash.  [default: build.yml's]"),
    click.option("--hash-commit", default=None, metavar="COMMIT", help="Commit to take the hash of.  [default: HEAD]"),
    click.option("--hash-path", default=None, type=DIRECTORY, metavar="DIR",
                 help="Directory to take the hash of.  [default: the package's]"),
    click.option("--force-dirty", is_flag=True, default=None, help="Name packages as if they were changed."),
    click.option("--dev", is_flag=True, default=None, help="Name packages $USER/IMAGE:dev."),
    click.option("--registry-creds", multiple=True, metavar="REGISTRY=LOGIN",
                 help="USER:PASSWORD or a token in base64, for one registry; repeatable."),
)  # fmt: skip


def common(command: Command) -> Command:
    """Add the shared flags to a command; it gets them as `flags`. They may stand in front of its name, too."""

    @functools.wraps(command)
    def wrapper(*args: Any, **given: Any) -> Any:
        context = click.get_current_context()
        before: dict[str, Any] = (context.parent.meta if context.parent else context.meta).get(__name__, {})
        return command(*args, flags=Common(**(before | _take(given))), **given)

    for option in reversed(_OPTIONS):
        wrapper = option(wrapper)
    return wrapper


def _take(given: dict[str, Any]) -> dict[str, Any]:
    """Remove the shared flags from what a command was given; those that were."""
    from linuxkit.errors import InputError

    names = ("org", "build_yml", "hash_", "tag", "hash_commit", "hash_path", "force_dirty", "dev", "registry_creds")
    values = {name.strip("_"): given.pop(name) for name in names}
    for name, yes, no in (("disable_cache", "disable_cache", "enable_cache"), ("network", "network", "nonetwork")):
        on, off = given.pop(yes), given.pop(no)
        if on and off:
            raise InputError(f"--{yes.replace('_', '-')} and --{no.replace('_', '-')} cannot be used together",
                             hint="give one of them")  # fmt: skip
        values[name] = True if on else False if off else None
    return {name: value for name, value in values.items() if value is not None and value != ()}


@click.group()
@click.pass_context
def pkg(context: click.Context, /, **given: Any) -> None:
    """Build, name, publish and test packages: directories with a build.yml.

    A package is a native recipe, which is built here, or a Dockerfile, for which an engine is needed: BuildKit, Docker,
    Podman or Buildah. The flags below go with every command.
    """
    context.meta[__name__] = _take(given)


for _option in _OPTIONS:
    pkg = _option(pkg)


@pkg.command("show-tag")
@click.argument("directories", nargs=-1, required=True, type=DIRECTORY, metavar="DIR...")
@click.option("--canonical", is_flag=True, help="With the registry in front.")
@common
def show_tag(directories: tuple[Path, ...], canonical: bool, flags: Common) -> None:
    """Print the image names of packages, one a line."""
    from linuxkit.pkg.naming import name_of

    naming = flags.naming()
    for name in [name_of(package, naming) for package in flags.packages(directories)]:
        click.echo(name.full if canonical else name.text)
