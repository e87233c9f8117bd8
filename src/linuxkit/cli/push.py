"""linuxkit push."""

from __future__ import annotations

from typing import Any

import click

from linuxkit.cli.places import COMMON, Places, job, local_image, options, secrets, understood
from linuxkit.cli.run import signals
from linuxkit.places.place import Place


def _command(place: Place) -> click.Command:
    settings = place.load().PUSH_SETTINGS

    def push(image: str, arch: str, **given: Any) -> None:
        ctx = click.get_current_context()
        work = job(ctx, settings, given, "sent")
        file = local_image(ctx, place, image, arch)
        with signals(), understood(place, work), work.journal:
            pusher = place.load().Push(work, file)
            pusher.preflight()
            pushed = pusher.push()
        said = "is there already" if pushed.there_before else "would be pushed" if work.dry_run else "pushed"
        work.log(f"{said}: {pushed.name}" + (f"; run it with: {pushed.run_with}" if pushed.run_with else ""))
        if pushed.identity and not work.dry_run:
            click.echo(pushed.identity)

    return click.Command(
        place.name, callback=push, help=f"Push an image to {place.summary}.\n\nIMAGE is a file, the prefix of one that "
        f"was built, or YAML, which is built as {place.formats[0]} first. Prints what the image is called there.",
        epilog=secrets(settings),
        params=[click.Argument(["image"], metavar="IMAGE"), *options(settings),
                click.Option(["--arch"], default="", metavar="ARCH", help="When it is built from YAML."), *COMMON],
    )  # fmt: skip


push = Places("push", _command, help="""Push an image to a cloud, a hypervisor or a server.

    \b
    linuxkit push http --url https://files.example/images/ web.yml

    See linuxkit push PLACE --help.""")
