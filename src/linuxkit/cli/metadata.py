"""linuxkit metadata: what a machine is given to read."""

from __future__ import annotations

from pathlib import Path

import click

from linuxkit.errors import InputError


@click.group()
def metadata() -> None:
    """Make images with user data for machines."""


@metadata.command()
@click.argument("iso", type=click.Path(path_type=Path), metavar="ISO")
@click.argument("text", required=False, metavar="STRING")
@click.option("--data-file", type=click.Path(path_type=Path), metavar="FILE", help="Take the data from a file.")
def create(iso: Path, text: str | None, data_file: Path | None) -> None:
    """Write a CD image with one file, /config, that holds STRING.

    The guest's metadata package finds it in any CD drive and puts it into /run/config: as userdata, and as files when
    it is JSON like {"motd": {"content": "hello"}, "app": {"entries": {...}}}. `linuxkit run --data` makes and attaches
    such a CD by itself.
    """
    from linuxkit.cli.run import user_data
    from linuxkit.encode.config_iso import write_config

    if (text is None) == (data_file is None):
        raise InputError("metadata create takes an image to write and the data: STRING or --data-file FILE",
                         hint='linuxkit metadata create config.iso \'{"ssh": "…"}\'')  # fmt: skip
    write_config(iso, user_data(text, data_file) or b"")
