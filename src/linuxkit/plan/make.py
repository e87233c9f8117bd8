"""Config + pinned images + options → BuildPlan. Pure.

    Config ─┐
    images ─┼─► make_plan ─► BuildPlan ─► to_json (build --plan), digest (names the build), segment keys
    files  ─┘

No network, clock, environment or disk: what had to be read (the digest of a file's source) is passed in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from linuxkit.config.model import Config, Json, Kernel, Security, Volume, VolumeFormat
from linuxkit.errors import InputError
from linuxkit.oci.media import Image
from linuxkit.plan.asked import loaders_for
from linuxkit.plan.containers import guest_files, plan_bundles
from linuxkit.plan.files import plan_files
from linuxkit.plan.model import (
    BuildPlan,
    KernelPlan,
    Options,
    PlannedFile,
    SbomPlan,
    SourceFile,
    Tree,
    VolumePlan,
)
from linuxkit.runtime.bootplan import GUEST_LABEL, GUEST_VERSIONS
from linuxkit.runtime.ids import id_map


def make_plan(
    config: Config,
    images: Mapping[str, Image],
    sources: Mapping[str, SourceFile],
    metadata: Mapping[str, bytes],
    options: Options,
    profiles: Mapping[str, Json] | None = None,
) -> BuildPlan:
    """Decide everything.

    Args:
        images: every image of the configuration, by the text that stands in the YAML, and of the loaders.
        sources: `source:` of every file that exists, by one of `File.source_names`.
        metadata: the rendered configuration by kind, for `metadata:` files.
        profiles: seccomp profiles by the name of their file.

    Raises:
        InputError: the configuration contradicts itself or an image's label.
    """
    ids = id_map(config)
    init = tuple(
        Tree(images[item.image], "", (item.image, f"init[{n}]")) for n, item in enumerate(config.init)
    )
    volumes = tuple(_volume(volume, n, images) for n, volume in enumerate(config.volumes))
    newest = max((GUEST_VERSIONS.get(tree.image.config.labels.get(GUEST_LABEL, ""), 0) for tree in init), default=0)
    security = config.security or default_security(config, newest > 0)
    bundles = plan_bundles(config, images, ids, options.architecture, security, profiles or {})
    files = plan_files(config.files, sources, metadata, ids)
    kernel = _kernel(config.kernel, images, options)
    guest: tuple[PlannedFile, ...] = ()
    if newest:
        guest = guest_files(config, volumes, bundles, newest)
    sbom = None
    if options.sbom:
        trees = [*init, *(v.tree for v in volumes if v.tree), *(b.tree for b in bundles if b.tree)]
        listed = [("", kernel.image)] if kernel else []
        listed += [(tree.prefix, tree.image) for tree in trees]
        listed += [(f"{v.directory}/lower", v.layout) for v in volumes if v.layout]
        sbom = SbomPlan(_sbom_path(options.sbom), options.sbom_created, tuple(listed), options.sbom_format)
    needed = loaders_for(options.loaders, options.architecture)
    loaders = tuple((name, images[f"kit://{name}"]) for name in needed)
    return BuildPlan(
        options.architecture, kernel, init, volumes, bundles, guest, files, sbom, options.whiteouts, loaders,
        options.signer,
    )  # fmt: skip


def default_security(config: Config, guested: bool) -> Security:
    """What holds when the YAML doesn't say: LinuxKit's own init and kernel get LinuxKit's config.json, byte for byte.

    Their kernel runs no program that a container names (CONFIG_STATIC_USERMODEHELPER); the kit's kernels, Debian's, do.

    Args:
        guested: an init image brings the kit's guest.
    """
    return Security.DEFAULT if guested or config.kernel.image.startswith("kit://") else Security.LINUXKIT


def _kernel(kernel: Kernel, images: Mapping[str, Image], options: Options) -> KernelPlan | None:
    if not kernel.image:
        return None
    tar = "" if kernel.tar == "none" else kernel.tar
    return KernelPlan(
        images[kernel.image], kernel.cmdline, kernel.binary or "kernel", tar, kernel.ucode, options.decompress_kernel,
        (kernel.image, "kernel"),
    )  # fmt: skip


def _volume(volume: Volume, number: int, images: Mapping[str, Image]) -> VolumePlan:
    directory = f"containers/volumes/{volume.name}"
    location = f"volume[{number}]"
    origin = (volume.image or "empty", location)
    tree = layout = None
    if volume.image and volume.format is VolumeFormat.OCI:
        layout = images[volume.image]
        if volume.image.startswith("kit://") and len(volume.platforms) < 2:
            layout = replace(layout, index=None)  # which lists what happens to have been built on this machine
    elif volume.image:
        tree = Tree(images[volume.image], f"{directory}/lower", origin)
    return VolumePlan(
        volume.name, directory, origin, ("linuxkit.volumes", location), volume.readonly, tree, layout, volume.platforms
    )


def _sbom_path(text: str) -> str:
    path = text.lstrip("/")
    if not path or ".." in path.split("/"):
        raise InputError(f"'{text}' is no place for the SBOM", hint="give a file name, such as sbom.spdx.json")
    return path
