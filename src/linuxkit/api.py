"""The library: what `import linuxkit` offers, and what the command line calls.

    sources = linuxkit.Sources(Path("cache"))
    artifact = linuxkit.build(linuxkit.load("web.yml"), name="web", directory=Path("out"), sources=sources)
    for file in artifact.files:
        print(file.path, file.size)
    with linuxkit.run("out/web", publish=("8080:80",)) as machine:
        print(machine.wait_booted(60).ok)
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from linuxkit.config.model import Config, VolumeFormat
from linuxkit.config.model import beside as names_beside
from linuxkit.errors import (
    HostError,
    ImageError,
    InputError,
    LinuxkitError,
    MissingError,
    NetworkError,
    Problem,
    TrustError,
)
from linuxkit.hostfiles import first_file, read_sources, source_file
from linuxkit.oci.media import Image, Platform
from linuxkit.plan.model import BuildPlan, Options
from linuxkit.sources import Sources as Sources  # part of the library's face
from linuxkit.sources import host_path

if TYPE_CHECKING:
    from linuxkit.encode.authenticode import Signer
    from linuxkit.machine.machine import Machine
    from linuxkit.outputs.build import DataPartition
    from linuxkit.outputs.files import Written
    from linuxkit.outputs.pieces import OutputFile
    from linuxkit.outputs.recall import Recorded
    from linuxkit.plan.lock import Lock
    from linuxkit.sbom.provenance import Provenance

ARCHITECTURES = ("amd64", "arm64", "riscv64")
KIT = "kit://"


@dataclass(frozen=True, slots=True)
class Artifact:
    """What a build made.

    files     in the order they were written; empty when it went to standard output.
    digest    of the plan: builds of one digest have the same bytes.
    segments  parts of the root filesystem that are worth caching; `cached` of them were in the cache already.
    record    what the outputs consist of, for outputs.recall.
    """

    files: tuple[Written, ...]
    digest: str
    segments: int
    cached: int
    record: Recorded


def load(*files: str | Path, sources: Sources | None = None, stdin: Callable[[int], bytes] | None = None,
         seen: Callable[[str, bytes], None] = lambda source, content: None,
         packages: dict[str, str] | None = None, name: Callable[[Path], str] | None = None) -> Config:  # fmt: skip
    """Read and merge YAML: files, http(s) addresses, and with `stdin` also `-`.

    Args:
        sources: how to reach the network.
        stdin: reads standard input to its end, but no more than the number of bytes it is given.
        seen: told of every source and its content.
        packages: filled with what each @pkg: directory stands for.
        name: the image's name of such a directory, where it isn't the usual one.

    Raises:
        InputError: `problems` has every fault of every file.
        NetworkError: an address cannot be fetched.
    """
    from linuxkit.config.load import Readers, load_documents

    def fetch(url: str, limit: int) -> bytes:
        from linuxkit.oci.transport import get_url

        return get_url(url, limit, sources.transport if sources else None)

    def package(directory: Path) -> str:
        from linuxkit.pkg.naming import package_name

        found = (name or package_name)(directory)
        if packages is not None:
            packages[str(directory)] = found
        if sources is not None:
            sources.packages[found] = str(directory)
        return found

    return load_documents([str(f) for f in files], Readers(stdin, fetch, package, check_reference, seen,
                                                         local=sources is not None and sources.local_files))


def check_reference(text: str) -> None:
    """Raise InputError when `text` cannot name an image."""
    from linuxkit.oci.reference import parse_reference
    from linuxkit.oci.resolve import ARCHIVES

    if "://" in text or text.partition(":")[0] in ARCHIVES:
        return  # the source of that scheme knows
    parse_reference(text)


def plan(config: Config, sources: Sources, options: Options, lock: Lock | None = None) -> BuildPlan:
    """Pin every image and decide every byte of a build, without writing anything but images into the cache.

    Args:
        lock: what every image has to be.

    Raises:
        InputError: lock and configuration disagree. LinuxkitError: of any kind.
    """
    from linuxkit.config.render import metadata
    from linuxkit.oci.reference import expand
    from linuxkit.plan.make import make_plan
    from linuxkit.runtime.check import check_settings

    check_settings(config)  # before anything is fetched
    read = read_sources(config, sources)
    platform = Platform("linux", options.architecture)
    images = _resolve(config, sources, platform, options.loaders, lock)
    kinds: tuple[Literal["yaml", "json"], ...] = ("yaml", "json")
    wanted = {file.metadata for file in config.files}
    rendered: dict[str, bytes] = {kind: metadata(config, kind, expand) for kind in kinds if kind in wanted}
    return make_plan(config, images, read, rendered, options, _profiles(config, sources))


def build(
    config: Config,
    *,
    name: str,
    sources: Sources,
    directory: Path | None = None,
    output: str = "",
    formats: Sequence[str] = (),
    options: Options | None = None,
    compress: str = "",
    level: int | None = None,
    threads: int = 2,
    size: int = 0,
    provenance: Provenance | None = None,
    lock: Lock | None = None,
    signer: Signer | None = None,
    qcow2: str = "",
    preflight: bool = True,
    memory: int = 0,
    root: str = "",
    verity: bool = False,
    data: DataPartition | None = None,
    one_archive: bool = False,
) -> Artifact:
    """Build a configuration.

    Args:
        name: what the files' names start with.
        directory: where they go; the current directory when not given.
        output: one file for a format that is one stream, or "-".
        formats: of outputs.table.FORMATS; kernel+initrd when empty (tar with `output`).
        compress: codec of an initrd or file system: none, gzip, zstd, lz4, xz. When empty: zstd, and none for EROFS.
        level: of the codec; its default when not given.
        size: of a disk in bytes; 0 is as small as its content.
        provenance: where to write what the build was made from.
        lock: what every image has to be.
        signer: of EFI programs, from outputs.signing.
        qcow2: how qcow2 files are compressed: zlib or zstd; empty for not at all.
        preflight: refuse what can't boot.
        memory: of the machine that it is for, in bytes, where it is known.
        root: of disks: initrd, or the filesystem of a root partition.
        verity: roots on a device have a hash tree, and the kernel's command line its root hash.
        data: of disks: a partition for what the machine keeps, from outputs.datapart.
        one_archive: an initrd is one cpio archive, not one for each part.

    Raises:
        LinuxkitError: of any kind. What was in the place of the outputs before is still there then.
    """
    from linuxkit.encode.compress import Codec, level_of
    from linuxkit.outputs.table import check_data, check_options, check_used, choose, disk_root, loaders, signer_of

    target = choose(formats, output, directory, "" if output else name, name)
    try:
        codec = Codec(compress or Codec.ZSTD)
    except ValueError:
        raise InputError(f"unknown compression '{compress}'", hint=f"there are {', '.join(Codec)}") from None
    level = level_of(codec, level)

    from linuxkit.oci.derived import Derived
    from linuxkit.oci.resolve import cache_root
    from linuxkit.outputs.build import Build
    from linuxkit.outputs.encoder import Encoder
    from linuxkit.outputs.files import write_files
    from linuxkit.outputs.recall import Recorded
    from linuxkit.outputs.table import make, warn_of_acls
    from linuxkit.rootfs.content import Content
    from linuxkit.runtime.containment import profile_files

    partition = disk_root(target.formats, root, verity)
    check_data(target.formats, data)
    check_options(target.formats, size=size, qcow2=qcow2, memory=memory, root=partition, one_archive=one_archive,
                  decompress=options is not None and options.decompress_kernel)  # fmt: skip
    needed = loaders(target.formats, rooted=bool(partition))
    options = replace(options or Options(), loaders=needed, signer=signer_of(target.formats, signer))
    used: dict[str, str] = {}
    for text, at in profile_files(config).items():
        for name in names_beside(text, at):
            one = source_file(name, at, sources)
            path = Path(one.path) if one is not None else host_path(name, sources)
            used[str(path.absolute())] = one.digest if one is not None else ""
    planned = plan(config, sources, options, lock)
    if provenance is not None:
        planned = provenance.embed(planned)
    content = Content(
        sources.store, Derived(cache_root(sources.cache)), whiteouts=planned.whiteouts, log=sources.log,
        attested=sources.unsigned,
        heal=sources.heal, max_layer=sources.max_layer,
    )  # fmt: skip
    encoder = Encoder(content, threads=threads, log=lambda part: sources.log(f"encoding {part}"))
    erofs = codec if compress else Codec.NONE
    made = Build(planned, content, encoder, codec, level, size, signer, erofs, qcow2, partition, verity, data,
                 one_archive)  # fmt: skip
    if preflight:
        from linuxkit.checking import judge

        judge(made, target.formats, memory, sources.log, config)
    encoder.counts.used.clear()
    warn_of_acls(made, target.formats)
    files = make(made, target)
    check_used(encoder.counts.used, compress, level if level != level_of(codec, None) else None)
    beside = _provenance(provenance, planned, files, target.output) if provenance is not None else []
    written = write_files(files, target.directory, target.output, beside)
    content.tell(planned.images())
    counts = encoder.counts
    used |= {str(host_path(n, sources).absolute()): "" for f in config.files for n in f.source_names()}
    used |= {str(Path(f.source.path).absolute()): f.source.digest for f in planned.files if f.source is not None}
    record = Recorded(planned.digest, counts.segments, used, files)
    return Artifact(tuple(written), planned.digest, counts.segments, counts.cached, record)


@contextmanager
def run(
    prefix: str | Path, *, output: Callable[[bytes], None] | None = None, **request: Any
) -> Iterator[Machine]:
    """Boot what a build wrote, in a virtual machine that lives as long as the context.

    Args:
        prefix: of the files' names (PREFIX-kernel, PREFIX-initrd.img, …), or an image.
        output: takes the console's bytes as they come, on another thread.
        request: fields of platforms.prepare.Request: memory (MiB), publish, disks, arch, state, …

    Raises:
        LinuxkitError: of any kind; MachineError from what waits on the machine.
    """
    from linuxkit.machine.machine import Machine
    from linuxkit.platforms.prepare import Request, prepare
    from linuxkit.platforms.qemu import command

    prepared = prepare(Request(prefix=str(prefix), **request))
    machine = Machine(
        lambda ends: command(prepared.spec, ends), state=prepared.state, output=output, helpers=prepared.helpers
    )
    with prepared.lock, machine:
        yield machine


def _resolve(config: Config, sources: Sources, platform: Platform, loaders: Sequence[str] = (),
             lock: Lock | None = None) -> Mapping[str, Image]:  # fmt: skip
    """Every image, once. What is wrong with one does not hide what is wrong with the next."""
    from linuxkit.plan.asked import asked

    places = asked(config, platform, loaders)
    pins = None
    if lock is not None:
        from linuxkit.locking import agree, pins_for

        agree(places, sources, lock)
        pins = pins_for(lock, platform)
    kit = dict.fromkeys(place.text.removeprefix(KIT) for place in places if place.text.startswith(KIT))
    if len(kit) > 1 and not sources.offline:
        known = set(sources.kit.names())  # the others are found out below, each where it stands
        sources.kit.ensure([n for n in kit if n in known], platform, pins=pins)  # side by side
    layouts = {volume.image for volume in config.volumes if volume.format is VolumeFormat.OCI}
    if config.trust.image or config.trust.org:
        loose = sources.guard.required([p.text for p in places], config.trust.image, config.trust.org)
        for text in dict.fromkeys(loose):
            sources.log(f"trust: nothing says who has to sign {text}; it is used unverified (--trust-policy FILE)")
    images: dict[str, Image] = {}
    failed: dict[str, tuple[LinuxkitError, Problem]] = {}
    for place in places:
        text, at = place.text, place.position
        if text in images or text in failed:
            continue
        try:
            image = _image(text, platform, sources, lock)
            sources.guard.check(text, image, whole=text in layouts)  # besides the resolver, which doesn't see all
            images[text] = image
        except LinuxkitError as e:
            if text in sources.packages and isinstance(e, MissingError | NetworkError | ImageError):
                e.message = f"the package {sources.packages[text]} is not built: {e.message}"
                e.hint = f"build it: linuxkit pkg build {sources.packages[text]}"
            failed[text] = (e, Problem(e.message, at.file, at.line, at.column, place.path, e.hint))
    for place in places:
        for other in place.platforms[1:] if place.text in images else ():  # of volumes that are image layouts
            sources.guard.check(place.text, _image(place.text, other, sources, lock), whole=True)
    if not failed:
        return images
    errors = [error for error, _ in failed.values()]
    listed = [problem for _, problem in failed.values()]
    missing = [error.name for error in errors if isinstance(error, MissingError)]
    if sources.offline and missing and len(missing) == len(errors):
        raise _not_here(missing, listed, sources)
    if len(errors) == 1:
        errors[0].message = str(replace(listed[0], hint=""))  # the same, and where the image is asked for
        raise errors[0]
    kinds = {type(e) for e in errors}
    kind = kinds.pop() if len(kinds) == 1 else LinuxkitError
    kind = kind if kind in (InputError, TrustError, NetworkError, HostError) else ImageError
    raise kind(f"{len(errors)} images cannot be used", problems=listed)


def _not_here(names: Sequence[str], listed: Sequence[Problem], sources: Sources) -> ImageError:
    """Everything that is missing at once, and what brings it here."""
    kit = [name.removeprefix(KIT) for name in names if name.startswith(KIT)]
    local = [sources.packages[name] for name in names if name in sources.packages]
    pull = [name for name in names if not name.startswith(KIT) and name not in sources.packages]
    if local and not kit and not pull:
        message = str(replace(listed[0], hint="")) if len(local) == 1 else f"{len(local)} packages are not built"
        return ImageError(message, hint=f"build {'it' if len(local) == 1 else 'them'}: linuxkit pkg build "
                          f"{' '.join(local)}", problems=listed if len(local) > 1 else ())  # fmt: skip
    commands = [f"linuxkit pkg build {' '.join(local)}"] if local else []
    commands += [f"linuxkit cache pull {' '.join(pull)}"] if pull else []
    commands += [f"linuxkit kit build {' '.join(kit)}"] if kit else []
    files = " ".join(dict.fromkeys(problem.file for problem in listed if problem.file))
    near = ""
    if len(listed) == 1 and listed[0].hint.startswith("did you mean"):
        near = f"{listed[0].hint.partition('?')[0]}? Or "
    where = sources.opened.where if sources.opened is not None else f"the cache {sources.cache}"
    lines = [replace(problem, message=name, hint="") for name, problem in zip(names, listed, strict=True)]
    return ImageError(
        str(replace(listed[0], hint="")) if len(names) == 1 else
        f"{len(names)} images are not in {where}, and --offline keeps the network out:"
        + "".join(f"\n  {line}" for line in lines),
        hint=f"{near}where there is a network: {'; '.join(commands)}; or linuxkit bundle {files} -o FILE there, "
             "and --bundle FILE here",
    )  # fmt: skip


def _image(text: str, platform: Platform, sources: Sources, lock: Lock | None) -> Image:
    """One image, pinned. Nothing of it has been read but its manifest and configuration."""
    if lock is None:
        return sources.resolver.resolve(text, platform)
    from linuxkit.locking import pinned_image

    return pinned_image(text, platform, sources, lock)


def _provenance(
    wanted: Provenance, plan: BuildPlan, files: Sequence[OutputFile], output: str
) -> list[tuple[Path, bytes]]:
    """The statement about the outputs, and where it goes."""
    if wanted.file is None:
        return []
    from linuxkit.encode.pieces import read
    from linuxkit.sbom.provenance import encode

    subjects = []
    for file in files:
        digest = hashlib.sha256()
        for data in read(file.pieces):
            digest.update(data)
        name = Path(output).name if output not in ("", "-") else file.name
        subjects.append((name, f"sha256:{digest.hexdigest()}"))
    return [(wanted.file, encode(wanted.statement(plan, subjects)))]


def _profiles(config: Config, sources: Sources) -> dict[str, Any]:
    """Every seccomp profile that the YAML names, as far as there are such files."""
    from linuxkit.runtime.containment import profile_files
    from linuxkit.runtime.seccomp import MAX_FILE, read_profile

    found = {}
    for name, at in profile_files(config).items():
        one = first_file(names_beside(name, at), at, sources)
        if one is not None:
            with open(one[1].path, "rb") as stream:
                found[name] = read_profile(stream.read(MAX_FILE + 1), name)
    return found
