"""linuxkit run PLACE; without a place, QEMU on this machine."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import click

from linuxkit.cli.places import COMMON, Places, job, local_target, options, secrets, understood
from linuxkit.cli.run import run as qemu
from linuxkit.cli.run import signals, user_data
from linuxkit.errors import InputError
from linuxkit.places.place import Place
from linuxkit.places.table import PLACES, default_place


def _command(place: Place) -> click.Command:
    settings = place.load().RUN_SETTINGS

    def run(target: str, data: str | None, data_file: Path | None, **given: Any) -> None:
        if data is not None and data_file is not None:
            raise InputError("--data and --data-file cannot be used together", hint="give one of them")
        if place.local:
            target = local_target(click.get_current_context(), place, target)
        work = job(click.get_current_context(), settings, given, "sent", user_data(data, data_file))
        with signals(), understood(place, work), work.journal:
            runner = place.load().Run(work, target)
            runner.preflight()
            runner.run()

    return click.Command(
        place.name, callback=run, help=f"Run an image: {place.summary}.\n\nCtrl-C ends the machine and "
        "removes what was made for it, unless --keep is given.", epilog=secrets(settings),
        params=[click.Argument(["target"], metavar="NAME"), *options(settings),
                click.Option(["--data"], metavar="TEXT", help="User data for the machine."),
                click.Option(["--data-file"], type=click.Path(path_type=Path), metavar="FILE",
                             help="The same, in a file."),
                *COMMON],
    )  # fmt: skip


def _choose(args: list[str]) -> str:
    """Where `linuxkit run PREFIX` runs it: at this system's usual place, if that knows the flags that are given."""
    name = default_place(sys.platform, lambda program: shutil.which(program) is not None)
    if name == "qemu":
        return name
    known = {flag for parameter in _command(PLACES[name]).params for flag in parameter.opts}
    return name if {arg.split("=")[0] for arg in args if arg.startswith("-")} <= known else "qemu"


OWN = {"cluster": ("linuxkit.cli.run_cluster:cluster", "several machines of a cluster file, in QEMU here")}
_LISTED = {name: summary for name, (_, summary) in OWN.items()} | {p.name: p.summary for p in PLACES.values() if p.run}
qemu.epilog = "\b\nOther places (linuxkit run PLACE --help):\n" + "".join(
    f"  {name:<18}{summary}\n" for name, summary in _LISTED.items()
)
run = Places("run", _command, qemu, OWN, _choose, help=qemu.help)
