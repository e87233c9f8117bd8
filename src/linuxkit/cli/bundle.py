"""linuxkit bundle"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from linuxkit.cli.main import Settings, allow_local_files, allow_release_rollback


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE.yml|URL|-...")
@click.option("-o", "--output", required=True, metavar="FILE", help="Where to write; - is standard output.")
@click.option("--name", default="", help="The build's name.  [default: the last FILE's name]")
@click.option("--lock", "lock_file", type=click.Path(path_type=Path), metavar="FILE",
              help="Take the images that this lock names.  [default: NAME.lock beside the last FILE, when it is there]")
@click.option("--no-lock", is_flag=True, help="Use no lock; the bundle gets one of what there is now.")
@click.option("--arch", "arches", multiple=True, metavar="ARCH",
              help="amd64, arm64 or riscv64; repeatable.  [default: this machine's]")
@click.option("--platform", "platforms", multiple=True, metavar="OS/ARCH", help="The same, as linux/ARCH.")
@click.option("-f", "--format", "formats", multiple=True, metavar="NAME[,NAME...]",
              help="Take in the boot loaders of these output formats, too.")
@click.option("--offline", is_flag=True, envvar="LINUXKIT_OFFLINE", show_envvar=True, help="Never use the network.")
@click.option("--debian-mirror", default="", envvar="LINUXKIT_DEBIAN_MIRROR", show_envvar=True,
              metavar="URL[,SECURITY-URL]", help="For kit packages.  [default: the one apt uses]")
@allow_local_files
@allow_release_rollback
@click.pass_obj
def bundle(settings: Settings, files: tuple[str, ...], output: str, name: str, lock_file: Path | None, no_lock: bool,
           arches: tuple[str, ...], platforms: tuple[str, ...], formats: tuple[str, ...], offline: bool,
           debian_mirror: str) -> None:
    """Put everything that a build takes into one file, for a machine without a network.

    \b
    linuxkit bundle web.yml -o web.tar            here
    linuxkit build --offline --bundle web.tar     there

    Images with their signatures, kit packages, the YAML, the files that it names, the lock. The same inputs give the
    same bytes. It is an OCI image layout, so other tools can read the images in it.
    """
    from linuxkit import api
    from linuxkit.bundling import make_bundle
    from linuxkit.cli.build import base_name
    from linuxkit.cli.lock import chosen, content, loaders_of, wanted_platforms
    from linuxkit.cli.sign import policy_of
    from linuxkit.locking import check_documents, make_lock
    from linuxkit.oci.files import host_errors, replacing
    from linuxkit.plan.lock import decode

    def note(line: str) -> None:
        if settings.verbose:
            click.echo(line, err=True)

    sources = api.Sources(settings.cache, settings.mirrors, settings.cert_files, offline, debian=debian_mirror,
                          environment=os.environ, log=note, policy=policy_of(settings),
                          local_files=settings.local_files, rollback=settings.rollback)  # fmt: skip
    path = chosen(files, name, lock_file, no_lock)
    documents: list[tuple[str, bytes]] = []
    packages: dict[str, str] = {}
    config = api.load(*files, sources=sources, stdin=sys.stdin.buffer.read, seen=lambda *one: documents.append(one),
                      packages=packages)  # fmt: skip
    wanted, loaders = wanted_platforms(arches, platforms), loaders_of(formats)
    if path is not None:
        lock = decode(content(path), str(path))
        check_documents(lock, documents)
    else:
        lock = make_lock(config, sources, wanted, loaders=loaders, documents=documents)
    called = name or base_name(files[-1])
    if output == "-":
        make_bundle(sys.stdout.buffer, config, sources, lock, name=called, platforms=wanted, documents=documents,
                    packages=packages, loaders=loaders)  # fmt: skip
        return
    target = Path(output)
    with host_errors("cannot write", target.parent), replacing(target) as stream:
        size = make_bundle(stream, config, sources, lock, name=called, platforms=wanted, documents=documents,
                           packages=packages, loaders=loaders)  # fmt: skip
    note(f"wrote {target} ({size / 1e6:.1f} MB) for {', '.join(map(str, wanted))}")
