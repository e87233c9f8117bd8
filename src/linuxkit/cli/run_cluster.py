"""linuxkit run cluster FILE and linuxkit run --count N: several machines, one console."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from linuxkit.cli.run import Watch, settled, show, signals, user_data, watching
from linuxkit.errors import LinuxkitError, MachineError

if TYPE_CHECKING:
    from linuxkit.cluster.cluster import Cluster
    from linuxkit.cluster.model import Plan
    from linuxkit.machine.machine import Machine
    from linuxkit.machine.report import BootReport


@click.command()
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
@click.option("--accel", default="", metavar="NAME", help="As for one machine.  [env: LINUXKIT_QEMU_ACCEL]")
@click.option("--qemu", type=click.Path(path_type=Path), metavar="PROGRAM", help="QEMU to use.  [default: from PATH]")
@click.option("--state", type=click.Path(path_type=Path), metavar="DIR",
              help="Folder for the machines' state folders.  [default: FILE without its ending, and -state]")
@watching
@click.pass_context
def cluster(ctx: click.Context, /, file: Path, accel: str, qemu: Path | None, state: Path | None, **rest: Any) -> None:
    """Boot the machines of a cluster file, with a private network between them.

    All consoles are shown as one, with names in front. Ctrl-C asks all guests to shut down; a second one ends them.
    """
    from linuxkit.cluster.model import parse, plan
    from linuxkit.config.load import read_file
    from linuxkit.platforms.prepare import Request

    text = read_file(str(file))[: 1 << 20]
    common = Request(prefix="", accel=accel or os.environ.get("LINUXKIT_QEMU_ACCEL", ""), qemu=qemu)
    made = plan(parse(text, str(file)), file.parent, state or Path(f"{file.with_suffix('')}-state"), common,
                lambda path: user_data(None, path) or b"")  # fmt: skip
    ctx.exit(attend(made, Watch(quiet=ctx.obj.quiet, **rest)))


def attend(plan: Plan, watch: Watch) -> int:
    """Run the machines until they have ended; the exit status."""
    from linuxkit.cluster.cluster import Cluster
    from linuxkit.cluster.lines import Lines
    from linuxkit.encode.config_iso import write_config

    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    lines = Lines([member.name for member in plan.members], show, colour=colour)

    def say(name: str, text: str) -> None:
        if not watch.quiet:
            click.echo(f"{name}: {text}", err=True)

    sys.stdout.flush()
    with signals(), Cluster(plan, write_data=write_config, output=lines.take, say=say) as running:
        try:
            status = _until_the_end(running, watch)
        except KeyboardInterrupt:
            status = _stop(running, watch)
        finally:
            lines.finish()
            _write(running, watch)
    return status


def _until_the_end(running: Cluster, watch: Watch) -> int:
    failed: list[str] = []
    if watch.judges:
        found = running.each(lambda _, m: settled(m, watch))
        failed = _judge(running, found, watch)
    if watch.once:
        ended = running.each(lambda _, m: m.power_off(watch.stop_timeout) if m.running else m.report)
    else:
        ended = running.each(lambda name, m: _wait(name, m, watch))
    failed += [name for name, result in ended.items() if isinstance(result, LinuxkitError) and name not in failed]
    if failed:
        state = running.machines[failed[0]].state
        raise MachineError(f"{len(failed)} of {len(ended)} machines failed: {', '.join(failed)}",
                           hint=f"a machine's whole console is in its state folder: {state}/console.log")  # fmt: skip
    return 0


def _wait(name: str, machine: Machine, watch: Watch) -> BootReport:
    """Wait for the end of one machine, and say it when it comes: the others may go on for long."""
    try:
        report = machine.wait()
    except LinuxkitError as e:
        click.echo(f"{name}: {e.message}", err=True)
        raise
    if not watch.quiet:
        click.echo(f"{name}: off", err=True)
    return report


def _judge(running: Cluster, found: dict[str, BootReport | LinuxkitError], watch: Watch) -> list[str]:
    """Print the reports; which machines did not boot as they should."""
    from linuxkit.machine.table import render

    failed = []
    for name, result in found.items():
        if isinstance(result, LinuxkitError):
            failed.append(name)
            click.echo(f"{name}: {result.message}", err=True)
        elif watch.once and (not result.ok or result.failed):
            failed.append(name)
            click.echo(f"{name}: booted with failures: {', '.join(step.name for step in result.failed)}", err=True)
        if watch.report:
            colour = sys.stderr.isatty() and "NO_COLOR" not in os.environ
            report = running.machines[name].report if isinstance(result, LinuxkitError) else result
            click.echo(f"\n{name}\n{render(report, colour=colour)}", err=True)
    return failed


def _stop(running: Cluster, watch: Watch) -> int:
    try:
        if not watch.quiet:
            click.echo("\nasking the guests to shut down; Ctrl-C again ends them at once", err=True)
        ended = running.each(lambda _, m: m.power_off(watch.stop_timeout) if m.running else m.report)
    except KeyboardInterrupt:
        running.kill()
        click.echo("ended by force", err=True)
        return 130
    late = [name for name, result in ended.items() if isinstance(result, LinuxkitError)]
    for name in late:
        click.echo(f"{name}: {ended[name].message}", err=True)  # type: ignore[union-attr]
    return 1 if late else 0


def _write(running: Cluster, watch: Watch) -> None:
    """--report-file: every machine's report, by name."""
    if watch.report_file is None:
        return
    partial = watch.report_file.with_name(watch.report_file.name + ".partial")
    reports = {name: machine.report.as_json() for name, machine in running.machines.items()}
    partial.write_text(json.dumps(reports, indent=2) + "\n")
    partial.replace(watch.report_file)
