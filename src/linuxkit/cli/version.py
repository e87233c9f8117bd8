"""linuxkit version"""

from __future__ import annotations

import click

import linuxkit


@click.command()
@click.option("--short", is_flag=True, help="Only the version.")
@click.option("--commit", is_flag=True, help="Only the commit it was built from.")
def version(short: bool, commit: bool) -> None:
    """Print the version."""
    if short:
        click.echo(linuxkit.__version__)
    elif commit:
        click.echo("unknown")
    else:
        click.echo(f"linuxkit version {linuxkit.__version__}\ncommit: unknown")
