"""linuxkit pkg test."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from linuxkit.cli.pkg_build import ARCHIVES, BUILDER, build_packages, open_sources
from linuxkit.cli.pkg_common import DIRECTORY, Command, Common, common, pkg
from linuxkit.foreign import coloured

if TYPE_CHECKING:
    from linuxkit.api import Sources
    from linuxkit.cli.main import Settings
    from linuxkit.pkg.request import Job
    from linuxkit.testing import Verdict

#: Flags of `pkg build` that `pkg test` has no use for, with what they are without being given.
_QUIET: dict[str, Any] = {
    "skip_platforms": "", "nobuild": False, "arch_tags": True, "release": "", "docker": False, "arg_files": (),
    "ignore_cached": False, "precache_images": False, "builder_restart": False, "sbom_scanner": "false",
    "secrets": (), "ssh": (), "progress": "auto", "dockerfile": "",
}  # fmt: skip


def _builder(command: Command) -> Command:
    for option in reversed((*ARCHIVES, *BUILDER)):
        command = option(command)
    return command


@pkg.command("test")
@click.argument("directories", nargs=-1, required=True, type=DIRECTORY, metavar="DIR...")
@click.option("--arch", default="", metavar="ARCH", help="amd64 or arm64.  [default: this machine's]")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), default=120, show_default=True,
              metavar="SECONDS", help="How long a machine may take to boot and to come to a verdict.")
@click.option("--mem", type=click.IntRange(min=1), default=None, metavar="MB",
              help="Memory of the machine.  [default: what the image needs]")
@click.option("--accel", default="", metavar="NAME",
              help="kvm, hvf or tcg.  [default: the first that can work; env: LINUXKIT_QEMU_ACCEL]")
@click.option("--keep", default=None, type=DIRECTORY, metavar="DIR", help="Keep the machines' files there.")
@click.option("--console", is_flag=True, help="Show the machines' consoles.")
@click.option("--force", is_flag=True, help="Build the packages also when they are there.")
@click.option("--pull", is_flag=True, help="Fetch them when the registry has them.")
@click.option("--jobs", default=2, show_default=True, type=click.IntRange(1, 64), metavar="N",
              help="Most builds at a time.")
@_builder
@common
@click.pass_context
def test(context: click.Context, /, directories: tuple[Path, ...], arch: str, keep: Path | None, flags: Common,
         **rest: Any) -> None:  # fmt: skip
    """Boot packages in small machines and judge by the boot report.

    Each DIR/test/*.yml is a machine whose onboot step named "test" judges. Without any, DIR/test/test.sh runs in a
    container of the package; without that, the package itself has to end with 0.
    """
    import tempfile

    from linuxkit.cli.build import architecture

    settings: Settings = context.obj
    arch = architecture(arch)
    rest |= _QUIET | {"platforms": f"linux/{arch}"}
    failed = 0
    with ExitStack() as stack:
        folder = keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="linuxkit-test-")))
        sources = open_sources(settings, flags, stack, rest)
        for done in build_packages(settings, sources, flags.packages(directories), flags.naming(), False, rest):
            if done.job.asked:
                failed += _test(done.job, sources, folder, arch, rest)
    context.exit(1 if failed else 0)


def _test(job: Job, sources: Sources, folder: Path, arch: str, rest: dict[str, Any]) -> int:
    """Run the tests of a package; how many failed."""
    from linuxkit import testing
    from linuxkit.errors import InputError
    from linuxkit.pkg.naming import package_name

    if arch not in job.arches:
        raise InputError(f"{job.package.directory} is not built for {arch}",
                         hint=f"it is for {', '.join(job.package.arches)}: give --arch")  # fmt: skip
    own = job.package.directory.resolve()

    def name(directory: Path) -> str:
        return job.name.full if directory.resolve() == own else package_name(directory)

    todo = testing.cases(job.package.directory, job.name.full)
    systems = [testing.load(case, sources, name) for case in todo]  # all mistakes before the first boot
    failed = 0
    for case, config in zip(todo, systems, strict=True):
        place = folder / job.name.image.replace("/", "-")
        verdict = testing.run(
            case, config, sources, place, architecture=arch, timeout=rest["timeout"],
            output=_show if rest["console"] else None, memory=rest["mem"], arch=arch,
            accel=rest["accel"] or os.environ.get("LINUXKIT_QEMU_ACCEL", ""),
        )  # fmt: skip
        failed += not verdict.passed
        _tell(f"{job.package.directory}: {case.name}", verdict)
    return failed


def _tell(what: str, verdict: Verdict) -> None:
    word = click.style("passed", fg="green") if verdict.passed else click.style("failed", fg="red", bold=True)
    click.echo(f"{word} {what} ({verdict.seconds:.1f} s)" + (f": {verdict.why}" if verdict.why else ""))
    if not verdict.passed:
        for line in verdict.log:
            click.echo(f"  {line}")
    if verdict.others:
        click.echo(f"  besides it failed: {', '.join(verdict.others)}")


def _show(data: bytes) -> None:
    text = data.replace(b"\r", b"").decode("utf-8", "replace")
    click.echo(coloured(text, lines=True), err=True, nl=False)
