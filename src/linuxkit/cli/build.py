"""linuxkit build."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from linuxkit.cli.main import Settings, allow_local_files, allow_release_rollback, max_layer
from linuxkit.cli.parameters import DECIDE, installed, parameters

if TYPE_CHECKING:
    from collections.abc import Sequence

    from linuxkit.encode.authenticode import Signer
    from linuxkit.outputs.build import DataPartition
    from linuxkit.outputs.files import Written
    from linuxkit.outputs.recall import Recorded
    from linuxkit.plan.lock import Lock

#: How lines begin that are as true of a rebuild from the cache.
WARNINGS = ("warning: ", "note: ", "trust: ")
class _Build(click.Command):
    """Its help ends with all formats. They are imported for that alone, so that a build starts quickly."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from linuxkit.outputs.table import DEFAULT, FORMATS

        with formatter.section("Formats"):
            formatter.write_dl([
                (name, made.summary + ("  [default]" if name == DEFAULT else ""))
                for name, made in sorted(FORMATS.items(), key=lambda item: (item[0] != DEFAULT, item[0]))
            ])  # fmt: skip


@click.command(cls=_Build)
@click.argument("files", nargs=-1, metavar="FILE.yml|URL|-...")
@click.option("--name", default="", help="What the files' names start with.  [default: the last FILE's name]")
@click.option("--dir", "directory", type=click.Path(path_type=Path), help="Directory for the outputs.  [default: .]")
@click.option("--o", "output", default="", metavar="FILE", help="One output file, or - for standard output.")
@click.option("-f", "--format", "formats", multiple=True, metavar="NAME[,NAME...]", help="Output formats; see below.")
@click.option("--arch", default="", metavar="ARCH", help="amd64, arm64 or riscv64.  [default: this machine's]")
@click.option("--compress", default="", metavar="CODEC",
              help="Of initrd, squashfs, EROFS: none, gzip, zstd, lz4 or xz.  [default: zstd; of EROFS none]")
@click.option("--initrd-archives", type=click.Choice(["one", "many"]), default=None,
              help="An initrd as one cpio archive, for gzip -dc | cpio -i; or one for each part.  "
                   "[default: many; with gzip one]")
@click.option("--level", type=int, default=None, metavar="N", help="Compression level.  [default: the codec's]")
@click.option("--decompress-kernel", is_flag=True, help="Unpack a gzip-compressed kernel.")
@click.option("--no-sbom", is_flag=True, help="Leave out the software bill of materials.")
@click.option("--sbom-output", default="", metavar="PATH",
              help="Where it is in the image.  [default: sbom.spdx.json, or sbom.cdx.json]")
@click.option("--sbom-format", type=click.Choice(["spdx", "cyclonedx"]), default="spdx", show_default=True,
              help="SPDX 2.3 or CycloneDX 1.6, as JSON.")
@click.option("--sbom-current-time", is_flag=True, help="Date it now; the image then differs each time.")
@click.option("--provenance", "provenance_file", default="", metavar="FILE",
              help="Write what the build was made from: SLSA provenance, an in-toto statement.")
@click.option("--provenance-output", default="", metavar="PATH", help="Put a copy into the image, at PATH.")
@click.option("--builder-id", default="", envvar="LINUXKIT_BUILDER_ID", show_envvar=True, metavar="URI",
              help="Who builds, for the provenance.")
@click.option("--whiteouts", type=click.Choice(["linuxkit", "oci"]), default="linuxkit", show_default=True,
              help="How layers delete files: as LinuxKit reads it, or as the OCI specification says.")
@click.option("--plan", "show_plan", is_flag=True, help="Print what would be built, as JSON, and build nothing.")
@click.option("--dry-run", is_flag=True, help="Print the merged YAML and build nothing.")
@click.option("--pull", is_flag=True, help="Fetch images even when the cache has them.")
@click.option("--offline", is_flag=True, envvar="LINUXKIT_OFFLINE", show_envvar=True, help="Never use the network.")
@click.option("--lock", "lock_file", type=click.Path(path_type=Path), metavar="FILE",
              help="Take the images that this lock names.  [default: NAME.lock beside the last FILE, when it is there]")
@click.option("--no-lock", is_flag=True, help="Use no lock.")
@click.option("--bundle", "bundle_file", type=click.Path(path_type=Path), metavar="FILE",
              help="Take everything from what linuxkit bundle made; without FILE.yml, the YAML too. Uses no network.")
@click.option("--debian-mirror", default="", envvar="LINUXKIT_DEBIAN_MIRROR", show_envvar=True,
              metavar="URL[,SECURITY-URL]", help="For kit packages.  [default: the one apt uses]")
@click.option("--input-tar", default="", metavar="FILE", help="Accepted; what didn't change is reused without it.")
@click.option("--docker", is_flag=True, help="Accepted; there is no Docker engine involved.")
@click.option("--size", default="", metavar="N[M|G]", help="Of a disk, in GB.  [default: what its content needs]")
@click.option("--qcow2-compress", type=click.Choice(["zlib", "zstd"]),
              help="Compress qcow2 files; zstd needs QEMU 5.1.  [default: not at all]")
@click.option("--mem", default="", metavar="N[M|G]",
              help="Memory of the machine that it is for, in MB: what doesn't fit is refused.")
@click.option("--no-preflight", is_flag=True, help="Build what can't boot, too.")
@click.option("--root", "disk_root", default="", metavar="KIND",
              help="Of disks: initrd, or squashfs and the like: a partition that is read as needed.  [default: initrd]")
@click.option("--data-partition", default="", metavar="SIZE[:LABEL]",
              help="Of disks: one more, with an empty ext4 for what the machine keeps. In GB; labelled data.")
@click.option("--verity", is_flag=True, help="Have the kernel check every block that is read of a root on a device.")
@click.option("--sign-key", type=click.Path(path_type=Path), metavar="FILE",
              help="Sign the EFI program for Secure Boot, with this RSA key (PEM) ...")
@click.option("--sign-cert", type=click.Path(path_type=Path), metavar="FILE", help="... and this certificate (PEM).")
@allow_local_files
@max_layer
@allow_release_rollback
@click.pass_obj
def build(
    settings: Settings, files: tuple[str, ...], name: str, directory: Path | None, output: str,
    formats: tuple[str, ...], arch: str, compress: str, level: int | None, decompress_kernel: bool, no_sbom: bool,
    sbom_output: str, sbom_format: str, sbom_current_time: bool, provenance_file: str, provenance_output: str,
    builder_id: str, whiteouts: str, show_plan: bool, dry_run: bool, pull: bool, offline: bool, debian_mirror: str,
    input_tar: str, docker: bool, size: str, lock_file: Path | None, no_lock: bool,
    bundle_file: Path | None, sign_key: Path | None, sign_cert: Path | None, qcow2_compress: str | None,
    mem: str, no_preflight: bool, disk_root: str, verity: bool, data_partition: str,
    initrd_archives: str | None,
) -> None:  # fmt: skip
    """Build a bootable image from YAML files, which are merged from left to right."""
    started = time.monotonic()
    from linuxkit.cli.lock import chosen, content

    if not files and bundle_file is None:
        raise click.UsageError("Missing argument 'FILE.yml|URL|-...'.")
    lock_file = chosen(files, name, lock_file, no_lock) if bundle_file is None else lock_file
    locked = content(lock_file) if lock_file is not None else b""
    disk_size = _disk_size(size)
    if initrd_archives == "many" and compress == "gzip":
        raise click.UsageError("--initrd-archives many: with gzip an initrd is always one archive.")
    sbom = "" if no_sbom else sbom_output or {"spdx": "sbom.spdx.json"}.get(sbom_format, "sbom.cdx.json")
    asked_for = click.get_current_context().params
    flags = {option: asked_for[option] for option in DECIDE} | {
        "lock": locked.decode(errors="replace"), "home": os.environ.get("HOME"), "output": bool(output),
        "preflight": not no_preflight, "tools": installed(),
    }
    plain = not (dry_run or show_plan or pull or sbom_current_time or input_tar or docker or (output and directory)
                 or bundle_file or sign_key or provenance_file or provenance_output
                 or settings.policy_file or settings.local_files)  # fmt: skip
    shortcut = _Shortcut(settings, files, flags) if plain and not (output and name) else None
    if shortcut is not None and shortcut.take(output, directory, started):
        return
    from linuxkit import api
    from linuxkit.cli.progress import Progress
    from linuxkit.cli.sbom import created as when
    from linuxkit.cli.sbom import provenance_of
    from linuxkit.cli.sign import policy_of
    from linuxkit.errors import InputError
    from linuxkit.plan.model import Options

    progress = Progress(sys.stderr, "pulled", quiet=not settings.verbose)
    click.get_current_context().call_on_close(progress.clear)
    warnings: list[str] = []

    def log(text: str) -> None:
        if text.startswith(WARNINGS):
            warnings.append(text)
        progress.line(text)

    sources = api.Sources(
        settings.cache, settings.mirrors, settings.cert_files, offline, pull, debian_mirror, os.environ,
        log, progress, policy=policy_of(settings), local_files=settings.local_files,
        rollback=settings.rollback, max_layer=settings.max_layer,
    )  # fmt: skip
    documents: list[tuple[str, bytes]] = []
    if bundle_file is not None:
        sources = replace(sources, offline=True, bundle=bundle_file, own_lock=lock_file is not None,
                          own_yaml=bool(files))  # fmt: skip
        if pull or no_lock:
            raise InputError(f"--bundle and {'--pull' if pull else '--no-lock'} cannot be used together",
                             hint="a bundle has the images that its lock names, and no others")  # fmt: skip
        if lock_file is None and sources.opened is not None:
            locked, lock_file = sources.opened.contents.lock, bundle_file
    bundled = sources.opened if not files else None
    if bundled is not None:
        from linuxkit.bundling import load_bundled

        config = load_bundled(bundled)
        documents += bundled.contents.documents
    else:
        config = api.load(*files, sources=sources, stdin=sys.stdin.buffer.read,
                          seen=lambda *one: documents.append(one))  # fmt: skip
    if dry_run:
        from linuxkit.config.render import dry_run as render

        click.echo(render(config), nl=False)
        return
    lock = _lock(lock_file, locked, documents)
    if input_tar:
        _check_input_tar(input_tar, output, pull, any(f.metadata for f in config.files))
    if pull and offline:
        raise InputError("--pull and --offline cannot be used together", hint="leave one of them out")
    if docker:
        _note(settings, "--docker: no Docker engine is used; give an image of it as docker-archive:FILE "
                        "(docker save -o FILE IMAGE)")  # fmt: skip
    created = when(sbom_current_time) if sbom else ""
    options = Options(architecture(arch), decompress_kernel, sbom, created, whiteouts, sbom_format)
    default_name = name or (bundled.contents.name if bundled is not None else base_name(files[-1]))
    read = [*documents, *_named(lock_file, locked)]
    provenance = provenance_of(provenance_file, provenance_output, builder_id, read, parameters(asked_for, {
        "name": default_name, "arch": options.architecture, "sbom_output": sbom, "sbom_current_time": created,
        "size": disk_size or None,
    }))  # fmt: skip
    if show_plan:
        import json

        from linuxkit.outputs import table

        wanted = table.choose(formats, output, None, "", default_name).formats
        needed = table.loaders(wanted, rooted=bool(table.disk_root(wanted, disk_root, verity)))
        planned = api.plan(config, sources, replace(options, loaders=needed), lock)
        planned = provenance.embed(planned) if provenance else planned
        click.echo(json.dumps(planned.to_json() | {"digest": planned.digest}, indent=2))
        return
    if name and output:
        raise InputError("--o and --name cannot be used together", hint="leave out --name")
    artifact = api.build(
        config, name=default_name, sources=sources, directory=directory, output=output, formats=formats,
        options=options, compress=compress, level=level, threads=max(1, min(4, os.cpu_count() or 1)),
        provenance=provenance, size=disk_size,
        signer=_signer(sign_key, sign_cert), lock=lock, qcow2=qcow2_compress or "",
        preflight=not no_preflight, memory=memory_size(mem), root=disk_root, verity=verity,
        data=_data(data_partition), one_archive=initrd_archives == "one",
    )  # fmt: skip
    if shortcut is not None:
        shortcut.keep(artifact.record, warnings)
    _summary(settings, artifact.files, artifact.cached, artifact.segments, time.monotonic() - started)


def _named(lock_file: Path | None, locked: bytes) -> list[tuple[str, bytes]]:
    return [(str(lock_file), locked)] if lock_file is not None else []


def _lock(file: Path | None, data: bytes, documents: Sequence[tuple[str, bytes]]) -> Lock | None:
    """The lock in a file, compared with the YAML that was fetched."""
    if file is None:
        return None
    from linuxkit.locking import check_documents
    from linuxkit.plan.lock import decode

    lock = decode(data, str(file))
    check_documents(lock, documents)
    return lock


class _Shortcut:
    """Repeats a build whose inputs are all the same, without reading the YAML or planning."""

    def __init__(self, settings: Settings, files: tuple[str, ...], flags: dict[str, object]) -> None:
        from linuxkit.data import data_dir
        from linuxkit.oci.derived import Derived

        self._settings, self._files, self._flags = settings, files, flags
        self._derived = Derived(settings.cache / "derived")
        self._folders = [data_dir("kit"), data_dir("guest")]
        self._key = self._inputs()

    def _inputs(self) -> str | None:
        from linuxkit.outputs.recall import inputs_key

        program = Path(__file__).resolve().parent.parent
        return inputs_key(self._files, self._flags, self._settings.cache / "index.json", self._folders, program,
                          loaders=bool(self._flags["formats"]))  # fmt: skip

    def take(self, output: str, directory: Path | None, started: float) -> bool:
        """Do it, if that is possible."""
        from linuxkit.outputs.recall import recall

        found = recall(self._derived, self._key) if self._key else None
        if found is None:
            return False
        from linuxkit.outputs.files import write_files

        for line in found.warnings:
            _note(self._settings, line)
        written = write_files(found.files, directory or Path(), output)
        _summary(self._settings, written, found.segments, found.segments, time.monotonic() - started)
        return True

    def keep(self, record: Recorded, warnings: Sequence[str]) -> None:
        """Remember a build, with what was said to its user: that is still true the next time."""
        from linuxkit.outputs.recall import remember

        if self._key and self._key == self._inputs():  # nothing changed under the build's feet
            remember(self._derived, self._key, record._replace(warnings=warnings))


def _check_input_tar(path: str, output: str, pull: bool, has_metadata: bool) -> None:
    """LinuxKit's rules. What it does with the file, the cache does for every build."""
    from linuxkit.errors import InputError

    if pull:
        raise InputError("cannot use --input-tar and --pull together", hint="leave one of them out")
    if output and output != "-" and Path(path).absolute() == Path(output).absolute():
        raise InputError("input-tar and output file cannot be the same", hint="give another --o")
    if not Path(path).is_file():
        raise InputError(f"--input-tar {path}: there is no such file", hint="leave it out: the cache is used anyway")
    if not has_metadata:
        raise InputError("--input-tar needs a files: entry with metadata:", hint="leave --input-tar out: what did not "
                         "change since the last build comes from the cache anyway")  # fmt: skip


def architecture(text: str) -> str:
    """--arch, or this machine's, in Go's names."""
    from linuxkit.api import ARCHITECTURES
    from linuxkit.errors import InputError

    names = {"x86_64": "amd64", "aarch64": "arm64"}
    if not text:
        text = os.uname().machine
    text = names.get(text, text)
    if text not in ARCHITECTURES:
        raise InputError(f"unknown architecture '{text}'", hint=f"give --arch {' or '.join(ARCHITECTURES)}")
    return text


def _signer(key: Path | None, certificate: Path | None) -> Signer | None:
    from linuxkit.errors import InputError

    if key is None and certificate is None:
        return None
    if key is None or certificate is None:
        raise InputError("--sign-key and --sign-cert belong together", hint="give both, or neither")
    from linuxkit.outputs.signing import load_signer

    return load_signer(key, certificate)


def _data(text: str) -> DataPartition | None:
    """--data-partition."""
    if not text:
        return None
    from linuxkit.errors import InputError
    from linuxkit.outputs.datapart import checked
    from linuxkit.platforms.disks import parse_size

    size, _, label = text.partition(":")
    try:
        return checked(parse_size(size, "G"), label)
    except ValueError:
        raise InputError(f"--data-partition {text!r}: {size!r} is not a size",
                         hint="give it in GB, or as 500M or 2G; then perhaps :LABEL") from None  # fmt: skip


def memory_size(text: str) -> int:
    """--mem in bytes; 0 when it isn't given."""
    if not text:
        return 0
    from linuxkit.errors import InputError
    from linuxkit.platforms.disks import parse_size

    try:
        return parse_size(text, "M")
    except ValueError:
        raise InputError(f"--mem {text!r} is not a size", hint="give it in MB, or as 512M or 2G") from None


def _disk_size(text: str) -> int:
    """--size in bytes; 0 when it isn't given."""
    if not text:
        return 0
    from linuxkit.errors import InputError
    from linuxkit.platforms.disks import parse_size

    try:
        return parse_size(text, "G")
    except ValueError:
        raise InputError(f"--size {text!r} is not a size", hint="give it in GB, or as 500M or 2G") from None


def base_name(file: str) -> str:
    if file == "-":
        return "moby"
    base = file.rsplit("/", 1)[-1].partition("?")[0]
    return base.rpartition(".")[0] or base


def _note(settings: Settings, line: str) -> None:
    if settings.verbose >= 1:
        click.echo(line, err=True)


def _summary(settings: Settings, written: Sequence[Written], cached: int, segments: int, seconds: float) -> None:
    if settings.verbose < 1:
        return
    files = ", ".join(f"{file.path} ({_size(file.size)})" for file in written) or "standard output"
    click.echo(f"built {files} in {seconds:.1f} s: {cached} of {segments} segments from the cache", err=True)


def _size(count: int) -> str:
    if count < 10_000:
        return f"{count} B"
    if count < 1_000_000:
        return f"{count / 1000:.0f} KB"
    return f"{count / 1e6:.1f} MB" if count < 10_000_000 else f"{count / 1e6:.0f} MB"
