"""linuxkit check."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from linuxkit.cli.main import Settings, allow_local_files, allow_release_rollback, max_layer


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE.yml|URL|-...")
@click.option("-f", "--format", "formats", multiple=True, metavar="NAME[,NAME...]",
              help="Output formats, as for build.  [default: kernel+initrd]")
@click.option("--arch", default="", metavar="ARCH", help="amd64, arm64 or riscv64.  [default: this machine's]")
@click.option("--compress", default="", metavar="CODEC", help="Of the initrd or file system, as for build.")
@click.option("--decompress-kernel", is_flag=True, help="Unpack a gzip-compressed kernel.")
@click.option("--mem", default="", metavar="N[M|G]", help="Memory of the machine that it is for, in MB.")
@click.option("--root", "disk_root", default="", metavar="KIND", help="Of disks, as for build.")
@click.option("--verity", is_flag=True, help="As for build.")
@click.option("--offline", is_flag=True, envvar="LINUXKIT_OFFLINE", show_envvar=True, help="Never use the network.")
@click.option("--lock", "lock_file", type=click.Path(path_type=Path), metavar="FILE",
              help="Take the images that this lock names.  [default: NAME.lock beside the last FILE, when it is there]")
@click.option("--no-lock", is_flag=True, help="Use no lock.")
@click.option("--debian-mirror", default="", envvar="LINUXKIT_DEBIAN_MIRROR", show_envvar=True,
              metavar="URL[,SECURITY-URL]", help="For kit packages.  [default: the one apt uses]")
@allow_local_files
@max_layer
@allow_release_rollback
@click.pass_obj
def check(
    settings: Settings, files: tuple[str, ...], formats: tuple[str, ...], arch: str, compress: str,
    decompress_kernel: bool, mem: str, disk_root: str, verity: bool, offline: bool, lock_file: Path | None,
    no_lock: bool, debian_mirror: str,
) -> None:  # fmt: skip
    """Say what keeps YAML files from booting, all at once. Nothing is written but images into the cache.

    Exit status: 0 nothing was found, 2 it can't boot.
    """
    from linuxkit import api
    from linuxkit.checking import check as find
    from linuxkit.cli.build import architecture, memory_size
    from linuxkit.cli.lock import chosen, content
    from linuxkit.cli.progress import Progress
    from linuxkit.cli.sign import policy_of
    from linuxkit.locking import check_documents
    from linuxkit.outputs.preflight import refuse
    from linuxkit.plan.lock import decode
    from linuxkit.plan.model import Options

    memory = memory_size(mem)
    lock_file = chosen(files, "", lock_file, no_lock)
    progress = Progress(sys.stderr, "pulled", quiet=not settings.verbose)
    click.get_current_context().call_on_close(progress.clear)
    sources = api.Sources(
        settings.cache, settings.mirrors, settings.cert_files, offline, debian=debian_mirror, environment=os.environ,
        log=progress.line, progress=progress, policy=policy_of(settings), local_files=settings.local_files,
        rollback=settings.rollback, max_layer=settings.max_layer,
    )  # fmt: skip
    documents: list[tuple[str, bytes]] = []
    config = api.load(*files, sources=sources, stdin=sys.stdin.buffer.read, seen=lambda *one: documents.append(one))
    lock = decode(content(lock_file), str(lock_file)) if lock_file is not None else None
    if lock is not None:
        check_documents(lock, documents)
    options = Options(architecture(arch), decompress_kernel, sbom="")
    found = find(config, sources=sources, formats=formats, options=options, compress=compress, lock=lock, memory=memory,
                 root=disk_root, verity=verity)  # fmt: skip
    for one in found:
        if not one.fatal:
            word = click.style("note", bold=True) if one.note else click.style("warning", fg="yellow", bold=True)
            click.echo(f"{word}: {one.problem}", err=True)
    refuse(found)
    if settings.verbose:
        click.echo(f"{', '.join(files)}: nothing was found that keeps it from booting on {options.architecture}")
