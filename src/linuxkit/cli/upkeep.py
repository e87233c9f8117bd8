"""linuxkit cache verify, gc, du"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from linuxkit.cli.main import Settings
    from linuxkit.oci.verify import Report

_JSON = click.option("--json", "as_json", is_flag=True, help="As JSON.")


@click.command("verify")
@click.option("--repair", is_flag=True,
              help="Remove what is damaged and fetch it again; kit packages are made again by the next build.")
@click.option("--offline", is_flag=True, help="With --repair: fetch nothing, only remove.")
@_JSON
@click.pass_obj
def verify(settings: Settings, repair: bool, offline: bool, as_json: bool) -> None:
    """Hash every blob again and follow every name: is all here, and as it was?

    Names each damaged thing and the images that need it, and then ends with status 1.
    """
    import os

    from linuxkit.cli.progress import Progress
    from linuxkit.cli.transfer import connect
    from linuxkit.errors import ImageError
    from linuxkit.oci import verify as check
    from linuxkit.oci.store import Store

    store = Store(settings.cache)
    with Progress(sys.stderr, "checked", quiet=not settings.verbose) as progress:
        report = check.inspect(store, threads=min(4, os.cpu_count() or 1))
        found = report
        if repair and report.damage:
            for damage in report.damage:
                progress.line(f"damaged: {damage}")
            report = check.repair(store, report, None if offline else connect(settings, progress), progress.line)
    if as_json:
        _print_json({
            "blobs": report.blobs, "bytes": report.size,
            "damage": [{"what": d.what, "why": d.why, "images": list(d.images)} for d in report.damage],
        })  # fmt: skip
    else:
        _print_report(report)
        if found.damage and not report.damage:
            click.echo("repaired", err=True)
    if report.damage:
        tried = "what is left cannot be fetched: import the images again, or remove them with linuxkit cache rm NAME"
        raise ImageError(f"the cache {settings.cache} is damaged in {len(report.damage)} places",
                         hint=tried if repair else "linuxkit cache verify --repair")  # fmt: skip


@click.command("gc")
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@click.option("--min-age", default=3600, show_default=True, metavar="SECONDS", type=click.IntRange(0),
              help="Leave alone what came or was used later than that: another process may need it.")
@click.pass_obj
def gc(settings: Settings, dry_run: bool, min_age: int) -> None:
    """Remove blobs that no image needs, and what interrupted processes left."""
    from linuxkit.oci.collect import collect
    from linuxkit.oci.derived import Derived
    from linuxkit.oci.store import Store
    from linuxkit.oci.workspace import sweep_workspaces

    removed = collect(Store(settings.cache), dry_run=dry_run, age=min_age)
    for digest, size in removed:
        click.echo(f"{digest}\t{size}")
    freed = sum(size for _, size in removed)
    if not dry_run:
        freed += Derived(settings.cache / "derived").trim()
        sweep_workspaces(settings.cache / "kit", below=True)
    if settings.verbose:
        click.echo(f"{'would free' if dry_run else 'freed'} {human(freed)}", err=True)


@click.command("du")
@_JSON
@click.pass_obj
def du(settings: Settings, as_json: bool) -> None:
    """Show how much room each image takes: all its blobs, and those that it does not share.

    In bytes in a pipe, a tab between the columns.
    """
    from linuxkit.oci.collect import usage
    from linuxkit.oci.store import Store

    used = usage(Store(settings.cache))
    totals = {"all blobs": used.blobs, "needed by no image": used.unneeded, "derived, can be made again": used.derived}
    if as_json:
        _print_json({
            "images": [{"name": u.name, "bytes": u.size, "own": u.own} for u in used.images],
            "blobs": used.blobs, "unneeded": used.unneeded, "derived": used.derived,
        })  # fmt: skip
    elif not sys.stdout.isatty():
        sys.stdout.write("".join(f"{u.name}\t{u.size}\t{u.own}\n" for u in used.images))
    else:
        rows = [("NAME", "SIZE", "OWN"), *((u.name, human(u.size), human(u.own)) for u in used.images)]
        rows += [("", "", ""), *((name, human(size), "") for name, size in totals.items())]
        width = max(len(row[0]) for row in rows)
        sys.stdout.write("".join(f"{a:{width}}  {b:>9}  {c:>9}".rstrip() + "\n" for a, b, c in rows))


def human(size: int) -> str:
    """A number of bytes for people."""
    value, unit = float(size), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 999.5 or unit == "TB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if value >= 99.5 or unit == "B" else f"{value:.1f} {unit}"


def _print_report(report: Report) -> None:
    for damage in report.damage:
        click.echo(str(damage))
    if not report.damage:
        click.echo(f"{report.blobs} blobs, {human(report.size)}: nothing is damaged")


def _print_json(document: object) -> None:
    json.dump(document, sys.stdout, indent=2)
    sys.stdout.write("\n")
