"""linuxkit serve: a folder over HTTP, and scripts that boot from it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from linuxkit.errors import InputError

if TYPE_CHECKING:
    from ssl import SSLContext

DEFAULT = "127.0.0.1:8080"


def parse_address(text: str) -> tuple[str, int]:
    """`[ADDRESS]:PORT` or `PORT`: where to listen. `:PORT` is every address, a plain port this machine's own.

    Raises:
        InputError: something else.
    """
    found = re.fullmatch(r"(?:(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]*):)?([0-9]{1,5})", text, re.ASCII)
    if not found or int(found[2]) > 65535:
        raise InputError(f"--port {text!r} is not understood", hint="use :8080, 127.0.0.1:8080 or 8080")
    address = "127.0.0.1" if found[1] is None else found[1].strip("[]")
    return address or "0.0.0.0", int(found[2])


@click.command()
@click.argument("name", required=False, default="")
@click.option("--port", default=DEFAULT, show_default=True, metavar="[ADDR]:PORT",
              help="Where to listen; :8080 is every address of this machine, port 0 a free one.")
@click.option("--directory", type=click.Path(path_type=Path), default=Path(), metavar="DIR",
              help="What to serve.  [default: this folder]")
@click.option("--tls", is_flag=True, help="Serve HTTPS, with a certificate made for it if none is given.")
@click.option("--cert", type=click.Path(path_type=Path), metavar="FILE", help="The certificate for --tls, in PEM.")
@click.option("--key", type=click.Path(path_type=Path), metavar="FILE", help="Its key, if not in the same file.")
@click.pass_context
def serve(ctx: click.Context, name: str, port: str, directory: Path, tls: bool, cert: Path | None,
          key: Path | None) -> None:  # fmt: skip
    """Serve a folder over HTTP, for machines that boot from the network with iPXE.

    /boot.ipxe is a script that boots NAME, or a menu of what is there; /NAME.ipxe boots one of several. Ctrl-C ends it.
    """
    from linuxkit.cli.run import signals
    from linuxkit.serving.server import Server

    address, number = parse_address(port)
    if key is not None and cert is None:
        raise InputError("--key needs --cert", hint="give both, or neither")
    context = _tls(ctx, address, cert, key) if tls or cert is not None else None

    def log(line: str) -> None:
        if not ctx.obj.quiet:
            click.echo(line, err=True)

    with signals(), Server(address, number, directory, chosen=name, log=log, tls=context) as server:
        shown = "127.0.0.1" if address == "0.0.0.0" else f"[{address}]" if ":" in address else address
        log(f"serving {server.folder} at {'https' if context else 'http'}://{shown}:{server.server_port}/")
        log("iPXE: chain " + f"{'https' if context else 'http'}://{shown}:{server.server_port}/boot.ipxe")
        try:
            server.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt:
            log("")


def _tls(ctx: click.Context, address: str, cert: Path | None, key: Path | None) -> SSLContext:
    import datetime
    import platform

    from linuxkit.serving import tls

    if cert is not None:
        return tls.given(cert, key)
    names = ["localhost", "127.0.0.1", "::1", platform.node(), *([address] if address != "0.0.0.0" else [])]
    context, path, digest = tls.made(ctx.obj.cache / "serve", names, datetime.datetime.now(datetime.UTC))
    if not ctx.obj.quiet:
        click.echo(f"certificate: {path} (SHA-256 {digest})", err=True)
    return context
